//! What can go wrong as a program sees it: a closed set with one errno each.

use rkyv::{Archive, Deserialize, Serialize};

use super::digest::ChunkId;

/// An error of the filesystem that crosses the wire and ends as an errno. The match in [`FsError::errno`] has no `_`
/// arm: a new variant does not compile until its errno is decided.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    #[error("no such file or directory")]
    NotFound,
    #[error("file exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("directory not empty")]
    NotEmpty,
    #[error("invalid argument")]
    Invalid,
    #[error("file name too long")]
    NameTooLong,
    #[error("operation not permitted")]
    NotPermitted,
    #[error("permission denied")]
    AccessDenied,
    #[error("read-only file system")]
    ReadOnly,
    #[error("no space left on device")]
    NoSpace,
    #[error("disk quota exceeded")]
    QuotaExceeded,
    /// What is left of the quota was promised to sessions, which are asked for it: retry.
    #[error("what is left of the quota was promised to others")]
    Promised,
    #[error("file too large")]
    FileTooLarge,
    #[error("too many links")]
    TooManyLinks,
    #[error("no such attribute")]
    NoAttribute,
    #[error("argument list too long")]
    TooBig,
    #[error("result does not fit")]
    Range,
    #[error("operation not supported")]
    NotSupported,
    #[error("no such device or address")]
    NoSuchAddress,
    #[error("resource temporarily unavailable")]
    WouldBlock,
    #[error("resource deadlock avoided")]
    Deadlock,
    #[error("interrupted")]
    Interrupted,
    #[error("text file busy")]
    TextBusy,
    #[error("stale file handle")]
    Stale,
    #[error("bad file descriptor")]
    BadHandle,
    #[error("the session has expired; unsynced work of it is lost")]
    SessionExpired,
    #[error("input/output error")]
    Io,
    /// A stored copy does not match its name; no good copy was found.
    #[error("chunk {0} is damaged or missing on every replica")]
    ChunkLost(ChunkId),
    /// A command refers to chunks that may be on their way out: put these again with the epoch given and retry.
    #[error("chunks must be put again at collection epoch {epoch}")]
    PutAgain { epoch: u64 },
    /// The cluster did not answer within the volume's patience.
    #[error("the cluster is not reachable")]
    Unreachable,
    /// A block's list of extents is at its bound: the block has to be rewritten first.
    #[error("the file is too scattered there")]
    Scattered,
    /// A volume for one host at a time has one.
    #[error("the volume is mounted elsewhere, and is for one host at a time")]
    InUse,
    /// A volume for one host at a time had another since.
    #[error("another host has taken the volume over")]
    TakenOver,
}

impl FsError {
    /// The errno an application sees.
    pub fn errno(&self) -> i32 {
        match self {
            FsError::NotFound => libc::ENOENT,
            FsError::Exists => libc::EEXIST,
            FsError::NotDirectory => libc::ENOTDIR,
            FsError::IsDirectory => libc::EISDIR,
            FsError::NotEmpty => libc::ENOTEMPTY,
            FsError::Invalid => libc::EINVAL,
            FsError::NameTooLong => libc::ENAMETOOLONG,
            FsError::NotPermitted => libc::EPERM,
            FsError::AccessDenied => libc::EACCES,
            FsError::ReadOnly => libc::EROFS,
            FsError::NoSpace => libc::ENOSPC,
            FsError::QuotaExceeded => libc::EDQUOT,
            FsError::Promised => libc::EDQUOT,
            FsError::FileTooLarge => libc::EFBIG,
            FsError::TooManyLinks => libc::EMLINK,
            FsError::NoAttribute => libc::ENODATA,
            FsError::TooBig => libc::E2BIG,
            FsError::Scattered => libc::EIO,
            FsError::Range => libc::ERANGE,
            FsError::NotSupported => libc::EOPNOTSUPP,
            FsError::NoSuchAddress => libc::ENXIO,
            FsError::WouldBlock => libc::EAGAIN,
            FsError::Deadlock => libc::EDEADLK,
            FsError::Interrupted => libc::EINTR,
            FsError::TextBusy => libc::ETXTBSY,
            FsError::Stale => libc::ESTALE,
            FsError::BadHandle => libc::EBADF,
            FsError::SessionExpired => libc::EIO,
            FsError::Io => libc::EIO,
            FsError::ChunkLost(_) => libc::EIO,
            FsError::PutAgain { .. } => libc::EIO,
            FsError::Unreachable => libc::EIO,
            FsError::InUse => libc::EBUSY,
            FsError::TakenOver => libc::EIO,
        }
    }
}
