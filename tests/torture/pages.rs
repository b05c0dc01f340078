//! Files read again and again by handles that only read, which a kernel may serve from its pages, while one process
//! overwrites and extends them: what a `write` has returned from is what every `read` after it finds, even where the writer
//! gives the file its old times back, so that nothing but the bytes tells of the change.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::fault::{At, Check, ensure};
use crate::procs::{self, Worker};
use crate::{Run, sys};

const PAGE_BYTES: usize = 4096;
const PAGES: usize = 16;
/// What a file has to begin with.
const PAGES_AT_FIRST: usize = PAGES / 2;
/// In rounds of many reads of the same, on both sides of the first end.
const FEW_PAGES: std::ops::Range<usize> = PAGES_AT_FIRST - 1..PAGES_AT_FIRST + 1;
const FILES_A_ROUND: usize = 3;
/// Readers have a file to themselves for so long: it is theirs to cache, and by then nothing of its name is.
const QUIET: Duration = Duration::from_millis(1100);
/// And then it is overwritten for so long.
const UNREST: Duration = Duration::from_millis(300);
/// Shared words: for each page of the file at hand the number it was last overwritten with; which round it is; which file is at
/// hand, counted from 1.
const ROUND: usize = PAGES;
const FILE: usize = PAGES + 1;

pub fn run(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    ensure!(dirs.len() * run.processes > 1, "needs a writer and a reader: two processes");
    let rounds = Duration::from_secs(run.seconds).as_millis() / (QUIET + UNREST).as_millis() + 1;
    // All of them before anybody looks: a name that is made is news to who lists the directory.
    for file in 0..rounds as usize * FILES_A_ROUND {
        sys::write_file(dirs[0].join(name(file)), &[0; PAGES_AT_FIRST * PAGE_BYTES])?;
    }
    let body = |worker: &mut Worker| match worker.index {
        0 => overwrite(worker, rounds as usize, run.sabotage),
        _ => read(worker, rounds as usize),
    };
    let reports = procs::run(run, dirs, body)?;
    let reads: u64 = reports[1..].iter().map(|report| report[0]).sum();
    ensure!(reports[0][0] > 0 && reads > 0, "{} writes and {reads} reads prove nothing", reports[0][0]);
    Ok(format!("{} writes, {reads} reads", reports[0][0]))
}

fn name(file: usize) -> String {
    format!("file-{file}")
}

/// In every other round readers look at a page only when it was written, so that they do not see what was there for a moment: a time
/// that is not the old one. In the others they get into each other's way.
fn waits(round: usize) -> bool {
    round % 2 == 1
}

fn a_page_of(round: usize, worker: &mut Worker) -> usize {
    let pages = if waits(round) { 0..PAGES } else { FEW_PAGES };
    pages.start + worker.random.below(pages.len() as u64) as usize
}

/// The files of a round.
fn files(round: usize) -> std::ops::Range<usize> {
    round * FILES_A_ROUND..(round + 1) * FILES_A_ROUND
}

/// Answers `[writes]`.
fn overwrite(worker: &mut Worker, rounds: usize, sabotage: bool) -> Check<Vec<u64>> {
    let mut writes = 0_u64;
    for round in 0..rounds {
        worker.word(ROUND).store(round as u64, Ordering::SeqCst);
        std::thread::sleep(QUIET);
        for file in files(round) {
            (0..PAGES).for_each(|page| worker.word(page).store(0, Ordering::SeqCst));
            worker.word(FILE).store(file as u64 + 1, Ordering::SeqCst);
            let path = worker.dir.join(name(file));
            let fd = sys::open(&path, libc::O_RDWR, 0)?;
            let until = Instant::now() + UNREST / FILES_A_ROUND as u32;
            while Instant::now() < until {
                writes += 1;
                let page = a_page_of(round, worker);
                let before = sys::fstat(&fd)?;
                let content = writes.to_le_bytes().repeat(PAGE_BYTES / 8);
                if !sabotage {
                    sys::write_all(&fd, &content, (page * PAGE_BYTES) as u64)?;
                }
                if worker.random.once_in(2) {
                    let times = [(before.st_atime, before.st_atime_nsec), (before.st_mtime, before.st_mtime_nsec)];
                    sys::utimens(&path, times, 0)?;
                }
                worker.word(page).store(writes, Ordering::SeqCst);
                if worker.random.once_in(3) {
                    std::thread::sleep(Duration::from_millis(worker.random.below(8)));
                }
            }
            worker.word(FILE).store(0, Ordering::SeqCst);
        }
    }
    worker.word(ROUND).store(rounds as u64, Ordering::SeqCst);
    Ok(vec![writes])
}

/// Answers `[reads]`.
fn read(worker: &mut Worker, rounds: usize) -> Check<Vec<u64>> {
    let mut reads = 0;
    for round in 0..rounds {
        while worker.word(ROUND).load(Ordering::SeqCst) < round as u64 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let open = |file| sys::open(worker.dir.join(name(file)), libc::O_RDONLY, 0);
        let fds = files(round).map(open).collect::<Result<Vec<OwnedFd>, _>>()?;
        let mut seen = vec![[0; PAGES]; FILES_A_ROUND];
        while worker.word(ROUND).load(Ordering::SeqCst) == round as u64 {
            let at_hand = worker.word(FILE).load(Ordering::SeqCst) as usize;
            let place = match at_hand {
                0 => worker.random.below(FILES_A_ROUND as u64) as usize,
                file => (file - 1) % FILES_A_ROUND,
            };
            let page = a_page_of(round, worker);
            let acknowledged = worker.word(page).load(Ordering::SeqCst);
            if waits(round) && at_hand > 0 && acknowledged == seen[place][page] {
                continue;
            }
            let file = files(round).start + place;
            // The words are this file's, before and after they were looked at.
            let current = [at_hand, worker.word(FILE).load(Ordering::SeqCst) as usize] == [file + 1; 2];
            let due = if current { seen[place][page].max(acknowledged) } else { seen[place][page] };
            seen[place][page] = oldest_of(&fds[place], page).at(format_args!("page {page} of {}", name(file)))?;
            ensure!(
                seen[place][page] >= due,
                "page {page} of {} holds {} after {due} was written",
                name(file),
                seen[place][page]
            );
            reads += 1;
        }
    }
    Ok(vec![reads])
}

/// The smallest number in a page; 0 behind the end.
fn oldest_of(fd: &OwnedFd, page: usize) -> Check<u64> {
    let mut buffer = [0; PAGE_BYTES];
    let n = sys::pread(fd, &mut buffer, (page * PAGE_BYTES) as u64)?;
    ensure!(n == PAGE_BYTES || n == 0, "{n} bytes");
    let numbers =
        buffer[..n].chunks_exact(8).map(|bytes| bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)));
    Ok(numbers.min().unwrap_or_default())
}
