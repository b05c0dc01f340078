//! One session with the metadata service: typed calls, and the bookkeeping that makes changes happen exactly once.
//!
//! Every change has a sequence, given out in order and never used twice for different work. A change is retried under
//! its sequence until it is answered; the floor below which no reply is needed any more travels with each change. At
//! most [`IN_FLIGHT_MAX`] changes are under way at once.
//!
//! Knows no lease and caches nothing: what was granted is handed up with every answer.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::meta::{CallError, Events, MetaBody, MetaClient, MetaReply, MetaRequest};
use crate::types::attr::Attr;
use crate::types::error::FsError;
use crate::types::extent::Extent;
use crate::types::id::{Ino, SessionId};
use crate::types::limits::SESSION_TTL_MS;
use crate::types::lock::{Lock, LockRequest, OwnLock};
use crate::types::name::Name;
use crate::types::op::{BatchReply, Dated, Op};
use crate::types::record::SpaceReport;
use crate::types::session::{Claim, DirPage, DirPart, HeartbeatReply, Hold, SessionOpened, Shown, Vitals};

/// Changes under way at once: bounds the reply table of the session on the servers.
pub const IN_FLIGHT_MAX: usize = 256;
/// Flushes under way at once, beside those: a change may be parked at the leader until somebody's flush comes home.
pub const FLUSHES_IN_FLIGHT_MAX: usize = 64;

/// What a change is for, and so which bound it counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Change,
    Flush,
}

/// What came back, and what was granted with it (with errors too: a name that is not there can be cached).
#[derive(Debug)]
pub struct Answer<T> {
    pub result: Result<T, FsError>,
    pub granted: Vec<Claim>,
    /// The request may have been acted upon once already without our knowing the outcome.
    pub uncertain: bool,
}

/// A session and its place in the order of changes.
pub struct MetaSession {
    meta: Arc<MetaClient>,
    id: SessionId,
    patience: Option<Duration>,
    sequences: Mutex<Sequences>,
    uses: Option<Uses>,
    changes: Semaphore,
    flushes: Semaphore,
    /// No change is sent yet but again.
    is_held_back: AtomicBool,
}

/// Told of each sequence before it is used.
type Uses = Box<dyn Fn(u64) + Send + Sync>;

#[derive(Default)]
struct Sequences {
    last: u64,
    in_flight: BTreeSet<u64>,
}

/// A session that is not heard of ends within this, an election in between included.
const IN_USE_PATIENCE: Duration = Duration::from_millis(3 * SESSION_TTL_MS);
/// Until it is asked again for a volume that may be free soon.
const IN_USE_PAUSE: Duration = Duration::from_millis(500);

/// A sequence in use; given back when dropped.
pub struct Ticket {
    session: Arc<MetaSession>,
    sequence: u64,
    acknowledged: u64,
}

/// A change's place among those under way.
pub struct Turn<'a> {
    pub ticket: Arc<Ticket>,
    _slot: SemaphorePermit<'a>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("session", &self.session.id).field("sequence", &self.sequence).finish()
    }
}

impl Ticket {
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn session(&self) -> SessionId {
        self.session.id
    }

    /// How many sequences were given out after this one.
    pub fn behind(&self) -> u64 {
        self.session.sequences.lock().last - self.sequence
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.session.sequences.lock().in_flight.remove(&self.sequence);
    }
}

