//! Mounts for who cannot have them itself: a process of a host, or of a container that outlives the others, which starts them.
//!
//! Whoever may connect says which mount is to be made or ended, in the words of `holdfast mount` and umount(8); it is done by the program
//! that is there at that time, in the namespaces of this process. What is mounted has keepers, which become this process's children, and it
//! buries those that end. It knows nothing else and keeps nothing.
//!
//! # What is said
//!
//! A message is the words, each ended by a zero byte: `mount …`, `umount …` with a descriptor for what is said on standard error, and `upgrade`,
//! which has every mount go on by the program that is there now, unless it does already. The answer is `ended CODE`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::socket::{Listener, Socket};
use super::{KEEPER_NAME, oom, say};

const MOUNT: &str = "mount";
const UMOUNT: &str = "umount";
const UPGRADE: &str = "upgrade";
const ENDED: &str = "ended";
/// Requests at a time; more wait. Not with them the unmounts that have begun: they may wait for the cluster, and are no more than there are
/// mounts, as a place has one at a time.
const REQUESTS_MAX: usize = 64;
const PAUSE: Duration = Duration::from_millis(20);
/// Where a mount in the background logs, if nobody says otherwise: as this process does.
const LOG_VARIABLE: &str = "HOLDFAST_MOUNT_LOG_FILE";
/// At the end, for those who wait for an answer.
const ANSWERS_PATIENCE: Duration = Duration::from_secs(2);

/// Serves until the process ends.
///
/// # Errors
/// Somebody listens there already, or the host refuses what is needed.
pub fn serve(path: &Path, program: PathBuf) -> io::Result<()> {
    // Keepers whose parents have gone to the background are ours.
    // SAFETY: takes numbers.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let oom_before = oom::spare_this_process();
    let signals = block_signals()?;
    if Socket::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("somebody listens on {}", path.display())));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = Listener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    thread::Builder::new().name("burial".into()).spawn(bury)?;
    thread::Builder::new().name("end".into()).spawn(move || end_with(&signals))?;
    loop {
        while TAKEN.load(Ordering::SeqCst) >= REQUESTS_MAX {
            thread::sleep(PAUSE);
        }
        let (program, oom_before) = (program.clone(), oom_before.clone());
        let begun = listener.accept().and_then(|socket| {
            let (counted, taken) = (Counted::new(&UNDER_WAY), Counted::new(&TAKEN));
            thread::Builder::new().name("request".into()).spawn(move || {
                if let Err(error) = answer(&socket, &program, &oom_before, taken) {
                    say(format_args!("a request failed: {error}"));
                }
                drop(counted);
            })
        });
        // Mounts may end with this process: it goes on, whatever the host lacks now.
        if let Err(error) = begun {
            say(format_args!("a request cannot be taken: {error}"));
            thread::sleep(PAUSE);
        }
    }
}

/// Requests that are under way.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
/// Of those, which more requests wait for.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// And which may leave a mount behind.
static MOUNTING: AtomicUsize = AtomicUsize::new(0);
/// Nothing is mounted any more.
static ENDING: AtomicBool = AtomicBool::new(false);

