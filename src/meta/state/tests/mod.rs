//! The state machine without Raft and without network: commands in, outcomes out, and every invariant checked after
//! each of them.

mod attr;
mod chunk;
mod data;
mod lock;
mod member;
mod namespace;
mod random;
mod rename;
mod replica;
mod session;
mod ship;
mod tx;
mod volume;
mod xattr;

use std::sync::Arc;

use super::State;
use super::schema::Session;
use crate::meta::command::{Command, Outcome};
use crate::meta::raft::Machine;
use crate::types::allowance::Allowance;
use crate::types::attr::{Attr, Owner, SetAttr, Time};
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::extent::{ChunkPart, Extent, Source};
use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::name::Name;
use crate::types::op::{BatchReply, Create, NewNode, Op, OpReply, Piece, RenameMode, Write, WriteAt};
use crate::types::record::Role;
use crate::types::volume::{NewVolume, VolumePolicy};

pub use crate::kv::memory::MemoryKv as Memory;

/// A state with one volume and one session; time moves by a second with every command.
pub struct World {
    pub state: State,
    pub tree: TreeId,
    pub session: SessionId,
    pub sequence: u64,
    pub seconds: i64,
    /// Whether to look at all invariants after every command.
    pub checks: bool,
}

pub const CHUNK: u64 = 64 << 10;
pub const ROOT: Ino = Ino::ROOT;

pub fn policy() -> VolumePolicy {
    VolumePolicy { chunk_bytes: CHUNK as u32, ..VolumePolicy::default() }
}

impl World {
    pub fn new() -> World {
        World::with(policy())
    }

    pub fn with(policy: VolumePolicy) -> World {
        let state = State::new(Arc::new(Memory::default()));
        let (tree, session) = (TreeId(1), SessionId(1));
        let mut world = World { state, tree, session, sequence: 0, seconds: 1000, checks: true };
        let now = world.now();
        let volume = NewVolume { policy, ..NewVolume::named("v") };
        let created = world.apply(Command::CreateVolume { volume, now });
        assert!(matches!(created, Outcome::Volume(volume) if volume.tree == tree));
        assert_eq!(world.open("host", false), session);
        world
    }

    pub fn now(&self) -> Time {
        Time { sec: self.seconds, nsec: 0 }
    }

    pub fn apply(&mut self, command: Command) -> Outcome {
        self.seconds += 1;
        let outcomes = self.state.apply(&self.seconds.to_be_bytes(), &[command.encode()]).unwrap();
        if self.checks {
            self.check();
        }
        Outcome::decode(&outcomes[0]).unwrap()
    }

    pub fn check(&self) {
        let violations = self.state.check().unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }

    pub fn open(&mut self, client: &str, read_only: bool) -> SessionId {
        match self.open_after("v", client, read_only, None) {
            Outcome::Session { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }

    pub fn open_after(&mut self, volume: &str, client: &str, read_only: bool, after: Option<SessionId>) -> Outcome {
        let attempt = self.seconds as u64;
        self.attempt(volume, client, read_only, after, attempt)
    }

    pub fn attempt(
        &mut self,
        volume: &str,
        client: &str,
        read_only: bool,
        after: Option<SessionId>,
        attempt: u64,
    ) -> Outcome {
        let (volume, client, role, now) = (volume.into(), client.into(), Role::Client, self.now());
        self.apply(Command::OpenSession { volume, client, role, credential: 0, read_only, after, attempt, now })
    }

    pub fn change(&mut self, session: SessionId, sequence: u64, acknowledged: u64, ops: Vec<Op>) -> Outcome {
        let now = Time { sec: self.seconds + 1, nsec: 0 };
        self.apply(Command::Change { session, sequence, acknowledged, now, ops })
    }

    pub fn batch(&mut self, ops: Vec<Op>) -> BatchReply {
        self.sequence += 1;
        match self.change(self.session, self.sequence, self.sequence, ops) {
            Outcome::Changed(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub fn op(&mut self, op: Op) -> Result<OpReply, FsError> {
        match self.batch(vec![op]) {
            BatchReply::Done(mut replies) => Ok(replies.remove(0)),
            BatchReply::Failed { index: 0, error } => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub fn make(&mut self, dir: Ino, name: &str, node: NewNode, mode: u32) -> Result<Attr, FsError> {
        match self.op(create(dir, name, node, mode))? {
            OpReply::Entry { attr, created: true } => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    pub fn file(&mut self, name: &str) -> Ino {
        self.make(ROOT, name, NewNode::File, 0o644).unwrap().ino
    }

    pub fn dir(&mut self, dir: Ino, name: &str) -> Ino {
        self.make(dir, name, NewNode::Dir, 0o755).unwrap().ino
    }

    pub fn attr(&self, ino: Ino) -> Attr {
        self.state.view(|view| view.attr(self.tree, ino)).unwrap()
    }

    pub fn lookup(&self, dir: Ino, wanted: &str) -> Option<Ino> {
        self.state.view(|view| view.lookup(self.tree, dir, &name(wanted))).map(|attr| attr.ino).ok()
    }

    pub fn extents(&self, ino: Ino) -> Vec<Extent> {
        self.state.view(|view| view.extents(self.tree, ino, 0, u64::MAX)).unwrap().extents
    }

    pub fn session_record(&self, session: SessionId) -> Option<Session> {
        self.state.view(|view| view.session(session)).ok()
    }

    /// Wants so much of the quotas in all; what it has then.
    pub fn want(&mut self, inodes: u64, bytes: u64) -> Allowance {
        match self.op(Op::Reserve { numbers: 0, upto: Allowance { inodes, bytes } }).unwrap() {
            OpReply::Reserved { first: None, allowance } => allowance,
            other => panic!("{other:?}"),
        }
    }

    pub fn write(&mut self, ino: Ino, offset: u64, source: Source, len: u32) -> Result<Attr, FsError> {
        match self.op(write(ino, WriteAt::Offset(offset), source, len))? {
            OpReply::Written { attr, .. } => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    pub fn set(&mut self, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        match self.op(Op::SetAttr { ino, set })? {
            OpReply::Attr(attr) => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    pub fn unlink(&mut self, dir: Ino, gone: &str) -> Result<OpReply, FsError> {
        self.op(Op::Unlink { dir, name: name(gone) })
    }

    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> Result<OpReply, FsError> {
        let (from_dir, from) = (from.0, name(from.1));
        let (to_dir, to) = (to.0, name(to.1));
        self.op(Op::Rename { from_dir, from, to_dir, to, mode })
    }

    pub fn reap(&mut self, inos: &[Ino]) -> Vec<Ino> {
        match self.apply(Command::Reap { tree: self.tree, inos: inos.to_vec() }) {
            Outcome::Reaped { left } => left,
            other => panic!("{other:?}"),
        }
    }
}

pub fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

pub fn create(dir: Ino, wanted: &str, node: NewNode, mode: u32) -> Op {
    let name = name(wanted);
    Op::Create(Create { dir, name, node, mode, umask: 0o022, uid: 10, gid: 20, exclusive: true, ino: None })
}

pub fn write(ino: Ino, at: WriteAt, source: Source, len: u32) -> Op {
    let pieces = vec![Piece { offset: 0, len, source }];
    Op::Write(Write { ino, at, pieces, len: len.into(), mtime: None, clear_privileges: false })
}

/// A whole made-up chunk of the largest size, put at a collection epoch.
pub fn chunk(seed: u8, put_epoch: u64) -> Source {
    Source::Chunk(ChunkPart { id: ChunkId([seed; 32]), chunk_bytes: CHUNK as u32, offset: 0, put_epoch })
}

pub fn inline(bytes: &[u8]) -> Source {
    Source::Inline(bytes.to_vec())
}
