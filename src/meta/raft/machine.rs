//! The machine as openraft sees it.
//!
//! Committed entries are gathered as far as they are ready and applied in one atomic batch with the position they lead
//! to. Blank and membership entries stop here; the machine only hears of the position. A dump must not see half of what
//! comes after it: either the machine freezes a view of itself, or applying waits while it is being dumped.

use std::io;
use std::sync::Arc;

use futures_util::{FutureExt, Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task;

use super::snapshot::{SnapshotDir, SnapshotFile};
use super::types::{
    Leader, Position, RaftEntry, RaftLogId, RaftSnapshotMeta, RaftStoredMembership, Reply, Types, to_bytes,
};
use super::{FrozenDump, Machine};
use crate::types::record::MetaInfo;

/// Entries, and bytes of commands, that are applied at once.
const BATCH_ENTRIES: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;

/// So little is applied by the task that has it, in the time that it takes to wake a thread for it.
const SOON_BYTES: usize = 32 << 10;

type RaftSnapshot = Snapshot<Leader, u64, MetaInfo, SnapshotFile>;

/// The machine, its snapshots, and where it stands.
pub struct MachineStore {
    machine: Arc<dyn Machine>,
    snapshots: Arc<SnapshotDir>,
    position: Position,
    /// Held while the machine changes or is dumped.
    gate: Arc<Mutex<()>>,
}

/// Entries about to be applied together.
#[derive(Default)]
struct Gathered {
    commands: Vec<Vec<u8>>,
    bytes: usize,
    /// One for each entry: who waits, and whether for a command's reply.
    waiting: Vec<(Option<ApplyResponder<Types>>, bool)>,
}

impl MachineStore {
    /// `position` is what the machine has told, and was found to be trustworthy.
    pub fn new(machine: Arc<dyn Machine>, snapshots: Arc<SnapshotDir>, position: Position) -> MachineStore {
        MachineStore { machine, snapshots, position, gate: Arc::default() }
    }

    fn gather(&mut self, gathered: &mut Gathered, entry: RaftEntry, responder: Option<ApplyResponder<Types>>) {
        self.position.applied = Some(entry.log_id);
        let is_command = match entry.payload {
            EntryPayload::Blank => false,
            EntryPayload::Membership(membership) => {
                self.position.membership = RaftStoredMembership::new(Some(entry.log_id), membership);
                false
            }
            EntryPayload::Normal(command) => {
                gathered.bytes += command.0.len();
                gathered.commands.push(command.0.into());
                true
            }
        };
        gathered.waiting.push((responder, is_command));
    }

    async fn apply_gathered(&mut self, gathered: Gathered) -> io::Result<()> {
        let position = to_bytes(&self.position)?;
        let machine = Arc::clone(&self.machine);
        let gate = self.gate.lock().await;
        let expected = gathered.commands.len();
        let commands = gathered.commands;
        let brief = gathered.bytes <= SOON_BYTES && commands.iter().all(|command| machine.is_brief(command));
        let replies = if brief {
            machine.apply(&position, &commands)?
        } else {
            blocking(move || machine.apply(&position, &commands)).await?
        };
        drop(gate);
        if replies.len() != expected {
            return Err(io::Error::other(format!("the machine gave {} replies to {expected} commands", replies.len())));
        }
        let mut replies = replies.into_iter();
        for (responder, is_command) in gathered.waiting {
            let reply = if is_command { replies.next().unwrap_or_default() } else { Vec::new() };
            if let Some(responder) = responder {
                responder.send(Reply(reply));
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<Types> for MachineStore {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, RaftStoredMembership), io::Error> {
        Ok((self.position.applied, self.position.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = entries.fuse();
        while let Some(first) = entries.next().await {
            let mut gathered = Gathered::default();
            let mut ready = Some(first);
            while let Some(item) = ready.take() {
                let (entry, responder) = item?;
                self.gather(&mut gathered, entry, responder);
                if gathered.waiting.len() < BATCH_ENTRIES && gathered.bytes < BATCH_BYTES {
                    ready = entries.next().now_or_never().flatten();
                }
            }
            self.apply_gathered(gathered).await?;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Taken here and not when the dump begins: nothing may be applied in between.
        let gate = Arc::clone(&self.gate).lock_owned().await;
        let view = match self.machine.freeze() {
            Ok(Some(frozen)) => View::Frozen(frozen),
            Ok(None) => View::Held(Arc::clone(&self.machine), gate),
            Err(error) => View::Failed(error),
        };
        let meta =
            RaftSnapshotMeta { last_log_id: self.position.applied, last_membership: self.position.membership.clone() };
        Builder {
            machine: Arc::clone(&self.machine),
            snapshots: Arc::clone(&self.snapshots),
            meta,
            view: parking_lot::Mutex::new(Some(view)),
        }
    }

    async fn install_snapshot(&mut self, meta: &RaftSnapshotMeta, snapshot: SnapshotFile) -> Result<(), io::Error> {
        let _gate = self.gate.lock().await;
        let position = Position { applied: meta.last_log_id, membership: meta.last_membership.clone() };
        let (machine, snapshots) = (Arc::clone(&self.machine), Arc::clone(&self.snapshots));
        let (meta, told) = (meta.clone(), to_bytes(&position)?);
        blocking(move || {
            let is_ours = snapshots.newest().is_some_and(|newest| newest.path() == snapshot.path());
            let snapshot = if is_ours { snapshot } else { snapshots.adopt(snapshot.path(), &meta)? };
            machine.load(&told, &mut snapshot.body()?)
        })
        .await?;
        self.position = position;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        let newest = self.snapshots.newest();
        Ok(newest.map(|snapshot| Snapshot { meta: snapshot.meta.clone(), snapshot }))
    }
}

/// Writes one snapshot of the machine as it stood when this was made.
pub struct Builder {
    machine: Arc<dyn Machine>,
    snapshots: Arc<SnapshotDir>,
    meta: RaftSnapshotMeta,
    /// `None` once it was written.
    view: parking_lot::Mutex<Option<View>>,
}

/// The state that a snapshot is to hold.
enum View {
    /// The machine goes on.
    Frozen(FrozenDump),
    /// The machine is kept from going on.
    Held(Arc<dyn Machine>, OwnedMutexGuard<()>),
    Failed(io::Error),
}

impl View {
    fn dump(self, out: &mut dyn io::Write) -> io::Result<()> {
        match self {
            View::Frozen(dump) => dump(out),
            View::Held(machine, _gate) => machine.dump(out),
            View::Failed(error) => Err(error),
        }
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        let (machine, snapshots, meta) = (Arc::clone(&self.machine), Arc::clone(&self.snapshots), self.meta.clone());
        let view = self.view.get_mut().take().ok_or_else(|| io::Error::other("this snapshot was written already"))?;
        let snapshot = blocking(move || {
            let snapshot = snapshots.write(meta, |out| view.dump(out))?;
            // An index that does not flush is one to be rebuilt; the snapshot is good.
            if let Err(error) = machine.flush() {
                tracing::warn!(%error, "the state's index was not flushed");
            }
            Ok(snapshot)
        })
        .await?;
        Ok(Snapshot { meta: snapshot.meta.clone(), snapshot })
    }
}

/// Runs something that may wait for a disk; a panic in it is an error here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    task::spawn_blocking(work).await.map_err(io::Error::other)?
}
