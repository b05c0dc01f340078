//! Calls of the kernel that a client has begun and that another one answers.
//!
//! When a client dies, the kernel hands the calls that it had not answered to the next one, under their numbers. Some of what
//! they ask for must not be done twice: a name that was made would be there already, a name that was removed may be another file's
//! by now, and what was appended would be there twice. So what is done for such a call is noted with its number
//! ([`super::kept`]) until it is answered, and the next client answers with what came of it.
//!
//! Which call a task works for goes with the task ([`within`]). A task that it starts on its behalf is to be told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::api::{Handle, OpenMode, Result};
use super::core::Core;
use super::files::OpenFile;
use super::inode::Node;
use super::kept::log::Noted;
use super::kept::sent::Sent;
use crate::remote::session::Ticket;
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::op::{BatchReply, Op, OpReply, WriteAt};

/// How long after it has recovered, and been asked by the kernel, a client is asked for what one before it has done.
const FORGET_AFTER: Duration = Duration::from_secs(60);

tokio::task_local! {
    static CALL: Arc<Call>;
}

/// A call that is not answered. To be dropped after the answer was given.
pub struct Call {
    number: u64,
    notes: Mutex<Notes>,
    afterwards: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(afterwards) = self.afterwards.get_mut().take() {
            afterwards();
        }
    }
}

/// By what it is noted.
#[derive(Debug, Default)]
struct Notes {
    done_here: Vec<Noted>,
    /// The sequence is not given up before the call is noted no more.
    sent: Option<(Sent, Option<Arc<Ticket>>)>,
}

impl Call {
    /// `number`: the kernel's, the same when it hands the call out again.
    pub fn new(number: u64) -> Arc<Call> {
        Arc::new(Call { number, notes: Mutex::default(), afterwards: Mutex::default() })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Something was done here for it.
    pub fn keeps(&self, noted: impl IntoIterator<Item = Noted>) {
        self.notes.lock().done_here.extend(noted);
    }

    /// It is about to be sent; what was sent for it before came to nothing.
    fn is_sent(&self, sent: Sent, ticket: Arc<Ticket>) {
        self.notes.lock().sent = Some((sent, Some(ticket)));
    }

    /// To be done when it is answered: should this client be killed before, the next one answers.
    pub fn when_answered(&self, what: impl FnOnce() + Send + 'static) {
        self.afterwards.lock().get_or_insert_with(|| Box::new(what));
    }

    fn sends_nothing(&self) {
        self.notes.lock().sent = None;
    }
}

/// Runs work for a call.
pub async fn within<T>(call: Option<Arc<Call>>, work: impl Future<Output = T>) -> T {
    match call {
        Some(call) => CALL.scope(call, work).await,
        None => work.await,
    }
}

/// The same for work that does not wait.
pub fn within_now<T>(call: Option<Arc<Call>>, work: impl FnOnce() -> T) -> T {
    match call {
        Some(call) => CALL.sync_scope(call, work),
        None => work(),
    }
}

/// What the running task works for.
pub fn current() -> Option<Arc<Call>> {
    CALL.try_with(Arc::clone).ok()
}

/// What came of a call that a client before has begun.
#[derive(Debug)]
struct Done {
    /// The inode that was made, or linked.
    result: Result<Option<Ino>>,
    notes: Notes,
}

/// Calls that a client before has begun, and that were not answered here yet.
#[derive(Debug, Default)]
pub struct Calls {
    any: AtomicBool,
    done: Mutex<HashMap<u64, Done>>,
    /// What was opened for a call, whether that was answered or not.
    opened: Mutex<HashMap<u64, Handle>>,
}

impl Calls {
    /// Something was done here for a call, the first of what was noted in the log. In a slot it holds up nothing; where there is none
    /// it stays where it is.
    pub fn was_done_here(&self, call: u64, ino: Option<Ino>, noted: Noted, slot: impl FnOnce() -> Option<Sent>) {
        self.any.store(true, Ordering::Release);
        let mut calls = self.done.lock();
        let done = calls.entry(call).or_insert_with(|| {
            let notes = Notes { done_here: Vec::new(), sent: slot().map(|slot| (slot, None)) };
            Done { result: Ok(ino), notes }
        });
        if done.notes.sent.is_none() {
            done.notes.done_here.push(noted);
        }
    }

