//! Settings: what an operator may choose, where each value came from, and nothing else.
//!
//! Owns one documented struct per role ([`roles`]), the typed values they hold ([`value`]) and the layering
//! ([`layer`]): a flag wins over the environment, the environment over the file, the file over the default. Reads no
//! clock and opens no socket; the one file it knows is handed to it as text, so that every rule here is tested without
//! a disk. Settings are values, never components: what is built from them is the caller's business.
//!
//! In order: the command line collects flags, [`layer::Settings::resolve`] lays the four layers over one another and
//! refuses unknown keys and unreadable values by name, and a role takes its frozen struct with
//! [`layer::Settings::section`].

pub mod layer;
pub mod roles;
pub mod value;
