//! What every role needs of a host, and what mounts need: judged from what the host says, which is read elsewhere.

use std::io;
use std::path::Path;

use super::finding::Finding;
use crate::cli::table::bytes;
use crate::host::facts::Confinement;
use crate::host::mountinfo::covering;
use crate::net::settings::SOCKET_BUFFER_BYTES;

/// Below it the kernel cannot make a mount that is put in its place as a whole, as volumes for pods are.
const KERNEL_MIN: (u32, u32) = (5, 12);
/// From here on a mount outlives its process.
const KERNEL_KEEPS: (u32, u32) = (6, 9);
/// From here on the kernel passes sync(2) on.
const KERNEL_SYNCS: (u32, u32) = (6, 18);
/// A process has a file open for each pack, connection and open file of its users.
const OPEN_FILES_MIN: u64 = 65_536;

/// For mounts.
pub fn kernel(found: Option<(u32, u32)>) -> Finding {
    let Some((major, minor)) = found else {
        return Finding::note("kernel", "the kernel does not say which it is", "is /proc mounted?");
    };
    let (says, upgrade) = (format!("Linux {major}.{minor}"), "install a newer kernel");
    match (major, minor) {
        version if version < KERNEL_MIN => Finding::missing("kernel", format!("{says} is older than 5.12"), upgrade),
        version if version < KERNEL_KEEPS => {
            let says = format!("{says} cannot have a mount outlive its process, which takes 6.9");
            Finding::note("kernel", says, upgrade)
        }
        version if version < KERNEL_SYNCS => {
            let says = format!("with {says} sync(2) does not reach a mount, which takes 6.18");
            Finding::note("kernel", says, "use fsync, or `holdfast sync`")
        }
        _ => Finding::ok("kernel", format!("{says} does all that mounts ask of it")),
    }
}

/// For mounts by root, in a container above all.
pub fn confinement(found: &Confinement, is_root: bool) -> Option<Finding> {
    let about = "privileges";
    if !is_root {
        return None;
    }
    if !found.may_mount() {
        let mend = "give the container the capability (--cap-add SYS_ADMIN, or privileged: true)";
        return Some(Finding::missing(about, "this process is root and may not mount", mend));
    }
    match &found.profile {
        // Docker's and containerd's own forbid mount(2), whatever capabilities there are.
        Some(profile) if profile.contains("docker") || profile.contains("containerd") => Some(Finding::missing(
            about,
            format!("AppArmor's profile {profile} forbids mounting"),
            "run it without (--security-opt apparmor=unconfined, or appArmorProfile: {type: Unconfined})",
        )),
        Some(profile) => {
            let says = format!("AppArmor's profile {profile} may forbid mounting");
            Some(Finding::note(about, says, "have it allow mount, umount and /dev/fuse"))
        }
        None if found.filtered => Some(Finding::ok(about, "this process may mount; its system calls are filtered")),
        None => Some(Finding::ok(about, "this process may mount")),
    }
}

/// `rmem`, `wmem`: the most that anybody gets.
pub fn buffers(rmem: Option<u64>, wmem: Option<u64>, may_exceed: bool) -> Finding {
    let about = "buffers";
    let wanted = u64::from(SOCKET_BUFFER_BYTES.unsigned_abs());
    let name = |received: bool| if received { "net.core.rmem_max" } else { "net.core.wmem_max" };
    let Some(least) = rmem.zip(wmem).map(|(rmem, wmem)| (rmem.min(wmem), rmem <= wmem)) else {
        return Finding::note(about, "the limit on socket buffers is not shown here", "look on the host's own network");
    };
    if least.0 >= wanted {
        return Finding::ok(about, format!("socket buffers may have {}", bytes(wanted)));
    }
    if may_exceed {
        return Finding::ok(about, "socket buffers may exceed the host's limit, as this process has the privilege");
    }
    let says = format!("socket buffers are limited to {}, so bursts are lost and sent again", bytes(least.0));
    Finding::note(about, says, format!("sysctl -w {}={wanted}", name(least.1)))
}

pub fn open_files(found: io::Result<u64>) -> Finding {
    match found {
        Ok(count) if count >= OPEN_FILES_MIN => {
            let count = if count == libc::RLIM_INFINITY { "any number of".to_string() } else { count.to_string() };
            Finding::ok("files", format!("a process may have {count} files open"))
        }
        Ok(count) => Finding::note(
            "files",
            format!("a process may have only {count} files open"),
            format!("raise the hard limit to {OPEN_FILES_MIN} or more (LimitNOFILE=, --ulimit nofile=)"),
        ),
        Err(error) => {
            Finding::note("files", format!("the limit of open files is not known: {error}"), "see ulimit -Hn")
        }
    }
}

/// Times of files are the hosts', and certificates have an end.
pub fn clock(kept: io::Result<bool>) -> Finding {
    match kept {
        Ok(true) => Finding::ok("clock", "the clock is synchronised"),
        Ok(false) => Finding::note(
            "clock",
            "nobody synchronises the clock, and files get their times from it",
            "run chrony or systemd-timesyncd on the host",
        ),
        Err(error) => {
            let says = format!("whether the clock is synchronised is not shown here ({error})");
            Finding::note("clock", says, "see `timedatectl` on the host")
        }
    }
}

