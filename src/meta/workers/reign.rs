//! Taking and leaving the lead.

use std::sync::Arc;
use std::time::Duration;

use crate::meta::leader::Leader;
use crate::meta::serve::{Fail, Shared};

/// Follows the Raft leadership: a new term of ours gets a new [`Leader`], made when everything committed before is
/// applied; another's term deposes it.
pub async fn reign(shared: Arc<Shared>) {
    let mut leadership = shared.raft.leadership();
    loop {
        let (term, am_leader) = {
            let now = leadership.borrow_and_update();
            (now.term, now.am_leader)
        };
        let held = shared.leader.borrow().clone();
        if let Some(held) = held.filter(|held| !am_leader || held.term != term) {
            shared.leader.send_replace(None);
            held.depose();
        }
        if am_leader && shared.leader.borrow().is_none() {
            match take_over(&shared, term).await {
                Ok(leader) => {
                    shared.leader.send_replace(Some(Arc::new(leader)));
                    tracing::info!(term, "leading");
                }
                Err(error) => {
                    tracing::debug!(?error, term, "not ready to lead yet");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            }
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

async fn take_over(shared: &Shared, term: u64) -> Result<Leader, Fail> {
    let sessions = shared.read(|view| view.sessions()).await?;
    Ok(Leader::new(term, sessions.into_iter().map(|session| (session.id, session.tree))))
}
