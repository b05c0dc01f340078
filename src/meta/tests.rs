//! One metadata server over the simulated network: leases, locks, exactly-once, orphans.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tempfile::TempDir;

use super::serve::Fail;
use super::server::{CACHE_BYTES_DEFAULT, MetaConfig, MetaServer};
use super::state::StateError;
use crate::crypto::ca::ClusterAuthority;
use crate::net::sim::SimNet;
use crate::net::{Frame, Peer, Transport};
use crate::types::allowance::Allowance;
use crate::types::attr::{SetAttr, Time};
use crate::types::cluster::{DiskInfo, DiskReport, StoreInfo};
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::extent::{ChunkPart, Source};
use crate::types::id::{ClusterId, DiskId, Ino, MetaId, SessionId, StoreId};
use crate::types::lock::{LockMode, LockRange, LockRequest, LockSpace, OwnLock};
use crate::types::name::Name;
use crate::types::op::{
    BatchReply, Create, Dated, FallocateMode, NewNode, Op, OpReply, Piece, RenameMode, Write, WriteAt,
};
use crate::types::record::{MetaInfo, Role};
use crate::types::session::{Claim, Event, Hold, Lease, Shown, Vitals};
use crate::types::volume::NewVolume;
use crate::wire::codec::{KIND_META, decode, encode};
use crate::wire::meta::{MetaBody, MetaReply, MetaRequest};

mod fenced;
mod quotas;
mod resume;

const META: &str = "meta-1:1";
const ADMIN: Peer = Peer::new(Role::Admin, 1);
const READ: Hold = Hold { lease: Lease::Read, open: false };

struct World {
    net: SimNet,
    server: Option<MetaServer>,
    _dir: TempDir,
}

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let net = SimNet::new(1);
        let me = MetaInfo { id: MetaId(1), address: META.into() };
        let authority = ClusterAuthority::create(ClusterId([7; 16])).expect("keys");
        let transport = net.transport(Peer::new(Role::Meta, 1), META);
        let config = MetaConfig { dir: dir.path().into(), me, cache_bytes: CACHE_BYTES_DEFAULT, first: true };
        let server = MetaServer::start(config, authority, transport).await.expect("starts");
        net.register(META, server.service());
        let world = World { net, server: Some(server), _dir: dir };
        world.ask(MetaRequest::CreateVolume(NewVolume::named("main"))).await;
        world
    }

    fn transport(&self, from: &str) -> Arc<dyn Transport> {
        self.net.transport(ADMIN, from)
    }

    /// Asks until the server leads.
    async fn ask(&self, request: MetaRequest) -> MetaReply {
        self.ask_as(ADMIN, request).await
    }

    async fn ask_as(&self, peer: Peer, request: MetaRequest) -> MetaReply {
        let transport = self.net.transport(peer, "asker");
        loop {
            let frame = Frame { kind: KIND_META, message: encode(&request).into(), bulk: Bytes::new() };
            let reply = transport.call(META, frame, Duration::from_secs(30)).await.expect("answer");
            let reply: MetaReply = decode(&reply.message).expect("a reply");
            if !matches!(reply.body, MetaBody::NotLeader(_)) {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn session(&self) -> Client<'_> {
        self.session_of("main").await
    }

    async fn session_of(&self, volume: &str) -> Client<'_> {
        let request = MetaRequest::OpenSession {
            volume: volume.into(),
            client: "test".into(),
            read_only: false,
            after: None,
            attempt: 1,
        };
        let MetaBody::Session(opened) = self.ask(request).await.body else { panic!("no session") };
        Client { world: self, session: opened.session, sequence: 0.into() }
    }

    async fn stop(mut self) {
        self.server.take().expect("running").stop().await;
    }
}

struct Client<'a> {
    world: &'a World,
    session: SessionId,
    sequence: std::cell::Cell<u64>,
}

