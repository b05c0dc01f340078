//! The metadata state machine: a pure function `(state, command) -> (changes, outcome)` over an index.
//!
//! Owns the namespace, file maps, locks, sessions, chunk references, volumes, members. Knows no clock, no randomness
//! and no network; time comes with the command. A command is executed in a transaction over the index; what it refuses
//! leaves nothing behind; and all changes of one `apply` go to the index in one batch together with the log position.
//! The index is never the only copy: the log and its snapshots are.

mod acl;
mod api_key;
mod attr;
mod check;
mod chunk;
mod cluster;
mod data;
mod dump;
mod edit;
mod error;
mod execute;
mod lock;
mod namespace;
mod rename;
mod reserve;
mod schema;
mod session;
mod token;
mod tx;
mod view;
mod volume;
mod xattr;

#[cfg(test)]
mod tests;

use std::io;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use self::tx::Tx;
use super::command::{Command, Outcome};
use super::raft::{FrozenDump, Machine};
use crate::kv::freeze::FreezableKv;
use crate::kv::{Kv, SharedKv};
use crate::types::error::FsError;

pub use self::check::Violation;
pub use self::error::StateError;
pub use self::schema::{ChunkTotals, Collection, Credential, Session, Token};
pub use self::view::{Extents, Seek, View};

/// The state of one replica.
pub struct State {
    kv: FreezableKv,
    /// Held for writing while a batch goes to the index and for reading by views: a view spans several keys.
    gate: RwLock<()>,
    /// One list of commands at a time: they are worked out against an index that nothing else changes.
    applying: Mutex<()>,
    damaged: watch::Sender<bool>,
}

impl State {
    pub fn new(kv: SharedKv) -> State {
        State {
            kv: FreezableKv::new(kv),
            gate: RwLock::new(()),
            applying: Mutex::new(()),
            damaged: watch::Sender::new(false),
        }
    }

    /// Reads one consistent moment. Keep it short: commands wait meanwhile.
    ///
    /// # Errors
    /// What `read` says; an index that failed also marks this replica as damaged.
    pub fn view<R>(&self, read: impl FnOnce(&View<'_>) -> Result<R, StateError>) -> Result<R, StateError> {
        let _gate = self.gate.read();
        let result = read(&View::new(&self.kv));
        if let Err(error) = &result {
            self.note(error);
        }
        result
    }

    /// The index has failed: this replica is to be rebuilt from snapshot and log.
    pub fn damaged(&self) -> bool {
        *self.damaged.borrow()
    }

    /// Returns when the index has failed.
    pub async fn fails(&self) {
        // The sender is right here.
        let _ = self.damaged.subscribe().wait_for(|damaged| *damaged).await;
    }

    /// Every broken invariant. Reads everything.
    ///
    /// # Errors
    /// The index failed.
    pub fn check(&self) -> Result<Vec<Violation>, StateError> {
        let _gate = self.gate.read();
        check::check(&Tx::new(&self.kv))
    }

    fn note(&self, error: &StateError) {
        if error.is_fault() {
            self.damaged.send_if_modified(|damaged| !std::mem::replace(damaged, true));
        }
    }

    fn try_apply(&self, position: &[u8], commands: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, StateError> {
        let _applying = self.applying.lock();
        let mut tx = Tx::new(&self.kv);
        let mut outcomes = Vec::with_capacity(commands.len());
        for bytes in commands {
            let outcome = match Command::decode(bytes) {
                Ok(command) => execute::execute(&mut tx, command)?,
                Err(_) => Outcome::Error(FsError::Invalid),
            };
            tx.settle();
            outcomes.push(outcome.encode());
        }
        tx.put_raw(schema::position_key(), position.to_vec());
        // Only now: reads go on while the commands are worked out.
        let _gate = self.gate.write();
        self.kv.write(tx.into_batch())?;
        Ok(outcomes)
    }
}

impl Machine for State {
    fn position(&self) -> io::Result<Option<Vec<u8>>> {
        let _gate = self.gate.read();
        self.kv.get(&schema::position_key()).map_err(io::Error::other)
    }

    fn apply(&self, position: &[u8], commands: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        if self.damaged() {
            return Err(io::Error::other("the metadata index is damaged"));
        }
        self.try_apply(position, commands).map_err(|error| {
            self.note(&error);
            error.into()
        })
    }

    fn is_brief(&self, command: &[u8]) -> bool {
        matches!(Command::decode(command), Ok(Command::Change { .. } | Command::Ship { .. }))
    }

    fn dump(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let _gate = self.gate.read();
        dump::dump(self.kv.scan(&dump::first_key(), None), out)
    }

    fn freeze(&self) -> io::Result<Option<FrozenDump>> {
        let frozen = self.kv.freeze();
        Ok(Some(Box::new(move |out| dump::dump(frozen.scan(&dump::first_key(), None), out))))
    }

    fn flush(&self) -> io::Result<()> {
        self.kv.flush().map_err(io::Error::other)
    }

    fn load(&self, position: &[u8], input: &mut dyn io::Read) -> io::Result<()> {
        let _applying = self.applying.lock();
        let _gate = self.gate.write();
        let loaded = dump::load(&self.kv, position, input);
        self.damaged.send_replace(loaded.is_err());
        loaded
    }
}
