//! Keeping the session: heartbeats, the stream of events, reclaiming after a change of leader, and starting anew when the
//! session has expired.
//!
//! Three tasks: one beats, one listens, one watches the session's life run out. Whoever is told that the session has
//! expired wakes the first, which replaces it; there is one replacement at a time and everybody waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::core::Core;
use super::inode::{Asked, Node};
use super::journal::Change;
use super::lent::VOID_AFTER;
use crate::remote::meta::{CallError, Events};
use crate::remote::session::MetaSession;
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::limits::{RECLAIM_CLAIMS_MAX, SESSION_HEARTBEAT_MS};
use crate::types::session::{Claim, Event, Hold, Lease};

const HOLD_TRIES: u32 = 1_000;
const RETRY: Duration = Duration::from_millis(50);
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Starts the tasks that keep the session; they end when the client stops.
pub fn start(core: &Arc<Core>, term: u64) {
    let (terms, _) = watch::channel(term);
    let terms = Arc::new(terms);
    until_stopped(core, beat(core.clone(), terms.clone()));
    until_stopped(core, listen(core.clone(), terms));
    until_stopped(core, watch_life(core.clone()));
}

/// Runs a task of the client until it stops.
pub fn until_stopped(core: &Arc<Core>, task: impl Future<Output = ()> + Send + 'static) {
    let mut stopping = core.stopping.subscribe();
    core.runtime.spawn(async move {
        tokio::select! {
            () = task => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    });
}

/// Heartbeats; and the replacement of a session that has expired.
async fn beat(core: Arc<Core>, terms: Arc<watch::Sender<u64>>) {
    let period = Duration::from_millis(SESSION_HEARTBEAT_MS);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = core.expired.notified() => {}
        }
        let session = core.session();
        match session.heartbeat(period, core.vitals()).await {
            Ok((reply, sent)) => {
                core.life.confirm(sent);
                core.clock.set(reply.now_ns);
                core.epoch.fetch_max(reply.collection_epoch, Ordering::AcqRel);
                terms.send_if_modified(|term| {
                    let newer = reply.term > *term;
                    *term = (*term).max(reply.term);
                    newer
                });
                let space = core.clone();
                core.runtime.spawn(async move { space.refresh_space().await });
            }
            Err(FsError::SessionExpired) => replace(&core, &session).await,
            Err(error) => tracing::debug!(%error, "heartbeat not answered"),
        }
    }
}

/// The stream of events, reopened whenever it breaks or the leader changes.
async fn listen(core: Arc<Core>, terms: Arc<watch::Sender<u64>>) {
    let mut claimed = (core.session().id(), *terms.borrow());
    let mut newer = terms.subscribe();
    let mut renewals = core.renewals();
    loop {
        newer.mark_unchanged();
        renewals.mark_unchanged();
        let session = core.session();
        let Ok(mut events) = session.subscribe().await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let standing = (session.id(), events.term());
        if claimed.0 != session.id() {
            claimed = (session.id(), core.opened_term.load(Ordering::Acquire));
        }
        if claimed != standing {
            if !reclaim(&core, &session, events.term()).await {
                continue;
            }
            claimed = standing;
            terms.send_if_modified(|term| {
                *term = (*term).max(events.term());
                false
            });
        }
        tokio::select! {
            () = follow(&core, &mut events) => tracing::debug!("the stream of events ended"),
            _ = newer.changed() => {}
            _ = renewals.changed() => {}
        }
    }
}

async fn follow(core: &Arc<Core>, events: &mut Events) {
    while let Some(event) = events.next().await {
        match event {
            Event::Hello { .. } => {}
            Event::Recall { ino, keep, grant } => core.recalled(ino, keep, grant),
            Event::Look { ino, grant, look } => core.looked_at(ino, grant, look),
            Event::Spare => core.spare(),
        }
    }
}

