//! O_APPEND records of random length to one file from every process on every mount: none lost, none torn, none twice,
//! each writer's in the order he wrote them.
//!
//! A write moves the file position to the end of its own record. A FUSE kernel works that out from the size it knew
//! and not from where the record went, so a wrong position is counted, and is a fault only where `--offsets` says so.

use std::path::PathBuf;

use crate::fault::{At, Check, ensure};
use crate::procs::{self, Worker};
use crate::record::{self, Tag};
use crate::{Run, sys};

const PAYLOAD_BYTES_MAX: u64 = 100_000;
const ALL_BYTES_MAX: usize = 128 << 20;

pub fn run(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    let reports = procs::run(run, dirs, |worker| write_records(worker, run))?;
    let written: Vec<u64> = reports.iter().map(|r| r[0]).collect();
    let wrong_positions: u64 = reports.iter().map(|r| r[1]).sum();
    for dir in dirs {
        let content = sys::read_file(dir.join("log"))?;
        verify(&content, &written).at(dir.display())?;
    }
    ensure!(!run.offsets || wrong_positions == 0, "{wrong_positions} file positions not at the end of the record");
    Ok(format!("{} records, {wrong_positions} wrong positions", written.iter().sum::<u64>()))
}

/// Answers `[records written, wrong positions]`.
fn write_records(worker: &mut Worker, run: &Run) -> Check<Vec<u64>> {
    let path = worker.dir.join("log");
    let append = if run.sabotage { 0 } else { libc::O_APPEND };
    let mut fd = sys::open(&path, libc::O_RDWR | libc::O_CREAT | append, 0o644)?;
    let (mut sequence, mut bytes, mut wrong) = (0, 0, 0);
    while worker.time_is_left() && bytes * worker.count < ALL_BYTES_MAX {
        let payload = worker.random.length(PAYLOAD_BYTES_MAX) as usize;
        let tag = Tag { writer: worker.index as u32, sequence };
        let record = record::encode(tag, payload, &mut worker.random);
        let n = if run.sabotage {
            // What a client does that believes the size it remembers.
            let end = sys::fstat(&fd)?.st_size as u64;
            sys::pwrite(&fd, &record, end)?
        } else {
            sys::write(&fd, &record)?
        };
        ensure!(n == record.len(), "{tag:?}: {n} of {} bytes written", record.len());
        let end = sys::lseek(&fd, 0, libc::SEEK_CUR)?;
        wrong += u64::from(!is_at(&fd, &record, end)?);
        sequence += 1;
        bytes += record.len();
        if worker.random.once_in(32) {
            fd = sys::open(&path, libc::O_RDWR | append, 0)?;
        }
    }
    Ok(vec![sequence, wrong])
}

fn is_at(fd: &std::os::fd::OwnedFd, record: &[u8], end: u64) -> Check<bool> {
    let Some(start) = end.checked_sub(record.len() as u64) else { return Ok(false) };
    let mut header = [0; record::HEADER_BYTES];
    sys::pread(fd, &mut header, start)?;
    Ok(header == record[..record::HEADER_BYTES])
}

fn verify(content: &[u8], written: &[u64]) -> Check {
    let mut next = vec![0; written.len()];
    for (at, tag) in record::decode_all(content)? {
        let expected = next.get_mut(tag.writer as usize);
        ensure!(expected.as_deref() == Some(&tag.sequence), "at {at}: {tag:?} where {expected:?} was due");
        next[tag.writer as usize] += 1;
    }
    ensure!(next == written, "records there {next:?}, acknowledged {written:?}");
    Ok(())
}
