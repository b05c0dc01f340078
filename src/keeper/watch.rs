//! The keeper's end: one client after the other, until one says that it is done.
//!
//! One thread, which waits for signals and for words of the client, and for nothing else. SIGTERM and SIGINT are passed on to the
//! client once it hears them; SIGHUP has it leave to the next one, which is what an upgrade is. A client that is stopped (SIGSTOP)
//! answers nobody: it is killed and followed. What nobody waits for is buried, as the keeper may be the first process of a container.
//!
//! A keeper that is killed itself is followed by another where a service manager starts one, and has kept what it kept. The client
//! then ends as well, by whatever hand: the next keeper's takes over from it as from any that died.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use super::lives::{Lives, Next};
use super::manager::{self, Manager};
use super::oom;
use super::socket::Socket;
use super::{DONE, GO, HEARS, KEEP, KEPT, LEAVE, REFUSES, SOCKET_VARIABLE, say};

const SIGNALS: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
/// Between two looks at a client that says nothing.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// A process that has ended is buried within so long, if none of its threads is held in the kernel.
const BURIED_WITHIN: Duration = Duration::from_millis(400);
/// Before it is tried again: the program may be being replaced.
const START_PAUSE: Duration = Duration::from_millis(500);

/// Starts the command, and another one in its place whenever it ends without being done. Returns how the last one ended.
///
/// # Errors
/// It cannot be started, or the host refuses what a keeper needs.
pub fn run(command: Vec<OsString>) -> io::Result<ExitCode> {
    let (kept, manager) = (manager::inherited(), Manager::find());
    let mut lives = Lives::default();
    if !kept.is_empty() {
        say(format_args!("the keeper before was killed: going on with its mount"));
        lives.keeps();
    }
    let oom_before = oom::spare_this_process();
    let signals = signals()?;
    let watch =
        Watch { command, oom_before, signals, lives, kept, manager, client: None, ending: None, starts_at: None };
    watch.run_to_the_end()
}

struct Watch {
    command: Vec<OsString>,
    oom_before: oom::Before,
    signals: OwnedFd,
    lives: Lives,
    kept: BTreeMap<String, Vec<OwnedFd>>,
    manager: Option<Manager>,
    client: Option<Client>,
    /// A signal that no client has heard yet.
    ending: Option<libc::c_int>,
    starts_at: Option<Instant>,
}

struct Client {
    pid: libc::pid_t,
    /// Gone when the client has closed its end.
    socket: Option<Socket>,
    /// It serves, and signals do not kill it.
    hears: bool,
    is_to_leave: bool,
    started: Instant,
    /// It has ended, and was not to be buried then.
    dead_since: Option<Instant>,
}

