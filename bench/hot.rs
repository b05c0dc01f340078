//! The pieces that are hot, one by one: applying commands, coding them, appending to packs, reading, rewriting blocks.
//!
//! `cargo bench --bench hot`, or `-- apply` for those with that in their name. Each runs in one thread and without a
//! network, so a change of one shows here before it shows anywhere else.

mod replica;

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::BoxFuture;
use holdfast::client::cache::chunk::ChunkCache;
use holdfast::client::chunks::ChunkStore;
use holdfast::client::extents::ExtentMap;
use holdfast::client::memory::Memory;
use holdfast::client::plan::{ChunkRead, Plan};
use holdfast::kv::SharedKv;
use holdfast::kv::sled::{Sizes, SledKv};
use holdfast::meta::command::Command;
use holdfast::pack::format::CheckedChunk;
use holdfast::pack::sys::Patience;
use holdfast::store::disk::{Disk, DiskOptions};
use holdfast::store::pack::writer::{Purpose, WriterOptions};
use holdfast::types::digest::ChunkId;
use holdfast::types::error::FsError;
use holdfast::types::extent::{ChunkPart, Extent, Source};
use holdfast::types::id::{ClusterId, Ino, SessionId, StoreId};
use holdfast::types::op::{NewNode, Op, Piece, Write, WriteAt};
use holdfast::types::rewrite::{Seen, replace_unchanged};
use tempfile::TempDir;

use replica::{NOW, Replica, make};

const SMALL: usize = 4096;
/// Files of a directory, and blocks of a file, that commands go round in.
const ROUND: u64 = 10_000;

fn create(number: u64) -> Op {
    make(Ino::ROOT, &format!("file-{number}"), NewNode::File)
}

