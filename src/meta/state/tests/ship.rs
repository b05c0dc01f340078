//! What clients do on their own: reserved numbers, times of their own, replies to writes alone.

use super::*;
use crate::types::allowance::Allowance;
use crate::types::op::{Dated, FallocateMode};
use crate::types::rewrite::Seen;

impl World {
    fn reserve(&mut self, count: u64) -> u64 {
        match self.op(Op::Reserve { numbers: count, upto: Allowance::default() }).unwrap() {
            OpReply::Reserved { first: Some(first), .. } => first.0,
            other => panic!("{other:?}"),
        }
    }

    fn ship(&mut self, sequence: u64, changes: Vec<Dated>) -> BatchReply {
        let (session, acknowledged) = (self.session, self.sequence);
        match self.apply(Command::Ship { session, sequence, acknowledged, changes }) {
            Outcome::Changed(reply) => reply,
            other => panic!("{other:?}"),
        }
    }
}

fn at(sec: i64, op: Op) -> Dated {
    Dated { at: Time { sec, nsec: 7 }, op }
}

fn make(dir: Ino, wanted: &str, node: NewNode, ino: u64) -> Op {
    let Op::Create(plain) = create(dir, wanted, node, 0o755) else { unreachable!() };
    Op::Create(Create { ino: Some(Ino(ino)), ..plain })
}

#[test]
fn each_change_has_its_own_time_and_only_writes_are_told() {
    let mut world = World::new();
    let first = world.reserve(10);
    let changes = vec![
        at(50, make(ROOT, "d", NewNode::Dir, first)),
        at(60, make(Ino(first), "f", NewNode::File, first + 2)),
        at(70, write(Ino(first + 2), WriteAt::Offset(0), inline(b"hello"), 5)),
        at(80, Op::Link { ino: Ino(first + 2), dir: ROOT, name: name("g") }),
        at(90, Op::Unlink { dir: Ino(first), name: name("f") }),
    ];
    let BatchReply::Done(told) = world.ship(100, changes.clone()) else { panic!("refused") };
    assert!(matches!(&told[..], [OpReply::Written { attr, .. }] if attr.size == 5), "{told:?}");
    let time = |sec| Time { sec, nsec: 7 };
    let dir = world.attr(Ino(first));
    assert_eq!((dir.btime, dir.mtime, dir.nlink), (time(50), time(90), 2));
    let file = world.attr(Ino(first + 2));
    assert_eq!((file.btime, file.mtime, file.ctime, file.nlink, file.version), (time(60), time(70), time(90), 1, 4));
    assert_eq!(world.attr(ROOT).mtime, time(80));
    assert_eq!(world.ship(100, changes), BatchReply::Done(told), "once");
}

#[test]
fn numbers_are_used_once_and_by_whom_they_were_set_aside_for() {
    let mut world = World::new();
    let first = world.reserve(4);
    assert!(world.file("plain").0 >= first + 4, "nobody else gets them");
    let made = |world: &mut World, sequence, name: &str, ino| {
        world.ship(sequence, vec![at(1, make(ROOT, name, NewNode::File, ino))])
    };
    assert_eq!(made(&mut world, 50, "a", first + 1), BatchReply::Done(Vec::new()));
    world.unlink(ROOT, "a").unwrap();
    assert!(world.reap(&[Ino(first + 1)]).is_empty());
    let refused = BatchReply::Failed { index: 0, error: FsError::Invalid };
    for (sequence, ino) in [(51, first + 1), (52, first), (53, first + 4), (54, 1_000_000)] {
        assert_eq!(made(&mut world, sequence, "b", ino), refused, "{ino}");
    }
    assert_eq!(made(&mut world, 55, "b", first + 3), BatchReply::Done(Vec::new()));
    let session = world.session;
    world.apply(Command::ExpireSession { session });
    world.session = world.open("again", false);
    world.sequence = 0;
    assert_eq!(made(&mut world, 1, "c", first + 2), refused, "they end with the session");
    let all = Op::Reserve { numbers: u64::MAX, upto: Allowance::default() };
    assert_eq!(world.op(all), Err(FsError::Invalid));
}

#[test]
fn who_has_a_number_that_is_not_used_can_be_found() {
    let mut world = World::new();
    let first = world.reserve(4);
    let maker = |world: &World, ino| world.state.view(|view| view.maker_of(world.tree, Ino(ino))).unwrap();
    assert_eq!(maker(&world, first + 1), Some(world.session));
    assert_eq!((maker(&world, first + 4), maker(&world, ROOT.0)), (None, None));
    world.ship(50, vec![at(1, make(ROOT, "a", NewNode::File, first + 1))]);
    assert_eq!((maker(&world, first + 1), maker(&world, first + 2)), (None, Some(world.session)));
}

#[test]
fn a_refused_change_undoes_the_batch() {
    let mut world = World::new();
    let first = world.reserve(4);
    let changes =
        vec![at(1, make(ROOT, "a", NewNode::File, first)), at(2, Op::Unlink { dir: ROOT, name: name("nothing") })];
    assert_eq!(world.ship(50, changes), BatchReply::Failed { index: 1, error: FsError::NotFound });
    assert_eq!(world.lookup(ROOT, "a"), None);
    assert_eq!(world.ship(51, vec![at(1, make(ROOT, "a", NewNode::File, first))]), BatchReply::Done(Vec::new()));
}

