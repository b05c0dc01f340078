//! The metadata service.

pub mod leader;
pub mod lease;
pub mod names;
pub mod raft;
