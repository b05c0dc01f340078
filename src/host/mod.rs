//! What the host gives: files, time and chance.
//!
//! Owns the data directory with its lock, atomic file replacement, the clocks and the source of random bytes. Knows
//! nothing of the cluster but its id; starts no task.

pub mod chance;
pub mod clock;
pub mod data_dir;
pub mod file;
pub mod lock;
pub mod space;
