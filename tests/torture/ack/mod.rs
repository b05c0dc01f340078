//! What was acknowledged must be there, whatever was killed.
//!
//! The writer works in the filesystem under test and notes in a log *outside* it what it is about to do and, after the
//! fsync returned, that it was done. After the crash the checker reads the log and the filesystem and compares:
//! everything acknowledged is there, once, whole; of what was not acknowledged each operation happened or did not.
//!
//! The log, one line per event, each written by one call:
//!
//! ```text
//! i 17 append 4100     about to append record 17 with 4,100 bytes of payload
//! a 17                 acknowledged
//! e 18 5               operation 18 failed with errno 5, and the writer stopped (with --stop-on-error)
//! ```

mod check;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::Run;
use crate::fault::{At, Check, Fault, ensure, fault};
use crate::procs;
use crate::random::Random;
use crate::record::{self, Tag};

/// Fixed places in one file that are overwritten again and again.
pub const PLACES: u64 = 16;
pub const PLACE_BYTES: usize = 8192;

/// One thing the writer does. Its number names what it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A record at the end of `log`.
    Append { payload_bytes: usize },
    /// A record in a file of its own: written beside, synced, renamed to `put-N`, the directory synced.
    Put { payload_bytes: usize },
    /// `put-K` unlinked.
    Remove { put: u64 },
    /// A record over one of the places of `places`.
    Over { place: u64 },
    /// Directory `dir-N`.
    Mkdir,
}

impl Work {
    fn line(self, number: u64) -> String {
        match self {
            Work::Append { payload_bytes } => format!("i {number} append {payload_bytes}\n"),
            Work::Put { payload_bytes } => format!("i {number} put {payload_bytes}\n"),
            Work::Remove { put } => format!("i {number} remove {put}\n"),
            Work::Over { place } => format!("i {number} over {place}\n"),
            Work::Mkdir => format!("i {number} mkdir 0\n"),
        }
    }

    fn parse(kind: &str, argument: u64) -> Check<Work> {
        Ok(match kind {
            "append" => Work::Append { payload_bytes: argument as usize },
            "put" => Work::Put { payload_bytes: argument as usize },
            "remove" => Work::Remove { put: argument },
            "over" => Work::Over { place: argument },
            "mkdir" => Work::Mkdir,
            _ => return fault(format!("no work {kind:?}")),
        })
    }
}

/// Writes to a directory and notes outside what was acknowledged.
#[derive(Parser, Clone, Debug)]
#[command(name = "torture ack-writer")]
pub struct WriterArguments {
    /// In the filesystem under test; every process makes a directory of its own in it.
    #[arg(long)]
    pub dir: PathBuf,
    /// Outside it; every process adds its number to the name.
    #[arg(long)]
    pub log: PathBuf,
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    #[arg(long, default_value_t = 2)]
    pub processes: usize,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// An error ends the writer and is noted, instead of being a failure: for a mount that is itself killed.
    #[arg(long)]
    pub stop_on_error: bool,
}

/// Compares the log of `ack-writer` with what is there now.
#[derive(Parser, Clone, Debug)]
#[command(name = "torture ack-check")]
pub struct CheckArguments {
    /// The writer's directory, through each of the mounts to look through.
    #[arg(long, required = true, num_args = 1..)]
    pub dir: Vec<PathBuf>,
    #[arg(long)]
    pub log: PathBuf,
    /// Fewer acknowledged operations prove nothing, and fail.
    #[arg(long, default_value_t = 20)]
    pub at_least: u64,
}

pub fn writer_main() -> Check {
    let line = write(&WriterArguments::parse_from(std::env::args().skip(1)))?;
    println!("{line}");
    Ok(())
}

pub fn check_main() -> Check {
    let line = check::run(&CheckArguments::parse_from(std::env::args().skip(1)))?;
    println!("{line}");
    Ok(())
}

/// Runs the writers. Answers how much was acknowledged, and the longest time without an acknowledgement.
fn write(arguments: &WriterArguments) -> Check<String> {
    let run =
        Run { seconds: arguments.seconds, processes: arguments.processes, seed: arguments.seed, ..Run::default() };
    let reports = procs::run(&run, std::slice::from_ref(&arguments.dir), |worker| {
        writer::run(worker, arguments).at(format_args!("writer {}", worker.index))
    })?;
    let acknowledged: u64 = reports.iter().map(|r| r[0]).sum();
    let pause_ms = reports.iter().map(|r| r[1]).max().unwrap_or(0);
    Ok(format!("acknowledged={acknowledged} pause_ms={pause_ms}"))
}

