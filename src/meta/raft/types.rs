//! The types openraft is told to use, and their form in our log and files.

use std::fmt;
use std::io;

use bytes::Bytes;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::{Entry, EntryPayload, LogId, Raft, SnapshotMeta, StoredMembership, Vote};
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::log::{self, LogPoint, VoteRecord};
use super::machine::MachineStore;
use crate::types::record::MetaInfo;

openraft::declare_raft_types!(
    /// openraft's names for our types.
    pub Types:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = MetaInfo,
);

pub type Leader = LeaderId<u64, u64>;
pub type RaftLogId = LogId<Leader>;
pub type RaftVote = Vote<Leader>;
pub type RaftEntry = Entry<Leader, EntryPayload<Command, u64, MetaInfo>>;
pub type RaftStoredMembership = StoredMembership<Leader, u64, MetaInfo>;
pub type RaftSnapshotMeta = SnapshotMeta<Leader, u64, MetaInfo>;
pub type RaftHandle = Raft<Types, MachineStore>;

/// A command: bytes that only the machine understands. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Command(pub Bytes);

/// What the machine answered.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Reply(pub Vec<u8>);

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Command({} bytes)", self.0.len())
    }
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CommandVisitor;
        impl Visitor<'_> for CommandVisitor {
            type Value = Command;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("the bytes of a command")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Command, E> {
                Ok(Command(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(CommandVisitor).map_err(D::Error::custom)
    }
}

/// What the machine has applied last, as it is stored beside the machine's own state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub applied: Option<RaftLogId>,
    pub membership: RaftStoredMembership,
}

/// Serialises one of our own values.
///
/// # Errors
/// Only if a value cannot be expressed in postcard, which is a bug.
pub fn to_bytes<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

/// Reads a value back.
///
/// # Errors
/// `InvalidData` when the bytes are not exactly one such value.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(invalid(postcard::Error::DeserializeBadEncoding)),
        Err(error) => Err(invalid(error)),
    }
}

pub fn log_id(point: LogPoint) -> RaftLogId {
    LogId::new(LeaderId { term: point.term, node_id: point.leader }, point.index)
}

pub fn log_point(id: &RaftLogId) -> LogPoint {
    LogPoint { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

pub fn vote(record: VoteRecord) -> RaftVote {
    Vote { leader_id: LeaderId { term: record.term, node_id: record.leader }, committed: record.committed }
}

pub fn vote_record(vote: &RaftVote) -> VoteRecord {
    VoteRecord { term: vote.leader_id.term, leader: vote.leader_id.node_id, committed: vote.committed }
}

/// An entry as the log keeps it.
///
/// # Errors
/// A membership that cannot be expressed, which is a bug.
pub fn to_log(entry: RaftEntry) -> io::Result<log::Entry> {
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => (log::EntryKind::Blank, Bytes::new()),
        EntryPayload::Normal(Command(bytes)) => (log::EntryKind::Command, bytes),
        EntryPayload::Membership(membership) => (log::EntryKind::Membership, to_bytes(&membership)?.into()),
    };
    Ok(log::Entry { point: log_point(&entry.log_id), kind, payload })
}

/// An entry as openraft takes it.
///
/// # Errors
/// `InvalidData` for a membership that does not decode.
pub fn from_log(entry: log::Entry) -> io::Result<RaftEntry> {
    let payload = match entry.kind {
        log::EntryKind::Blank => EntryPayload::Blank,
        log::EntryKind::Command => EntryPayload::Normal(Command(entry.payload)),
        log::EntryKind::Membership => EntryPayload::Membership(from_bytes(&entry.payload)?),
    };
    Ok(Entry { log_id: log_id(entry.point), payload })
}
