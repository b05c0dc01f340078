//! A metadata service in memory for tests of its callers: one leader, volatile leases, recalls, exactly-once changes, and
//! faults on demand. It keeps to the contract, and does no more than the tests need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::net::{BoxFuture, Frame, NetError, Transport};
use crate::types::allowance::Allowance;
use crate::types::attr::{Attr, FileKind, SetTime, Time};
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::extent::{Extent, Source};
use crate::types::id::{Ino, MetaId, SessionId, TreeId, VolumeId};
use crate::types::limits::LEASE_QUIET_MS;
use crate::types::lock::{Lock, LockSpace};
use crate::types::name::Name;
use crate::types::op::{BatchReply, Dated, NewNode, Op, OpReply, WriteAt};
use crate::types::record::{MetaInfo, SpaceReport};
use crate::types::session::{Claim, DirEntry, DirPage, Event, HeartbeatReply, Hold, Lease, SessionOpened};
use crate::types::volume::{Access, Labels, Volume, VolumePolicy};
use crate::wire::codec::{KIND_META, decode, encode};
use crate::wire::meta::{MetaBody, MetaReply, MetaRequest};

pub const CHUNK_BYTES: u32 = 64 << 10;

/// The servers `a:1` and `b:1`.
pub struct FakeMeta {
    state: Mutex<State>,
    changed: Notify,
    has_chunk: Box<dyn Fn(&ChunkId) -> bool + Send + Sync>,
}

#[derive(Default)]
pub struct Faults {
    /// Act on this many changes without answering.
    pub lose_replies: u32,
    /// Nobody is reachable.
    pub away: bool,
    /// Writes are refused for want of space.
    pub full: bool,
    /// Metadata servers have little room.
    pub tight: bool,
    pub freeing: bool,
    /// What `statfs` tells otherwise.
    pub free_bytes: u64,
    /// What of the volume's quotas one session is promised at most, where it has some.
    pub promises: Option<Allowance>,
    /// Nobody is promised more than it was.
    pub scarce: bool,
    /// The policy of the volume; 0 is for ever.
    pub patience_ms: u64,
    /// The volume is for one host at a time.
    pub exclusive: bool,
    /// No lease is granted that is not held.
    pub grants_nothing: bool,
    /// Another host had it since.
    pub taken_over: bool,
    /// Chunks of earlier epochs are to be put again, once.
    pub put_again: bool,
}

struct State {
    leader: String,
    term: u64,
    reclaimed: BTreeSet<SessionId>,
    inodes: BTreeMap<Ino, Inode>,
    last_ino: u64,
    /// Whose numbers are whose, up to the last one; and which inodes were asked for before they were shipped.
    numbers: BTreeMap<u64, SessionId>,
    brought_home: BTreeSet<Ino>,
    sessions: BTreeMap<SessionId, Session>,
    last_session: u64,
    holds: BTreeMap<(Ino, SessionId), (Hold, u64)>,
    recalls: BTreeMap<(Ino, SessionId), (Lease, u64)>,
    /// By who looks: the number of the look that it waits for. And by who is looked at: the newest that it was told, and has
    /// answered.
    looks: BTreeMap<(Ino, SessionId), u64>,
    looked: BTreeMap<(Ino, SessionId), (u64, u64)>,
    last_look: u64,
    /// Until when nothing is granted, but to one session.
    quiet: BTreeMap<Ino, (Instant, Option<SessionId>)>,
    locks: BTreeMap<(Ino, LockSpace), Vec<Lock>>,
    waiting: BTreeMap<(SessionId, u64), Ino>,
    cancelled: BTreeSet<(SessionId, u64)>,
    last_grant: u64,
    allowances: BTreeMap<SessionId, Allowance>,
    faults: Faults,
    counts: BTreeMap<&'static str, u64>,
}

#[derive(Clone)]
struct Inode {
    attr: Attr,
    parent: Ino,
    extents: Vec<Extent>,
    entries: BTreeMap<Name, Ino>,
    target: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Default)]
