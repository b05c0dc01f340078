//! Random POSIX calls, each through a random one of the mounts, errno for errno and byte for byte what ext4 answers.
//!
//! Every call is made twice: in the directory under test and in a reference directory on ext4. The answers must be
//! equal, and so must be whether the call moved the modification and change times of what it touched. Every so often
//! both trees are compared whole, through every mount. Run as root the calls are made by several users.
//!
//! The choice of calls depends on the seed and on nothing else, so a seed replays; with `--compare-every 1` it names the
//! call that made the trees differ.

mod calls;
mod tree;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use self::calls::{Call, Slots, Value};
use crate::Run;
use crate::fault::{At, Check, ensure};
use crate::procs::{self, Worker};
use crate::random::Random;
use crate::sys::{self, Errno};

const TRACE_CALLS: usize = 12;
/// The second and third are users without any rights of their own.
const USERS: [(u32, u32); 3] = [(0, 0), (1234, 1234), (5678, 1234)];

pub fn run(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    let Some(reference) = &run.reference else {
        return crate::fault::fault("differential needs --reference, a directory on ext4".to_string());
    };
    let reference = reference.join(format!("differential-{}-{}", run.seed, std::process::id()));
    sys::mkdir(&reference, 0o755)?;
    let reports = procs::run(run, dirs, |worker| compare(worker, run, dirs, &reference))?;
    crate::remove_tree(&reference)?;
    let (calls, failed) = reports.iter().fold((0, 0), |sum, r| (sum.0 + r[0], sum.1 + r[1]));
    Ok(format!("{calls} calls, {failed} of them failed alike"))
}

/// Answers `[calls, calls that failed]`.
fn compare(worker: &mut Worker, run: &Run, dirs: &[PathBuf], reference: &Path) -> Check<Vec<u64>> {
    let name = format!("worker-{}", worker.index);
    for above in [&dirs[0], reference] {
        sys::mkdir(above.join(&name), 0o777)?;
        sys::chmod(above.join(&name), 0o777)?;
    }
    let mounts = dirs.iter().map(|dir| dir.join(&name)).collect();
    let mut pair = Pair::new(mounts, reference.join(&name), worker.random.clone())?;
    while run.steps.map_or_else(|| worker.time_is_left(), |steps| pair.step < steps) {
        if run.sabotage && pair.step % 40 == 39 {
            sys::write_file(pair.mounts[0].join(format!("sabotage-{}", pair.step)), b"")?;
        }
        if let Err(fault) = pair.one(run) {
            let trace = Vec::from(pair.trace).join("\n    ");
            return Err(fault).at(format_args!("worker {}, the last calls:\n    {trace}\n  ", worker.index));
        }
    }
    become_user(USERS[0])?;
    pair.compare_trees()?;
    // SAFETY: plain call.
    unsafe { libc::umask(0o022) };
    Ok(vec![pair.step, pair.failed])
}

/// The directory under test, through every mount, and the reference.
struct Pair {
    mounts: Vec<PathBuf>,
    reference: PathBuf,
    mount_fds: Vec<OwnedFd>,
    reference_fd: OwnedFd,
    tested_slots: Slots,
    reference_slots: Slots,
    random: Random,
    user: (u32, u32),
    step: u64,
    failed: u64,
    trace: VecDeque<String>,
}

