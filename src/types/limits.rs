//! Every bound in the system, with the reason and the relations between them.

/// Longest file name, in bytes (what the kernel allows).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest symlink target (PATH_MAX without the NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Longest extended attribute name and value (what the kernel allows).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// `listxattr` answers at most 64 KiB, which is the kernel's bound on the list.
pub const XATTR_LIST_BYTES_MAX: usize = 64 << 10;
/// Hard links to one inode, as on ext4 for files; directories are not bounded by it.
pub const LINKS_MAX: u32 = 65_000;
/// Largest file: the largest offset the kernel passes.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// A volume's chunk (and file block) size: default, and the bounds it may be set to. Powers of two.
pub const CHUNK_BYTES_DEFAULT: u32 = 1 << 20;
pub const CHUNK_BYTES_MIN: u32 = 64 << 10;
pub const CHUNK_BYTES_MAX: u32 = 4 << 20;
/// Data up to this many bytes rides inside a metadata command instead of in a chunk: an fsync then costs one round
/// trip and one group fsync.
pub const INLINE_BYTES_MAX: u32 = 16 << 10;
/// Bytes of one file that may be inline at a time, in all its blocks. A write that would exceed it fails with `TooBig`:
/// put the bytes as chunks instead.
pub const INLINE_FILE_BYTES_MAX: u64 = 8 << 20;
/// Neighbouring inline bytes become one extent up to this many: records of a log do, pages of a database do not, which
/// are written again one by one.
pub const INLINE_JOINED_BYTES_MAX: u32 = 4 << 10;
/// A block with more extents than this that are not inline is rewritten as one chunk in the background,
pub const BLOCK_EXTENTS_SOFT_MAX: usize = 64;
/// and one with more than this of any kind: pages of a database fill a block of the default size with 256.
pub const BLOCK_INLINE_EXTENTS_SOFT_MAX: usize = 192;
/// No write makes a list longer than this: one block's list stays small enough to send and to rewrite.
pub const BLOCK_EXTENTS_MAX: usize = 4096;

/// One framed message (without its bulk): a batch of operations fits, an attacker's length field does not.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Bulk bytes of one call: a few chunks together.
pub const BULK_BYTES_MAX: usize = 16 << 20;
/// Operations in one command, and bytes of one command with its inline data.
pub const COMMAND_OPS_MAX: usize = 1024;
pub const COMMAND_BYTES_MAX: usize = 4 << 20;
/// What a metadata server keeps free of the disk under its log, for what frees something.
pub const META_RESERVE_BYTES: u64 = 64 << 20;
/// Inode numbers set aside for a session at a time, and how many such ranges it may have.
pub const RESERVED_INOS_MAX: u64 = 1 << 16;
pub const INO_RANGES_MAX: usize = 4;
/// Directory entries in one reply.
pub const READDIR_ENTRIES_MAX: usize = 1024;
/// Blocks whose extents one reply, and one mutation, covers.
pub const EXTENT_BLOCKS_MAX: u64 = 1024;
/// A reply with extents takes no further block after this many bytes of them.
pub const EXTENTS_BYTES_SOFT_MAX: usize = 2 << 20;

/// A file of at most this size is asked for together with others, so many at a time.
pub const SMALL_FILE_BYTES: u64 = 64 << 10;
pub const SMALL_FILES_MAX: usize = 256;
/// Inodes whose leases one request takes from others.
pub const TAKE_INODES_MAX: usize = 256;
/// Blocks that a search for data or a hole goes through at once: some milliseconds, for which commands wait.
pub const SEEK_BLOCKS_MAX: usize = 4096;
/// Claims in one piece of a reclaim: what a client with a large cache holds does not fit one message.
pub const RECLAIM_CLAIMS_MAX: usize = 16 << 10;
/// Chunks that a store offers at a time as perhaps not referred to.
pub const OFFER_CHUNKS_MAX: usize = 1024;

/// Copies of a chunk.
pub const REPLICAS_DEFAULT: u8 = 3;
pub const REPLICAS_MAX: u8 = 7;

/// A session that has not been heard of for this long is expired by the leader. The client counts a shorter time from
/// its last acknowledged heartbeat: it must have stopped using its leases before the leader gives them away.
pub const SESSION_TTL_MS: u64 = 10_000;
pub const SESSION_CLIENT_TTL_MS: u64 = 7_000;
pub const SESSION_HEARTBEAT_MS: u64 = 1_000;
/// After a Write lease was taken from who had it, no new one is granted on that inode for this long, but to who took it: what several
/// hosts change is changed one operation at a time by the leader instead of bouncing leases.
pub const LEASE_QUIET_MS: u64 = 500;
/// Dirty data older than this is on its way.
pub const WRITEBACK_AGE_MS: u64 = 500;
/// Changes that a client has made on its own and not shipped: when there are so many it makes them at the leader.
pub const JOURNAL_RECORDS_MAX: usize = 8192;
/// Dirty data of a file that goes with the changes that come after it; a file with more is flushed before them.
pub const JOURNAL_DATA_BYTES_MAX: u64 = 1 << 20;
/// A client's memory over buffers and caches together.
pub const CLIENT_MEMORY_BYTES_DEFAULT: u64 = 256 << 20;

const _: () = assert!(CHUNK_BYTES_DEFAULT.is_power_of_two());
const _: () = assert!(CHUNK_BYTES_MIN <= CHUNK_BYTES_DEFAULT && CHUNK_BYTES_DEFAULT <= CHUNK_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES_MAX as usize <= BULK_BYTES_MAX);
const _: () = assert!(INLINE_BYTES_MAX <= CHUNK_BYTES_MIN);
/// A small file is one block.
const _: () = assert!(SMALL_FILE_BYTES <= CHUNK_BYTES_MIN as u64);
const _: () = assert!(INLINE_BYTES_MAX as u64 <= INLINE_FILE_BYTES_MAX);
const _: () = assert!(COMMAND_BYTES_MAX < MESSAGE_BYTES_MAX);
/// A claim takes 24 bytes on the wire; the answer repeats it.
const _: () = assert!(RECLAIM_CLAIMS_MAX * 32 < MESSAGE_BYTES_MAX);
const _: () = assert!(SESSION_CLIENT_TTL_MS + 2 * SESSION_HEARTBEAT_MS < SESSION_TTL_MS);
