//! Frees inodes that have no name and are open nowhere, and the trees of deleted volumes.

use std::sync::Arc;

use crate::meta::command::{Command, Outcome};
use crate::meta::leader::{Leader, key};
use crate::meta::serve::{Fail, Shared};
use crate::types::id::{Ino, TreeId};

/// Orphans looked at in one go, and freed by one command.
const PAGE: usize = 256;

pub async fn round(shared: Arc<Shared>, leader: Arc<Leader>) -> Result<(), Fail> {
    // Before all sessions have reclaimed, what is open is not known.
    if !leader.is_settled() {
        return Ok(());
    }
    let mut after = None;
    loop {
        let page = shared.read(|view| view.orphans(after, PAGE)).await?;
        let Some(last) = page.last().copied() else { break };
        for same_tree in page.chunk_by(|a, b| a.0 == b.0) {
            reap(&shared, &leader, same_tree).await?;
        }
        after = Some(last);
    }
    for tree in shared.read(|view| view.dead_trees()).await? {
        while let Outcome::TreeReaped { done: false } = shared.propose(&Command::ReapTree { tree }).await? {}
    }
    Ok(())
}

async fn reap(shared: &Shared, leader: &Leader, orphans: &[(TreeId, Ino)]) -> Result<(), Fail> {
    let Some((tree, _)) = orphans.first().copied() else { return Ok(()) };
    let free: Vec<Ino> = orphans.iter().map(|(_, ino)| *ino).filter(|ino| leader.begin_reap(key(tree, *ino))).collect();
    let reaped = reap_all(shared, tree, free.clone()).await;
    for ino in free {
        leader.end_reap(key(tree, ino));
    }
    reaped
}

async fn reap_all(shared: &Shared, tree: TreeId, mut inos: Vec<Ino>) -> Result<(), Fail> {
    while !inos.is_empty() {
        inos = match shared.propose(&Command::Reap { tree, inos }).await? {
            Outcome::Reaped { left } => left,
            _ => return Ok(()),
        };
    }
    Ok(())
}