impl Pair {
    fn new(mounts: Vec<PathBuf>, reference: PathBuf, random: Random) -> Check<Pair> {
        let directory = |path: &PathBuf| sys::open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0);
        let mount_fds = mounts.iter().map(directory).collect::<Result<_, Errno>>()?;
        let reference_fd = directory(&reference)?;
        if is_root() {
            // SAFETY: an empty list.
            ensure!(unsafe { libc::setgroups(0, std::ptr::null()) } == 0, "setgroups");
        }
        Ok(Pair {
            mounts,
            reference,
            mount_fds,
            reference_fd,
            tested_slots: Slots::default(),
            reference_slots: Slots::default(),
            random,
            user: USERS[0],
            step: 0,
            failed: 0,
            trace: VecDeque::new(),
        })
    }

    fn one(&mut self, run: &Run) -> Check {
        if self.step % run.compare_every == run.compare_every - 1 {
            become_user(USERS[0])?;
            self.compare_trees()?;
            become_user(self.user)?;
        }
        if is_root() && self.random.once_in(12) {
            self.user = *self.random.pick(&USERS);
            become_user(self.user)?;
        }
        let mount = self.random.below(self.mounts.len() as u64) as usize;
        let call = Call::random(&mut self.random);
        let line = format!("#{} uid {} mount {}: {call}", self.step, self.user.0, mount + 1);
        if run.verbose {
            println!("{line}");
        }
        self.step += 1;
        self.trace.push_back(line);
        if self.trace.len() > TRACE_CALLS {
            self.trace.pop_front();
        }
        self.both(&call, mount)
    }

    fn both(&mut self, call: &Call, mount: usize) -> Check {
        enter(&self.reference_fd, self.user)?;
        let left_out = call.would_block_or_leave() || call.changes_nothing();
        if left_out || call.copies_over_itself(&self.tested_slots) {
            return Ok(());
        }
        let reference_before = calls::marks(call, &self.reference_slots);
        enter(&self.mount_fds[mount], self.user)?;
        let tested_before = calls::marks(call, &self.tested_slots);
        let tested = call.make(&mut self.tested_slots);
        let tested_after = calls::marks(call, &self.tested_slots);
        if call.may_be_unsupported() && tested.as_ref().is_err_and(|e| e.code == libc::EOPNOTSUPP) {
            return Ok(());
        }
        enter(&self.reference_fd, self.user)?;
        let due = call.make(&mut self.reference_slots);
        let reference_after = calls::marks(call, &self.reference_slots);
        self.failed += u64::from(due.is_err());
        self.annotate(&due);
        ensure!(tested == due, "{call}: answered {}, ext4 answered {}", shown(&tested), shown(&due));
        let moved = calls::moved(&tested_before, &tested_after);
        let moved_due = calls::moved(&reference_before, &reference_after);
        if call.times_count(&reference_before, &reference_after) {
            ensure!(moved == moved_due, "{call}: times moved {moved:?}, on ext4 {moved_due:?}");
        }
        Ok(())
    }

    fn annotate(&mut self, due: &Result<Value, Errno>) {
        if let Some(line) = self.trace.back_mut() {
            line.push_str(&format!(" = {}", shown(due)));
        }
    }

    fn compare_trees(&self) -> Check {
        let due = tree::read(&self.reference)?;
        for mount in &self.mounts {
            let found = tree::read(mount)?;
            tree::compare(&found, &due).at(format_args!("before call #{}, {}", self.step, mount.display()))?;
        }
        Ok(())
    }
}

fn shown(answer: &Result<Value, Errno>) -> String {
    match answer {
        Ok(value) => format!("{value:.200?}"),
        Err(e) => e.to_string(),
    }
}

fn is_root() -> bool {
    // SAFETY: plain call.
    unsafe { libc::getuid() == 0 }
}

/// Changes the effective ids; the real ones stay root's, so there is a way back.
fn become_user((uid, gid): (u32, u32)) -> Check {
    if is_root() {
        // SAFETY: plain calls, in a process of our own.
        let ok = unsafe { libc::seteuid(0) == 0 && libc::setegid(gid) == 0 && libc::seteuid(uid) == 0 };
        ensure!(ok, "cannot become uid {uid}");
    }
    Ok(())
}

/// Makes `dir` the working directory, whatever its mode has become, and the user the one who calls.
fn enter(dir: &OwnedFd, user: (u32, u32)) -> Check {
    use std::os::fd::AsRawFd;
    become_user(USERS[0])?;
    // SAFETY: an open descriptor.
    ensure!(unsafe { libc::fchdir(dir.as_raw_fd()) } == 0, "fchdir: {}", std::io::Error::last_os_error());
    become_user(user)
}
