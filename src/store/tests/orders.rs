//! Reporting to a pretended leader, and its orders.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{get, put};
use crate::net::BoxFuture;
use crate::pack::format::CheckedChunk;
use crate::store::Store;
use crate::store::pack::writer::Purpose;
use crate::store::testing::{Mesh, chunk, lost_indexes, open};
use crate::store::workers::{MetaLink, WorkerOptions, Workers};
use crate::types::cluster::{ClusterMap, DiskReport, StoreInfo};
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::id::StoreId;
use crate::types::limits::OFFER_CHUNKS_MAX;
use crate::wire::meta::{DeleteBatch, MetaBody, MetaReply, MetaRequest, StoreOrders};
use crate::wire::store::StoreError;

#[derive(Default)]
struct Leader {
    state: Mutex<LeaderState>,
    beaten: Notify,
}

#[derive(Default)]
struct LeaderState {
    away: bool,
    unheard: u64,
    map: ClusterMap,
    registrations: u64,
    reports: Vec<DiskReport>,
    known_epoch: u64,
    orders: Vec<DeleteBatch>,
    confirmed: Vec<u64>,
    old_before: u64,
    /// Pages offered, and whether the epoch was asked to go on.
    offered: Vec<(Vec<ChunkId>, bool)>,
}

impl Leader {
    fn answer(&self, request: MetaRequest) -> Result<MetaBody, FsError> {
        let mut state = self.state.lock();
        if state.away {
            state.unheard += 1;
            return Err(FsError::Unreachable);
        }
        Ok(match request {
            MetaRequest::RegisterStore { info } => {
                state.registrations += 1;
                state.register(info);
                MetaBody::StoreRegistered(StoreId(1))
            }
            MetaRequest::StoreHeartbeat { store, map_epoch, disks, confirmed } => {
                assert_eq!(store, StoreId(1));
                if state.map.stores.is_empty() {
                    return Ok(MetaBody::Error(FsError::NotFound));
                }
                state.reports = disks;
                state.known_epoch = map_epoch;
                state.orders.retain(|batch| !confirmed.contains(&batch.epoch));
                state.confirmed.extend(confirmed);
                MetaBody::StoreOrders(StoreOrders {
                    map_epoch: state.map.epoch,
                    delete: state.orders.clone(),
                    old_before: state.old_before,
                })
            }
            MetaRequest::OfferChunks { store, chunks, aging } => {
                assert!(store == StoreId(1) && chunks.len() <= OFFER_CHUNKS_MAX);
                state.offered.push((chunks, aging));
                MetaBody::Done
            }
            MetaRequest::GetMap => MetaBody::Map(state.map.clone()),
            other => panic!("a store does not ask {other:?}"),
        })
    }

    /// Waits until the leader's state is as described; heartbeats come every few milliseconds.
    async fn until(&self, what: &str, is: impl Fn(&LeaderState) -> bool) {
        let wait = async {
            loop {
                let beaten = self.beaten.notified();
                if is(&self.state.lock()) {
                    return;
                }
                beaten.await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "never: {what}");
    }
}

impl LeaderState {
    fn register(&mut self, info: StoreInfo) {
        if self.map.stores != [info.clone()] {
            self.map = ClusterMap { epoch: self.map.epoch + 1, stores: vec![info] };
        }
    }
}

impl MetaLink for Leader {
    fn call(&self, request: MetaRequest) -> BoxFuture<'_, Result<MetaReply, FsError>> {
        Box::pin(async move {
            let answer = self.answer(request);
            self.beaten.notify_waiters();
            Ok(MetaReply { body: answer?, granted: Vec::new() })
        })
    }
}

fn workers(store: &Arc<Store>, leader: &Arc<Leader>) -> Workers {
    let options = WorkerOptions { heartbeat: Duration::from_millis(2), ..WorkerOptions::default() };
    Workers::start(store, Arc::clone(leader) as Arc<dyn MetaLink>, Arc::new(Mesh::default()), options)
}

#[tokio::test]
async fn a_store_registers_reports_and_learns_the_map() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path(), &lost_indexes()));
    put(&store, &chunk(1, 1000), 1).await.unwrap();
    let leader = Arc::new(Leader::default());
    let workers = workers(&store, &leader);
    leader.until("the map is known", |state| state.known_epoch == 1).await;
    assert_eq!(leader.state.lock().reports[0].chunk_bytes, 1000);
    assert_eq!(store.table().borrow().map().stores, [store.info()]);
    leader.state.lock().map.epoch = 7;
    leader.until("the new map is known", |state| state.known_epoch == 7).await;
    // A leader that has forgotten everything is told again; so is one that was away.
    let registrations = leader.state.lock().registrations;
    leader.state.lock().map.stores.clear();
    leader.until("it is registered again", |state| state.registrations > registrations).await;
    leader.state.lock().away = true;
    leader.until("it was not heard", |state| state.unheard > 0).await;
    leader.state.lock().away = false;
    let registrations = leader.state.lock().registrations;
    leader.until("it is registered after an absence", |state| state.registrations > registrations).await;
    workers.stop().await;
    store.close();
}

