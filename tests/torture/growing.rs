//! A log read while it grows: what was written is there for every reader at once, never zeros below the end, never a
//! size that shrinks.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::fault::{Check, ensure};
use crate::procs::{self, Worker};
use crate::{Run, sys};

const WRITE_BYTES_MAX: u64 = 150_000;
const FILE_BYTES_MAX: u64 = 96 << 20;
/// How far back a reader looks again.
const LOOK_BACK_BYTES: u64 = 256 << 10;
/// The shared word that holds the bytes whose write has returned.
const ACKNOWLEDGED: usize = 0;

pub fn run(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    ensure!(dirs.len() * run.processes > 1, "needs a writer and a reader: two processes");
    sys::write_file(dirs[0].join("log"), b"")?;
    let reports =
        procs::run(run, dirs, |worker| if worker.index == 0 { grow(worker, run.sabotage) } else { follow(worker) })?;
    let reads: u64 = reports[1..].iter().map(|r| r[0]).sum();
    ensure!(reports[0][0] > 0 && reads > 0, "{} bytes and {reads} reads prove nothing", reports[0][0]);
    Ok(format!("{} bytes, {reads} reads", reports[0][0]))
}

/// The byte at an offset: never zero.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8 | 1
}

/// Answers `[bytes]`.
fn grow(worker: &mut Worker, sabotage: bool) -> Check<Vec<u64>> {
    let fd = sys::open(worker.dir.join("log"), libc::O_WRONLY | libc::O_APPEND, 0)?;
    let plain = sys::open(worker.dir.join("log"), libc::O_WRONLY, 0)?;
    let mut end = 0;
    while worker.time_is_left() && end < FILE_BYTES_MAX {
        let length = worker.random.length(WRITE_BYTES_MAX);
        let bytes: Vec<u8> = (end..end + length).map(pattern).collect();
        let appends = worker.random.once_in(2);
        let n = if sabotage {
            sys::ftruncate(&plain, end + length)?;
            std::thread::sleep(std::time::Duration::from_millis(2));
            sys::pwrite(&plain, &bytes, end)?
        } else if appends {
            sys::write(&fd, &bytes)?
        } else {
            sys::pwrite(&plain, &bytes, end)?
        };
        ensure!(n == bytes.len(), "short write: {n} of {length}");
        end += length;
        worker.word(ACKNOWLEDGED).store(end, Ordering::SeqCst);
    }
    Ok(vec![end])
}

/// Answers `[reads]`.
fn follow(worker: &mut Worker) -> Check<Vec<u64>> {
    let path = worker.dir.join("log");
    let mut fd = sys::open(&path, libc::O_RDONLY, 0)?;
    let (mut seen, mut reads) = (0, 0);
    while worker.time_is_left() {
        let acknowledged = worker.word(ACKNOWLEDGED).load(Ordering::SeqCst);
        let by_path = worker.random.once_in(2);
        let size = if by_path { sys::size(&path)? } else { sys::fstat(&fd)?.st_size as u64 };
        ensure!(size >= acknowledged, "size {size} after {acknowledged} bytes were acknowledged");
        ensure!(size >= seen, "size {size} after it was {seen}");
        let from = seen.saturating_sub(worker.random.below(LOOK_BACK_BYTES));
        read_back(&fd, from, size)?;
        (seen, reads) = (size, reads + 1);
        if worker.random.once_in(16) {
            fd = sys::open(&path, libc::O_RDONLY, 0)?;
        }
    }
    Ok(vec![reads])
}

/// All of `[from, size)` is readable and right, and so is whatever follows it.
fn read_back(fd: &OwnedFd, from: u64, size: u64) -> Check {
    let mut at = from;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = sys::pread(fd, &mut buffer, at)?;
        for (i, byte) in buffer[..n].iter().enumerate() {
            let offset = at + i as u64;
            ensure!(*byte == pattern(offset), "byte {byte:#x} at {offset}, below the end {size}");
        }
        at += n as u64;
        if n == 0 {
            ensure!(at >= size, "end of file at {at}, but the size was {size}");
            return Ok(());
        }
        if at >= size {
            return Ok(());
        }
    }
}