/// One of them.
struct Counted(&'static AtomicUsize);

impl Counted {
    fn new(count: &'static AtomicUsize) -> Counted {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Asks the service at `path`: for the words, with a place for what is said on standard error. The code with which it ended.
///
/// # Errors
/// Nobody serves there, or it has ended meanwhile.
pub fn ask(path: &Path, words: &[String], said: BorrowedFd<'_>) -> io::Result<i32> {
    if words.iter().any(|word| word.contains('\0')) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a word has a zero byte"));
    }
    let socket = Socket::connect(path)?;
    socket.send(&words.join("\0"), &[said])?;
    let answer = socket.receive()?.map(|(answer, _)| answer).unwrap_or_default();
    let code = answer.strip_prefix(ENDED).and_then(|code| code.trim().parse().ok());
    code.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without an answer"))
}

/// Has every mount of the service go on by the program that is there.
///
/// # Errors
/// Nobody serves there.
pub fn upgrade(path: &Path) -> io::Result<()> {
    ask(path, &[UPGRADE.to_string()], io::stderr().as_fd()).map(drop)
}

fn answer(socket: &Socket, program: &Path, oom_before: &oom::Before, taken: Counted) -> io::Result<()> {
    let Some((message, mut descriptors)) = socket.receive()? else { return Ok(()) };
    let code = match (message.split('\0').collect::<Vec<_>>().as_slice(), descriptors.pop()) {
        ([MOUNT, rest @ ..], Some(said)) => {
            // Counted first: whoever ends it sees this one, or this one sees that it ends.
            let _counted = Counted::new(&MOUNTING);
            if ENDING.load(Ordering::SeqCst) {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nothing is mounted any more: it ends"));
            }
            let mut command = Command::new(program);
            if std::env::var_os(LOG_VARIABLE).is_none()
                && let Some(log) = own_log()
            {
                command.env(LOG_VARIABLE, log);
            }
            run(command.arg(MOUNT).args(rest), said, oom_before)?
        }
        ([UMOUNT, rest @ ..], Some(said)) => {
            drop(taken);
            run(Command::new(program).arg0("umount.holdfast").args(rest), said, oom_before)?
        }
        ([UPGRADE], _) => upgrade_all(program)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it was not understood")),
    };
    socket.send(&format!("{ENDED} {code}"), &[])
}

/// Where others find what this process writes to; `None` for what is not opened by a path (a journal's socket), or ends
/// before mounts do (a terminal).
fn own_log() -> Option<PathBuf> {
    let path = PathBuf::from(format!("/proc/{}/fd/2", own_pid()));
    let file_type = fs::metadata(&path).ok()?.file_type();
    (file_type.is_file() || file_type.is_fifo()).then_some(path)
}

fn run(command: &mut Command, said: OwnedFd, oom_before: &oom::Before) -> io::Result<i32> {
    let oom_before = oom_before.clone();
    // SAFETY: it only calls the kernel.
    unsafe {
        command.pre_exec(move || {
            oom_before.restore();
            Ok(())
        });
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
    let mut child = {
        let mut ours = of_requests();
        let child = command.spawn()?;
        ours.insert(child.id());
        child
    };
    let status = child.wait();
    of_requests().remove(&child.id());
    Ok(status?.code().unwrap_or(128))
}

/// Processes that requests have started and will bury. Locked from before one is there until it is among them.
fn of_requests() -> MutexGuard<'static, BTreeSet<u32>> {
    static PIDS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    PIDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// SIGTERM and SIGINT, for this thread and those that it starts; programs that are started have them as usual.
fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: a set of zeros is made an empty set before anything is put into it, and no place is given for the one before.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
            0 => Ok(set),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// The first process of a container takes the others with it: they unmount first, and what was written is stored. A second signal does without.
/// An unmount under way is not waited for, as it may wait for the cluster, until all mounts are told to end.
fn end_with(signals: &libc::sigset_t) {
    let mut signal = 0;
    // SAFETY: a set that is filled, and a number.
    unsafe { libc::sigwait(signals, &mut signal) };
    // SAFETY: a set that is filled, and no place for the one before.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, signals, std::ptr::null_mut()) };
    ENDING.store(true, Ordering::SeqCst);
    while MOUNTING.load(Ordering::SeqCst) > 0 {
        thread::sleep(PAUSE);
    }
    keepers().into_iter().for_each(|keeper| kill(keeper, libc::SIGTERM));
    while !keepers().is_empty() {
        thread::sleep(PAUSE);
    }
    let ended = Instant::now();
    while UNDER_WAY.load(Ordering::SeqCst) > 0 && ended.elapsed() < ANSWERS_PATIENCE {
        thread::sleep(PAUSE);
    }
    std::process::exit(0);
}

/// A keeper whose client runs by another file than the one that is there is told to have it followed.
fn upgrade_all(program: &Path) -> io::Result<i32> {
    let is_now = |pid: libc::pid_t| fs::metadata(format!("/proc/{pid}/exe")).map(|file| (file.dev(), file.ino())).ok();
    let new = fs::metadata(program).map(|file| (file.dev(), file.ino()))?;
    for keeper in keepers() {
        if children(keeper).into_iter().any(|client| is_now(client).is_some_and(|old| old != new)) {
            kill(keeper, libc::SIGHUP);
        }
    }
    Ok(0)
}

fn keepers() -> Vec<libc::pid_t> {
    children(own_pid()).into_iter().filter(|pid| is_keeper(*pid)).collect()
}

fn kill(keeper: libc::pid_t, signal: libc::c_int) {
    // SAFETY: takes numbers; a child of ours, which only we bury.
    unsafe { libc::kill(keeper, signal) };
}

fn own_pid() -> libc::pid_t {
    // SAFETY: takes and touches nothing.
    unsafe { libc::getpid() }
}

fn is_keeper(pid: libc::pid_t) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
    Path::new(&*String::from_utf8_lossy(program)).file_name().is_some_and(|name| name == KEEPER_NAME)
}

fn children(of: libc::pid_t) -> Vec<libc::pid_t> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(of)).collect()
}

/// The fourth field of `stat`; the second may hold anything.
fn parent_of(pid: libc::pid_t) -> Option<libc::pid_t> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Buries what has ended and no request has started: keepers, which have lost their parents.
fn bury() {
    loop {
        // SAFETY: numbers and pointers, for which zeros are good values.
        let mut found: libc::siginfo_t = unsafe { mem::zeroed() };
        // SAFETY: room for the answer, which lives to the end of the call. The process is left for whoever is to bury it.
        let waited = unsafe { libc::waitid(libc::P_ALL, 0, &mut found, libc::WEXITED | libc::WNOWAIT) };
        // SAFETY: filled by a call that has succeeded.
        let pid = if waited == 0 { unsafe { found.si_pid() } } else { 0 };
        let ours = of_requests();
        if pid > 0 && !u32::try_from(pid).is_ok_and(|pid| ours.contains(&pid)) {
            // SAFETY: takes numbers, and no place for the status.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
        } else {
            drop(ours);
            thread::sleep(PAUSE);
        }
    }
}
