//! Exclusive creation of the same names by every process at once, by every call that creates: one winner each, and
//! everyone else is told that it exists.

use std::path::{Path, PathBuf};

use crate::Run;
use crate::fault::{At, Check, Fault, ensure};
use crate::procs::{self, Worker};
use crate::sys::{self, Sys};

pub fn run(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    let reports = procs::run(run, dirs, |worker| compete(worker, run.sabotage))?;
    let rounds = reports[0][0];
    let mut winners = vec![Vec::new(); rounds as usize];
    for (index, report) in reports.iter().enumerate() {
        report[1..].iter().for_each(|round| winners[*round as usize].push(index));
    }
    for (round, winners) in winners.iter().enumerate() {
        ensure!(winners.len() == 1, "round {round} ({}) was won by {winners:?}", kind(round as u64).0);
    }
    for dir in dirs {
        let listed = sys::list(dir)?.iter().filter(|e| e.name.starts_with(b"round-")).count() as u64;
        ensure!(listed == rounds, "{}: {listed} names of {rounds}", dir.display());
    }
    Ok(format!("{rounds} rounds of {} processes", reports.len()))
}

/// Answers `[rounds, rounds won…]`.
fn compete(worker: &mut Worker, sabotage: bool) -> Check<Vec<u64>> {
    let source = worker.dir.join(format!("source-{}", worker.index));
    let mut won = Vec::new();
    let mut round = 0;
    sys::write_file(&source, b"x")?;
    while worker.meet(round) {
        let path = worker.dir.join(format!("round-{round}"));
        let (name, claim) = kind(round);
        let outcome = if sabotage && round % 5 == 0 { create_shared(&source, &path) } else { claim(&source, &path) };
        match outcome {
            Ok(()) => won.push(round),
            Err(e) if e.code == libc::EEXIST => {}
            Err(e) => return Err(Fault::from(e)).at(format_args!("round {round} ({name})")),
        }
        // Who was told that it exists sees that it exists.
        sys::lstat(&path).at(format_args!("round {round} ({name}), afterwards"))?;
        if name == "rename" {
            sys::write_file(&source, b"x")?;
        }
        round += 1;
    }
    sys::unlink(&source)?;
    Ok(std::iter::once(round).chain(won).collect())
}

type Claim = fn(&Path, &Path) -> Sys<()>;

fn kind(round: u64) -> (&'static str, Claim) {
    const KINDS: [(&str, Claim); 5] = [
        ("open", |_, path| sys::open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600).map(|_| ())),
        ("mkdir", |_, path| sys::mkdir(path, 0o700)),
        ("symlink", |source, path| sys::symlink(source, path)),
        ("link", |source, path| sys::link(source, path)),
        ("rename", |source, path| sys::renameat2(source, path, libc::RENAME_NOREPLACE)),
    ];
    KINDS[(round % KINDS.len() as u64) as usize]
}

fn create_shared(_: &Path, path: &Path) -> Sys<()> {
    sys::open(path, libc::O_WRONLY | libc::O_CREAT, 0o600).map(|_| ())
}