/// Tells a new leader what is held, in pieces that fit a message. `false`: it did not take it; the stream is to be
/// opened again.
async fn reclaim(core: &Arc<Core>, session: &Arc<MetaSession>, term: u64) -> bool {
    core.lending.outlast_earlier().await;
    let era = core.next_era();
    let mut claims = Vec::new();
    for node in core.nodes.all() {
        let hold = {
            let mut state = node.lock();
            let is_open = state.opens > 0;
            state.held.reclaim(is_open)
        };
        claims.extend(hold.map(|hold| Claim { ino: node.ino, hold, grant: 0 }));
    }
    tracing::info!(term, held = claims.len(), "a new leader: reclaiming");
    loop {
        let rest = claims.split_off(claims.len().min(RECLAIM_CLAIMS_MAX));
        let last = rest.is_empty();
        let answer = session.reclaim(term, claims, last).await;
        core.install(era, answer.granted);
        match answer.result {
            Ok(()) if last => {
                core.config.kept.iter().for_each(|kept| kept.is_known_to(term));
                return true;
            }
            Ok(()) => claims = rest,
            Err(FsError::SessionExpired) => {
                core.renewed(session).await;
                return false;
            }
            Err(error) => {
                tracing::warn!(%error, "the leader did not take what was reclaimed");
                tokio::time::sleep(RETRY).await;
                return false;
            }
        }
    }
}

/// Drops what the kernel holds when the session's life has run out: everything else asks for its life before use.
async fn watch_life(core: Arc<Core>) {
    loop {
        core.life.ended().await;
        tracing::warn!("the cluster is not heard of: leases are not used until it is");
        drop_kernel_pages(&core).await;
        while !core.life.alive() {
            tokio::time::sleep(RETRY).await;
        }
        tracing::info!("the cluster is heard of again");
    }
}

async fn drop_kernel_pages(core: &Arc<Core>) {
    for node in core.nodes.all() {
        let drop_them = {
            let mut state = node.lock();
            // Of what it has gathered itself nobody has heard.
            state.uncovered |= std::mem::take(&mut state.pages) || core.is_exclusive();
            state.uncovered
        };
        if drop_them {
            // Not waited for: a page that waits for the cluster must not hold up the rest.
            let (core, node) = (core.clone(), node.clone());
            core.runtime.clone().spawn(async move { core.drop_uncovered(&node).await });
        }
    }
}

