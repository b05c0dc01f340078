//! Keys and records of the index.
//!
//! A key is one table byte and then its parts, numbers big-endian, so that a scan goes through a directory by name or
//! by cookie, and through a file by block. Tables of a namespace have the tree id first. A record is an rkyv archive and
//! behind it one byte that says which layout it has; it is validated whenever it is read.

use rkyv::{Archive, Deserialize, Serialize};

use super::error::StateError;
use crate::types::allowance::Allowance;
use crate::types::api_key::ApiKey;
use crate::types::attr::{Attr, FileKind, Time};
use crate::types::cluster::ClusterMap;
use crate::types::digest::ChunkId;
use crate::types::extent::Extent;
use crate::types::id::{Ino, SessionId, StoreId, TreeId, VolumeId};
use crate::types::lock::{Lock, LockSpace};
use crate::types::name::Name;
use crate::types::op::BatchReply;
use crate::types::record::{ClientGrant, MetaInfo, Role};
use crate::types::volume::{Volume, VolumeUsage};
use crate::wire::codec::{self, Decode, Encode};

/// The first byte of every key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// What the log was applied up to; belongs to this replica, not to the state.
    Position = 0x00,
    /// `inode/{tree}{ino}`
    Inode = 0x01,
    /// `entry/{tree}{dir}{name}`
    Entry = 0x02,
    /// `cookie/{tree}{dir}{cookie}`
    Cookie = 0x03,
    /// `extent/{tree}{ino}{offset}`
    Extent = 0x04,
    /// `xattr/{tree}{ino}{name}`
    Xattr = 0x05,
    /// `lock/{tree}{ino}{space}`
    Lock = 0x06,
    /// `orphan/{tree}{ino}`
    Orphan = 0x07,
    /// `tree/{tree}`
    Tree = 0x10,
    /// `dead tree/{tree}`
    DeadTree = 0x11,
    /// `volume/{volume}`
    Volume = 0x12,
    /// `volume name/{name}`
    VolumeName = 0x13,
    /// `holder/{volume}`
    Holder = 0x14,
    /// `session/{session}`
    Session = 0x20,
    /// `window/{session}`
    Window = 0x21,
    /// `reply/{session}{sequence}`
    Reply = 0x22,
    /// `session lock/{session}{tree}{ino}{space}`
    SessionLock = 0x23,
    /// `reserved/{session}`
    Reserved = 0x24,
    /// `chunkref/{chunk}`
    ChunkRef = 0x30,
    /// `releasable/{since epoch}{chunk}`
    Releasable = 0x31,
    /// `condemned/{epoch}`
    Condemned = 0x32,
    /// `chunk totals`
    ChunkTotals = 0x33,
    /// `collection`
    Collection = 0x34,
    /// `ids`
    Ids = 0x40,
    /// `map`
    Map = 0x41,
    /// `meta/{meta}`
    Meta = 0x42,
    /// `token/{hash}`
    Token = 0x43,
    /// `credential/{role}{id}`
    Credential = 0x44,
    /// `api key/{hash}`
    ApiKey = 0x45,
    /// `api key name/{name}`
    ApiKeyName = 0x46,
}

impl Table {
    pub const ALL: [Table; 30] = [
        Table::Position,
        Table::Inode,
        Table::Entry,
        Table::Cookie,
        Table::Extent,
        Table::Xattr,
        Table::Lock,
        Table::Orphan,
        Table::Tree,
        Table::DeadTree,
        Table::Volume,
        Table::VolumeName,
        Table::Holder,
        Table::Session,
        Table::Window,
        Table::Reply,
        Table::SessionLock,
        Table::Reserved,
        Table::ChunkRef,
        Table::Releasable,
        Table::Condemned,
        Table::ChunkTotals,
        Table::Collection,
        Table::Ids,
        Table::Map,
        Table::Meta,
        Table::Token,
        Table::Credential,
        Table::ApiKey,
        Table::ApiKeyName,
    ];

    pub fn of(key: &[u8]) -> Option<Table> {
        let tag = *key.first()?;
        Table::ALL.into_iter().find(|table| *table as u8 == tag)
    }
}

