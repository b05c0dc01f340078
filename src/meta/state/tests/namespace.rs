//! Create, link, unlink, rmdir, listings.

use super::*;
use crate::kv::Kv;
use crate::meta::state::schema::inode_key;
use crate::meta::state::tx::Tx;
use crate::types::attr::{FileKind, S_ISGID};
use crate::types::limits::LINKS_MAX;

#[test]
fn a_create_makes_an_inode_and_its_name() {
    let mut world = World::new();
    let before = world.attr(ROOT);
    let attr = world.make(ROOT, "f", NewNode::File, 0o666).unwrap();
    assert_eq!((attr.kind, attr.mode, attr.nlink, attr.uid, attr.gid), (FileKind::File, 0o644, 1, 10, 20));
    assert_eq!((attr.atime, attr.mtime, attr.ctime, attr.btime), (world.now(), world.now(), world.now(), world.now()));
    let root = world.attr(ROOT);
    assert_eq!((root.mtime, root.ctime, root.nlink), (world.now(), world.now(), 2));
    assert!(root.version > before.version);
    assert_eq!(world.lookup(ROOT, "f"), Some(attr.ino));
    assert_eq!(world.make(ROOT, "f", NewNode::File, 0), Err(FsError::Exists));
}

#[test]
fn an_open_create_answers_with_the_file_that_is_there() {
    let mut world = World::new();
    let ino = world.file("f");
    world.dir(ROOT, "d");
    let open = |wanted: &str| {
        let Op::Create(op) = create(ROOT, wanted, NewNode::File, 0o600) else { unreachable!() };
        Op::Create(Create { exclusive: false, ..op })
    };
    let reply = world.op(open("f"));
    assert!(matches!(reply, Ok(OpReply::Entry { attr, created: false }) if attr.ino == ino && attr.mode == 0o644));
    assert_eq!(world.op(open("d")), Err(FsError::Exists));
}

#[test]
fn directories_count_their_subdirectories_and_know_their_parent() {
    let mut world = World::new();
    let dir = world.dir(ROOT, "d");
    let sub = world.dir(dir, "s");
    assert_eq!((world.attr(ROOT).nlink, world.attr(dir).nlink, world.attr(sub).nlink), (3, 3, 2));
    assert_eq!(world.state.view(|view| view.parent(world.tree, sub)).unwrap().ino, dir);
    assert_eq!(world.op(Op::Rmdir { dir: ROOT, name: name("d") }), Err(FsError::NotEmpty));
    assert_eq!(world.unlink(dir, "s"), Err(FsError::IsDirectory));
    world.op(Op::Rmdir { dir, name: name("s") }).unwrap();
    assert_eq!((world.attr(dir).nlink, world.attr(sub).nlink), (2, 0));
}

#[test]
fn a_removed_directory_takes_no_new_names() {
    let mut world = World::new();
    let dir = world.dir(ROOT, "d");
    let file = world.file("f");
    world.op(Op::Rmdir { dir: ROOT, name: name("d") }).unwrap();
    assert_eq!(world.make(dir, "x", NewNode::File, 0), Err(FsError::NotFound));
    assert_eq!(world.op(Op::Link { ino: file, dir, name: name("x") }), Err(FsError::NotFound));
    assert_eq!(world.rename((ROOT, "f"), (dir, "x"), RenameMode::Replace), Err(FsError::NotFound));
    assert_eq!(world.unlink(dir, "x"), Err(FsError::NotFound));
    assert!(world.reap(&[dir]).is_empty());
    assert_eq!(world.make(dir, "x", NewNode::File, 0), Err(FsError::NotFound));
}

#[test]
fn set_group_id_directories_hand_down_their_group() {
    let mut world = World::new();
    let dir = world.dir(ROOT, "d");
    world.set(dir, SetAttr { mode: Some(0o2775), gid: Some(77), ..SetAttr::default() }).unwrap();
    let file = world.make(dir, "f", NewNode::File, 0o664).unwrap();
    assert_eq!((file.gid, file.mode), (77, 0o644));
    let sub = world.make(dir, "s", NewNode::Dir, 0o775).unwrap();
    assert_eq!((sub.gid, sub.mode), (77, 0o755 | S_ISGID));
}

#[test]
fn links_are_counted_and_bounded() {
    let mut world = World::new();
    let ino = world.file("a");
    world.op(Op::Link { ino, dir: ROOT, name: name("b") }).unwrap();
    assert_eq!(world.attr(ino).nlink, 2);
    assert_eq!(world.op(Op::Link { ino, dir: ROOT, name: name("b") }), Err(FsError::Exists));
    let dir = world.dir(ROOT, "d");
    assert_eq!(world.op(Op::Link { ino: dir, dir: ROOT, name: name("e") }), Err(FsError::NotPermitted));
    world.unlink(ROOT, "a").unwrap();
    let reply = world.unlink(ROOT, "b").unwrap();
    assert!(matches!(reply, OpReply::Removed { gone: Some(attr) } if attr.nlink == 0 && attr.ctime == world.now()));
    assert_eq!(world.op(Op::Link { ino, dir: ROOT, name: name("c") }), Err(FsError::NotFound));
}

#[test]
fn the_link_count_stops_where_it_does_on_ext4() {
    let mut world = World::new();
    world.checks = false;
    let ino = world.file("f");
    let mut tx = Tx::new(&world.state.kv);
    let mut inode = tx.inode(world.tree, ino).unwrap();
    inode.attr.nlink = LINKS_MAX - 1;
    tx.put(inode_key(world.tree, ino), &inode);
    world.state.kv.write(tx.into_batch()).unwrap();
    world.op(Op::Link { ino, dir: ROOT, name: name("last") }).unwrap();
    assert_eq!(world.op(Op::Link { ino, dir: ROOT, name: name("more") }), Err(FsError::TooManyLinks));
}