/// The session has expired: everything held is gone. Opens another and takes up the open files under it.
async fn replace(core: &Arc<Core>, expired: &Arc<MetaSession>) {
    core.life.end();
    core.next_era();
    let lost = lose_everything(core);
    tracing::error!(session = %expired.id(), lost, "the session has expired; unsynced writes are lost");
    drop_kernel_pages(core).await;
    close_soon(core, expired.clone());
    if core.is_exclusive() && (lost > 0 || core.has_lost()) {
        core.end_for_good("what the kernel keeps of it is not what is stored");
        return drop_kernel_pages(core).await;
    }
    let (volume, name, after) = (&core.config.volume, &core.config.name, Some(expired.id()));
    loop {
        let opening = MetaSession::open(core.meta.clone(), volume, name, core.config.read_only, after, None);
        match opening.await {
            Ok((session, opened, _)) if !core.volume.is_like(&opened.volume) => {
                core.end_for_good("it is another volume by now, or one of another kind");
                close_soon(core, Arc::new(session));
                return drop_kernel_pages(core).await;
            }
            Ok((session, opened, sent)) => {
                core.epoch.fetch_max(opened.heartbeat.collection_epoch, Ordering::AcqRel);
                core.clock.set(opened.heartbeat.now_ns);
                core.opened_term.store(opened.heartbeat.term, Ordering::Release);
                core.renew(session, opened.heartbeat.term);
                core.life.confirm(sent);
                break;
            }
            Err(CallError::TakenOver) => {
                core.end_for_good("another host has taken it over");
                // What was written back in vain is still there, and clean.
                return drop_kernel_pages(core).await;
            }
            Err(error) => {
                tracing::warn!(%error, "no new session yet");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    let core = core.clone();
    core.runtime.clone().spawn(async move { take_up_open_files(&core).await });
}

/// The leader may wait for the end of a session that it has condemned. Nothing is held under it any more; what was lent to the
/// kernel is void a moment later.
fn close_soon(core: &Arc<Core>, expired: Arc<MetaSession>) {
    core.runtime.spawn(async move {
        tokio::time::sleep(VOID_AFTER).await;
        if let Err(error) = expired.close(CLOSE_PATIENCE).await {
            tracing::debug!(%error, "the expired session was not closed; it ends by itself");
        }
    });
}

/// Returns of how many files and names something is lost.
fn lose_everything(core: &Arc<Core>) -> usize {
    let mut lost = 0;
    let held = core.hold_notes();
    core.dirty.lock().clear();
    core.numbers.lose();
    core.quota.lose();
    let records = core.journal.lose();
    for record in &records {
        if let Change::Data(data) = &record.change {
            core.lose_sealed(data);
        }
    }
    core.files.lose(&core.locks.lose());
    for node in core.nodes.all() {
        let bytes = node.lock().outlive();
        core.memory.give(bytes);
        lost += usize::from(bytes > 0);
        node.moved.notify_waiters();
    }
    let lost = lost + records.len();
    if lost > 0 {
        core.journal.note_failure();
    }
    core.note_debts();
    drop((records, held));
    // Not before: who waited for these looks at what failed.
    core.journal.end_loss();
    lost
}

/// Has the leader know of open files that it is to know of.
pub async fn take_up_open_files(core: &Arc<Core>) {
    for node in core.nodes.all() {
        if !node.lock().wants_open() {
            continue;
        }
        if core.hold_open(node.ino, Lease::Read).await == Err(FsError::Stale) {
            node.lock().stale = true;
        }
    }
}

impl Core {
    /// Gets the open hold of an inode from the leader.
    ///
    /// # Errors
    /// `Stale` when the inode is gone.
    pub async fn hold_open(&self, ino: Ino, lease: Lease) -> Result<(), FsError> {
        let node = self.nodes.node(ino);
        self.shipped(&node).await;
        // A grant is void when its own recall has overtaken it; then it is asked for again.
        for _ in 0..HOLD_TRIES {
            let asked = self.nodes.asked();
            let want = Hold { open: true, lease: node.lock().want(lease) };
            let result = if lease == Lease::Read && node.is_known_file() {
                self.open_for_reading(&node, asked, want).await
            } else {
                let told = self.ask(|session| async move { session.getattr(ino, want).await }).await;
                told.result.clone().map(|attr| {
                    self.keep_attr(asked, &told, attr);
                })
            };
            match result {
                Ok(()) => {}
                Err(FsError::NotFound) => return Err(FsError::Stale),
                Err(error) => return Err(error),
            }
            if node.lock().may_open(&self.life) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tracing::warn!(%ino, "an open hold was never granted");
        Err(FsError::Io)
    }

    /// Who opens a file to read it reads it next: the answer brings the extents of its first block, and inline data.
    async fn open_for_reading(&self, node: &Node, asked: Asked, want: Hold) -> Result<(), FsError> {
        let (ino, len) = (node.ino, self.block_bytes);
        let told = self.ask(|session| async move { session.extents(ino, 0, len, want).await }).await;
        let (attr, extents, covered) = told.result.as_ref().map_err(Clone::clone)?;
        {
            let mut state = node.lock();
            if state.accepts(asked, told.brought(ino)) {
                state.extents.learn(0, *covered, attr.size, extents);
            }
        }
        self.keep_attr(asked, &told, attr.clone());
        Ok(())
    }

    /// Asks how much space there is.
    pub async fn refresh_space(&self) {
        let asked = self.space.asked();
        if let Ok(report) = self.session().statfs().await.result {
            self.space.told(asked, report);
        }
    }
}
