//! Extended attributes and ACLs.

use super::*;
use crate::meta::state::acl;
use crate::types::op::XattrMode;

fn set(world: &mut World, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<OpReply, FsError> {
    world.op(Op::SetXattr { ino, name: name.to_vec(), value: value.to_vec(), mode })
}

fn value(world: &World, ino: Ino, name: &[u8]) -> Option<Vec<u8>> {
    world.state.view(|view| view.xattr(world.tree, ino, name)).ok()
}

fn names(world: &World, ino: Ino) -> Vec<Vec<u8>> {
    world.state.view(|view| view.xattr_names(world.tree, ino)).unwrap()
}

/// An ACL in the kernel's form.
fn acl_of(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const NOBODY: u32 = u32::MAX;

/// `u::rwx u:7:rw g::r-x m::rwx o::---`
fn named() -> Vec<u8> {
    acl_of(&[(1, 7, NOBODY), (2, 6, 7), (4, 5, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY)])
}

#[test]
fn attributes_are_set_replaced_and_removed() {
    let mut world = World::new();
    let ino = world.file("f");
    set(&mut world, ino, b"user.a", b"1", XattrMode::Create).unwrap();
    assert_eq!(world.attr(ino).ctime, world.now());
    assert_eq!(set(&mut world, ino, b"user.a", b"2", XattrMode::Create), Err(FsError::Exists));
    assert_eq!(set(&mut world, ino, b"user.b", b"2", XattrMode::Replace), Err(FsError::NoAttribute));
    set(&mut world, ino, b"user.a", b"", XattrMode::Replace).unwrap();
    set(&mut world, ino, b"trusted.x", &vec![7; 64 << 10], XattrMode::Set).unwrap();
    assert_eq!(value(&world, ino, b"user.a"), Some(Vec::new()));
    assert_eq!(names(&world, ino), [b"trusted.x".to_vec(), b"user.a".to_vec()]);
    let remove = |name: &[u8]| Op::RemoveXattr { ino, name: name.to_vec() };
    world.op(remove(b"user.a")).unwrap();
    assert_eq!(world.op(remove(b"user.a")), Err(FsError::NoAttribute));
    assert_eq!(value(&world, ino, b"user.a"), None);
}

#[test]
fn names_and_sizes_are_bounded() {
    let mut world = World::new();
    let ino = world.file("f");
    let fifo = world.make(ROOT, "p", NewNode::Fifo, 0o600).unwrap().ino;
    let mut try_set = |ino, name: &[u8], bytes| set(&mut world, ino, name, &vec![0; bytes], XattrMode::Set);
    assert_eq!(try_set(ino, b"user.", 1), Err(FsError::Invalid));
    assert_eq!(try_set(ino, b"other.x", 1), Err(FsError::NotSupported));
    assert_eq!(try_set(ino, b"system.x", 1), Err(FsError::NotSupported));
    assert_eq!(try_set(ino, &[b"user.".as_slice(), &[b'x'; 251]].concat(), 1), Err(FsError::Range));
    assert_eq!(try_set(ino, b"user.x", (64 << 10) + 1), Err(FsError::TooBig));
    assert_eq!(try_set(fifo, b"user.x", 1), Err(FsError::NotPermitted));
    assert_eq!(try_set(fifo, b"trusted.x", 1), Ok(OpReply::Done));
}

#[test]
fn a_thousand_attributes_fit_and_the_list_has_an_end() {
    let mut world = World::new();
    let ino = world.file("f");
    let op = |i: usize| {
        let name = format!("user.{i:0>50}").into_bytes();
        Op::SetXattr { ino, name, value: vec![1], mode: XattrMode::Set }
    };
    assert!(matches!(world.batch((0..1000).map(op).collect()), BatchReply::Done(_)));
    assert_eq!(names(&world, ino).len(), 1000);
    let reply = world.batch((1000..2000).map(op).collect());
    assert!(matches!(reply, BatchReply::Failed { error: FsError::NoSpace, .. }), "{reply:?}");
}

#[test]
fn an_access_acl_and_the_mode_follow_each_other() {
    let mut world = World::new();
    let ino = world.file("f");
    set(&mut world, ino, acl::ACCESS, &named(), XattrMode::Set).unwrap();
    let attr = world.attr(ino);
    assert_eq!((attr.mode, attr.has_acl), (0o770, true));
    world.set(ino, SetAttr { mode: Some(0o640), ..SetAttr::default() }).unwrap();
    let chmodded = acl_of(&[(1, 6, NOBODY), (2, 6, 7), (4, 5, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)]);
    assert_eq!(value(&world, ino, acl::ACCESS), Some(chmodded));
    let plain = acl_of(&[(1, 7, NOBODY), (4, 1, NOBODY), (0x20, 4, NOBODY)]);
    set(&mut world, ino, acl::ACCESS, &plain, XattrMode::Set).unwrap();
    let attr = world.attr(ino);
    assert_eq!((attr.mode, attr.has_acl, names(&world, ino).len()), (0o714, false, 0));
}

#[test]
fn a_default_acl_takes_the_place_of_the_umask() {
    let mut world = World::new();
    let dir = world.dir(ROOT, "d");
    set(&mut world, dir, acl::DEFAULT, &named(), XattrMode::Set).unwrap();
    let file = world.make(dir, "f", NewNode::File, 0o666).unwrap();
    assert_eq!((file.mode, file.has_acl), (0o660, true));
    let inherited = acl_of(&[(1, 6, NOBODY), (2, 6, 7), (4, 5, NOBODY), (0x10, 6, NOBODY), (0x20, 0, NOBODY)]);
    assert_eq!(value(&world, file.ino, acl::ACCESS), Some(inherited));
    let sub = world.make(dir, "s", NewNode::Dir, 0o777).unwrap();
    assert_eq!(sub.mode, 0o770);
    assert_eq!(value(&world, sub.ino, acl::DEFAULT), Some(named()));
    let link = world.make(dir, "l", NewNode::Symlink(b"x".to_vec()), 0).unwrap();
    assert!(!link.has_acl && names(&world, link.ino).is_empty());
    world.op(Op::RemoveXattr { ino: dir, name: acl::DEFAULT.to_vec() }).unwrap();
    assert_eq!(world.make(dir, "g", NewNode::File, 0o666).unwrap().mode, 0o644);
}

#[test]
fn a_plain_default_acl_leaves_only_mode_bits() {
    let mut world = World::new();
    let dir = world.dir(ROOT, "d");
    let plain = acl_of(&[(1, 7, NOBODY), (4, 7, NOBODY), (0x20, 5, NOBODY)]);
    set(&mut world, dir, acl::DEFAULT, &plain, XattrMode::Set).unwrap();
    let file = world.make(dir, "f", NewNode::File, 0o666).unwrap();
    assert_eq!((file.mode, file.has_acl), (0o664, false));
}

#[test]
fn invalid_acls_are_refused() {
    let mut world = World::new();
    let ino = world.file("f");
    let mut try_set = |name: &[u8], value: &[u8]| set(&mut world, ino, name, value, XattrMode::Set);
    assert_eq!(try_set(acl::DEFAULT, &named()), Err(FsError::AccessDenied));
    assert_eq!(try_set(acl::ACCESS, &[1, 0, 0, 0]), Err(FsError::NotSupported));
    assert_eq!(try_set(acl::ACCESS, &[2, 0, 0]), Err(FsError::Invalid));
    assert_eq!(try_set(acl::ACCESS, &named()[..20]), Err(FsError::Invalid));
    let maskless = acl_of(&[(1, 7, NOBODY), (2, 6, 7), (4, 5, NOBODY), (0x20, 0, NOBODY)]);
    assert_eq!(try_set(acl::ACCESS, &maskless), Err(FsError::Invalid));
    let disordered = acl_of(&[(4, 5, NOBODY), (1, 7, NOBODY), (0x20, 0, NOBODY)]);
    assert_eq!(try_set(acl::ACCESS, &disordered), Err(FsError::Invalid));
    let wide = acl_of(&[(1, 8, NOBODY), (4, 5, NOBODY), (0x20, 0, NOBODY)]);
    assert_eq!(try_set(acl::ACCESS, &wide), Err(FsError::Invalid));
    assert_eq!(try_set(acl::ACCESS, &[2, 0, 0, 0]), Ok(OpReply::Done));
    assert_eq!(try_set(acl::ACCESS, b""), Ok(OpReply::Done));
}
