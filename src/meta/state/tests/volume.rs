//! Volumes.

use super::*;
use crate::types::id::VolumeId;
use crate::types::volume::{Access, VolumeChange};

fn make(world: &mut World, name: &str, policy: VolumePolicy) -> Outcome {
    let now = world.now();
    world.apply(Command::CreateVolume { volume: NewVolume { policy, ..NewVolume::named(name) }, now })
}

#[test]
fn a_volume_begins_with_its_root() {
    let world = World::new();
    let root = world.attr(ROOT);
    assert_eq!((root.mode, root.nlink, root.uid, root.gid), (0o755, 2, 0, 0));
    assert_eq!(world.state.view(|view| view.parent(world.tree, ROOT)).unwrap().ino, ROOT);
    let volumes = world.state.view(|view| view.volumes()).unwrap();
    assert_eq!((volumes.len(), volumes[0].0.name.as_str(), volumes[0].1.inodes), (1, "v", 1));
    let by_name = world.state.view(|view| view.volume_by_name("v")).unwrap();
    assert_eq!(by_name, Some(world.state.view(|view| view.volume(VolumeId(1))).unwrap()));
}

#[test]
fn a_root_belongs_to_whom_it_was_made_for() {
    let mut world = World::new();
    let (now, owner) = (world.now(), Owner { uid: 1000, gid: 100 });
    let volume = NewVolume { owner, mode: 0o2770, ..NewVolume::named("theirs") };
    let made = world.apply(Command::CreateVolume { volume, now });
    let Outcome::Volume(volume) = made else { panic!("{made:?}") };
    let root = world.state.view(|view| view.attr(volume.tree, ROOT)).unwrap();
    assert_eq!((root.mode, root.uid, root.gid), (0o2770, 1000, 100));
}

#[test]
fn what_is_no_volume_is_refused() {
    let mut world = World::new();
    assert_eq!(make(&mut world, "v", policy()), Outcome::Error(FsError::Exists));
    assert!(matches!(make(&mut world, "a/b", policy()), Outcome::Refused(_)));
    assert!(matches!(make(&mut world, "w", VolumePolicy { replicas: 0, ..policy() }), Outcome::Refused(_)));
    assert!(matches!(set(&mut world, labelled("")), Outcome::Refused(_)));
}

fn set(world: &mut World, change: VolumeChange) -> Outcome {
    world.apply(Command::ChangeVolume { name: "v".into(), change })
}

fn labelled(key: &str) -> VolumeChange {
    VolumeChange { labels: [(key.into(), Some("x".into()))].into(), ..VolumeChange::default() }
}

fn bounded(inodes: u64, bytes: u64) -> VolumeChange {
    VolumeChange { quota_inodes: Some(inodes), quota_bytes: Some(bytes), ..VolumeChange::default() }
}

#[test]
fn a_volume_shrinks_to_what_it_holds_and_no_further() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 0, chunk(1, u64::MAX), CHUNK as u32).unwrap();
    for (inodes, bytes) in [(1, 0), (0, CHUNK - 1)] {
        let refused = Outcome::Refused(format!("volume v holds {CHUNK} bytes in 2 inodes already"));
        assert_eq!(set(&mut world, bounded(inodes, bytes)), refused);
    }
    assert!(matches!(set(&mut world, bounded(2, CHUNK)), Outcome::Volume(_)));
    let more = write(ino, WriteAt::Offset(CHUNK), chunk(2, u64::MAX), CHUNK as u32);
    assert_eq!(world.op(more.clone()), Err(FsError::QuotaExceeded));
    assert_eq!(world.op(create(ROOT, "g", NewNode::File, 0)), Err(FsError::QuotaExceeded));
    assert!(matches!(set(&mut world, bounded(3, 2 * CHUNK)), Outcome::Volume(_)), "it grows");
    assert!(world.op(more).is_ok() && world.op(create(ROOT, "g", NewNode::File, 0)).is_ok());
    assert!(matches!(set(&mut world, bounded(0, 0)), Outcome::Volume(_)), "it has no bounds again");
    assert!(world.op(create(ROOT, "h", NewNode::File, 0)).is_ok());
}