struct Session {
    replies: BTreeMap<u64, BatchReply>,
    /// Below it nothing is answered, or done, any more.
    floor: u64,
    events: Option<mpsc::Sender<Frame>>,
}

impl FakeMeta {
    pub fn new(has_chunk: impl Fn(&ChunkId) -> bool + Send + Sync + 'static) -> Arc<FakeMeta> {
        let mut state = State {
            leader: "a:1".into(),
            term: 1,
            reclaimed: BTreeSet::new(),
            inodes: BTreeMap::new(),
            last_ino: 1,
            numbers: BTreeMap::new(),
            brought_home: BTreeSet::new(),
            sessions: BTreeMap::new(),
            last_session: 0,
            holds: BTreeMap::new(),
            recalls: BTreeMap::new(),
            looks: BTreeMap::new(),
            looked: BTreeMap::new(),
            last_look: 0,
            quiet: BTreeMap::new(),
            locks: BTreeMap::new(),
            waiting: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            last_grant: 0,
            allowances: BTreeMap::new(),
            faults: Faults { free_bytes: 1 << 40, ..Faults::default() },
            counts: BTreeMap::new(),
        };
        state.inodes.insert(Ino::ROOT, Inode::new(Ino::ROOT, FileKind::Dir, 0o755, Ino::ROOT));
        Arc::new(FakeMeta { state: Mutex::new(state), changed: Notify::new(), has_chunk: Box::new(has_chunk) })
    }

    pub fn fault(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.state.lock().faults);
    }

    /// How many requests of a kind were acted upon.
    pub fn count(&self, kind: &'static str) -> u64 {
        self.state.lock().counts.get(kind).copied().unwrap_or(0)
    }

    /// The other server leads from now on, and remembers no lease.
    pub fn fail_over(&self) {
        let mut state = self.state.lock();
        state.leader = if state.leader == "a:1" { "b:1".into() } else { "a:1".into() };
        state.term += 1;
        state.last_grant = 0;
        state.holds.clear();
        state.recalls.clear();
        state.looks.clear();
        state.looked.clear();
        state.reclaimed.clear();
        state.sessions.values_mut().for_each(|session| session.events = None);
        self.changed.notify_waiters();
    }

    /// Forgets every session.
    pub fn expire_all(&self) {
        self.expire_all_but(0);
    }

    /// Every session is gone but the one with this number.
    pub fn expire_all_but(&self, kept: u64) {
        let mut state = self.state.lock();
        state.sessions.retain(|session, _| session.0 == kept);
        state.holds.retain(|(_, session), _| session.0 == kept);
        state.recalls.retain(|(_, session), _| session.0 == kept);
        state.looks.retain(|(_, session), _| session.0 == kept);
        state.looked.retain(|(_, session), _| session.0 == kept);
        state.locks.clear();
        let orphans: Vec<Ino> =
            state.inodes.iter().filter(|(_, inode)| inode.attr.nlink == 0).map(|(ino, _)| *ino).collect();
        orphans.iter().for_each(|ino| drop(state.inodes.remove(ino)));
        self.changed.notify_waiters();
    }

    /// Others have need of what was promised.
    pub fn ask_to_spare(&self) {
        for events in self.state.lock().sessions.values().filter_map(|session| session.events.as_ref()) {
            let _ = events.try_send(event(&Event::Spare));
        }
    }

    /// What is promised to all sessions together.
    pub fn promised(&self) -> Allowance {
        self.state.lock().allowances.values().copied().fold(Allowance::default(), Allowance::plus)
    }

    pub fn hold(&self, ino: Ino) -> Vec<Hold> {
        let state = self.state.lock();
        state.holds.iter().filter(|((held, _), _)| *held == ino).map(|(_, (hold, _))| *hold).collect()
    }

    pub fn attr(&self, ino: Ino) -> Option<Attr> {
        self.state.lock().inodes.get(&ino).map(|inode| inode.attr.clone())
    }

    async fn answer(self: &Arc<Self>, address: &str, request: MetaRequest) -> Result<MetaReply, NetError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.faults.away {
                    return Err(NetError::Unreachable { address: address.into(), why: "away".into() });
                }
                if address != state.leader {
                    let info = MetaInfo { id: MetaId(1), address: state.leader.clone() };
                    return Ok(MetaReply { body: MetaBody::NotLeader(Some(info)), granted: Vec::new() });
                }
                if let Some(reply) = state.serve(&request, &self.has_chunk) {
                    self.changed.notify_waiters();
                    let change = matches!(request, MetaRequest::Change { .. } | MetaRequest::Ship { .. });
                    if change && state.faults.lose_replies > 0 {
                        state.faults.lose_replies -= 1;
                        return Err(NetError::NoAnswer { address: address.into(), why: "lost".into() });
                    }
                    return Ok(reply);
                }
            }
            changed.await;
        }
    }
}

