//! The command line as clap sees it: words and flags, no behaviour.
//!
//! A flag that is also a setting is an `Option` here, so that the layers below it (environment, file, default) show
//! through. No flag takes a secret: what is in argv is in `ps`.

mod container;
mod preflight;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::value::{ByteSize, HostPort, HostPorts, Label, LabelFilter, LogFormat, Mode, Span};
use crate::types::attr::Owner;
use crate::types::record::Role;

pub use self::container::*;
pub use self::preflight::*;

#[derive(Debug, Parser)]
#[command(
    name = "holdfast",
    version,
    about = "A container-native distributed POSIX filesystem",
    after_help = "Try it: `holdfast up` starts a small cluster on this machine and mounts a volume.",
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Default, Args)]
pub struct CommonArgs {
    /// The configuration file [env: HOLDFAST_CONFIG] [default: /etc/holdfast/holdfast.toml, when there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to log: a level, or levels by module, as in info,holdfast::meta=debug
    #[arg(long, global = true, value_name = "LEVELS")]
    pub log: Option<String>,
    /// How log lines look: text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a small cluster on this machine, three copies of everything, and mount a volume
    Up(UpArgs),
    /// Stop what `holdfast up` started
    Down(DownArgs),
    /// Make a cluster
    Cluster(ClusterArgs),
    /// Run a metadata server
    Meta(MetaArgs),
    /// Run a store
    Store(StoreArgs),
    /// Mount a volume
    Mount(MountArgs),
    /// Run the HTTP interface: volumes, stores and clients as JSON, metrics
    Api(ApiArgs),
    /// Run the volume plugin of this host's Docker engine
    Docker(DockerArgs),
    /// Run a driver of the Container Storage Interface (CSI), for Kubernetes
    Csi(CsiArgs),
    /// Make everything done through a mount durable, as syncfs does where the kernel passes it on
    Sync(SyncArgs),
    /// Make, change, list, show and delete volumes
    Volume(VolumeArgs),
    /// Make one-time tokens to join with
    Token(TokenArgs),
    /// Make, list and delete keys to the HTTP interface
    Key(KeyArgs),
    /// Turn a token for a client or an operator into a credential file
    Join(JoinArgs),
    /// Show the cluster at a glance
    Status(StatusArgs),
    /// Make what a server needs before its first start, where nobody carries tokens: in containers
    Bootstrap(BootstrapArgs),
    /// Ask whether a server or a mount answers: for health checks
    Probe(ProbeArgs),
    /// Check that this host has what a role needs, before it is started
    Preflight(PreflightArgs),
    /// Measure how fast a directory is, on a mount or anywhere else
    Bench(BenchArgs),
    /// Show the settings and where they come from
    Config(ConfigArgs),
    /// Make what a package installs beside the program
    Generate(GenerateArgs),
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// Where the cluster keeps everything [default: /var/lib/holdfast/up, or ~/.local/share/holdfast/up]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where to mount the volume [default: /mnt/holdfast, or ~/holdfast]
    #[arg(long, value_name = "MNT")]
    pub mount: Option<PathBuf>,
    /// Go to the background once mounted
    #[arg(long)]
    pub detach: bool,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Where to measure; everything happens in a directory made there, which is gone afterwards
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// Size of the large file, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub size_mib: u64,
    /// How many small files
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub files: u64,
    /// How long each random load goes on, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    pub seconds: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DownArgs {
    /// The data directory that was given to `up`
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// How long to wait for it
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    pub timeout: Span,
}

#[derive(Debug, Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    pub command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make the certificate authority, the first metadata server's directory and the operator's credential
    Init(InitArgs),
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// The data directory of the first metadata server; it must be empty or absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where the first metadata server will listen
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<HostPort>,
    /// The address others will be told, when it is another
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<HostPort>,
}

#[derive(Debug, Default, Args)]
pub struct JoinWith {
    /// A file with the token to join with, - for standard input; or put the token into $HOLDFAST_TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct MetaArgs {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<HostPort>,
    /// The address others are told, when it is another
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<HostPort>,
    #[command(flatten)]
    pub join: JoinWith,
}

