//! The volume plugin of a Docker engine: JSON over HTTP on a Unix socket, as Docker's own documentation lays it down.
//!
//! Owns who uses which volume on this host, by the names that Docker gives its uses (`book`), and nothing else: which volumes there are
//! the cluster says, and what is mounted the kernel. Docker may make any call again, with the same names or after a crash of either; so
//! uses are a set and not a count, they are written down before they are granted and struck out before the volume is unmounted, and
//! what a crash leaves between the two is put in order at the next start. Docker also ends uses that go on (when it has copied something into a
//! running container), and forgets some that it has begun (when the plugin died before it answered): so it is looked which containers have
//! the volume, in the tables of their namespaces.
//!
//! A call may end at any of its steps: with the plugin, or because Docker waits no longer. What it has started then goes on by itself, and is
//! waited for by whoever comes next ([`mounter`](crate::container::mounter)). `tests` has each call end before and after each step.
//!
//! In order: `socket` (systemd's, or one of our own), `calls` (connections, which outlive a plugin that systemd starts again), `server` (decodes, encodes), `driver` (what each call does), `host` (what it has its host
//! do).

mod book;
pub mod calls;
pub mod driver;
mod host;
mod protocol;
pub mod server;
pub mod socket;
#[cfg(test)]
mod tests;