/// The tables that a tree is made of, the ones with the tree id first. Inodes come last: a tree that is being freed
/// never has extents without an inode.
pub const TREE_TABLES: [Table; 7] =
    [Table::Extent, Table::Entry, Table::Cookie, Table::Xattr, Table::Lock, Table::Orphan, Table::Inode];

fn key(table: Table, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(table as u8);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// A key of numbers alone; also the prefix of longer ones.
pub fn numbers(table: Table, parts: &[u64]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 8 * parts.len());
    key.push(table as u8);
    for part in parts {
        key.extend_from_slice(&part.to_be_bytes());
    }
    key
}

pub fn position_key() -> Vec<u8> {
    numbers(Table::Position, &[])
}

pub fn inode_key(tree: TreeId, ino: Ino) -> Vec<u8> {
    numbers(Table::Inode, &[tree.0, ino.0])
}

pub fn entry_key(tree: TreeId, dir: Ino, name: &Name) -> Vec<u8> {
    key(Table::Entry, &[&tree.0.to_be_bytes(), &dir.0.to_be_bytes(), name.as_bytes()])
}

pub fn cookie_key(tree: TreeId, dir: Ino, cookie: u64) -> Vec<u8> {
    numbers(Table::Cookie, &[tree.0, dir.0, cookie])
}

pub fn extent_key(tree: TreeId, ino: Ino, offset: u64) -> Vec<u8> {
    numbers(Table::Extent, &[tree.0, ino.0, offset])
}

pub fn xattr_key(tree: TreeId, ino: Ino, name: &[u8]) -> Vec<u8> {
    key(Table::Xattr, &[&tree.0.to_be_bytes(), &ino.0.to_be_bytes(), name])
}

pub fn lock_key(tree: TreeId, ino: Ino, space: LockSpace) -> Vec<u8> {
    key(Table::Lock, &[&tree.0.to_be_bytes(), &ino.0.to_be_bytes(), &[space_byte(space)]])
}

pub fn session_lock_key(session: SessionId, tree: TreeId, ino: Ino, space: LockSpace) -> Vec<u8> {
    let numbers = [session.0.to_be_bytes(), tree.0.to_be_bytes(), ino.0.to_be_bytes()];
    key(Table::SessionLock, &[numbers.as_flattened(), &[space_byte(space)]])
}

fn space_byte(space: LockSpace) -> u8 {
    match space {
        LockSpace::Flock => 0,
        LockSpace::Range => 1,
    }
}

/// The tree, inode and space a `session lock` key names.
pub fn parse_session_lock_key(key: &[u8]) -> Result<(TreeId, Ino, LockSpace), StateError> {
    let space = match key.get(25) {
        Some(0) => LockSpace::Flock,
        Some(1) => LockSpace::Range,
        _ => return Err(StateError::Damaged("a lock key of no known space".into())),
    };
    Ok((TreeId(number_at(key, 9)?), Ino(number_at(key, 17)?), space))
}

pub fn orphan_key(tree: TreeId, ino: Ino) -> Vec<u8> {
    numbers(Table::Orphan, &[tree.0, ino.0])
}

pub fn tree_key(tree: TreeId) -> Vec<u8> {
    numbers(Table::Tree, &[tree.0])
}

pub fn dead_tree_key(tree: TreeId) -> Vec<u8> {
    numbers(Table::DeadTree, &[tree.0])
}

pub fn volume_key(volume: VolumeId) -> Vec<u8> {
    numbers(Table::Volume, &[volume.0])
}

pub fn volume_name_key(name: &str) -> Vec<u8> {
    key(Table::VolumeName, &[name.as_bytes()])
}

pub fn holder_key(volume: VolumeId) -> Vec<u8> {
    numbers(Table::Holder, &[volume.0])
}

pub fn session_key(session: SessionId) -> Vec<u8> {
    numbers(Table::Session, &[session.0])
}

pub fn window_key(session: SessionId) -> Vec<u8> {
    numbers(Table::Window, &[session.0])
}

pub fn reply_key(session: SessionId, sequence: u64) -> Vec<u8> {
    numbers(Table::Reply, &[session.0, sequence])
}

pub fn reserved_key(session: SessionId) -> Vec<u8> {
    numbers(Table::Reserved, &[session.0])
}