/// A volume with quotas, and a second session on it, which is the one that changes it.
fn bounded(quota_inodes: u64, quota_bytes: u64) -> (World, SessionId) {
    let mut world = World::with(VolumePolicy { quota_inodes, quota_bytes, ..policy() });
    let first = world.session;
    world.session = world.open("other", false);
    (world, first)
}

fn made(world: &mut World, sequence: u64, wanted: &str, ino: u64) -> BatchReply {
    world.ship(sequence, vec![at(1, make(ROOT, wanted, NewNode::File, ino))])
}

#[test]
fn inodes_that_were_promised_are_nobody_elses() {
    let (mut world, other) = bounded(101, 0);
    let first = world.reserve(200);
    assert_eq!(world.want(500, 500), Allowance { inodes: 50, bytes: 500 }, "half of what is left");
    let direct = |world: &mut World, n: u64| {
        let ops = vec![create(ROOT, &format!("d{n}"), NewNode::File, 0o644)];
        world.change(other, n, n, ops)
    };
    for n in 0..50 {
        assert!(matches!(direct(&mut world, n), Outcome::Changed(BatchReply::Done(_))), "{n}");
    }
    let promised = Outcome::Changed(BatchReply::Failed { index: 0, error: FsError::Promised });
    assert_eq!(direct(&mut world, 50), promised);
    for n in 0..49 {
        assert_eq!(made(&mut world, 900 + n, &format!("a{n}"), first + n), BatchReply::Done(Vec::new()), "{n}");
    }
    assert_eq!(world.want(0, 0), Allowance::default(), "one goes back");
    assert!(matches!(direct(&mut world, 51), Outcome::Changed(BatchReply::Done(_))));
    let refused = BatchReply::Failed { index: 0, error: FsError::QuotaExceeded };
    assert_eq!(made(&mut world, 990, "more", first + 60), refused);
}

#[test]
fn bytes_that_were_promised_are_nobody_elses() {
    let (mut world, other) = bounded(0, 4 << 20);
    let (mine, theirs) = (world.file("mine"), world.file("theirs"));
    assert_eq!(world.want(9, 1 << 20), Allowance { inodes: 9, bytes: 1 << 20 });
    let mib = |world: &mut World, session, sequence, ino, n: u64| {
        let blocks = (n * 16..(n + 1) * 16)
            .map(|block| write(ino, WriteAt::Offset(block * CHUNK), chunk(1, u64::MAX), CHUNK as u32));
        world.change(session, sequence, sequence, blocks.collect())
    };
    let done = |outcome: Outcome| matches!(outcome, Outcome::Changed(BatchReply::Done(_)));
    assert!((0..3).all(|n| done(mib(&mut world, other, n, theirs, n))));
    let promised = Outcome::Changed(BatchReply::Failed { index: 0, error: FsError::Promised });
    assert_eq!(mib(&mut world, other, 3, theirs, 3), promised);
    let session = world.session;
    assert!(done(mib(&mut world, session, 80, mine, 0)));
    let full = Outcome::Changed(BatchReply::Failed { index: 0, error: FsError::QuotaExceeded });
    assert_eq!(mib(&mut world, session, 81, mine, 1), full);
    assert!(done(mib(&mut world, session, 82, mine, 0)), "what is written over does not grow");
}

#[test]
fn what_was_promised_is_back_when_the_session_ends() {
    let (mut world, other) = bounded(101, 0);
    world.want(500, 0);
    let session = world.session;
    world.apply(Command::ExpireSession { session });
    world.apply(Command::CloseSession { session });
    world.session = other;
    assert_eq!(world.want(500, 0), Allowance { inodes: 50, bytes: 0 });
}

/// A rewrite fills the holes in a block, and no client has counted that.
#[test]
fn what_a_rewrite_fills_is_not_taken_from_what_was_promised() {
    let (mut world, first) = bounded(0, 16 * CHUNK);
    let ino = world.file("f");
    for at in [0, CHUNK / 2] {
        world.write(ino, at, inline(b"x"), 1).unwrap();
    }
    let before = world.extents(ino).iter().map(Seen::of).collect();
    let len = CHUNK as u32 / 2 + 1;
    let part = ChunkPart { id: ChunkId([9; 32]), chunk_bytes: len, offset: 0, put_epoch: 0 };
    let after = Extent { offset: 0, len, source: Source::Chunk(part) };
    let allowance = |world: &World| world.state.view(|view| view.allowance(world.session)).unwrap().bytes;
    // Half of what is left is promised; another file has all of the rest but a few bytes.
    let promised = world.want(0, 16 * CHUNK).bytes;
    let rest = 16 * CHUNK - promised - 2 - 100;
    let other = world.file("other");
    let allocate =
        Op::Fallocate { ino: other, mode: FallocateMode::Allocate { keep_size: false }, offset: 0, len: rest };
    let outcome = world.change(first, 1, 1, vec![allocate]);
    assert!(matches!(outcome, Outcome::Changed(BatchReply::Done(_))), "{outcome:?}");
    let compact = Op::Compact { ino, block_offset: 0, before, after };
    assert_eq!(world.op(compact.clone()), Err(FsError::QuotaExceeded));
    assert_eq!(allowance(&world), promised);
    world.want(0, 0);
    world.op(compact).unwrap();
    assert_eq!(world.attr(ino).allocated_bytes, u64::from(len));
}
