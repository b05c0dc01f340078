//! The metadata service.

pub mod lease;
pub mod raft;
