//! A volume that this client has to itself: the kernel gathers writes and keeps pages, and nobody calls them back
//! ([decision 18](crate::docs::decisions::one_host_at_a_time)).
//!
//! What the kernel has not written back is unknown here. So it is made to, before anything that has to come after the data of a
//! file: the answer where data is, a new name for the file, a program's privileges.
//!
//! When the cluster is not heard of, the kernel has to give its pages up, and it writes them back on that occasion: they are
//! taken into memory under the lease that is still there, and are lost with it if the session is. Then, and when another
//! host has had the volume, the client gives up: no session follows, and everything fails.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::inode::{Node, State};
use crate::types::error::FsError;
use crate::types::session::Lease;

/// How long the kernel may take to write a file back: it waits for room in memory, and near the end of a quota for what was accepted
/// before.
const PATIENCE: Duration = Duration::from_secs(10);

impl Core {
    /// No other host has the volume mounted.
    pub fn is_exclusive(&self) -> bool {
        self.volume.policy.access.is_for_one()
    }

    /// Whether a write may be taken into memory.
    pub fn may_buffer(&self, state: &State) -> bool {
        state.owned(&self.life) || (self.is_exclusive() && state.held.lease() == Lease::Write)
    }

    /// What the kernel has gathered for a file is here when this returns.
    pub async fn gather_from_kernel(&self, node: &Node) {
        let gathers = self.is_exclusive() && node.lock().writers > 0;
        if gathers && tokio::time::timeout(PATIENCE, self.kernel().drop_pages(node.ino)).await.is_err() {
            tracing::warn!(ino = %node.ino, "the kernel does not write a file back");
        }
    }

    /// A write was not stored, and the kernel believes that it was.
    pub fn note_unstored(&self, node: &Node, error: &FsError) {
        if self.is_exclusive() && matches!(error, FsError::Unreachable | FsError::SessionExpired) {
            node.lock().fail(FsError::SessionExpired);
            self.note_debts();
        }
    }

    /// Something that was on its way is lost.
    pub fn has_lost(&self) -> bool {
        self.nodes.all().iter().any(|node| node.lock().failure.error == Some(FsError::SessionExpired))
    }

    /// Nothing of this volume can be trusted here any more.
    pub fn end_for_good(self: &Arc<Self>, why: &str) {
        let volume = &self.config.volume;
        tracing::error!(%volume, "{why}: everything says EIO until the volume is unmounted and mounted again");
        self.stopping.send_replace(true);
    }
}
