//! Makes servers that have joined members of the Raft group.

use std::sync::Arc;

use crate::meta::leader::Leader;
use crate::meta::serve::{Fail, Shared};

pub async fn round(shared: Arc<Shared>, _leader: Arc<Leader>) -> Result<(), Fail> {
    let known = shared.read(|view| view.metas()).await?;
    let members = shared.raft.members();
    for info in known {
        let voter = members.iter().any(|(member, voter, _)| *voter && *member == info);
        if !voter {
            tracing::info!(meta = info.id.0, address = info.address, "adding a metadata server");
            shared.raft.add_member(info).await?;
        }
    }
    Ok(())
}
