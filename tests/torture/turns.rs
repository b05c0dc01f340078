//! The mounts take turns on one file: random writes, reads, truncations, punched holes, mappings and copies, each
//! through a random mount, compared byte for byte with a model in memory. Every process has a file of its own.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::Run;
use crate::fault::{At, Check, Fault, ensure};
use crate::procs::{self, Worker};
use crate::random::Random;
use crate::sys::{self, Mapping};

/// Past a few blocks of the default chunk size.
const FILE_BYTES_MAX: u64 = 3 << 20;
const CALL_BYTES_MAX: u64 = 200_000;
const DIRECT_BYTES: usize = 4096;

pub fn run(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    let reports = procs::run(run, dirs, |worker| {
        let name = format!("file-{}", worker.index);
        let paths: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(&name)).collect();
        take_turns(worker, &paths, run.sabotage).map(|turns| vec![turns])
    })?;
    Ok(format!("{} turns", reports.iter().map(|r| r[0]).sum::<u64>()))
}

fn take_turns(worker: &mut Worker, paths: &[PathBuf], sabotage: bool) -> Check<u64> {
    let first = Handles::open(&paths[0], libc::O_CREAT | libc::O_EXCL)?;
    let mut handles = vec![first];
    for path in &paths[1..] {
        handles.push(Handles::open(path, 0)?);
    }
    let mut model = Vec::new();
    let mut turns = 0;
    while worker.time_is_left() {
        let mount = worker.random.below(paths.len() as u64) as usize;
        let random = &mut worker.random;
        let what = turn(&handles[mount], &paths[mount], &mut model, random)
            .map_err(|Fault(text)| Fault(format!("turn {turns} through {}: {text}", paths[mount].display())))?;
        for path in paths {
            let size = sys::size(path)?;
            ensure!(size == model.len() as u64, "turn {turns}, {what}: size {size}, not {}", model.len());
        }
        if sabotage && turns % 50 == 49 && !model.is_empty() {
            model[0] ^= 1;
        }
        if random.once_in(64) {
            handles[mount] = Handles::open(&paths[mount], 0)?;
        }
        turns += 1;
        if turns % 200 == 0 {
            compare_whole(paths, &model).at(format_args!("after turn {turns}"))?;
        }
    }
    compare_whole(paths, &model).at(format_args!("after the last turn, {turns}"))?;
    Ok(turns)
}

fn compare_whole(paths: &[PathBuf], model: &[u8]) -> Check {
    for path in paths {
        same(&sys::read_file(path)?, model, 0).at(path.display())?;
    }
    Ok(())
}

/// The ways one mount has the file open.
struct Handles {
    both: OwnedFd,
    reading: OwnedFd,
    direct: OwnedFd,
    appending: OwnedFd,
}

impl Handles {
    fn open(path: &Path, extra: i32) -> Check<Handles> {
        let both = sys::open(path, libc::O_RDWR | extra, 0o644)?;
        let reading = sys::open(path, libc::O_RDONLY, 0)?;
        let direct = sys::open(path, libc::O_RDWR | libc::O_DIRECT, 0)?;
        let appending = sys::open(path, libc::O_WRONLY | libc::O_APPEND, 0)?;
        Ok(Handles { both, reading, direct, appending })
    }
}

/// One random call, done to the file and to the model. Answers its name.
fn turn(handles: &Handles, path: &Path, model: &mut Vec<u8>, random: &mut Random) -> Check<&'static str> {
    let at = random.below(FILE_BYTES_MAX);
    let length = random.length(CALL_BYTES_MAX).min(FILE_BYTES_MAX - at);
    let name = match random.below(16) {
        0..4 => write(&handles.both, model, at, &random.bytes(length as usize)),
        4..7 => read(if random.once_in(2) { &handles.reading } else { &handles.both }, model, at, length),
        7 => append(handles, model, &random.bytes(length as usize)),
        8 => resize(handles, path, model, at, random),
        9 => punch(handles, model, at, length),
        10 => map_write(handles, model, at, length, random),
        11 => map_read(handles, model, at, length),
        12 => direct_write(handles, model, at, random),
        13 => direct_read(handles, model, at),
        14 => copy(handles, model, at, length, random),
        _ => sys::fsync(&handles.both).map(|()| "fsync").map_err(Fault::from),
    };
    name.at(format_args!("at {at}, {length} bytes, of {}", model.len()))
}

fn put(model: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let end = at as usize + bytes.len();
    if model.len() < end {
        model.resize(end, 0);
    }
    model[at as usize..end].copy_from_slice(bytes);
}

fn same(found: &[u8], expected: &[u8], at: u64) -> Check {
    if found == expected {
        return Ok(());
    }
    let differs = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    let (end, due) = (found.len(), expected.len());
    let (a, b) = (found.get(differs), expected.get(differs));
    crate::fault::fault(format!(
        "{end} bytes for {due}, the first other at {}: {a:02x?} for {b:02x?}",
        at + differs as u64
    ))
}

