//! One documented struct per role. The comments below are the reference: `deploy/examples/holdfast.toml` is printed
//! from them and held equal to them by a test.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Value;

use super::layer::{ConfigError, Field, FromSettings, Section, Settings};
use super::value::{ByteSize, LogFormat, Span};

/// Writes a settings struct, its documentation as data, and how it is filled.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident = $section:literal {
            $( $(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $key: $type, )+
        }

        impl FromSettings for $name {
            const SECTION: &'static Section = &Section {
                name: $section,
                doc: &[$($about),+],
                fields: &[$(Field {
                    key: stringify!($key),
                    doc: &[$($doc),+],
                    default: || Value::from($default),
                    check: check::<$type>,
                }),+],
            };

            fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
                Ok($name { $( $key: settings.value($section, stringify!($key))?, )+ })
            }
        }
    };
}

/// Every section, in the order of the file.
pub const TABLES: &[&Section] = &[
    CommonConfig::SECTION,
    MetaConfig::SECTION,
    StoreConfig::SECTION,
    MountConfig::SECTION,
    ApiConfig::SECTION,
    DockerConfig::SECTION,
    CsiConfig::SECTION,
    UpConfig::SECTION,
];

section! {
    /// What every role and every command has.
    CommonConfig = "common" {
        /// What is logged: a level (error, warn, info, debug, trace), or levels by module as in
        /// "info,holdfast::meta=debug".
        log: String = "info,openraft=warn",
        /// How log lines look: "text" or "json" (one object a line).
        log_format: LogFormat = "text",
        /// Where the credential file of an operator's command or of a mount is. Empty: the data directory of a
        /// running `holdfast up` if it is named, else /etc/holdfast/admin.credential (commands) or
        /// /etc/holdfast/client.credential (mounts).
        credential: PathBuf = "",
        /// A file with the one-time token to join with, "-" for standard input. Not looked at by a server that has
        /// joined before. $HOLDFAST_TOKEN holds the token itself.
        token_file: PathBuf = "",
    }
}

section! {
    /// A metadata server.
    MetaConfig = "meta" {
        /// The data directory: identity, Raft log, snapshots and index. Held by one process at a time.
        dir: PathBuf = "/var/lib/holdfast/meta",
        /// Where it listens (address:port, UDP), for clients, stores and the other metadata servers. Empty: as when it
        /// was made.
        listen: String = "",
        /// The address others are told (host:port). Empty: the one it listens on, which must not be 0.0.0.0 then.
        advertise: String = "",
        /// How much of its index it keeps in memory: enough for a million inodes, and what is beyond that comes from the
        /// disk. The process takes half as much again, 64 MiB, and some 20 bytes for each inode there is.
        cache: ByteSize = "512MiB",
    }
}

section! {
    /// A store.
    StoreConfig = "store" {
        /// The state directory: identity only; small. Held by one process at a time.
        dir: PathBuf = "/var/lib/holdfast/store",
        /// One directory per disk to pool, each on a filesystem of its own.
        disks: Vec<PathBuf> = Vec::<String>::new(),
        /// Where it listens (address:port, UDP), for clients and other stores. Empty: as when it was made.
        listen: String = "",
        /// The address others are told (host:port). Empty: the one it listens on, which must not be 0.0.0.0 then.
        advertise: String = "",
        /// Failure domain: copies of a chunk go to different hosts. Empty: this host's name.
        host: String = "",
        /// Failure domain above the host: copies go to different zones where there are enough.
        zone: String = "",
    }
}

section! {
    /// A mount.
    MountConfig = "mount" {
        /// What the process of a mount may take (80 MiB at least).
        memory: ByteSize = "256MiB",
        /// A directory of this host's in which a mount keeps what it has read, over restarts; each volume has its own in
        /// it. Empty: none.
        cache: PathBuf = "",
        /// How much each mount keeps there, about.
        cache_size: ByteSize = "10GiB",
        /// Whether chunks of a store on this host are read from its disks where their files can be opened, without the store.
        short_circuit: bool = true,
        /// Whether a mount in the background outlives its process: by holdfast-keeper, which lies beside holdfast.
        keeper: bool = true,
        /// Threads that take requests from the kernel (at most 64); 0 is one per core, two at least and eight at most.
        threads: u32 = 0,
        /// Where a detached mount logs. Empty: /var/log/holdfast/mount-VOLUME.log for root,
        /// ~/.local/state/holdfast/mount-VOLUME.log for others.
        log_file: PathBuf = "",
        /// How long to try for a first answer of the cluster before giving up.
        patience: Span = "10s",
    }
}

section! {
    /// The HTTP interface.
    ApiConfig = "api" {
        /// Where it listens (address:port, TCP). Without TLS only an address of this host alone will do.
        listen: String = "127.0.0.1:7480",
        /// The certificate it shows, PEM, with those above it; renewed files are taken within seconds. Empty: no TLS.
        tls_cert: PathBuf = "",
        /// Its key, PEM.
        tls_key: PathBuf = "",
    }
}

section! {
    /// The volume plugin of a Docker engine.
    DockerConfig = "docker" {
        /// Where Docker finds it; the driver has the name of the file. systemd may hand over another.
        socket: PathBuf = "/run/docker/plugins/holdfast.sock",
        /// Where it keeps who uses which volume, and mounts them.
        dir: PathBuf = "/var/lib/holdfast/docker",
        /// A use of which no container has been seen for so long has ended: Docker does not say so when the plugin died before it
        /// answered. A container that starts has to be there by then.
        forget: Span = "10m",
    }
}

section! {
    /// The driver of the Container Storage Interface.
    CsiConfig = "csi" {
        /// Its socket. Orchestrators give it as $CSI_ENDPOINT.
        endpoint: String = "unix:///run/holdfast/csi.sock",
        /// Which services it has: "all", "controller" or "node". The controller needs an operator's credential, a node alone a client's.
        role: String = "all",
        /// What the node is called. Empty: this host's name.
        node_id: String = "",
        /// Where a node keeps what it must not forget.
        dir: PathBuf = "/var/lib/holdfast/csi",
        /// Where the node is, as in ["topology.kubernetes.io/zone=a"], and for a controller alone where volumes are reached from, which
        /// may be several segments of a domain. Empty: volumes are told to be of use from everywhere.
        topology: Vec<String> = Vec::<String>::new(),
        /// The socket of who makes the mounts of a node (holdfast-keeper --serve), for one that is in a container. Empty: it makes them
        /// itself.
        mounts_socket: PathBuf = "",
        /// The version of the specification that its capabilities are told by: "1.12", or "1.13" for orchestrators that know it.
        spec_level: String = "1.12",
        /// Volumes may be raw block devices, for one node at a time: a file that fills the volume, as a loop device. A node needs /dev for it.
        raw_block: bool = false,
        /// How long a node's call waits for a cluster that is away before it says so; what it has begun goes on. Orchestrators wait about
        /// two minutes, and a mount tries for as long as its own patience to reach the cluster first.
        patience: Span = "100s",
    }
}

section! {
    /// The embedded cluster of `holdfast up`.
    UpConfig = "up" {
        /// Where it keeps everything. Empty: /var/lib/holdfast/up for root, ~/.local/share/holdfast/up for others.
        data: PathBuf = "",
        /// Where the volume is mounted. Empty: /mnt/holdfast for root, ~/holdfast for others.
        mount: PathBuf = "",
    }
}

fn check<'de, T: Deserialize<'de>>(value: &Value) -> Result<(), String> {
    T::deserialize(value.clone()).map(|_| ()).map_err(|error| error.to_string())
}