/// The record of an operation: the payload follows from the numbers, so that a checker can make it again.
fn record_of(writer: usize, number: u64, payload_bytes: usize) -> Vec<u8> {
    let mut random = Random::new((writer as u64) << 48 ^ number);
    record::encode(Tag { writer: writer as u32, sequence: number }, payload_bytes, &mut random)
}

fn log_path(log: &Path, writer: usize) -> PathBuf {
    PathBuf::from(format!("{}.{writer}", log.display()))
}

/// Work done in peace checks out; every way of tampering with it is noticed.
pub fn self_test(base: &Path, time: Duration) -> Check<String> {
    let dir = base.join("ack");
    make_dir(&dir)?;
    let log = base.join("ack-log");
    let arguments = WriterArguments {
        dir: dir.clone(),
        log: log.clone(),
        seconds: time.as_secs().max(1),
        processes: 2,
        seed: 7,
        stop_on_error: false,
    };
    let written = write(&arguments)?;
    let check = |dir: &Path| check::run(&CheckArguments { dir: vec![dir.into()], log: log.clone(), at_least: 20 });
    check(&dir).at("untouched")?;
    let history = check::History::read(&log_path(&log, 0))?;
    for (name, tamper) in TAMPERINGS {
        let copy = base.join("ack-copy");
        let copied = std::process::Command::new("cp").arg("-a").arg(&dir).arg(&copy).status();
        ensure!(copied.is_ok_and(|s| s.success()), "cp -a");
        tamper(&copy.join("writer-0"), &history).map_err(|e| Fault(format!("{name}: {e}")))?;
        ensure!(check(&copy).is_err(), "{name}: not noticed");
        crate::remove_tree(&copy)?;
    }
    Ok(format!("{written}, {} ways of tampering noticed", TAMPERINGS.len()))
}

fn make_dir(dir: &Path) -> Check {
    fs::create_dir(dir).map_err(|e| Fault(format!("{}: {e}", dir.display())))
}

type Tamper = fn(&Path, &check::History) -> std::io::Result<()>;

const TAMPERINGS: [(&str, Tamper); 9] = [
    ("the last record lost", |dir, _| {
        let file = fs::File::options().write(true).open(dir.join("log"))?;
        file.set_len(record_starts(dir)?.pop().unwrap_or(0))
    }),
    ("the last record cut", |dir, _| {
        let file = fs::File::options().write(true).open(dir.join("log"))?;
        file.set_len(file.metadata()?.len() - 1)
    }),
    ("a byte of the log flipped", |dir, _| flip(&dir.join("log"), 40)),
    ("the last record there twice", |dir, _| {
        let mut content = fs::read(dir.join("log"))?;
        content.extend_from_within(record_starts(dir)?.pop().unwrap_or(0) as usize..);
        fs::write(dir.join("log"), content)
    }),
    ("a file lost", |dir, history| fs::remove_file(dir.join(format!("put-{}", any(history.puts()))))),
    ("a byte of a file flipped", |dir, history| flip(&dir.join(format!("put-{}", any(history.puts()))), 24)),
    ("a removed file back", |dir, history| fs::write(dir.join(format!("put-{}", any(history.removed()))), b"back")),
    ("an older record in a place", |dir, history| {
        let place = any(history.places());
        let mut content = fs::read(dir.join("places"))?;
        let at = place as usize * PLACE_BYTES;
        content[at..at + PLACE_BYTES].copy_from_slice(&record_of(0, 0, PLACE_BYTES - record::HEADER_BYTES));
        fs::write(dir.join("places"), content)
    }),
    ("a directory lost", |dir, history| fs::remove_dir(dir.join(format!("dir-{}", any(history.dirs()))))),
];

fn any(mut numbers: Vec<u64>) -> u64 {
    numbers.pop().unwrap_or(u64::MAX)
}

fn record_starts(dir: &Path) -> std::io::Result<Vec<u64>> {
    let records = record::decode_all(&fs::read(dir.join("log"))?).map_err(|f| std::io::Error::other(f.0))?;
    Ok(records.into_iter().map(|(at, _)| at).collect())
}

fn flip(path: &Path, at: usize) -> std::io::Result<()> {
    let mut content = fs::read(path)?;
    content[at] ^= 1;
    fs::write(path, content)
}
