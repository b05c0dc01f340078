//! A client's way to the stores: their stub behind the client's seam, and the placement table it goes by.
//!
//! The table follows the cluster map and is never long behind. Nothing depends on its being the newest: readers ask the
//! holders of an older map as well, and stores move what a new map moves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::cli::failure::{Failure, Outcome};
use crate::client::chunks::ChunkStore;
use crate::placement::Table;
use crate::remote::meta::{MetaBody, MetaClient, MetaRequest};
use crate::remote::store::StoreClient;
use crate::types::cluster::ClusterMap;
use crate::types::digest::ChunkId;
use crate::types::error::FsError;

/// How far behind a map may be.
const PERIOD: Duration = Duration::from_secs(1);

/// The stores as the client's engine wants them.
pub struct Chunks(pub StoreClient);

impl ChunkStore for Chunks {
    fn put<'a>(&'a self, chunks: &'a [(ChunkId, Bytes)], epoch: u64, copies: u8) -> BoxFuture<'a, Result<(), FsError>> {
        Box::pin(self.0.put(chunks, epoch, copies))
    }

    fn get(&self, id: ChunkId, offset: u32, len: u32, whole_bytes: u32) -> BoxFuture<'_, Result<Bytes, FsError>> {
        Box::pin(self.0.get(id, offset, len, whole_bytes))
    }
}

/// The placement table as of now, and the task that keeps it so. Inside a runtime.
///
/// # Errors
/// No metadata server answers within `patience`, or they refuse us.
pub async fn follow(
    meta: &Arc<MetaClient>,
    patience: Duration,
) -> Outcome<(watch::Receiver<Arc<Table>>, JoinHandle<()>)> {
    let map = fetch(meta, patience).await?;
    let (tables, table) = watch::channel(Arc::new(Table::new(map)));
    let meta = Arc::clone(meta);
    let task = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !tables.is_closed() {
            ticks.tick().await;
            // A cluster that is away changes no map.
            let Ok(map) = fetch(&meta, PERIOD).await else { continue };
            tables.send_if_modified(|table| {
                let newer = map.epoch > table.epoch();
                if newer {
                    *table = Arc::new(Table::new(map));
                }
                newer
            });
        }
    });
    Ok((table, task))
}

async fn fetch(meta: &MetaClient, patience: Duration) -> Outcome<ClusterMap> {
    let answered = meta.call(&MetaRequest::GetMap, Some(patience)).await.map_err(Failure::new)?;
    match answered.reply.body {
        MetaBody::Map(map) => Ok(map),
        MetaBody::Refused(why) => Err(Failure::new(why)),
        MetaBody::Error(error) => Err(Failure::new(format!("the cluster refused: {error}"))),
        _ => Err(super::operator::misfit()),
    }
}