fn write(ino: Ino, offset: u64, bytes: Vec<u8>) -> Op {
    let len = bytes.len() as u32;
    let pieces = vec![Piece { offset: 0, len, source: Source::Inline(bytes) }];
    let at = WriteAt::Offset(offset);
    Op::Write(Write { ino, at, pieces, len: len.into(), mtime: None, clear_privileges: false })
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    let dir = TempDir::new().expect("a directory");
    let replica = Replica::new(dir.path(), Sizes::default());
    let number = Cell::new(0);
    let next = || {
        number.set(number.get() + 1);
        number.get()
    };
    group.bench_function("create", |bench| {
        let command = || replica.change(vec![create(next())]);
        bench.iter_batched(command, |command| replica.apply_encoded(command), BatchSize::SmallInput);
    });
    group.bench_function("create, 64 to a command", |bench| {
        let command = || replica.change((0..64).map(|_| create(next())).collect());
        bench.iter_batched(command, |command| replica.apply_encoded(command), BatchSize::SmallInput);
    });
    let file = Ino(2);
    for pieces in [1, 16, 64] {
        group.bench_function(format!("4 KiB inline into a block of {pieces}"), |bench| {
            let command = || {
                let block = next() % ROUND / pieces * (1 << 20) % (1 << 26);
                replica.change(vec![write(file, block + next() % pieces * 8192, vec![7; SMALL])])
            };
            bench.iter_batched(command, |command| replica.apply_encoded(command), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    let now = NOW;
    let change = |ops| Command::Change { session: SessionId(1), sequence: 1, acknowledged: 1, now, ops };
    let creates = change((0..512).map(create).collect());
    let inline = change(vec![write(Ino(2), 0, vec![7; SMALL])]);
    for (name, command) in [("512 creates", creates), ("4 KiB inline", inline)] {
        let encoded = command.encode();
        group.throughput(Throughput::Bytes(encoded.len() as u64));
        group.bench_function(format!("encode {name}"), |bench| bench.iter(|| command.encode()));
        group.bench_function(format!("decode {name}"), |bench| bench.iter(|| Command::decode(&encoded)));
    }
    group.finish();
}

fn disk(dir: &Path) -> Disk {
    let options = DiskOptions {
        cluster: ClusterId([1; 16]),
        store: StoreId(1),
        index_dir: None,
        open_index: Arc::new(|path| Ok(Arc::new(SledKv::open(path)?) as SharedKv)),
        writer: WriterOptions { pack_bytes: 64 << 20, reserve_bytes: Some(0), sync: Arc::new(|_| Ok(())) },
    };
    Disk::open(dir, &options).expect("a disk")
}

fn chunk(seed: u64, len: usize) -> CheckedChunk {
    let mut bytes = vec![0; len];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let bytes = Bytes::from(bytes);
    CheckedChunk::check(ChunkId::of(&bytes), bytes).expect("its name")
}

/// Without the fsync, which is the device's.
fn pack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pack");
    let dir = TempDir::new().expect("a directory");
    let disk = disk(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let seed = Cell::new(0);
    for (name, len, count) in [("64 of 4 KiB", SMALL, 64), ("4 of 1 MiB", 1 << 20, 4)] {
        group.throughput(Throughput::Bytes((len * count) as u64));
        group.bench_function(format!("append {name}"), |bench| {
            let chunks = || {
                let fresh = |_| {
                    seed.set(seed.get() + 1);
                    chunk(seed.get(), len)
                };
                (0..count).map(fresh).collect::<Vec<_>>()
            };
            let put = |chunks| runtime.block_on(disk.put(chunks, 1, Purpose::Write)).expect("put");
            bench.iter_batched(chunks, put, BatchSize::PerIteration);
        });
    }
    let kept = chunk(u64::MAX, 1 << 20);
    let id = kept.id();
    runtime.block_on(disk.put(vec![kept], 1, Purpose::Write)).expect("put");
    for (name, len) in [("4 KiB", SMALL as u32), ("1 MiB", 1 << 20)] {
        group.throughput(Throughput::Bytes(len.into()));
        group.bench_function(format!("read {name}, verified"), |bench| {
            bench.iter(|| disk.read(&id, 0, len, Patience::Wait).map_err(drop).expect("read"));
        });
    }
    group.finish();
    disk.close();
}

/// One chunk, in the memory of whoever asks.
struct OneChunk(Bytes);

impl ChunkStore for OneChunk {
    fn put<'a>(&'a self, _: &'a [(ChunkId, Bytes)], _: u64, _: u8) -> BoxFuture<'a, Result<(), FsError>> {
        Box::pin(async { Err(FsError::ReadOnly) })
    }

    fn get(&self, _: ChunkId, offset: u32, len: u32, _: u32) -> BoxFuture<'_, Result<Bytes, FsError>> {
        Box::pin(async move { Ok(self.0.slice(offset as usize..(offset + len) as usize)) })
    }
}

/// What the client does for a read that it answers from memory: which extents, what of them, put together. Without the
/// kernel's part, and without the inode's lock.
fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    const BLOCK: u64 = 1 << 20;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (id, bytes) = (ChunkId([9; 32]), Bytes::from(vec![7; BLOCK as usize]));
    let cache = Arc::new(ChunkCache::new(Arc::new(OneChunk(bytes)), Arc::new(Memory::new(256 << 20))));
    let part = ChunkPart { id, chunk_bytes: BLOCK as u32, offset: 0, put_epoch: 0 };
    let fetched = runtime.block_on(cache.read(&part, 0, BLOCK as u32)).expect("the chunk");
    assert_eq!(fetched.iter().map(Bytes::len).sum::<usize>() as u64, BLOCK);
    for (name, pieces, len) in [("4 KiB", 1, 4096), ("128 KiB", 1, 128 << 10), ("128 KiB in 32 pieces", 256, 128 << 10)]
    {
        let piece = (BLOCK / pieces) as u32;
        let extent = |at: u64| {
            let offset = at * u64::from(piece);
            Extent { offset, len: piece, source: Source::Chunk(ChunkPart { offset: offset as u32, ..part }) }
        };
        let mut known = ExtentMap::new(BLOCK);
        known.learn(0, BLOCK, BLOCK, &(0..pieces).map(extent).collect::<Vec<_>>());
        let at = Cell::new(0);
        let answer = || {
            at.set((at.get() + len as u64) % BLOCK);
            let plan = Plan::new(known.block(0).unwrap_or_default().iter(), at.get(), len, &[]);
            let peek = |read: &ChunkRead| cache.peek(&read.part, read.part.offset, read.len).expect("in memory");
            let parts = plan.chunks().iter().map(peek).collect();
            plan.assemble(parts)
        };
        assert_eq!(answer().len(), len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{name}, in memory"), |bench| bench.iter(answer));
    }
    group.finish();
}

fn rewrite(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rewrite");
    let part = |seed: u8, offset| ChunkPart { id: ChunkId([seed; 32]), chunk_bytes: 1 << 20, offset, put_epoch: 0 };
    for count in [64_u64, 4096] {
        let piece = |at: u64| {
            let source = match at % 2 {
                0 => Source::Inline(vec![7; 64]),
                _ => Source::Chunk(part((at % 200) as u8, 0)),
            };
            Extent { offset: at * 128, len: 64, source }
        };
        let list: Vec<Extent> = (0..count).map(piece).collect();
        let seen: Vec<Seen> = list.iter().map(Seen::of).collect();
        let after = Extent { offset: 0, len: (count * 128 - 64) as u32, source: Source::Chunk(part(255, 0)) };
        group.bench_function(format!("a block of {count} pieces"), |bench| {
            let rewrite = |mut list| {
                replace_unchanged(&mut list, &seen, &after, u64::MAX);
                list
            };
            bench.iter_batched(|| list.clone(), rewrite, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(hot, apply, wire, pack, read, rewrite);
criterion_main!(hot);
