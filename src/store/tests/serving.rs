//! The door: who may what, and what a malformed call gets.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::host::space::filesystem_id;
use crate::net::{Call, Frame, Peer, Replier, Service};
use crate::store::Store;
use crate::store::serve::StoreService;
use crate::store::testing::{chunk, config, lost_indexes, open, parts};
use crate::types::digest::ChunkId;
use crate::types::record::Role;
use crate::wire::codec::{KIND_META, KIND_STORE, decode, encode};
use crate::wire::store::{PutChunk, StoreError, StoreReply, StoreRequest};

async fn ask(store: &Arc<Store>, role: Option<Role>, request: &StoreRequest, bulk: Bytes) -> (StoreReply, Bytes) {
    send(store, role, Frame { kind: KIND_STORE, message: encode(request).into(), bulk }).await
}

async fn send(store: &Arc<Store>, role: Option<Role>, request: Frame) -> (StoreReply, Bytes) {
    send_as(store, role.map(|role| Peer::new(role, 1)), request).await
}

async fn send_as(store: &Arc<Store>, peer: Option<Peer>, request: Frame) -> (StoreReply, Bytes) {
    let (frames, mut answers) = mpsc::channel(1);
    StoreService::new(Arc::clone(store)).serve(Call { peer, request, replier: Replier::new(frames) }).await;
    let frame = answers.recv().await.unwrap();
    (decode(&frame.message).unwrap(), frame.bulk)
}

fn put_of(chunks: &[(ChunkId, u32)]) -> StoreRequest {
    let chunks = chunks.iter().map(|(id, bytes)| PutChunk { id: *id, bytes: *bytes }).collect();
    StoreRequest::Put { epoch: 3, chunks }
}

#[tokio::test]
async fn calls_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path(), &lost_indexes()));
    let (a, b) = (chunk(1, 5000), chunk(2, 90_000));
    let bulk = Bytes::from([&a.payload()[..], &b.payload()[..]].concat());
    let put = put_of(&[(a.id(), 5000), (b.id(), 90_000)]);
    assert_eq!(ask(&store, Some(Role::Client), &put, bulk).await.0, StoreReply::Put);
    let get = StoreRequest::Get { id: b.id(), offset: 80_000, len: 5000 };
    let (reply, bytes) = ask(&store, Some(Role::Store), &get, Bytes::new()).await;
    assert_eq!((reply, bytes), (StoreReply::Data { chunk_bytes: 90_000 }, b.payload().slice(80_000..85_000)));
    let has = StoreRequest::Has { ids: vec![a.id(), ChunkId([0; 32])] };
    assert_eq!(ask(&store, Some(Role::Admin), &has, Bytes::new()).await.0, StoreReply::Has(vec![true, false]));
    let summary = StoreRequest::SlotSummary { slot: a.id().slot() };
    let (reply, _) = ask(&store, Some(Role::Store), &summary, Bytes::new()).await;
    assert_eq!(reply, StoreReply::Summary { chunks: 1, xor: a.id().0 });
    let list = StoreRequest::ListSlot { slot: a.id().slot(), after: None };
    let (reply, _) = ask(&store, Some(Role::Store), &list, Bytes::new()).await;
    assert_eq!(reply, StoreReply::Slot { ids: vec![(a.id(), 3)], end: true });
    let list = StoreRequest::ListSlot { slot: a.id().slot(), after: Some(a.id()) };
    let (reply, _) = ask(&store, Some(Role::Store), &list, Bytes::new()).await;
    assert_eq!(reply, StoreReply::Slot { ids: vec![], end: true });
    store.close();
}

