//! Many inodes: what a metadata server's state takes in time and memory when a volume has ten million, and when a directory
//! has a million.
//!
//! `cargo bench --bench inodes`, or `-- 1000000` for so many and `-- 1000000 512` with a cache of so many MiB. In one thread and without log and network: commands of 512
//! creates as a client ships them, a thousand files to a directory; then names looked up at random, the whole state
//! dumped as for a snapshot, and the index opened again. Needs 2 GiB below the temporary directory for ten million.

mod replica;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use holdfast::kv::SharedKv;
use holdfast::kv::sled::{Sizes, SledKv};
use holdfast::meta::command::Outcome;
use holdfast::meta::raft::Machine;
use holdfast::meta::server::CACHE_BYTES_DEFAULT;
use holdfast::meta::state::State;
use holdfast::types::id::{Ino, TreeId};
use holdfast::types::name::Name;
use holdfast::types::op::{BatchReply, NewNode, Op, OpReply};
use tempfile::TempDir;

use replica::{Replica, make};

const INODES: u64 = 10_000_000;
const MARKS: [u64; 9] = [10_000, 100_000, 300_000, 1_000_000, 2_000_000, 4_000_000, 6_000_000, 8_000_000, INODES];
const DIR_FILES: u64 = 1_000;
const LARGE_DIR_FILES: u64 = 1_000_000;
const COMMAND_OPS: u64 = 512;
const LOOKUPS: u64 = 20_000;
const PAGE: usize = 1_024;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let (count, cache_bytes) = (numbers.next().unwrap_or(INODES), numbers.next().map(|mib| mib << 20));
    let cache_bytes = cache_bytes.unwrap_or(CACHE_BYTES_DEFAULT) as usize;
    let sizes = Sizes { cache_bytes, ..Sizes::default() };
    volume(count, sizes);
    large_dir(count.min(LARGE_DIR_FILES), sizes);
}

fn volume(count: u64, sizes: Sizes) {
    let dir = TempDir::new().expect("a directory");
    let replica = Replica::new(dir.path(), sizes);
    let mut dirs = Vec::new();
    let (mut begun, mut made) = (Instant::now(), 0);
    println!("| inodes | created | looked up | memory | index | dump | dumped in |");
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for mark in MARKS.into_iter().filter(|mark| *mark <= count) {
        while (dirs.len() as u64) * DIR_FILES < mark {
            let dir = made_by(&replica, vec![make(Ino::ROOT, &format!("dir-{}", dirs.len()), NewNode::Dir)])[0];
            fill(&replica, dir, DIR_FILES);
            dirs.push(dir);
        }
        let created = rate(mark - made, begun);
        let looked_up = look_up(&replica.state, &dirs, DIR_FILES);
        let (dump_mib, dump_seconds) = dump(&replica.state);
        println!(
            "| {mark} | {created}/s | {looked_up}/s | {} MiB | {} MiB | {dump_mib} MiB | {dump_seconds:.1} s |",
            resident_mib(),
            disk_mib(dir.path()),
        );
        (begun, made) = (Instant::now(), mark);
    }
    let state = replica.state;
    let begun = Instant::now();
    state.flush().expect("flushed");
    drop(state);
    println!("flushed and closed in {:.1} s, {} MiB of memory then", begun.elapsed().as_secs_f64(), resident_mib());
    let begun = Instant::now();
    let kv: SharedKv = Arc::new(SledKv::open_with(dir.path(), sizes).expect("an index"));
    let state = State::new(kv);
    println!("opened in {:.2} s, {} MiB of memory then", begun.elapsed().as_secs_f64(), resident_mib());
    let looked_up = look_up(&state, &dirs, DIR_FILES);
    println!("looked up after that: {looked_up}/s, {} MiB of memory then", resident_mib());
}

fn large_dir(count: u64, sizes: Sizes) {
    let dir = TempDir::new().expect("a directory");
    let replica = Replica::new(dir.path(), sizes);
    println!("a directory:\n\n| files | created | looked up |\n|---:|---:|---:|");
    let (mut begun, mut made) = (Instant::now(), 0);
    for mark in MARKS.into_iter().filter(|mark| *mark <= count) {
        fill_from(&replica, Ino::ROOT, made, mark);
        let created = rate(mark - made, begun);
        println!("| {mark} | {created}/s | {}/s |", look_up(&replica.state, &[Ino::ROOT], mark));
        (begun, made) = (Instant::now(), mark);
    }
    let (begun, mut after, mut listed) = (Instant::now(), 0, 0);
    loop {
        let page = replica.state.view(|view| view.read_dir(TreeId(1), Ino::ROOT, after, PAGE)).expect("a page");
        listed += page.entries.len() as u64;
        after = page.entries.last().map_or(after, |entry| entry.cookie);
        if page.end {
            break;
        }
    }
    println!("\nlisted {listed} names with attributes, {PAGE} at a time: {}/s", rate(listed, begun));
}

fn fill(replica: &Replica, dir: Ino, count: u64) {
    fill_from(replica, dir, 0, count);
}

fn fill_from(replica: &Replica, dir: Ino, from: u64, to: u64) {
    let numbers: Vec<u64> = (from..to).collect();
    for some in numbers.chunks(COMMAND_OPS as usize) {
        made_by(replica, some.iter().map(|number| make(dir, &format!("file-{number}"), NewNode::File)).collect());
    }
}

fn made_by(replica: &Replica, ops: Vec<Op>) -> Vec<Ino> {
    let expected = ops.len();
    let Outcome::Changed(BatchReply::Done(replies)) = replica.apply_encoded(replica.change(ops)) else {
        panic!("the command was refused")
    };
    let ino = |reply| if let OpReply::Entry { attr, created: true } = reply { Some(attr.ino) } else { None };
    let made: Vec<Ino> = replies.into_iter().filter_map(ino).collect();
    assert_eq!(made.len(), expected);
    made
}

/// Names a second, at random.
fn look_up(state: &State, dirs: &[Ino], files: u64) -> u64 {
    let (begun, mut random) = (Instant::now(), 0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..LOOKUPS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let dir = dirs[(random >> 32) as usize % dirs.len()];
        let name = Name::new(format!("file-{}", random % files)).expect("a name");
        state.view(|view| view.lookup(TreeId(1), dir, &name)).expect("it is there");
    }
    rate(LOOKUPS, begun)
}

/// Mebibytes, and seconds.
fn dump(state: &State) -> (u64, f64) {
    struct Count(u64);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (begun, mut count) = (Instant::now(), Count(0));
    state.dump(&mut count).expect("dumped");
    (count.0 >> 20, begun.elapsed().as_secs_f64())
}

fn rate(count: u64, begun: Instant) -> u64 {
    (count as f64 / begun.elapsed().as_secs_f64()) as u64
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

fn disk_mib(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_mib(&entry.path()) << 20,
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(bytes).sum::<u64>() >> 20
}
