//! Sessions: what a client holds, and what a leader tells it.

use rkyv::{Archive, Deserialize, Serialize};

use super::attr::{Attr, FileKind};
use super::id::{Ino, SessionId};
use super::name::Name;
use super::volume::Volume;

/// What a session holds, or wants to hold, on an inode.
///
/// `open` keeps an unlinked inode alive; `lease` says what may be cached. They are independent: a contended file is open
/// without a lease.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    pub lease: Lease,
    pub open: bool,
}

/// A lease on one inode: attributes, xattrs and, of a directory, entries; of a file, extents and data.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lease {
    #[default]
    None,
    /// Shared: may be cached.
    Read,
    /// Exclusive: file data, size and times may be changed locally and shipped later.
    Write,
}

/// A hold with its place in the order of grants on this leader. A recall names the `grant` it ends: a grant that
/// arrives after its own recall is dropped.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub ino: Ino,
    pub hold: Hold,
    pub grant: u64,
}

/// What was done to an inode before this look is shipped, and its lease is kept.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub ino: Ino,
    pub look: u64,
}

/// What a client says of itself with each heartbeat.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// The most that it has taken so far, for people to look at.
    pub memory_bytes: u64,
    /// All that it has put into stores so far: who owes an answer and stores what has to be stored before is waited for.
    pub stored_bytes: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SessionOpened {
    pub session: SessionId,
    pub volume: Volume,
    pub read_only: bool,
    pub heartbeat: HeartbeatReply,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The leader's Raft term: when it grew, leases must be reclaimed.
    pub term: u64,
    pub map_epoch: u64,
    /// The collection epoch: puts from now on carry it.
    pub collection_epoch: u64,
    /// The leader's clock, so that a client's timestamps do not run away: nanoseconds since 1970.
    pub now_ns: i64,
}

/// Which part of a listing is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirPart {
    /// From the cookie after this one on.
    pub after: u64,
    pub entries: usize,
    /// With what the names lead to.
    pub attrs: bool,
    /// Nobody waits for it.
    pub unasked: bool,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct DirPage {
    /// The directory itself.
    pub dir: Attr,
    /// New inodes inherit an ACL.
    pub has_default_acl: bool,
    pub entries: Vec<DirEntry>,
    /// Nothing comes after the last of these.
    pub end: bool,
    /// The cookie of the next name to come: every one that is there has a lower one.
    pub next_cookie: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct DirEntry {
    pub name: Name,
    pub ino: Ino,
    pub kind: FileKind,
    /// Where a listing goes on after this entry; at least 3, never reused within a directory.
    pub cookie: u64,
    /// If it was asked for, and a lease on the inode comes with the reply.
    pub attr: Option<Attr>,
}

/// What a leader tells a session unasked.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Event {
    /// The stream is open; the leader's term.
    Hello { term: u64 },
    /// Give up everything beyond `keep` on this inode that was granted up to `grant`, then `Yield`.
    Recall { ino: Ino, keep: Lease, grant: u64 },
    /// Somebody reads this inode: ship what was done to it. Then `Yield`, and keep `Read` of what was granted up to `grant`; or,
    /// if it is changed all the time, keep what is held and say the number of the look.
    Look { ino: Ino, grant: u64, look: u64 },
    /// Give back what was set aside of the quotas and is not needed (`Op::Reserve`): others have need of it.
    Spare,
}
