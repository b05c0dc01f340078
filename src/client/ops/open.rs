//! Opening and closing files.

use std::sync::Arc;

use crate::client::api::{Handle, OpenMode, Result};
use crate::client::calls;
use crate::client::core::Core;
use crate::client::dirty::Scope;
use crate::client::files::OpenFile;
use crate::client::inode::Node;
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::limits::INLINE_BYTES_MAX;
use crate::types::session::Lease;

impl Core {
    pub fn try_open(&self, ino: Ino, mode: OpenMode) -> Option<Result<Handle>> {
        if mode.write && self.read_only {
            return Some(Err(FsError::ReadOnly));
        }
        let node = self.nodes.find(ino)?;
        self.open_held(&node, mode, false)
    }

    pub async fn open(&self, ino: Ino, mode: OpenMode) -> Result<Handle> {
        if mode.write && self.read_only {
            return Err(FsError::ReadOnly);
        }
        let node = self.nodes.node(ino);
        if let Some(opened) = self.open_held(&node, mode, false) {
            return opened;
        }
        let lease = if mode.write { Lease::Write } else { Lease::Read };
        loop {
            self.hold_open(ino, lease).await?;
            if let Some(opened) = self.open_held(&node, mode, true) {
                return opened;
            }
        }
    }

    /// Opens under the hold that is there. A writer without a write lease is sent to ask for one first, unless `asked`.
    fn open_held(&self, node: &Arc<Node>, mode: OpenMode, asked: bool) -> Option<Result<Handle>> {
        if let Some(handle) = self.opened_before(node, mode) {
            return Some(Ok(handle));
        }
        {
            let mut state = node.lock();
            let lacks_lease = mode.write && !state.owned(&self.life) && state.want(Lease::Write) == Lease::Write;
            if !state.may_open(&self.life) || state.stale || (!asked && (lacks_lease || !self.life.alive())) {
                return None;
            }
            state.opened(mode.write);
        }
        let call = calls::current().map_or(0, |call| call.number());
        let opened = self.files.insert(OpenFile::new(node.clone(), mode, call));
        if opened.is_err() {
            node.lock().closed(mode.write);
        }
        Some(opened)
    }

    pub fn release(self: &Arc<Self>, handle: Handle) -> Result<()> {
        let file = self.files.remove(handle)?;
        let orphan = {
            let mut state = file.node.lock();
            state.closed(file.mode.write);
            state.opens == 0 && state.base().is_some_and(|attr| attr.nlink == 0)
        };
        if orphan {
            self.let_go(&file.node);
        }
        Ok(())
    }

    /// A descriptor is closed. What is dirty sets out for the stores; while there is plenty of room it is not waited for.
    ///
    /// # Errors
    /// What was written could not be stored.
    pub async fn close(self: &Arc<Self>, handle: Handle) -> Result<()> {
        let file = self.files.find(handle)?;
        if file.mode.write && !self.space_is_ample(0) {
            return self.fsync_file(&file).await;
        }
        if file.mode.write && !self.seal_small(&file.node) && !file.node.lock().dirty.is_empty() {
            self.flush_soon(&file.node, Scope::All);
        }
        self.report(&file)
    }

    /// What write-back met, once.
    fn report(self: &Arc<Self>, file: &OpenFile) -> Result<()> {
        file.report().inspect_err(|_| match calls::current() {
            // Killed before it has said so, this client leaves it to the next.
            Some(call) => {
                let core = self.clone();
                call.when_answered(move || core.note_debts());
            }
            None => self.note_debts(),
        })
    }

    /// What is dirty goes with the journal, if it is little: one command for it and for the names. `false`: it does not.
    fn seal_small(self: &Arc<Self>, node: &Arc<Node>) -> bool {
        let mut state = node.lock();
        state.is_ours(&self.life) && self.seal(node, &mut state, INLINE_BYTES_MAX.into())
    }

    pub async fn fsync(self: &Arc<Self>, ino: Ino, handle: Option<Handle>) -> Result<()> {
        let Some(handle) = handle else {
            // A directory, or a file by its inode.
            let node = self.nodes.node(ino);
            let failures = node.lock().failure.count;
            self.seal_small(&node);
            self.drain().await?;
            self.flush_patiently(&node).await?;
            let failed = node.lock().failed_since(failures);
            return failed;
        };
        let file = self.files.find_for_data(handle)?;
        self.fsync_file(&file).await
    }

    pub async fn fsync_file(self: &Arc<Self>, file: &OpenFile) -> Result<()> {
        self.seal_small(&file.node);
        self.drain().await?;
        let flushed = self.flush_patiently(&file.node).await;
        // Data that is lost was noted for every handle; this one has heard of it now.
        match self.report(file) {
            Ok(()) if flushed == Err(FsError::Unreachable) => flushed,
            reported => reported,
        }
    }
}