/// A client adds on its own what it was promised, and is told later that it may not.
#[test]
fn a_volume_does_not_shrink_below_what_was_promised() {
    let mut world = World::new();
    assert_eq!(world.want(100, 5 * CHUNK), Allowance { inodes: 100, bytes: 5 * CHUNK });
    assert_eq!(set(&mut world, bounded(100, 0)), Outcome::Error(FsError::Promised));
    assert_eq!(set(&mut world, bounded(0, 5 * CHUNK - 1)), Outcome::Error(FsError::Promised));
    assert!(matches!(set(&mut world, bounded(101, 5 * CHUNK)), Outcome::Volume(_)));
    world.want(0, 0);
    assert!(matches!(set(&mut world, bounded(1, 1)), Outcome::Volume(_)));
}

#[test]
fn access_is_not_changed_under_who_has_it() {
    let mut world = World::new();
    let change = |access| VolumeChange { access: Some(access), ..VolumeChange::default() };
    assert_eq!(set(&mut world, change(Access::Readers)), Outcome::Refused("volume v is in use by 1 client".into()));
    assert!(matches!(set(&mut world, change(Access::Many)), Outcome::Volume(_)), "that it is already");
    let session = world.session;
    world.apply(Command::CloseSession { session });
    assert!(matches!(set(&mut world, change(Access::Readers)), Outcome::Volume(_)));
    assert!(matches!(world.open_after("v", "writer", false, None), Outcome::Refused(_)));
    assert!(matches!(world.open_after("v", "reader", true, None), Outcome::Session { read_only: true, .. }));
}

#[test]
fn labels_come_and_go() {
    let mut world = World::new();
    let Outcome::Volume(volume) = set(&mut world, labelled("team")) else { panic!("refused") };
    assert_eq!(volume.labels, [("team".to_string(), "x".to_string())].into());
    assert_eq!(world.state.view(|view| view.volume_by_name("v")).unwrap(), Some(volume));
    let removed = VolumeChange { labels: [("team".into(), None)].into(), ..VolumeChange::default() };
    assert!(matches!(set(&mut world, removed), Outcome::Volume(volume) if volume.labels.is_empty()));
    let absent = world.apply(Command::ChangeVolume { name: "w".into(), change: labelled("team") });
    assert_eq!(absent, Outcome::Error(FsError::NotFound));
}

#[test]
fn a_volume_in_use_is_not_deleted() {
    let mut world = World::new();
    let refused = world.apply(Command::DeleteVolume { name: "v".into() });
    assert_eq!(refused, Outcome::Refused("volume v is in use by 1 client".into()));
    assert_eq!(world.apply(Command::DeleteVolume { name: "w".into() }), Outcome::Error(FsError::NotFound));
}

#[test]
fn a_deleted_volume_is_freed_in_steps() {
    let mut world = World::new();
    make(&mut world, "other", policy());
    world.checks = false;
    let keep = world.file("keep");
    world.write(keep, 0, chunk(1, 1), 10).unwrap();
    for batch in 0..3 {
        let file = |i: u64| create(ROOT, &format!("f{batch}-{i}"), NewNode::File, 0);
        let ops: Vec<_> = (0..1000).map(file).collect();
        assert!(matches!(world.batch(ops), BatchReply::Done(_)));
    }
    world.checks = true;
    let session = world.session;
    world.apply(Command::CloseSession { session });
    assert_eq!(world.apply(Command::DeleteVolume { name: "v".into() }), Outcome::Done);
    assert_eq!(world.state.view(|view| view.dead_trees()).unwrap(), [world.tree]);
    let mut steps = 0;
    while world.apply(Command::ReapTree { tree: world.tree }) == (Outcome::TreeReaped { done: false }) {
        steps += 1;
    }
    assert_eq!(steps, 2, "9,003 keys at 4,096 a step");
    assert!(world.state.view(|view| view.dead_trees()).unwrap().is_empty());
    assert_eq!(world.state.view(|view| view.releasable(u64::MAX, 9)).unwrap().len(), 1);
    assert_eq!(world.apply(Command::ReapTree { tree: TreeId(2) }), Outcome::TreeReaped { done: true });
    assert!(world.state.view(|view| view.volume_by_name("other")).unwrap().is_some());
}
