//! Shipping the journal: one batch at a time, in order, each a single command.
//!
//! A batch that the leader refuses is cut at the record that was refused: what comes before goes alone, then the one. If it
//! is refused alone as well it is given up: it cannot be, as it was made under Write leases and foreseen to the letter,
//! but for want of space. Then everything it concerned is asked for anew, and every handle of it reports the loss.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::api::Result;
use super::core::{Core, PROMISED_TRIES};
use super::inode::Node;
use super::journal::{Change, Record};
use super::kept::taken::Batch as Sent;
use super::session::until_stopped;
use crate::remote::session::{MetaSession, Ticket};
use crate::types::allowance::Allowance;
use crate::types::error::FsError;
use crate::types::extent::Extent;
use crate::types::op::{BatchReply, Dated, Op, OpReply};

/// Records in one command, and bytes: well within the bounds of one, and soon applied.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 2 << 20;
const RETRY: Duration = Duration::from_millis(50);

/// Starts the task that ships.
pub fn start(core: &Arc<Core>) {
    until_stopped(core, run(core.clone()));
}

async fn run(core: Arc<Core>) {
    let mut promised = 0;
    // How many records the next batches may have, after one was refused.
    let mut limits: VecDeque<usize> = VecDeque::new();
    loop {
        core.journal.due().await;
        let session = core.session();
        let max = limits.pop_front().unwrap_or(BATCH_RECORDS);
        let batch = core.pack(max).await;
        if batch.records.is_empty() {
            continue;
        }
        let ticket = session.ticket();
        core.note_sending(&ticket, &batch);
        // Its answer is not given up before what it says is noted.
        match core.ship_batch(&session, &ticket, &batch.changes).await {
            Shipped::Done(replies) => {
                if limits.is_empty() {
                    promised = 0;
                }
                core.settle_batch(&batch, &replies);
            }
            // What was written through near the end of a quota. The leader gets back what it has promised to others, and then it fits
            // or does not.
            Shipped::Refused { error: FsError::Promised, .. } if promised + 1 < PROMISED_TRIES => {
                promised += 1;
                limits.push_front(max);
            }
            Shipped::Refused { error, .. } if batch.records.len() == 1 => {
                if !core.ship_alone(&batch.records[0], error).await {
                    limits.push_front(1);
                }
            }
            Shipped::Refused { index, .. } => {
                limits = [index, 1].into_iter().filter(|count| *count > 0).collect();
            }
            Shipped::Failed(error) if batch.records.len() == 1 => {
                core.give_up(&batch.records[0], &error);
            }
            Shipped::Failed(_) => limits = std::iter::repeat_n(1, batch.records.len()).collect(),
            // It was lost with its session.
            Shipped::Expired => limits.clear(),
        }
        core.config.kept.iter().for_each(|kept| kept.has_shipped());
    }
}

/// Records and what they are as operations; of data with the pieces it became.
struct Batch {
    records: Vec<Arc<Record>>,
    changes: Vec<Dated>,
    pieces: Vec<Vec<Extent>>,
}

enum Shipped {
    Done(Vec<OpReply>),
    Refused {
        index: usize,
        error: FsError,
    },
    /// All of it, or the leader does not say which.
    Failed(FsError),
    Expired,
}

impl Core {
    /// The next batch. One that begins with data that could not be put is that data alone, without an operation.
    async fn pack(self: &Arc<Self>, max: usize) -> Batch {
        let mut batch = Batch { records: Vec::new(), changes: Vec::new(), pieces: Vec::new() };
        let mut bytes = 0;
        for record in self.journal.front(max) {
            bytes += record.bytes();
            if bytes > BATCH_BYTES && !batch.records.is_empty() {
                break;
            }
            let op = match &record.change {
                Change::Op(op) => op.clone(),
                Change::Data(data) => match self.sealed_pieces(data).await {
                    Ok(pieces) => {
                        let op = self.sealed_write(data, &pieces);
                        batch.pieces.push(pieces);
                        op
                    }
                    Err(_) if batch.records.is_empty() => {
                        batch.records.push(record);
                        break;
                    }
                    Err(_) => break,
                },
            };
            batch.changes.push(Dated { at: record.at, op });
            batch.records.push(record);
        }
        batch
    }

