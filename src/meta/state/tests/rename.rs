//! Everything rename(2) says.

use super::*;

use RenameMode::{Exchange, NoReplace, Replace};

/// The inodes that the names had.
fn renamed(reply: Result<OpReply, FsError>) -> (Ino, Option<Ino>) {
    match reply {
        Ok(OpReply::Renamed { moved, other }) => (moved.ino, other.map(|other| other.ino)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_moves_between_directories() {
    let mut world = World::new();
    let (a, b) = (world.dir(ROOT, "a"), world.dir(ROOT, "b"));
    let sub = world.dir(a, "sub");
    assert_eq!(renamed(world.rename((a, "sub"), (b, "moved"), Replace)), (sub, None));
    assert_eq!((world.lookup(a, "sub"), world.lookup(b, "moved")), (None, Some(sub)));
    assert_eq!((world.attr(a).nlink, world.attr(b).nlink), (2, 3));
    assert_eq!(world.state.view(|view| view.parent(world.tree, sub)).unwrap().ino, b);
    let now = world.now();
    assert_eq!([world.attr(a).mtime, world.attr(b).mtime, world.attr(sub).ctime], [now; 3]);
    assert_ne!(world.attr(sub).mtime, now);
}

#[test]
fn a_file_replaces_a_file() {
    let mut world = World::new();
    let (a, b) = (world.file("a"), world.file("b"));
    let reply = world.rename((ROOT, "a"), (ROOT, "b"), Replace).unwrap();
    assert_eq!(reply, OpReply::Renamed { moved: world.attr(a), other: Some(world.attr(b)) });
    assert_eq!(world.attr(b).nlink, 0);
    assert_eq!((world.lookup(ROOT, "a"), world.lookup(ROOT, "b")), (None, Some(a)));
    world.rename((ROOT, "b"), (ROOT, "b"), Replace).unwrap();
    assert_eq!(world.attr(a).nlink, 1);
}

#[test]
fn a_replaced_name_stays_where_a_listing_finds_it() {
    let mut world = World::new();
    world.file("target");
    let source = world.file("source");
    let list = |world: &World| world.state.view(|view| view.read_dir(world.tree, ROOT, 0, 9)).unwrap().entries;
    let cookie = list(&world)[0].cookie;
    world.rename((ROOT, "source"), (ROOT, "target"), Replace).unwrap();
    let after = list(&world);
    assert_eq!((after.len(), after[0].cookie, after[0].ino), (1, cookie, source));
    world.rename((ROOT, "target"), (ROOT, "other"), Replace).unwrap();
    assert!(list(&world)[0].cookie > cookie);
}

#[test]
fn two_names_of_one_inode_stay_two() {
    let mut world = World::new();
    let ino = world.file("a");
    world.op(Op::Link { ino, dir: ROOT, name: name("b") }).unwrap();
    let before = world.attr(ino);
    assert_eq!(renamed(world.rename((ROOT, "a"), (ROOT, "b"), Replace)), (ino, Some(ino)));
    assert_eq!(world.attr(ino), before);
    assert_eq!((world.lookup(ROOT, "a"), world.lookup(ROOT, "b")), (Some(ino), Some(ino)));
    assert_eq!(world.rename((ROOT, "a"), (ROOT, "b"), NoReplace), Err(FsError::Exists));
}

#[test]
fn kinds_must_fit() {
    let mut world = World::new();
    world.file("f");
    let dir = world.dir(ROOT, "d");
    let full = world.dir(ROOT, "full");
    world.dir(full, "x");
    assert_eq!(world.rename((ROOT, "f"), (ROOT, "d"), Replace), Err(FsError::IsDirectory));
    assert_eq!(world.rename((ROOT, "d"), (ROOT, "f"), Replace), Err(FsError::NotDirectory));
    assert_eq!(world.rename((ROOT, "d"), (ROOT, "full"), Replace), Err(FsError::NotEmpty));
    assert_eq!(world.rename((ROOT, "none"), (ROOT, "f"), Replace), Err(FsError::NotFound));
    world.rename((ROOT, "full"), (ROOT, "d"), Replace).unwrap();
    assert_eq!((world.lookup(ROOT, "d"), world.attr(dir).nlink, world.attr(ROOT).nlink), (Some(full), 0, 3));
}

#[test]
fn a_directory_does_not_go_into_itself() {
    let mut world = World::new();
    let a = world.dir(ROOT, "a");
    let b = world.dir(a, "b");
    let c = world.dir(b, "c");
    assert_eq!(world.rename((ROOT, "a"), (c, "x"), Replace), Err(FsError::Invalid));
    assert_eq!(world.rename((ROOT, "a"), (a, "x"), Replace), Err(FsError::Invalid));
    assert_eq!(world.rename((b, "c"), (ROOT, "a"), Replace), Err(FsError::NotEmpty));
    assert_eq!(world.rename((b, "c"), (ROOT, "a"), Exchange), Err(FsError::Invalid));
}

#[test]
fn exchange_swaps_kinds_parents_and_counts() {
    let mut world = World::new();
    let (a, b) = (world.dir(ROOT, "a"), world.dir(ROOT, "b"));
    let sub = world.dir(a, "x");
    let file = world.make(b, "y", NewNode::File, 0o600).unwrap().ino;
    assert_eq!(renamed(world.rename((a, "x"), (b, "y"), Exchange)), (sub, Some(file)));
    assert_eq!((world.lookup(a, "x"), world.lookup(b, "y")), (Some(file), Some(sub)));
    assert_eq!((world.attr(a).nlink, world.attr(b).nlink), (2, 3));
    assert_eq!((world.attr(file).ctime, world.attr(sub).ctime), (world.now(), world.now()));
    assert_eq!(world.rename((a, "x"), (b, "none"), Exchange), Err(FsError::NotFound));
    world.rename((a, "x"), (a, "x"), Exchange).unwrap();
}

#[test]
fn no_replace_takes_only_a_free_name() {
    let mut world = World::new();
    let a = world.file("a");
    world.file("b");
    assert_eq!(world.rename((ROOT, "a"), (ROOT, "b"), NoReplace), Err(FsError::Exists));
    world.rename((ROOT, "a"), (ROOT, "c"), NoReplace).unwrap();
    assert_eq!(world.lookup(ROOT, "c"), Some(a));
}
