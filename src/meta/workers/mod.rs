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

/// Starts all of them; they end with `workers`.
pub(super) fn start(shared: &Arc<Shared>, workers: &Workers, data_dir: std::path::PathBuf) {
    let shared = || Arc::clone(shared);
    spawn(workers, "reign", reign::reign(shared()));
    spawn(workers, "expire", rounds(shared(), Duration::from_millis(500), expire::round));
    spawn(workers, "reap", rounds(shared(), Duration::from_millis(500), reap::round));
    spawn(workers, "collect", rounds(shared(), Duration::from_secs(5), collect::round));
    spawn(workers, "grow", rounds(shared(), Duration::from_millis(500), grow::round));
    spawn(workers, "space", space::watch(shared(), data_dir));
}

/// A worker that may be stopped anywhere: what it does is in the log or not.
fn spawn(workers: &Workers, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    workers.spawn(name, |shutdown| async move {
        tokio::select! {
            () = task => {}
            () = shutdown.wait() => {}
        }
    });
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