    /// Which of what is noted is on its way, for the next client.
    fn note_sending(&self, ticket: &Ticket, batch: &Batch) {
        let Some(kept) = &self.config.kept else { return };
        if let Some(upto) = batch.records.iter().rev().find_map(|record| record.noted_at()) {
            kept.ships(Sent { sequence: ticket.sequence(), upto });
        }
    }

    async fn ship_batch(&self, session: &Arc<MetaSession>, ticket: &Ticket, changes: &[Dated]) -> Shipped {
        if changes.is_empty() {
            return Shipped::Refused { index: 0, error: FsError::Io };
        }
        loop {
            let era = self.era();
            let answer = session.ship(ticket, changes.to_vec()).await;
            self.install(era, answer.granted);
            match answer.result {
                Ok(BatchReply::Done(replies)) => return Shipped::Done(replies),
                Ok(BatchReply::Failed { index, error }) => return Shipped::Refused { index: index as usize, error },
                Err(FsError::SessionExpired) => {
                    self.renewed(session).await;
                    return Shipped::Expired;
                }
                Err(FsError::Unreachable) if self.session().id() != session.id() => return Shipped::Expired,
                Err(FsError::Unreachable) => tokio::time::sleep(RETRY).await,
                Err(error) => return Shipped::Failed(error),
            }
        }
    }

    /// Sends again what a client before has perhaps sent, as a whole and under the same sequence: the first records, up to this one.
    /// To be called before anything else is changed.
    pub async fn ship_again(self: &Arc<Self>, session: &Arc<MetaSession>, ticket: Ticket, last: u64) {
        let count = usize::try_from(last).unwrap_or(usize::MAX);
        let records: Vec<Arc<Record>> =
            self.journal.front(count).into_iter().filter(|record| record.number <= last).collect();
        let mut changes = Vec::with_capacity(records.len());
        for record in &records {
            let op = match &record.change {
                Change::Op(op) => Some(op.clone()),
                Change::Data(data) => self.sealed_write_again(data).await,
            };
            changes.extend(op.map(|op| Dated { at: record.at, op }));
        }
        match self.ship_batch(session, &ticket, &changes).await {
            Shipped::Done(_) => {
                self.heard(&records);
                for record in &records {
                    match &record.change {
                        // Of what pieces the leader has made it is to say.
                        Change::Data(data) => self.settle_sealed(data, &[], None),
                        Change::Op(Op::SetLocks { ino, locks }) => self.locks_are_home(*ino, locks),
                        Change::Op(_) => {}
                    }
                }
                self.leave(&records);
            }
            // It was refused when it was sent first; as any other, it is cut up, and what cannot be is reported.
            Shipped::Refused { error, .. } | Shipped::Failed(error) => {
                tracing::debug!(%error, "what was sent by the client before was refused");
            }
            Shipped::Expired => {}
        }
        self.config.kept.iter().for_each(|kept| kept.has_shipped());
    }

    fn settle_batch(self: &Arc<Self>, batch: &Batch, replies: &[OpReply]) {
        self.heard(&batch.records);
        let mut replies = replies.iter();
        let mut pieces = batch.pieces.iter();
        for record in &batch.records {
            match &record.change {
                Change::Data(data) => {
                    let attr = match replies.next() {
                        Some(OpReply::Written { attr, .. }) => Some(attr),
                        _ => None,
                    };
                    self.settle_sealed(data, pieces.next().map_or(&[], Vec::as_slice), attr);
                }
                Change::Op(Op::CopyRange { to, .. }) => {
                    if let (Some(OpReply::Copied { attr, .. }), Some(node)) = (replies.next(), self.nodes.find(*to)) {
                        node.lock().learn_allocated(attr.allocated_bytes);
                    }
                }
                Change::Op(Op::SetLocks { ino, locks }) => self.locks_are_home(*ino, locks),
                Change::Op(_) => {}
            }
        }
        self.leave(&batch.records);
    }

