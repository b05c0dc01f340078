//! What is mounted where, as `/proc/self/mountinfo` lists it. Looks, and touches no mount but to ask whether anybody is there.

use std::collections::HashSet;
use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What the kernel shows behind the dot of the type of a mount of ours.
pub const SUBTYPE: &str = "holdfast";
/// A mount that the kernel tells of `sync` (see `blockdev`), and one that it does not.
pub const ON_BLOCK_DEVICE: &str = "fuseblk.holdfast";
pub const PLAIN: &str = "fuse.holdfast";

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    pub target: PathBuf,
    /// Which directory of the filesystem is mounted there.
    pub root: PathBuf,
    /// `(major, minor)`, which no two filesystems share.
    pub device: (u32, u32),
    pub fs_type: String,
    pub source: String,
    /// Nothing can be written through it, whatever its filesystem would take.
    pub read_only: bool,
    /// What is mounted below it is seen by others who have it as well, in containers too.
    pub shared: bool,
}

impl MountEntry {
    pub fn is_ours(&self) -> bool {
        [ON_BLOCK_DEVICE, PLAIN].contains(&self.fs_type.as_str())
    }

    /// What is mounted is this volume, of whatever cluster.
    pub fn is_volume(&self, name: &str) -> bool {
        self.is_ours() && self.source.rsplit_once(":/").is_some_and(|(_, volume)| volume == name)
    }
}

/// The mount on top at exactly this path, which is absolute and without links.
///
/// # Errors
/// `/proc` is not mounted.
pub fn mounted_at(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(find(&fs::read("/proc/self/mountinfo")?, path))
}

/// Everything that is mounted.
///
/// # Errors
/// `/proc` is not mounted.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    Ok(fs::read("/proc/self/mountinfo")?.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
}

/// Wherever the filesystem of this device is mounted.
///
/// # Errors
/// `/proc` is not mounted.
pub fn mounts_of(device: (u32, u32)) -> io::Result<Vec<MountEntry>> {
    Ok(mounts()?.into_iter().filter(|entry| entry.device == device).collect())
}

/// In how many namespaces the filesystem of this device is mounted elsewhere than at `place`, as in the containers that have it. Who has a
/// copy of this host's own table (services), or this host's tree below a directory of its own (monitoring), has it at the same place.
/// Where this process is in a container, this host has the place by another name. Only namespaces of processes that are seen from here
/// count.
///
/// # Errors
/// `/proc` is not mounted.
pub fn users_of(device: (u32, u32), place: &Path) -> io::Result<usize> {
    let outside = outside(&fs::read("/proc/self/mountinfo")?, place);
    let places: Vec<&Path> = [Some(place), outside.as_deref()].into_iter().flatten().collect();
    let tables = tables_but(HashSet::new())?;
    Ok(tables.iter().filter(|mountinfo| is_used(mountinfo, device, &places)).count())
}

/// Whether some other namespace has a mount of this device. Unmounted here, it stays there if that has it for itself: whether it has,
/// its table does not say, as it is the place around a mount that goes along or does not. Only namespaces of processes that are seen from here count.
///
/// # Errors
/// `/proc` is not mounted.
pub fn is_mounted_elsewhere(device: (u32, u32)) -> io::Result<bool> {
    let here = HashSet::from([fs::read_link("/proc/self/ns/mnt")?]);
    Ok(tables_but(here)?.iter().any(|mountinfo| has(mountinfo, device)))
}

fn has(mountinfo: &[u8], device: (u32, u32)) -> bool {
    let mut entries = mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line);
    entries.any(|entry| entry.device == device)
}

/// What is mounted in each namespace, but for those that were seen.
fn tables_but(mut seen: HashSet<PathBuf>) -> io::Result<Vec<Vec<u8>>> {
    let mut tables = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        // One that has ended meanwhile has nothing mounted.
        let Ok(namespace) = fs::read_link(process.path().join("ns/mnt")) else { continue };
        if seen.contains(&namespace) {
            continue;
        }
        let Ok(mountinfo) = fs::read(process.path().join("mountinfo")) else { continue };
        seen.insert(namespace);
        tables.push(mountinfo);
    }
    Ok(tables)
}