impl MetaSession {
    /// Opens a session on a volume. The instant is when the request was sent: the session's life counts from there. `after`: the
    /// expired session that this one goes on from. Who has a volume for one host and is not heard of, or is shut out of
    /// it, is waited for.
    ///
    /// # Errors
    /// Nobody answered, or we have no right to the volume. `TakenOver`: another host had it since `after`. `NoVolume`: it is not there.
    pub async fn open(
        meta: Arc<MetaClient>,
        volume: &str,
        client: &str,
        read_only: bool,
        after: Option<SessionId>,
        patience: Option<Duration>,
    ) -> Result<(MetaSession, SessionOpened, Instant), CallError> {
        let (volume_name, client) = (volume.into(), client.into());
        // Two with the same number would have one session.
        let attempt = getrandom::u64().map_err(|error| CallError::Refused(format!("no random numbers: {error}")))?;
        let request = MetaRequest::OpenSession { volume: volume_name, client, read_only, after, attempt };
        let begun = Instant::now();
        let in_use_patience = patience.map(|patience| patience.max(IN_USE_PATIENCE));
        let mut said = false;
        let answered = loop {
            let answered = meta.call(&request, patience).await?;
            let is_final = answered.reply.body != MetaBody::Error(FsError::InUse);
            if is_final || in_use_patience.is_some_and(|patience| begun.elapsed() >= patience) {
                break answered;
            }
            if !std::mem::replace(&mut said, true) {
                tracing::info!(volume, "waiting until the session of who had the volume ends");
            }
            tokio::time::sleep(IN_USE_PAUSE).await;
        };
        let opened = match answered.reply.body {
            MetaBody::Session(opened) => opened,
            MetaBody::Error(FsError::TakenOver) => return Err(CallError::TakenOver),
            MetaBody::Error(FsError::NotFound) => return Err(CallError::NoVolume(volume.into())),
            MetaBody::Error(error) => return Err(CallError::Refused(format!("volume {volume}: {error}"))),
            MetaBody::Refused(why) => return Err(CallError::Refused(why)),
            other => return Err(CallError::Malformed(format!("{other:?}"))),
        };
        let patience = opened.volume.policy.patience();
        Ok((MetaSession::new(meta, opened.session, patience), opened, answered.sent))
    }

    fn new(meta: Arc<MetaClient>, id: SessionId, patience: Option<Duration>) -> MetaSession {
        let (changes, flushes) = (Semaphore::new(IN_FLIGHT_MAX), Semaphore::new(FLUSHES_IN_FLIGHT_MAX));
        let (sequences, is_held_back) = (Mutex::default(), AtomicBool::new(false));
        MetaSession { meta, id, patience, sequences, uses: None, changes, flushes, is_held_back }
    }

    /// Goes on with a session that another process has opened, which has ended; `None` when it is over. `sequence`: from here on
    /// none was used. With the first change under one of them nothing that the other process sent, and that is late, happens any more.
    /// There is none before [`MetaSession::goes_on`].
    ///
    /// # Errors
    /// Nobody answered, or it is not ours.
    pub async fn resume(
        meta: Arc<MetaClient>,
        id: SessionId,
        sequence: u64,
        patience: Option<Duration>,
    ) -> Result<Option<(MetaSession, SessionOpened, Instant)>, CallError> {
        let answered = meta.call(&MetaRequest::ResumeSession { session: id }, patience).await?;
        let opened = match answered.reply.body {
            MetaBody::Session(opened) => opened,
            MetaBody::Error(FsError::SessionExpired) => return Ok(None),
            MetaBody::Error(error) => return Err(CallError::Refused(format!("session {id}: {error}"))),
            other => return Err(CallError::Malformed(format!("{other:?}"))),
        };
        let mut session = MetaSession::new(meta, id, opened.volume.policy.patience());
        session.sequences.lock().last = sequence.saturating_sub(1);
        (session.changes, session.flushes) = (Semaphore::new(0), Semaphore::new(0));
        session.is_held_back = AtomicBool::new(true);
        Ok(Some((session, opened, answered.sent)))
    }

    /// Of a session that was resumed: what the other process had sent, and what had to be sent again, has come to its end.
    pub fn goes_on(&self) {
        if self.is_held_back.swap(false, Ordering::AcqRel) {
            self.changes.add_permits(IN_FLIGHT_MAX);
            self.flushes.add_permits(FLUSHES_IN_FLIGHT_MAX);
        }
    }

    /// Sequences that the other process has used: what is sent under them again happens once. To be called once, before
    /// [`MetaSession::goes_on`].
    pub fn tickets_again(self: &Arc<Self>, sequences: &[u64]) -> Vec<Ticket> {
        self.sequences.lock().in_flight.extend(sequences);
        let acknowledged = sequences.iter().min().copied().unwrap_or(0);
        let again = |sequence: &u64| Ticket { session: self.clone(), sequence: *sequence, acknowledged };
        sequences.iter().map(again).collect()
    }

