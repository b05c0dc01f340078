//! Calls to the metadata service, wherever its leader is.
//!
//! Owns the list of metadata servers and the memory of which of them leads. A call goes to the leader; on `NotLeader`,
//! on a lost connection and on a passed deadline it goes on to the next server, with a short pause, until somebody
//! answers or the caller's patience ends. So a request may be executed more than once: whoever changes something
//! carries a sequence (see [`crate::remote::session`]).
//!
//! A call that hangs at a server which another call has found to be deposed is abandoned there and made again: the
//! heartbeat, with its short deadline, thereby frees every longer call.
//!
//! Needs no session: stores and operators use it as well as clients.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::net::{Frame, NetError, Transport};
use crate::types::id::SessionId;
use crate::types::record::MetaInfo;
use crate::types::session::Event;
use crate::wire::codec::{KIND_META, decode, encode};
pub use crate::wire::meta::{MetaBody, MetaReply, MetaRequest};

const BACKOFF_MS_MIN: u64 = 10;
const BACKOFF_MS_MAX: u64 = 50;
/// Calls that a live leader answers from memory.
const PROMPT_DEADLINE: Duration = Duration::from_millis(2_000);
/// Calls that may wait for other clients to give up leases: for a minute at most, and then until their sessions have expired.
const PARKED_DEADLINE: Duration = Duration::from_secs(90);
/// A lock may be waited for this long before the wait is renewed.
const LOCK_DEADLINE: Duration = Duration::from_secs(3_600);

/// Why the metadata service gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    #[error("no metadata server answers: {0}")]
    Unreachable(String),
    #[error("{0}")]
    Refused(String),
    /// Of opening a session.
    #[error("another host has taken the volume over")]
    TakenOver,
    /// Of opening a session.
    #[error("there is no volume {0}")]
    NoVolume(String),
    #[error("a metadata server sent what is not a message: {0}")]
    Malformed(String),
}

/// An answer, and what is known of how it came.
#[derive(Debug)]
pub struct Answered {
    pub reply: MetaReply,
    /// When the try that was answered was sent.
    pub sent: Instant,
    /// An earlier try may have been acted upon without its answer arriving.
    pub uncertain: bool,
}

/// The metadata service of one cluster.
pub struct MetaClient {
    transport: Arc<dyn Transport>,
    known: Mutex<Known>,
    leader: watch::Sender<Option<String>>,
}

struct Known {
    addresses: Vec<String>,
    next: usize,
}

impl MetaClient {
    /// `addresses` are `host:port` of one metadata server or more; the others are learned.
    pub fn new(transport: Arc<dyn Transport>, addresses: Vec<String>) -> MetaClient {
        let (leader, _) = watch::channel(None);
        MetaClient { transport, known: Mutex::new(Known { addresses, next: 0 }), leader }
    }

    /// Asks the leader. `patience`: how long to go on while nobody answers; `None` is for ever.
    ///
    /// # Errors
    /// Nobody answered in time, every server refused us, or an answer was not a message.
    pub async fn call(&self, request: &MetaRequest, patience: Option<Duration>) -> Result<Answered, CallError> {
        let frame = Frame { kind: KIND_META, message: encode(request).into(), bulk: Bytes::new() };
        let (begun, deadline) = (Instant::now(), deadline_of(request));
        let mut attempt = Attempt::default();
        loop {
            let address = self.target()?;
            let sent = Instant::now();
            match self.attempt(&address, frame.clone(), deadline).await {
                Outcome::Answer(reply) => {
                    if !matches!(request, MetaRequest::Members) {
                        self.lead(&address);
                    }
                    self.learn(&reply);
                    return Ok(Answered { reply, sent, uncertain: attempt.uncertain });
                }
                Outcome::Elsewhere { hint, uncertain } => {
                    attempt.uncertain |= uncertain;
                    attempt.elsewhere(self.redirect(&address, hint));
                }
                Outcome::Deposed => attempt.uncertain = true,
                Outcome::Failed(error) => {
                    attempt.failed(&error);
                    self.pass_over(&address);
                    if attempt.refusals > self.known.lock().addresses.len() {
                        return Err(CallError::Refused(error.to_string()));
                    }
                }
                Outcome::Malformed(why) => return Err(CallError::Malformed(why)),
            }
            if patience.is_some_and(|patience| begun.elapsed() >= patience) {
                return Err(CallError::Unreachable(attempt.why));
            }
            attempt.pause().await;
        }
    }

    /// Opens a session's stream of events at the server that is believed to lead. The first event is `Hello`.
    ///
    /// # Errors
    /// That server is away, or is not the leader.
    pub async fn subscribe(&self, session: SessionId) -> Result<Events, CallError> {
        let address = self.target()?;
        let message = encode(&MetaRequest::Subscribe { session }).into();
        let frame = Frame { kind: KIND_META, message, bulk: Bytes::new() };
        let opened = self.transport.subscribe(&address, frame).await;
        let frames = opened.map_err(|error| CallError::Unreachable(error.to_string()))?;
        let mut events = Events { frames, term: 0 };
        match tokio::time::timeout(PROMPT_DEADLINE, events.next()).await {
            Ok(Some(Event::Hello { term })) => {
                events.term = term;
                Ok(events)
            }
            _ => Err(CallError::Unreachable(format!("{address} opened no stream of events"))),
        }
    }

