//! Ranges: allocate, punch, zero, seek, copy.

use std::sync::Arc;

use crate::client::api::{Handle, Result};
use crate::client::core::{Apply, Core, Touch};
use crate::client::inode::Node;
use crate::types::error::FsError;
use crate::types::op::{FallocateMode, Op, OpReply};

impl Core {
    pub async fn fallocate(self: &Arc<Self>, handle: Handle, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        let file = self.files.find_for_data(handle)?;
        if !file.mode.write {
            return Err(FsError::BadHandle);
        }
        self.flush_before(&file.node).await?;
        let allocates = matches!(mode, FallocateMode::Allocate { .. } | FallocateMode::Zero { .. });
        let _adding = self.adding(if allocates { len } else { 0 }).await?;
        let ino = file.node.ino;
        let touch = Touch { inos: vec![ino], reshapes: true, by: Some(file.clone()), ..Touch::default() };
        let apply: Apply = Box::new(|core, replies, outcome| {
            if let Some(OpReply::Attr(attr)) = replies.first() {
                outcome.learn(core, attr);
            }
        });
        self.change(vec![Op::Fallocate { ino, mode, offset, len }], touch, apply).await.map(|_| ())
    }

    /// Everything was flushed.
    pub async fn seek(&self, node: &Arc<Node>, offset: u64, hole: bool) -> Result<u64> {
        let ino = node.ino;
        self.shipped(node).await;
        self.ask(|session| async move { session.seek(ino, offset, hole).await }).await.result
    }

    pub async fn copy_range(self: &Arc<Self>, from: (Handle, u64), to: (Handle, u64), len: u64) -> Result<u64> {
        let (source, target) = (self.files.find_for_data(from.0)?, self.files.find_for_data(to.0)?);
        if !source.mode.read || !target.mode.write {
            return Err(FsError::BadHandle);
        }
        if let Some(copied) = self.copy_alone((source.node.ino, from.1), (target.node.ino, to.1), len) {
            if target.mode.sync {
                self.fsync_file(&target).await?;
            }
            return copied;
        }
        self.flush_before(&source.node).await?;
        self.flush_before(&target.node).await?;
        let _adding = self.adding(len).await?;
        let (from_ino, to_ino) = (source.node.ino, target.node.ino);
        let op = Op::CopyRange { from: from_ino, from_offset: from.1, to: to_ino, to_offset: to.1, len };
        let touch = Touch { inos: vec![to_ino], reshapes: true, by: Some(target.clone()), ..Touch::default() };
        let apply: Apply = Box::new(|core, replies, outcome| {
            if let Some(OpReply::Copied { attr, .. }) = replies.first() {
                outcome.learn(core, attr);
            }
        });
        // What cannot be shared as it lies is copied by the kernel, byte by byte.
        let shared = self.change(vec![op], touch, apply).await.map_err(|error| match error {
            FsError::TooBig | FsError::Scattered => FsError::NotSupported,
            error => error,
        });
        match shared?.first() {
            Some(OpReply::Copied { bytes, .. }) => Ok(*bytes),
            _ => Err(FsError::Io),
        }
    }
}