/// `needs`: what the roles take together.
pub fn memory(available: Option<u64>, needs: u64) -> Finding {
    let needed = bytes(needs);
    match available {
        Some(there) if there >= needs => {
            Finding::ok("memory", format!("{} of memory are available, and {needed} are needed", bytes(there)))
        }
        Some(there) => Finding::note(
            "memory",
            format!("{} of memory are available, and {needed} are needed", bytes(there)),
            "give it more, or less to [mount] memory and [meta] cache",
        ),
        None => Finding::note("memory", "how much memory there is is not shown here", format!("{needed} are needed")),
    }
}

/// What is mounted below `path` has to be seen in containers.
pub fn propagation(mountinfo: &[u8], path: &Path) -> Finding {
    let about = "propagation";
    let shown = path.display();
    match covering(mountinfo, path) {
        Some(mount) if mount.shared => {
            Finding::ok(about, format!("what is mounted below {shown} is seen by containers"))
        }
        Some(mount) => {
            let says = format!("what is mounted below {shown} is not seen by containers");
            Finding::missing(about, says, format!("mount --make-rshared {}", mount.target.display()))
        }
        None => Finding::missing(about, format!("nothing is mounted where {shown} is"), "is /proc mounted?"),
    }
}

/// `said`: what the keeper beside this program says of its version; `None` when there is none.
pub fn keeper(said: Option<&str>) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    match said.map(|said| said.trim().rsplit(' ').next().unwrap_or_default()) {
        Some(version) if version == ours => Finding::ok("keeper", format!("holdfast-keeper {ours} is beside holdfast")),
        Some(version) => Finding::note(
            "keeper",
            format!("beside holdfast {ours} is holdfast-keeper {version}"),
            "install both from the same build",
        ),
        None => Finding::note(
            "keeper",
            "holdfast-keeper is not beside holdfast, so mounts end with their process",
            "install both from the same build",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    const ROOT: &str = "CapEff:\t000001ffffffffff\nSeccomp:\t0\n";

    #[test]
    fn kernels_are_told_apart_by_what_they_lack() {
        let state = |version| kernel(version).state;
        assert_eq!(state(Some((5, 11))), State::Missing);
        assert_eq!((state(Some((5, 12))), state(Some((6, 8)))), (State::Note, State::Note));
        assert!(kernel(Some((6, 17))).says.contains("sync(2)"));
        assert_eq!((state(Some((6, 18))), state(Some((7, 0))), state(None)), (State::Ok, State::Ok, State::Note));
    }

    #[test]
    fn a_container_that_may_not_mount_is_told_why() {
        let of = |status: &str, label: &str| confinement(&Confinement::parse(status, label), true).unwrap();
        assert_eq!(of(ROOT, "unconfined\n").state, State::Ok);
        assert!(of("CapEff:\t00000000a80425fb\n", "").mend.unwrap().contains("SYS_ADMIN"));
        let docker = of(ROOT, "docker-default (enforce)\n");
        assert!(docker.state == State::Missing && docker.says.contains("docker-default"), "{docker}");
        assert_eq!(of(ROOT, "cri-containerd.apparmor.d (enforce)").state, State::Missing);
        assert_eq!(of(ROOT, "mine (enforce)").state, State::Note);
        assert_eq!(confinement(&Confinement::default(), false), None, "an ordinary user has a helper");
    }

    #[test]
    fn small_buffers_are_a_note_unless_they_may_be_exceeded() {
        let large = Some(8 << 20);
        assert_eq!(buffers(large, large, false).state, State::Ok);
        assert_eq!(buffers(Some(212_992), large, true).state, State::Ok);
        assert_eq!(buffers(Some(212_992), large, false).mend.unwrap(), "sysctl -w net.core.rmem_max=8388608");
        assert_eq!(buffers(large, Some(212_992), false).mend.unwrap(), "sysctl -w net.core.wmem_max=8388608");
        assert_eq!(buffers(None, large, false).state, State::Note);
    }

    #[test]
    fn limits_and_clocks() {
        assert_eq!((open_files(Ok(1024)).state, open_files(Ok(65_536)).state), (State::Note, State::Ok));
        assert!(open_files(Ok(u64::MAX)).says.contains("any number"));
        assert_eq!((clock(Ok(true)).state, clock(Ok(false)).state), (State::Ok, State::Note));
        assert_eq!(clock(Err(io::ErrorKind::PermissionDenied.into())).state, State::Note);
        assert_eq!((memory(Some(2), 2).state, memory(Some(1), 2).state, memory(None, 2).state), {
            (State::Ok, State::Note, State::Note)
        });
    }

    #[test]
    fn propagation_is_that_of_the_nearest_mount() {
        let private = b"22 1 254:0 / / rw - ext4 /dev/root rw\n";
        let kubelet = Path::new("/var/lib/kubelet");
        let found = propagation(private, kubelet);
        assert_eq!((found.state, found.mend.as_deref()), (State::Missing, Some("mount --make-rshared /")));
        let shared = b"22 1 254:0 / / rw - ext4 a rw\n23 22 254:1 / /var/lib/kubelet rw shared:5 - xfs b rw\n";
        assert_eq!(propagation(shared, kubelet).state, State::Ok);
        assert_eq!(propagation(shared, Path::new("/var/lib/docker")).state, State::Missing);
        assert_eq!(propagation(b"", kubelet).state, State::Missing);
    }

    #[test]
    fn another_build_of_the_keeper_is_noted() {
        let ours = format!("holdfast-keeper {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(keeper(Some(&ours)).state, State::Ok);
        assert!(keeper(Some("holdfast-keeper 0.0.1\n")).says.contains("holdfast-keeper 0.0.1"));
        assert_eq!((keeper(None).state, keeper(Some("")).state), (State::Note, State::Note));
    }
}
