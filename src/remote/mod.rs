//! Typed stubs to other processes: the messages of [`wire`](crate::wire) as methods, over a
//! [`Transport`](crate::net::Transport).
//!
//! Owns the rules of talking to a set of equals (which replica, how many answers, when to ask another). Keeps no data.

pub mod store;
//! Typed stubs: how a process calls a metadata server or a store without knowing frames.
pub mod meta;
pub mod session;