impl Client<'_> {
    async fn change(&self, op: Op, want: Hold) -> MetaReply {
        self.sequence.set(self.sequence.get() + 1);
        self.change_at(self.sequence.get(), op, want).await
    }

    async fn change_at(&self, sequence: u64, op: Op, want: Hold) -> MetaReply {
        let ops = vec![op];
        self.world.ask(MetaRequest::Change { session: self.session, sequence, acknowledged: 0, ops, want }).await
    }

    async fn create(&self, name: &str, want: Hold) -> (Ino, Vec<Claim>) {
        let reply = self.change(create(name), want).await;
        let MetaBody::Changed(BatchReply::Done(replies)) = reply.body else { panic!("{:?}", reply.body) };
        let [OpReply::Entry { attr, .. }] = &replies[..] else { panic!("{replies:?}") };
        (attr.ino, reply.granted)
    }

    async fn lookup(&self, name: &str, want: Hold) -> MetaReply {
        let (session, dir, name) = (self.session, Ino::ROOT, Name::new(name).expect("a name"));
        self.world.ask(MetaRequest::Lookup { session, dir, name, want }).await
    }

    async fn events(&self) -> tokio::sync::mpsc::Receiver<Frame> {
        let message = encode(&MetaRequest::Subscribe { session: self.session }).into();
        let frame = Frame { kind: KIND_META, message, bulk: Bytes::new() };
        let mut events = self.world.transport("listener").subscribe(META, frame).await.expect("a stream");
        let hello = next(&mut events).await;
        assert!(matches!(hello, Event::Hello { .. }));
        events
    }

    async fn give(&self, claim: Claim) {
        let reply =
            self.world.ask(MetaRequest::Yield { session: self.session, leases: vec![claim], shown: vec![] }).await;
        assert_eq!(reply.body, MetaBody::Done);
    }
}

async fn next(events: &mut tokio::sync::mpsc::Receiver<Frame>) -> Event {
    decode(&events.recv().await.expect("an event").message).expect("an event")
}

fn create(name: &str) -> Op {
    let name = Name::new(name).expect("a name");
    let (mode, umask, uid, gid) = (0o644, 0, 0, 0);
    Op::Create(Create { dir: Ino::ROOT, name, node: NewNode::File, mode, umask, uid, gid, exclusive: true, ino: None })
}

fn unlink(name: &str) -> Op {
    Op::Unlink { dir: Ino::ROOT, name: Name::new(name).expect("a name") }
}

fn lock(ino: Ino, owner: u64, mode: Option<LockMode>) -> LockRequest {
    LockRequest { ino, space: LockSpace::Flock, owner, mode, range: LockRange { start: 0, end: u64::MAX >> 1 }, pid: 1 }
}

#[tokio::test]
async fn a_change_by_one_ends_the_lease_of_the_other() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let mut events = a.events().await;
    let missing = a.lookup("x", READ).await;
    assert_eq!(missing.body, MetaBody::Error(FsError::NotFound));
    assert_eq!(missing.granted.len(), 1, "the absence of a name can be cached under the directory's lease");
    let answer = async {
        let Event::Recall { ino, keep, grant } = next(&mut events).await else { panic!("not a recall") };
        assert_eq!((ino, keep), (Ino::ROOT, Lease::None));
        a.give(Claim { ino, hold: Hold::default(), grant }).await;
    };
    let ((ino, _), ()) = tokio::join!(b.create("x", Hold::default()), answer);
    let found = a.lookup("x", READ).await;
    let MetaBody::Attr(attr) = found.body else { panic!("{:?}", found.body) };
    assert_eq!(attr.ino, ino);
    world.stop().await;
}

#[tokio::test]
async fn a_reader_takes_the_writer_down_and_both_read() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let mut events = a.events().await;
    let (ino, granted) = a.create("log", Hold { lease: Lease::Write, open: true }).await;
    assert_eq!(granted[0].hold, Hold { lease: Lease::Write, open: true });
    let answer = async {
        let Event::Look { ino, grant, .. } = next(&mut events).await else { panic!("not a look") };
        a.give(Claim { ino, hold: Hold { lease: Lease::Read, open: true }, grant }).await;
    };
    let (found, ()) = tokio::join!(b.lookup("log", Hold { lease: Lease::Read, open: true }), answer);
    let claim = found.granted.iter().find(|claim| claim.ino == ino).expect("granted");
    assert_eq!(claim.hold, Hold { lease: Lease::Read, open: true });
    world.stop().await;
}

