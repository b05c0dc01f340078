//! Volumes.

use super::*;
use crate::types::id::VolumeId;

fn make(world: &mut World, name: &str, policy: VolumePolicy) -> Outcome {
    let now = world.now();
    world.apply(Command::CreateVolume { name: name.into(), policy, owner: Owner::default(), now })
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
    let made = world.apply(Command::CreateVolume { name: "theirs".into(), policy: policy(), owner, now });
    let Outcome::Volume(volume) = made else { panic!("{made:?}") };
    let root = world.state.view(|view| view.attr(volume.tree, ROOT)).unwrap();
    assert_eq!((root.mode, root.uid, root.gid), (0o755, 1000, 100));
}

#[test]
fn names_and_policies_are_checked() {
    let mut world = World::new();
    assert_eq!(make(&mut world, "v", policy()), Outcome::Error(FsError::Exists));
    for bad in ["", "-x", "a/b", "a b", &"x".repeat(129)] {
        assert!(matches!(make(&mut world, bad, policy()), Outcome::Refused(_)), "{bad:?}");
    }
    for bad in [
        VolumePolicy { replicas: 0, ..policy() },
        VolumePolicy { replicas: 8, ..policy() },
        VolumePolicy { chunk_bytes: 0, ..policy() },
        VolumePolicy { chunk_bytes: 100_000, ..policy() },
        VolumePolicy { chunk_bytes: 32 << 10, ..policy() },
    ] {
        assert!(matches!(make(&mut world, "w", bad.clone()), Outcome::Refused(_)), "{bad:?}");
    }
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