    /// One record that was refused in a batch of its own. `false`: it is to be tried again.
    async fn ship_alone(self: &Arc<Self>, record: &Arc<Record>, error: FsError) -> bool {
        let Change::Data(data) = &record.change else {
            self.give_up(record, &error);
            return true;
        };
        match self.ship_sealed_alone(data).await {
            Ok(()) => self.leave(std::slice::from_ref(record)),
            Err(FsError::Unreachable) => {
                tokio::time::sleep(RETRY).await;
                return false;
            }
            Err(error) => self.give_up(record, &error),
        }
        true
    }

    /// Ends records that the leader has.
    fn leave(self: &Arc<Self>, records: &[Arc<Record>]) {
        let mut orphans = Vec::new();
        for (node, life) in records.iter().flat_map(|record| &record.nodes) {
            let mut state = node.lock();
            if state.life != *life {
                continue;
            }
            state.shipped();
            let gone = state.pending == 0 && state.opens == 0 && state.base().is_some_and(|attr| attr.nlink == 0);
            if gone {
                orphans.push(node.clone());
            }
        }
        records.iter().for_each(|record| record.ends());
        self.quota.arrived(records.iter().map(kept).fold(Allowance::default(), Allowance::plus));
        if let Some(last) = records.last() {
            self.journal.leave(last.number);
        }
        self.let_all_go(&orphans);
    }

    /// The leader has perhaps counted what these records add. Before anything of them is settled: what is dirty still counts.
    fn heard(&self, records: &[Arc<Record>]) {
        let data = |record: &Arc<Record>| match &record.change {
            Change::Op(_) => 0,
            Change::Data(data) => data.bytes(),
        };
        let bytes = records.iter().map(data).sum();
        let of_ops = records.iter().map(kept).fold(Allowance::default(), Allowance::plus);
        self.quota.heard(of_ops.plus(Allowance { inodes: 0, bytes }));
    }

    /// A change that was made here and that the leader will not have.
    fn give_up(self: &Arc<Self>, record: &Arc<Record>, error: &FsError) {
        let held = self.hold_notes();
        self.heard(std::slice::from_ref(record));
        tracing::error!(%error, number = record.number, "a change that was made here was refused and is lost");
        self.journal.note_failure();
        if let Change::Data(data) = &record.change {
            self.lose_sealed(data);
        }
        for (node, life) in &record.nodes {
            let mut state = node.lock();
            if state.life == *life {
                state.disavow();
                state.fail(error.clone());
            }
        }
        self.note_debts();
        drop(held);
        self.leave(std::slice::from_ref(record));
    }

    /// What was done to an inode is at the leader when this returns.
    pub async fn shipped(&self, node: &Node) {
        let newest = {
            let state = node.lock();
            if state.pending == 0 {
                return;
            }
            state.newest_record
        };
        self.journal.drain_to(newest).await;
    }

    /// Everything that was done is at the leader, within the volume's patience.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn drain(&self) -> Result<()> {
        match self.volume.policy.patience() {
            None => self.journal.drain().await,
            Some(patience) => {
                tokio::time::timeout(patience, self.journal.drain()).await.map_err(|_| FsError::Unreachable)?;
            }
        }
        Ok(())
    }
}

/// What a record adds besides data, which is dirty until it is settled.
fn kept(record: &Arc<Record>) -> Allowance {
    match &record.change {
        Change::Op(op) => Allowance::of([op]),
        Change::Data(_) => Allowance::default(),
    }
}
