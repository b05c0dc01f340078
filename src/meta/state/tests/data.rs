//! Write, append, truncate, fallocate, copy range, compaction, seek, quota.

use super::*;
use crate::meta::state::Seek;
use crate::meta::state::edit::{Edit, FileMap};
use crate::meta::state::schema::number_at;
use crate::meta::state::tx::Tx;
use crate::types::limits::{BLOCK_EXTENTS_MAX, FILE_BYTES_MAX, INLINE_BYTES_MAX, INLINE_FILE_BYTES_MAX};
use crate::types::op::FallocateMode::{Allocate, Punch, Zero};
use crate::types::op::XattrMode;
use crate::types::rewrite::Seen;

fn size(size: u64) -> SetAttr {
    SetAttr { size: Some(size), ..SetAttr::default() }
}

fn seek(world: &World, ino: Ino, offset: u64, hole: bool) -> Result<u64, String> {
    seek_in_looks(world, ino, offset, hole).map(|(found, _)| found)
}

/// Over two blocks at a time; with the number of looks that it took.
fn seek_in_looks(world: &World, ino: Ino, offset: u64, hole: bool) -> Result<(u64, u32), String> {
    let (mut seek, mut looks) = (Seek::new(offset, hole), 0);
    loop {
        looks += 1;
        let found = world.state.view(|view| view.seek(world.tree, ino, &mut seek, 2));
        if let Some(found) = found.map_err(|error| error.to_string())? {
            return Ok((found, looks));
        }
    }
}

fn totals(world: &World) -> (u64, u64, u64) {
    let totals = world.state.view(|view| view.chunk_totals()).unwrap();
    (totals.chunks, totals.chunk_bytes, totals.shared_references)
}

fn fallocate(world: &mut World, ino: Ino, mode: crate::types::op::FallocateMode, offset: u64, len: u64) -> Attr {
    match world.op(Op::Fallocate { ino, mode, offset, len }) {
        Ok(OpReply::Attr(attr)) => attr,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_lands_where_it_is_told() {
    let mut world = World::new();
    let ino = world.file("f");
    let attr = world.write(ino, 10, inline(b"hello"), 5).unwrap();
    assert_eq!((attr.size, attr.allocated_bytes, attr.mtime, attr.ctime), (15, 5, world.now(), world.now()));
    assert_eq!(world.extents(ino), [Extent { offset: 10, len: 5, source: inline(b"hello") }]);
}

#[test]
fn pieces_are_split_at_block_borders() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, CHUNK / 2, chunk(1, 1), CHUNK as u32).unwrap();
    let extents = world.extents(ino);
    assert_eq!(extents.iter().map(|e| (e.offset, e.len)).collect::<Vec<_>>(), [(CHUNK / 2, 32768), (CHUNK, 32768)]);
    assert!(matches!(&extents[1].source, Source::Chunk(part) if part.offset == 32768 && part.put_epoch == 0));
    assert_eq!(totals(&world), (1, CHUNK, 1));
}

#[test]
fn appends_land_at_the_end_one_after_another() {
    let mut world = World::new();
    let ino = world.file("f");
    let append = |bytes: &[u8]| write(ino, WriteAt::End, inline(bytes), bytes.len() as u32);
    let BatchReply::Done(replies) = world.batch(vec![append(b"one"), append(b"two")]) else { panic!() };
    let offsets: Vec<_> = replies
        .iter()
        .map(|reply| match reply {
            OpReply::Written { offset, .. } => *offset,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(offsets, [0, 3]);
    assert_eq!(world.extents(ino), [Extent { offset: 0, len: 6, source: inline(b"onetwo") }]);
}

#[test]
fn overwriting_counts_references_exactly() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 0, chunk(1, 1), CHUNK as u32).unwrap();
    world.write(ino, 100, inline(b"x"), 1).unwrap();
    assert_eq!(totals(&world), (1, CHUNK, 1));
    assert_eq!(world.attr(ino).allocated_bytes, CHUNK);
    world.write(ino, 0, chunk(1, 1), CHUNK as u32).unwrap();
    assert_eq!(totals(&world), (1, CHUNK, 0));
    world.write(ino, 0, chunk(2, 1), CHUNK as u32).unwrap();
    assert_eq!(totals(&world), (2, 2 * CHUNK, 0));
    assert_eq!(world.state.view(|view| view.releasable(2, 9)).unwrap(), [ChunkId([1; 32])]);
}