/// The way to it; one per client, so that a test can cut off each alone.
pub struct FakeNet(pub Arc<FakeMeta>);

impl Transport for FakeNet {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Frame, NetError>> {
        Box::pin(async move {
            // Every call crosses a network: others run meanwhile.
            tokio::time::sleep(Duration::from_micros(100)).await;
            let request: MetaRequest = decode(&request.message).unwrap();
            // As the real service: a handler runs to its end even if the caller goes away.
            let (meta, to) = (self.0.clone(), address.to_owned());
            let task = tokio::spawn(async move { meta.answer(&to, request).await });
            let late = NetError::NoAnswer { address: address.into(), why: "deadline".into() };
            let reply = tokio::time::timeout(deadline, task).await.map_err(|_| late)?.unwrap()?;
            Ok(Frame { kind: KIND_META, message: encode(&reply).into(), bulk: Default::default() })
        })
    }

    fn subscribe<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Frame>, NetError>> {
        Box::pin(async move {
            let MetaRequest::Subscribe { session } = decode(&request.message).unwrap() else { panic!() };
            let (sender, receiver) = mpsc::channel(1024);
            let mut state = self.0.state.lock();
            let gone = NetError::Unreachable { address: address.into(), why: "no stream here".into() };
            if state.faults.away || address != state.leader || !state.sessions.contains_key(&session) {
                return Err(gone);
            }
            let hello = Event::Hello { term: state.term };
            sender.try_send(event(&hello)).unwrap();
            // What was recalled on a stream that broke is recalled again.
            for ((ino, _), (keep, grant)) in state.recalls.iter().filter(|((_, holder), _)| *holder == session) {
                sender.try_send(event(&Event::Recall { ino: *ino, keep: *keep, grant: *grant })).unwrap();
            }
            for ((ino, _), (look, shown)) in state.looked.iter().filter(|((_, holder), _)| *holder == session) {
                let grant = state.holds.get(&(*ino, session)).map_or(0, |(_, grant)| *grant);
                if look > shown {
                    sender.try_send(event(&Event::Look { ino: *ino, grant, look: *look })).unwrap();
                }
            }
            state.sessions.get_mut(&session).unwrap().events = Some(sender);
            Ok(receiver)
        })
    }
}

fn event(event: &Event) -> Frame {
    Frame { kind: KIND_META, message: encode(event).into(), bulk: Default::default() }
}

impl Inode {
    fn new(ino: Ino, kind: FileKind, mode: u32, parent: Ino) -> Inode {
        let t = Time { sec: 1_000, nsec: 0 };
        let attr = Attr {
            ino,
            kind,
            mode,
            uid: 0,
            gid: 0,
            nlink: if kind == FileKind::Dir { 2 } else { 1 },
            rdev: 0,
            size: 0,
            allocated_bytes: 0,
            atime: t,
            mtime: t,
            ctime: t,
            btime: t,
            version: 1,
            has_acl: false,
            has_xattr: false,
        };
        let (extents, entries, target, xattrs) = Default::default();
        Inode { attr, parent, extents, entries, target, xattrs }
    }
}

fn reply(body: MetaBody) -> Option<MetaReply> {
    Some(MetaReply { body, granted: Vec::new() })
}

