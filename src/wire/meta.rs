//! Calls to a metadata server (`KIND_META`): one [`MetaRequest`], one [`MetaReply`]; `Subscribe` alone is answered by
//! a stream of [`Event`](crate::types::session::Event)s.

use rkyv::{Archive, Deserialize, Serialize};

use crate::types::api_key::{ApiKey, ApiRole};
use crate::types::attr::Attr;
use crate::types::cluster::{ClusterMap, DiskReport, StoreInfo};
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::extent::Extent;
use crate::types::id::{Ino, MetaId, SessionId, StoreId};
use crate::types::lock::{Lock, LockRequest, OwnLock};
use crate::types::name::Name;
use crate::types::op::{BatchReply, Dated, Op};
use crate::types::record::{ClientGrant, ClusterStatus, MetaInfo, Role, SpaceReport};
use crate::types::session::{Claim, DirPage, HeartbeatReply, Hold, SessionOpened, Shown, Vitals};
use crate::types::volume::{NewVolume, Volume, VolumeChange, VolumeUsage};

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum MetaRequest {
    // Sessions.
    /// `after`: the session that this one goes on from, which has expired. On a volume for one host at a time it is refused
    /// (`TakenOver`) if another had the volume since. `attempt`: a random number that stays the same when it is asked again.
    OpenSession {
        volume: String,
        client: String,
        read_only: bool,
        after: Option<SessionId>,
        attempt: u64,
    },
    Heartbeat {
        session: SessionId,
        vitals: Vitals,
    },
    /// Opens the stream of events of this session; one at a time, a new one replaces the old.
    Subscribe {
        session: SessionId,
    },
    /// After a change of leader (`term` is the new one's): what this session still holds, in pieces of at most
    /// `RECLAIM_CLAIMS_MAX`; `done` comes with the last. Until every live session has done this or expired, the leader
    /// grants nothing and changes nothing that could conflict.
    Reclaim {
        session: SessionId,
        term: u64,
        leases: Vec<Claim>,
        done: bool,
    },
    CloseSession {
        session: SessionId,
    },
    /// The answer to recalls and looks, or a lease given up unasked: what is kept from now on.
    Yield {
        session: SessionId,
        leases: Vec<Claim>,
        shown: Vec<Shown>,
    },
    /// Write leases on these (at most `TAKE_INODES_MAX`), to change them without asking; who has leases on them gives them back. The
    /// first is to be changed; the others are likely to be, and not taken from who may be changing them. Not on what changes hands too
    /// often. Answered with the attributes of those that were granted.
    Take {
        session: SessionId,
        inos: Vec<Ino>,
    },

    // Reading a tree. `want` asks for a lease on what is read; it is granted if nothing is in the way.
    Lookup {
        session: SessionId,
        dir: Ino,
        name: Name,
        want: Hold,
    },
    /// `..` of a directory.
    Parent {
        session: SessionId,
        dir: Ino,
    },
    GetAttr {
        session: SessionId,
        ino: Ino,
        want: Hold,
    },
    ReadLink {
        session: SessionId,
        ino: Ino,
    },
    /// Entries after a cookie (0: from the first), in cookie order; at most `entries_max`, and `READDIR_ENTRIES_MAX`. `.` and
    /// `..` are the client's business. `attrs`: with what they lead to, and leases on it like the one on the directory.
    /// `unasked`: nobody waits for it, so nobody is to be recalled for it: without a lease on the directory it is refused
    /// (`WouldBlock`).
    ReadDir {
        session: SessionId,
        dir: Ino,
        after: u64,
        entries_max: u32,
        attrs: bool,
        unasked: bool,
        want: Hold,
    },
    GetXattr {
        session: SessionId,
        ino: Ino,
        name: Vec<u8>,
    },
    ListXattr {
        session: SessionId,
        ino: Ino,
    },
    /// Extents that touch `offset..offset+len`, whole blocks, as far as one reply goes (`EXTENTS_BYTES_SOFT_MAX`).
    GetExtents {
        session: SessionId,
        ino: Ino,
        offset: u64,
        len: u64,
        want: Hold,
    },
    /// All extents of files of at most `SMALL_FILE_BYTES`, at most `SMALL_FILES_MAX`, on which the session holds leases; as
    /// many of them as one reply has room for. Others are left out.
    GetSmallExtents {
        session: SessionId,
        inos: Vec<Ino>,
    },
    /// The first data (or hole) at or after `offset`.
    Seek {
        session: SessionId,
        ino: Ino,
        offset: u64,
        hole: bool,
    },
    StatFs {
        session: SessionId,
    },
    TestLock {
        session: SessionId,
        request: LockRequest,
    },
    /// By who has a Write lease: may it decide about the locks of the inode by itself, and which of them are its own?
    OwnLocks {
        session: SessionId,
        ino: Ino,
    },

    /// Change a tree. Retried with the same `sequence` it happens once. `acknowledged`: replies below are not needed
    /// any more. `want` asks for a hold on the inode a `Create` made or a single-inode operation touched.
    Change {
        session: SessionId,
        sequence: u64,
        acknowledged: u64,
        ops: Vec<Op>,
        want: Hold,
    },
    /// What the session has done on its own, under Write leases on every inode concerned. As `Change`; replied to with
    /// `Changed`, which has the replies to writes and copies alone. Write and open holds on all that it made are granted.
    Ship {
        session: SessionId,
        sequence: u64,
        acknowledged: u64,
        changes: Vec<Dated>,
    },
    /// A lock that is waited for: answered when it is held, or with `Interrupted` after `CancelLock`.
    WaitLock {
        session: SessionId,
        sequence: u64,
        acknowledged: u64,
        request: LockRequest,
    },
    CancelLock {
        session: SessionId,
        sequence: u64,
    },

    // Stores.
    StoreHeartbeat {
        store: StoreId,
        map_epoch: u64,
        disks: Vec<DiskReport>,
        confirmed: Vec<u64>,
    },
    /// Chunks of a store that were last put before [`StoreOrders::old_before`], referred to or not, at most
    /// `OFFER_CHUNKS_MAX`: those that nothing has ever referred to are condemned. `aging`: it has others that would be
    /// offered had the collection epoch gone on.
    OfferChunks {
        store: StoreId,
        chunks: Vec<ChunkId>,
        aging: bool,
    },
    /// Announces a store's address and disks; changes the map when they changed.
    RegisterStore {
        info: StoreInfo,
    },

    // Operators.
    CreateVolume(NewVolume),
    /// Answered with the volume as it is then. What sessions were promised of a quota that becomes smaller is asked back first.
    ChangeVolume {
        name: String,
        change: VolumeChange,
    },
    ListVolumes,
    ShowVolume {
        name: String,
    },
    DeleteVolume {
        name: String,
    },
    CreateToken {
        role: Role,
        grant: ClientGrant,
        ttl_ms: u64,
    },
    /// A key to the HTTP interface: of its secret, which whoever asks has made, only the hash. `ttl_ms`: from now; `None` never ends.
    CreateApiKey {
        hash: [u8; 32],
        name: String,
        role: ApiRole,
        volumes: Vec<String>,
        ttl_ms: Option<u64>,
    },
    ListApiKeys,
    DeleteApiKey {
        name: String,
    },
    /// What the holder of this secret may do. `NotFound`: there is no such key, or it has expired.
    CheckApiKey {
        hash: [u8; 32],
    },
    Status,
    /// Which servers there are and who leads; answered by every server, without a session.
    Members,
    GetMap,

    // Sessions that other processes go on with.
    /// By the process that comes after the one that opened it, and has its place with the kernel: what `OpenSession` was answered
    /// with. Its answer counts as a heartbeat.
    ResumeSession {
        session: SessionId,
    },
    /// What the session holds on inodes after this one, at most `RECLAIM_CLAIMS_MAX`, in their order.
    Holdings {
        session: SessionId,
        after: Ino,
    },

    /// What volumes of so many copies can hold together: `Space`, without a quota. An operator's.
    Room {
        copies: u8,
    },
}

