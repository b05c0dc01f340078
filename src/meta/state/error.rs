//! Why the state machine did not do or tell something.

use std::io;

use crate::kv::KvError;
use crate::types::error::FsError;

#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// An answer: the same on every replica.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// An answer for people: one sentence, the same on every replica.
    #[error("{0}")]
    Refused(String),
    /// This replica's index failed; it must be rebuilt.
    #[error(transparent)]
    Index(#[from] KvError),
    /// This replica's index holds what cannot be; it must be rebuilt.
    #[error("the metadata index is damaged: {0}")]
    Damaged(String),
}

impl StateError {
    /// Whether this is a fault of this replica and not an answer.
    pub fn is_fault(&self) -> bool {
        matches!(self, StateError::Index(_) | StateError::Damaged(_))
    }
}

impl From<StateError> for io::Error {
    fn from(error: StateError) -> io::Error {
        io::Error::other(error)
    }
}
