//! The metadata service: who may change what, in which order, and who has to hear of it.
//!
//! ```text
//! serve ── reads ──► state (a view of the newest)          workers (expire, reap, collect, grow)
//!   │                  ▲                                       │
//!   │ leases, recalls  │ apply                                 │
//!   ▼                  │                                       ▼
//! leader            raft (log, snapshots) ◄──── commands ──────┘
//! ```
//!
//! Owns the namespace and everything replicated. Never dials out, bar its Raft peers: recalls go down streams that
//! clients opened, orders to stores ride on the replies to their heartbeats.

pub mod command;
mod garbage;
pub mod leader;
pub mod lease;
pub mod names;
mod promises;
pub mod raft;
pub mod serve;
pub mod server;
pub mod state;
pub mod stores;
pub mod strays;
pub mod waiting;
mod workers;

#[cfg(test)]
mod tests;