#[test]
fn unsound_pieces_are_refused() {
    let mut world = World::new();
    let ino = world.file("f");
    assert_eq!(world.write(ino, 0, chunk(1, 1), CHUNK as u32 + 1), Err(FsError::Invalid));
    assert_eq!(world.write(ino, 0, inline(b"abc"), 2), Err(FsError::Invalid));
    assert_eq!(world.write(ino, 0, inline(b""), 0), Err(FsError::Invalid));
    assert_eq!(world.write(ino, 0, Source::Unwritten, 2), Err(FsError::Invalid));
    assert_eq!(world.write(ino, u64::MAX, inline(b"a"), 1), Err(FsError::FileTooLarge));
    assert_eq!(world.write(ino, FILE_BYTES_MAX, inline(b"a"), 1), Err(FsError::FileTooLarge));
    let large = vec![0; INLINE_BYTES_MAX as usize + 1];
    assert_eq!(world.write(ino, 0, inline(&large), large.len() as u32), Err(FsError::TooBig));
    let dir = world.dir(ROOT, "d");
    assert_eq!(world.write(dir, 0, inline(b"a"), 1), Err(FsError::IsDirectory));
    let part = ChunkPart { id: ChunkId([1; 32]), chunk_bytes: u32::MAX, offset: 0, put_epoch: 1 };
    assert_eq!(world.write(ino, 0, Source::Chunk(part), 10), Err(FsError::Invalid));
}

#[test]
fn a_chunk_has_one_length() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 0, chunk(1, 1), 10).unwrap();
    let part = ChunkPart { id: ChunkId([1; 32]), chunk_bytes: 10, offset: 0, put_epoch: 1 };
    assert_eq!(world.write(ino, CHUNK, Source::Chunk(part), 10), Err(FsError::Invalid));
}

#[test]
fn the_inline_bytes_of_a_file_are_bounded() {
    let mut world = World::new();
    world.checks = false;
    let ino = world.file("f");
    let piece = vec![7; INLINE_BYTES_MAX as usize];
    for i in 0..INLINE_FILE_BYTES_MAX / u64::from(INLINE_BYTES_MAX) {
        world.write(ino, i * 2 * u64::from(INLINE_BYTES_MAX), inline(&piece), INLINE_BYTES_MAX).unwrap();
    }
    assert_eq!(world.write(ino, 1 << 30, inline(b"x"), 1), Err(FsError::TooBig));
    world.write(ino, 0, inline(b"same place"), 10).unwrap();
    world.write(ino, 1 << 30, chunk(1, 1), 1).unwrap();
    world.set(ino, size(10)).unwrap();
    world.write(ino, 1 << 30, inline(b"x"), 1).unwrap();
    world.check();
}

#[test]
fn write_times_are_those_of_the_writer() {
    let mut world = World::new();
    let ino = world.file("f");
    let changed = world.attr(ino).ctime;
    let when = Time { sec: 5, nsec: 5 };
    let Op::Write(op) = write(ino, WriteAt::End, inline(b"x"), 1) else { unreachable!() };
    world.set(ino, SetAttr { mode: Some(0o6755), ..SetAttr::default() }).unwrap();
    world.op(Op::Write(Write { mtime: Some(when), clear_privileges: true, ..op })).unwrap();
    let attr = world.attr(ino);
    assert_eq!((attr.mtime, attr.mode), (when, 0o755));
    assert!(attr.ctime > changed);
}

