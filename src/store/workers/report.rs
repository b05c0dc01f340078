//! Reporting to the metadata leader: who this store is, what its disks look like, which orders it has carried out, now
//! and then a page of old chunks; and taking new orders from the replies.
//!
//! A batch of deletions is confirmed when it is durable on every usable disk, again and again until a reply to a
//! heartbeat shows that the leader has heard it. Carrying one out twice does nothing the second time.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::store::Store;
use crate::types::cluster::StoreInfo;
use crate::types::error::FsError;
use crate::wire::meta::{DeleteBatch, MetaBody, MetaRequest, StoreOrders};

use super::offer::Offering;
use super::{MetaLink, WorkerOptions};

pub struct Reporter {
    store: Arc<Store>,
    meta: Arc<dyn MetaLink>,
    options: WorkerOptions,
    /// What the leader was last told.
    registered: Option<StoreInfo>,
    /// The newest map the leader has spoken of.
    newest_map: u64,
    /// Batches being carried out.
    deleting: JoinSet<Done>,
    in_hand: BTreeSet<u64>,
    /// Carried out, and the leader may not know.
    confirmed: BTreeSet<u64>,
    offering: Offering,
}

impl Reporter {
    pub fn new(store: Arc<Store>, meta: Arc<dyn MetaLink>, options: WorkerOptions) -> Reporter {
        Reporter {
            offering: Offering::new(Arc::clone(&store), &options),
            store,
            meta,
            options,
            registered: None,
            newest_map: 0,
            deleting: JoinSet::new(),
            in_hand: BTreeSet::new(),
            confirmed: BTreeSet::new(),
        }
    }

    pub async fn run(mut self) {
        let mut ticks = interval(self.options.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.beat().await {
                tracing::debug!(%error, "the metadata service was not told");
                // It may have forgotten us, or be another one.
                self.registered = None;
            }
        }
    }

    /// One heartbeat, with what must precede it.
    async fn beat(&mut self) -> Result<(), FsError> {
        self.register().await?;
        self.reap();
        let confirmed: Vec<u64> = self.confirmed.iter().copied().collect();
        let request = MetaRequest::StoreHeartbeat {
            store: self.store.config().store,
            map_epoch: self.store.table().borrow().epoch(),
            disks: self.store.reports(),
            confirmed: confirmed.clone(),
        };
        let MetaBody::StoreOrders(orders) = self.call(request).await? else { return Err(FsError::Invalid) };
        self.confirmed.retain(|epoch| !confirmed.contains(epoch));
        let old_before = orders.old_before;
        self.obey(orders);
        self.update_map().await?;
        self.offer(old_before).await
    }

    /// Offers a page of what may be garbage, when it is time for one.
    async fn offer(&mut self, old_before: u64) -> Result<(), FsError> {
        let Some(mut page) = self.offering.page(old_before).await else { return Ok(()) };
        if !page.old.is_empty() || page.aging {
            let (store, chunks) = (self.store.config().store, std::mem::take(&mut page.old));
            self.call(MetaRequest::OfferChunks { store, chunks, aging: page.aging }).await?;
        }
        self.offering.turn(&page);
        Ok(())
    }

    /// Announces this store when it is new to the leader, or its disks are not what they were.
    async fn register(&mut self) -> Result<(), FsError> {
        let info = self.store.info();
        if self.registered.as_ref() == Some(&info) {
            return Ok(());
        }
        match self.call(MetaRequest::RegisterStore { info: info.clone() }).await? {
            MetaBody::StoreRegistered(_) => {
                tracing::info!(store = %info.id, address = info.address, disks = info.disks.len(), "registered");
                self.registered = Some(info);
                Ok(())
            }
            _ => Err(FsError::Invalid),
        }
    }

    fn obey(&mut self, orders: StoreOrders) {
        self.newest_map = self.newest_map.max(orders.map_epoch);
        for batch in orders.delete {
            if self.in_hand.insert(batch.epoch) {
                self.deleting.spawn(delete(Arc::clone(&self.store), batch));
            }
        }
    }

    /// Collects the batches that are done.
    fn reap(&mut self) {
        while let Some(done) = self.deleting.try_join_next() {
            if let Ok(done) = done {
                self.in_hand.remove(&done.epoch);
                self.confirmed.extend(done.carried_out.then_some(done.epoch));
            }
        }
    }

    async fn update_map(&mut self) -> Result<(), FsError> {
        if self.store.table().borrow().epoch() >= self.newest_map {
            return Ok(());
        }
        let MetaBody::Map(map) = self.call(MetaRequest::GetMap).await? else { return Err(FsError::Invalid) };
        tracing::info!(epoch = map.epoch, stores = map.stores.len(), "new cluster map");
        self.store.learn(map);
        Ok(())
    }

    async fn call(&self, request: MetaRequest) -> Result<MetaBody, FsError> {
        match self.meta.call(request).await?.body {
            MetaBody::Error(error) => Err(error),
            MetaBody::Refused(why) => {
                tracing::warn!(why, "the metadata service refused this store");
                Err(FsError::NotPermitted)
            }
            body => Ok(body),
        }
    }
}

/// How a batch of deletions ended.
struct Done {
    epoch: u64,
    carried_out: bool,
}

async fn delete(store: Arc<Store>, batch: DeleteBatch) -> Done {
    let result = store.delete(&batch.chunks, batch.epoch).await;
    match &result {
        Ok(deleted) => tracing::debug!(epoch = batch.epoch, deleted, "chunks deleted"),
        // Ordered again, and then the disk that failed is not asked.
        Err(error) => tracing::warn!(epoch = batch.epoch, %error, "an order to delete was not carried out"),
    }
    Done { epoch: batch.epoch, carried_out: result.is_ok() }
}