    /// Has `uses` called with each sequence before it is used.
    pub fn telling(mut self, uses: impl Fn(u64) + Send + Sync + 'static) -> MetaSession {
        self.uses = Some(Box::new(uses));
        self
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The instant is when the heartbeat was sent.
    ///
    /// # Errors
    /// `SessionExpired`, or `Unreachable` when nobody answered for `patience`.
    pub async fn heartbeat(&self, patience: Duration, vitals: Vitals) -> Result<(HeartbeatReply, Instant), FsError> {
        let request = MetaRequest::Heartbeat { session: self.id, vitals };
        let answered = self.meta.call(&request, Some(patience)).await.map_err(|_| FsError::Unreachable)?;
        match answered.reply.body {
            MetaBody::Heartbeat(reply) => Ok((reply, answered.sent)),
            other => Err(failure(other)),
        }
    }

    /// # Errors
    /// No stream could be opened at the leader.
    pub async fn subscribe(&self) -> Result<Events, CallError> {
        self.meta.subscribe(self.id).await
    }

    /// One piece of what is held; `last` says that no more follow.
    pub async fn reclaim(&self, term: u64, leases: Vec<Claim>, last: bool) -> Answer<()> {
        self.ask(MetaRequest::Reclaim { session: self.id, term, leases, done: last }, done).await
    }

    /// Leases given up: what is kept of them from now on; and what was looked at, is shipped, and is kept.
    pub async fn yield_leases(&self, leases: Vec<Claim>, shown: Vec<Shown>) -> Answer<()> {
        self.ask(MetaRequest::Yield { session: self.id, leases, shown }, done).await
    }

    /// What is held on inodes after this one, as the leader of a term has noted it; and whether there is no more.
    pub async fn holdings(&self, after: Ino) -> Answer<(u64, Vec<Claim>, bool)> {
        self.ask(MetaRequest::Holdings { session: self.id, after }, |body| match body {
            MetaBody::Holdings { term, claims, end } => Ok((term, claims, end)),
            other => Err(failure(other)),
        })
        .await
    }

    /// Write leases on these, from whoever has leases on them. The attributes of those that are had.
    pub async fn take(&self, inos: Vec<Ino>) -> Answer<Vec<Attr>> {
        self.ask(MetaRequest::Take { session: self.id, inos }, |body| match body {
            MetaBody::Attrs(attrs) => Ok(attrs),
            other => Err(failure(other)),
        })
        .await
    }

    /// # Errors
    /// Nobody answered for `patience`; the session will expire by itself.
    pub async fn close(&self, patience: Duration) -> Result<(), FsError> {
        let request = MetaRequest::CloseSession { session: self.id };
        self.meta.call(&request, Some(patience)).await.map(|_| ()).map_err(|_| FsError::Unreachable)
    }

    pub async fn lookup(&self, dir: Ino, name: Name, want: Hold) -> Answer<Attr> {
        self.ask(MetaRequest::Lookup { session: self.id, dir, name, want }, attr).await
    }

    pub async fn parent(&self, dir: Ino) -> Answer<Attr> {
        self.ask(MetaRequest::Parent { session: self.id, dir }, attr).await
    }

    pub async fn getattr(&self, ino: Ino, want: Hold) -> Answer<Attr> {
        self.ask(MetaRequest::GetAttr { session: self.id, ino, want }, attr).await
    }

    pub async fn readlink(&self, ino: Ino) -> Answer<Vec<u8>> {
        self.ask(MetaRequest::ReadLink { session: self.id, ino }, |body| match body {
            MetaBody::Target(target) => Ok(target),
            other => Err(failure(other)),
        })
        .await
    }

    /// A part of a listing; with `attrs` what its names lead to, and leases on it.
    pub async fn readdir(&self, dir: Ino, part: DirPart, want: Hold) -> Answer<DirPage> {
        let DirPart { after, entries, attrs, unasked } = part;
        let entries_max = u32::try_from(entries).unwrap_or(u32::MAX);
        let ask = MetaRequest::ReadDir { session: self.id, dir, after, entries_max, attrs, unasked, want };
        self.ask(ask, |body| match body {
            MetaBody::Entries(page) => Ok(page),
            other => Err(failure(other)),
        })
        .await
    }

    pub async fn getxattr(&self, ino: Ino, name: Vec<u8>) -> Answer<Vec<u8>> {
        self.ask(MetaRequest::GetXattr { session: self.id, ino, name }, |body| match body {
            MetaBody::Value(value) => Ok(value),
            other => Err(failure(other)),
        })
        .await
    }

    pub async fn listxattr(&self, ino: Ino) -> Answer<Vec<Vec<u8>>> {
        self.ask(MetaRequest::ListXattr { session: self.id, ino }, |body| match body {
            MetaBody::Names(names) => Ok(names),
            other => Err(failure(other)),
        })
        .await
    }

    /// The extents of the blocks that `offset..offset+len` touches, and for how many bytes from `offset` they speak.
    pub async fn extents(&self, ino: Ino, offset: u64, len: u64, want: Hold) -> Answer<(Attr, Vec<Extent>, u64)> {
        self.ask(MetaRequest::GetExtents { session: self.id, ino, offset, len, want }, |body| match body {
            MetaBody::Extents { attr, extents, covered } => Ok((attr, extents, covered.min(len))),
            other => Err(failure(other)),
        })
        .await
    }

    /// All extents of small files, of as many as the reply has room for.
    pub async fn small_extents(&self, inos: Vec<Ino>) -> Answer<Vec<(Attr, Vec<Extent>)>> {
        self.ask(MetaRequest::GetSmallExtents { session: self.id, inos }, |body| match body {
            MetaBody::SmallExtents(files) => Ok(files),
            other => Err(failure(other)),
        })
        .await
    }

    pub async fn seek(&self, ino: Ino, offset: u64, hole: bool) -> Answer<u64> {
        self.ask(MetaRequest::Seek { session: self.id, ino, offset, hole }, |body| match body {
            MetaBody::Offset(offset) => Ok(offset),
            other => Err(failure(other)),
        })
        .await
    }

    pub async fn statfs(&self) -> Answer<SpaceReport> {
        self.ask(MetaRequest::StatFs { session: self.id }, |body| match body {
            MetaBody::Space(report) => Ok(report),
            other => Err(failure(other)),
        })
        .await
    }

    pub async fn test_lock(&self, request: LockRequest) -> Answer<Option<Lock>> {
        self.ask(MetaRequest::TestLock { session: self.id, request }, |body| match body {
            MetaBody::Lock(lock) => Ok(lock),
            other => Err(failure(other)),
        })
        .await
    }

    pub async fn own_locks(&self, ino: Ino) -> Answer<Option<Vec<OwnLock>>> {
        self.ask(MetaRequest::OwnLocks { session: self.id, ino }, |body| match body {
            MetaBody::OwnLocks(locks) => Ok(locks),
            other => Err(failure(other)),
        })
        .await
    }

    /// Waits until another change may be under way. `None`: there are no more.
    pub async fn turn(self: &Arc<Self>, lane: Lane) -> Option<Turn<'_>> {
        let slots = match lane {
            Lane::Change => &self.changes,
            Lane::Flush => &self.flushes,
        };
        let slot = slots.acquire().await.ok()?;
        Some(Turn { ticket: Arc::new(self.ticket()), _slot: slot })
    }