#[test]
fn truncation_cuts_and_growing_makes_a_hole() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 0, chunk(1, 1), CHUNK as u32).unwrap();
    world.write(ino, CHUNK, chunk(2, 1), CHUNK as u32).unwrap();
    let attr = world.set(ino, size(100)).unwrap();
    assert_eq!((attr.size, attr.allocated_bytes, attr.mtime), (100, 100, world.now()));
    let attr = world.set(ino, size(CHUNK)).unwrap();
    assert_eq!((attr.size, attr.allocated_bytes), (CHUNK, 100));
    assert_eq!((seek(&world, ino, 0, true), seek(&world, ino, 100, false).is_err()), (Ok(100), true));
    assert_eq!(world.state.view(|view| view.releasable(u64::MAX, 9)).unwrap(), [ChunkId([2; 32])]);
    world.set(ino, size(0)).unwrap();
    assert_eq!(world.state.view(|view| view.usage(world.tree)).unwrap().allocated_bytes, 0);
}

#[test]
fn fallocate_allocates_punches_and_zeroes() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 10, inline(b"abcdef"), 6).unwrap();
    let attr = fallocate(&mut world, ino, Allocate { keep_size: true }, 0, CHUNK + 1);
    assert_eq!((attr.size, attr.allocated_bytes), (16, CHUNK + 1));
    let attr = fallocate(&mut world, ino, Allocate { keep_size: false }, 0, 100);
    assert_eq!((attr.size, attr.allocated_bytes), (100, CHUNK + 1));
    assert_eq!((seek(&world, ino, 0, false), seek(&world, ino, 10, true)), (Ok(10), Ok(16)));
    let attr = fallocate(&mut world, ino, Zero { keep_size: false }, 12, 2);
    assert_eq!((attr.size, attr.allocated_bytes), (100, CHUNK + 1));
    assert_eq!((seek(&world, ino, 10, true), seek(&world, ino, 12, false)), (Ok(12), Ok(14)));
    let attr = fallocate(&mut world, ino, Punch, 0, u64::from(u32::MAX));
    assert_eq!((attr.size, attr.allocated_bytes, attr.mtime), (100, 0, world.now()));
    let op = |offset, len| Op::Fallocate { ino, mode: Allocate { keep_size: false }, offset, len };
    assert_eq!(world.op(op(0, 0)), Err(FsError::Invalid));
    assert_eq!(world.op(op(FILE_BYTES_MAX, 1)), Err(FsError::FileTooLarge));
    assert_eq!(world.op(op(0, 1025 * CHUNK)), Err(FsError::TooBig));
}

#[test]
fn space_allocated_beyond_the_end_goes_with_truncation_and_stays_with_growth() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 0, inline(b"abc"), 3).unwrap();
    fallocate(&mut world, ino, Allocate { keep_size: true }, 0, 100);
    assert_eq!(world.set(ino, size(50)).unwrap().allocated_bytes, 100);
    assert_eq!(world.set(ino, size(50)).unwrap().allocated_bytes, 50);
}

#[test]
fn seek_finds_data_and_holes_across_blocks() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 0, chunk(1, 1), CHUNK as u32).unwrap();
    world.write(ino, CHUNK, chunk(2, 1), 10).unwrap();
    world.write(ino, 5 * CHUNK, inline(b"z"), 1).unwrap();
    assert_eq!((seek(&world, ino, 7, false), seek(&world, ino, 7, true)), (Ok(7), Ok(CHUNK + 10)));
    assert_eq!(seek(&world, ino, CHUNK + 10, false), Ok(5 * CHUNK));
    assert_eq!(seek(&world, ino, 5 * CHUNK, true), Ok(5 * CHUNK + 1));
    assert!(seek(&world, ino, 5 * CHUNK + 1, true).is_err());
}

