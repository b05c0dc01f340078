//! Holdfast: a container-native distributed POSIX filesystem.
//!
//! # Layout
//!
//! Modules are listed in layer order; imports point up this list only (`tests/tidy.rs` holds them to it).

pub mod cli;
pub mod client;
pub mod config;
pub mod crypto;
pub mod daemon;
pub mod host;
pub mod fuse;
pub mod kv;
pub mod meta;
pub mod net;
pub mod telemetry;
pub mod placement;
pub mod remote;
pub mod store;
pub mod types;
pub mod wire;
