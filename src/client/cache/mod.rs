//! Caches: what may be forgotten at any time.

pub mod chunk;
pub mod disk;