#[tokio::test]
async fn a_writer_that_goes_on_is_read_at_the_leader() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let mut events = a.events().await;
    let (ino, _) = a.create("log", Hold { lease: Lease::Write, open: true }).await;
    let answer = async {
        let Event::Look { ino, look, .. } = next(&mut events).await else { panic!("not a look") };
        let shown = vec![Shown { ino, look }];
        let reply = world.ask(MetaRequest::Yield { session: a.session, leases: vec![], shown }).await;
        assert_eq!(reply.body, MetaBody::Done);
    };
    let (found, ()) = tokio::join!(b.lookup("log", Hold { lease: Lease::Read, open: true }), answer);
    let claim = found.granted.iter().find(|claim| claim.ino == ino).expect("open");
    assert_eq!(claim.hold, Hold { lease: Lease::None, open: true });
    world.stop().await;
}

/// Whoever replaces a file all the time is looked at before its new one is read, and has replaced that by then.
#[tokio::test]
async fn a_name_that_is_replaced_all_the_time_is_found() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let (mut events, mut recalls) = (a.events().await, b.events().await);
    let written = Hold { lease: Lease::Write, open: true };
    let (first, _) = a.create("current", written).await;
    let replace = async {
        loop {
            let Event::Look { ino, look, .. } = next(&mut events).await else { panic!("not a look") };
            a.create("next", written).await;
            let (from, to) = (Name::new("next").expect("a name"), Name::new("current").expect("a name"));
            let (from_dir, to_dir, mode) = (Ino::ROOT, Ino::ROOT, RenameMode::Replace);
            a.change(Op::Rename { from_dir, from, to_dir, to, mode }, Hold::default()).await;
            let shown = vec![Shown { ino, look }];
            world.ask(MetaRequest::Yield { session: a.session, leases: vec![], shown }).await;
        }
    };
    // The directory's lease, under which the name would have been kept.
    let give_back = async {
        let Event::Recall { ino, grant, .. } = next(&mut recalls).await else { panic!("not a recall") };
        assert_eq!(ino, Ino::ROOT);
        b.give(Claim { ino, hold: Hold::default(), grant }).await;
        std::future::pending::<()>().await;
    };
    let opened = Hold { lease: Lease::Read, open: true };
    tokio::select! {
        found = b.lookup("current", opened) => {
            let MetaBody::Attr(attr) = found.body else { panic!("{:?}", found.body) };
            // It was there when it was looked for, and is what is opened.
            assert_eq!((attr.ino, attr.nlink), (first, 0));
            let held: Vec<_> = found.granted.iter().map(|claim| (claim.ino, claim.hold.open)).collect();
            assert_eq!(held, [(first, true)], "and not the directory");
        }
        () = replace => {}
        () = give_back => {}
    }
    world.stop().await;
}

/// A kernel knows one place of a directory: what it was called before it moved would bring it back there.
#[tokio::test]
async fn a_directory_that_has_moved_is_looked_for_again() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let mut events = a.events().await;
    let make = |name: &str| match create(name) {
        Op::Create(file) => Op::Create(Create { node: NewNode::Dir, ..file }),
        other => other,
    };
    a.change(make("here"), Hold { lease: Lease::Write, open: true }).await;
    let moves = async {
        let Event::Look { ino, look, .. } = next(&mut events).await else { panic!("not a look") };
        let (from, to) = (Name::new("here").expect("a name"), Name::new("there").expect("a name"));
        let (from_dir, to_dir, mode) = (Ino::ROOT, Ino::ROOT, RenameMode::Replace);
        a.change(Op::Rename { from_dir, from, to_dir, to, mode }, Hold::default()).await;
        world.ask(MetaRequest::Yield { session: a.session, leases: vec![], shown: vec![Shown { ino, look }] }).await;
    };
    let (found, ()) = tokio::join!(b.lookup("here", Hold { lease: Lease::None, open: true }), moves);
    assert_eq!((found.body, found.granted), (MetaBody::Error(FsError::NotFound), Vec::new()));
    world.stop().await;
}