fn write(fd: &OwnedFd, model: &mut Vec<u8>, at: u64, bytes: &[u8]) -> Check<&'static str> {
    let n = sys::pwrite(fd, bytes, at)?;
    ensure!(n == bytes.len(), "short write: {n}");
    put(model, at, bytes);
    Ok("write")
}

fn read(fd: &OwnedFd, model: &[u8], at: u64, length: u64) -> Check<&'static str> {
    let mut found = vec![0; length as usize];
    let n = sys::pread(fd, &mut found, at)?;
    let due = model.get(at as usize..).unwrap_or_default();
    same(&found[..n], &due[..due.len().min(length as usize)], at).at("read")?;
    Ok("read")
}

fn append(handles: &Handles, model: &mut Vec<u8>, bytes: &[u8]) -> Check<&'static str> {
    if model.len() + bytes.len() > FILE_BYTES_MAX as usize {
        return Ok("nothing");
    }
    let n = sys::write(&handles.appending, bytes)?;
    ensure!(n == bytes.len(), "short append: {n}");
    put(model, model.len() as u64, bytes);
    Ok("append")
}

fn resize(handles: &Handles, path: &Path, model: &mut Vec<u8>, to: u64, random: &mut Random) -> Check<&'static str> {
    match random.below(8) {
        0 => drop(sys::open(path, libc::O_WRONLY | libc::O_TRUNC, 0)?),
        1..4 => sys::truncate(path, to)?,
        _ => sys::ftruncate(&handles.both, to)?,
    }
    let size = sys::fstat(&handles.both)?.st_size as u64;
    ensure!(size == to || size == 0, "truncated to {to}, is {size}");
    model.resize(size as usize, 0);
    Ok("truncate")
}

fn punch(handles: &Handles, model: &mut [u8], at: u64, length: u64) -> Check<&'static str> {
    sys::fallocate(&handles.both, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, at, length)?;
    let end = ((at + length) as usize).min(model.len());
    model[(at as usize).min(end)..end].fill(0);
    Ok("punch hole")
}

fn map_write(handles: &Handles, model: &mut [u8], at: u64, length: u64, random: &mut Random) -> Check<&'static str> {
    let end = ((at + length) as usize).min(model.len());
    if at as usize >= end {
        return Ok("nothing");
    }
    let mut mapping = Mapping::new(&handles.both, libc::PROT_READ | libc::PROT_WRITE, model.len())?;
    let part = &mut mapping.bytes_mut()[at as usize..end];
    random.fill(part);
    model[at as usize..end].copy_from_slice(part);
    mapping.sync()?;
    Ok("mapped write")
}

fn map_read(handles: &Handles, model: &[u8], at: u64, length: u64) -> Check<&'static str> {
    let end = ((at + length) as usize).min(model.len());
    if at as usize >= end {
        return Ok("nothing");
    }
    let mapping = Mapping::new(&handles.reading, libc::PROT_READ, model.len())?;
    same(&mapping.bytes()[at as usize..end], &model[at as usize..end], at).at("mapped read")?;
    Ok("mapped read")
}

/// Memory that O_DIRECT accepts.
#[repr(align(4096))]
struct Aligned([u8; DIRECT_BYTES * 4]);

fn direct_write(handles: &Handles, model: &mut Vec<u8>, at: u64, random: &mut Random) -> Check<&'static str> {
    let at = (at - at % DIRECT_BYTES as u64).min(FILE_BYTES_MAX - 4 * DIRECT_BYTES as u64);
    let mut memory = Box::new(Aligned([0; DIRECT_BYTES * 4]));
    let length = (1 + random.below(4) as usize) * DIRECT_BYTES;
    random.fill(&mut memory.0[..length]);
    write(&handles.direct, model, at, &memory.0[..length]).map(|_| "direct write")
}

fn direct_read(handles: &Handles, model: &[u8], at: u64) -> Check<&'static str> {
    let at = at - at % DIRECT_BYTES as u64;
    let mut memory = Box::new(Aligned([0; DIRECT_BYTES * 4]));
    let n = sys::pread(&handles.direct, &mut memory.0, at)?;
    let due = model.get(at as usize..).unwrap_or_default();
    same(&memory.0[..n], &due[..due.len().min(memory.0.len())], at).at("direct read")?;
    Ok("direct read")
}

fn copy(handles: &Handles, model: &mut Vec<u8>, at: u64, length: u64, random: &mut Random) -> Check<&'static str> {
    let to = random.below(FILE_BYTES_MAX - length + 1);
    if at < to + length && to < at + length {
        return Ok("nothing");
    }
    let n = sys::copy_file_range(&handles.reading, at, &handles.both, to, length as usize)?;
    let due = model.get(at as usize..).unwrap_or_default();
    let part = due[..due.len().min(length as usize)].to_vec();
    ensure!(n <= part.len() && (n > 0 || part.is_empty()), "copied {n} of {} bytes", part.len());
    if n > 0 {
        put(model, to, &part[..n]);
    }
    Ok("copy")
}
