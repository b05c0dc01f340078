//! What containers need: Docker's plugin, the CSI driver, servers that make themselves and are asked how they are.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{AdminArgs, NewVolumeArgs};
use crate::config::value::HostPort;

#[derive(Debug, Args)]
pub struct DockerArgs {
    /// Where Docker finds it; its name is that of the driver [default: /run/docker/plugins/holdfast.sock]
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// Where it keeps what it must not forget, and mounts volumes [default: /var/lib/holdfast/docker]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Debug, Args)]
pub struct CsiArgs {
    /// The socket: unix:///path [default: unix:///run/holdfast/csi.sock]
    #[arg(long, env = "CSI_ENDPOINT", value_name = "ENDPOINT")]
    pub endpoint: Option<String>,
    /// Which services it has: all, controller or node [default: all]
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// What the node is called [default: this host's name]
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,
    /// Where it keeps what it must not forget [default: /var/lib/holdfast/csi]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where the node is, as in topology.kubernetes.io/zone=a, and for a controller alone where volumes are reached from; may be
    /// given again, for a controller also with other segments of a domain
    #[arg(long, value_name = "DOMAIN=SEGMENT")]
    pub topology: Vec<String>,
    /// Have mounts made by the service on this socket (holdfast-keeper --serve), which this process may be replaced without
    #[arg(long, value_name = "FILE")]
    pub mounts_socket: Option<PathBuf>,
    /// The version of the specification that its capabilities are told by: 1.12 or 1.13 [default: 1.12]
    #[arg(long, value_name = "VERSION")]
    pub spec_level: Option<String>,
    /// Volumes may be raw block devices too, as loop devices
    #[arg(long)]
    pub raw_block: bool,
    /// An operator's credential, or for a node alone a client's [env: HOLDFAST_CREDENTIAL]
    #[arg(long, value_name = "FILE")]
    pub credential: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct BootstrapArgs {
    #[command(subcommand)]
    pub command: BootstrapCommand,
}

#[derive(Debug, Subcommand)]
pub enum BootstrapCommand {
    /// The directory of a metadata server: of a new cluster, or one that joins
    Meta(BootstrapMetaArgs),
    /// The directory of a store that joins
    Store(BootstrapStoreArgs),
    /// A client's credential
    Client(BootstrapClientArgs),
    /// A volume, if there is none of that name, and a client's credential to mount it with
    Volume(BootstrapVolumeArgs),
    /// This program and its keeper, in a directory
    Program(BootstrapProgramArgs),
}

/// Where credentials lie for others.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct VaultArgs {
    /// A Secret of Kubernetes, in this pod's namespace, which is there
    #[arg(long, value_name = "NAME")]
    pub secret: Option<String>,
    /// A directory
    #[arg(long, value_name = "DIR")]
    pub secret_dir: Option<PathBuf>,
}

/// What a container is for, where nothing else runs before it.
#[derive(Debug, Args)]
pub struct ThenArgs {
    /// What this process is to become when everything is made
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct BootstrapMetaArgs {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Where it will listen
    #[arg(long, value_name = "ADDR")]
    pub listen: HostPort,
    /// The address others are told
    #[arg(long, value_name = "ADDR")]
    pub advertise: HostPort,
    /// Which of the servers it is; 0 makes the cluster when there is no operator's credential yet
    #[arg(long, value_name = "N")]
    pub ordinal: u32,
    /// Where the operator's credential lies, or will
    #[command(flatten)]
    pub vault: VaultArgs,
    #[command(flatten)]
    pub then: ThenArgs,
}

#[derive(Debug, Args)]
pub struct BootstrapStoreArgs {
    /// The state directory
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// A directory of a disk to pool; give it once per disk
    #[arg(long = "disk", value_name = "DIR")]
    pub disks: Vec<PathBuf>,
    /// Where it will listen
    #[arg(long, value_name = "ADDR")]
    pub listen: HostPort,
    /// The address others are told
    #[arg(long, value_name = "ADDR")]
    pub advertise: HostPort,
    /// The operator's credential; it is waited for
    #[arg(long, value_name = "FILE")]
    pub credential: PathBuf,
    #[command(flatten)]
    pub then: ThenArgs,
}

#[derive(Debug, Args)]
pub struct BootstrapClientArgs {
    /// The operator's credential; it is waited for
    #[arg(long, value_name = "FILE")]
    pub credential: PathBuf,
    /// Where the client's credential is to lie
    #[command(flatten)]
    pub vault: VaultArgs,
    #[command(flatten)]
    pub then: ThenArgs,
}

#[derive(Debug, Args)]
pub struct BootstrapVolumeArgs {
    #[command(flatten)]
    pub volume: NewVolumeArgs,
    /// A directory that it will be mounted on, made if need be
    #[arg(long, value_name = "DIR")]
    pub mount_point: Option<PathBuf>,
    #[command(flatten)]
    pub client: BootstrapClientArgs,
}

#[derive(Debug, Args)]
pub struct BootstrapProgramArgs {
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// The directory of a metadata server or a store
    #[arg(long, value_name = "DIR", required_unless_present = "mount")]
    pub dir: Option<PathBuf>,
    /// Where a volume is mounted: whether it is, and its process answers
    #[arg(long, value_name = "MNT", conflicts_with_all = ["dir", "ready"])]
    pub mount: Option<PathBuf>,
    /// Also that the cluster has a leader, as far as the server knows
    #[arg(long)]
    pub ready: bool,
}
