//! Real processes, forked, that run one body each at the same time on their mounts, and what they report.
//!
//! The program is single-threaded, so a plain fork is sound. A child never returns from here and runs no destructor of
//! its parent. The first child that fails ends the run; a child that hangs is named with the call it hangs in.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fault::{Check, Fault, ensure, fault};
use crate::random::Random;
use crate::{Run, sys};

/// Words of shared memory that scenarios may use; the rest of the page belongs to this module.
pub const SHARED_WORDS: usize = 64;
const WORKERS_MAX: usize = 128;
/// After the time a scenario was given, how long its last calls may take before it counts as hung.
const GRACE: Duration = Duration::from_secs(60);

/// One process of a scenario.
pub struct Worker {
    /// Of all processes.
    pub index: usize,
    /// Of all processes on the same mount.
    pub on_mount: usize,
    pub mount: usize,
    /// How many there are of all, and on each mount.
    pub count: usize,
    pub processes: usize,
    /// The scenario's directory, seen through this worker's mount.
    pub dir: PathBuf,
    pub random: Random,
    until: Instant,
    shared: &'static Shared,
}

/// Memory shared by all processes of one scenario.
#[repr(C)]
struct Shared {
    words: [AtomicU64; SHARED_WORDS],
    calls: [[AtomicU64; 2]; WORKERS_MAX],
    arrived: AtomicU64,
    last_round: AtomicU64,
}

impl Shared {
    fn new() -> &'static Shared {
        // SAFETY: an anonymous shared mapping of the right size, zeroed, never unmapped; atomics may be zero bytes.
        unsafe {
            let start = libc::mmap(
                std::ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert!(start != libc::MAP_FAILED, "no shared memory");
            &*start.cast::<Shared>()
        }
    }
}

impl Worker {
    pub fn time_is_left(&self) -> bool {
        Instant::now() < self.until
    }

    /// A word shared by all processes.
    pub fn word(&self, place: usize) -> &AtomicU64 {
        &self.shared.words[place]
    }

    /// Waits until every process has come to `round`. False, for all of them alike, when the time was over.
    pub fn meet(&self, round: u64) -> bool {
        if self.index == 0 && !self.time_is_left() && self.shared.last_round.load(Ordering::SeqCst) == u64::MAX {
            self.shared.last_round.store(round, Ordering::SeqCst);
        }
        self.shared.arrived.fetch_add(1, Ordering::SeqCst);
        while self.shared.arrived.load(Ordering::SeqCst) < (round + 1) * self.count as u64 {
            std::thread::yield_now();
        }
        round < self.shared.last_round.load(Ordering::SeqCst)
    }
}

/// Runs `body` in `run.processes` processes on each of `dirs`, which are one directory seen through the mounts.
/// Answers what each of them reported, by index.
pub fn run(run: &Run, dirs: &[PathBuf], body: impl Fn(&mut Worker) -> Check<Vec<u64>>) -> Check<Vec<Vec<u64>>> {
    let count = dirs.len() * run.processes;
    ensure!(count <= WORKERS_MAX, "at most {WORKERS_MAX} processes, not {count}");
    let shared = Shared::new();
    shared.last_round.store(u64::MAX, Ordering::SeqCst);
    let until = Instant::now() + Duration::from_secs(run.seconds);
    let mut children = Vec::new();
    for index in 0..count {
        let mount = index % dirs.len();
        let worker = Worker {
            index,
            on_mount: index / dirs.len(),
            mount,
            count,
            processes: run.processes,
            dir: dirs[mount].clone(),
            random: Random::new(run.seed.wrapping_add(index as u64 * 0x9e37_79b9)),
            until,
            shared,
        };
        children.push(Child::fork(worker, &body)?);
    }
    let answers = collect(&mut children, shared, until + GRACE);
    for child in &children {
        child.end();
    }
    answers
}

/// Runs `body` in one process of its own, whose locks and user id are its own too.
pub fn ask_child(body: impl Fn() -> Check<u64>) -> Check<u64> {
    let one = Run { seconds: 1, processes: 1, ..Run::default() };
    let answers = run(&one, &[PathBuf::new()], |_| body().map(|word| vec![word]))?;
    Ok(answers[0][0])
}

/// The same, when there is nothing to answer.
pub fn in_child(body: impl Fn() -> Check) -> Check {
    ask_child(|| body().map(|()| 0)).map(|_| ())
}

struct Child {
    pid: i32,
    pipe: File,
    answer: Vec<u8>,
    open: bool,
}

