//! Going on where another process has ended: with its session, what it held, its open files and its locks
//! ([decision 26](crate::docs::decisions::a_mount_is_kept)).
//!
//! In order: the session is asked for; what it holds is taken over as the leader has noted it, so that recalls find it; open files
//! and locks are put back, and what was taken and not stored ([`super::notes`]). Only then do the tasks of the client start. What
//! was perhaps sent is sent again, before anything else is changed; the journal is shipped, and the door opens last. Of
//! nothing that is held is it known what the kernel has of it, so it is taken to have pages, and to go by names and attributes for
//! as long as it may. Where the session has ended meanwhile, what was taken is lost with it, and reported.
//!
//! When another server leads by now, nobody can say what was held. It waits until all sessions have told it, and this one tells
//! what it knows of: the open files, and what it had locks on. By then the kernel goes by nothing that it was told before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::core::Core;
use super::files::OpenFile;
use super::kept::sent::SentCall;
use super::kept::{Kept, KeptFile, Locker, Standing};
use super::notes::{PutBack, give_up};
use super::session::take_up_open_files;
use super::{ClientConfig, FAREWELL};
use crate::remote::meta::{CallError, MetaClient};
use crate::remote::session::{MetaSession, Ticket};
use crate::types::allowance::Allowance;
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::lock::{LockSpace, OwnLock};
use crate::types::op::Op;
use crate::types::session::{Hold, Lease, SessionOpened};

/// How long another host may stand in the way of a call that is sent again: longer than a host that is not heard of can.
const SEND_AGAIN: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(50);

/// What a client before has left that is to be brought to its end.
#[derive(Default)]
pub struct TakenUp {
    /// The last record of the journal that was perhaps sent already.
    sent: u64,
    calls: Vec<SentCall>,
}

/// A session, and the one that a client before had on this mount.
pub struct Begun {
    pub session: MetaSession,
    pub opened: SessionOpened,
    /// When it was asked for.
    pub sent: Instant,
    pub before: Option<Standing>,
}

impl Begun {
    /// The session is that of the client before.
    pub fn goes_on(&self) -> bool {
        self.before.is_some_and(|before| before.session == self.session.id())
    }

    /// The term of the leader that knows what is held.
    pub fn known_to(&self) -> u64 {
        match self.before {
            Some(before) if self.goes_on() => before.term,
            _ => self.opened.heartbeat.term,
        }
    }
}

/// Goes on with the session that was left behind, or opens one.
///
/// # Errors
/// As [`MetaSession::open`].
pub async fn begin(config: &ClientConfig, meta: &Arc<MetaClient>) -> Result<Begun, CallError> {
    let (volume, name, kept) = (&config.volume, &config.name, config.kept.clone());
    let before = kept.as_ref().and_then(|kept| kept.standing());
    // Who is there already waits for the cluster with all its callers.
    let patience = if before.is_some() { None } else { config.start_patience };
    let resumed = match before {
        Some(before) => MetaSession::resume(meta.clone(), before.session, before.sequence, patience).await?,
        None => None,
    };
    let (session, opened, sent) = match resumed {
        Some(resumed) => resumed,
        None => {
            let after = before.map(|before| before.session);
            MetaSession::open(meta.clone(), volume, name, config.read_only, after, patience).await?
        }
    };
    if kept.as_ref().and_then(|kept| kept.volume()).is_some_and(|volume| volume != opened.volume.id) {
        return Err(CallError::Refused("it is another volume of that name by now".into()));
    }
    if opened.volume.policy.access.is_for_one()
        && let Some(before) = before.filter(|before| before.session != session.id())
    {
        tracing::error!(session = %before.session, "what the kernel keeps of the volume is not what is stored");
        if let Err(error) = session.close(FAREWELL).await {
            tracing::debug!(%error, "the session was not closed");
        }
        return Err(CallError::Refused("its session has ended: unmount it and mount it again".into()));
    }
    let session = match kept {
        Some(kept) => session.telling(move |sequence| kept.uses_sequence(sequence)),
        None => session,
    };
    Ok(Begun { session, opened, sent, before })
}

