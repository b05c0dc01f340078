//! Packs as they are read: append-only files that hold chunks.
//!
//! Owns their bytes ([`mod@format`]) and how part of a chunk is read out of one ([`reader`]). Two read them: the store they
//! belong to, which alone writes them (`store::pack`), and a client on the same host, which opens them for reading
//! (`remote::short_circuit`). Never returns a byte it has not checked.

pub mod format;
pub mod reader;
pub mod sys;
