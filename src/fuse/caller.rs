//! Who made a request: what its header says, and what `/proc` knows besides (signals, groups, capabilities).

use std::fs;

use fuser::Request;

const CAP_FSETID: u32 = 4;
const CAP_SYS_ADMIN: u32 = 21;

/// The thread behind a request. Requests the kernel makes on its own, and those of processes in a PID namespace that
/// cannot be seen from the one the mount was made in, have thread id 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub tid: u32,
    pub uid: u32,
    pub gid: u32,
    /// The number of the call, the same when the kernel hands it out again.
    pub call: u64,
}

/// Of a call that the kernel hands out again.
const AGAIN: u64 = 1 << 63;

impl Caller {
    pub fn of(request: &Request) -> Caller {
        let call = request.unique().0 & !AGAIN;
        Caller { tid: request.pid(), uid: request.uid(), gid: request.gid(), call }
    }

    /// What `/proc` says of the thread now, while it waits for its answer; `None` when that cannot be read.
    pub fn status(&self) -> Option<Status> {
        if self.tid == 0 {
            return None;
        }
        Some(Status::parse(&fs::read_to_string(format!("/proc/{}/status", self.tid)).ok()?))
    }

    /// May list `trusted.*` attributes.
    pub fn is_admin(&self) -> bool {
        self.status().map_or(self.uid == 0, |status| status.has_capability(CAP_SYS_ADMIN))
    }

    /// May keep set-group-id on a file of this group.
    pub fn may_keep_setgid(&self, gid: u32) -> bool {
        if self.gid == gid {
            return true;
        }
        self.status().map_or(self.uid == 0, |s| s.groups.contains(&gid) || s.has_capability(CAP_FSETID))
    }
}

/// The lines of `/proc/TID/status` that matter here. Signal sets have bit `n - 1` for signal `n`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Pending for the thread or its process.
    pub pending: u64,
    pub blocked: u64,
    pub ignored: u64,
    pub caught: u64,
    pub capabilities: u64,
    pub groups: Vec<u32>,
}

impl Status {
    /// Lines that are missing or malformed count as empty.
    fn parse(text: &str) -> Status {
        let mut status = Status::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let set = || u64::from_str_radix(value.trim(), 16).unwrap_or(0);
            match key {
                "SigPnd" | "ShdPnd" => status.pending |= set(),
                "SigBlk" => status.blocked = set(),
                "SigIgn" => status.ignored = set(),
                "SigCgt" => status.caught = set(),
                "CapEff" => status.capabilities = set(),
                "Groups" => status.groups = value.split_whitespace().filter_map(|gid| gid.parse().ok()).collect(),
                _ => {}
            }
        }
        status
    }

    fn has_capability(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read() {
        let text = "Name:\tcat\nGroups:\t4 24 1000 \nCapEff:\t0000000000200010\nSigPnd:\t0000000000000100\n\
                    ShdPnd:\t0000000000004000\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000000001\n\
                    SigCgt:\t00000000000000ff\n";
        let status = Status::parse(text);
        assert_eq!((status.pending, status.blocked, status.ignored, status.caught), (0x4100, 2, 1, 0xff));
        assert_eq!(status.groups, [4, 24, 1000]);
        assert!(status.has_capability(CAP_SYS_ADMIN) && status.has_capability(CAP_FSETID));
        assert!(!status.has_capability(0));
        assert_eq!(Status::parse("SigPnd: what\n:::\n"), Status::default());
    }

    #[test]
    fn the_kernel_itself_has_no_status() {
        assert_eq!(Caller { tid: 0, uid: 0, gid: 0, call: 0 }.status(), None);
        assert!(Caller { tid: std::process::id(), uid: 0, gid: 0, call: 0 }.status().is_some());
    }
}
