//! Requests about open files and what is in them, and to make everything durable.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fuser::{Errno, FileHandle, ReplyData, ReplyEmpty, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyWrite, WriteFlags};

use super::adapter::Door;
use super::caller::Caller;
use super::convert::{errno, fallocate_mode, is_sync, open_mode, stale};
use super::locks::unlock_all;
use super::names::reply_empty;
use super::serve::{Surrender, serve, serve_leaving};
use crate::client::api::{Handle, Posix, Result, WriteRequest};
use crate::client::calls::within_now;
use crate::types::error::FsError;
use crate::types::id::Ino;

/// The largest copy whose length the reply can say; a whole number of pages.
const COPY_BYTES_MAX: u64 = 0x8000_0000;

/// How long an unmount waits for a cluster that is away: who called it can neither be told nor be killed.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a `close` does, that has locks to drop or little space left.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a `sync` does. A client has at most a few hundred MiB that are not durable.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);

/// What a WRITE request asks for. Its flags are those the descriptor has now, which `fcntl` may have changed since it
/// was opened. Pages written back from a mapping go where they belong, whatever the descriptor they borrow says.
pub(super) fn write_request(offset: u64, data: &[u8], how: WriteFlags, flags: i32) -> WriteRequest<'_> {
    let from_mapping = how.contains(WriteFlags::FUSE_WRITE_CACHE);
    WriteRequest {
        offset,
        data,
        append: flags & libc::O_APPEND != 0 && !from_mapping,
        clear_privileges: how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        sync: is_sync(flags) && !from_mapping,
    }
}

fn reply_written(result: Result<u32>, reply: ReplyWrite) {
    match result {
        Ok(bytes) => reply.written(bytes),
        Err(error) => reply.error(errno(&error)),
    }
}

fn reply_data(result: Result<bytes::Bytes>, reply: ReplyData) {
    match result {
        Ok(data) => reply.data(&data),
        Err(error) => reply.error(errno(&error)),
    }
}

impl<F: Posix> Door<F> {
    pub fn answer_open(&self, caller: Caller, number: Ino, flags: i32, reply: ReplyOpen) {
        let open_flags = self.open_flags;
        let answer = move |result: Result<Handle>| match result {
            Ok(handle) => reply.opened(FileHandle(handle.0), open_flags),
            Err(error) => reply.error(errno(&stale(error))),
        };
        let mode = open_mode(flags);
        // Until it is answered, the next client has the file for it.
        let call = self.desk.call(caller);
        if let Some(result) = within_now(call.clone(), || self.fs.try_open(number, mode)) {
            answer(result);
            return drop(call);
        }
        let (fs, releasing) = (self.fs.clone(), self.fs.clone());
        let surrender = Surrender::Obtain(Box::new(move |handle| {
            Box::pin(async move {
                if let Err(error) = releasing.release(number, handle, None).await {
                    tracing::debug!(%error, "a handle nobody waited for was not released");
                }
            })
        }));
        serve(&self.desk, caller, surrender, async move { fs.open(number, mode).await }, answer);
    }

    pub fn answer_read(&self, caller: Caller, number: Ino, handle: Handle, offset: u64, len: u32, reply: ReplyData) {
        if let Some(result) = self.fs.try_read(number, handle, offset, len) {
            return reply_data(result, reply);
        }
        let fs = self.fs.clone();
        let work = async move { fs.read(number, handle, offset, len).await };
        serve(&self.desk, caller, Surrender::Look, work, move |result| reply_data(result, reply));
    }

    pub fn answer_write(
        &self,
        caller: Caller,
        number: Ino,
        handle: Handle,
        write: WriteRequest<'_>,
        reply: ReplyWrite,
    ) {
        // Twice, what is appended would be there twice.
        let call = if write.append { self.desk.call(caller) } else { None };
        if let Some(result) = within_now(call.clone(), || self.fs.try_write(number, handle, write)) {
            reply_written(result, reply);
            return drop(call);
        }
        let (fs, data) = (self.fs.clone(), write.data.to_vec());
        let write = WriteRequest { data: &[], ..write };
        let work = async move { fs.write(number, handle, WriteRequest { data: &data, ..write }).await };
        serve(&self.desk, caller, Surrender::Change, work, move |result| reply_written(result, reply));
    }

    pub fn answer_flush(&self, caller: Caller, number: Ino, handle: Handle, owner: u64, reply: ReplyEmpty) {
        self.open_file_locks.flushed(number, owner);
        let fs = self.fs.clone();
        let work = async move { fs.flush(number, handle, owner).await };
        serve(&self.desk, caller, Surrender::Bounded(CLOSE_PATIENCE), work, move |result| reply_empty(result, reply));
    }

