//! A file replaced by rename over and over: no reader anywhere finds it missing, empty, torn, or older than it already
//! was.

use std::path::PathBuf;

use crate::fault::{At, Check, ensure};
use crate::procs::{self, Worker};
use crate::record::{self, Tag};
use crate::{Run, sys};

const PAYLOAD_BYTES_MAX: u64 = 200_000;

pub fn run(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    ensure!(dirs.len() * run.processes > 1, "needs a writer and a reader: two processes");
    let first = record::encode(Tag { writer: 0, sequence: 0 }, 10, &mut crate::random::Random::new(run.seed));
    sys::write_file(dirs[0].join("target"), &first)?;
    let reports =
        procs::run(run, dirs, |worker| if writes(worker) { replace(worker, run.sabotage) } else { read(worker) })?;
    let (replaced, reads) = reports.iter().fold((0, 0), |sum, r| (sum.0 + r[0], sum.1 + r[1]));
    ensure!(replaced > 0 && reads > 0, "{replaced} replacements and {reads} reads prove nothing");
    Ok(format!("{replaced} replacements, {reads} reads"))
}

/// The first process of every mount writes; of the first mount alone when there is one process on each.
fn writes(worker: &Worker) -> bool {
    worker.on_mount == 0 && (worker.mount == 0 || worker.processes > 1)
}

/// Answers `[replacements, 0]`.
fn replace(worker: &mut Worker, sabotage: bool) -> Check<Vec<u64>> {
    let target = worker.dir.join("target");
    let fresh = worker.dir.join(format!("fresh-{}", worker.index));
    let mut sequence = 0;
    while worker.time_is_left() {
        sequence += 1;
        let payload = worker.random.length(PAYLOAD_BYTES_MAX) as usize;
        let tag = Tag { writer: worker.index as u32, sequence };
        let record = record::encode(tag, payload, &mut worker.random);
        if sabotage {
            sys::write_file(&target, &record)?;
            continue;
        }
        sys::write_file(&fresh, &record)?;
        sys::rename(&fresh, &target)?;
    }
    Ok(vec![sequence, 0])
}

/// Answers `[0, reads]`.
fn read(worker: &mut Worker) -> Check<Vec<u64>> {
    let target = worker.dir.join("target");
    let mut newest = vec![0; worker.count];
    let mut reads = 0;
    while worker.time_is_left() {
        let fd = sys::open(&target, libc::O_RDONLY, 0).at("the file that is always there")?;
        let size = sys::fstat(&fd)?.st_size as usize;
        let content = sys::read_to_end(&fd, 0)?;
        ensure!(size == content.len(), "size {size}, but {} bytes read", content.len());
        let (tag, length) = record::decode(&content)?;
        ensure!(length == content.len(), "{tag:?} of {length} bytes in a file of {}", content.len());
        let seen = &mut newest[tag.writer as usize];
        ensure!(*seen <= tag.sequence, "{tag:?} read after {seen}");
        *seen = tag.sequence;
        reads += 1;
    }
    Ok(vec![0, reads])
}
