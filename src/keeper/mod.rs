//! The keeper: a small process that a mount lives on with while clients come and go
//! ([decision 26](crate::docs::decisions::a_mount_is_kept)).
//!
//! It starts a client and keeps copies of the descriptors that the client gives it (what it reads the kernel's requests from, and
//! the memory it leaves to the next). While somebody has them the kernel keeps the mount, with every open file, and whoever has asked
//! for something waits. When the client ends, another is started, given all of it, and goes on.
//!
//! It knows nothing of filesystems, keeps nothing on disk, and is not replaced when the client is. [`Ward`] is the client's end;
//! [`watch`](mod@watch) is the keeper's, and `lives` decides what follows when a client ends. [`service`] starts mounts for others. Where a
//! service manager has started it, `manager` has that keep copies for a keeper that is killed.
//!
//! # What they say to each other
//!
//! Messages over a socket that keeps their bounds, each a word and what belongs to it, with descriptors beside it. The keeper first
//! says `kept NAME` for all that it has of the client before, then `go`; later `leave`. The client says `keep NAME` (which takes the
//! place of what had the name), `hears` once it serves and signals do not kill it, `refuses SENTENCE` when it cannot leave now, and `done`, after
//! which nobody follows it. To a program that would come next, the keeper says `try` in place of `go`: it says `fits`, or
//! `refuses SENTENCE`, and ends without having touched anything.

mod lives;
pub mod manager;
mod oom;
pub mod service;
mod socket;
mod start;
mod trial;
mod ward;
pub mod watch;

use std::io::{self, Write};

pub use ward::{Found, Inherited, Ward};

/// The program.
const KEEPER_NAME: &str = "holdfast-keeper";
/// Where a client finds the number of its socket.
const SOCKET_VARIABLE: &str = "HOLDFAST_KEEPER";

const KEPT: &str = "kept";
const GO: &str = "go";
const TRY: &str = "try";
const FITS: &str = "fits";
const LEAVE: &str = "leave";
const KEEP: &str = "keep";
const HEARS: &str = "hears";
const REFUSES: &str = "refuses";
const DONE: &str = "done";

/// Kept beside what the client gives: the program that served last.
const PROGRAM: &str = "program";

/// Whoever read this may be gone: the mount goes on.
fn say(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{KEEPER_NAME}: {what}");
}
