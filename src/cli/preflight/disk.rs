//! What a store or a metadata server needs of a directory: a lasting filesystem that is its own, room, and how long it takes until
//! something is on it for good. Writes a file of a few KiB there, which is gone afterwards.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::finding::Finding;
use crate::cli::table::bytes;
use crate::host::mountinfo::covering;
use crate::host::space::{filesystem_id, free_bytes};

/// Writes that are waited for, each by itself.
const WRITES: usize = 25;
const BLOCK_BYTES: usize = 4096;
/// What is synced in a volume waits for as long, several times.
const SYNC_SLOW: Duration = Duration::from_millis(10);
const ROOM_MIN_BYTES: u64 = 1 << 30;
const ROOM_FAIR_BYTES: u64 = 20 << 30;
/// What ends with the host or the container.
const PASSING: [&str; 3] = ["tmpfs", "ramfs", "overlay"];
/// What is not on a disk of this host's.
const REMOTE: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "virtiofs", "fuse"];

/// All about these directories.
pub fn check(disks: &[PathBuf], mountinfo: &[u8]) -> Vec<Finding> {
    let mut found: Vec<Finding> = disks.iter().flat_map(|disk| one(disk, mountinfo)).collect();
    let ids: Vec<_> = disks.iter().map(|disk| filesystem_id(disk).ok()).collect();
    for (n, disk) in disks.iter().enumerate() {
        if let Some(other) = (0..n).find(|other| ids[n].is_some() && ids[*other] == ids[n]) {
            let says = format!("{} and {} are on one filesystem", disks[other].display(), disk.display());
            found.push(Finding::note("disk", says, "give each disk a filesystem of its own"));
        }
    }
    found
}

fn one(disk: &Path, mountinfo: &[u8]) -> Vec<Finding> {
    let shown = disk.display();
    let path = match fs::canonicalize(disk) {
        Ok(path) if path.is_dir() => path,
        Ok(_) => return vec![Finding::missing("disk", format!("{shown} is not a directory"), "name a directory")],
        Err(error) => {
            let says = format!("{shown} cannot be used ({error})");
            return vec![Finding::missing("disk", says, "make it, or mount the disk there")];
        }
    };
    let mut found = vec![kind(&path, covering(mountinfo, &path).map(|mount| mount.fs_type).as_deref())];
    found.extend(free_bytes(&path).map(|free| room(disk, free)));
    match measure(&path) {
        Ok(measured) => found.extend(speed(disk, &measured)),
        Err(error) => {
            let says = format!("{shown} cannot be written to ({error})");
            found.push(Finding::missing("disk", says, "give it to the user of the server (chown), read-write"));
        }
    }
    found
}

fn kind(disk: &Path, kind: Option<&str>) -> Finding {
    let shown = disk.display();
    let mend = "use XFS or ext4 on a disk of this host";
    match kind {
        None => Finding::note("disk", format!("which filesystem {shown} is on is not shown here"), mend),
        Some(kind) if PASSING.contains(&kind) => {
            Finding::note("disk", format!("{shown} is on {kind}, and what is on it does not last"), mend)
        }
        Some(kind) if REMOTE.contains(&kind) || kind.starts_with("fuse.") => {
            Finding::note("disk", format!("{shown} is on {kind}, which is no disk of this host"), mend)
        }
        Some(kind) => Finding::ok("disk", format!("{shown} is on {kind}")),
    }
}

fn room(disk: &Path, free: u64) -> Finding {
    let says = format!("{} has {} free", disk.display(), bytes(free));
    let mend = "give it more room";
    match free {
        free if free < ROOM_MIN_BYTES => Finding::missing("room", says, mend),
        free if free < ROOM_FAIR_BYTES => Finding::note("room", says, mend),
        _ => Finding::ok("room", says),
    }
}

/// What writes cost there.
struct Measured {
    /// Sorted.
    synced: Vec<Duration>,
    direct: bool,
}

