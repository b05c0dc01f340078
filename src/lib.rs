//! Holdfast: a container-native distributed POSIX filesystem.
//!
//! # Layout
//!
//! Modules are listed in layer order; imports point up this list only (`tests/tidy.rs` holds them to it).

// Prose, for rustdoc alone.
#[cfg(doc)]
pub mod docs;

// Words: pure values.
pub mod types;

pub mod config;
pub mod placement;
pub mod wire;

// Ground: what every process stands on.
pub mod host;
pub mod telemetry;

pub mod keeper;

pub mod crypto;
pub mod daemon;
pub mod kv;
pub mod pack;

// Talk.
pub mod net;

pub mod remote;

// The engines. None imports another.
pub mod client;
pub mod meta;
pub mod store;

// Doors.
pub mod admin;
pub mod cli;
pub mod container;
pub mod fuse;
