//! What the Raft log holds: commands to the metadata state machine, and their outcomes.
//!
//! Owns their encoding. A command carries everything its execution depends on besides the state: the time, the hash of
//! a secret, the identity of who asks. So every replica that applies it comes to the same state and the same outcome.

use rkyv::{Archive, Deserialize, Serialize};

use crate::types::api_key::ApiKey;
use crate::types::attr::Time;
use crate::types::cluster::StoreInfo;
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::id::{Ino, MetaId, SessionId, StoreId, TreeId};
use crate::types::op::{BatchReply, Dated, Op};
use crate::types::record::{ClientGrant, MetaInfo, Role};
use crate::types::volume::{NewVolume, Volume, VolumeChange};
use crate::wire::codec::{self, DecodeError};

/// The layout of [`Command`] and [`Outcome`]; the last byte of either's encoding.
const VERSION: u8 = 9;

/// One change of the replicated state.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Registers a client on a volume. Who may do that was decided before: role and credential are only remembered.
    OpenSession {
        volume: String,
        client: String,
        /// With `credential` who opens it: each role counts its members from 1.
        role: Role,
        credential: u64,
        read_only: bool,
        /// The expired session that it goes on from.
        after: Option<SessionId>,
        /// The same when the answer was lost and it is asked again.
        attempt: u64,
        now: Time,
    },
    /// The client leaves: its locks and its reply table go; later commands of it are refused. Idempotent.
    CloseSession {
        session: SessionId,
    },
    /// The same, decided by the leader because the client has been silent for its time to live.
    ExpireSession {
        session: SessionId,
    },
    /// A batch of one session: all operations in order, or none. `sequence` makes it happen once; replies of sequences
    /// below `acknowledged` are not needed any more.
    Change {
        session: SessionId,
        sequence: u64,
        acknowledged: u64,
        now: Time,
        ops: Vec<Op>,
    },
    /// What a client has done on its own, in the order in which it did. As `Change`; only writes are replied to.
    Ship {
        session: SessionId,
        sequence: u64,
        acknowledged: u64,
        changes: Vec<Dated>,
    },
    /// A bounded part of a change that is too large for one command, done before it. Refused once `sequence` is answered.
    Part {
        session: SessionId,
        sequence: u64,
        now: Time,
        op: Op,
    },
    /// Frees orphans that nobody has open, a bounded number of extents at a time.
    Reap {
        tree: TreeId,
        inos: Vec<Ino>,
    },
    /// Frees a part of a deleted volume's tree.
    ReapTree {
        tree: TreeId,
    },
    /// Begins a collection epoch and condemns those of `chunks` that still have no reference, or never had one. With no
    /// chunks at all it only begins the epoch (which ages what is releasable).
    Condemn {
        chunks: Vec<ChunkId>,
    },
    /// A store has deleted what these batches told it to.
    ConfirmDelete {
        store: StoreId,
        epochs: Vec<u64>,
    },
    /// Announces a store. `info.id` 0 finds it by its disks or its address, or gives it the next id.
    RegisterStore {
        info: StoreInfo,
    },
    CreateVolume {
        volume: NewVolume,
        now: Time,
    },
    /// Refused where it would be too small for what it holds; `Promised` where it would for what sessions may add.
    ChangeVolume {
        name: String,
        change: VolumeChange,
    },
    /// Refused while sessions are open on it. The tree is freed afterwards by [`Command::ReapTree`].
    DeleteVolume {
        name: String,
    },
    /// Admits whoever knows the secret behind `hash`, once.
    CreateToken {
        hash: [u8; 32],
        role: Role,
        grant: ClientGrant,
        expires: Time,
    },
    /// Spends a token. `key` is the hash of the joiner's public key: the same joiner that asks again gets the same id.
    UseToken {
        hash: [u8; 32],
        key: [u8; 32],
        role: Role,
        address: String,
        now: Time,
    },
    /// Admits to the HTTP interface whoever knows the secret behind `hash`.
    CreateApiKey {
        hash: [u8; 32],
        key: ApiKey,
    },
    DeleteApiKey {
        name: String,
    },
    /// Remembers the address of a metadata server; id 0 gives it the next id.
    AddMeta {
        info: MetaInfo,
    },
}

/// What a command came to.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Nothing happened; a program is told by errno.
    Error(FsError),
    /// Nothing happened; one sentence for people.
    Refused(String),
    /// `OpenSession`.
    Session {
        session: SessionId,
        volume: Volume,
        read_only: bool,
    },
    /// `OpenSession`: this session still has the volume, and loses it to who asks again.
    Fenced {
        session: SessionId,
    },
    /// `Change`, the first time and every time after.
    Changed(BatchReply),
    /// `Reap`: these were too large for one command; ask again.
    Reaped {
        left: Vec<Ino>,
    },
    /// `ReapTree`: whether nothing is left of it.
    TreeReaped {
        done: bool,
    },
    /// `Condemn`: the collection epoch begun, and how many chunks were condemned.
    Condemned {
        epoch: u64,
        chunks: u64,
    },
    /// `RegisterStore`.
    Store {
        id: StoreId,
        map_epoch: u64,
    },
    /// `CreateVolume`, `ChangeVolume`.
    Volume(Volume),
    /// `UseToken`: the member's number within its role, and what a client may do.
    Member {
        id: u64,
        grant: ClientGrant,
    },
    /// `AddMeta`.
    Meta(MetaId),
}

macro_rules! versioned {
    ($type:ident) => {
        impl $type {
            pub fn encode(&self) -> Vec<u8> {
                let mut bytes = codec::encode(self);
                bytes.push(VERSION);
                bytes
            }

            /// # Errors
            /// `Version` for an unknown layout, `Malformed` for anything that is not one of these.
            pub fn decode(bytes: &[u8]) -> Result<$type, DecodeError> {
                match bytes.split_last() {
                    Some((&VERSION, archive)) => codec::decode(archive),
                    Some((&version, _)) => Err(DecodeError::Version(version)),
                    None => Err(DecodeError::Malformed("empty".into())),
                }
            }
        }
    };
}

versioned!(Command);
versioned!(Outcome);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_their_encoding() {
        let command = Command::Reap { tree: TreeId(3), inos: vec![Ino(9)] };
        assert_eq!(Command::decode(&command.encode()), Ok(command));
        let outcome = Outcome::Refused("no".into());
        assert_eq!(Outcome::decode(&outcome.encode()), Ok(outcome));
    }

    #[test]
    fn garbage_is_an_error() {
        assert_eq!(Command::decode(&[]), Err(DecodeError::Malformed("empty".into())));
        assert!(Command::decode(&[0xff; 40]).is_err());
        assert!(Command::decode(&[VERSION; 40]).is_err());
    }
}
