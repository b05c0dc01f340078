//! What the host says of itself, and what it allows this process. Looks and changes nothing.

use std::fs;
use std::io;
use std::path::Path;

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// From here on the kernel hands out again what a process has read of a mount's requests and not answered.
pub const KERNEL_RESENDS: (u32, u32) = (6, 9);

/// A mount can outlive its process. (A kernel that does not say which it is is taken to be new.)
pub fn mounts_outlive_processes() -> bool {
    kernel().is_none_or(|version| version >= KERNEL_RESENDS)
}

/// Major and minor number of the kernel.
pub fn kernel() -> Option<(u32, u32)> {
    kernel_in(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

fn kernel_in(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The kernel knows this filesystem now; a module that is not loaded it does not.
pub fn has_filesystem(name: &str) -> io::Result<bool> {
    Ok(fs::read_to_string("/proc/filesystems")?.lines().any(|line| line.split('\t').next_back() == Some(name)))
}

/// A setting of the kernel, as in `net/core/rmem_max`; `None` where it is not shown, as in a network namespace of its own.
pub fn setting(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

/// What stands between this process and what root may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    capabilities: u64,
    /// System calls are filtered.
    pub filtered: bool,
    /// The profile that AppArmor holds it to.
    pub profile: Option<String>,
}

impl Confinement {
    /// # Errors
    /// `/proc` is not mounted.
    pub fn of_this_process() -> io::Result<Confinement> {
        let status = fs::read_to_string("/proc/self/status")?;
        // Absent without AppArmor, and of another kind under SELinux.
        let label = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
        Ok(Confinement::parse(&status, &label))
    }

    pub fn parse(status: &str, label: &str) -> Confinement {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Confinement {
            capabilities: field("CapEff:").and_then(|bits| u64::from_str_radix(bits, 16).ok()).unwrap_or(0),
            filtered: field("Seccomp:") == Some("2"),
            profile: label.trim_end_matches(['\n', '\0']).strip_suffix(" (enforce)").map(str::to_string),
        }
    }

    pub fn may_mount(&self) -> bool {
        self.capabilities >> CAP_SYS_ADMIN & 1 == 1
    }

    /// It gets socket buffers over the host's limit.
    pub fn may_exceed_buffers(&self) -> bool {
        self.capabilities >> CAP_NET_ADMIN & 1 == 1
    }
}

/// Whether somebody keeps the clock right, as the kernel has been told.
///
/// # Errors
/// It is not said here, as in some containers.
pub fn clock_is_kept() -> io::Result<bool> {
    // SAFETY: all zeroes is a request that changes nothing.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `request` is valid, and asks for nothing to be changed.
    match unsafe { libc::adjtimex(&mut request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(request.status & libc::STA_UNSYNC == 0),
    }
}

/// How many files a process may have open at most.
///
/// # Errors
/// What the kernel says.
pub fn open_files_max() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is room for the answer.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => Ok(limit.rlim_max),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What there is for new processes, by the host or by a container's limit, whichever is less.
pub fn memory_bytes() -> Option<u64> {
    let host = available_in(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some(host.min(limit.unwrap_or(u64::MAX)))
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The list of the host's mounts, if its first process is seen from here; else this process's own.
///
/// # Errors
/// `/proc` is not mounted.
pub fn mounts_of_host() -> io::Result<Vec<u8>> {
    fs::read("/proc/1/mountinfo").or_else(|_| fs::read("/proc/self/mountinfo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_kernel_is_read_from_its_name() {
        assert_eq!(kernel_in("6.18.44-fc-v669\n"), Some((6, 18)));
        assert_eq!(kernel_in("5.4"), Some((5, 4)));
        assert_eq!((kernel_in("six"), kernel_in("6")), (None, None));
        assert!(kernel().is_some_and(|kernel| kernel > (3, 0)));
    }

    #[test]
    fn what_confines_a_process_is_read_from_its_status() {
        let status = "Name:\tx\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let found = Confinement::parse(status, "docker-default (enforce)\n");
        assert!(found.filtered && !found.may_mount() && !found.may_exceed_buffers());
        assert_eq!(found.profile.as_deref(), Some("docker-default"));
        let free = Confinement::parse("CapEff:\t000001ffffffffff\nSeccomp:\t0\n", "unconfined\n");
        assert!(!free.filtered && free.may_mount() && free.may_exceed_buffers());
        assert_eq!((free.profile, Confinement::parse("", "")), (None, Confinement::default()));
    }

    #[test]
    fn the_host_says_what_there_is() {
        assert_eq!(available_in("MemTotal: 2 kB\nMemAvailable:   1024 kB\n"), Some(1 << 20));
        assert_eq!((available_in("MemTotal: 2 kB\n"), available_in("MemAvailable: many\n")), (None, None));
        assert!(memory_bytes() > Some(1 << 20) && open_files_max().unwrap() > 0);
        assert!(has_filesystem("proc").unwrap() && !has_filesystem("no-such").unwrap());
        assert!(setting("kernel/pid_max").is_some() && setting("no/such").is_none());
        assert!(!mounts_of_host().unwrap().is_empty());
    }
}