pub fn chunk_ref_key(chunk: &ChunkId) -> Vec<u8> {
    key(Table::ChunkRef, &[&chunk.0])
}

pub fn releasable_key(since_epoch: u64, chunk: &ChunkId) -> Vec<u8> {
    key(Table::Releasable, &[&since_epoch.to_be_bytes(), &chunk.0])
}

pub fn condemned_key(epoch: u64) -> Vec<u8> {
    numbers(Table::Condemned, &[epoch])
}

/// The key of a table that is one record.
pub fn single_key(table: Table) -> Vec<u8> {
    numbers(table, &[])
}

pub fn meta_key(meta: u64) -> Vec<u8> {
    numbers(Table::Meta, &[meta])
}

pub fn token_key(hash: &[u8; 32]) -> Vec<u8> {
    key(Table::Token, &[hash])
}

pub fn credential_key(role: Role, id: u64) -> Vec<u8> {
    let role = match role {
        Role::Meta => 0,
        Role::Store => 1,
        Role::Client => 2,
        Role::Admin => 3,
    };
    key(Table::Credential, &[&[role], &id.to_be_bytes()])
}

pub fn api_key_key(hash: &[u8; 32]) -> Vec<u8> {
    key(Table::ApiKey, &[hash])
}

pub fn api_key_name_key(name: &str) -> Vec<u8> {
    key(Table::ApiKeyName, &[name.as_bytes()])
}

/// The big-endian number at a place in a key.
///
/// # Errors
/// `Damaged` when the key is too short.
pub fn number_at(key: &[u8], at: usize) -> Result<u64, StateError> {
    key.get(at..)
        .and_then(|rest| rest.first_chunk::<8>())
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or_else(|| StateError::Damaged("a key is too short".into()))
}

/// The chunk id that ends a key.
///
/// # Errors
/// `Damaged` when the key is too short.
pub fn chunk_at_end(key: &[u8]) -> Result<ChunkId, StateError> {
    key.last_chunk::<32>()
        .map(|bytes| ChunkId(*bytes))
        .ok_or_else(|| StateError::Damaged("a chunk key is too short".into()))
}

/// What a value holds, and which layout of it.
pub trait Record: Encode + Decode {
    const VERSION: u8;
}

pub fn pack<R: Record>(record: &R) -> Vec<u8> {
    let mut value = codec::encode(record);
    value.push(R::VERSION);
    value
}

/// # Errors
/// `Damaged` when the value is not such a record.
pub fn unpack<R: Record>(value: &[u8]) -> Result<R, StateError> {
    match value.split_last() {
        Some((version, archive)) if *version == R::VERSION => codec::decode(archive)
            .map_err(|error| StateError::Damaged(format!("{}: {error}", std::any::type_name::<R>()))),
        _ => Err(StateError::Damaged(format!("not a {}", std::any::type_name::<R>()))),
    }
}

macro_rules! record {
    ($type:ty, $version:literal) => {
        impl Record for $type {
            const VERSION: u8 = $version;
        }
    };
}

/// An inode with what `stat` does not show.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    pub attr: Attr,
    /// `..` of a directory; 0 for anything else.
    pub parent: Ino,
    /// The cookie of a directory's next new name.
    pub next_cookie: u64,
    /// A symlink's target.
    pub target: Vec<u8>,
    /// Bytes of the file kept in inline extents.
    pub inline_bytes: u64,
    /// What `listxattr` would answer, in bytes.
    pub xattr_list_bytes: u32,
    pub has_default_acl: bool,
}
record!(Inode, 2);

/// The first cookie of a directory: 1 and 2 are `.` and `..`.
pub const FIRST_COOKIE: u64 = 3;

/// What a name leads to.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub ino: Ino,
    pub kind: FileKind,
    pub cookie: u64,
}
record!(Entry, 1);

/// The same by cookie, for listings.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    pub name: Name,
    pub ino: Ino,
    pub kind: FileKind,
}
record!(Cookie, 1);

// Under its own offset. Version 1 was all extents of a block.
record!(Extent, 2);

/// An extended attribute's value.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    pub value: Vec<u8>,
}
record!(Xattr, 1);

