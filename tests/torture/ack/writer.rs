//! One writer: does, syncs, notes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use super::{PLACE_BYTES, PLACES, Work, WriterArguments, log_path, record_of};
use crate::fault::{Check, Fault};
use crate::procs::Worker;
use crate::random::Random;
use crate::record::HEADER_BYTES;
use crate::sys::{self, Errno, Sys};

const SMALL_BYTES_MAX: u64 = 60_000;
const LARGE_BYTES_MAX: u64 = 3 << 20;
const PUTS_MAX: usize = 200;

struct Writer {
    index: usize,
    dir: PathBuf,
    log: File,
    append: OwnedFd,
    places: OwnedFd,
    puts: BTreeSet<u64>,
    random: Random,
}

/// Answers `[operations acknowledged, longest pause in milliseconds]`.
pub fn run(worker: &mut Worker, arguments: &WriterArguments) -> Check<Vec<u64>> {
    let mut writer = Writer::new(worker, arguments)?;
    let (mut acknowledged, mut pause_ms) = (0, 0);
    let mut last = Instant::now();
    while worker.time_is_left() {
        let number = acknowledged + 1;
        let work = writer.choose();
        writer.note(&work.line(number))?;
        match writer.work(number, work) {
            Ok(()) => writer.note(&format!("a {number}\n"))?,
            Err(e) if arguments.stop_on_error && !done_twice(e) => {
                writer.note(&format!("e {number} {}\n", e.code))?;
                return Ok(vec![acknowledged, pause_ms]);
            }
            Err(e) => return Err(Fault(format!("operation {number}, {work:?}: {e}"))),
        }
        acknowledged = number;
        pause_ms = pause_ms.max(last.elapsed().as_millis() as u64);
        last = Instant::now();
    }
    Ok(vec![acknowledged, pause_ms])
}

/// Names are made once and removed once: these answers mean that a retry was executed again.
fn done_twice(e: Errno) -> bool {
    [libc::EEXIST, libc::ENOENT].contains(&e.code)
}

impl Writer {
    fn new(worker: &Worker, arguments: &WriterArguments) -> Check<Writer> {
        let dir = worker.dir.join(format!("writer-{}", worker.index));
        let path = log_path(&arguments.log, worker.index);
        let log = File::options().create_new(true).append(true).open(&path);
        let log = log.map_err(|e| Fault(format!("{}: {e}", path.display())))?;
        sys::mkdir(&dir, 0o755)?;
        let append = sys::open(dir.join("log"), libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND, 0o644)?;
        let places = sys::open(dir.join("places"), libc::O_WRONLY | libc::O_CREAT, 0o644)?;
        for place in 0..PLACES {
            let record = record_of(worker.index, 0, PLACE_BYTES - HEADER_BYTES);
            sys::write_all(&places, &record, place * PLACE_BYTES as u64)?;
        }
        sys::fsync(&places)?;
        sys::fsync(&append)?;
        sys::sync_dir(&dir)?;
        sys::sync_dir(&arguments.dir)?;
        let random = worker.random.clone();
        Ok(Writer { index: worker.index, dir, log, append, places, puts: BTreeSet::new(), random })
    }

    fn note(&mut self, line: &str) -> Check {
        self.log.write_all(line.as_bytes()).map_err(|e| Fault(format!("the log outside: {e}")))
    }

    fn choose(&mut self) -> Work {
        let large = self.random.once_in(40);
        let payload_bytes = self.random.length(if large { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX }) as usize;
        match self.random.below(10) {
            0..4 => Work::Append { payload_bytes: payload_bytes.min(SMALL_BYTES_MAX as usize) },
            4..7 if self.puts.len() < PUTS_MAX => Work::Put { payload_bytes },
            7 => Work::Over { place: self.random.below(PLACES) },
            8 => Work::Mkdir,
            _ => match self.puts.first() {
                Some(put) => Work::Remove { put: *put },
                None => Work::Put { payload_bytes },
            },
        }
    }

    fn work(&mut self, number: u64, work: Work) -> Sys<()> {
        match work {
            Work::Append { payload_bytes } => {
                let record = record_of(self.index, number, payload_bytes);
                whole(sys::write(&self.append, &record)?, record.len())?;
                self.sync(number)
            }
            Work::Put { payload_bytes } => self.put(number, payload_bytes),
            Work::Remove { put } => {
                sys::unlink(self.dir.join(format!("put-{put}")))?;
                sys::sync_dir(&self.dir)?;
                self.puts.remove(&put);
                Ok(())
            }
            Work::Over { place } => {
                let record = record_of(self.index, number, PLACE_BYTES - HEADER_BYTES);
                whole(sys::pwrite(&self.places, &record, place * PLACE_BYTES as u64)?, record.len())?;
                sys::fdatasync(&self.places)
            }
            Work::Mkdir => {
                sys::mkdir(self.dir.join(format!("dir-{number}")), 0o755)?;
                sys::sync_dir(&self.dir)
            }
        }
    }

    fn put(&mut self, number: u64, payload_bytes: usize) -> Sys<()> {
        let fresh = self.dir.join(format!("fresh-{number}"));
        let fd = sys::open(&fresh, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o644)?;
        sys::write_all(&fd, &record_of(self.index, number, payload_bytes), 0)?;
        sys::fsync(&fd)?;
        sys::close(fd)?;
        sys::rename(&fresh, self.dir.join(format!("put-{number}")))?;
        sys::sync_dir(&self.dir)?;
        self.puts.insert(number);
        Ok(())
    }

    /// fsync and fdatasync in turn: both must keep a file that has grown.
    fn sync(&self, number: u64) -> Sys<()> {
        if number.is_multiple_of(2) { sys::fsync(&self.append) } else { sys::fdatasync(&self.append) }
    }
}

fn whole(written: usize, asked: usize) -> Sys<()> {
    if written == asked { Ok(()) } else { Err(Errno { call: "write", code: libc::EIO }) }
}

const _: () = assert!(PLACE_BYTES > HEADER_BYTES);
