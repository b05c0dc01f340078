//! Reporting to a pretended leader, and its orders.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{get, put};
use crate::net::BoxFuture;
use crate::store::Store;
use crate::store::testing::{Mesh, chunk, lost_indexes, open};
use crate::store::workers::{MetaLink, WorkerOptions, Workers};
use crate::types::cluster::{ClusterMap, DiskReport, StoreInfo};
use crate::types::error::FsError;
use crate::types::id::StoreId;
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
                MetaBody::StoreOrders(StoreOrders { map_epoch: state.map.epoch, delete: state.orders.clone() })
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