#[tokio::test]
async fn readers_give_back_what_another_takes_to_change_it() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let mut events = a.events().await;
    let (ino, _) = b.create("one", Hold::default()).await;
    assert_eq!(a.lookup("one", READ).await.granted.len(), 2);
    let answer = async {
        for _ in 0..2 {
            let Event::Recall { ino, keep, grant } = next(&mut events).await else { panic!("not a recall") };
            assert_eq!(keep, Lease::None);
            a.give(Claim { ino, hold: Hold::default(), grant }).await;
        }
    };
    let gone = Ino(ino.0 + 1_000);
    let inos = vec![Ino::ROOT, gone, ino];
    let (taken, ()) = tokio::join!(world.ask(MetaRequest::Take { session: b.session, inos }), answer);
    let MetaBody::Attrs(attrs) = taken.body else { panic!("{:?}", taken.body) };
    assert_eq!(attrs.iter().map(|attr| attr.ino).collect::<Vec<_>>(), [Ino::ROOT, ino]);
    assert!(taken.granted.len() == 2 && taken.granted.iter().all(|claim| claim.hold.lease == Lease::Write));
    world.stop().await;
}

#[tokio::test]
async fn the_same_sequence_happens_once() {
    let world = World::new().await;
    let a = world.session().await;
    let first = a.change_at(1, create("once"), Hold::default()).await;
    let second = a.change_at(1, create("once"), Hold::default()).await;
    assert_eq!(first.body, second.body);
    let third = a.change_at(2, create("once"), Hold::default()).await;
    assert_eq!(third.body, MetaBody::Changed(BatchReply::Failed { index: 0, error: FsError::Exists }));
    world.stop().await;
}

#[tokio::test]
async fn what_is_reclaimed_of_an_older_term_is_to_be_begun_anew() {
    let world = World::new().await;
    let a = world.session().await;
    let MetaBody::Heartbeat(beat) =
        world.ask(MetaRequest::Heartbeat { session: a.session, vitals: Vitals::default() }).await.body
    else {
        panic!("no heartbeat")
    };
    let reclaim = |term| world.ask(MetaRequest::Reclaim { session: a.session, term, leases: Vec::new(), done: true });
    assert_eq!(reclaim(beat.term - 1).await.body, MetaBody::Error(FsError::Stale));
    assert_eq!(reclaim(beat.term).await.body, MetaBody::Done);
    world.stop().await;
}

#[tokio::test]
async fn a_session_is_its_owners_alone() {
    let world = World::new().await;
    let a = world.session().await;
    for role in [Role::Client, Role::Store, Role::Meta] {
        let namesake = Peer { role, ..ADMIN };
        let reply =
            world.ask_as(namesake, MetaRequest::Heartbeat { session: a.session, vitals: Vitals::default() }).await;
        assert_eq!(reply.body, MetaBody::Error(FsError::SessionExpired));
        let open = MetaRequest::OpenSession {
            volume: "main".into(),
            client: "test".into(),
            read_only: true,
            after: None,
            attempt: 1,
        };
        assert_eq!(world.ask_as(namesake, open).await.body, MetaBody::Error(FsError::AccessDenied));
    }
    assert!(matches!(
        world.ask(MetaRequest::Heartbeat { session: a.session, vitals: Vitals::default() }).await.body,
        MetaBody::Heartbeat(_)
    ));
    world.stop().await;
}

#[tokio::test]
async fn a_lock_is_waited_for_and_a_wait_can_be_cancelled() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let (ino, _) = a.create("l", Hold::default()).await;
    let exclusive = Some(LockMode::Exclusive);
    a.change(Op::Lock(lock(ino, 1, exclusive)), Hold::default()).await;
    let wait = |sequence| {
        let request = lock(ino, 2, exclusive);
        world.ask(MetaRequest::WaitLock { session: b.session, sequence, acknowledged: 0, request })
    };
    let cancel = async {
        tokio::task::yield_now().await;
        // Until the waiter is there a cancel finds nothing.
        loop {
            world.ask(MetaRequest::CancelLock { session: b.session, sequence: 1 }).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        reply = wait(1) => assert_eq!(reply.body, MetaBody::Error(FsError::Interrupted)),
        () = cancel => {}
    }
    let unlock = async {
        tokio::task::yield_now().await;
        a.change(Op::Lock(lock(ino, 1, None)), Hold::default()).await;
    };
    let (reply, ()) = tokio::join!(wait(2), unlock);
    assert_eq!(reply.body, MetaBody::Changed(BatchReply::Done(vec![OpReply::Done])));
    world.stop().await;
}

