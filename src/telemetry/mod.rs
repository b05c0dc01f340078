//! What a process tells of itself. Owns the log; never decides anything.

pub mod log;