#[tokio::test]
async fn roles_decide() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path(), &lost_indexes()));
    let a = chunk(1, 10);
    let get = StoreRequest::Get { id: a.id(), offset: 0, len: 10 };
    let put = put_of(&[(a.id(), 10)]);
    let refused = StoreReply::Error(StoreError::NotAllowed);
    for role in [None, Some(Role::Meta)] {
        assert_eq!(ask(&store, role, &put, a.payload().clone()).await.0, refused);
    }
    assert_eq!(ask(&store, None, &get, Bytes::new()).await.0, refused);
    for role in [Role::Meta, Role::Store, Role::Client, Role::Admin] {
        let (reply, _) = ask(&store, Some(role), &get, Bytes::new()).await;
        assert_eq!(reply, StoreReply::Error(StoreError::NotFound));
    }
    // What there is, in whichever volume, is no client's to know.
    let slot = a.id().slot();
    for request in [StoreRequest::SlotSummary { slot }, StoreRequest::ListSlot { slot, after: None }] {
        assert_eq!(ask(&store, Some(Role::Client), &request, Bytes::new()).await.0, refused);
        assert_ne!(ask(&store, Some(Role::Store), &request, Bytes::new()).await.0, refused);
    }
    // Whose certificate says that it may only read brings nothing, and reads.
    let reader = Some(Peer { reads_only: true, ..Peer::new(Role::Client, 1) });
    let bring =
        |message: &StoreRequest| Frame { kind: KIND_STORE, message: encode(message).into(), bulk: a.payload().clone() };
    assert_eq!(send_as(&store, reader, bring(&put)).await.0, refused);
    let read = send_as(&store, reader, Frame { bulk: Bytes::new(), ..bring(&get) }).await.0;
    assert_eq!(read, StoreReply::Error(StoreError::NotFound));
    for role in [Role::Store, Role::Client] {
        assert_eq!(ask(&store, Some(role), &put, a.payload().clone()).await.0, StoreReply::Put);
    }
    store.close();
}

#[tokio::test]
async fn bad_calls_are_refused_and_store_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path(), &lost_indexes()));
    let (a, big) = (chunk(1, 10), chunk(2, 50_000));
    let client = Some(Role::Client);
    let bad = [
        (put_of(&[(a.id(), 11)]), a.payload().clone(), StoreError::Invalid),
        (put_of(&[(a.id(), 9)]), a.payload().clone(), StoreError::Invalid),
        (put_of(&[(a.id(), u32::MAX), (a.id(), u32::MAX)]), a.payload().clone(), StoreError::Invalid),
        (put_of(&[(big.id(), 10)]), a.payload().clone(), StoreError::Mismatch),
        (put_of(&[(a.id(), 50_000)]), big.payload().clone(), StoreError::Mismatch),
        (put_of(&[(ChunkId::of(b""), 0)]), Bytes::new(), StoreError::Mismatch),
        (StoreRequest::Get { id: a.id(), offset: 0, len: u32::MAX }, Bytes::new(), StoreError::Invalid),
        (StoreRequest::Has { ids: vec![a.id(); 5000] }, Bytes::new(), StoreError::Invalid),
        (StoreRequest::Locate { ids: vec![a.id(); 5000] }, Bytes::new(), StoreError::Invalid),
    ];
    for (request, bulk, expected) in bad {
        assert_eq!(ask(&store, client, &request, bulk).await.0, StoreReply::Error(expected), "{request:?}");
    }
    let garbage = Frame { kind: KIND_STORE, message: Bytes::from_static(&[0xee; 40]), bulk: Bytes::new() };
    assert_eq!(send(&store, client, garbage).await.0, StoreReply::Error(StoreError::Invalid));
    let foreign = StoreRequest::Has { ids: vec![] };
    let foreign = Frame { kind: KIND_META, message: encode(&foreign).into(), bulk: Bytes::new() };
    assert_eq!(send(&store, client, foreign).await.0, StoreReply::Error(StoreError::Invalid));
    assert_eq!(store.reports()[0].chunks, 0);
    store.close();
}

#[tokio::test]
async fn a_report_tells_which_filesystem_a_disk_is_on() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Store::open(config(1, &[dirs[0].path(), dirs[1].path()]), &parts(lost_indexes())).unwrap();
    let filesystem = filesystem_id(dirs[0].path()).unwrap();
    assert_eq!(store.reports().iter().map(|disk| disk.filesystem).collect::<Vec<_>>(), [filesystem; 2]);
    store.close();
}
