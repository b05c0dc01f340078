//! Garbage collection without a clock.

use super::*;
use crate::types::cluster::{DiskInfo, StoreInfo};
use crate::types::id::{DiskId, StoreId};

const ID: ChunkId = ChunkId([1; 32]);

fn store(world: &mut World, n: u8) -> StoreId {
    let disks = vec![DiskInfo { id: DiskId([n; 16]), weight: 1 }];
    let address = format!("10.0.0.{n}:1");
    let info = StoreInfo { id: StoreId(0), address, host: format!("h{n}"), zone: String::new(), disks };
    match world.apply(Command::RegisterStore { info }) {
        Outcome::Store { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

fn condemn(world: &mut World) -> (u64, u64) {
    let chunks = world.state.view(|view| view.releasable(u64::MAX, 100)).unwrap();
    match world.apply(Command::Condemn { chunks }) {
        Outcome::Condemned { epoch, chunks } => (epoch, chunks),
        other => panic!("{other:?}"),
    }
}

fn confirm(world: &mut World, store: StoreId, epoch: u64) {
    assert_eq!(world.apply(Command::ConfirmDelete { store, epochs: vec![epoch] }), Outcome::Done);
}

fn known(world: &World) -> u64 {
    world.state.view(|view| view.chunk_totals()).unwrap().chunks
}

/// A world with two stores and a file that held the chunk and does not any more.
fn with_garbage() -> (World, Ino, [StoreId; 2]) {
    let mut world = World::new();
    let stores = [store(&mut world, 1), store(&mut world, 2)];
    let ino = world.file("f");
    world.write(ino, 0, chunk(1, 1), 10).unwrap();
    world.set(ino, SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    (world, ino, stores)
}

#[test]
fn garbage_goes_when_every_store_has_confirmed() {
    let (mut world, ino, stores) = with_garbage();
    assert_eq!(condemn(&mut world), (2, 1));
    for store in stores {
        let batches = world.state.view(|view| view.condemned(store, 9)).unwrap();
        assert_eq!((batches.len(), batches[0].epoch, batches[0].chunks.as_slice()), (1, 2, [ID].as_slice()));
    }
    confirm(&mut world, stores[0], 2);
    confirm(&mut world, stores[0], 2);
    assert!(world.state.view(|view| view.condemned(stores[0], 9)).unwrap().is_empty());
    assert_eq!(known(&world), 1);
    confirm(&mut world, stores[1], 2);
    assert_eq!((known(&world), world.state.view(|view| view.condemned_waiting()).unwrap().len()), (0, 0));
    let collection = world.state.view(|view| view.collection()).unwrap();
    assert_eq!((collection.epoch, collection.drop_floor), (2, 2));
    assert_eq!(world.write(ino, 0, chunk(1, 1), 10), Err(FsError::PutAgain { epoch: 2 }));
    world.write(ino, 0, chunk(1, 2), 10).unwrap();
}

#[test]
fn a_reference_revives_what_is_only_releasable() {
    let (mut world, ino, _) = with_garbage();
    world.write(ino, 0, chunk(1, 0), 10).unwrap();
    assert_eq!(condemn(&mut world), (2, 0));
    assert_eq!(world.apply(Command::Condemn { chunks: vec![ID] }), Outcome::Condemned { epoch: 3, chunks: 0 });
}

#[test]
fn a_condemned_chunk_is_revived_by_a_later_put_alone() {
    let (mut world, ino, stores) = with_garbage();
    condemn(&mut world);
    let ops = vec![create(ROOT, "g", NewNode::File, 0), write(ino, WriteAt::End, chunk(1, 1), 10)];
    assert_eq!(world.batch(ops), BatchReply::Failed { index: 1, error: FsError::PutAgain { epoch: 2 } });
    assert_eq!(world.lookup(ROOT, "g"), None, "the whole command is refused");
    world.write(ino, 0, chunk(1, 2), 10).unwrap();
    world.write(ino, CHUNK, chunk(1, 0), 10).unwrap();
    stores.into_iter().for_each(|store| confirm(&mut world, store, 2));
    assert_eq!(known(&world), 1, "revived chunks survive their batch");
}

#[test]
fn a_chunk_condemned_again_belongs_to_the_later_batch() {
    let (mut world, ino, stores) = with_garbage();
    condemn(&mut world);
    world.write(ino, 0, chunk(1, 2), 10).unwrap();
    world.set(ino, SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    assert_eq!(condemn(&mut world), (3, 1));
    stores.into_iter().for_each(|store| confirm(&mut world, store, 2));
    assert_eq!(known(&world), 1);
    assert_eq!(world.write(ino, 0, chunk(1, 2), 10), Err(FsError::PutAgain { epoch: 3 }));
    stores.into_iter().for_each(|store| confirm(&mut world, store, 3));
    assert_eq!(known(&world), 0);
}

#[test]
fn releasable_chunks_age_by_epoch() {
    let (mut world, ino, _) = with_garbage();
    let releasable = |world: &World, before| world.state.view(|view| view.releasable(before, 9)).unwrap();
    assert!(releasable(&world, 1).is_empty());
    assert_eq!(world.apply(Command::Condemn { chunks: Vec::new() }), Outcome::Condemned { epoch: 2, chunks: 0 });
    world.write(ino, 0, chunk(2, 2), 10).unwrap();
    world.set(ino, SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    assert_eq!(releasable(&world, 2), [ID]);
    assert_eq!(releasable(&world, 3).len(), 2);
}

#[test]
fn without_stores_nobody_has_to_confirm() {
    let mut world = World::new();
    let ino = world.file("f");
    world.write(ino, 0, chunk(1, 1), 10).unwrap();
    world.unlink(ROOT, "f").unwrap();
    world.reap(&[ino]);
    assert_eq!(condemn(&mut world), (2, 1));
    assert_eq!(known(&world), 0);
}

#[test]
fn shared_chunks_are_counted_across_files() {
    let mut world = World::new();
    for i in 0..3 {
        let ino = world.file(&format!("f{i}"));
        world.write(ino, 0, chunk(1, 1), 10).unwrap();
    }
    let totals = world.state.view(|view| view.chunk_totals()).unwrap();
    assert_eq!((totals.chunks, totals.chunk_bytes, totals.shared_references), (1, CHUNK, 2));
}

/// Condemns chunks by name.
fn condemn_these(world: &mut World, chunks: Vec<ChunkId>) -> u64 {
    match world.apply(Command::Condemn { chunks }) {
        Outcome::Condemned { chunks, .. } => chunks,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_nothing_ever_referred_to_goes_as_well() {
    let mut world = World::new();
    let stores = [store(&mut world, 1), store(&mut world, 2)];
    let ino = world.file("f");
    assert_eq!(condemn_these(&mut world, vec![ID, ID]), 1);
    let batches = world.state.view(|view| view.condemned(stores[0], 9)).unwrap();
    assert_eq!((batches[0].epoch, batches[0].chunks.as_slice()), (2, [ID].as_slice()));
    assert!(world.state.view(|view| view.is_chunk_known(&ID)).unwrap(), "it is not condemned twice");
    assert_eq!(condemn_these(&mut world, vec![ID]), 0);
    // The writer was only slow: a store may have deleted its bytes already, another not yet.
    assert_eq!(world.write(ino, 0, chunk(1, 1), 10), Err(FsError::PutAgain { epoch: 3 }));
    confirm(&mut world, stores[0], 2);
    assert_eq!(world.write(ino, 0, chunk(1, 1), 10), Err(FsError::PutAgain { epoch: 3 }));
    assert_eq!(known(&world), 0, "it is in no total");
    confirm(&mut world, stores[1], 2);
    assert!(!world.state.view(|view| view.is_chunk_known(&ID)).unwrap());
    // And when nobody remembers it the floor does.
    assert_eq!(world.write(ino, 0, chunk(1, 1), 10), Err(FsError::PutAgain { epoch: 3 }));
    world.write(ino, 0, chunk(1, 2), 10).unwrap();
    assert_eq!(known(&world), 1);
}

#[test]
fn a_stray_that_was_put_again_survives_its_batch() {
    let mut world = World::new();
    let stores = [store(&mut world, 1), store(&mut world, 2)];
    let ino = world.file("f");
    assert_eq!(condemn_these(&mut world, vec![ID]), 1);
    let nothing = Source::Chunk(ChunkPart { id: ID, chunk_bytes: 0, offset: 0, put_epoch: 2 });
    assert_eq!(world.write(ino, 0, nothing, 10), Err(FsError::Invalid));
    world.write(ino, 0, chunk(1, 2), 10).unwrap();
    assert_eq!(known(&world), 1);
    assert_eq!(condemn_these(&mut world, vec![ID]), 0, "it is referred to");
    stores.into_iter().for_each(|store| confirm(&mut world, store, 2));
    assert_eq!(known(&world), 1);
    world.set(ino, SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    assert_eq!(condemn(&mut world).1, 1);
    stores.into_iter().for_each(|store| confirm(&mut world, store, 4));
    assert_eq!(known(&world), 0);
}
