//! The filesystem client: POSIX semantics over leases, caches and write-back. Knows no kernel.

pub mod api;
pub mod kernel;
