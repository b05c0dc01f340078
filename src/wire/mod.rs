//! Messages between processes: bytes to types and nothing else.
//!
//! Owns the frame header, the message kinds and their rkyv encoding. Knows no socket, no task and no engine. Every
//! decoder validates before use and returns a `Result`.

pub mod codec;
pub mod join;
pub mod meta;
pub mod store;
