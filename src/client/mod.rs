//! The filesystem client: POSIX semantics over leases, caches and write-back. Knows no kernel.
//!
//! # What is kept where
//!
//! All coherence is here: the kernel above caches nothing but the pages of mmaps, and goes by names and attributes for a
//! moment (`client/lent.rs`). An inode on which a read lease is held is answered from memory; a file on which a write lease is held also takes writes into
//! memory. Chunk bytes are immutable and need no lease. A change of names or attributes of what write leases are held on is
//! made in memory and goes into the journal, which is shipped in order. Without a lease every operation goes to the
//! leader alone ("one-shot"), after the journal, exactly once, and is durable when it returns.
//!
//! # Order
//!
//! * Data before pointer: chunks are durable on their write quorum before the command that refers to them is sent.
//! * What is in the journal is committed in the order in which it was done, and before any one-shot change that came later.
//! * The flushes of one file are committed one after the other.
//! * A change of a file's attributes, of its extents (truncate, fallocate, copy), and of its names (rename, link) is
//!   committed after, or in one command with, what was written to that file before.
//! * Across files nothing is promised but by fsync: of unsynced writes to two files either may survive without the other.
//!
//! # Who waits for whom
//!
//! A recall never waits for a request that waits for the leader: writers are buffered, not parked, until the last flush
//! of the wind-down, and readers are answered one-shot. Notifications of the kernel are made from tasks of the recall,
//! with no lock held. Waiting for memory never holds the lock of a flush.
//!
//! # When the cluster is away
//!
//! Requests wait (or fail with EIO after the volume's patience). The session's life is counted from the sending of the
//! last heartbeat that was acknowledged; when it has run out no lease is used and the kernel's pages are dropped.
//! When the session turns out to have expired, dirty data is lost: every handle of such a file reports it once. Handles of
//! files that were locked in it say EIO to reads and writes from then on, as others may have had the lock since.
//!
//! On a volume for one host at a time the kernel keeps what it likes, and what it keeps cannot be told from what was lost. So
//! when something was lost there, or another host has had the volume since, the client stops: everything says EIO until
//! the volume is unmounted and mounted again.

mod answers;
pub mod api;
mod arbiter;
mod atime;
pub mod cache;
pub mod calls;
pub mod chunks;
mod core;
mod dirty;
mod exclusive;
pub mod extents;
mod files;
mod gather;
mod inode;
mod journal;
pub mod kept;
pub mod kernel;
mod lease;
mod lent;
mod list_ahead;
mod locks;
mod looks;
mod mapped;
pub mod memory;
mod names;
mod notes;
mod numbers;
mod ops;
pub mod plan;
mod quota;
mod readahead;
mod recall;
mod resume;
mod sealed;
mod session;
mod ship;
mod siblings;
mod space;
mod walk;
mod writeback;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use self::api::Result;
use self::chunks::{ChunkStore, Patient};
use self::core::{Core, Parts};
use self::kept::Kept;
use self::kernel::{KernelCache, NoKernel};
use self::resume::{Begun, TakenUp};
use crate::remote::meta::{CallError, MetaClient};
use crate::types::id::Ino;
use crate::types::limits::CLIENT_MEMORY_BYTES_DEFAULT;
use crate::types::volume::Volume;

/// How long a client that stops goes on saying so to a cluster that is away.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a client is started.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The volume's name.
    pub volume: String,
    /// What this client is called in `status`: its host, usually.
    pub name: String,
    pub read_only: bool,
    /// Never tell the cluster about times of access.
    pub noatime: bool,
    /// What all of the client may take.
    pub memory_bytes: u64,
    /// Tells the most that the process ever took, if somebody knows.
    pub resident_high_bytes: fn() -> Option<u64>,
    /// How long the start waits for the cluster; `None` is for ever.
    pub start_patience: Option<Duration>,
    /// What is left to the next client on this mount, and what an earlier one has left.
    pub kept: Option<Arc<Kept>>,
}

