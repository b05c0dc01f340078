//! Calls to a store (`KIND_STORE`). Chunk bytes travel as bulk, never in the message.

use rkyv::{Archive, Deserialize, Serialize};

use crate::types::digest::{ChunkId, Slot};
use crate::types::id::DiskId;

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum StoreRequest {
    /// Store chunks: their bytes follow one another in the bulk. Answered when all are durable. `epoch` is the
    /// collection epoch the writer knows: a copy last put before it is marked as put at it.
    Put { epoch: u64, chunks: Vec<PutChunk> },
    /// `len` bytes from `offset` of one chunk, checked; with `len` 0 all from there to its end.
    Get { id: ChunkId, offset: u32, len: u32 },
    /// Which of these are here?
    Has { ids: Vec<ChunkId> },
    /// How many chunks of a slot are here, and the XOR of their ids: equal on two stores means equal sets.
    SlotSummary { slot: Slot },
    /// Chunk ids of a slot in order, after one; at most 4,096.
    ListSlot { slot: Slot, after: Option<ChunkId> },
    /// In which directories of the store's host are the packs of its disks? For a client that may read them itself.
    Disks,
    /// Where in the packs are these; at most 4,096.
    Locate { ids: Vec<ChunkId> },
    /// As `Get`, and where it is, for the next time.
    GetLocated { id: ChunkId, offset: u32, len: u32 },
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutChunk {
    pub id: ChunkId,
    pub bytes: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// Everything is durable.
    Put,
    /// The bytes are the bulk. `chunk_bytes` is the whole chunk's length.
    Data {
        chunk_bytes: u32,
    },
    Has(Vec<bool>),
    Summary {
        chunks: u64,
        xor: [u8; 32],
    },
    /// Each chunk with the collection epoch it was last put at.
    Slot {
        ids: Vec<(ChunkId, u64)>,
        end: bool,
    },
    Error(StoreError),
    Disks(Vec<PackDir>),
    /// In the order of the question; `None`: no good copy here.
    Located(Vec<Option<PackSpot>>),
    /// As `Data`, and where the chunk is.
    DataAt {
        chunk_bytes: u32,
        spot: Option<PackSpot>,
    },
}

/// The directory of the packs of one disk, as the store names it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PackDir {
    pub disk: DiskId,
    pub path: String,
}

/// Where a chunk's record is.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackSpot {
    pub disk: DiskId,
    pub pack: u32,
    pub offset: u64,
    pub chunk_bytes: u32,
}

/// Why a store did not do it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("no such chunk here")]
    NotFound,
    #[error("the copy here is damaged")]
    Damaged,
    #[error("the bytes do not match the chunk's name")]
    Mismatch,
    #[error("the disk is full")]
    Full,
    #[error("the disk has failed: {0}")]
    DiskFailed(String),
    #[error("the request is malformed")]
    Invalid,
    #[error("this certificate may not do that")]
    NotAllowed,
}
