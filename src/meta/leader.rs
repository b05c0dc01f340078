//! What a leader knows and nobody else: sessions and stores it hears from, leases, and who waits for whom.
//!
//! One [`Leader`] lives for one term. It starts from the replicated list of sessions, none of which has reclaimed yet;
//! until each has (or was expired) nothing is granted and nothing is changed that could conflict: requests wait in
//! [`Leader::settled`]. It never proposes commands and never reads the clock of the wall: `serve` and `workers` do.
//!
//! Order of a change: names are locked, [`Leader::begin_change`] recalls and waits, the command is proposed and applied, the
//! guard ends the change. Order of a read: [`Leader::before_read`], the lease is granted, then the state is read.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::lease::{Begun, Key, LeaseTable, Recall};
use super::names::NameLocks;
use super::promises::Promises;
use super::stores::StoreReports;
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::limits::{LEASE_QUIET_MS, SESSION_TTL_MS};
use crate::types::session::{Claim, Event, Hold, Lease, Shown, Vitals};

/// A client that answers heartbeats but not a recall holds everybody up: after this long it is expired,
const RECALL_PATIENCE: Duration = Duration::from_secs(12);
/// and after this long when it has had something stored within the last [`RECALL_PATIENCE`]: it is to lose nothing because it has much
/// to store, or a slow way to the stores.
const RECALL_PATIENCE_MAX: Duration = Duration::from_secs(60);
/// Who does not give back within this what somebody else is only likely to change is not waited for.
const LIKELY_PATIENCE: Duration = Duration::from_millis(50);
/// Looking for garbage takes longer the more there is, and every client may ask.
const FREEING_KEPT: Duration = Duration::from_millis(500);
/// Everybody waits for the sessions that have not reclaimed: after this many times to live from a leader's start such a
/// session is expired, however often its heart beats.
const RECLAIM_TTLS: u32 = 2;

pub struct Leader {
    pub term: u64,
    pub names: NameLocks,
    pub stores: StoreReports,
    pub promises: Promises,
    /// Whether space is about to come back, and when that was looked at.
    freeing: Mutex<Option<(Instant, bool)>>,
    started: Instant,
    leases: Mutex<LeaseTable>,
    sessions: Mutex<HashMap<SessionId, Live>>,
    /// Counts what waiters wait for: yields, ended sessions.
    progress: watch::Sender<u64>,
    /// Counts changes of file locks.
    unlocked: watch::Sender<u64>,
    settled: watch::Sender<bool>,
    /// Set when this server does not lead any more: everything that waits gives up.
    deposed: watch::Sender<bool>,
}

/// What is known of a live session, for people to look at.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub silence: Duration,
    pub memory_bytes: u64,
}

/// A session that is alive as far as this leader knows.
struct Live {
    tree: TreeId,
    heard: Instant,
    /// The last heartbeat that was confirmed: the client counts its life from there.
    confirmed: Instant,
    vitals: Vitals,
    /// When something of it was stored last, as far as is known.
    progressed: Instant,
    /// Did not answer a recall in time, or another host gets its volume.
    overdue: bool,
    reclaimed: bool,
    events: Option<mpsc::UnboundedSender<Event>>,
}

impl Live {
    fn new(tree: TreeId, now: Instant, reclaimed: bool) -> Live {
        Live {
            tree,
            heard: now,
            confirmed: now,
            vitals: Vitals::default(),
            progressed: now,
            overdue: false,
            reclaimed,
            events: None,
        }
    }
}

impl Leader {
    pub fn new(term: u64, sessions: impl IntoIterator<Item = (SessionId, TreeId)>) -> Leader {
        let now = Instant::now();
        let sessions: HashMap<_, _> =
            sessions.into_iter().map(|(id, tree)| (id, Live::new(tree, now, false))).collect();
        Leader {
            term,
            names: NameLocks::default(),
            stores: StoreReports::default(),
            promises: Promises::default(),
            freeing: Mutex::default(),
            started: now,
            leases: Mutex::new(LeaseTable::new(term)),
            settled: watch::Sender::new(sessions.is_empty()),
            sessions: Mutex::new(sessions),
            progress: watch::Sender::new(0),
            unlocked: watch::Sender::new(0),
            deposed: watch::Sender::new(false),
        }
    }