impl ClientConfig {
    pub fn new(volume: impl Into<String>, name: impl Into<String>) -> ClientConfig {
        ClientConfig {
            volume: volume.into(),
            name: name.into(),
            read_only: false,
            noatime: false,
            memory_bytes: CLIENT_MEMORY_BYTES_DEFAULT,
            resident_high_bytes: || None,
            start_patience: Some(Duration::from_secs(30)),
            kept: None,
        }
    }
}

/// A client of one volume. Cheap to clone; [`Client::stop`] ends it.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
}

impl Client {
    /// Opens a session and starts the tasks that keep it. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The cluster does not answer, or the volume, or our right to it, is not there.
    pub async fn start(
        config: ClientConfig,
        meta: Arc<MetaClient>,
        store: Arc<dyn ChunkStore>,
    ) -> std::result::Result<Client, CallError> {
        let begun = resume::begin(&config, &meta).await?;
        let (goes_on, term) = (begun.goes_on(), begun.known_to());
        let Begun { session, opened, sent, before } = begun;
        let (volume, read_only) = (opened.volume, opened.read_only || config.read_only);
        let (heartbeat, kept) = (opened.heartbeat, config.kept.clone());
        let store = Arc::new(Patient::new(store, volume.policy.patience()));
        let parts = Parts { config, volume, read_only, meta, store, session };
        let core = Arc::new(Core::new(parts, Arc::new(NoKernel)));
        core.life.confirm(sent);
        core.clock.set(heartbeat.now_ns);
        core.epoch.store(heartbeat.collection_epoch, Ordering::Relaxed);
        core.opened_term.store(term, Ordering::Relaxed);
        let taken_up = match (&kept, before) {
            (Some(kept), Some(before)) => core.take_up(kept, before, goes_on).await,
            _ => TakenUp::default(),
        };
        kept.iter().for_each(|kept| {
            kept.is_of(core.volume.id);
            kept.goes_on_as(core.session().id(), term);
        });
        core.refresh_space().await;
        session::start(&core, term);
        writeback::start(&core);
        if before.is_some() {
            core.finish_sent(taken_up, goes_on).await;
        }
        ship::start(&core);
        if before.is_some() {
            core.settle_resumed().await;
        }
        let _ = core.recovered.set(Instant::now());
        // The root has to be known for when the cluster is away.
        if let Err(error) = core.getattr(Ino::ROOT).await {
            tracing::warn!(%error, "the root of the volume was not read");
        }
        Ok(Client { core })
    }

    /// The door's way to the kernel's pages; set before the first request is served.
    pub fn set_kernel(&self, kernel: Arc<dyn KernelCache>) {
        *self.core.kernel.write() = kernel;
    }

    pub fn volume(&self) -> &Volume {
        &self.core.volume
    }

    pub fn read_only(&self) -> bool {
        self.core.read_only
    }

    /// The most memory that the process ever took, or, where nobody knows, buffers and caches together.
    pub fn memory_high_bytes(&self) -> u64 {
        self.core.memory_high_bytes()
    }

    /// Leaves the mount to the next client: everything is durable, the session and all that is held stay. Nothing may be asked
    /// of this one any more, from before this is called.
    ///
    /// # Errors
    /// Something could not be made durable: it is not left, and goes on.
    pub async fn leave(&self) -> Result<()> {
        self.core.sync().await?;
        let _ = tokio::time::timeout(FAREWELL, self.core.tell_access_times()).await;
        if let Some(kept) = &self.core.config.kept {
            kept.owes(&self.core.files.debts())?;
            kept.leaves_in_order();
        }
        Ok(())
    }

    /// Makes everything durable, gives every lease back and closes the session; if the cluster is away, it expires by
    /// itself.
    ///
    /// # Errors
    /// Something could not be made durable; the client ends all the same.
    pub async fn stop(&self) -> Result<()> {
        let synced = self.core.sync().await;
        // Nobody waits for these while the cluster is away.
        let _ = tokio::time::timeout(FAREWELL, self.core.tell_access_times()).await;
        self.core.stopping.send_replace(true);
        if let Err(error) = self.core.session().close(FAREWELL).await {
            tracing::debug!(%error, "the session was not closed");
        }
        synced
    }
}

#[cfg(test)]
mod tests;
