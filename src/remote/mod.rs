//! Typed stubs to other processes: the messages of [`wire`](crate::wire) as methods, over a
//! [`Transport`](crate::net::Transport).
//!
//! Owns the rules of talking to a set of equals: which of the metadata servers leads, which replica of a chunk, how many
//! answers, when to ask another. Keeps no data.

pub mod meta;
pub mod operator;
pub mod session;
pub mod short_circuit;
pub mod store;

#[cfg(test)]
pub mod fake;