impl Watch {
    fn run_to_the_end(mut self) -> io::Result<ExitCode> {
        self.start()?;
        loop {
            let [signalled, spoken] = self.wait()?;
            if spoken {
                self.listen();
            }
            self.look_for_the_unburied();
            if signalled {
                let signal = next_signal(&self.signals)?;
                if signal == libc::SIGCHLD {
                    if let Some(code) = self.bury()? {
                        return Ok(code);
                    }
                } else {
                    self.signalled(signal);
                }
            }
            if self.starts_at.is_some_and(|at| Instant::now() >= at) {
                self.starts_at = None;
                if let Err(error) = self.start() {
                    say(format_args!("{error}"));
                    self.starts_at = Some(Instant::now() + START_PAUSE);
                }
            }
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let (ours, theirs) = Socket::pair()?;
        let (number, oom_before) = (theirs.number(), self.oom_before.clone());
        let [program, arguments @ ..] = &self.command[..] else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command to start"));
        };
        let mut command = Command::new(program);
        command.args(arguments).env(SOCKET_VARIABLE, number.to_string());
        for variable in manager::VARIABLES {
            command.env_remove(variable);
        }
        // SAFETY: the keeper has one thread, so that its copy may do as it likes.
        unsafe {
            command.pre_exec(move || prepare(number, &oom_before));
        }
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{} cannot be started: {error}", program.display()))
        })?;
        drop(theirs);
        let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
        // One that has ended already is buried soon.
        let _ = hand_over(&ours, &self.kept);
        self.client = Some(Client {
            pid,
            socket: Some(ours),
            hears: false,
            is_to_leave: false,
            started: Instant::now(),
            dead_since: None,
        });
        Ok(())
    }

    /// Which of the two there is to look at: a signal, a word of the client.
    fn wait(&self) -> io::Result<[bool; 2]> {
        let spoken = self.client.as_ref().and_then(|client| client.socket.as_ref()).map_or(-1, Socket::number);
        let watched = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut polled = [watched(self.signals.as_raw_fd()), watched(spoken)];
        let pause = match self.starts_at {
            Some(at) => Some(at.saturating_duration_since(Instant::now()).as_millis() + 1),
            None => self.client.as_ref().map(|_| LOOK_PERIOD.as_millis()),
        };
        let timeout = pause.map_or(-1, |ms| libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX));
        // SAFETY: an array of two, which lives to the end of the call.
        if unsafe { libc::poll(polled.as_mut_ptr(), 2, timeout) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok([false; 2]) } else { Err(error) };
        }
        Ok(polled.map(|polled| polled.revents != 0))
    }

    /// One message of the client.
    fn listen(&mut self) {
        let Some(client) = &mut self.client else { return };
        let Some(socket) = &client.socket else { return };
        let (message, descriptors) = match socket.receive() {
            Ok(Some(message)) => message,
            // It ended before it had read all that it was told: said once, before what it has said itself.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
            Ok(None) | Err(_) => {
                client.socket = None;
                return;
            }
        };
        match message.split_once(' ').unwrap_or((&message, "")) {
            (KEEP, name) => {
                self.manager.iter().for_each(|manager| manager.keep(name, &descriptors));
                self.kept.insert(name.to_owned(), descriptors);
                self.lives.keeps();
            }
            (HEARS, _) => {
                client.hears = true;
                if let Some(signal) = self.ending.take() {
                    kill(client.pid, signal);
                }
            }
            (REFUSES, why) => say(format_args!("the client stays: {why}")),
            (DONE, _) => {
                self.lives.is_done();
                // Whoever unmounts it waits for answers as long as somebody could give them.
                self.manager.iter().for_each(|manager| self.kept.keys().for_each(|name| manager.forget(name)));
                self.kept.clear();
            }
            _ => say(format_args!("the client says {message:?}, which means nothing")),
        }
    }

    fn signalled(&mut self, signal: libc::c_int) {
        let Some(client) = &mut self.client else {
            self.ending = Some(signal).filter(|signal| *signal != libc::SIGHUP);
            return;
        };
        match (signal, &client.socket) {
            (libc::SIGHUP, Some(socket)) if client.hears => {
                // One that is gone is followed anyway.
                client.is_to_leave = socket.send(LEAVE, &[]).is_ok();
            }
            (libc::SIGHUP, _) => say(format_args!("the client does not serve yet: it is not replaced now")),
            // What it would not hear yet it would die of; with nothing to keep that is as good.
            _ if client.hears || self.kept.is_empty() => kill(client.pid, signal),
            // Twice: whoever says so minds neither the mount nor what is on it.
            _ if self.ending.is_some() => {
                self.lives.is_done();
                kill(client.pid, libc::SIGKILL);
            }
            _ => self.ending = Some(signal),
        }
    }

    /// Looks which processes have ended. The code, when nobody follows the client.
    fn bury(&mut self) -> io::Result<Option<ExitCode>> {
        loop {
            let mut status = 0;
            // SAFETY: the status is ours.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) };
            if pid <= 0 {
                return Ok(None);
            }
            if self.client.as_ref().is_none_or(|client| client.pid != pid) {
                continue;
            }
            if libc::WIFSTOPPED(status) {
                say(format_args!("the client was stopped: it is killed, and another follows"));
                kill(pid, libc::SIGKILL);
                continue;
            }
            while self.client.as_ref().is_some_and(|client| client.socket.is_some()) {
                self.listen();
            }
            let Some(client) = self.client.take() else { continue };
            let left = client.is_to_leave && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
            match self.lives.ended(client.started.elapsed(), left) {
                Next::Ends => return Ok(Some(code_of(status))),
                Next::Follows(pause) => {
                    say(format_args!("the client {}; another follows", how_it_ended(status)));
                    self.starts_at = Some(Instant::now() + pause);
                }
            }
        }
    }

    /// A thread of a client that has ended may be held in the kernel by a request that nobody answers: until another client does, so
    /// it is followed without being buried.
    fn look_for_the_unburied(&mut self) {
        let Some(client) = &mut self.client else { return };
        if !is_zombie(client.pid) {
            client.dead_since = None;
            return;
        }
        let since = *client.dead_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= BURIED_WITHIN && self.lives.ended(client.started.elapsed(), false) != Next::Ends {
            say(format_args!("the client has ended but for what waits for the next one; another follows"));
            self.client = None;
            self.starts_at = Some(Instant::now());
        }
    }
}