impl Core {
    /// Takes over what a client before has left. To be called before anything else is done.
    pub async fn take_up(self: &Arc<Self>, kept: &Kept, before: Standing, goes_on: bool) -> TakenUp {
        let calls = kept.sent().take_over().unwrap_or_else(|error| {
            tracing::error!(%error, "what was sent for calls that are not answered cannot be read");
            Vec::new()
        });
        let known = goes_on && self.take_up_holds(before.term).await;
        self.take_up_files(kept);
        let held = self.hold_notes();
        let PutBack { lost, sent } = if goes_on { self.put_back(kept, known) } else { give_up(kept) };
        // Behind what was made: of that the leader does not know who has it.
        if goes_on {
            self.take_up_locks(kept, known);
        } else {
            self.files.lose(&self.locks.lose());
        }
        if !lost.is_empty() {
            lost.iter().for_each(|ino| self.nodes.node(*ino).lock().fail(FsError::Io));
            self.journal.note_failure();
        }
        self.note_debts();
        drop(held);
        let (session, records, bytes) = (self.session().id(), self.journal.last(), self.memory.dirty_bytes());
        let (lost, in_order) = (lost.len(), before.in_order);
        tracing::info!(%session, goes_on, in_order, records, bytes, lost, "taken over from another client");
        TakenUp { sent, calls }
    }

    /// What was perhaps sent by the client before has happened once when this returns, and nothing of that happens later.
    pub async fn finish_sent(self: &Arc<Self>, taken_up: TakenUp, goes_on: bool) {
        let session = self.session();
        let TakenUp { sent: last, calls } = taken_up;
        let batch = self.config.kept.as_ref().and_then(|kept| kept.shipping()).filter(|_| last > 0);
        let (known, calls): (Vec<SentCall>, Vec<SentCall>) = calls
            .into_iter()
            // What another session was asked for nobody can say any more.
            .filter(|call| goes_on && call.session == session.id())
            .partition(|call| call.answer.is_some() || call.done_here.is_some());
        for SentCall { call, answer, done_here, sent, .. } in known {
            match (answer, done_here) {
                (Some(answer), _) => self.calls.was_answered(call, sent, answer),
                (None, made) => self.calls.was_done_before(call, made.flatten(), sent),
            }
        }
        let sequences = calls.iter().map(|call| call.sequence).chain(batch.map(|batch| batch.sequence));
        let mut tickets = session.tickets_again(&sequences.collect::<Vec<_>>());
        if let Some(ticket) = batch.and_then(|_| tickets.pop()) {
            self.ship_again(&session, ticket, last).await;
        }
        let again = calls.into_iter().zip(tickets).map(|(call, ticket)| self.send_again(&session, call, ticket));
        join_all(again).await;
        session.goes_on();
    }

    /// Sends again what was sent for a call. Whoever stands in its way at the leader is not waited for for ever: what has not
    /// happened when other changes go on never will, and the call is done anew.
    async fn send_again(&self, session: &Arc<MetaSession>, call: SentCall, ticket: Ticket) {
        let SentCall { call, ops, sent, .. } = call;
        let mut until = Instant::now() + SEND_AGAIN;
        let reply = loop {
            let asking = session.change(&ticket, ops.clone(), Hold::default());
            match tokio::time::timeout_at(until, asking).await.map(|answer| answer.result) {
                Ok(Ok(reply)) => break reply,
                // It is the cluster that does not answer.
                Err(_) if !self.life.alive() => until = Instant::now() + SEND_AGAIN,
                Ok(Err(FsError::Unreachable)) => tokio::time::sleep(RETRY).await,
                Ok(Err(error)) => return tracing::warn!(call, %error, "a call that was begun is done anew"),
                Err(_) => return tracing::warn!(call, "a call that another host held up is done anew"),
            }
        };
        // It is noted before its sequence is given up, which has to be before others' changes go on.
        if sent.was_answered(&reply) {
            self.calls.was_answered(call, sent, reply);
        }
    }