impl State {
    /// `None`: parked until something changes.
    fn serve(&mut self, request: &MetaRequest, has_chunk: &dyn Fn(&ChunkId) -> bool) -> Option<MetaReply> {
        use MetaRequest::*;
        if request.session().is_some_and(|session| self.is_gone(&session)) {
            return reply(MetaBody::Error(FsError::SessionExpired));
        }
        let (OpenSession { .. }
        | ResumeSession { .. }
        | Holdings { .. }
        | Heartbeat { .. }
        | StatFs { .. }
        | CloseSession { .. }
        | Yield { .. }
        | CancelLock { .. }
        | Reclaim { .. }) = request
        else {
            // A new leader waits until everybody has told what they hold.
            let reclaimed = self.sessions.keys().all(|session| self.reclaimed.contains(session));
            return if self.term > 1 && !reclaimed { None } else { self.work(request, has_chunk) };
        };
        self.keep_session(request)
    }

    fn keep_session(&mut self, request: &MetaRequest) -> Option<MetaReply> {
        use MetaRequest::*;
        match request {
            OpenSession { read_only, after, .. } => reply(self.open_session(*read_only, *after)),
            ResumeSession { session } => reply(self.opened(*session, false)),
            Holdings { session, after } => reply(self.holdings(*session, *after)),
            Heartbeat { .. } => reply(MetaBody::Heartbeat(self.heartbeat())),
            StatFs { .. } => reply(MetaBody::Space(self.space())),
            CloseSession { session } => {
                self.sessions.remove(session);
                self.holds.retain(|(_, holder), _| holder != session);
                reply(MetaBody::Done)
            }
            Yield { session, leases, shown } => {
                self.tally("yield");
                leases.iter().for_each(|claim| self.take_yield(*session, claim));
                for shown in shown {
                    let (_, answered) = self.looked.entry((shown.ino, *session)).or_default();
                    *answered = (*answered).max(shown.look);
                    self.tally("shown");
                }
                reply(MetaBody::Done)
            }
            Reclaim { term, .. } if *term != self.term => reply(MetaBody::Error(FsError::Stale)),
            Reclaim { session, leases, done, .. } => {
                self.tally("reclaim");
                if *done {
                    self.reclaimed.insert(*session);
                }
                let claims = leases.iter().map(|claim| self.put_hold(claim.ino, *session, claim.hold)).collect();
                Some(MetaReply { body: MetaBody::Done, granted: claims })
            }
            CancelLock { session, sequence } => {
                self.cancelled.insert((*session, *sequence));
                reply(MetaBody::Done)
            }
            _ => None,
        }
    }

    fn work(&mut self, request: &MetaRequest, has_chunk: &dyn Fn(&ChunkId) -> bool) -> Option<MetaReply> {
        use MetaRequest::*;
        match request {
            WaitLock { session, sequence, request, .. } => self.wait_lock(*session, *sequence, request),
            Change { session, sequence, acknowledged, .. } | Ship { session, sequence, acknowledged, .. }
                if self.is_late(*session, *sequence, *acknowledged) =>
            {
                reply(MetaBody::Error(FsError::Stale))
            }
            Change { session, sequence, ops, want, .. } => self.change(*session, *sequence, ops, *want, has_chunk),
            Ship { session, sequence, changes, .. } => Some(self.ship(*session, *sequence, changes, has_chunk)),
            other => self.read(other),
        }
    }

    /// The session has had the answer, or whoever goes on with it has said that it wants none.
    fn is_late(&mut self, session: SessionId, sequence: u64, acknowledged: u64) -> bool {
        let Some(session) = self.sessions.get_mut(&session) else { return false };
        if sequence < session.floor {
            return true;
        }
        session.floor = session.floor.max(acknowledged.min(sequence));
        let floor = session.floor;
        session.replies.retain(|sequence, _| *sequence >= floor);
        false
    }

    fn is_gone(&self, session: &SessionId) -> bool {
        !self.sessions.contains_key(session)
    }

