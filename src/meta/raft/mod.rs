//! Consensus: openraft over our own log, and nothing of Holdfast's meaning.
//!
//! Owns the Raft group, its log and its snapshots. Commands are bytes here; what they mean is behind [`Machine`].

pub mod log;
mod machine;
mod network;
pub mod node;
mod receive;
mod recover;
mod room;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod types;

use std::io;

/// Writes a state that was frozen earlier, as [`Machine::dump`] would have then.
pub type FrozenDump = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// What the committed commands are applied to: a replica that is a pure function of them.
///
/// `position` is opaque to the machine: it stores the bytes in the same atomic batch as the changes, and gives them
/// back. A machine that cannot answer is thrown away and rebuilt from the newest snapshot and the log after it.
pub trait Machine: Send + Sync + 'static {
    /// What was applied last; `None` when empty.
    ///
    /// # Errors
    /// The index under the machine failed.
    fn position(&self) -> io::Result<Option<Vec<u8>>>;

    /// Applies commands in order and records `position`, all in one atomic batch. One reply per command.
    ///
    /// # Errors
    /// The index under the machine failed (never: a command was refused; that is a reply).
    fn apply(&self, position: &[u8], commands: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>>;

    /// A command that is applied in the time that it takes to wake a thread for it, if it is short. The others get one.
    fn is_brief(&self, _command: &[u8]) -> bool {
        false
    }

    /// Writes everything (but the position) as a stream. Nothing is applied meanwhile.
    ///
    /// # Errors
    /// The index or the writer failed.
    fn dump(&self, out: &mut dyn io::Write) -> io::Result<()>;

    /// Freezes the state as it is, to be dumped while later commands are applied already. `None` when the machine
    /// cannot; then [`Machine::dump`] is used, and the cluster waits for it. [`crate::kv::freeze`] does it for any
    /// index.
    ///
    /// # Errors
    /// The index failed.
    fn freeze(&self) -> io::Result<Option<FrozenDump>> {
        Ok(None)
    }

    /// Makes the index durable, so that a restart begins where it is now. Called after each snapshot; never needed for
    /// correctness.
    ///
    /// # Errors
    /// The index failed.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Replaces everything by a dump, and records `position`. An empty stream is given to empty the machine: whether
    /// that is an error or not, nothing is left.
    ///
    /// # Errors
    /// The index or the reader failed, or the stream is not a dump; the machine is then empty.
    fn load(&self, position: &[u8], input: &mut dyn io::Read) -> io::Result<()>;
}