#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The state directory (small)
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A directory of a disk to pool; give it once per disk
    #[arg(long = "disk", value_name = "DIR")]
    pub disks: Vec<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<HostPort>,
    /// The address others are told, when it is another
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<HostPort>,
    /// Failure domain: the name of the host [default: this host's name]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Failure domain above the host
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    #[command(flatten)]
    pub join: JoinWith,
}

#[derive(Debug, Args)]
pub struct MountArgs {
    /// Metadata servers: host:port[,host:port…]
    #[arg(value_name = "META")]
    pub metas: HostPorts,
    /// The volume
    #[arg(value_name = "VOLUME")]
    pub volume: String,
    /// The directory to mount it on
    #[arg(value_name = "MNT")]
    pub mountpoint: PathBuf,
    /// Mount options, separated by commas: ro, nosuid, nodev, noexec, noatime, allow_other, credential=FILE, …
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// The credential file; with a token it is made, otherwise read
    #[arg(long, value_name = "FILE")]
    pub credential: Option<PathBuf>,
    /// Stay in the foreground, log to standard error
    #[arg(long, short = 'f')]
    pub foreground: bool,
    /// Where a detached mount logs
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// What the mount may use for buffers and caches together, as in 512MiB
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// A directory to keep what was read in, over restarts; each volume has its own in it
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// How much is kept there, about, as in 50GiB
    #[arg(long, value_name = "BYTES")]
    pub cache_size: Option<String>,
    /// Threads that take requests from the kernel
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<u32>,
    /// How long to try for a first answer of the cluster, as in 30s
    #[arg(long, value_name = "TIME")]
    pub patience: Option<String>,
    #[command(flatten)]
    pub join: JoinWith,
}

#[derive(Debug, Args)]
pub struct SyncArgs {
    /// A directory on the mount
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
}