fn is_used(mountinfo: &[u8], device: (u32, u32), places: &[&Path]) -> bool {
    let below = |place: &&Path| place.strip_prefix("/").unwrap_or(place).to_path_buf();
    let places: Vec<PathBuf> = places.iter().map(below).collect();
    let mut entries = mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line);
    entries.any(|entry| entry.device == device && !places.iter().any(|place| entry.target.ends_with(place)))
}

/// What a place is called on the filesystem that it is on, where a directory of that is bound into a container.
fn outside(mountinfo: &[u8], place: &Path) -> Option<PathBuf> {
    let entry = covering(mountinfo, place.parent()?)?;
    let rest = place.strip_prefix(&entry.target).ok()?;
    (entry.root != Path::new("/")).then(|| entry.root.join(rest))
}

/// The mount that this path, absolute and without links, lies on, by such a list.
pub fn covering(mountinfo: &[u8], path: &Path) -> Option<MountEntry> {
    let entries = mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line);
    // Of those at the same place the last is on top.
    entries.filter(|entry| path.starts_with(&entry.target)).max_by_key(|entry| entry.target.components().count())
}

fn find(mountinfo: &[u8], path: &Path) -> Option<MountEntry> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line).rfind(|entry| entry.target == path)
}

/// `36 35 98:0 /root /target opts - type source super`, with octal escapes in the names.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let (major, minor) = std::str::from_utf8(fields.get(2)?).ok()?.split_once(':')?;
    Some(MountEntry {
        target: OsString::from_vec(unescape(fields.get(4)?)).into(),
        root: OsString::from_vec(unescape(fields.get(3)?)).into(),
        device: (major.parse().ok()?, minor.parse().ok()?),
        fs_type: text(fields.get(dash + 1)?),
        source: text(fields.get(dash + 2)?),
        read_only: fields.get(5)?.split(|byte| *byte == b',').any(|option| option == b"ro"),
        shared: fields.get(6..dash)?.iter().any(|field| field.starts_with(b"shared:")),
    })
}

/// The kernel writes a space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|digits| *byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &tail[3..];
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

/// `path` without links, although what is mounted on it may not answer: only what leads there is looked at.
///
/// # Errors
/// Something on the way there is missing or closed; or the path has no last name.
pub fn resolve_untouched(path: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let parent = if parent.as_os_str().as_bytes().is_empty() { Path::new(".") } else { parent };
    Ok(parent.canonicalize()?.join(name))
}

/// Whether a mount's process is gone: every call says "Transport endpoint is not connected". Asked by what the kernel never
/// answers itself; attributes of the root it may know for a moment.
pub fn is_dead(path: &Path) -> bool {
    statfs_error(path) == Some(libc::ENOTCONN)
}

/// Whether it will never be a mount again that can be used: its process is gone, or says of itself that its volume is another's by
/// now (`EIO`, which it says to this for no other reason).
pub fn has_ended(path: &Path) -> bool {
    matches!(statfs_error(path), Some(libc::ENOTCONN | libc::EIO))
}

