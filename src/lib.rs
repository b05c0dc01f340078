//! Holdfast: a container-native distributed POSIX filesystem.
//!
//! # Layout
//!
//! Modules are listed in layer order; imports point up this list only (`tests/tidy.rs` holds them to it).

pub mod client;
pub mod kv;
pub mod meta;
pub mod net;
pub mod remote;
pub mod types;
pub mod wire;