    /// Changes the tree, once. A failed operation is an error and nothing happened; see [`BatchReply`].
    pub async fn change(&self, ticket: &Ticket, ops: Vec<Op>, want: Hold) -> Answer<BatchReply> {
        let (sequence, acknowledged) = (ticket.sequence, ticket.acknowledged);
        self.ask(MetaRequest::Change { session: self.id, sequence, acknowledged, ops, want }, |body| match body {
            MetaBody::Changed(reply) => Ok(reply),
            other => Err(failure(other)),
        })
        .await
    }

    /// Ships what was done here under Write leases, once, under a sequence of [`MetaSession::ticket`]: after an uncertain
    /// answer it is shipped again under the same one.
    pub async fn ship(&self, ticket: &Ticket, changes: Vec<Dated>) -> Answer<BatchReply> {
        let (session, sequence, acknowledged) = (self.id, ticket.sequence, ticket.acknowledged);
        self.ask(MetaRequest::Ship { session, sequence, acknowledged, changes }, |body| match body {
            MetaBody::Changed(reply) => Ok(reply),
            other => Err(failure(other)),
        })
        .await
    }

    /// Waits for a lock under a sequence of [`MetaSession::ticket`]. `Interrupted` after `cancel_lock`.
    pub async fn wait_lock(&self, ticket: &Ticket, request: LockRequest) -> Answer<()> {
        let (session, sequence, acknowledged) = (self.id, ticket.sequence, ticket.acknowledged);
        self.ask(MetaRequest::WaitLock { session, sequence, acknowledged, request }, locked).await
    }

    pub async fn cancel_lock(&self, sequence: u64) -> Answer<()> {
        self.ask(MetaRequest::CancelLock { session: self.id, sequence }, done).await
    }

