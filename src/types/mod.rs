//! The vocabulary: pure values that every layer shares.
//!
//! Owns the identifiers, attributes, extents, operations and errors of the system. Never does I/O, never reads a
//! clock, never starts a task, and imports no other module of Holdfast. Everything that crosses the wire or reaches a
//! disk is built from these and derives rkyv, so it is decoded with validation.

pub mod allowance;
pub mod api_key;
pub mod attr;
pub mod cluster;
pub mod digest;
pub mod effect;
pub mod error;
pub mod extent;
pub mod id;
pub mod limits;
pub mod lock;
pub mod locking;
pub mod name;
pub mod op;
pub mod record;
pub mod rewrite;
pub mod session;
pub mod volume;
pub mod xattr;
