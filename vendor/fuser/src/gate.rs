//! Which requests were taken from the kernel and are not answered, and whether more are taken.
//!
//! Whoever leaves a connection to another process closes the gate, and waits until nothing is left that was taken. A request
//! that was read and finds the gate closed is not dispatched: the kernel hands it out again (`Notifier::resend`).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Condvar;
use parking_lot::Mutex;

/// Shared by the event loops of a session.
#[derive(Debug, Default)]
pub struct Gate {
    taken: AtomicUsize,
    closed: AtomicBool,
    waiting: Mutex<()>,
    opened: Condvar,
}

/// One request that was taken, or one of the ways to answer it. Dropped with the answer.
#[derive(Debug)]
pub(crate) struct Taken(Arc<Gate>);

impl Gate {
    /// Nothing more is dispatched.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Event loops that stood before the gate go on with the request that they had read.
    pub fn open(&self) {
        let _waiting = self.waiting.lock();
        self.closed.store(false, Ordering::SeqCst);
        self.opened.notify_all();
    }

    /// How many requests wait for their answer. Once the gate is closed this falls, but for the moment in which an event loop finds
    /// it closed.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Waits while the gate is closed.
    pub(crate) fn pass(self: &Arc<Self>) -> Taken {
        loop {
            // Counted first: who closes the gate and looks at the count afterwards sees it, or it sees the gate closed.
            self.taken.fetch_add(1, Ordering::SeqCst);
            let taken = Taken(self.clone());
            if !self.closed.load(Ordering::SeqCst) {
                return taken;
            }
            drop(taken);
            let mut waiting = self.waiting.lock();
            while self.closed.load(Ordering::SeqCst) {
                self.opened.wait(&mut waiting);
            }
        }
    }
}

impl Clone for Taken {
    fn clone(&self) -> Taken {
        self.0.taken.fetch_add(1, Ordering::SeqCst);
        Taken(self.0.clone())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_counted_until_its_last_answer_is_gone() {
        let gate = Arc::new(Gate::default());
        let taken = gate.pass();
        let other = taken.clone();
        drop(taken);
        assert_eq!(gate.taken(), 1);
        gate.close();
        let waiting = {
            let gate = gate.clone();
            std::thread::spawn(move || drop(gate.pass()))
        };
        drop(other);
        assert_eq!(gate.taken(), 0);
        gate.open();
        waiting.join().unwrap();
    }
}