    fn tally(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    fn heartbeat(&self) -> HeartbeatReply {
        HeartbeatReply { term: self.term, map_epoch: 1, collection_epoch: 1, now_ns: 2_000_000_000_000 }
    }

    fn space(&self) -> SpaceReport {
        let free_bytes = if self.faults.full { 0 } else { self.faults.free_bytes };
        SpaceReport {
            total_bytes: 1 << 41,
            free_bytes,
            // Where a quota is, it is what is short.
            disk_free_bytes: if self.faults.promises.is_some() { 1 << 40 } else { free_bytes },
            inodes: 1,
            inodes_free: 1 << 20,
            tight: self.faults.tight,
            freeing: self.faults.freeing,
        }
    }

    fn open_session(&mut self, read_only: bool, after: Option<SessionId>) -> MetaBody {
        if after.is_some() && self.faults.taken_over {
            return MetaBody::Error(FsError::TakenOver);
        }
        self.last_session += 1;
        let session = SessionId(self.last_session);
        self.sessions.insert(session, Session::default());
        self.reclaimed.insert(session);
        self.opened(session, read_only)
    }

    fn opened(&self, session: SessionId, read_only: bool) -> MetaBody {
        let patience_ms = self.faults.patience_ms;
        let access = if self.faults.exclusive { Access::One } else { Access::Many };
        let policy = VolumePolicy { chunk_bytes: CHUNK_BYTES, patience_ms, access, ..VolumePolicy::default() };
        let volume = Volume { id: VolumeId(1), name: "v".into(), tree: TreeId(1), policy, labels: Labels::new() };
        MetaBody::Session(SessionOpened { session, volume, read_only, heartbeat: self.heartbeat() })
    }

    fn reap(&mut self, ino: Ino) {
        let open = self.holds.iter().any(|((held, _), (hold, _))| *held == ino && hold.open);
        if !open && self.inodes.get(&ino).is_some_and(|inode| inode.attr.nlink == 0) {
            self.inodes.remove(&ino);
        }
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        self.inodes.get(&ino).map(|inode| inode.attr.clone()).ok_or(FsError::NotFound)
    }

    fn read(&mut self, request: &MetaRequest) -> Option<MetaReply> {
        use MetaRequest::*;
        let (body, granted) = match request {
            Take { session, inos } => return self.take(*session, inos),
            Lookup { session, dir, name, want } => {
                let entry = self.inodes.get(dir).and_then(|inode| inode.entries.get(name)).copied();
                if !self.look(*session, *dir) || entry.is_some_and(|ino| !self.look(*session, ino)) {
                    return None;
                }
                self.tally("lookup");
                let mut granted = self.grant(*session, *dir, Hold { lease: want.lease, open: false });
                granted.extend(entry.into_iter().flat_map(|ino| self.grant(*session, ino, *want)));
                let found = entry.ok_or(FsError::NotFound).and_then(|ino| self.attr(ino));
                (found.map_or_else(MetaBody::Error, MetaBody::Attr), granted)
            }
            GetAttr { session, ino, want } => {
                if !self.look(*session, *ino) {
                    return None;
                }
                self.tally("getattr");
                let granted = self.grant(*session, *ino, *want);
                (self.attr(*ino).map_or_else(MetaBody::Error, MetaBody::Attr), granted)
            }
            GetExtents { session, ino, offset, len, want } => {
                if !self.look(*session, *ino) {
                    return None;
                }
                self.tally("extents");
                let granted = self.grant(*session, *ino, *want);
                (self.extents(*ino, *offset, *len).unwrap_or_else(MetaBody::Error), granted)
            }
            GetSmallExtents { session, inos } => {
                self.tally("small");
                let leased =
                    |ino: &&Ino| self.holds.get(&(**ino, *session)).is_some_and(|(h, _)| h.lease > Lease::None);
                let files = inos.iter().filter(leased).map(|ino| &self.inodes[ino]);
                let files = files.map(|inode| (inode.attr.clone(), inode.extents.clone())).collect();
                (MetaBody::SmallExtents(files), Vec::new())
            }
            ReadDir { session, dir, unasked: true, .. } if !self.is_free_for(*session, *dir) => {
                (MetaBody::Error(FsError::WouldBlock), Vec::new())
            }
            ReadDir { session, dir, after, entries_max, attrs, want, .. } => {
                if !self.look(*session, *dir) {
                    return None;
                }
                self.tally("readdir");
                let page = self.page(*dir, *after, *entries_max as usize);
                let granted = self.grant(*session, *dir, *want);
                return Some(if *attrs {
                    self.with_attrs(*session, page, granted)
                } else {
                    MetaReply { body: page, granted }
                });
            }
            Parent { dir, .. } => {
                let parent = self.inodes.get(dir).map(|inode| inode.parent).ok_or(FsError::NotFound);
                (parent.and_then(|ino| self.attr(ino)).map_or_else(MetaBody::Error, MetaBody::Attr), Vec::new())
            }
            ReadLink { ino, .. } => (MetaBody::Target(self.inodes[ino].target.clone()), Vec::new()),
            GetXattr { ino, name, .. } => {
                self.tally("getxattr");
                let value = self.inodes[ino].xattrs.get(name).cloned().ok_or(FsError::NoAttribute);
                (value.map_or_else(MetaBody::Error, MetaBody::Value), Vec::new())
            }
            other => return self.read_locks(other),
        };
        Some(MetaReply { body, granted })
    }

    fn extents(&self, ino: Ino, offset: u64, len: u64) -> Result<MetaBody, FsError> {
        let inode = self.inodes.get(&ino).ok_or(FsError::NotFound)?;
        let block = u64::from(CHUNK_BYTES);
        let (from, to) = (offset - offset % block, (offset + len).next_multiple_of(block));
        let extents =
            inode.extents.iter().filter(|extent| extent.end() > from && extent.offset < to).cloned().collect();
        Ok(MetaBody::Extents { attr: inode.attr.clone(), extents, covered: len })
    }

    fn page(&self, dir: Ino, after: u64, entries_max: usize) -> MetaBody {
        let Some(inode) = self.inodes.get(&dir) else { return MetaBody::Error(FsError::NotFound) };
        let entry = |(name, ino): (&Name, &Ino)| {
            let kind = self.inodes[ino].attr.kind;
            DirEntry { name: name.clone(), ino: *ino, kind, cookie: ino.0 + 3, attr: None }
        };
        let mut entries: Vec<DirEntry> = inode.entries.iter().map(entry).filter(|e| e.cookie > after).collect();
        entries.sort_by_key(|entry| entry.cookie);
        let end = entries.len() <= entries_max;
        entries.truncate(entries_max);
        let dir = inode.attr.clone();
        MetaBody::Entries(DirPage { dir, has_default_acl: false, entries, end, next_cookie: self.last_ino + 4 })
    }

    fn with_attrs(&mut self, session: SessionId, mut body: MetaBody, mut granted: Vec<Claim>) -> MetaReply {
        let leased = granted.first().map_or(Lease::None, |claim| claim.hold.lease);
        if let (MetaBody::Entries(page), true) = (&mut body, leased > Lease::None) {
            for entry in &mut page.entries {
                let written = |((ino, holder), (hold, _)): (&(Ino, SessionId), &(Hold, u64))| {
                    *ino == entry.ino && *holder != session && hold.lease == Lease::Write
                };
                if self.holds.iter().any(written) {
                    continue;
                }
                let claims = self.grant(session, entry.ino, Hold { lease: leased, open: false });
                if claims.iter().any(|claim| claim.hold.lease > Lease::None) {
                    entry.attr = self.attr(entry.ino).ok();
                    granted.extend(claims);
                }
            }
        }
        MetaReply { body, granted }
    }
}

mod change;
mod leases;
mod locks;
mod mortal;
mod volumes;

pub use self::mortal::Mortal;
pub use self::volumes::{FakeVolumes, VolumesNet};