    pub fn answer_release(&self, number: Ino, handle: Handle, flock_owner: Option<u64>, reply: ReplyEmpty) {
        let (fs, owners) = (self.fs.clone(), self.open_file_locks.released(number, handle));
        // Whoever comes after this process is not told of it again.
        let leaving: Vec<u64> = owners.iter().copied().chain([flock_owner.unwrap_or(0)]).collect();
        let (kept, left) = (self.kept.clone(), leaving.clone());
        let before =
            || kept.iter().for_each(|kept| leaving.iter().for_each(|owner| kept.leaves(handle, number, *owner)));
        let kept = self.kept.clone();
        let work = async move {
            let mut unlocked = Ok(());
            for owner in owners {
                unlocked = unlocked.and(fs.setlk(number, unlock_all(owner), false).await);
            }
            if let Err(error) = unlocked {
                tracing::warn!(ino = %number, %error, "locks of an open file description were not dropped");
            }
            let released = fs.release(number, handle, flock_owner).await;
            kept.iter().for_each(|kept| left.iter().for_each(|owner| kept.has_left(handle, number, *owner)));
            released
        };
        serve_leaving(&self.desk, before, work, move |result| reply_empty(result, reply));
    }

    pub fn answer_fsync(&self, caller: Caller, number: Ino, handle: Option<Handle>, reply: ReplyEmpty) {
        let fs = self.fs.clone();
        let work = async move { fs.fsync(number, handle).await };
        serve(&self.desk, caller, Surrender::Change, work, move |result| reply_empty(result, reply));
    }

    /// Everything of this mount, whoever wrote it.
    pub fn answer_sync(&self, caller: Caller, reply: ReplyIoctl) {
        let fs = self.fs.clone();
        serve(&self.desk, caller, Surrender::Change, async move { fs.sync().await }, move |result| match result {
            Ok(()) => reply.ioctl(0, &[]),
            // The mount has ended for good: no later try can make anything durable.
            Err(FsError::SessionExpired | FsError::TakenOver) => reply.error(Errno::ESTALE),
            Err(error) => reply.error(errno(&error)),
        });
    }

    /// The same for `sync(2)` and `syncfs(2)`, which keep everybody else on this host from either, and from unmounting,
    /// while they wait: not for longer than [`SYNC_PATIENCE`].
    pub fn answer_syncfs(&self, caller: Caller, reply: ReplyEmpty) {
        let fs = self.fs.clone();
        let (work, surrender) = (async move { fs.sync().await }, Surrender::Bounded(SYNC_PATIENCE));
        serve(&self.desk, caller, surrender, work, move |result| {
            if let Err(error) = &result {
                tracing::warn!(%error, "a sync returned before everything was durable");
            }
            reply_empty(result, reply);
        });
    }

    /// What is left after [`UNMOUNT_PATIENCE`] is synced after the unmount. Waits on a thread of its own: one of the
    /// runtime's may be the very one that unmounts, when its answer to a request ends the last use of the mount.
    pub fn answer_unmounting(&self, reply: ReplyEmpty) {
        let (fs, (done, outcome)) = (self.fs.clone(), mpsc::channel());
        self.desk.runtime.spawn(async move { done.send(fs.sync().await) });
        let wait = move || {
            let synced = outcome.recv_timeout(UNMOUNT_PATIENCE);
            if !matches!(synced, Ok(Ok(()))) {
                tracing::warn!(?synced, "unmounted before everything was durable");
            }
            reply.ok();
        };
        // A reply that is dropped is an answer too.
        if let Err(error) = thread::Builder::new().name("fuse-unmount".into()).spawn(wait) {
            tracing::error!(%error, "unmounted without waiting until everything is durable");
        }
    }

    pub fn answer_fallocate(
        &self,
        caller: Caller,
        number: Ino,
        handle: Handle,
        (offset, len): (u64, u64),
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs.clone();
        let work = async move { fs.fallocate(number, handle, fallocate_mode(mode)?, offset, len).await };
        serve(&self.desk, caller, Surrender::Change, work, move |result| reply_empty(result, reply));
    }

    pub fn answer_lseek(
        &self,
        caller: Caller,
        number: Ino,
        handle: Handle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let fs = self.fs.clone();
        let work = async move {
            let offset = u64::try_from(offset).map_err(|_| FsError::NoSuchAddress)?;
            let found = match whence {
                libc::SEEK_DATA => fs.seek(number, handle, offset, false).await?,
                libc::SEEK_HOLE => fs.seek(number, handle, offset, true).await?,
                _ => return Err(FsError::Invalid),
            };
            i64::try_from(found).map_err(|_| FsError::FileTooLarge)
        };
        serve(&self.desk, caller, Surrender::Look, work, move |result| match result {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(errno(&error)),
        });
    }

    pub fn answer_copy(
        &self,
        caller: Caller,
        from: (Ino, Handle, u64),
        to: (Ino, Handle, u64),
        len: u64,
        reply: ReplyWrite,
    ) {
        let fs = self.fs.clone();
        let work = async move {
            let copied = fs.copy_range(from, to, len.min(COPY_BYTES_MAX)).await?;
            u32::try_from(copied).map_err(|_| FsError::Io)
        };
        serve(&self.desk, caller, Surrender::Change, work, move |result| reply_written(result, reply));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_are_what_the_descriptor_says_now() {
        let plain = write_request(7, b"x", WriteFlags::empty(), libc::O_APPEND | libc::O_SYNC);
        assert!(plain.append && plain.sync && !plain.clear_privileges);
        let mapped = write_request(7, b"x", WriteFlags::FUSE_WRITE_CACHE, libc::O_APPEND | libc::O_SYNC);
        assert!(!mapped.append && !mapped.sync);
        assert!(write_request(7, b"x", WriteFlags::FUSE_WRITE_KILL_SUIDGID, 0).clear_privileges);
    }
}