    /// The next sequence.
    pub fn ticket(self: &Arc<Self>) -> Ticket {
        let mut sequences = self.sequences.lock();
        sequences.last += 1;
        if let Some(uses) = &self.uses {
            uses(sequences.last);
        }
        let sequence = sequences.last;
        sequences.in_flight.insert(sequence);
        let acknowledged = sequences.in_flight.first().copied().unwrap_or(sequence);
        Ticket { session: self.clone(), sequence, acknowledged }
    }

    async fn ask<T>(&self, request: MetaRequest, take: impl FnOnce(MetaBody) -> Result<T, FsError>) -> Answer<T> {
        match self.meta.call(&request, self.patience).await {
            Ok(answered) => {
                let MetaReply { body, granted } = answered.reply;
                Answer { result: take(body), granted, uncertain: answered.uncertain }
            }
            Err(CallError::Unreachable(_)) => Answer::failed(FsError::Unreachable),
            Err(CallError::Refused(why)) => {
                tracing::warn!(%why, "the metadata service refuses this client");
                Answer::failed(FsError::AccessDenied)
            }
            Err(CallError::TakenOver) => Answer::failed(FsError::TakenOver),
            Err(CallError::NoVolume(_)) => Answer::failed(FsError::NotFound),
            Err(CallError::Malformed(why)) => {
                tracing::warn!(%why, "an answer of the metadata service was not understood");
                Answer::failed(FsError::Io)
            }
        }
    }
}

impl<T> Answer<T> {
    fn failed(error: FsError) -> Answer<T> {
        Answer { result: Err(error), granted: Vec::new(), uncertain: true }
    }
}

fn done(body: MetaBody) -> Result<(), FsError> {
    match body {
        MetaBody::Done => Ok(()),
        other => Err(failure(other)),
    }
}

fn attr(body: MetaBody) -> Result<Attr, FsError> {
    match body {
        MetaBody::Attr(attr) => Ok(attr),
        other => Err(failure(other)),
    }
}

/// A lock that was waited for is answered as held, in either of the two forms a reply table may give back.
fn locked(body: MetaBody) -> Result<(), FsError> {
    match body {
        MetaBody::Done | MetaBody::Lock(None) | MetaBody::Changed(BatchReply::Done(_)) => Ok(()),
        MetaBody::Changed(BatchReply::Failed { error, .. }) => Err(error),
        other => Err(failure(other)),
    }
}

fn failure(body: MetaBody) -> FsError {
    match body {
        MetaBody::Error(error) => error,
        other => {
            tracing::warn!(answer = ?other, "an answer of the wrong kind");
            FsError::Io
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl crate::net::Transport for Nobody {
        fn call<'a>(
            &'a self,
            address: &'a str,
            _: crate::net::Frame,
            _: Duration,
        ) -> crate::net::BoxFuture<'a, Result<crate::net::Frame, crate::net::NetError>> {
            let error = crate::net::NetError::Unreachable { address: address.into(), why: "nobody".into() };
            Box::pin(async { Err(error) })
        }

        fn subscribe<'a>(
            &'a self,
            address: &'a str,
            _: crate::net::Frame,
        ) -> crate::net::BoxFuture<'a, Result<tokio::sync::mpsc::Receiver<crate::net::Frame>, crate::net::NetError>>
        {
            let error = crate::net::NetError::Unreachable { address: address.into(), why: "nobody".into() };
            Box::pin(async { Err(error) })
        }
    }

    fn session() -> MetaSession {
        let meta = Arc::new(MetaClient::new(Arc::new(Nobody), vec!["nowhere:1".into()]));
        let patience = Some(Duration::from_millis(100));
        MetaSession::new(meta, SessionId(1), patience)
    }

    #[test]
    fn the_floor_is_the_oldest_change_under_way() {
        let session = Arc::new(session());
        let first = session.ticket();
        let second = session.ticket();
        assert_eq!((first.sequence, first.acknowledged), (1, 1));
        assert_eq!((second.sequence, second.acknowledged), (2, 1));
        drop(first);
        assert_eq!(session.ticket().acknowledged, 2);
        drop(second);
        assert_eq!(session.ticket().acknowledged, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let answer = session().getattr(Ino::ROOT, Hold::default()).await;
        assert_eq!(answer.result, Err(FsError::Unreachable));
    }
}
