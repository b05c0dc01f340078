//! Condemns chunks that nothing refers to any more, after a grace of some collection epochs, and those that stores offer
//! and nothing has ever referred to.
//!
//! Correct without any grace (see the decision on garbage collection): the grace only spares the chunks that come back
//! soon, and readers that still hold an extent list of a moment ago. Two rounds, the grace, are at least five seconds.

use std::sync::Arc;

use crate::meta::command::Command;
use crate::meta::leader::Leader;
use crate::meta::serve::{Fail, Shared};
use crate::meta::strays::old_before;

/// Chunks condemned at once.
const CONDEMN_MAX: usize = 4096;
/// While the stores are behind with so many batches, no more is condemned.
const BATCHES_MAX: usize = 8;

pub async fn round(shared: Arc<Shared>, _leader: Arc<Leader>) -> Result<(), Fail> {
    let (epoch, behind, old, any) = shared
        .read(|view| {
            let epoch = view.collection()?.epoch;
            Ok((
                epoch,
                view.condemned_batches()?,
                view.releasable(old_before(epoch), CONDEMN_MAX)?,
                !view.releasable(epoch + 1, 1)?.is_empty(),
            ))
        })
        .await?;
    if behind >= BATCHES_MAX {
        return Ok(());
    }
    let strays = shared.strays.take(CONDEMN_MAX - old.len());
    if !any && !strays.aging && strays.chunks.is_empty() {
        return Ok(());
    }
    tracing::debug!(epoch, chunks = old.len(), strays = strays.chunks.len(), "collecting");
    // With nothing old enough the epoch alone goes on, so that what is releasable, or in no file yet, ages.
    let chunks = old.into_iter().chain(strays.chunks).collect();
    shared.propose(&Command::Condemn { chunks }).await?;
    Ok(())
}
