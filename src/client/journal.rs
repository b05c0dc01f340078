//! Changes that were made here under Write leases and are not at the leader yet, in the order in which they were made.
//!
//! Owns the order and who waits for what. Records are appended under the lock of the inodes they concern, so whoever
//! starts to wind a lease down under that lock finds every change that was made under it. They leave at the front, when
//! the leader has them ([`super::ship`]). What survives of a client is therefore a prefix of what it did.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::inode::Node;
use super::kept::log::Noted;
use super::sealed::Data;
use crate::types::attr::Time;
use crate::types::limits::JOURNAL_RECORDS_MAX;
use crate::types::op::Op;

/// How long a change waits for others to go with it. Whoever waits for it does not wait for this.
const GATHERING: Duration = Duration::from_millis(50);
/// So many records set out at once.
const PLENTY: usize = 256;

/// One change.
pub struct Record {
    /// Counts the records of this client.
    pub number: u64,
    pub at: Time,
    pub change: Change,
    /// What it concerns, each with the count of sessions its state had outlived.
    pub nodes: Vec<(Arc<Node>, u64)>,
    /// As it is noted for the next client on this mount.
    noted: Mutex<Option<Noted>>,
}

impl Record {
    /// Where it is noted.
    pub fn noted_at(&self) -> Option<u64> {
        self.noted.lock().as_ref().map(Noted::at)
    }

    /// The leader has it, or never will.
    pub fn ends(&self) {
        *self.noted.lock() = None;
    }
}

pub enum Change {
    Op(Op),
    /// Bytes written before whatever comes after.
    Data(Data),
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Arc<Record>>,
    last: u64,
    /// Somebody waits for everything up to this one.
    urgent: u64,
    oldest: Option<Instant>,
}

#[derive(Default)]
pub struct Journal {
    queue: Mutex<Queue>,
    work: Notify,
    done: watch::Sender<u64>,
    failures: AtomicU64,
}

impl Journal {
    /// How many changes the leader did not have.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    pub fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
    }

    /// Appends a change. To be called with the states of `nodes` locked; each is to count it as pending.
    pub fn append(&self, at: Time, change: Change, nodes: Vec<(Arc<Node>, u64)>, noted: Option<Noted>) -> u64 {
        let mut queue = self.queue.lock();
        queue.last += 1;
        let number = queue.last;
        queue.records.push_back(Arc::new(Record { number, at, change, nodes, noted: Mutex::new(noted) }));
        if queue.oldest.is_none() {
            queue.oldest = Some(Instant::now());
            self.work.notify_one();
        } else if queue.records.len() == PLENTY {
            self.work.notify_one();
        }
        number
    }

    /// As much is waiting as may be: changes are to be made at the leader.
    pub fn is_full(&self) -> bool {
        self.queue.lock().records.len() >= JOURNAL_RECORDS_MAX
    }

    /// Waits until everything appended before is at the leader, or given up.
    pub async fn drain(&self) {
        let last = self.queue.lock().last;
        self.drain_to(last).await;
    }

    pub async fn drain_to(&self, number: u64) {
        if *self.done.borrow() >= number {
            return;
        }
        {
            let mut queue = self.queue.lock();
            queue.urgent = queue.urgent.max(number);
        }
        self.work.notify_one();
        let _ = self.done.subscribe().wait_for(|done| *done >= number).await;
    }

    /// Returns when records are to set out.
    pub async fn due(&self) {
        loop {
            let oldest = {
                let queue = self.queue.lock();
                let urgent = queue.urgent > *self.done.borrow();
                match queue.oldest {
                    Some(_) if urgent || queue.records.len() >= PLENTY => return,
                    oldest => oldest,
                }
            };
            match oldest {
                None => self.work.notified().await,
                Some(oldest) => tokio::select! {
                    () = self.work.notified() => {}
                    () = tokio::time::sleep_until(oldest + GATHERING) => return,
                },
            }
        }
    }

    /// The number of the last one.
    pub fn last(&self) -> u64 {
        self.queue.lock().last
    }

    /// The first records, at most `max`; they stay.
    pub fn front(&self, max: usize) -> Vec<Arc<Record>> {
        self.queue.lock().records.iter().take(max).cloned().collect()
    }

    /// The first records, up to this one, are done with.
    pub fn leave(&self, number: u64) {
        {
            let mut queue = self.queue.lock();
            while queue.records.front().is_some_and(|record| record.number <= number) {
                queue.records.pop_front();
            }
            queue.oldest = queue.records.front().map(|_| Instant::now());
        }
        self.done.send_if_modified(|done| {
            let grown = number > *done;
            *done = (*done).max(number);
            grown
        });
    }

    /// Gives everything up. The records, for what they hold. Who waits goes on waiting until [`Journal::end_loss`]: by then
    /// everything that was lost says so.
    pub fn lose(&self) -> Vec<Arc<Record>> {
        let mut queue = self.queue.lock();
        queue.oldest = None;
        std::mem::take(&mut queue.records).into()
    }

    pub fn end_loss(&self) {
        let last = self.queue.lock().last;
        self.leave(last);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;
    use crate::types::id::Ino;

    fn append(journal: &Journal) -> u64 {
        journal.append(Time::default(), Change::Op(Op::Unlink { dir: Ino(1), name: name() }), Vec::new(), None)
    }

    fn name() -> crate::types::name::Name {
        crate::types::name::Name::new("n").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_changes_wait_for_more_and_nobody_waits_for_that() {
        let journal = Journal::default();
        let begun = Instant::now();
        append(&journal);
        journal.due().await;
        assert_eq!(begun.elapsed(), GATHERING);
        journal.leave(1);
        append(&journal);
        let drained = journal.drain();
        tokio::pin!(drained);
        assert!(poll!(drained.as_mut()).is_pending());
        let begun = Instant::now();
        journal.due().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        journal.leave(2);
        drained.await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_let_go_when_everything_is_given_up() {
        let journal = Journal::default();
        append(&journal);
        let drained = journal.drain();
        tokio::pin!(drained);
        assert!(poll!(drained.as_mut()).is_pending());
        assert_eq!(journal.lose().len(), 1);
        assert!(poll!(drained.as_mut()).is_pending(), "what was lost does not say so yet");
        journal.end_loss();
        drained.await;
        assert!(journal.front(9).is_empty());
    }
}
