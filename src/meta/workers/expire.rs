//! Expires sessions that are silent for their time to live, that owe an answer to a recall, or that do not reclaim.

use std::sync::Arc;

use crate::meta::command::Command;
use crate::meta::leader::Leader;
use crate::meta::serve::{Fail, Shared};

pub async fn round(shared: Arc<Shared>, leader: Arc<Leader>) -> Result<(), Fail> {
    for session in leader.overdue() {
        tracing::warn!(
            session = session.0,
            "the client has not been heard of, has not answered or has not reclaimed for too long; its session expires"
        );
        // Its leases are given away only when the command that fences it is applied.
        shared.propose(&Command::ExpireSession { session }).await?;
        leader.drop_session(session);
    }
    Ok(())
}