    /// Another term has begun.
    pub fn depose(&self) {
        self.deposed.send_replace(true);
        for live in self.sessions.lock().values_mut() {
            live.events = None;
        }
    }

    /// Returns when this leader leads no more.
    pub async fn deposed(&self) {
        let _ = self.deposed.subscribe().wait_for(|deposed| *deposed).await;
    }

    /// How long it has led.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn is_settled(&self) -> bool {
        *self.settled.borrow()
    }

    /// Every session of the time before has reclaimed or is gone.
    ///
    /// # Errors
    /// `Unreachable` when deposed first: the caller says "not the leader".
    pub async fn settled(&self) -> Result<(), FsError> {
        if self.is_settled() {
            return Ok(());
        }
        let mut settled = self.settled.subscribe();
        tokio::select! {
            _ = settled.wait_for(|settled| *settled) => Ok(()),
            () = self.deposed() => Err(FsError::Unreachable),
        }
    }

    // Sessions.

    pub fn add_session(&self, session: SessionId, tree: TreeId) {
        self.sessions.lock().insert(session, Live::new(tree, Instant::now(), true));
    }

    /// A sign of life. Gives back the session's tree.
    ///
    /// # Errors
    /// `SessionExpired` for a session that is not there (any more).
    pub fn heard(&self, session: SessionId) -> Result<TreeId, FsError> {
        let mut sessions = self.sessions.lock();
        let live = sessions.get_mut(&session).ok_or(FsError::SessionExpired)?;
        live.heard = Instant::now();
        Ok(live.tree)
    }

    /// The tree of a live session.
    ///
    /// # Errors
    /// `SessionExpired` for a session that is not there (any more).
    pub fn tree_of(&self, session: SessionId) -> Result<TreeId, FsError> {
        self.sessions.lock().get(&session).map(|live| live.tree).ok_or(FsError::SessionExpired)
    }

    /// A heartbeat, and what the session says of its memory. One that is to be expired is told so, and lives no longer than
    /// it was told before.
    ///
    /// # Errors
    /// `SessionExpired`: it is not there (any more), owes an answer, or has not reclaimed.
    pub fn confirm(&self, session: SessionId, vitals: Vitals) -> Result<(), FsError> {
        self.heard(session)?;
        let mut sessions = self.sessions.lock();
        let live = sessions.get_mut(&session).filter(|live| !self.is_condemned(live)).ok_or(FsError::SessionExpired)?;
        live.confirmed = Instant::now();
        if vitals.stored_bytes > live.vitals.stored_bytes {
            live.progressed = live.confirmed;
        }
        live.vitals = vitals;
        Ok(())
    }

    /// A change of this session was applied.
    pub fn progressed(&self, session: SessionId) {
        if let Some(live) = self.sessions.lock().get_mut(&session) {
            live.progressed = Instant::now();
        }
    }

    fn is_condemned(&self, live: &Live) -> bool {
        let late = self.started.elapsed() > Duration::from_millis(SESSION_TTL_MS).saturating_mul(RECLAIM_TTLS);
        live.overdue || (late && !live.reclaimed)
    }

    /// This session is to end: it hears so with its next heartbeat, or does not live longer than it was told before.
    pub fn condemn(&self, session: SessionId) {
        if let Some(live) = self.sessions.lock().get_mut(&session) {
            live.overdue = true;
        }
    }

    /// When each session was heard of, and what it said.
    pub fn told(&self) -> Vec<(SessionId, Told)> {
        let told = |live: &Live| Told { silence: live.heard.elapsed(), memory_bytes: live.vitals.memory_bytes };
        self.sessions.lock().iter().map(|(id, live)| (*id, told(live))).collect()
    }

    /// Sessions to expire, which by now know it themselves: silent for longer than their time to live; or without a
    /// confirmed heartbeat for so long, because they do not answer a recall, or were heard of and had not reclaimed all when
    /// `RECLAIM_TTLS` had passed.
    pub fn overdue(&self) -> Vec<SessionId> {
        let ttl = Duration::from_millis(SESSION_TTL_MS);
        let overdue =
            |live: &Live| live.heard.elapsed() > ttl || (self.is_condemned(live) && live.confirmed.elapsed() > ttl);
        self.sessions.lock().iter().filter(|(_, live)| overdue(live)).map(|(id, _)| *id).collect()
    }

    /// A session is over (closed or expired, the command is applied).
    pub fn drop_session(&self, session: SessionId) {
        let gone = self.sessions.lock().remove(&session);
        self.leases.lock().drop_session(session, self.now_ms());
        self.advance();
        self.locks_changed();
        gone.into_iter().for_each(|live| self.promises.changed(live.tree, Instant::now()));
        self.settle();
    }

    /// Where to tell a session things from now on; recalls that may have been lost with an earlier stream are told
    /// again.
    ///
    /// # Errors
    /// `SessionExpired` for a session that is not there (any more).
    pub fn subscribe(&self, session: SessionId) -> Result<mpsc::UnboundedReceiver<Event>, FsError> {
        let (events, receiver) = mpsc::unbounded_channel();
        let mut sessions = self.sessions.lock();
        let live = sessions.get_mut(&session).ok_or(FsError::SessionExpired)?;
        live.heard = Instant::now();
        let _ = events.send(Event::Hello { term: self.term });
        for event in self.leases.lock().pending_recalls(session) {
            let _ = events.send(event);
        }
        live.events = Some(events);
        Ok(receiver)
    }

    /// Takes over a piece of what a session held under the leader before. It has reclaimed with the last piece. Once
    /// only per term: a repeated call adds nothing that conflicts.
    ///
    /// # Errors
    /// `SessionExpired` for a session that is not there (any more).
    pub fn reclaim(&self, session: SessionId, claims: &[Claim], done: bool) -> Result<Vec<Claim>, FsError> {
        let tree = self.heard(session)?;
        let reclaim = |leases: &mut LeaseTable| {
            claims.iter().map(|claim| leases.reclaim(session, (tree, claim.ino), claim.hold)).collect()
        };
        let granted = self.with_live(session, reclaim).ok_or(FsError::SessionExpired)?;
        // A piece that is told again is granted anew: what was asked of it goes by the new grant.
        let pending = {
            let leases = self.leases.lock();
            claims.iter().filter_map(|claim| leases.pending_on(session, (tree, claim.ino))).collect::<Vec<_>>()
        };
        self.send(pending.into_iter().map(|event| Recall { session, event }).collect());
        if done {
            if let Some(live) = self.sessions.lock().get_mut(&session) {
                live.reclaimed = true;
            }
            self.settle();
        }
        Ok(granted)
    }

    /// What a session holds on inodes after this one, at most so many, in their order.
    ///
    /// # Errors
    /// `SessionExpired` for a session that is not there (any more).
    pub fn holdings(&self, session: SessionId, after: Ino, max: usize) -> Result<Vec<Claim>, FsError> {
        self.with_live(session, |leases| leases.holdings(session, after, max)).ok_or(FsError::SessionExpired)
    }

    // Leases.

    /// As much of `want` as can be had at once.
    pub fn grant(&self, session: SessionId, key: Key, want: Hold) -> Option<Claim> {
        if !self.is_settled() {
            return None;
        }
        self.with_live(session, |leases| leases.grant(session, key, want, self.now_ms()))?
    }

    /// Works on the leases of a session that is live and stays so meanwhile: one that was dropped while its request waited must
    /// not be given anything any more, as nobody would ever take it back.
    fn with_live<R>(&self, session: SessionId, work: impl FnOnce(&mut LeaseTable) -> R) -> Option<R> {
        let sessions = self.sessions.lock();
        sessions.contains_key(&session).then(|| work(&mut self.leases.lock()))
    }

    /// The same, but `open` is had for certain (unless the inode is being freed): an answer that the session still owes is waited
    /// for.
    ///
    /// # Errors
    /// `Unreachable` when deposed.
    pub async fn acquire(&self, session: SessionId, key: Key, want: Hold) -> Result<Option<Claim>, FsError> {
        if !want.open {
            return Ok(self.grant(session, key, want));
        }
        loop {
            let granted = self.with_live(session, |leases| match leases.owes(session, key) {
                true => Err(leases.end_looks(session, key)),
                false => Ok(leases.grant(session, key, want, self.now_ms())),
            });
            match granted {
                None => return Ok(None),
                Some(Ok(granted)) => return Ok(granted),
                Some(Err(recalls)) => self.send(recalls),
            }
            self.wait_until(SessionId(0), &[key], None, |leases| !leases.owes(session, key)).await?;
        }
    }

    /// Leases on those of these inodes that no other session may have changed; as much of `want` as can be had at once.
    pub fn grant_clear(&self, session: SessionId, tree: TreeId, inos: &[Ino], want: Hold) -> Vec<Option<Claim>> {
        let now_ms = self.now_ms();
        let granted = self.with_live(session, |leases| {
            let grant = |ino: &Ino| {
                let key = (tree, *ino);
                let clear = leases.is_unowned(session, key);
                let claim = clear.then(|| leases.grant(session, key, want, now_ms)).flatten();
                claim.filter(|claim| claim.hold.lease > Lease::None)
            };
            inos.iter().map(grant).collect()
        });
        granted.unwrap_or_else(|| vec![None; inos.len()])
    }

    /// Those of these inodes on which the session holds a lease.
    pub fn leased(&self, session: SessionId, tree: TreeId, inos: &[Ino]) -> Vec<Ino> {
        let leases = self.leases.lock();
        inos.iter().copied().filter(|ino| leases.lease_of(session, (tree, *ino)) > Lease::None).collect()
    }

    /// One of `changed` on which the session has no Write lease, or of `read` on which it has none.
    pub fn lacking(&self, session: SessionId, changed: &[Key], read: &[Key]) -> Option<Key> {
        let leases = self.leases.lock();
        let has = |key: &Key, lease| leases.lease_of(session, *key) >= lease;
        let changed = changed.iter().find(|key| !has(key, Lease::Write));
        changed.or_else(|| read.iter().find(|key| !has(key, Lease::Read))).copied()
    }

    /// Notes Write and open holds on inodes that the session is about to make, or may have made. Gives back what is held on
    /// each, and whether that is new.
    pub fn grant_made(&self, session: SessionId, keys: &[Key]) -> Vec<(Claim, bool)> {
        let grant = |leases: &mut LeaseTable| keys.iter().map(|key| leases.grant_made(session, *key)).collect();
        self.with_live(session, grant).unwrap_or_default()
    }

    /// What a session holds on these, where it holds something.
    pub fn held(&self, session: SessionId, keys: &[Key]) -> Vec<Claim> {
        let leases = self.leases.lock();
        keys.iter().filter_map(|key| leases.held(session, *key)).collect()
    }

    /// Undoes a grant whose reply is not sent, or (`keep_open`) sent without the lease. Gives back what is held now.
    pub fn take_back(&self, session: SessionId, key: Key, claim: Claim, keep_open: bool) -> Hold {
        let hold = self.leases.lock().take_back(session, key, claim.grant, keep_open, self.now_ms());
        self.advance();
        hold
    }

    /// What a session keeps of what it held, and what it has shipped and keeps.
    ///
    /// # Errors
    /// `SessionExpired` for a session that is not there (any more).
    pub fn yielded(&self, session: SessionId, claims: &[Claim], shown: &[Shown]) -> Result<(), FsError> {
        let tree = self.heard(session)?;
        let now_ms = self.now_ms();
        let mut leases = self.leases.lock();
        for claim in claims {
            leases.yield_claim(session, (tree, claim.ino), *claim, now_ms);
        }
        for shown in shown {
            leases.shown(session, (tree, shown.ino), shown.look);
        }
        drop(leases);
        self.advance();
        Ok(())
    }

    /// Tells sessions to give back what they do not need of quotas.
    pub fn ask_to_spare(&self, sessions: &[SessionId]) {
        let spare = |session: &SessionId| Recall { session: *session, event: Event::Spare };
        self.send(sessions.iter().map(spare).collect());
    }

    /// What another session did to this inode before is shipped when this returns.
    ///
    /// # Errors
    /// `Unreachable` when deposed.
    pub async fn before_read(&self, session: SessionId, key: Key) -> Result<(), FsError> {
        let (look, looks) = self.leases.lock().begin_read(session, key);
        self.send(looks);
        self.wait_until(session, &[key], Some(look), |leases| leases.clear_for_read(session, key, look)).await
    }

    /// The same, and no other session has a Write lease on it when this returns. Whoever gets one right after has what the caller
    /// does then before it, by the lock of a name.
    ///
    /// # Errors
    /// `Unreachable` when deposed.
    pub async fn take_down(&self, session: SessionId, key: Key) -> Result<(), FsError> {
        loop {
            let recalls = {
                let mut leases = self.leases.lock();
                if leases.is_unowned(session, key) {
                    return Ok(());
                }
                leases.begin_take_down(session, key)
            };
            self.send(recalls);
            // Another may have taken it by then.
            self.wait_until(session, &[key], None, |leases| leases.has_answers(session, &[key])).await?;
        }
    }

    /// Recalls the leases of others on `keys`; when this returns they are all given up. Dropping the guard ends the
    /// change.
    ///
    /// # Errors
    /// `Unreachable` when deposed.
    pub async fn begin_change(&self, session: SessionId, keys: Vec<Key>) -> Result<ChangeGuard<'_>, FsError> {
        let Begun { recalls, others_had } = self.leases.lock().begin_change(session, &keys);
        let guard = ChangeGuard { leader: self, session, keys, others_had };
        self.send(recalls);
        self.wait_until(session, &guard.keys, None, |leases| leases.clear_for_change(session, &guard.keys)).await?;
        Ok(guard)
    }

    /// Recalls whatever others have on those of `keys` that do not rest; when this returns it is given up.
    ///
    /// # Errors
    /// `Unreachable` when deposed.
    pub async fn begin_take(&self, session: SessionId, keys: Vec<Key>) -> Result<Taking<'_>, FsError> {
        let (keys, recalls) = self.leases.lock().begin_take(session, keys, self.now_ms(), LEASE_QUIET_MS);
        let taking = Taking { leader: self, session, keys };
        self.send(recalls);
        // The first is needed, the others are likely to be; so is whoever has them to answer, and not worth a wait if not.
        let (first, rest) = taking.keys.split_at(taking.keys.len().min(1));
        self.wait_until(session, first, None, |leases| leases.has_answers(session, first)).await?;
        let rest = self.wait_until(session, rest, None, |leases| leases.has_answers(session, rest));
        timeout(LIKELY_PATIENCE, rest).await.unwrap_or(Ok(()))?;
        Ok(taking)
    }

    /// Whether space is about to come back, if that was looked at a moment ago.
    pub fn freeing(&self) -> Option<bool> {
        self.freeing.lock().filter(|(when, _)| when.elapsed() < FREEING_KEPT).map(|(_, freeing)| freeing)
    }

    /// It was looked at.
    pub fn note_freeing(&self, freeing: bool) {
        *self.freeing.lock() = Some((Instant::now(), freeing));
    }

    /// Somebody has a lease on it, or has it open.
    pub fn is_held(&self, key: Key) -> bool {
        self.leases.lock().is_held(key)
    }

    pub fn begin_reap(&self, key: Key) -> bool {
        self.leases.lock().begin_reap(key)
    }

    pub fn end_reap(&self, key: Key) {
        self.leases.lock().end_reap(key, self.now_ms());
    }

    // File locks.

    /// Some file lock was let go.
    pub fn locks_changed(&self) {
        self.unlocked.send_modify(|count| *count += 1);
    }

    pub fn watch_locks(&self) -> watch::Receiver<u64> {
        self.unlocked.subscribe()
    }

    async fn wait_until(
        &self,
        session: SessionId,
        keys: &[Key],
        look: Option<u64>,
        clear: impl Fn(&LeaseTable) -> bool,
    ) -> Result<(), FsError> {
        let mut progress = self.progress.subscribe();
        let begun = Instant::now();
        let mut deadline = begun + RECALL_PATIENCE;
        loop {
            if clear(&self.leases.lock()) {
                return Ok(());
            }
            tokio::select! {
                waited = timeout_at(deadline, progress.changed()) => if waited.is_err() {
                    self.mark_overdue(session, keys, look, begun.elapsed());
                    deadline = Instant::now() + RECALL_PATIENCE;
                },
                () = self.deposed() => return Err(FsError::Unreachable),
            }
        }
    }

    /// Whoever still owes an answer on these is to be expired, unless it gets on.
    fn mark_overdue(&self, session: SessionId, keys: &[Key], look: Option<u64>, waited: Duration) {
        let gets_on = |live: &Live| waited < RECALL_PATIENCE_MAX && live.progressed.elapsed() < RECALL_PATIENCE;
        let debtors = self.leases.lock().debtors(session, keys, look);
        let mut sessions = self.sessions.lock();
        for debtor in debtors {
            if let Some(live) = sessions.get_mut(&debtor).filter(|live| !gets_on(live)) {
                tracing::warn!(
                    session = debtor.0,
                    "a client does not answer a recall or a look; its session will be expired"
                );
                live.overdue = true;
            }
        }
    }

    fn send(&self, recalls: Vec<Recall>) {
        if recalls.is_empty() {
            return;
        }
        let sessions = self.sessions.lock();
        for recall in recalls {
            // Without a stream the recall is pending in the table and told when the session subscribes.
            if let Some(events) = sessions.get(&recall.session).and_then(|live| live.events.as_ref()) {
                let _ = events.send(recall.event);
            }
        }
    }

    fn settle(&self) {
        if !self.is_settled() && self.sessions.lock().values().all(|live| live.reclaimed) {
            tracing::info!(term = self.term, "every session has reclaimed its leases");
            self.settled.send_replace(true);
        }
    }

    fn advance(&self) {
        self.progress.send_modify(|count| *count += 1);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A change under way. Nothing is granted on its inodes while it lives.
pub struct ChangeGuard<'a> {
    leader: &'a Leader,
    session: SessionId,
    keys: Vec<Key>,
    others_had: Lease,
}