impl Child {
    fn fork(mut worker: Worker, body: &impl Fn(&mut Worker) -> Check<Vec<u64>>) -> Check<Child> {
        let mut ends = [0; 2];
        // SAFETY: two descriptors are written to `ends`, and each is owned once on each side of the fork.
        unsafe {
            ensure!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) == 0, "no pipe");
            let pid = libc::fork();
            ensure!(pid >= 0, "no fork");
            if pid > 0 {
                drop(OwnedFd::from_raw_fd(ends[1]));
                return Ok(Child { pid, pipe: File::from_raw_fd(ends[0]), answer: Vec::new(), open: true });
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let mut pipe = File::from_raw_fd(ends[1]);
            let shared = worker.shared;
            sys::report_into(&shared.calls[worker.index]);
            let answer = catch_unwind(AssertUnwindSafe(|| body(&mut worker)))
                .unwrap_or_else(|_| fault("panicked (see above)".to_string()));
            let sent = pipe.write_all(&encode(&answer));
            libc::_exit(i32::from(sent.is_err() || answer.is_err()));
        }
    }

    fn how_it_died(&self) -> String {
        let mut status = 0;
        // SAFETY: a child of ours that nobody else waits for.
        unsafe { libc::waitpid(self.pid, &mut status, 0) };
        if libc::WIFSIGNALED(status) {
            format!("signal {}", libc::WTERMSIG(status))
        } else {
            format!("status {status}")
        }
    }

    fn end(&self) {
        // SAFETY: a child of ours that nobody else waits for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            // A child that sits in a hung mount cannot be reaped; it must not take this process with it.
            for _ in 0..200 {
                if libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) != 0 {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            eprintln!("process {} cannot be killed", self.pid);
        }
    }
}

fn collect(children: &mut [Child], shared: &Shared, deadline: Instant) -> Check<Vec<Vec<u64>>> {
    let mut answers = vec![None; children.len()];
    while answers.iter().any(Option::is_none) {
        if Instant::now() > deadline {
            return fault(describe_hung(&answers, shared));
        }
        let mut polls: Vec<libc::pollfd> = children
            .iter()
            .map(|c| libc::pollfd {
                fd: if c.open { c.pipe.as_raw_fd() } else { -1 },
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        // SAFETY: a live array and its length.
        unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as u64, 500) };
        for (index, poll) in polls.iter().enumerate().filter(|(_, p)| p.revents != 0) {
            let _ = poll;
            let child = &mut children[index];
            let mut buffer = [0; 65536];
            let n = child.pipe.read(&mut buffer).map_err(|e| Fault(format!("worker {index}: {e}")))?;
            child.answer.extend_from_slice(&buffer[..n]);
            if n == 0 {
                child.open = false;
                ensure!(!child.answer.is_empty(), "worker {index} died: {}", child.how_it_died());
                let report = decode(&child.answer).map_err(|f| Fault(format!("worker {index}: {}", f.0)))?;
                answers[index] = Some(report);
            }
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

fn describe_hung(answers: &[Option<Vec<u64>>], shared: &Shared) -> String {
    let hung = answers.iter().enumerate().filter(|(_, a)| a.is_none()).map(|(index, _)| {
        match sys::under_way(&shared.calls[index]) {
            Some((name, since)) => format!("worker {index} has been in {name} for {:.1} s", since.as_secs_f64()),
            None => format!("worker {index} does not end and is in no call"),
        }
    });
    hung.collect::<Vec<_>>().join("; ")
}

/// `[1][slowest call][its microseconds][words…]`, or `[0][text]`.
fn encode(answer: &Check<Vec<u64>>) -> Vec<u8> {
    match answer {
        Ok(words) => {
            let words = sys::slowest_raw().into_iter().chain(words.iter().copied());
            std::iter::once(1).chain(words.flat_map(u64::to_le_bytes)).collect()
        }
        Err(Fault(text)) => std::iter::once(0).chain(text.bytes()).collect(),
    }
}

fn decode(bytes: &[u8]) -> Check<Vec<u64>> {
    match bytes.split_first() {
        None => fault("died without a word".to_string()),
        Some((0, text)) => fault(String::from_utf8_lossy(text).into_owned()),
        Some((_, words)) => {
            let mut words: Vec<u64> =
                words.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes"))).collect();
            ensure!(words.len() >= 2, "half a report");
            let (name, took) = (sys::call_name(words[0]), Duration::from_micros(words[1]));
            ensure!(took < sys::CALL_MAX, "one {name} took {:.1} s", took.as_secs_f64());
            note_slowest(name, took);
            Ok(words.split_off(2))
        }
    }
}

static SLOWEST_OF_ALL_US: AtomicU64 = AtomicU64::new(0);
static SLOWEST_OF_ALL: std::sync::Mutex<&str> = std::sync::Mutex::new("");

fn note_slowest(name: &'static str, took: Duration) {
    if took.as_micros() as u64 > SLOWEST_OF_ALL_US.load(Ordering::Relaxed) {
        SLOWEST_OF_ALL_US.store(took.as_micros() as u64, Ordering::Relaxed);
        *SLOWEST_OF_ALL.lock().expect("single-threaded") = name;
    }
}

/// The slowest call of all processes so far, for people.
pub fn slowest() -> String {
    let own = sys::slowest_raw();
    note_slowest(sys::call_name(own[0]), Duration::from_micros(own[1]));
    let us = SLOWEST_OF_ALL_US.load(Ordering::Relaxed);
    format!("slowest call {} {:.1} ms", SLOWEST_OF_ALL.lock().expect("single-threaded"), us as f64 / 1000.0)
}
