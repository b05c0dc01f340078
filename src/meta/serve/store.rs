//! Stores: registration, heartbeats, and the orders that ride on the replies.

use super::{Fail, Shared, plain, unexpected};
use crate::meta::command::{Command, Outcome};
use crate::meta::strays::old_before;
use crate::net::Peer;
use crate::types::cluster::{DiskReport, StoreInfo};
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::id::StoreId;
use crate::types::limits::OFFER_CHUNKS_MAX;
use crate::types::record::Role;
use crate::wire::meta::{MetaBody, MetaReply, StoreOrders};

/// Batches of deletions in one reply.
const DELETE_BATCHES_MAX: usize = 4;

impl Shared {
    pub(super) async fn register_store(&self, peer: Peer, mut info: StoreInfo) -> Result<MetaReply, Fail> {
        self.lead()?;
        if peer.role != Role::Store {
            return Err(FsError::AccessDenied.into());
        }
        info.id = StoreId(peer.id);
        match self.propose(&Command::RegisterStore { info }).await? {
            Outcome::Store { id, .. } => Ok(plain(MetaBody::StoreRegistered(id))),
            other => Err(unexpected(other)),
        }
    }

    pub(super) async fn store_heartbeat(
        &self,
        peer: Peer,
        store: StoreId,
        disks: Vec<DiskReport>,
        confirmed: Vec<u64>,
    ) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        if peer.role != Role::Store || peer.id != store.0 {
            return Err(FsError::AccessDenied.into());
        }
        leader.stores.record(store, disks);
        if !confirmed.is_empty() {
            self.propose(&Command::ConfirmDelete { store, epochs: confirmed }).await?;
        }
        let orders = self
            .read(|view| {
                Ok(StoreOrders {
                    map_epoch: view.map()?.epoch,
                    delete: view.condemned(store, DELETE_BATCHES_MAX)?,
                    old_before: old_before(view.collection()?.epoch),
                })
            })
            .await?;
        Ok(plain(MetaBody::StoreOrders(orders)))
    }

    /// Takes note of those of a store's chunks that nothing refers to, for the next round of collecting.
    pub(super) async fn offer_chunks(
        &self,
        peer: Peer,
        store: StoreId,
        mut chunks: Vec<ChunkId>,
        aging: bool,
    ) -> Result<MetaReply, Fail> {
        self.lead()?;
        if peer.role != Role::Store || peer.id != store.0 {
            return Err(FsError::AccessDenied.into());
        }
        chunks.truncate(OFFER_CHUNKS_MAX);
        let unknown = self
            .read(|view| {
                let mut unknown = Vec::new();
                for id in chunks {
                    if !view.is_chunk_known(&id)? {
                        unknown.push(id);
                    }
                }
                Ok(unknown)
            })
            .await?;
        if !unknown.is_empty() {
            tracing::debug!(%store, chunks = unknown.len(), "a store keeps chunks that nothing refers to");
        }
        self.strays.offer(unknown, aging);
        Ok(plain(MetaBody::Done))
    }
}