impl ChangeGuard<'_> {
    pub fn covers(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }
}

impl Drop for ChangeGuard<'_> {
    fn drop(&mut self) {
        let now_ms = self.leader.now_ms();
        let mut leases = self.leader.leases.lock();
        leases.end_change(self.session, &self.keys, self.others_had, now_ms, LEASE_QUIET_MS);
    }
}

/// A take under way. Nothing is granted on its inodes while it lives; dropped, it is given up.
pub struct Taking<'a> {
    leader: &'a Leader,
    session: SessionId,
    keys: Vec<Key>,
}

impl Taking<'_> {
    /// Write leases on what is to be had: of those that want the same at the same time the last one to end gets it, and where a change is
    /// under way nobody does.
    pub fn grant(mut self) -> Vec<Claim> {
        let keys = std::mem::take(&mut self.keys);
        let now_ms = self.leader.now_ms();
        let granted = self.leader.with_live(self.session, |leases| leases.end_take(self.session, &keys, true, now_ms));
        if granted.is_none() {
            self.keys = keys;
        }
        granted.unwrap_or_default()
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let now_ms = self.leader.now_ms();
        self.leader.leases.lock().end_take(self.session, &self.keys, false, now_ms);
    }
}

/// A key of the lease table.
pub fn key(tree: TreeId, ino: Ino) -> Key {
    (tree, ino)
}

#[cfg(test)]
mod tests;
