//! `holdfast-keeper --serve` as a process: it buries what it did not start, so it cannot be tried inside another program.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use holdfast::keeper::service;

const KEEPER: &str = env!("CARGO_BIN_EXE_holdfast-keeper");
const PATIENCE: Duration = Duration::from_secs(20);
/// As many as there are requests at a time otherwise.
const UNMOUNTS: usize = 64;

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "{what} did not come");
        thread::sleep(Duration::from_millis(10));
    }
}

fn start(socket: &Path, program: &Path) -> Service {
    let mut command = Command::new(KEEPER);
    Service(command.arg("--serve").arg(socket).arg("--").arg(program).spawn().unwrap())
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn ask(socket: &Path, words: &[&str]) -> (Option<i32>, String) {
    let (mut reader, writer) = io::pipe().unwrap();
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    let code = service::ask(socket, &words, writer.as_fd());
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    (code.ok(), said)
}

#[test]
fn what_is_asked_for_is_run_and_its_end_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, program) = (dir.path().join("mounts.sock"), dir.path().join("program"));
    script(&program, "echo \"$@\" >&2; case $3 in refused) exit 2;; esac");
    let _service = start(&socket, &program);
    wait_for("the service", || service::upgrade(&socket).is_ok());
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&socket, &["mount", "a:1", "www", "/a b"]), (Some(0), "mount a:1 www /a b\n".into()));
    assert_eq!(ask(&socket, &["mount", "a:1", "refused"]).0, Some(2));
    assert_eq!(ask(&socket, &["umount", "/a"]), (Some(0), "/a\n".into()));
    assert_eq!(ask(&socket, &["sh", "-c", "true"]).0, None, "it does nothing else");
    assert!(!start(&socket, &program).0.wait().unwrap().success(), "somebody serves there");
}

/// They wait for the cluster, each on its own.
#[test]
fn a_mount_waits_for_no_unmount_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, program) = (dir.path().join("mounts.sock"), dir.path().join("program"));
    let (begun, gate) = (dir.path().join("begun"), dir.path().join("gate"));
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let wait = format!("echo >>{}; read -r _ <{}", begun.display(), gate.display());
    script(&program, &format!("case $1 in mount) exit 0;; esac; {wait}; exit 0"));
    let _service = start(&socket, &program);
    wait_for("the service", || service::upgrade(&socket).is_ok());
    // Held open, so that those who wait go on one by one.
    let mut gate = fs::OpenOptions::new().read(true).write(true).open(&gate).unwrap();
    thread::scope(|scope| {
        for _ in 0..UNMOUNTS {
            scope.spawn(|| assert_eq!(ask(&socket, &["umount", "/a"]).0, Some(0)));
        }
        wait_for("the last unmount", || fs::read(&begun).unwrap_or_default().len() == UNMOUNTS);
        let (socket, (done, mounted)) = (&socket, mpsc::channel());
        scope.spawn(move || done.send(ask(socket, &["mount", "a:1", "www", "/b"]).0));
        let mounted = mounted.recv_timeout(PATIENCE);
        gate.write_all(&[b'\n'; UNMOUNTS]).unwrap();
        assert_eq!(mounted, Ok(Some(0)));
    });
}

#[test]
fn what_goes_to_the_background_is_its_child_and_is_buried() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, program) = (dir.path().join("mounts.sock"), dir.path().join("program"));
    let (pid_file, go) = (dir.path().join("pid"), dir.path().join("go"));
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done", go.display());
    script(&program, &format!("(exec 2>/dev/null; {wait}) & echo $! > {}", pid_file.display()));
    let service = start(&socket, &program);
    wait_for("the service", || service::upgrade(&socket).is_ok());
    assert_eq!(ask(&socket, &["mount"]).0, Some(0));
    let pid = fs::read_to_string(&pid_file).unwrap().trim().to_string();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().to_string();
    assert_eq!(parent, service.0.id().to_string());
    fs::write(&go, "").unwrap();
    wait_for("its burial", || !Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn an_unmount_that_waits_holds_up_no_others_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (socket, program) = (path("mounts.sock"), path("program"));
    let kept = format!("(exec 2>/dev/null {KEEPER} sleep 1000) & echo $! > {}", text(&path("kept")));
    let waiting = format!("while [ -d {} ] && [ ! -e {} ]; do sleep 0.02; done", text(dir.path()), text(&path("go")));
    let waits = format!("touch {}; {waiting}", text(&path("waits")));
    script(&program, &format!("case $1 in mount) {kept}; exit 0;; esac; {waits}"));
    let mut service = start(&socket, &program);
    wait_for("the service", || service::upgrade(&socket).is_ok());
    assert_eq!(ask(&socket, &["mount"]).0, Some(0));
    let asking = thread::spawn({
        let socket = socket.clone();
        move || ask(&socket, &["umount", "/a"]).0
    });
    wait_for("the unmount", || path("waits").exists());
    let keeper = PathBuf::from("/proc").join(fs::read_to_string(path("kept")).unwrap().trim());
    wait_for("the keeper", || fs::read(keeper.join("cmdline")).is_ok_and(|line| line.starts_with(KEEPER.as_bytes())));
    let pid = i32::try_from(service.0.id()).unwrap();
    // SAFETY: takes numbers; a child of ours that nobody has buried.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    wait_for("the end of the other mount", || !keeper.exists());
    wait_for("the service's end", || service.0.try_wait().unwrap().is_some());
    fs::write(path("go"), "").unwrap();
    assert_eq!(asking.join().unwrap(), None, "what ended without an answer was answered");
}