#[test]
fn orphans_live_by_number_until_they_are_reaped() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 0, inline(b"abc"), 3).unwrap();
    world.unlink(ROOT, "f").unwrap();
    world.write(ino, 3, inline(b"def"), 3).unwrap();
    assert_eq!(world.attr(ino).size, 6);
    assert_eq!(world.state.view(|view| view.orphans(None, 10)).unwrap(), [(world.tree, ino)]);
    assert!(world.state.view(|view| view.orphans(Some((world.tree, ino)), 10)).unwrap().is_empty());
    assert!(world.reap(&[ino]).is_empty());
    assert!(world.state.view(|view| view.attr(world.tree, ino)).is_err());
    assert_eq!(world.state.view(|view| view.usage(world.tree)).unwrap().inodes, 1);
}

#[test]
fn a_named_inode_is_not_reaped() {
    let mut world = World::new();
    let ino = world.file("f");
    assert!(world.reap(&[ino, ROOT]).is_empty());
    assert_eq!(world.lookup(ROOT, "f"), Some(ino));
}

#[test]
fn listings_go_on_where_they_stopped() {
    let mut world = World::new();
    for i in 0..10 {
        world.file(&format!("f{i}"));
    }
    let page =
        |world: &World, after, max| world.state.view(|view| view.read_dir(world.tree, ROOT, after, max)).unwrap();
    let first = page(&world, 0, 4);
    assert!(!first.end && first.entries[0].cookie == 3);
    let last = first.entries[3].cookie;
    world.unlink(ROOT, "f3").unwrap();
    world.unlink(ROOT, "f5").unwrap();
    world.file("new");
    let rest = page(&world, last, 100);
    let names: Vec<_> = rest.entries.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names, ["f4", "f6", "f7", "f8", "f9", "new"].map(name));
    assert!(rest.end);
    let new = rest.entries[5].cookie;
    assert_eq!((first.next_cookie, rest.next_cookie), (new, new + 1), "what comes later is told from what was there");
    assert!(page(&world, u64::MAX, 1).end);
}

#[test]
fn symlinks_have_targets_within_bounds() {
    let mut world = World::new();
    let attr = world.make(ROOT, "s", NewNode::Symlink(b"to/there".to_vec()), 0).unwrap();
    assert_eq!((attr.size, attr.mode), (8, 0o777));
    assert_eq!(world.state.view(|view| view.read_link(world.tree, attr.ino)).unwrap(), b"to/there");
    assert!(world.make(ROOT, "m", NewNode::Symlink(vec![b'x'; 4095]), 0).is_ok());
    assert_eq!(world.make(ROOT, "t", NewNode::Symlink(vec![b'x'; 4096]), 0), Err(FsError::NameTooLong));
    assert_eq!(world.make(ROOT, "t", NewNode::Symlink(Vec::new()), 0), Err(FsError::NotFound));
}

#[test]
fn device_nodes_keep_their_numbers() {
    let mut world = World::new();
    assert_eq!(world.make(ROOT, "c", NewNode::Char(0x0103), 0o600).unwrap().rdev, 0x0103);
    assert_eq!(world.make(ROOT, "b", NewNode::Block(0x0700), 0o600).unwrap().kind, FileKind::Block);
    assert_eq!(world.make(ROOT, "p", NewNode::Fifo, 0o600).unwrap().kind, FileKind::Fifo);
    assert_eq!(world.make(ROOT, "s", NewNode::Socket, 0o600).unwrap().kind, FileKind::Socket);
}

#[test]
fn names_below_what_is_no_directory_are_refused() {
    let mut world = World::new();
    let file = world.file("f");
    assert_eq!(world.make(file, "x", NewNode::File, 0), Err(FsError::NotDirectory));
    assert_eq!(world.unlink(file, "x"), Err(FsError::NotDirectory));
    assert_eq!(world.op(Op::Rmdir { dir: ROOT, name: name("f") }), Err(FsError::NotDirectory));
    assert_eq!(world.make(Ino(999), "x", NewNode::File, 0), Err(FsError::NotFound));
}

#[test]
fn a_batch_happens_as_a_whole_or_not_at_all() {
    let mut world = World::new();
    let ops = vec![
        create(ROOT, "a", NewNode::File, 0o600),
        create(ROOT, "d", NewNode::Dir, 0o700),
        Op::Unlink { dir: ROOT, name: name("missing") },
    ];
    assert_eq!(world.batch(ops), BatchReply::Failed { index: 2, error: FsError::NotFound });
    assert_eq!((world.lookup(ROOT, "a"), world.attr(ROOT).nlink), (None, 2));
    let ops = vec![create(ROOT, "d", NewNode::Dir, 0o700), create(Ino(2), "in", NewNode::File, 0o600)];
    assert!(matches!(world.batch(ops), BatchReply::Done(replies) if replies.len() == 2));
    assert!(world.lookup(Ino(2), "in").is_some());
}

#[test]
fn the_inode_quota_is_kept() {
    let mut world = World::with(VolumePolicy { quota_inodes: 3, ..policy() });
    world.file("a");
    let b = world.file("b");
    assert_eq!(world.make(ROOT, "c", NewNode::File, 0), Err(FsError::QuotaExceeded));
    world.unlink(ROOT, "b").unwrap();
    world.reap(&[b]);
    world.file("c");
}