#[tokio::test]
async fn orders_to_delete_are_carried_out_and_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path(), &lost_indexes()));
    let (old, new) = (chunk(1, 1000), chunk(2, 1000));
    put(&store, &old, 1).await.unwrap();
    put(&store, &new, 9).await.unwrap();
    let leader = Arc::new(Leader::default());
    let chunks = vec![old.id(), new.id()];
    leader.state.lock().orders =
        vec![DeleteBatch { epoch: 5, chunks: chunks.clone() }, DeleteBatch { epoch: 4, chunks }];
    let workers = workers(&store, &leader);
    leader.until("both are confirmed", |state| state.orders.is_empty()).await;
    assert_eq!(get(&store, &old), Err(StoreError::NotFound));
    assert_eq!(get(&store, &new).as_ref(), Ok(new.payload()));
    // What the leader has heard is not said again.
    let said = leader.state.lock().confirmed.len();
    leader.beaten.notified().await;
    leader.beaten.notified().await;
    let confirmed = leader.state.lock().confirmed.clone();
    assert_eq!(confirmed.len(), said);
    assert!(confirmed.contains(&4) && confirmed.contains(&5));
    workers.stop().await;
    store.close();
}

#[tokio::test]
async fn old_chunks_are_offered_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path(), &lost_indexes()));
    let old: Vec<_> = (0..OFFER_CHUNKS_MAX as u64 + 76).map(|seed| chunk(seed, 10)).collect();
    let young = chunk(1 << 20, 10);
    store.put(old.clone(), 4, Purpose::Write).await.unwrap();
    put(&store, &young, 5).await.unwrap();
    let leader = Arc::new(Leader::default());
    let pause = Duration::from_millis(20);
    let options = WorkerOptions {
        heartbeat: Duration::from_millis(2),
        offer: pause,
        offer_rest: pause,
        ..WorkerOptions::default()
    };
    let workers = Workers::start(&store, Arc::clone(&leader) as Arc<dyn MetaLink>, Arc::new(Mesh::default()), options);
    // Nothing is old yet, and the epoch is asked to go on.
    leader.until("aging is asked for", |state| state.offered.iter().any(|(_, aging)| *aging)).await;
    assert!(leader.state.lock().offered.iter().all(|(chunks, _)| chunks.is_empty()));
    // It has: two pages are a pass, and the first one after does not ask again.
    {
        let mut state = leader.state.lock();
        state.old_before = 5;
        state.offered.clear();
    }
    let passes = |state: &LeaderState| state.offered.iter().filter(|(chunks, _)| !chunks.is_empty()).count() / 2;
    leader.until("three passes", |state| passes(state) >= 3).await;
    let mut expected: Vec<ChunkId> = old.iter().map(CheckedChunk::id).collect();
    expected.sort();
    {
        let state = leader.state.lock();
        let pages: Vec<_> = state.offered.iter().filter(|(chunks, _)| !chunks.is_empty()).collect();
        // A pass that was under way when the epoch went on may have offered a part.
        let first = pages.iter().position(|(chunks, _)| chunks[0] == expected[0]).unwrap();
        assert_eq!([pages[first].0.clone(), pages[first + 1].0.clone()].concat(), expected);
        let ended = pages.iter().find(|(chunks, _)| chunks.contains(&expected[expected.len() - 1])).unwrap();
        assert!(!ended.1, "it has just gone on");
        assert!(state.offered.iter().any(|(_, aging)| *aging), "the young one has to age");
    }
    // Everything is old: nothing asks the epoch to go on any more.
    leader.state.lock().old_before = 6;
    let all = |state: &LeaderState| state.offered.iter().any(|(chunks, _)| chunks.contains(&young.id()));
    leader.until("the young one is offered", all).await;
    leader.state.lock().offered.clear();
    leader.until("two passes more", |state| passes(state) >= 3).await;
    assert!(leader.state.lock().offered.iter().skip(2).all(|(_, aging)| !aging));
    workers.stop().await;
    store.close();
}
