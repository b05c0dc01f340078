//! The helper that mount(8) runs for `-t holdfast` and for fstab: `mount.holdfast SOURCE MNT [-sfnv] [-o OPTIONS]`.
//!
//! SOURCE is `META[,META…]:/VOLUME`, as every network filesystem writes it. Options that belong to mount(8) and to
//! systemd are dropped, `credential=FILE` names the credential, the rest is the mount's. Returns once mounted, because
//! whoever called mount(8) uses the directory next. A `remount` changes the flags of the mount that is there and needs
//! no cluster. Its own parser, not clap's: mount(8) passes flags in any place and expects unknown ones to be borne.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cli::args::{CommonArgs, JoinWith, MountArgs};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::mountpoint::{check_ours, is_root};
use crate::config::value::HostPorts;
use crate::fuse::control::check_writable;
use crate::fuse::options::MountOptions;

/// What mount(8) asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    source: String,
    target: PathBuf,
    options: Vec<String>,
    /// `-f`: everything but the mount itself.
    fake: bool,
    /// `-s`: options that are not known are dropped.
    sloppy: bool,
}

/// Options that say something to mount(8), to systemd or to the boot scripts, and nothing to a filesystem.
const FOREIGN_OPTIONS: &[&str] =
    &["_netdev", "auto", "noauto", "defaults", "fail", "nofail", "user", "nouser", "users", "owner", "group", "rw"];
const FOREIGN_PREFIXES: &[&str] = &["x-", "X-", "comment=", "user=", "user_id=", "group_id="];

/// Flags of mount(2), for a remount.
const FLAGS: &[(&str, libc::c_ulong)] = &[
    ("ro", libc::MS_RDONLY),
    ("nosuid", libc::MS_NOSUID),
    ("nodev", libc::MS_NODEV),
    ("noexec", libc::MS_NOEXEC),
    ("sync", libc::MS_SYNCHRONOUS),
    ("dirsync", libc::MS_DIRSYNC),
    ("noatime", libc::MS_NOATIME),
    ("nodiratime", libc::MS_NODIRATIME),
    ("relatime", libc::MS_RELATIME),
    ("strictatime", libc::MS_STRICTATIME),
];

/// Serves one call by mount(8); `arguments` without the program's name.
///
/// # Errors
/// The call is malformed (2), there is no such volume (32), or the mount failed otherwise (1).
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let request = parse(arguments)?;
    if request.options.iter().any(|option| option == "remount") {
        return if request.fake { Ok(()) } else { remount(&request.target, &request.options) };
    }
    let mount = mount_args(&request, is_root())?;
    if request.fake {
        return Ok(());
    }
    crate::cli::mount::run(&CommonArgs::default(), mount)
}

fn parse(arguments: Vec<OsString>) -> Outcome<Request> {
    let mut request = Request::default();
    let mut places = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        match text.strip_prefix('-') {
            Some("o") => {
                let list = arguments.next().ok_or_else(|| Failure::usage("-o needs a list of options"))?;
                request.options.extend(split(&list.to_string_lossy()));
            }
            // A type or a namespace: known already, or mount(8)'s own business.
            Some("t" | "N") => drop(arguments.next()),
            Some(flags) if !flags.is_empty() => match flags.strip_prefix('o') {
                Some(list) => request.options.extend(split(list)),
                None => {
                    request.fake |= flags.contains('f');
                    request.sloppy |= flags.contains('s');
                }
            },
            _ => places.push(argument),
        }
    }
    let [source, target]: [OsString; 2] = places
        .try_into()
        .map_err(|_| Failure::usage("use it as: mount.holdfast META[,META…]:/VOLUME MNT [-o OPTIONS]"))?;
    request.source = source.to_string_lossy().into_owned();
    request.target = PathBuf::from(target);
    Ok(request)
}

fn split(list: &str) -> impl Iterator<Item = String> {
    list.split(',').filter(|option| !option.is_empty()).map(str::to_string)
}

/// mount(8) tells its helpers `nosuid` and `nodev` and keeps the words for the contrary to itself, as they are what local
/// filesystems do. It adds the former for everyone who is not root.
fn unless_told(is_root: bool) -> &'static [&'static str] {
    if is_root { &["suid", "dev"] } else { &[] }
}

fn mount_args(request: &Request, is_root: bool) -> Outcome<MountArgs> {
    let (metas, volume) = parse_source(&request.source)?;
    let foreign = |option: &&String| {
        FOREIGN_OPTIONS.contains(&option.as_str()) || FOREIGN_PREFIXES.iter().any(|prefix| option.starts_with(prefix))
    };
    let borne = |option: &&String| !request.sloppy || is_known(option);
    let asked = request.options.iter().filter(|option| !foreign(option)).filter(borne).cloned();
    let options = unless_told(is_root).iter().map(|option| option.to_string()).chain(asked).collect();
    Ok(MountArgs {
        metas,
        volume,
        mountpoint: request.target.clone(),
        options,
        credential: None,
        foreground: false,
        log_file: None,
        memory: None,
        cache: None,
        cache_size: None,
        threads: None,
        patience: None,
        join: JoinWith::default(),
    })
}

fn is_known(option: &str) -> bool {
    option.starts_with("credential=") || MountOptions::parse("", option).is_ok()
}

