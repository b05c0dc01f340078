//! Condemns chunks that nothing refers to any more, after a grace of some collection epochs, and those that stores offer
//! and nothing has ever referred to.
//!
//! Correct without any grace (see the decision on garbage collection): the grace only spares the chunks that come back
//! soon, and readers that still hold an extent list of a moment ago. From one round to the next are about five seconds.

use std::sync::Arc;

use crate::meta::command::Command;
use crate::meta::garbage::{CONDEMN_MAX, Pace};
use crate::meta::leader::Leader;
use crate::meta::serve::{Fail, Shared};
use crate::meta::strays::old_before;

pub async fn round(shared: Arc<Shared>, leader: Arc<Leader>) -> Result<(), Fail> {
    let (epoch, waiting) = shared.read(|view| Ok((view.collection()?.epoch, view.condemned_waiting()?))).await?;
    let mut pace = Pace::of(&waiting, |store| leader.stores.last(store).1);
    // What is let go of from here on is of an epoch that this round does not reach.
    let old = old_before(epoch);
    while condemn(&shared, old, pace).await? {
        pace = pace.next();
    }
    Ok(())
}

/// Condemns what is old enough, if that is worth a batch. `true`: there may be more.
async fn condemn(shared: &Shared, old_before: u64, pace: Pace) -> Result<bool, Fail> {
    let Some(least) = pace.least() else { return Ok(false) };
    let (mut chunks, any) = shared
        .read(|view| Ok((view.releasable(old_before, CONDEMN_MAX)?, !view.releasable(u64::MAX, 1)?.is_empty())))
        .await?;
    let strays = shared.strays.take(CONDEMN_MAX - chunks.len());
    let old = chunks.len();
    chunks.extend(strays.chunks);
    let worth = chunks.len() >= least;
    if !worth {
        shared.strays.offer(chunks.split_off(old), false);
        chunks.clear();
    }
    if !worth && !any && !strays.aging {
        return Ok(false);
    }
    // With too little that is old enough the epoch alone goes on, so that what is releasable, or in no file yet, ages.
    tracing::debug!(old_before, chunks = chunks.len(), "collecting");
    let more = chunks.len() >= CONDEMN_MAX;
    shared.propose(&Command::Condemn { chunks }).await?;
    Ok(more)
}
