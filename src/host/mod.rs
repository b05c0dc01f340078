//! What the host gives: files, time and chance.
//!
//! Owns the data directory with its lock, atomic file replacement, the clocks, the source of random bytes, and what is
//! known of the process's memory; what the host says of itself and allows this process; memory that outlives it; files as loop devices; what is mounted where, a mount's line for umount(8), and whether its
//! process is there. Knows nothing of the cluster but its id; starts no task.

pub mod bind;
pub mod chance;
pub mod clock;
pub mod data_dir;
pub mod facts;
pub mod file;
pub mod lock;
pub mod loopdev;
pub mod memory;
pub mod mountinfo;
pub mod presence;
pub mod shared;
pub mod space;
pub mod utab;
