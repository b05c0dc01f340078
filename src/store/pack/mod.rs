//! Packs: append-only files that hold chunks.
//!
//! Owns the files of one disk: their bytes ([`mod@format`]), who appends to them (one [`writer`] thread), how they are read
//! ([`reader`]) and what is made of them after a crash ([`recover`]). The packs are the truth; the index is derived.
//!
//! A put is acknowledged in this order: name checked, record appended, one `fdatasync` for everything appended
//! meanwhile, index updated, answer. A delete: headers overwritten, `fdatasync`, index entries removed and flushed,
//! pages punched out. Neither order may change.

pub mod file;
pub mod format;
pub mod reader;
pub mod recover;
pub mod sys;
pub mod tombstones;
pub mod writer;
