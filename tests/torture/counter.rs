//! A counter that every process reads, increments and writes under a lock: exact at the end.
//!
//! It is read through the writing handle and through a read-only one, which clients cache differently; or through a
//! mapping that each process keeps from beginning to end, and written through it half of the time.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::Run;
use crate::fault::{Check, ensure};
use crate::procs::{self, Worker};
use crate::sys::{self, Mapping, Sys};

#[derive(Clone, Copy)]
struct Lock {
    lock: fn(&OwnedFd) -> Sys<()>,
    unlock: fn(&OwnedFd) -> Sys<()>,
}

const FLOCK: Lock = Lock { lock: |fd| sys::flock(fd, libc::LOCK_EX), unlock: |fd| sys::flock(fd, libc::LOCK_UN) };
const FCNTL: Lock = Lock {
    lock: |fd| sys::fcntl_lock(fd, libc::F_SETLKW, libc::F_WRLCK, 0, 8).map(|_| ()),
    unlock: |fd| sys::fcntl_lock(fd, libc::F_SETLK, libc::F_UNLCK, 0, 8).map(|_| ()),
};
const OFD: Lock = Lock {
    lock: |fd| sys::fcntl_lock(fd, libc::F_OFD_SETLKW, libc::F_WRLCK, 0, 0).map(|_| ()),
    unlock: |fd| sys::fcntl_lock(fd, libc::F_OFD_SETLK, libc::F_UNLCK, 0, 0).map(|_| ()),
};
const NONE: Lock = Lock { lock: |_| Ok(()), unlock: |_| Ok(()) };

pub fn by_flock(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    count(run, dirs, FLOCK)
}

pub fn by_fcntl(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    count(run, dirs, FCNTL)
}

pub fn by_ofd(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    count(run, dirs, OFD)
}

pub fn mapped(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    let lock = if run.sabotage { NONE } else { FLOCK };
    count_by(run, dirs, |worker| increment_mapped(worker, lock))
}

fn count(run: &Run, dirs: &[PathBuf], lock: Lock) -> Check<String> {
    let lock = if run.sabotage { NONE } else { lock };
    count_by(run, dirs, |worker| increment(worker, lock))
}

fn count_by(run: &Run, dirs: &[PathBuf], work: impl Fn(&mut Worker) -> Check<Vec<u64>>) -> Check<String> {
    sys::write_file(dirs[0].join("counter"), &0_u64.to_le_bytes())?;
    let reports = procs::run(run, dirs, work)?;
    let total: u64 = reports.iter().map(|r| r[0]).sum();
    for dir in dirs {
        let content = sys::read_file(dir.join("counter"))?;
        ensure!(content == total.to_le_bytes(), "{}: {content:?} after {total} increments", dir.display());
    }
    let least = reports.iter().map(|r| r[0]).min().unwrap_or(0);
    Ok(format!("{total} increments, the slowest process made {least}"))
}

fn increment(worker: &mut Worker, lock: Lock) -> Check<Vec<u64>> {
    let path = worker.dir.join("counter");
    let writing = sys::open(&path, libc::O_RDWR, 0)?;
    let reading = sys::open(&path, libc::O_RDONLY, 0)?;
    let mut made = 0;
    while worker.time_is_left() {
        (lock.lock)(&writing)?;
        let mut value = [0; 8];
        let from = if worker.random.once_in(2) { &writing } else { &reading };
        ensure!(sys::pread(from, &mut value, 0)? == 8, "short read of the counter");
        if worker.random.once_in(8) {
            std::thread::yield_now();
        }
        let next = (u64::from_le_bytes(value) + 1).to_le_bytes();
        ensure!(sys::pwrite(&writing, &next, 0)? == 8, "short write of the counter");
        (lock.unlock)(&writing)?;
        made += 1;
    }
    Ok(vec![made])
}

fn increment_mapped(worker: &mut Worker, lock: Lock) -> Check<Vec<u64>> {
    let file = sys::open(worker.dir.join("counter"), libc::O_RDWR, 0)?;
    let mut mapping = Mapping::new(&file, libc::PROT_READ | libc::PROT_WRITE, 8)?;
    let mut made = 0;
    while worker.time_is_left() {
        (lock.lock)(&file)?;
        let mut value = [0; 8];
        value.copy_from_slice(mapping.bytes());
        if worker.random.once_in(8) {
            std::thread::yield_now();
        }
        let next = (u64::from_le_bytes(value) + 1).to_le_bytes();
        if worker.random.once_in(2) {
            mapping.bytes_mut().copy_from_slice(&next);
            mapping.sync()?;
        } else {
            ensure!(sys::pwrite(&file, &next, 0)? == 8, "short write of the counter");
        }
        (lock.unlock)(&file)?;
        made += 1;
    }
    Ok(vec![made])
}
