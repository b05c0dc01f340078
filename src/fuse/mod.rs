//! The front door: a [`Posix`](crate::client::api::Posix) namespace as a Linux filesystem, by FUSE.
//!
//! Decodes a request, calls, encodes the answer; no policy and no state of files lives here. The order of things:
//! `options` reads what was asked for, `mount` gets `/dev/fuse` into the tree, on a [`blockdev`], [`session`] runs the
//! event loops, `adapter` takes the requests and hands each family of them to `names`, `attrs`, `data` and `locks`,
//! `serve` answers in the FUSE thread when that needs no waiting and parks the request on the runtime when it does,
//! `interrupt` lets go of parked requests whose process was signalled, `places` and `underway` know where the kernel has
//! directories and which it has locked, and [`invalidate`] drops what the kernel cached.
//! [`control`] is for other processes: what they ask of a mount, which they find by [`mountinfo`](crate::host::mountinfo).
//!
//! # What the kernel may cache
//!
//! Names and attributes for a moment, and pages under `mmap` and `sendfile`, as long as the client has a lease (`tell`). Every
//! regular file is opened for direct I/O. So what one host did is what the next system call on another sees, and the price is
//! a request for each read. On a volume for one host at a time it may cache all it likes.
//!
//! # `sync`
//!
//! The kernel tells FUSE servers of `sync(2)` and `syncfs(2)`, and waits for them at `umount(2)`, only if they are
//! mounted on a block device; `blockdev` has one for root's mounts. Where there is none, [`control::sync_mount`] stands
//! in: the command `holdfast sync` and the helpers of `umount` call it.

mod adapter;
mod apart;
mod attrs;
pub mod blockdev;
mod caller;
pub mod control;
mod convert;
mod data;
mod interrupt;
pub mod invalidate;
mod locks;
mod mount;
mod names;
mod open_file_locks;
pub mod options;
mod places;
mod serve;
pub mod session;
mod special;
mod tell;
mod underway;
