//! The metadata service.

pub mod command;
pub mod raft;
pub mod state;
