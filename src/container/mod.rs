//! Volumes for containers: what an engine or an orchestrator asks for, in its own words.
//!
//! Owns what such doors have in common: what a volume is to be like when it is asked for by words ([`options`]), and mounts that live
//! on when who asked for them is replaced ([`mounter`]), one at a time for each place (`errand`), and where a cluster that makes itself has its credentials ([`vault`]). [`docker`] is the volume plugin of a Docker engine, [`csi`] the driver for orchestrators
//! that speak the Container Storage Interface.
//!
//! Nothing here is remembered that can be looked up: what is mounted is what the kernel's table says. Must never: end a mount that
//! a container may use; wait for a cluster without an end.

pub mod csi;
pub mod docker;
mod errand;
pub mod mounter;
pub mod options;
pub mod vault;
