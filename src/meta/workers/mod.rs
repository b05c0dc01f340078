//! What a leader does unasked: expire silent sessions, free what has no name or no reference, grow the group.
//!
//! Each is a loop over the replicated state; nothing is remembered between rounds, so a new leader simply goes on.

mod collect;
mod expire;
mod grow;
mod reap;
mod reign;
mod space;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::leader::Leader;
use super::serve::{Fail, Shared};
use crate::daemon::worker::Workers;

pub(super) use reign::reign;

/// Starts all of them; they end with `workers`.
pub(super) fn start(shared: &Arc<Shared>, workers: &Workers, data_dir: std::path::PathBuf) {
    let shared = || Arc::clone(shared);
    workers.spawn("reign", reign(shared()));
    workers.spawn("expire", rounds(shared(), Duration::from_millis(500), expire::round));
    workers.spawn("reap", rounds(shared(), Duration::from_millis(500), reap::round));
    workers.spawn("collect", rounds(shared(), Duration::from_secs(5), collect::round));
    workers.spawn("grow", rounds(shared(), Duration::from_millis(500), grow::round));
    workers.spawn("space", space::watch(shared(), data_dir));
}

/// Calls `round` at every tick while this server leads. A round that fails is tried again at the next.
async fn rounds<R>(shared: Arc<Shared>, every: Duration, round: impl Fn(Arc<Shared>, Arc<Leader>) -> R)
where
    R: Future<Output = Result<(), Fail>>,
{
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(leader) = shared.lead() else { continue };
        if let Err(error) = round(Arc::clone(&shared), leader).await {
            tracing::debug!(?error, "a background round was cut short");
        }
    }
}