#[test]
fn a_search_goes_on_where_the_look_before_it_ended() {
    let mut world = World::new();
    let ino = world.file("f");
    for block in 0..5 {
        world.write(ino, block * CHUNK, chunk(1, 1), CHUNK as u32).unwrap();
    }
    assert_eq!(seek_in_looks(&world, ino, 1, true), Ok((5 * CHUNK, 3)));
    world.write(ino, 7 * CHUNK, chunk(1, 1), CHUNK as u32).unwrap();
    assert_eq!(seek_in_looks(&world, ino, CHUNK, true), Ok((5 * CHUNK, 2)));
    fallocate(&mut world, ino, Zero { keep_size: false }, 0, 6 * CHUNK);
    assert_eq!(seek_in_looks(&world, ino, 0, false), Ok((7 * CHUNK, 4)));
    assert_eq!(seek_in_looks(&world, ino, 9, true), Ok((9, 1)));
    let mut half_done = Seek::new(0, false);
    assert_eq!(world.state.view(|view| view.seek(world.tree, ino, &mut half_done, 2)).unwrap(), None);
    world.set(ino, size(CHUNK)).unwrap();
    assert!(world.state.view(|view| view.seek(world.tree, ino, &mut half_done, 2)).is_err(), "cut off meanwhile");
}

#[test]
fn copied_ranges_share_chunks_and_keep_holes() {
    let mut world = World::new();
    let (from, to) = (world.file("a"), world.file("b"));
    world.write(from, 0, chunk(1, 1), CHUNK as u32).unwrap();
    world.write(from, 3 * CHUNK, inline(b"tail"), 4).unwrap();
    world.write(to, 0, chunk(2, 1), CHUNK as u32).unwrap();
    let copy = |from_offset, to_offset, len| Op::CopyRange { from, from_offset, to, to_offset, len };
    let reply = world.op(copy(0, 100, u64::MAX)).unwrap();
    assert!(matches!(reply, OpReply::Copied { bytes, attr } if bytes == 3 * CHUNK + 4 && attr.size == bytes + 100));
    let pieces: Vec<_> = world.extents(to).into_iter().map(|e| (e.offset, e.len)).collect();
    assert_eq!(pieces, [(0, 100), (100, 65436), (CHUNK, 100), (3 * CHUNK + 100, 4)]);
    assert_eq!(totals(&world), (2, 2 * CHUNK, 2));
    assert!(matches!(world.op(copy(9 * CHUNK, 0, 5)), Ok(OpReply::Copied { bytes: 0, .. })));
    assert_eq!(world.op(copy(0, FILE_BYTES_MAX, 5)), Err(FsError::FileTooLarge));
    let within = |to_offset| Op::CopyRange { from, from_offset: 0, to: from, to_offset, len: 10 };
    assert_eq!(world.op(within(9)), Err(FsError::Invalid));
    world.op(within(10)).unwrap();
}

#[test]
fn a_small_write_changes_what_it_touches_and_not_the_block() {
    let mut world = World::new();
    let ino = world.file("f");
    for n in 0..64 {
        world.write(ino, n * 100, inline(&[7; 50]), 50).unwrap();
    }
    let changed = |piece: Extent| {
        let kv = &world.state.kv;
        let mut tx = Tx::new(kv);
        let mut edit = Edit::new(FileMap { tree: world.tree, ino, block_bytes: CHUNK });
        edit.lay(&mut tx, vec![piece]).unwrap();
        tx.into_batch()
            .changes
            .into_iter()
            .map(|(key, value)| (number_at(&key, 17).unwrap(), value.is_some()))
            .collect()
    };
    let piece = |offset: u64, len: u32| Extent { offset, len, source: inline(&vec![8; len as usize]) };
    let all: Vec<Vec<(u64, bool)>> =
        vec![changed(piece(3000, 50)), changed(piece(3075, 10)), changed(piece(3050, 10)), changed(piece(3020, 120))];
    let expected: [&[(u64, bool)]; 4] =
        [&[(3000, true)], &[(3075, true)], &[(3000, true)], &[(3000, true), (3100, false)]];
    assert_eq!(all, expected);
}