fn statfs_error(path: &Path) -> Option<i32> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` is a NUL-terminated string and `found` room for the answer, which is not looked at.
    let failed = unsafe { libc::statfs(path.as_ptr(), found.as_mut_ptr()) } != 0;
    if failed { io::Error::last_os_error().raw_os_error() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n\
        36 22 0:30 / /mnt/a\\040b rw,nosuid shared:1 master:2 - fuse.holdfast a:1,b:1:/main rw,user_id=0\n\
        37 36 0:31 / /mnt/a\\040b rw - tmpfs tmp rw\n\
        38 22 7:3 / /mnt/c ro,nosuid - fuseblk.holdfast a:1:/main rw,user_id=0\n\
        broken line\n";

    #[test]
    fn the_mount_on_top_is_found() {
        let entry = find(MOUNTINFO, Path::new("/mnt/a b")).unwrap();
        assert_eq!((entry.device, entry.fs_type.as_str(), entry.source.as_str()), ((0, 31), "tmpfs", "tmp"));
        assert_eq!(find(MOUNTINFO, Path::new("/mnt/a")), None);
        assert_eq!(find(MOUNTINFO, Path::new("/")).unwrap().fs_type, "ext4");
        assert!(!entry.read_only && find(MOUNTINFO, Path::new("/mnt/c")).unwrap().read_only);
    }

    #[test]
    fn who_has_a_volume_has_it_elsewhere() {
        let container = b"40 39 0:30 / /data rw - fuse.holdfast a:1:/www rw\n";
        let monitor = b"40 39 0:30 / /rootfs/var/lib/holdfast/mounts/www ro - fuse.holdfast a:1:/www rw\n";
        let places = [Path::new("/var/lib/holdfast/mounts/www")];
        assert!(is_used(container, (0, 30), &places));
        assert!(!is_used(container, (0, 31), &places));
        assert!(!is_used(monitor, (0, 30), &places), "it sees the host's tree");
    }

    #[test]
    fn what_a_table_has_is_known_by_its_device() {
        for propagation in ["", "shared:7 ", "master:7 ", "shared:8 master:7 "] {
            let line = format!("40 39 0:30 / /rootfs/data rw {propagation}- fuse.holdfast a:1:/www rw\n");
            assert!(has(line.as_bytes(), (0, 30)) && !has(line.as_bytes(), (0, 31)), "{line}");
        }
    }

    #[test]
    fn a_place_in_a_container_is_known_by_its_name_outside() {
        let container = b"40 39 0:50 / / rw - overlay overlay rw\n\
            41 40 254:0 /var/lib/docker/plugins/1a2b/propagated-mount /var/lib/holdfast rw shared:1 - ext4 /dev/root rw\n\
            42 41 0:30 / /var/lib/holdfast/mounts/www rw - fuse.holdfast a:1:/www rw\n";
        let host =
            b"60 22 0:30 / /var/lib/docker/plugins/1a2b/propagated-mount/mounts/www rw - fuse.holdfast a:1:/www rw\n";
        let place = Path::new("/var/lib/holdfast/mounts/www");
        let outside = outside(container, place).unwrap();
        assert!(!is_used(host, (0, 30), &[place, &outside]));
        assert!(is_used(host, (0, 30), &[place]));
        assert!(is_used(b"70 60 0:30 / /data rw - fuse.holdfast a:1:/www rw\n", (0, 30), &[place, &outside]));
        assert_eq!(super::outside(b"22 1 254:0 / / rw - ext4 /dev/root rw\n", place), None, "it is no other name");
    }

    #[test]
    fn ours_are_known_by_their_type() {
        assert!(!find(MOUNTINFO, Path::new("/")).unwrap().is_ours());
        let entry = find(MOUNTINFO, Path::new("/mnt/c")).unwrap();
        assert!(entry.is_ours());
        assert_eq!((entry.device, entry.source.as_str()), ((7, 3), "a:1:/main"));
        assert!(entry.is_volume("main") && !entry.is_volume("ain"));
        assert!(parse_line(MOUNTINFO.split(|byte| *byte == b'\n').nth(1).unwrap()).unwrap().is_ours());
    }

    #[test]
    fn a_path_lies_on_the_nearest_mount() {
        let on = |path: &str| covering(MOUNTINFO, Path::new(path)).unwrap();
        assert_eq!((on("/etc").fs_type.as_str(), on("/etc").shared), ("ext4", false));
        assert_eq!(on("/mnt/a b/c").fs_type, "tmpfs", "the last one is on top");
        assert_eq!(on("/mnt/a bc").fs_type, "ext4");
        let line = MOUNTINFO.split(|byte| *byte == b'\n').nth(1).unwrap();
        assert!(parse_line(line).unwrap().shared);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(br"a\040b\134c\n\04"), br"a b\c\n\04");
    }
}
