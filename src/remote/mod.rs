//! Typed stubs: how a process calls a metadata server or a store without knowing frames.

pub mod meta;
pub mod session;

#[cfg(test)]
pub mod fake;