#[tokio::test]
async fn owners_that_wait_for_one_another_are_told() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let (x, _) = a.create("x", Hold::default()).await;
    let (y, _) = a.create("y", Hold::default()).await;
    let range = |ino, mode| LockRequest { space: LockSpace::Range, ..lock(ino, 1, mode) };
    let exclusive = Some(LockMode::Exclusive);
    // Who is refused lets the other go on. Which of the two it is is nobody's business.
    let cross = async |client: &Client<'_>, mine, other| {
        client.sequence.set(client.sequence.get() + 1);
        let (session, sequence, request) = (client.session, client.sequence.get(), range(other, exclusive));
        let reply = world.ask(MetaRequest::WaitLock { session, sequence, acknowledged: 0, request }).await;
        client.change(Op::Lock(range(mine, None)), Hold::default()).await;
        reply.body
    };
    a.change(Op::Lock(range(x, exclusive)), Hold::default()).await;
    b.change(Op::Lock(range(y, exclusive)), Hold::default()).await;
    let (one, two) = tokio::join!(cross(&a, x, y), cross(&b, y, x));
    let refused = |body: &MetaBody| *body == MetaBody::Error(FsError::Deadlock);
    assert!(refused(&one) != refused(&two), "{one:?} {two:?}");
    let held = MetaBody::Changed(BatchReply::Done(vec![OpReply::Done]));
    assert!(one == held || two == held);
    world.stop().await;
}

/// Stores that tell how much of their own filesystem is free.
async fn stores(world: &World, free_bytes: &[u64]) {
    for (id, free_bytes) in (1..).zip(free_bytes) {
        let peer = Peer::new(Role::Store, id);
        let disk = DiskId([id as u8; 16]);
        let (address, host, zone) = (format!("store-{id}:1"), format!("h{id}"), String::new());
        let info = StoreInfo { id: StoreId(id), address, host, zone, disks: vec![DiskInfo { id: disk, weight: 1 }] };
        world.ask_as(peer, MetaRequest::RegisterStore { info }).await;
        let report = DiskReport {
            id: disk,
            filesystem: id,
            capacity_bytes: 1 << 40,
            free_bytes: *free_bytes,
            chunks: 0,
            chunk_bytes: 0,
            dedup_hits: 0,
            dedup_bytes: 0,
            damaged: 0,
            failed: false,
        };
        let store = StoreId(id);
        let beat = MetaRequest::StoreHeartbeat { store, map_epoch: 0, disks: vec![report], confirmed: Vec::new() };
        assert!(matches!(world.ask_as(peer, beat).await.body, MetaBody::StoreOrders(_)));
    }
}