/// `META[,META…]:/VOLUME`.
///
/// # Errors
/// The text is of another form; a usage error.
pub fn parse_source(source: &str) -> Outcome<(HostPorts, String)> {
    let fault =
        || Failure::usage(format!("`{source}` is not META[,META…]:/VOLUME, as in 10.0.0.1:7400,10.0.0.2:7400:/main"));
    let (metas, volume) = source.split_once(":/").ok_or_else(fault)?;
    if volume.is_empty() || volume.contains('/') {
        return Err(fault());
    }
    Ok((metas.parse().map_err(Failure::usage)?, volume.to_string()))
}

/// What `/proc/mounts` shows as the device, and fstab must say for `mount -a` to see that it is mounted.
pub fn format_source(metas: &HostPorts, volume: &str) -> String {
    format!("{metas}:/{volume}")
}

fn remount(target: &Path, options: &[String]) -> Outcome {
    let target = std::fs::canonicalize(target).or_fail(|| format!("{} cannot be used", target.display()))?;
    check_ours(&target)?;
    let flags = remount_flags(options);
    if flags & libc::MS_RDONLY == 0 && matches!(check_writable(&target), Err(error) if is_read_only(&error)) {
        let target = target.display();
        return Err(Failure::new(format!("{target} was mounted read-only: unmount it, and mount it again to write")));
    }
    let path = CString::new(target.as_os_str().as_bytes()).or_fail(|| "the mount point has a NUL".to_string())?;
    // SAFETY: `path` is NUL-terminated and outlives the call; mount(2) takes null for source, type and data here.
    let result = unsafe { libc::mount(std::ptr::null(), path.as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Failure::new(format!("{} cannot be remounted: {error}", target.display())))
}

fn is_read_only(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EROFS)
}

fn remount_flags(options: &[String]) -> libc::c_ulong {
    options.iter().fold(libc::MS_REMOUNT, |flags, option| {
        let known = FLAGS.iter().find(|(name, _)| name == option);
        // `rw`, `suid`, `dev`, `exec`, `atime`, `async` undo what came before them.
        let undone = FLAGS.iter().find(|(name, _)| match option.as_str() {
            "rw" => *name == "ro",
            "async" => *name == "sync",
            positive => name.strip_prefix("no") == Some(positive),
        });
        match (known, undone) {
            (Some((_, flag)), _) => flags | flag,
            (None, Some((_, flag))) => flags & !flag,
            (None, None) => flags,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Outcome<Request> {
        parse(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn mount_8_may_pass_flags_anywhere() {
        let wanted = Request {
            source: "a:1,b:2:/main".into(),
            target: "/mnt".into(),
            options: vec!["ro".into(), "_netdev".into()],
            fake: false,
            sloppy: false,
        };
        assert_eq!(request("a:1,b:2:/main /mnt -o ro,_netdev").unwrap(), wanted);
        let sloppy = Request { sloppy: true, ..wanted };
        assert_eq!(request("-n -v a:1,b:2:/main /mnt -oro -s -o _netdev -t fuse.holdfast").unwrap(), sloppy);
        assert!(request("-sfnv a:1:/x /mnt").unwrap().fake);
        assert_eq!(request("a:1:/x").unwrap_err().code(), 2);
        assert_eq!(request("a:1:/x /mnt -o").unwrap_err().code(), 2);
    }

    #[test]
    fn foreign_options_are_dropped_and_ours_are_kept() {
        let line = "a:1:/main /mnt -o rw,_netdev,nofail,noauto,user,x-systemd.automount,credential=/c,noatime";
        let args = mount_args(&request(line).unwrap(), false).unwrap();
        assert_eq!(args.options, ["credential=/c", "noatime"]);
        assert_eq!(args.volume, "main");
        let told = mount_args(&request("a:1:/main /mnt -o nosuid").unwrap(), true).unwrap();
        assert_eq!(told.options, ["suid", "dev", "nosuid"], "the last word holds");
        let sloppy = request("a:1:/main /mnt -s -o frobnicate,noatime,lazytime").unwrap();
        assert_eq!(mount_args(&sloppy, false).unwrap().options, ["noatime", "lazytime"]);
    }

    #[test]
    fn sources_name_servers_and_a_volume() {
        let (metas, volume) = parse_source("[::1]:7400,host:1:/v").unwrap();
        assert_eq!((metas.0.len(), volume.as_str()), (2, "v"));
        assert_eq!(format_source(&metas, &volume), "[::1]:7400,host:1:/v");
        for bad in ["", "host:1", "host:1:/", "host:/v", "host:1:/a/b", ":/v"] {
            assert_eq!(parse_source(bad).unwrap_err().code(), 2, "{bad}");
        }
    }

    #[test]
    fn remount_flags_follow_the_last_word() {
        let flags = |list: &str| remount_flags(&split(list).collect::<Vec<_>>());
        assert_eq!(flags("remount,ro"), libc::MS_REMOUNT | libc::MS_RDONLY);
        assert_eq!(flags("ro,remount,rw"), libc::MS_REMOUNT);
        assert_eq!(flags("remount,nosuid,nodev,suid"), libc::MS_REMOUNT | libc::MS_NODEV);
    }
}
