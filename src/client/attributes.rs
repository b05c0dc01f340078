//! Attributes of directories that the kernel keeps.
//!
//! The kernel asks for the attributes of every directory on a path before it walks through, unless it was told that it may
//! keep them. It may for as long as a lease holds, and for a second at most. When the lease ends they are dropped first:
//! without a lock and without waiting for a page, unlike names, which stay with us ([decision
//! 14](crate::docs::decisions::kernel_attributes)).
//!
//! The order: nothing new is told as soon as a recall has come; the kernel drops what it has; the lease ends.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::inode::Node;
use crate::types::attr::{Attr, FileKind};

/// The longest that the kernel uses attributes without asking again.
const VALIDITY: Duration = Duration::from_secs(1);
/// How long a drop may take. What is not dropped then is waited for until it is void by itself.
const PATIENCE: Duration = Duration::from_millis(100);

impl Core {
    /// How long the kernel may keep attributes that it is about to be told.
    pub fn validity(&self, attr: &Attr) -> Duration {
        if attr.kind != FileKind::Dir {
            return Duration::ZERO;
        }
        let Some(node) = self.nodes.find(attr.ino) else { return Duration::ZERO };
        let mut state = node.lock();
        // What was learnt under an earlier lease is not what holds under this one.
        let current = state.visible().is_some_and(|now| now == *attr);
        if !current || !state.leased(&self.life) || !state.held.may_ask() || state.is_changing() {
            return Duration::ZERO;
        }
        state.kernel_has_attr = true;
        VALIDITY
    }

    /// Before a lease ends: the kernel drops the attributes that it has under it.
    pub async fn drop_attr(&self, node: &Arc<Node>) {
        let had = std::mem::take(&mut node.lock().kernel_has_attr);
        if had && tokio::time::timeout(PATIENCE, self.kernel().drop_attr(node.ino)).await.is_err() {
            tracing::debug!(ino = %node.ino, "the kernel does not drop attributes at once; waiting until they are void");
            tokio::time::sleep(VALIDITY).await;
        }
    }

    /// Something has changed that the kernel did not ask for. Not waited for.
    pub fn drop_attr_soon(&self, node: &Node) {
        if std::mem::take(&mut node.lock().kernel_has_attr) {
            drop(self.kernel().drop_attr(node.ino));
        }
    }
}
