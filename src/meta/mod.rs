//! The metadata service.

pub mod raft;
