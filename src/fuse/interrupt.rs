//! Lets go of parked requests whose process was signalled.
//!
//! A thread in a FUSE request waits for the answer, and once a server has taken the request not even SIGKILL frees it:
//! the kernel sends FUSE_INTERRUPT and leaves the rest to the server. fuser answers that with ENOSYS, after which the
//! kernel sends no more of them. So whoever parks a request looks for itself, at the waiting thread's signal sets in
//! `/proc`, first after [`PATIENCE`] and then ever more rarely.
//!
//! Which signals count depends on what is waited for. Lock waits end at any signal that would be delivered, as on every
//! Linux filesystem. Everything else is uninterruptible on local disks, and programs rely on it (a Go runtime sends
//! itself SIGURG all the time and does not expect EINTR from `read`): it ends only when the process is about to die.
//!
//! Threads that `/proc` does not show (thread id 0, see [`Caller`]) wait to the end.

use std::time::Duration;

use super::caller::{Caller, Status};

/// How long a request is parked before anyone looks for signals, and the longest time between two looks.
const PATIENCE: Duration = Duration::from_millis(200);
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// Signals whose default is to dump core. A fatal signal without a dump reaches every thread as SIGKILL, these do not.
const CORE_SIGNALS: [i32; 10] = [
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGSYS,
];

/// What ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signals {
    /// Whatever would be delivered.
    Any,
    /// What kills the process.
    Fatal,
}

/// Returns when `caller` was signalled; never if it was not.
pub(super) async fn signalled(caller: Caller, signals: Signals) {
    if caller.tid == 0 {
        return std::future::pending().await;
    }
    let mut patience = PATIENCE;
    loop {
        tokio::time::sleep(patience).await;
        if caller.status().is_some_and(|status| ends_wait(&status, signals)) {
            return;
        }
        patience = (patience * 2).min(PATIENCE_MAX);
    }
}

fn ends_wait(status: &Status, signals: Signals) -> bool {
    let kill = status.pending & bit(libc::SIGKILL) != 0;
    let deliverable = status.pending & !status.blocked & !status.ignored;
    let core = CORE_SIGNALS.iter().fold(0, |set, signal| set | bit(*signal));
    match signals {
        Signals::Any => kill || deliverable != 0,
        Signals::Fatal => kill || deliverable & !status.caught & core != 0,
    }
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(signal: i32) -> Status {
        Status { pending: bit(signal), ..Status::default() }
    }

    #[test]
    fn kill_ends_every_wait() {
        let status = Status { blocked: u64::MAX, ignored: u64::MAX, ..pending(libc::SIGKILL) };
        assert!(ends_wait(&status, Signals::Fatal) && ends_wait(&status, Signals::Any));
    }

    #[test]
    fn a_caught_signal_ends_only_waits_for_locks() {
        let status = Status { caught: bit(libc::SIGALRM), ..pending(libc::SIGALRM) };
        assert!(ends_wait(&status, Signals::Any));
        assert!(!ends_wait(&status, Signals::Fatal));
    }

    #[test]
    fn blocked_and_ignored_signals_end_nothing() {
        assert!(!ends_wait(&Status { blocked: bit(libc::SIGINT), ..pending(libc::SIGINT) }, Signals::Any));
        assert!(!ends_wait(&Status { ignored: bit(libc::SIGINT), ..pending(libc::SIGINT) }, Signals::Any));
        assert!(!ends_wait(&Status::default(), Signals::Any));
    }

    #[test]
    fn a_core_dump_is_death_unless_caught() {
        assert!(ends_wait(&pending(libc::SIGQUIT), Signals::Fatal));
        let status = Status { caught: bit(libc::SIGQUIT), ..pending(libc::SIGQUIT) };
        assert!(!ends_wait(&status, Signals::Fatal));
    }
}
