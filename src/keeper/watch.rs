//! The keeper's end: one client after the other, until one says that it is done.
//!
//! One thread, which waits for signals and for words of the client, and for nothing else. SIGTERM and SIGINT are passed on to the
//! client once it hears them; SIGHUP has it leave to the next one, which is what an upgrade is, if the program that is there says that it
//! can go on. A client that is stopped (SIGSTOP) answers nobody: it is killed and followed. Where the program that is there does not get
//! on after a client has died, the one that did is started in turn with it, whatever has become of its file. What nobody waits for is
//! buried, as the keeper may be the first process of a container.
//!
//! A keeper that is killed itself is followed by another where a service manager starts one, and has kept what it kept. The client
//! then ends as well, by whatever hand: the next keeper's takes over from it as from any that died. If two in a
//! row end without having served, that keeper ends for the manager to start one with what the unit says by then; a program that
//! cannot be started at all is tried again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::lives::{Lives, Next};
use super::manager::{self, Manager};
use super::oom;
use super::socket::Socket;
use super::start::{Kept, Start};
use super::trial::{Said, Trial};
use super::{DONE, GO, HEARS, KEEP, LEAVE, PROGRAM, REFUSES, TRY, say};

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
    let watch = Watch {
        command,
        oom_before,
        signals,
        lives,
        kept,
        manager,
        client: None,
        trial: None,
        ending: None,
        starts_at: None,
    };
    watch.run_to_the_end()
}

struct Watch {
    command: Vec<OsString>,
    oom_before: oom::Before,
    signals: OwnedFd,
    lives: Lives,
    kept: Kept,
    manager: Option<Manager>,
    client: Option<Client>,
    /// Whether it could go on is asked.
    trial: Option<Trial>,
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

impl Client {
    /// How long it has, if it does.
    fn served(&self) -> Option<Duration> {
        self.hears.then(|| self.started.elapsed())
    }
}

impl Watch {
    fn run_to_the_end(mut self) -> io::Result<ExitCode> {
        self.start()?;
        loop {
            let [signalled, spoken, tried] = self.wait()?;
            if spoken {
                self.listen();
            }
            if tried {
                self.trial.iter_mut().for_each(Trial::listen);
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
                    if self.client.is_none() && self.lives.are_over() {
                        say(format_args!("told to end twice, and no client runs: the mount is given up"));
                        self.manager.iter().for_each(|manager| self.kept.keys().for_each(|name| manager.forget(name)));
                        return Ok(ExitCode::FAILURE);
                    }
                }
            }
            if let Some(said) = self.trial.as_ref().and_then(Trial::said) {
                self.is_tried(said);
            }
            if self.starts_at.is_some_and(|at| Instant::now() >= at) {
                self.starts_at = None;
                if let Err(error) = self.start() {
                    say(format_args!("{error}"));
                    self.did_not_start();
                }
            }
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let (pid, socket) = self.start_with(self.program_that_served(), GO)?;
        self.client = Some(Client {
            pid,
            socket: Some(socket),
            hears: false,
            is_to_leave: false,
            started: Instant::now(),
            dead_since: None,
        });
        Ok(())
    }

    fn start_with(&self, program: Option<&OwnedFd>, word: &str) -> io::Result<(libc::pid_t, Socket)> {
        let unmask = || set_mask(libc::SIG_UNBLOCK);
        Start { command: &self.command, program, oom_before: &self.oom_before, unmask }.and_say(word, &self.kept)
    }

    /// In place of the one that is there now, if that does not get on.
    fn program_that_served(&self) -> Option<&OwnedFd> {
        self.kept.get(PROGRAM).and_then(|files| files.first()).filter(|_| self.lives.wants_the_one_before())
    }

    fn did_not_start(&mut self) {
        let pause = match self.lives.ended(None, false) {
            Next::Follows(pause) => pause.max(START_PAUSE),
            Next::Ends => START_PAUSE,
        };
        self.starts_at = Some(Instant::now() + pause);
    }

