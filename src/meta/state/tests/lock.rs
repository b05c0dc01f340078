//! Byte-range and whole-file locks.

use super::*;
use crate::types::lock::{Lock, LockMode, LockRange, LockRequest, LockSpace};

use LockMode::{Exclusive, Shared};

fn ask(ino: Ino, owner: u64, mode: Option<LockMode>, start: u64, end: u64) -> LockRequest {
    LockRequest { ino, space: LockSpace::Range, owner, mode, range: LockRange { start, end }, pid: owner as u32 }
}

fn flock(ino: Ino, owner: u64, mode: Option<LockMode>) -> LockRequest {
    LockRequest { space: LockSpace::Flock, ..ask(ino, owner, mode, 5, 5) }
}

fn try_lock(world: &mut World, request: LockRequest) -> Option<Lock> {
    match world.op(Op::Lock(request)).unwrap() {
        OpReply::Done => None,
        OpReply::LockHeld(lock) => Some(lock),
        other => panic!("{other:?}"),
    }
}

/// What an owner that holds nothing meets byte by byte: `-`, `s` or `x`.
fn picture(world: &World, ino: Ino, bytes: u64) -> String {
    let test = |at, mode| {
        let request = ask(ino, 999, Some(mode), at, at);
        world.state.view(|view| view.test_lock(world.tree, world.session, &request)).unwrap().is_some()
    };
    (0..bytes)
        .map(|at| match (test(at, Shared), test(at, Exclusive)) {
            (true, _) => 'x',
            (_, true) => 's',
            _ => '-',
        })
        .collect()
}

#[test]
fn ranges_split_merge_up_and_downgrade() {
    let mut world = World::new();
    let ino = world.file("f");
    let mut step = |mode, start, end| {
        assert_eq!(try_lock(&mut world, ask(ino, 1, mode, start, end)), None);
        picture(&world, ino, 10)
    };
    assert_eq!(step(Some(Exclusive), 2, 7), "--xxxxxx--");
    assert_eq!(step(Some(Shared), 4, 5), "--xxssxx--");
    assert_eq!(step(None, 3, 4), "--x--sxx--");
    assert_eq!(step(Some(Shared), 0, 8), "sssssssss-");
    assert_eq!(step(None, 0, u64::MAX), "----------");
    assert!(!world.state.view(|view| view.is_locked(world.tree, ino)).unwrap());
}

#[test]
fn touching_ranges_become_one() {
    let mut world = World::new();
    let ino = world.file("f");
    for (start, end) in [(0, 1), (4, 5), (2, 3), (6, u64::MAX)] {
        assert_eq!(try_lock(&mut world, ask(ino, 1, Some(Shared), start, end)), None);
    }
    let found = try_lock(&mut world, ask(ino, 2, Some(Exclusive), 3, 3)).unwrap();
    assert_eq!(found.range, LockRange { start: 0, end: u64::MAX >> 1 });
}

#[test]
fn conflicts_are_between_owners() {
    let mut world = World::new();
    let ino = world.file("f");
    assert_eq!(try_lock(&mut world, ask(ino, 1, Some(Shared), 0, 9)), None);
    assert_eq!(try_lock(&mut world, ask(ino, 2, Some(Shared), 5, 15)), None);
    let found = try_lock(&mut world, ask(ino, 1, Some(Exclusive), 0, 5)).unwrap();
    assert_eq!((found.owner.owner, found.pid), (2, 2));
    assert_eq!(try_lock(&mut world, ask(ino, 1, Some(Exclusive), 0, 4)), None);
    assert!(try_lock(&mut world, ask(ino, 2, Some(Shared), 4, 4)).is_some());
    assert_eq!(world.op(Op::Lock(ask(ino, 2, Some(Shared), 4, 3))), Err(FsError::Invalid));
    assert_eq!(world.op(Op::Lock(ask(Ino(99), 2, Some(Shared), 0, 3))), Err(FsError::NotFound));
}

#[test]
fn flocks_cover_the_file_and_do_not_see_ranges() {
    let mut world = World::new();
    let ino = world.file("f");
    assert_eq!(try_lock(&mut world, ask(ino, 1, Some(Exclusive), 0, 9)), None);
    assert_eq!(try_lock(&mut world, flock(ino, 2, Some(Shared))), None);
    assert_eq!(try_lock(&mut world, flock(ino, 3, Some(Shared))), None);
    assert!(try_lock(&mut world, flock(ino, 4, Some(Exclusive))).is_some());
}

#[test]
fn a_flock_that_converts_gives_up_what_it_held() {
    let mut world = World::new();
    let ino = world.file("f");
    for owner in [1, 2] {
        assert_eq!(try_lock(&mut world, flock(ino, owner, Some(Shared))), None);
    }
    assert!(try_lock(&mut world, flock(ino, 1, Some(Exclusive))).is_some());
    assert_eq!(try_lock(&mut world, flock(ino, 2, Some(Exclusive))), None);
}

#[test]
fn an_owner_drops_everything_at_once() {
    let mut world = World::new();
    let ino = world.file("f");
    try_lock(&mut world, ask(ino, 1, Some(Exclusive), 0, 0));
    try_lock(&mut world, ask(ino, 1, Some(Exclusive), 5, 5));
    try_lock(&mut world, ask(ino, 2, Some(Exclusive), 2, 2));
    world.op(Op::UnlockOwner { ino, owner: 1 }).unwrap();
    assert_eq!(picture(&world, ino, 6), "--x---");
}

#[test]
fn locks_end_with_their_session_and_their_inode() {
    let mut world = World::new();
    let (ino, other) = (world.file("f"), world.file("g"));
    let guest = world.open("guest", true);
    let request = ask(ino, 1, Some(Exclusive), 0, 9);
    assert!(matches!(
        world.change(guest, 1, 0, vec![Op::Lock(request.clone())]),
        Outcome::Changed(BatchReply::Done(_))
    ));
    assert!(try_lock(&mut world, request.clone()).is_some());
    assert_eq!(try_lock(&mut world, ask(ino, 1, Some(Exclusive), 20, 29)), None);
    assert_eq!(try_lock(&mut world, flock(other, 1, Some(Exclusive))), None);
    world.apply(Command::ExpireSession { session: guest });
    assert_eq!(try_lock(&mut world, request), None);
    world.unlink(ROOT, "g").unwrap();
    world.reap(&[other]);
    world.apply(Command::CloseSession { session: world.session });
    assert!(!world.state.view(|view| view.is_locked(world.tree, ino)).unwrap());
}