/// What every reply to a session carries besides its body.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct MetaReply {
    pub body: MetaBody,
    /// Holds granted with this reply (the whole hold on that inode from now on).
    pub granted: Vec<Claim>,
}

impl MetaRequest {
    /// Whose request it is, of those that belong to a session.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            MetaRequest::Heartbeat { session, .. }
            | MetaRequest::ResumeSession { session }
            | MetaRequest::Subscribe { session }
            | MetaRequest::Reclaim { session, .. }
            | MetaRequest::CloseSession { session }
            | MetaRequest::Yield { session, .. }
            | MetaRequest::Take { session, .. }
            | MetaRequest::Lookup { session, .. }
            | MetaRequest::Parent { session, .. }
            | MetaRequest::GetAttr { session, .. }
            | MetaRequest::ReadLink { session, .. }
            | MetaRequest::ReadDir { session, .. }
            | MetaRequest::GetXattr { session, .. }
            | MetaRequest::ListXattr { session, .. }
            | MetaRequest::GetExtents { session, .. }
            | MetaRequest::GetSmallExtents { session, .. }
            | MetaRequest::Seek { session, .. }
            | MetaRequest::StatFs { session }
            | MetaRequest::TestLock { session, .. }
            | MetaRequest::OwnLocks { session, .. }
            | MetaRequest::Holdings { session, .. }
            | MetaRequest::Change { session, .. }
            | MetaRequest::Ship { session, .. }
            | MetaRequest::WaitLock { session, .. }
            | MetaRequest::CancelLock { session, .. } => Some(*session),
            MetaRequest::OpenSession { .. }
            | MetaRequest::StoreHeartbeat { .. }
            | MetaRequest::OfferChunks { .. }
            | MetaRequest::RegisterStore { .. }
            | MetaRequest::CreateVolume(_)
            | MetaRequest::ChangeVolume { .. }
            | MetaRequest::Room { .. }
            | MetaRequest::ListVolumes
            | MetaRequest::ShowVolume { .. }
            | MetaRequest::DeleteVolume { .. }
            | MetaRequest::CreateToken { .. }
            | MetaRequest::CreateApiKey { .. }
            | MetaRequest::ListApiKeys
            | MetaRequest::DeleteApiKey { .. }
            | MetaRequest::CheckApiKey { .. }
            | MetaRequest::Status
            | MetaRequest::Members
            | MetaRequest::GetMap => None,
        }
    }
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum MetaBody {
    /// The request was refused, or failed.
    Error(FsError),
    /// Not the leader; who is, if known. Nothing happened here; ask there.
    NotLeader(Option<MetaInfo>),
    /// For people: an operator's request was refused, one sentence.
    Refused(String),
    Done,
    Session(SessionOpened),
    Heartbeat(HeartbeatReply),
    Attr(Attr),
    Attrs(Vec<Attr>),
    Target(Vec<u8>),
    Entries(DirPage),
    Value(Vec<u8>),
    Names(Vec<Vec<u8>>),
    /// All extents that touch `covered` bytes from the offset asked for; at least two blocks, or as many as were asked.
    Extents {
        attr: Attr,
        extents: Vec<Extent>,
        covered: u64,
    },
    SmallExtents(Vec<(Attr, Vec<Extent>)>),
    Offset(u64),
    Space(SpaceReport),
    Lock(Option<Lock>),
    /// `None`: it may not decide.
    OwnLocks(Option<Vec<OwnLock>>),
    Changed(BatchReply),
    StoreOrders(StoreOrders),
    StoreRegistered(StoreId),
    Volume(Volume, VolumeUsage),
    Volumes(Vec<(Volume, VolumeUsage)>),
    /// A join token in its text form.
    Token(String),
    ApiKey(ApiKey),
    ApiKeys(Vec<ApiKey>),
    Status(ClusterStatus),
    Members {
        leader: Option<MetaId>,
        metas: Vec<MetaInfo>,
    },
    Map(ClusterMap),
    /// As `NotLeader`, but what was asked for may have been done, or may still be.
    Uncertain(Option<MetaInfo>),
    /// As a leader of this term has noted them. `end`: there are no more.
    Holdings {
        term: u64,
        claims: Vec<Claim>,
        end: bool,
    },
}

/// What a store is told in the reply to its heartbeat.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct StoreOrders {
    pub map_epoch: u64,
    /// Delete copies that were last put before the collection epoch; confirm the batch in a later heartbeat.
    pub delete: Vec<DeleteBatch>,
    /// Chunks put before this collection epoch may be offered.
    pub old_before: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct DeleteBatch {
    /// The collection epoch at which these were condemned; also the batch's name.
    pub epoch: u64,
    pub chunks: Vec<ChunkId>,
}