    /// Which of the three there is to look at: a signal, a word of the client, a word of who is tried.
    fn wait(&self) -> io::Result<[bool; 3]> {
        let client = self.client.as_ref().and_then(|client| client.socket.as_ref());
        let trial = self.trial.as_ref().and_then(|trial| trial.socket.as_ref());
        let watched = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let numbers = [client, trial].map(|socket| socket.map_or(-1, Socket::number));
        let mut polled = [self.signals.as_raw_fd(), numbers[0], numbers[1]].map(watched);
        let pause = match self.starts_at {
            Some(at) => Some(at.saturating_duration_since(Instant::now()).as_millis() + 1),
            None => self.client.as_ref().map(|_| LOOK_PERIOD.as_millis()),
        };
        let timeout = pause.map_or(-1, |ms| libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX));
        // SAFETY: an array of three, which lives to the end of the call.
        if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok([false; 3]) } else { Err(error) };
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
                let pid = client.pid;
                if let Some(signal) = self.ending.take() {
                    kill(pid, signal);
                }
                self.keep_program(pid);
            }
            (REFUSES, why) => say(format_args!("the client stays: {why}")),
            (DONE, _) => {
                self.lives.is_done();
                self.trial = None;
                // Whoever unmounts it waits for answers as long as somebody could give them.
                self.manager.iter().for_each(|manager| self.kept.keys().for_each(|name| manager.forget(name)));
                self.kept.clear();
            }
            _ => say(format_args!("the client says {message:?}, which means nothing")),
        }
    }

    /// The program of this process serves: where the one that is there later does not, it does still.
    fn keep_program(&mut self, pid: libc::pid_t) {
        if self.kept.is_empty() {
            return;
        }
        match File::open(format!("/proc/{pid}/exe")) {
            Ok(file) => {
                let files = vec![file.into()];
                self.manager.iter().for_each(|manager| manager.keep(PROGRAM, &files));
                self.kept.insert(PROGRAM.to_owned(), files);
            }
            Err(error) => say(format_args!("the program of the client is not kept: {error}")),
        }
    }

    /// Whether the program that is there can go on is asked first: until it does, whoever uses the mount waits.
    fn try_next(&mut self) {
        if self.trial.is_some() {
            return;
        }
        match self.start_with(None, TRY) {
            Ok((pid, socket)) => self.trial = Some(Trial::of(pid, socket)),
            Err(error) => say(format_args!("the client stays: {error}")),
        }
    }

    fn is_tried(&mut self, said: Said) {
        self.trial = None;
        self.was_tried(said);
    }

    fn was_tried(&mut self, said: Said) {
        match (said, &mut self.client) {
            (Said::Refuses(why), _) => {
                say(format_args!("the client stays: the program that would follow cannot: {why}"))
            }
            // One that is gone is followed anyway.
            (Said::Fits, Some(client)) => {
                let told = client.socket.as_ref().map(|socket| socket.send(LEAVE, &[]));
                client.is_to_leave = matches!(told, Some(Ok(())));
            }
            (Said::Fits, None) => {}
        }
    }

    fn signalled(&mut self, signal: libc::c_int) {
        let Some(client) = &mut self.client else {
            if signal != libc::SIGHUP && self.ending.replace(signal).is_some() {
                self.lives.is_done();
            }
            return;
        };
        match (signal, &client.socket) {
            (libc::SIGHUP, Some(_)) if client.hears && !self.kept.is_empty() => self.try_next(),
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
            if let Some(mut trial) = self.trial.take_if(|trial| trial.pid == pid && !libc::WIFSTOPPED(status)) {
                let said = trial.ended(&how_it_ended(status));
                self.was_tried(said);
                continue;
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
            match self.lives.ended(client.served(), left) {
                Next::Ends => return Ok(Some(code_of(status))),
                Next::Follows(_) if self.manager.is_some() && self.lives.got_nowhere() => {
                    say(format_args!(
                        "the client {}, like the one before: the service manager is to begin anew",
                        how_it_ended(status)
                    ));
                    return Ok(Some(ExitCode::FAILURE));
                }
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
        if since.elapsed() >= BURIED_WITHIN && self.lives.ended(client.served(), false) != Next::Ends {
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

pub(super) fn kill(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: takes numbers. Our own child, which was not waited for, so the number is nobody else's.
    if unsafe { libc::kill(pid, signal) } < 0 {
        say(format_args!("a process cannot be signalled: {}", io::Error::last_os_error()));
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
