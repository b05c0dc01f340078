//! Condemns chunks that nothing refers to any more, after a grace of some collection epochs.
//!
//! Correct without any grace (see the decision on garbage collection): the grace only spares the chunks that come back
//! soon, and readers that still hold an extent list of a moment ago.

use std::sync::Arc;

use crate::meta::command::Command;
use crate::meta::leader::Leader;
use crate::meta::serve::{Fail, Shared};
use crate::types::digest::ChunkId;

/// A chunk without references is condemned this many epochs after it became so: two rounds are at least five seconds.
const GRACE_EPOCHS: u64 = 2;
/// Chunks condemned at once.
const CONDEMN_MAX: usize = 4096;
/// While the stores are behind with so many batches, no more is condemned.
const BATCHES_MAX: usize = 8;

pub async fn round(shared: Arc<Shared>, _leader: Arc<Leader>) -> Result<(), Fail> {
    let (epoch, behind, old, any) = shared
        .read(|view| {
            let epoch = view.collection()?.epoch;
            let before = (epoch + 1).saturating_sub(GRACE_EPOCHS);
            Ok((
                epoch,
                view.condemned_batches()?,
                view.releasable(before, CONDEMN_MAX)?,
                !view.releasable(epoch + 1, 1)?.is_empty(),
            ))
        })
        .await?;
    if !any || behind >= BATCHES_MAX {
        return Ok(());
    }
    // With nothing old enough the epoch alone goes on, so that what is releasable ages.
    let chunks: Vec<ChunkId> = old;
    tracing::debug!(epoch, chunks = chunks.len(), "collecting");
    shared.propose(&Command::Condemn { chunks }).await?;
    Ok(())
}
