//! The life of a process: start, ready, work, stop.
//!
//! Owns the shutdown token, the background workers and the readiness line. Knows no engine. In order: a role installs
//! the panic hook, hooks the signals, opens its data, starts its workers, says that it is ready, waits for the token,
//! stops what takes calls, and last awaits the workers.

pub mod ready;
pub mod shutdown;
pub mod worker;