    /// `host:port` of the servers known so far.
    pub fn addresses(&self) -> Vec<String> {
        self.known.lock().addresses.clone()
    }

    async fn attempt(&self, address: &str, frame: Frame, deadline: Duration) -> Outcome {
        let mut leader = self.leader.subscribe();
        let deposed = leader.wait_for(|leader| leader.as_deref().is_some_and(|leader| leader != address));
        tokio::select! {
            answer = self.transport.call(address, frame, deadline) => Outcome::of(answer),
            _ = deposed => Outcome::Deposed,
        }
    }

    fn target(&self) -> Result<String, CallError> {
        if let Some(leader) = self.leader.borrow().as_ref() {
            return Ok(leader.clone());
        }
        let known = self.known.lock();
        let address = known.addresses.get(known.next % known.addresses.len().max(1));
        address.cloned().ok_or_else(|| CallError::Refused("no metadata server was named".into()))
    }

    fn lead(&self, address: &str) {
        self.leader.send_if_modified(|leader| {
            let new = leader.as_deref() != Some(address);
            if new {
                *leader = Some(address.to_owned());
            }
            new
        });
    }

    /// Goes where the hint points. `false` when there is no hint, or none that helps.
    fn redirect(&self, asked: &str, hint: Option<MetaInfo>) -> bool {
        match hint {
            Some(info) if info.address != asked => {
                self.add(&info.address);
                self.lead(&info.address);
                true
            }
            _ => {
                self.pass_over(asked);
                false
            }
        }
    }

    fn pass_over(&self, address: &str) {
        {
            let mut known = self.known.lock();
            let count = known.addresses.len().max(1);
            let asked = known.addresses.iter().position(|other| other == address);
            known.next = asked.map_or(known.next, |at| at + 1) % count;
        }
        self.leader.send_if_modified(|leader| {
            // Without a notification: a call elsewhere is not disturbed by what this one has met.
            if leader.as_deref() == Some(address) {
                *leader = None;
            }
            false
        });
    }

    fn learn(&self, reply: &MetaReply) {
        if let MetaBody::Members { metas, .. } = &reply.body {
            metas.iter().for_each(|meta| self.add(&meta.address));
        }
    }

    fn add(&self, address: &str) {
        let mut known = self.known.lock();
        if !address.is_empty() && !known.addresses.iter().any(|other| other == address) {
            known.addresses.push(address.to_owned());
        }
    }
}

/// A session's stream of events.
pub struct Events {
    frames: mpsc::Receiver<Frame>,
    term: u64,
}

impl Events {
    /// The leader's term when the stream was opened.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// `None` when the stream has ended, by a loss of the connection or by something that is not an event.
    pub async fn next(&mut self) -> Option<Event> {
        decode(&self.frames.recv().await?.message).ok()
    }
}

enum Outcome {
    Answer(MetaReply),
    Elsewhere { hint: Option<MetaInfo>, uncertain: bool },
    Deposed,
    Failed(NetError),
    Malformed(String),
}

impl Outcome {
    fn of(answer: Result<Frame, NetError>) -> Outcome {
        let frame = match answer {
            Ok(frame) => frame,
            Err(error) => return Outcome::Failed(error),
        };
        match decode::<MetaReply>(&frame.message) {
            Ok(MetaReply { body: MetaBody::NotLeader(hint), .. }) => Outcome::Elsewhere { hint, uncertain: false },
            Ok(MetaReply { body: MetaBody::Uncertain(hint), .. }) => Outcome::Elsewhere { hint, uncertain: true },
            Ok(reply) => Outcome::Answer(reply),
            Err(error) => Outcome::Malformed(error.to_string()),
        }
    }
}

#[derive(Default)]
struct Attempt {
    uncertain: bool,
    refusals: usize,
    tries: u32,
    redirects: u32,
    pause_ms: u64,
    why: String,
}

impl Attempt {
    fn failed(&mut self, error: &NetError) {
        match error {
            NetError::Unreachable { .. } => {}
            NetError::Refused { .. } => self.refusals += 1,
            NetError::NoAnswer { .. } | NetError::Malformed { .. } => self.uncertain = true,
        }
        self.why = error.to_string();
        self.slow_down();
    }

    fn elsewhere(&mut self, hinted: bool) {
        self.redirects += 1;
        self.why = "there is no leader".into();
        // Two servers that point at each other during an election are not hammered.
        if hinted && self.redirects < 3 {
            self.pause_ms = 0;
        } else {
            self.slow_down();
        }
    }

    fn slow_down(&mut self) {
        self.tries += 1;
        self.pause_ms = (BACKOFF_MS_MIN * u64::from(self.tries)).min(BACKOFF_MS_MAX);
    }

    async fn pause(&self) {
        if self.pause_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.pause_ms)).await;
        }
    }
}

fn deadline_of(request: &MetaRequest) -> Duration {
    match request {
        MetaRequest::WaitLock { .. } => LOCK_DEADLINE,
        MetaRequest::Heartbeat { .. }
        | MetaRequest::StatFs { .. }
        | MetaRequest::Members
        | MetaRequest::Status
        | MetaRequest::GetMap
        | MetaRequest::StoreHeartbeat { .. }
        | MetaRequest::OfferChunks { .. } => PROMPT_DEADLINE,
        _ => PARKED_DEADLINE,
    }
}
