//! From the command line to settings: collects flags, reads the one file, and hands both to [`crate::config`].

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cli::args::{
    ApiArgs, CommonArgs, CsiArgs, DockerArgs, InitArgs, JoinWith, MetaArgs, MountArgs, StoreArgs, UpArgs,
};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::config::layer::{Flags, Settings, Sources};
use crate::config::roles::CommonConfig;

/// Where the file is when nobody says, and it need not be there.
const FILE_DEFAULT: &str = "/etc/holdfast/holdfast.toml";
/// A token is a few hundred bytes, at most 8 KiB; of a longer file (the wrong one) no more is read.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// Lays flags, environment, file and defaults over one another.
///
/// # Errors
/// The named file cannot be read, or something in a layer cannot be used.
pub fn settings(common: &CommonArgs, mut flags: Flags) -> Outcome<Settings> {
    flags.set("common", "log", common.log.clone());
    flags.set("common", "log_format", common.log_format.map(|format| format.name().to_string()));
    let env = |name: &str| std::env::var(name).ok();
    Ok(Settings::resolve(Sources { flags, env: &env, file: file(common)? })?)
}

/// The configuration file that was asked for; where there is none, one need not be there.
pub fn named_file(common: &CommonArgs) -> Option<PathBuf> {
    common.config.clone().or_else(|| std::env::var_os("HOLDFAST_CONFIG").map(PathBuf::from))
}

fn file(common: &CommonArgs) -> Outcome<Option<(PathBuf, String)>> {
    let named = named_file(common);
    let path = named.clone().unwrap_or_else(|| PathBuf::from(FILE_DEFAULT));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::usage(format!("the configuration file {} cannot be read: {error}", path.display()))),
    }
}

/// The token to join with, if one was given: a file, standard input, or the environment, in this order.
///
/// # Errors
/// The named file cannot be read or does not hold a token.
pub fn token(common: &CommonConfig) -> Outcome<Option<String>> {
    let path = &common.token_file;
    if path.as_os_str().is_empty() {
        return Ok(std::env::var("HOLDFAST_TOKEN").ok().map(|text| text.trim().to_string()));
    }
    let reading = || format!("the token in {} cannot be read", path.display());
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text).or_fail(reading)?;
    } else {
        let file = std::fs::File::open(path).or_fail(reading)?;
        file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).or_fail(reading)?;
    }
    match text.trim() {
        "" => Err(Failure::new(format!("{} holds no token", path.display()))),
        token => Ok(Some(token.to_string())),
    }
}

/// An absolute path: a background process works in `/`.
///
/// # Errors
/// The path is empty, or there is no current directory.
pub fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).or_fail(|| format!("`{}` is not a path", path.display()))
}

fn text(path: &Option<PathBuf>) -> Option<String> {
    path.as_ref().map(|path| path.to_string_lossy().into_owned())
}

impl JoinWith {
    pub fn flags(&self, flags: &mut Flags) {
        flags.set("common", "token_file", text(&self.token_file));
    }
}

impl From<&InitArgs> for Flags {
    fn from(args: &InitArgs) -> Flags {
        let mut flags = Flags::default();
        flags.set("meta", "dir", text(&args.dir));
        flags.set("meta", "listen", args.listen.as_ref().map(ToString::to_string));
        flags.set("meta", "advertise", args.advertise.as_ref().map(ToString::to_string));
        flags
    }
}

impl From<&MetaArgs> for Flags {
    fn from(args: &MetaArgs) -> Flags {
        let mut flags = Flags::default();
        flags.set("meta", "dir", text(&args.dir));
        flags.set("meta", "listen", args.listen.as_ref().map(ToString::to_string));
        flags.set("meta", "advertise", args.advertise.as_ref().map(ToString::to_string));
        args.join.flags(&mut flags);
        flags
    }
}

impl From<&StoreArgs> for Flags {
    fn from(args: &StoreArgs) -> Flags {
        let mut flags = Flags::default();
        flags.set("store", "dir", text(&args.dir));
        flags.set_list("store", "disks", args.disks.iter().map(|disk| disk.to_string_lossy().into_owned()).collect());
        flags.set("store", "listen", args.listen.as_ref().map(ToString::to_string));
        flags.set("store", "advertise", args.advertise.as_ref().map(ToString::to_string));
        flags.set("store", "host", args.host.clone());
        flags.set("store", "zone", args.zone.clone());
        args.join.flags(&mut flags);
        flags
    }
}

impl From<&MountArgs> for Flags {
    fn from(args: &MountArgs) -> Flags {
        let mut flags = Flags::default();
        flags.set("common", "credential", text(&args.credential));
        flags.set("mount", "log_file", text(&args.log_file));
        flags.set("mount", "memory", args.memory.clone());
        flags.set("mount", "cache", text(&args.cache));
        flags.set("mount", "cache_size", args.cache_size.clone());
        flags.set("mount", "threads", args.threads.map(i64::from));
        flags.set("mount", "patience", args.patience.clone());
        args.join.flags(&mut flags);
        flags
    }
}

impl From<&ApiArgs> for Flags {
    fn from(args: &ApiArgs) -> Flags {
        let mut flags = Flags::default();
        flags.set("common", "credential", text(&args.admin.credential));
        flags.set("api", "listen", args.listen.as_ref().map(ToString::to_string));
        flags.set("api", "tls_cert", text(&args.tls_cert));
        flags.set("api", "tls_key", text(&args.tls_key));
        flags
    }
}

impl From<&DockerArgs> for Flags {
    fn from(args: &DockerArgs) -> Flags {
        let mut flags = Flags::default();
        flags.set("common", "credential", text(&args.admin.credential));
        flags.set("docker", "socket", text(&args.socket));
        flags.set("docker", "dir", text(&args.dir));
        flags
    }
}

impl From<&CsiArgs> for Flags {
    fn from(args: &CsiArgs) -> Flags {
        let mut flags = Flags::default();
        flags.set("common", "credential", text(&args.credential));
        flags.set("csi", "endpoint", args.endpoint.clone());
        flags.set("csi", "role", args.role.clone());
        flags.set("csi", "node_id", args.node_id.clone());
        flags.set("csi", "dir", text(&args.dir));
        flags.set_list("csi", "topology", args.topology.clone());
        flags.set("csi", "mounts_socket", text(&args.mounts_socket));
        flags.set("csi", "spec_level", args.spec_level.clone());
        flags.set("csi", "raw_block", args.raw_block.then_some(true));
        flags
    }
}

impl From<&UpArgs> for Flags {
    fn from(args: &UpArgs) -> Flags {
        let mut flags = Flags::default();
        flags.set("up", "data", text(&args.data));
        flags.set("up", "mount", text(&args.mount));
        flags
    }
}
