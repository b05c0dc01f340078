//! What `holdfast preflight` is asked.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::config::value::HostPort;

#[derive(Debug, Args)]
pub struct PreflightArgs {
    /// What is to run here; several are separated by commas
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', default_value = "client")]
    pub roles: Vec<HostRole>,
    /// A directory of a disk for a store or a metadata server; it is written to for a moment [default: as configured]
    #[arg(long = "disk", value_name = "DIR")]
    pub disks: Vec<PathBuf>,
    /// Where a server is to listen; may be given again [default: as configured]
    #[arg(long = "listen", value_name = "ADDR")]
    pub listen: Vec<HostPort>,
    /// A server that has to be reached from here; may be given again [default: those that the credential names]
    #[arg(long = "server", value_name = "ADDR")]
    pub servers: Vec<HostPort>,
    /// A credential to reach servers with; without one they are only asked whether they are there [default: as configured]
    #[arg(long, value_name = "FILE")]
    pub credential: Option<PathBuf>,
    /// Where volumes are mounted for containers [default: /var/lib/kubelet for csi, the plugin's directory for docker]
    #[arg(long = "path", value_name = "DIR")]
    pub path: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What a host is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HostRole {
    /// Mounts
    Client,
    /// A store
    Store,
    /// A metadata server
    Meta,
    /// The node's part of the CSI driver
    Csi,
    /// The volume plugin of a Docker engine
    Docker,
    /// Each of these
    All,
}
