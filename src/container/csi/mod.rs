//! A driver of the Container Storage Interface: volumes as Kubernetes, and others, ask for them.
//!
//! Owns what the calls of the specification mean here. The messages and services are in [`spec`]; `identity` says what the driver is,
//! `controller` makes, changes and lists volumes, as an operator; `node` has them mounted on one host; `capability` tells which ways of
//! use a volume is fit for, `topology` from where, `fault` which code an error has on the wire; [`server`] listens on the socket.
//!
//! Every call may come again, after a crash of whoever made it or of this process, and two of them about one volume may come at once: the
//! second is told to come back (`ABORTED`). What a node has is read off the kernel's table. A volume's id is its name in the cluster.
//!
//! Must never: log a secret; wait on a node for a cluster that is away longer than the orchestrator would; touch a path through a mount
//! that may hang.

mod block;
mod capability;
mod controller;
pub mod ephemeral;
mod fault;
mod identity;
mod node;
mod patience;
pub mod server;
pub mod spec;
mod staged;
mod stats;
mod topology;
mod turns;

pub use controller::ControllerService;
pub use identity::{DRIVER_NAME, IdentityService, Services, SpecLevel};
pub use node::{NodeService, Place};
pub use topology::{SegmentError, Segments};