    /// What the session holds. `false`: the leader is not the one that has granted it.
    async fn take_up_holds(self: &Arc<Self>, term: u64) -> bool {
        self.lending.began_before();
        let (era, mut after) = (self.era(), Ino(0));
        loop {
            let answer = self.session().holdings(after).await;
            let Ok((told_by, claims, end)) = answer.result else { return false };
            if told_by != term {
                return false;
            }
            after = claims.last().map_or(after, |claim| claim.ino);
            let taken = self.install(era, claims);
            for ino in taken {
                let node = self.nodes.node(ino);
                let mut state = node.lock();
                state.pages = true;
                state.lent.lend();
            }
            if end {
                return true;
            }
        }
    }

    fn take_up_files(self: &Arc<Self>, kept: &Kept) {
        for KeptFile { handle, ino, mode, call } in kept.handles() {
            let node = self.nodes.node(ino);
            node.lock().opened(mode.write);
            let file = Arc::new(OpenFile::new(node.clone(), mode, call));
            self.files.restore(handle, file);
            self.calls.was_opened(call, handle);
            let mut state = node.lock();
            state.pages = true;
            // It may have had them from before the lease.
            state.uncovered = !self.is_exclusive();
        }
        self.files.take_up(&kept.debts());
    }

    /// Locks that were decided here, where it is still ours to decide.
    fn take_up_locks(&self, kept: &Kept, knows_holds: bool) {
        let mut locks: HashMap<Ino, Vec<OwnLock>> = HashMap::new();
        // What its owner has dropped as a whole may still be noted.
        let lockers: HashSet<Locker> = kept.lockers().into_iter().collect();
        for (ino, lock) in kept.locks() {
            if lockers.contains(&(ino, lock.space, lock.owner)) {
                locks.entry(ino).or_default().push(lock);
            }
        }
        for (ino, own) in locks {
            let node = self.nodes.node(ino);
            let mut state = node.lock();
            if !knows_holds {
                // The leader that granted it is gone, and no other grants it to anybody before this one has told what it held.
                state.held.assume(Hold { lease: Lease::Write, open: false });
            }
            if state.held.lease() == Lease::Write {
                state.arbiter.takes_up(&own);
            }
        }
    }

    /// A client that died may have been told of the end of a file, and not have dropped its locks, or it.
    async fn unlock_closed(self: &Arc<Self>) {
        let kept = self.config.kept.as_ref();
        for (handle, ino, owner) in kept.iter().flat_map(|kept| kept.leaving()) {
            for space in [LockSpace::Flock, LockSpace::Range] {
                if let Err(error) = self.unlock_all(ino, space, owner).await {
                    tracing::warn!(%error, %ino, "locks of a file that was closed were not dropped");
                }
            }
            // One that has several owners is released once.
            let _ = self.release(handle);
            kept.iter().for_each(|kept| kept.has_left(handle, ino, owner));
        }
        for (ino, space, owner) in self.config.kept.iter().flat_map(|kept| kept.lockers()) {
            if self.nodes.node(ino).lock().opens > 0 {
                continue;
            }
            if let Err(error) = self.unlock_all(ino, space, owner).await {
                tracing::warn!(%error, %ino, "locks of a file that was closed were not dropped");
            }
        }
    }

    /// After the tasks of the client have started: whoever sent something before this does so in vain, and what was promised to
    /// it of the quotas goes back, as nobody knows how much of that was used.
    pub async fn settle_resumed(self: &Arc<Self>) {
        self.journal.drain().await;
        // But for what was put back, and is dirty.
        let upto = Allowance { inodes: 0, bytes: self.memory.dirty_bytes() };
        let give_back = Op::Reserve { numbers: 0, upto };
        while let (Err(FsError::Unreachable), _) = self.submit(vec![give_back.clone()], Hold::default()).await {
            tracing::warn!("the cluster does not answer; what a client before has sent may still happen");
        }
        take_up_open_files(self).await;
        self.unlock_closed().await;
        // Not before: what is granted in answer to a question from before the leader was told is void.
        for node in self.nodes.all() {
            let uncovered = node.lock().uncovered;
            if uncovered {
                self.note_uncovered(&node);
            }
        }
    }
}