#[test]
fn compaction_replaces_the_pieces_it_has_seen() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 5, inline(b"abc"), 3).unwrap();
    world.write(ino, 20, inline(b"def"), 3).unwrap();
    let before = world.extents(ino);
    let attr = world.attr(ino);
    let part = ChunkPart { id: ChunkId([9; 32]), chunk_bytes: 23, offset: 0, put_epoch: 0 };
    let after = Extent { offset: 0, len: 23, source: Source::Chunk(part) };
    let compact = |before: &[Extent], after: &Extent| Op::Compact {
        ino,
        block_offset: 0,
        before: before.iter().map(Seen::of).collect(),
        after: after.clone(),
    };
    let beyond = Extent { offset: CHUNK - 3, ..after.clone() };
    assert_eq!(world.op(compact(&before, &beyond)), Err(FsError::Invalid));
    assert_eq!(world.op(compact(&before, &before[0])), Err(FsError::Invalid), "not a chunk");
    world.op(compact(&before, &after)).unwrap();
    let now = world.attr(ino);
    assert_eq!((now.size, now.mtime, now.ctime, now.allocated_bytes), (23, attr.mtime, attr.ctime, 23));
    assert!(now.version > attr.version);
    assert_eq!(world.extents(ino), std::slice::from_ref(&after));
    let later = Extent { source: chunk(8, 1), ..after.clone() };
    world.op(compact(&before, &later)).unwrap();
    assert_eq!(world.extents(ino), [after], "it is not as it was seen any more");
}

#[test]
fn compaction_goes_on_under_appends() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 0, inline(b"abc"), 3).unwrap();
    world.write(ino, 5, inline(b"def"), 3).unwrap();
    let before = world.extents(ino);
    world.write(ino, 9, inline(b"xyz"), 3).unwrap();
    let part = ChunkPart { id: ChunkId([9; 32]), chunk_bytes: 8, offset: 0, put_epoch: 0 };
    let after = Extent { offset: 0, len: 8, source: Source::Chunk(part) };
    let before = before.iter().map(Seen::of).collect();
    world.op(Op::Compact { ino, block_offset: 0, before, after: after.clone() }).unwrap();
    assert_eq!(world.extents(ino), [after, Extent { offset: 9, len: 3, source: inline(b"xyz") }]);
}

#[test]
fn a_reply_with_extents_is_bounded() {
    let mut world = World::new();
    world.checks = false;
    let ino = world.file("f");
    for block in 0..12 {
        let piece = |at: u64| Piece { offset: at * 8, len: 1, source: chunk(1, 1) };
        let pieces = (0..4_000).map(piece).collect();
        let at = WriteAt::Offset(block * CHUNK);
        world.op(Op::Write(Write { ino, at, pieces, len: CHUNK, mtime: None, clear_privileges: false })).unwrap();
    }
    let view = |offset, len| world.state.view(|view| view.extents(world.tree, ino, offset, len)).unwrap();
    let part = view(0, 12 * CHUNK);
    let blocks = part.covered / CHUNK;
    assert!((2..12).contains(&blocks) && part.covered % CHUNK == 0, "{}", part.covered);
    assert_eq!(part.extents.len() as u64, blocks * 4_000);
    let rest = view(part.covered, 12 * CHUNK - part.covered);
    assert!(rest.covered > 0);
    assert_eq!(view(CHUNK + 5, 10).covered, 10);
}

#[test]
fn the_byte_quota_stops_growth_only() {
    let mut world = World::with(VolumePolicy { quota_bytes: 100, ..policy() });
    let ino = world.file("f");
    world.write(ino, 0, chunk(1, 1), 100).unwrap();
    assert_eq!(world.write(ino, 100, inline(b"x"), 1), Err(FsError::QuotaExceeded));
    world.write(ino, 50, inline(b"x"), 1).unwrap();
    let op = Op::Fallocate { ino, mode: Allocate { keep_size: true }, offset: 0, len: 101 };
    assert_eq!(world.op(op), Err(FsError::QuotaExceeded));
    world.set(ino, size(1 << 40)).unwrap();
    world.set(ino, size(99)).unwrap();
    world.write(ino, 99, inline(b"x"), 1).unwrap();
}