/// How an operator's command finds its cluster.
#[derive(Debug, Default, Args)]
pub struct AdminArgs {
    /// The credential file [env: HOLDFAST_CREDENTIAL] [default: /etc/holdfast/admin.credential, or that of `up`]
    #[arg(long, value_name = "FILE")]
    pub credential: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct VolumeArgs {
    #[command(subcommand)]
    pub command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume
    Create(VolumeCreateArgs),
    /// Change what a volume may hold, and what is written on it
    Set(VolumeSetArgs),
    /// List the volumes
    List {
        /// Only those with this label, and this value if one is given; may be given again
        #[arg(long = "label", short = 'l', value_name = "KEY[=VALUE]")]
        labels: Vec<LabelFilter>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Show one volume
    Show {
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Delete a volume and everything in it
    Delete {
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

#[derive(Debug, Args)]
pub struct VolumeCreateArgs {
    #[command(flatten)]
    pub volume: NewVolumeArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// What a volume is to be like.
#[derive(Debug, Args)]
pub struct NewVolumeArgs {
    pub name: String,
    /// Copies of every chunk [default: 3]
    #[arg(long, value_name = "N")]
    pub replicas: Option<u8>,
    /// Chunk size: a power of two from 64KiB to 4MiB [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub chunk_size: Option<ByteSize>,
    /// Most bytes the volume may hold; 0 is no limit
    #[arg(long, value_name = "SIZE")]
    pub quota: Option<ByteSize>,
    /// Most inodes the volume may hold; 0 is no limit
    #[arg(long, value_name = "N")]
    pub quota_inodes: Option<u64>,
    /// How long I/O waits while the cluster is away before it fails; 0 waits for ever
    #[arg(long, value_name = "SPAN")]
    pub patience: Option<Span>,
    /// On how many hosts it is mounted at once
    #[arg(long, value_enum, default_value = "rwx")]
    pub access: AccessArg,
    /// Whom the volume's root directory belongs to [default: who makes the volume]
    #[arg(long, value_name = "UID[:GID]")]
    pub owner: Option<Owner>,
    /// The permissions of the volume's root directory [default: 755]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Mode>,
    /// What is written on the volume, to find it by; may be given again
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct VolumeChangeArgs {
    /// Most bytes the volume may hold, not less than it does; 0 is no limit
    #[arg(long, value_name = "SIZE")]
    pub quota: Option<ByteSize>,
    /// Most inodes the volume may hold, not less than it does; 0 is no limit
    #[arg(long, value_name = "N")]
    pub quota_inodes: Option<u64>,
    /// How long I/O waits while the cluster is away before it fails, on mounts made from now on; 0 waits for ever
    #[arg(long, value_name = "SPAN")]
    pub patience: Option<Span>,
    /// On how many hosts it is mounted at once; cannot be changed while it is mounted
    #[arg(long, value_enum)]
    pub access: Option<AccessArg>,
    /// What is written on the volume, to find it by; may be given again
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// A label that is taken off it; may be given again
    #[arg(long = "unlabel", value_name = "KEY")]
    pub unlabels: Vec<String>,
}

#[derive(Debug, Args)]
pub struct VolumeSetArgs {
    pub name: String,
    #[command(flatten)]
    pub change: VolumeChangeArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessArg {
    /// Any number of hosts, each seeing what the others did
    Rwx,
    /// One host, whose kernel then caches all it likes
    Rwo,
    /// Any number of hosts, which read only
    Rox,
    /// One host: who mounts it shuts out who had it
    Fenced,
    /// One host, and one container there
    Rwop,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it
    Create(TokenCreateArgs),
}

#[derive(Debug, Args)]
pub struct TokenCreateArgs {
    /// What may join with it
    #[arg(long)]
    pub role: RoleArg,
    /// A volume the client may mount, may be given again [default: all]
    #[arg(long = "volume", value_name = "NAME")]
    pub volumes: Vec<String>,
    /// The client may not write
    #[arg(long)]
    pub read_only: bool,
    /// How long the token can be used
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    pub ttl: Span,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    Meta,
    Store,
    Client,
    Admin,
}

#[derive(Debug, Args)]
pub struct ApiArgs {
    /// Where it listens, TCP; without TLS of this host alone [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<HostPort>,
    /// The certificate to show, PEM, with those above it
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Print the description of the interface (OpenAPI) and end
    #[arg(long)]
    pub openapi: bool,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it; it cannot be shown again
    Create(KeyCreateArgs),
    /// List keys, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Delete a key: it is of no use a few seconds later
    Delete {
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

#[derive(Debug, Args)]
pub struct KeyCreateArgs {
    /// What it is called, to take it back by
    pub name: String,
    /// What its holder may do
    #[arg(long)]
    pub role: ApiRoleArg,
    /// A volume its holder sees, may be given again [default: all, and the rest of the cluster]
    #[arg(long = "volume", value_name = "NAME")]
    pub volumes: Vec<String>,
    /// How long it can be used [default: until it is deleted]
    #[arg(long, value_name = "SPAN")]
    pub ttl: Option<Span>,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ApiRoleArg {
    /// Look
    Viewer,
    /// And make, change and delete volumes
    Operator,
    /// And make tokens to join with
    Admin,
}

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The credential file to make
    #[arg(long, value_name = "FILE")]
    pub credential: PathBuf,
    /// What the token is for: client or admin
    #[arg(long, default_value = "client")]
    pub role: HolderArg,
    #[command(flatten)]
    pub join: JoinWith,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(subcommand)]
    pub command: GenerateCommand,
}

#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// Print the completions of a shell
    Completions {
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command
    Man {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting and where its value comes from
    Print {
        /// Only this section: common, meta, store, mount, api, docker, csi or up
        #[arg(long, value_name = "ROLE")]
        role: Option<String>,
    },
    /// Print an annotated file of all settings with their defaults
    Example,
}

/// Who holds a credential file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HolderArg {
    Client,
    Admin,
}

impl From<HolderArg> for Role {
    fn from(holder: HolderArg) -> Role {
        match holder {
            HolderArg::Client => Role::Client,
            HolderArg::Admin => Role::Admin,
        }
    }
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Meta => Role::Meta,
            RoleArg::Store => Role::Store,
            RoleArg::Client => Role::Client,
            RoleArg::Admin => Role::Admin,
        }
    }
}
