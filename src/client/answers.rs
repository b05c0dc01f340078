//! What is given back, and answers to recalls and looks, on their way to the leader: one message for all that is there when the one
//! before is through, in the order in which it was given back.
//!
//! Who takes the leases of a whole directory recalls hundreds at once; each answer in a message of its own would cost both sides
//! more than what they are about.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::core::Core;
use crate::types::error::FsError;
use crate::types::session::{Claim, Shown};

const RETRY: Duration = Duration::from_millis(100);
/// Of each kind in one message.
const AT_ONCE: usize = 4096;

#[derive(Default)]
pub struct Answers {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    claims: Vec<Claim>,
    shown: Vec<Shown>,
    /// A task takes them along.
    sending: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.shown.is_empty()
    }
}

impl Core {
    /// What is kept of what was held: the answer to recalls, or unasked. Does not wait.
    pub fn yield_claims(self: &Arc<Self>, claims: impl IntoIterator<Item = Claim>) {
        self.answer(|waiting| waiting.claims.extend(claims));
    }

    /// The answer to a look at what is kept. Does not wait.
    pub fn answer_look(self: &Arc<Self>, shown: Shown) {
        self.answer(|waiting| waiting.shown.push(shown));
    }

    fn answer(self: &Arc<Self>, put: impl FnOnce(&mut Waiting)) {
        let begins = {
            let mut waiting = self.answers.waiting.lock();
            put(&mut waiting);
            !waiting.is_empty() && !std::mem::replace(&mut waiting.sending, true)
        };
        if begins {
            let core = self.clone();
            self.runtime.spawn(async move { core.send_answers().await });
        }
    }

    async fn send_answers(&self) {
        loop {
            let (claims, shown) = {
                let mut waiting = self.answers.waiting.lock();
                waiting.sending = !waiting.is_empty();
                if !waiting.sending {
                    return;
                }
                (first(&mut waiting.claims), first(&mut waiting.shown))
            };
            self.tell_yielded(claims, shown).await;
        }
    }

    /// Until the leader has heard.
    async fn tell_yielded(&self, claims: Vec<Claim>, shown: Vec<Shown>) {
        let session = self.session();
        while self.session().id() == session.id() {
            match session.yield_leases(claims.clone(), shown.clone()).await.result {
                Ok(()) | Err(FsError::SessionExpired) => break,
                Err(_) if self.is_stopping() => break,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
        for claim in &claims {
            if let Some(node) = self.nodes.find(claim.ino) {
                node.lock().held.yielded();
                node.moved.notify_waiters();
            }
        }
    }
}

fn first<T>(queue: &mut Vec<T>) -> Vec<T> {
    queue.drain(..queue.len().min(AT_ONCE)).collect()
}
