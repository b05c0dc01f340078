//! Attributes, symlink targets and extended attributes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::client::api::Result;
use crate::client::core::{Apply, Core, Touch};
use crate::client::dirty::Scope;
use crate::client::inode::Node;
use crate::client::names::Names;
use crate::client::ops::write::CAPABILITY;
use crate::types::attr::{Attr, SetAttr};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::op::{Op, OpReply, XattrMode};
use crate::types::session::{Hold, Lease};

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
pub const XATTRS_MAX: usize = 256;
/// Larger values are rare.
pub const XATTR_KEPT_BYTES_MAX: usize = 1024;

impl Core {
    pub fn try_getattr(&self, ino: Ino) -> Option<Attr> {
        let known = self.nodes.find(ino).and_then(|node| {
            let state = node.lock();
            state.visible().filter(|_| state.leased(&self.life))
        });
        match known {
            // A kubelet that asks for the root must not hang on a cluster that is away.
            None if ino == Ino::ROOT && !self.life.alive() => self.root.lock().clone(),
            known => known,
        }
    }

    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        let node = self.nodes.node(ino);
        loop {
            if let Some(attr) = self.try_getattr(ino) {
                return Ok(attr);
            }
            self.shipped(&node).await;
            let asked = self.nodes.asked();
            let (want, bare) = {
                let state = node.lock();
                let lease = if state.writers > 0 { Lease::Write } else { Lease::Read };
                (Hold { lease: state.want(lease), open: state.wants_open() }, state.dirty.is_empty())
            };
            let ask = self.ask(|session| async move { session.getattr(ino, want).await });
            let told = tokio::select! {
                told = ask => told,
                () = self.life.ended(), if ino == Ino::ROOT && self.root.lock().is_some() => continue,
            };
            let attr = told.result.clone()?;
            match self.keep_attr(asked, &told, attr.clone()) {
                Some(attr) => return Ok(attr),
                // Nothing was buffered when the question was asked: the answer lacks nothing that was done before.
                None if bare => return Ok(self.overlaid(attr)),
                None => {}
            }
        }
    }

    /// What was written before is committed before, or with it: later than a write, an explicit time stays.
    pub async fn setattr(self: &Arc<Self>, ino: Ino, set: SetAttr) -> Result<Attr> {
        if let Some(set) = self.set_attr_alone(ino, &set) {
            return set;
        }
        let node = self.nodes.node(ino);
        if set.size.is_none_or(|size| size == 0) {
            self.own(&node).await;
            self.flush_before(&node).await?;
            if let Some(set) = self.set_attr_alone(ino, &set) {
                return set;
            }
        }
        let sets_atime = set.atime.is_some();
        let reshapes = set.size.is_some();
        let replies = self.change_after_writes(&node, Op::SetAttr { ino, set }, reshapes).await?;
        if sets_atime {
            node.lock().access = None;
        }
        match replies.into_iter().next() {
            Some(OpReply::Attr(attr)) => Ok(self.overlaid(attr)),
            _ => Err(FsError::Io),
        }
    }

    /// A change of one inode that comes after what was written to it, in the same command when something is buffered.
    async fn change_after_writes(self: &Arc<Self>, node: &Arc<Node>, op: Op, reshapes: bool) -> Result<Vec<OpReply>> {
        let touch = || Touch { inos: vec![node.ino], reshapes, ..Touch::default() };
        let buffered = {
            let state = node.lock();
            !state.dirty.is_empty() || state.mtime.is_some()
        };
        if buffered {
            match self.flush_then(node, Scope::All, vec![op.clone()], touch()).await {
                Ok(replies) if !replies.is_empty() => return Ok(replies),
                // The data is lost, and its handles will say so; the change can be made all the same.
                // (Not when the session has expired: then it may have been made, and others may have written since.)
                Ok(_) | Err(FsError::NoSpace | FsError::QuotaExceeded) => {}
                Err(error) => return Err(error),
            }
        }
        let apply: Apply = Box::new(|core, replies, outcome| {
            if let Some(OpReply::Attr(attr)) = replies.first() {
                outcome.learn(core, attr);
            }
        });
        self.change(vec![op], touch(), apply).await
    }

    pub async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let node = self.nodes.node(ino);
        self.note_atime(&node, None);
        let known = {
            let state = node.lock();
            state.target.clone().filter(|_| state.leased(&self.life))
        };
        if let Some(target) = known {
            return Ok(target);
        }
        self.shipped(&node).await;
        let asked = self.nodes.asked();
        let told = self.ask(|session| async move { session.readlink(ino).await }).await;
        let target = told.result.clone()?;
        let mut state = node.lock();
        if state.accepts(asked, told.brought(ino)) {
            state.target = Some(target.clone());
        }
        Ok(target)
    }

    pub async fn getxattr(self: &Arc<Self>, ino: Ino, name: Vec<u8>) -> Result<Vec<u8>> {
        let node = self.nodes.node(ino);
        {
            let state = node.lock();
            if state.leased(&self.life) {
                if let Some(known) = state.xattrs.get(&name) {
                    return known.clone().ok_or(FsError::NoAttribute);
                }
                if state.base().is_some_and(|attr| !attr.has_xattr) {
                    return Err(FsError::NoAttribute);
                }
                if name == ACCESS_ACL && state.base().is_some_and(|attr| !attr.has_acl) {
                    return Err(FsError::NoAttribute);
                }
            }
        }
        if name == CAPABILITY {
            // What is buffered here takes it away.
            self.flush_before(&node).await?;
        }
        self.shipped(&node).await;
        let asked = self.nodes.asked();
        let ask = name.clone();
        let told = self
            .ask(|session| {
                let name = ask.clone();
                async move { session.getxattr(ino, name).await }
            })
            .await;
        let mut state = node.lock();
        if state.accepts(asked, told.brought(ino)) {
            if state.xattrs.len() >= XATTRS_MAX {
                state.xattrs = HashMap::new();
            }
            match &told.result {
                Ok(value) if value.len() <= XATTR_KEPT_BYTES_MAX => {
                    state.xattrs.insert(name, Some(value.clone()));
                }
                Err(FsError::NoAttribute) => {
                    state.xattrs.insert(name, None);
                }
                _ => {}
            }
        }
        told.result
    }

    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let node = self.nodes.node(ino);
        let known = {
            let state = node.lock();
            let none = state.base().is_some_and(|attr| !attr.has_xattr);
            let names = if none { Some(Vec::new()) } else { state.xattr_names.clone() };
            names.filter(|_| state.leased(&self.life))
        };
        if let Some(names) = known {
            return Ok(names);
        }
        self.shipped(&node).await;
        let asked = self.nodes.asked();
        let told = self.ask(|session| async move { session.listxattr(ino).await }).await;
        let names = told.result.clone()?;
        let mut state = node.lock();
        if names.len() <= XATTRS_MAX && state.accepts(asked, told.brought(ino)) {
            state.xattr_names = Some(names.clone());
        }
        Ok(names)
    }

    pub async fn setxattr(self: &Arc<Self>, ino: Ino, name: Vec<u8>, value: Vec<u8>, mode: XattrMode) -> Result<()> {
        if let Some(set) = self.done_before() {
            return set.map(drop);
        }
        if name == CAPABILITY {
            // A write that came after it would take it away.
            self.gather_from_kernel(&self.nodes.node(ino)).await;
        }
        match self.set_xattr_alone(ino, &name, &value, mode) {
            Some(result) => result,
            None => self.change_xattr(ino, name.clone(), Op::SetXattr { ino, name, value, mode }).await,
        }
    }

    pub async fn removexattr(self: &Arc<Self>, ino: Ino, name: Vec<u8>) -> Result<()> {
        if let Some(removed) = self.done_before() {
            return removed.map(drop);
        }
        match self.remove_xattr_alone(ino, &name) {
            Some(result) => result,
            None => self.change_xattr(ino, name.clone(), Op::RemoveXattr { ino, name }).await,
        }
    }

    async fn change_xattr(self: &Arc<Self>, ino: Ino, name: Vec<u8>, op: Op) -> Result<()> {
        let node = self.nodes.node(ino);
        {
            let mut state = node.lock();
            state.xattrs.remove(&name);
            state.xattr_names = None;
            // What is made in it may inherit something else from now on.
            state.dir = Names::default();
        }
        if self.config.kept.is_some() {
            // Not in one command with what is buffered: it must not be done twice, and a flush is not one call's.
            self.flush_before(&node).await?;
        }
        self.change_after_writes(&node, op, false).await.map(|_| ())
    }
}