fn measure(dir: &Path) -> io::Result<Measured> {
    let path = dir.join(format!(".holdfast-preflight-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let measured = sync_times(&file).map(|synced| Measured { synced, direct: takes_direct(&path) });
    fs::remove_file(&path)?;
    measured
}

/// Each write is of bytes of its own, at a place of its own, as a log's are.
fn sync_times(file: &File) -> io::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(WRITES);
    for n in 0..WRITES {
        let block = [n as u8; BLOCK_BYTES];
        let begun = Instant::now();
        file.write_all_at(&block, (n * BLOCK_BYTES) as u64)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times)
}

/// A filesystem that knows of it may still refuse to open a file so.
fn takes_direct(path: &Path) -> bool {
    OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).is_ok()
}

fn speed(disk: &Path, measured: &Measured) -> Vec<Finding> {
    let shown = disk.display();
    let ms = |at: usize| measured.synced.get(at).copied().unwrap_or_default();
    let (median, worst) = (ms(measured.synced.len() / 2), ms(measured.synced.len() - 1));
    let [typical, most] = [median, worst].map(|time| format!("{:.2} ms", time.as_secs_f64() * 1000.0));
    let says = format!("a write to {shown} is durable after {typical} (median of {WRITES}; at most {most})");
    let mut found = vec![if median > SYNC_SLOW {
        Finding::note("sync", says, "use a disk that syncs faster: what is synced in a volume waits for it")
    } else {
        Finding::ok("sync", says)
    }];
    found.push(if measured.direct {
        Finding::ok("direct", format!("{shown} takes writes past the page cache"))
    } else {
        let says = format!("{shown} does not take writes past the page cache");
        Finding::note("direct", says, "use XFS or ext4: without it writes take memory and time of the processor")
    });
    found
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    const MOUNTINFO: &[u8] = b"22 1 254:0 / / rw - ext4 a rw\n";

    #[test]
    fn a_directory_is_measured_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let disks = [dir.path().join("one"), dir.path().join("two")];
        disks.iter().for_each(|disk| fs::create_dir(disk).unwrap());
        let found = check(&disks, MOUNTINFO);
        assert!(found.iter().any(|finding| finding.says.contains("is durable after")), "{found:?}");
        assert!(found.iter().any(|finding| finding.says.contains("on one filesystem")), "{found:?}");
        assert_eq!(fs::read_dir(&disks[0]).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_directory_is_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let disks = [file.path().to_path_buf(), "/no/such/disk".into(), "/proc/self".into()];
        let found = check(&disks, MOUNTINFO);
        assert_eq!(found.iter().filter(|finding| finding.state == State::Missing).count(), 3 + 1, "{found:?}");
    }

    #[test]
    fn filesystems_that_do_not_last_or_are_elsewhere_are_noted() {
        let state = |name| kind(Path::new("/srv"), name).state;
        assert_eq!((state(Some("xfs")), state(Some("btrfs"))), (State::Ok, State::Ok));
        for name in ["tmpfs", "overlay", "nfs4", "fuse.holdfast"] {
            assert_eq!(state(Some(name)), State::Note, "{name}");
        }
        assert_eq!(state(None), State::Note);
        let state = |free| room(Path::new("/srv"), free).state;
        assert_eq!((state(1 << 29), state(1 << 31), state(1 << 40)), (State::Missing, State::Note, State::Ok));
    }

    #[test]
    fn a_slow_disk_is_noted_by_its_median() {
        let measured = |slow: usize| Measured {
            synced: (0..WRITES).map(|n| Duration::from_millis(if n + slow < WRITES { 1 } else { 40 })).collect(),
            direct: false,
        };
        let found = speed(Path::new("/srv"), &measured(WRITES));
        assert!(found[0].state == State::Note && found[0].says.contains("40.00 ms"), "{found:?}");
        assert_eq!(speed(Path::new("/srv"), &measured(2))[0].state, State::Ok);
        assert_eq!(found[1].state, State::Note);
    }
}
