//! Following the cluster map: the placement table by which a client finds its stores.
//!
//! The table follows the cluster map and is never long behind. Nothing depends on its being the newest: readers ask the
//! holders of an older map as well, and stores move what a new map moves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::cli::failure::{Failure, Outcome};
use crate::placement::Table;
use crate::remote::meta::{MetaBody, MetaClient, MetaRequest};
use crate::remote::operator::OperatorError;
use crate::types::cluster::ClusterMap;

/// How far behind a map may be.
const PERIOD: Duration = Duration::from_secs(1);

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

/// The map as of now.
///
/// # Errors
/// No metadata server answers within `patience`, or they refuse us.
pub async fn fetch(meta: &MetaClient, patience: Duration) -> Outcome<ClusterMap> {
    let answered = meta.call(&MetaRequest::GetMap, Some(patience)).await.map_err(Failure::new)?;
    match answered.reply.body {
        MetaBody::Map(map) => Ok(map),
        MetaBody::Refused(why) => Err(Failure::new(why)),
        MetaBody::Error(error) => Err(Failure::new(format!("the cluster refused: {error}"))),
        _ => Err(OperatorError::Misfit.into()),
    }
}
