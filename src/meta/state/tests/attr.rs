//! chmod, chown, utimens, truncate's attributes.

use super::*;
use crate::types::attr::SetTime;
use crate::types::limits::FILE_BYTES_MAX;

#[test]
fn changes_of_the_inode_move_its_change_time_alone() {
    let mut world = World::new();
    let ino = world.file("f");
    let before = world.attr(ino);
    let after = world.set(ino, SetAttr { mode: Some(0o4711), ..SetAttr::default() }).unwrap();
    assert_eq!((after.mode, after.ctime, after.mtime), (0o4711, world.now(), before.mtime));
    let after = world.set(ino, SetAttr { uid: Some(5), gid: Some(6), ..SetAttr::default() }).unwrap();
    assert_eq!((after.uid, after.gid, after.mode), (5, 6, 0o4711));
    let after = world.set(ino, SetAttr { clear_privileges: true, ..SetAttr::default() }).unwrap();
    assert_eq!(after.mode, 0o711);
    let after = world.set(ino, SetAttr::default()).unwrap();
    assert_eq!((after.ctime, after.version), (world.now(), before.version + 4));
}

#[test]
fn times_are_set_also_before_1970() {
    let mut world = World::new();
    let ino = world.file("f");
    let old = Time { sec: -86_400, nsec: 999_999_999 };
    let set = SetAttr { atime: Some(SetTime::At(old)), mtime: Some(SetTime::Now), ..SetAttr::default() };
    let after = world.set(ino, set).unwrap();
    assert_eq!((after.atime, after.mtime, after.ctime), (old, world.now(), world.now()));
    let bad = Time { sec: 0, nsec: 1_000_000_000 };
    let set = SetAttr { atime: Some(SetTime::At(bad)), ..SetAttr::default() };
    assert_eq!(world.set(ino, set), Err(FsError::Invalid));
}

#[test]
fn access_times_only_move_forward() {
    let mut world = World::new();
    let ino = world.file("f");
    let before = world.attr(ino);
    let later = Time { sec: before.atime.sec + 50, nsec: 0 };
    world.op(Op::TouchAtime { ino, was: before.atime, atime: later }).unwrap();
    world.op(Op::TouchAtime { ino, was: later, atime: Time::default() }).unwrap();
    assert_eq!(world.attr(ino), Attr { atime: later, ..before });
    // The times of many files go in one command: one that is gone must not take the others along.
    assert_eq!(world.op(Op::TouchAtime { ino: Ino(99), was: later, atime: later }), Ok(OpReply::Done));
}

#[test]
fn an_access_that_is_told_late_does_not_undo_a_time_that_was_set() {
    let mut world = World::new();
    let ino = world.file("f");
    let was = world.attr(ino).atime;
    let old = Time { sec: -86_400, nsec: 0 };
    let set = world.set(ino, SetAttr { atime: Some(SetTime::At(old)), ..SetAttr::default() }).unwrap();
    let atime = Time { sec: was.sec + 50, nsec: 0 };
    assert_eq!(world.op(Op::TouchAtime { ino, was, atime }), Ok(OpReply::Attr(set.clone())));
    assert_eq!(world.attr(ino), set);
    // One that saw what was set is noted.
    world.op(Op::TouchAtime { ino, was: old, atime }).unwrap();
    assert_eq!(world.attr(ino), Attr { atime, ..set });
}

#[test]
fn sizes_are_for_files_within_the_largest_offset() {
    let mut world = World::new();
    let ino = world.file("f");
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    let after = world.set(ino, size(FILE_BYTES_MAX)).unwrap();
    assert_eq!((after.size, after.allocated_bytes, after.mtime), (FILE_BYTES_MAX, 0, world.now()));
    assert_eq!(world.set(ino, size(FILE_BYTES_MAX + 1)), Err(FsError::FileTooLarge));
    let dir = world.dir(ROOT, "d");
    assert_eq!(world.set(dir, size(0)), Err(FsError::IsDirectory));
    let fifo = world.make(ROOT, "p", NewNode::Fifo, 0).unwrap().ino;
    assert_eq!(world.set(fifo, size(0)), Err(FsError::Invalid));
}

#[test]
fn symlinks_have_no_mode_to_set() {
    let mut world = World::new();
    let link = world.make(ROOT, "s", NewNode::Symlink(b"x".to_vec()), 0).unwrap().ino;
    assert_eq!(world.set(link, SetAttr { mode: Some(0), ..SetAttr::default() }), Err(FsError::NotSupported));
    assert_eq!(world.set(link, SetAttr { uid: Some(3), ..SetAttr::default() }).unwrap().uid, 3);
}