fn is_zombie(pid: libc::pid_t) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn hand_over(socket: &Socket, kept: &BTreeMap<String, Vec<OwnedFd>>) -> io::Result<()> {
    for (name, descriptors) in kept {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        socket.send(&format!("{KEPT} {name}"), &descriptors)?;
    }
    socket.send(GO, &[])
}

/// In the client's process, before it is the client.
fn prepare(socket: RawFd, oom_before: &oom::Before) -> io::Result<()> {
    // SAFETY: takes a descriptor that is open, and numbers.
    if unsafe { libc::fcntl(socket, libc::F_SETFD, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    oom_before.restore();
    set_mask(libc::SIG_UNBLOCK)
}

fn set_mask(how: libc::c_int) -> io::Result<()> {
    let set = signal_set();
    // SAFETY: a set that is filled, and no place for the one before.
    let error = unsafe { libc::pthread_sigmask(how, &set, std::ptr::null_mut()) };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

fn signal_set() -> libc::sigset_t {
    // SAFETY: a set of zeros is made an empty set before anything is put into it.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        SIGNALS.iter().for_each(|signal| {
            libc::sigaddset(&mut set, *signal);
        });
        set
    }
}

fn signals() -> io::Result<OwnedFd> {
    set_mask(libc::SIG_BLOCK)?;
    let set = signal_set();
    // SAFETY: a set that is filled.
    let file = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the call has made, and that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

fn next_signal(signals: &OwnedFd) -> io::Result<libc::c_int> {
    // SAFETY: numbers alone, for which zeros are good values.
    let mut signal: libc::signalfd_siginfo = unsafe { mem::zeroed() };
    let bytes = size_of::<libc::signalfd_siginfo>();
    // SAFETY: a buffer of so many bytes, which lives to the end of the call.
    let read = unsafe { libc::read(signals.as_raw_fd(), (&raw mut signal).cast(), bytes) };
    if usize::try_from(read) != Ok(bytes) {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(signal.ssi_signo).map_err(io::Error::other)
}

fn kill(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: takes numbers. Our own child, which was not waited for, so the number is nobody else's.
    if unsafe { libc::kill(pid, signal) } < 0 {
        say(format_args!("the client cannot be signalled: {}", io::Error::last_os_error()));
    }
}

fn code_of(status: libc::c_int) -> ExitCode {
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn how_it_ended(status: libc::c_int) -> String {
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => "has left".into(),
        (true, code) => format!("has ended with {code}"),
        (false, _) => format!("was killed by signal {}", libc::WTERMSIG(status)),
    }
}