#[test]
fn a_large_orphan_is_freed_in_bounded_steps() {
    let mut world = World::new();
    world.checks = false;
    let (ino, small) = (world.file("f"), world.file("g"));
    for batch in 0..10 {
        let block = |i: u64| write(ino, WriteAt::Offset((batch * 500 + i) * CHUNK), chunk(1, 1), 1);
        assert!(matches!(world.batch((0..500).map(block).collect()), BatchReply::Done(_)));
    }
    world.unlink(ROOT, "f").unwrap();
    world.unlink(ROOT, "g").unwrap();
    world.checks = true;
    assert_eq!(world.reap(&[ino, small]), [ino, small]);
    assert_eq!(world.attr(ino).allocated_bytes, 5000 - 4096);
    assert!(world.reap(&[ino, small]).is_empty());
    let usage = world.state.view(|view| view.usage(world.tree)).unwrap();
    assert_eq!((usage.inodes, usage.allocated_bytes), (1, 0));
}

#[test]
fn a_part_of_an_answered_change_does_nothing() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 0, chunk(1, 1), CHUNK as u32).unwrap();
    let (session, now, answered) = (world.session, Time { sec: 9, nsec: 0 }, world.sequence);
    let part = |sequence| Command::Part { session, sequence, now, op: Op::SetAttr { ino, set: size(10) } };
    assert_eq!(world.apply(part(answered)), Outcome::Error(FsError::Stale));
    assert_eq!(world.apply(part(answered - 1)), Outcome::Error(FsError::Stale));
    assert_eq!(world.attr(ino).size, CHUNK);
    assert_eq!(world.apply(part(answered + 1)), Outcome::Done);
    assert_eq!(world.attr(ino).size, 10);
}

#[test]
fn a_write_takes_the_capability_away() {
    let mut world = World::new();
    let ino = world.file("f");
    let set = |name: &[u8]| Op::SetXattr { ino, name: name.to_vec(), value: b"v".to_vec(), mode: XattrMode::Set };
    world.op(set(b"security.capability")).unwrap();
    world.op(set(b"user.kept")).unwrap();
    world.write(ino, 0, inline(b"x"), 1).unwrap();
    let names = world.state.view(|view| view.xattr_names(world.tree, ino)).unwrap();
    assert_eq!(names, [b"user.kept".to_vec()]);
}

#[test]
fn a_list_of_extents_has_a_bound_that_only_writes_meet() {
    let mut world = World::new();
    world.checks = false;
    let ino = world.file("f");
    let piece = |at: usize| Piece { offset: at as u64 * 8, len: 2, source: chunk(1, 1) };
    let pieces = (0..BLOCK_EXTENTS_MAX).map(piece).collect();
    let at = WriteAt::Offset(0);
    world.op(Op::Write(Write { ino, at, pieces, len: CHUNK, mtime: None, clear_privileges: false })).unwrap();
    assert_eq!(world.write(ino, 4, inline(b"x"), 1), Err(FsError::Scattered));
    world.write(ino, 8, inline(b"xy"), 2).unwrap();
    fallocate(&mut world, ino, Punch, 16, 1);
    let before = world.extents(ino);
    let part = ChunkPart { id: ChunkId([9; 32]), chunk_bytes: CHUNK as u32 - 6, offset: 0, put_epoch: 1 };
    let after = Extent { offset: 0, len: CHUNK as u32 - 6, source: Source::Chunk(part) };
    let mut shorter = after.clone();
    shorter.len = before.last().unwrap().end() as u32;
    let before = before.iter().map(Seen::of).collect();
    world.op(Op::Compact { ino, block_offset: 0, before, after: shorter }).unwrap();
    world.write(ino, 4, inline(b"x"), 1).unwrap();
}
