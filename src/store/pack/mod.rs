//! Packs as they are written.
//!
//! Owns the files of one disk ([`mod@file`]): who appends to them (one [`writer`] thread), and what is made of them after a
//! crash ([`recover`]); their bytes and how they are read are [`crate::pack`]'s. The packs are the truth; the index is
//! derived.
//!
//! A put is acknowledged in this order: name checked, record appended, one `fdatasync` for everything appended
//! meanwhile, index updated, answer. A delete: headers overwritten, `fdatasync`, index entries removed and flushed,
//! pages punched out. Neither order may change.

pub mod file;
pub mod recover;
pub mod sys;
pub mod tombstones;
pub mod writer;