#[tokio::test]
async fn what_is_free_is_what_copies_can_use() {
    let world = World::new().await;
    let a = world.session().await;
    stores(&world, &[900 << 20, 900 << 20, 100 << 20]).await;
    let MetaBody::Space(space) = world.ask(MetaRequest::StatFs { session: a.session }).await.body else {
        panic!("no space")
    };
    assert_eq!((space.total_bytes, space.free_bytes), (1 << 40, 100 << 20));
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_fit_is_not_allocated() {
    let world = World::new().await;
    let a = world.session().await;
    let (ino, _) = a.create("f", Hold::default()).await;
    let allocate = async |len| {
        let op = Op::Fallocate { ino, mode: FallocateMode::Allocate { keep_size: false }, offset: 0, len };
        a.change(op, Hold::default()).await.body
    };
    let size = |body| match body {
        MetaBody::Changed(BatchReply::Done(replies)) => match &replies[..] {
            [OpReply::Attr(attr)] => attr.size,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    stores(&world, &[900 << 20, 900 << 20, 100 << 20]).await;
    assert_eq!(allocate((100 << 20) + 1).await, MetaBody::Error(FsError::NoSpace));
    let MetaBody::Attr(attr) = a.lookup("f", Hold::default()).await.body else { panic!("no file") };
    assert_eq!((attr.size, attr.allocated_bytes), (0, 0), "nothing was begun");
    assert_eq!(size(allocate(100 << 20).await), 100 << 20);
    stores(&world, &[10 << 20, 10 << 20, 10 << 20]).await;
    assert_eq!(size(allocate(100 << 20).await), 100 << 20, "it is there already");
    assert_eq!(allocate(111 << 20).await, MetaBody::Error(FsError::NoSpace));
    world.stop().await;
}

#[tokio::test]
async fn an_open_file_outlives_its_name_and_is_freed_after() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let (ino, granted) = a.create("gone", Hold { lease: Lease::None, open: true }).await;
    b.change(unlink("gone"), Hold::default()).await;
    // Two rounds of the reaper.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let look = || world.ask(MetaRequest::GetAttr { session: a.session, ino, want: Hold::default() });
    assert!(matches!(look().await.body, MetaBody::Attr(attr) if attr.nlink == 0));
    a.give(Claim { hold: Hold::default(), ..granted[0] }).await;
    while look().await.body != MetaBody::Error(FsError::NotFound) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn what_is_too_large_for_one_command_is_done_in_parts() {
    let world = World::new().await;
    let a = world.session().await;
    let (ino, _) = a.create("large", Hold::default()).await;
    let attr = async |op| match a.change(op, Hold::default()).await.body {
        MetaBody::Changed(BatchReply::Done(replies)) => match &replies[..] {
            [OpReply::Attr(attr)] => attr.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let (mib, mode) = (1u64 << 20, FallocateMode::Allocate { keep_size: false });
    let allocated = attr(Op::Fallocate { ino, mode, offset: 5, len: 5000 * mib }).await;
    assert_eq!((allocated.size, allocated.allocated_bytes), (5000 * mib + 5, 5000 * mib));
    let punched = attr(Op::Fallocate { ino, mode: FallocateMode::Punch, offset: mib, len: 2500 * mib }).await;
    assert_eq!((punched.size, punched.allocated_bytes), (5000 * mib + 5, 2500 * mib));
    let cut = attr(Op::SetAttr { ino, set: SetAttr { size: Some(100), ..SetAttr::default() } }).await;
    assert_eq!((cut.size, cut.allocated_bytes), (100, 95));
    world.stop().await;
}

/// As on a disk that is full of something else.
#[tokio::test]
async fn a_server_whose_index_fails_at_a_read_stops_and_says_nothing_wrong_before() {
    let world = World::new().await;
    let server = world.server.as_ref().expect("it runs");
    assert!(server.failed().now_or_never().is_none());
    let failed = server.shared.state.view(|_| Err::<(), _>(StateError::Damaged("on purpose".into())));
    let told = Fail::from(failed.unwrap_err());
    assert!(matches!(told, Fail::Uncertain(None)), "the client asks on: {told:?}");
    let why = tokio::time::timeout(Duration::from_secs(1), server.failed()).await.expect("it stops");
    assert!(why.contains("index"), "{why}");
}

#[tokio::test]
async fn what_a_store_offers_and_nothing_refers_to_is_condemned() {
    let world = World::new().await;
    let a = world.session().await;
    let (ino, _) = a.create("f", Hold::default()).await;
    let (stray, kept) = (ChunkId([1; 32]), ChunkId([2; 32]));
    let refer = async |id| {
        let source = Source::Chunk(ChunkPart { id, chunk_bytes: 10, offset: 0, put_epoch: 1 });
        let pieces = vec![Piece { offset: 0, len: 10, source }];
        let (at, len) = (WriteAt::End, 10);
        a.change(Op::Write(Write { ino, at, pieces, len, mtime: None, clear_privileges: false }), Hold::default()).await
    };
    assert!(matches!(refer(kept).await.body, MetaBody::Changed(BatchReply::Done(_))));
    let store = StoreId(1);
    let transport = world.net.transport(Peer::new(Role::Store, 1), "store");
    let tell = async |request: MetaRequest| {
        let frame = Frame { kind: KIND_META, message: encode(&request).into(), bulk: Bytes::new() };
        let reply = transport.call(META, frame, Duration::from_secs(30)).await.expect("answer");
        decode::<MetaReply>(&reply.message).expect("a reply").body
    };
    let disks = vec![DiskInfo { id: DiskId([1; 16]), weight: 1 }];
    let info = StoreInfo { id: store, address: "store:1".into(), host: String::new(), zone: String::new(), disks };
    assert_eq!(tell(MetaRequest::RegisterStore { info }).await, MetaBody::StoreRegistered(store));
    let offer = |store| MetaRequest::OfferChunks { store, chunks: vec![stray, kept], aging: false };
    assert_eq!(tell(offer(store)).await, MetaBody::Done);
    assert_eq!(tell(offer(StoreId(2))).await, MetaBody::Error(FsError::AccessDenied));
    // The next round of collecting takes it up.
    let beat = || MetaRequest::StoreHeartbeat { store, map_epoch: 1, disks: Vec::new(), confirmed: Vec::new() };
    let batch = loop {
        let MetaBody::StoreOrders(orders) = tell(beat()).await else { panic!("no orders") };
        match orders.delete.into_iter().next() {
            Some(batch) => break batch,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!((batch.epoch, batch.chunks), (2, vec![stray]));
    let failed = BatchReply::Failed { index: 0, error: FsError::PutAgain { epoch: 2 } };
    assert_eq!(refer(stray).await.body, MetaBody::Changed(failed));
    // A store that waits for the epoch to go on is heard as well.
    assert_eq!(tell(MetaRequest::OfferChunks { store, chunks: Vec::new(), aging: true }).await, MetaBody::Done);
    while !matches!(tell(beat()).await, MetaBody::StoreOrders(orders) if orders.old_before == 2) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn nobody_ships_what_it_has_no_lease_on() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let reserved = a.change(Op::Reserve { numbers: 16, upto: Allowance::default() }, Hold::default()).await.body;
    let MetaBody::Changed(BatchReply::Done(replies)) = reserved else { panic!("{reserved:?}") };
    let [OpReply::Reserved { first: Some(first), .. }] = &replies[..] else { panic!("{replies:?}") };
    let Op::Create(plain) = create("made") else { unreachable!() };
    let op = Op::Create(Create { ino: Some(*first), ..plain });
    let ship = |sequence| {
        let changes = vec![Dated { at: Time { sec: 5, nsec: 0 }, op: op.clone() }];
        world.ask(MetaRequest::Ship { session: a.session, sequence, acknowledged: 0, changes })
    };
    assert_eq!(ship(50).await.body, MetaBody::Error(FsError::Stale));
    let (session, dir, want) = (a.session, Ino::ROOT, Hold { lease: Lease::Write, open: false });
    let listed = world
        .ask(MetaRequest::ReadDir { session, dir, after: 0, entries_max: 9, attrs: true, unasked: false, want })
        .await;
    assert_eq!(listed.granted[0].hold.lease, Lease::Write);
    let shipped = ship(51).await;
    assert_eq!(shipped.body, MetaBody::Changed(BatchReply::Done(Vec::new())));
    let made = Hold { lease: Lease::Write, open: true };
    assert_eq!(shipped.granted.iter().map(|claim| (claim.ino, claim.hold)).collect::<Vec<_>>(), [(*first, made)]);
    // Another client, who has heard of a number, waits until whoever has it has shipped.
    let mut events = a.events().await;
    let unused = Ino(first.0 + 3);
    let answer = async {
        let Event::Look { ino, grant, .. } = next(&mut events).await else { panic!("not a look") };
        assert_eq!(ino, unused);
        a.give(Claim { ino, hold: Hold::default(), grant }).await;
    };
    let ask = world.ask(MetaRequest::GetAttr { session: b.session, ino: unused, want: Hold::default() });
    let (asked, ()) = tokio::join!(ask, answer);
    assert_eq!(asked.body, MetaBody::Error(FsError::NotFound));
    world.stop().await;
}

/// The names are locked while a recall goes on, and what comes home may put something else behind them.
#[tokio::test]
async fn a_change_that_waited_sees_what_was_shipped_meanwhile() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let (old, _) = a.create("n", Hold::default()).await;
    let (new, _) = a.create("other", Hold { lease: Lease::Write, open: false }).await;
    let (session, dir, want) = (a.session, Ino::ROOT, Hold { lease: Lease::Write, open: false });
    world.ask(MetaRequest::ReadDir { session, dir, after: 0, entries_max: 9, attrs: true, unasked: false, want }).await;
    let mut events = a.events().await;
    let comes_home = async {
        let mut recalled = Vec::new();
        while recalled.len() < 2 {
            let Event::Recall { ino, grant, .. } = next(&mut events).await else { panic!("not a recall") };
            recalled.push(Claim { ino, hold: Hold::default(), grant });
        }
        assert_eq!(recalled.iter().map(|claim| claim.ino).collect::<Vec<_>>(), [Ino::ROOT, old]);
        let name = |text| Name::new(text).unwrap();
        let (from, to, mode) = (name("other"), name("n"), RenameMode::Replace);
        let op = Op::Rename { from_dir: Ino::ROOT, from, to_dir: Ino::ROOT, to, mode };
        let changes = vec![Dated { at: Time { sec: 5, nsec: 0 }, op }];
        let shipped = world.ask(MetaRequest::Ship { session, sequence: 90, acknowledged: 0, changes }).await;
        assert_eq!(shipped.body, MetaBody::Changed(BatchReply::Done(Vec::new())));
        for claim in recalled {
            a.give(claim).await;
        }
        // Now the lease on what is behind the name since.
        let Event::Recall { ino, grant, .. } = next(&mut events).await else { panic!("not a recall") };
        assert_eq!(ino, new);
        a.give(Claim { ino, hold: Hold::default(), grant }).await;
    };
    let (removed, ()) = tokio::join!(b.change(unlink("n"), Hold::default()), comes_home);
    let MetaBody::Changed(BatchReply::Done(replies)) = removed.body else { panic!("{:?}", removed.body) };
    assert!(matches!(&replies[..], [OpReply::Removed { gone: Some(gone) }] if gone.ino == new), "{replies:?}");
    world.stop().await;
}

#[tokio::test]
async fn who_may_decide_about_locks_tells_what_it_decided_before_another_hears_of_them() {
    let world = World::new().await;
    let (a, b) = (world.session().await, world.session().await);
    let mut told = a.events().await;
    let write = Hold { lease: Lease::Write, open: true };
    let (ino, granted) = a.create("f", write).await;
    assert_eq!(granted[0].hold, write);
    let decides = async |client: &Client<'_>| {
        let reply = world.ask(MetaRequest::OwnLocks { session: client.session, ino }).await;
        let MetaBody::OwnLocks(own) = reply.body else { panic!("{:?}", reply.body) };
        own
    };
    assert_eq!(decides(&b).await, None, "it has no lease");
    assert_eq!(decides(&a).await, Some(vec![]));
    let (space, mode, range) = (LockSpace::Range, LockMode::Exclusive, LockRange { start: 0, end: 9 });
    let own = OwnLock { space, owner: 1, mode, range, pid: 1 };
    let theirs = LockRequest { ino, space, owner: 1, mode: Some(mode), range: LockRange { start: 9, end: 9 }, pid: 1 };
    let send_home = async {
        let Event::Recall { ino: recalled, grant, .. } = next(&mut told).await else { panic!("no recall") };
        let op = Op::SetLocks { ino, locks: vec![own] };
        let (session, sequence, changes) = (a.session, 50, vec![Dated { at: Time::default(), op }]);
        let shipped = world.ask(MetaRequest::Ship { session, sequence, acknowledged: 0, changes }).await;
        assert_eq!((recalled, shipped.body), (ino, MetaBody::Changed(BatchReply::Done(vec![]))));
        a.give(Claim { ino, hold: Hold { lease: Lease::Read, open: true }, grant }).await;
    };
    let (refused, ()) = tokio::join!(b.change(Op::Lock(theirs), Hold::default()), send_home);
    let MetaBody::Changed(BatchReply::Done(replies)) = refused.body else { panic!("{:?}", refused.body) };
    assert!(matches!(&replies[..], [OpReply::LockHeld(held)] if held.range == range), "{replies:?}");
    assert_eq!(decides(&a).await, None, "a lease for reading is not enough");
    world.stop().await;
}