/// The locks of one inode in one space, never empty.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Locks {
    pub held: Vec<Lock>,
}
record!(Locks, 1);

/// A mark without content: an orphan, a lock of a session, a dead tree, a releasable chunk.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present;
record!(Present, 1);

/// A tree's counters.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    pub volume: VolumeId,
    pub chunk_bytes: u32,
    pub next_ino: u64,
    pub usage: VolumeUsage,
    /// What is set aside for its sessions together.
    pub promised: Allowance,
}
record!(Tree, 2);

record!(Volume, 3);

/// Who had a volume last that is for one host at a time: the session may be over.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub session: SessionId,
    /// The number it was opened with.
    pub attempt: u64,
    /// Another host has asked for the volume since, and gets it: whoever goes on from this session does not.
    pub is_fenced: bool,
}
record!(Holder, 2);

/// Which volume has a name.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeRef {
    pub id: VolumeId,
}
record!(VolumeRef, 1);

/// A client's registration.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub volume: VolumeId,
    pub tree: TreeId,
    pub client: String,
    /// With `credential` who opened it: each role counts its members from 1.
    pub role: Role,
    pub credential: u64,
    pub read_only: bool,
    pub opened: Time,
}
record!(Session, 1);

/// Which sequences of a session may still come.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Sequences below are acknowledged and refused.
    pub floor: u64,
    /// Replies below are gone from the table.
    pub trimmed: u64,
}
record!(Window, 1);

/// What is set aside for a session.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Inode numbers: from, and up to but not including.
    pub ranges: Vec<(u64, u64)>,
    /// Of the volume's quotas.
    pub allowance: Allowance,
}
record!(Reserved, 2);

/// The answer to a sequence.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub reply: BatchReply,
}
record!(Reply, 3);

/// How often a chunk is referred to, and what that means for it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    pub count: u64,
    pub bytes: u32,
    pub state: ChunkState,
}
record!(ChunkRef, 1);

impl ChunkRef {
    /// Nothing has ever referred to it.
    pub fn is_stray(&self) -> bool {
        self.bytes == 0
    }
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkState {
    Live,
    /// Not referred to since this collection epoch.
    Releasable {
        since_epoch: u64,
    },
    /// Part of the batch of this epoch: stores are deleting it.
    Condemned {
        epoch: u64,
    },
}

/// A batch of condemned chunks.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    pub chunks: Vec<ChunkId>,
    /// Stores that have not confirmed.
    pub waiting: Vec<StoreId>,
}
record!(Condemned, 1);

/// Exact counts over all chunk references.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkTotals {
    pub chunks: u64,
    pub chunk_bytes: u64,
    /// References beyond the first of each chunk.
    pub shared_references: u64,
}
record!(ChunkTotals, 1);

/// Where garbage collection is.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collection {
    pub epoch: u64,
    /// Chunks put before this epoch and unknown here may have been deleted.
    pub drop_floor: u64,
}
record!(Collection, 1);

impl Default for Collection {
    fn default() -> Self {
        Collection { epoch: 1, drop_floor: 0 }
    }
}

/// The next number of each kind.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    pub session: u64,
    pub volume: u64,
    pub tree: u64,
    pub meta: u64,
    pub store: u64,
    pub client: u64,
    pub admin: u64,
}
record!(Ids, 1);

impl Default for Ids {
    fn default() -> Self {
        Ids { session: 1, volume: 1, tree: 1, meta: 1, store: 1, client: 1, admin: 1 }
    }
}

record!(ClusterMap, 1);
record!(MetaInfo, 1);

/// A one-time token, by the hash of its secret.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub role: Role,
    pub grant: ClientGrant,
    pub expires: Time,
    pub used: Option<TokenUse>,
}
record!(Token, 1);

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenUse {
    pub key: [u8; 32],
    pub id: u64,
}

/// What a member may do.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub role: Role,
    pub id: u64,
    pub grant: ClientGrant,
    pub address: String,
}
record!(Credential, 1);
record!(ApiKey, 1);

/// By which hash a key of that name is found.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiKeyRef {
    pub hash: [u8; 32],
}
record!(ApiKeyRef, 1);
