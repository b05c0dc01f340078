//! Answers to recalls and looks on their way to the leader: one message for all that are there when the one before is through.
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

impl Core {
    /// The answer to a recall: what is kept. Does not wait.
    pub fn answer_recall(self: &Arc<Self>, claim: Claim) {
        self.answer(|waiting| waiting.claims.push(claim));
    }

    /// The answer to a look at what is kept. Does not wait.
    pub fn answer_look(self: &Arc<Self>, shown: Shown) {
        self.answer(|waiting| waiting.shown.push(shown));
    }

    fn answer(self: &Arc<Self>, put: impl FnOnce(&mut Waiting)) {
        let begins = {
            let mut waiting = self.answers.waiting.lock();
            put(&mut waiting);
            !std::mem::replace(&mut waiting.sending, true)
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
                waiting.sending = !waiting.claims.is_empty() || !waiting.shown.is_empty();
                if !waiting.sending {
                    return;
                }
                (std::mem::take(&mut waiting.claims), std::mem::take(&mut waiting.shown))
            };
            self.tell_yielded(claims, shown).await;
        }
    }

    /// Gives leases back, until the leader has heard.
    pub async fn yield_claims(&self, claims: Vec<Claim>) {
        self.tell_yielded(claims, Vec::new()).await;
    }

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