    /// A client before the one before had done it.
    pub fn was_done_before(&self, call: u64, ino: Option<Ino>, slot: Sent) {
        self.any.store(true, Ordering::Release);
        let notes = Notes { done_here: Vec::new(), sent: Some((slot, None)) };
        self.done.lock().insert(call, Done { result: Ok(ino), notes });
    }

    /// A client before has opened a file for a call. If that was not answered, nobody else will ever close it.
    pub fn was_opened(&self, call: u64, handle: Handle) {
        self.any.store(true, Ordering::Release);
        self.opened.lock().insert(call, handle);
    }

    /// The leader has said what came of a call, and that is noted with it.
    pub fn was_answered(&self, call: u64, sent: Sent, reply: BatchReply) {
        let result = match reply {
            BatchReply::Done(replies) => Ok(replies.iter().find_map(|reply| match reply {
                OpReply::Entry { attr, .. } => Some(attr.ino),
                _ => None,
            })),
            // Then it is done in another way.
            BatchReply::Failed { error: FsError::PutAgain { .. } | FsError::Scattered | FsError::TooBig, .. }
            | BatchReply::Failed { error: FsError::Promised, .. } => return,
            BatchReply::Failed { error, .. } => Err(error),
        };
        self.any.store(true, Ordering::Release);
        let notes = Notes { done_here: Vec::new(), sent: Some((sent, None)) };
        self.done.lock().insert(call, Done { result, notes });
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.done.lock().is_empty()
    }

    /// The kernel has handed out again what it had to.
    pub fn forget(&self) {
        if self.any.swap(false, Ordering::AcqRel) {
            self.done.lock().clear();
            *self.opened.lock() = HashMap::new();
        }
    }

    fn take(&self, call: &Call) -> Option<Result<Option<Ino>>> {
        let Done { result, notes } = self.done.lock().remove(&call.number)?;
        // Killed before it has answered, this client leaves it to the next.
        *call.notes.lock() = notes;
        Some(result)
    }
}

impl Core {
    /// A client before has perhaps begun the call at hand.
    pub fn may_be_done(&self) -> bool {
        self.calls.any.load(Ordering::Acquire)
    }

    /// What came of the call at hand, if a client before has begun it: to be asked before anything is done for it. With the inode that was
    /// made, or linked.
    pub fn done_before(&self) -> Option<Result<Option<Ino>>> {
        if !self.may_be_done() {
            return None;
        }
        self.calls.take(&*current()?)
    }

    /// What a client before has opened for the call at hand.
    pub fn opened_before(&self, node: &Arc<Node>, mode: OpenMode) -> Option<Handle> {
        if !self.may_be_done() {
            return None;
        }
        let handle = self.calls.opened.lock().remove(&current()?.number)?;
        let is_it = |file: Arc<OpenFile>| file.node.ino == node.ino && file.mode == mode;
        self.files.find(handle).is_ok_and(is_it).then_some(handle)
    }

    /// What nobody has asked for by now, nobody will: the kernel hands everything out again at once.
    pub fn forget_old_calls(&self) {
        if self.recovered.get().is_some_and(|at| at.elapsed() > FORGET_AFTER) {
            self.calls.forget();
        }
    }

    /// Notes what is about to be sent for the call at hand, if it must not be done twice.
    pub fn note_sent(&self, ticket: &Arc<Ticket>, ops: &[Op]) {
        let Some((kept, call)) = self.config.kept.as_ref().zip(current()) else { return };
        if !ops.iter().any(happens_once) {
            return;
        }
        call.sends_nothing();
        match kept.sent().note(call.number, ticket.session(), ticket.sequence(), ops) {
            Some(sent) => call.is_sent(sent, ticket.clone()),
            None => tracing::debug!("if this process is killed now, a call is perhaps done twice"),
        }
    }
}

/// Done twice, it is something else.
fn happens_once(op: &Op) -> bool {
    match op {
        Op::Create(_) | Op::Link { .. } | Op::Unlink { .. } | Op::Rmdir { .. } | Op::Rename { .. } => true,
        Op::SetXattr { .. } | Op::RemoveXattr { .. } => true,
        Op::Write(write) => write.at == WriteAt::End,
        _ => false,
    }
}
