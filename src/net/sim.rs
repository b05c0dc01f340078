//! A network in memory for simulated clusters: the same promises as QUIC, and faults on demand.
//!
//! Time is tokio's, so paused time works; chance is seeded, so on a single-threaded runtime a run repeats. A process is
//! known by a name: a server's is its address. Failures look as they do over QUIC: a peer that cannot be reached is
//! `Unreachable`, at once when its process is dead and after the connect timeout when it is cut off; one that goes in
//! mid-call is `NoAnswer`, soon after its death and after the idle timeout when it is cut off.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::fault::{no_answer, refused, unreachable};
use super::{BoxFuture, Call, Frame, NetError, Peer, Replier, Service, Transport, frame};

const CONNECT_TIMEOUT: Duration = super::settings::CONNECT_TIMEOUT;
const SILENCE: Duration = super::settings::IDLE_TIMEOUT;
/// How soon a dead process is noticed: the probe's interval and a little.
const DEATH_NOTICED: Duration = Duration::from_millis(300);
const REPLIES: usize = 4;
const SUBSCRIPTION_FRAMES: usize = 64;

/// The network. Cloneable; all clones are one.
#[derive(Clone)]
pub struct SimNet {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Counts changes of what is reachable, so that waiting calls look again.
    changes: watch::Sender<u64>,
}

struct State {
    nodes: HashMap<String, Node>,
    /// Directed: what the first sends does not reach the second.
    cuts: HashSet<(String, String)>,
    chance: u64,
    latency: (Duration, Duration),
    lost_requests_per_mille: u64,
    lost_replies_per_mille: u64,
}

struct Node {
    service: Arc<dyn Service>,
    alive: bool,
    calls: JoinSet<()>,
}

/// What chance decided for one call.
struct Fate {
    there: Duration,
    back: Duration,
    request_lost: bool,
    reply_lost: bool,
}

impl SimNet {
    /// A sound network: 50 to 200 microseconds each way, nothing lost.
    pub fn new(seed: u64) -> SimNet {
        let state = State {
            nodes: HashMap::new(),
            cuts: HashSet::new(),
            chance: seed,
            latency: (Duration::from_micros(50), Duration::from_micros(200)),
            lost_requests_per_mille: 0,
            lost_replies_per_mille: 0,
        };
        SimNet { shared: Arc::new(Shared { state: Mutex::new(state), changes: watch::Sender::new(0) }) }
    }

    /// From now on `service` answers at `address`. Replaces what was there: a restart with new state.
    pub fn register(&self, address: &str, service: Arc<dyn Service>) {
        self.change(|state| {
            state.nodes.insert(address.into(), Node { service, alive: true, calls: JoinSet::new() });
        });
    }

    /// The way to call for the process `from`, which is seen as `peer` (`None`: without a certificate).
    pub fn transport(&self, peer: impl Into<Option<Peer>>, from: &str) -> Arc<dyn Transport> {
        Arc::new(SimTransport { net: self.clone(), peer: peer.into(), from: from.into() })
    }

    /// Least and greatest delay of one direction.
    pub fn set_latency(&self, least: Duration, greatest: Duration) {
        self.change(|state| state.latency = (least, greatest.max(least)));
    }

    /// So many of a thousand calls break off: before the peer acted, and after it did. The caller cannot tell which.
    pub fn set_losses(&self, requests_per_mille: u64, replies_per_mille: u64) {
        self.change(|state| {
            state.lost_requests_per_mille = requests_per_mille;
            state.lost_replies_per_mille = replies_per_mille;
        });
    }

    /// Nothing passes between `a` and `b`.
    pub fn cut(&self, a: &str, b: &str) {
        self.change(|state| {
            state.cuts.insert((a.into(), b.into()));
            state.cuts.insert((b.into(), a.into()));
        });
    }

    /// What `from` sends does not reach `to`; the other direction works.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.change(|state| {
            state.cuts.insert((from.into(), to.into()));
        });
    }

    /// Undoes every cut.
    pub fn heal(&self) {
        self.change(|state| state.cuts.clear());
    }

    /// The process at `address` ends as by kill -9: calls it was serving stop where they are, and calls it makes fail.
    /// Tasks it started itself are the simulation's to stop.
    pub fn kill(&self, address: &str) {
        self.change(|state| {
            if let Some(node) = state.nodes.get_mut(address) {
                node.alive = false;
                node.calls.abort_all();
            }
        });
    }

    /// It answers again, with the service it had.
    pub fn revive(&self, address: &str) {
        self.change(|state| {
            if let Some(node) = state.nodes.get_mut(address) {
                node.alive = true;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock());
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// QUIC sends again what did not arrive: whether a break between the two heals before the connection is given up.
    async fn outlasts(&self, from: &str, to: &str) -> bool {
        tokio::select! {
            () = self.silence(from, to) => false,
            () = self.linked(from, to) => true,
        }
    }

    /// Returns when the two can talk.
    async fn linked(&self, from: &str, to: &str) {
        let mut changes = self.shared.changes.subscribe();
        while !self.shared.state.lock().is_linked(from, to) {
            // The sender lives in `self`.
            let _ = changes.changed().await;
        }
    }

    /// Returns when the connection between the two is given up.
    async fn silence(&self, from: &str, to: &str) {
        let mut changes = self.shared.changes.subscribe();
        let mut since = None;
        loop {
            // Looked at under the lock and let go of before the wait.
            let (linked, patience) = {
                let state = self.shared.state.lock();
                (state.is_linked(from, to), if state.is_seen_dead(from, to) { DEATH_NOTICED } else { SILENCE })
            };
            if linked {
                since = None;
                // The sender lives in `self`.
                let _ = changes.changed().await;
                continue;
            }
            let since = *since.get_or_insert_with(Instant::now);
            tokio::select! {
                () = sleep_until(since + patience) => return,
                _ = changes.changed() => {}
            }
        }
    }
}

impl State {
    /// Both directions work and both ends live. A caller that is no server is alive.
    fn is_linked(&self, from: &str, to: &str) -> bool {
        let cut = |a: &str, b: &str| self.cuts.contains(&(a.to_string(), b.to_string()));
        self.nodes.get(to).is_some_and(|node| node.alive)
            && self.nodes.get(from).is_none_or(|node| node.alive)
            && !cut(from, to)
            && !cut(to, from)
    }

    /// `to` is dead and its host, which is reached, says so.
    fn is_seen_dead(&self, from: &str, to: &str) -> bool {
        let cut = |a: &str, b: &str| self.cuts.contains(&(a.to_string(), b.to_string()));
        self.nodes.get(to).is_none_or(|node| !node.alive) && !cut(from, to) && !cut(to, from)
    }

    /// What `from` sends arrives at `to`.
    fn delivers(&self, from: &str, to: &str) -> bool {
        let alive = |name: &str| self.nodes.get(name).is_none_or(|node| node.alive);
        alive(from) && alive(to) && !self.cuts.contains(&(from.to_string(), to.to_string()))
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn delay(&mut self) -> Duration {
        let (least, greatest) = self.latency;
        let spread_ns = (greatest - least).as_nanos() as u64;
        least + Duration::from_nanos(self.random() % (spread_ns + 1))
    }

    fn fate(&mut self) -> Fate {
        let (there, back) = (self.delay(), self.delay());
        let request_lost = self.random() % 1000 < self.lost_requests_per_mille;
        let reply_lost = self.random() % 1000 < self.lost_replies_per_mille;
        Fate { there, back, request_lost, reply_lost }
    }
}

struct SimTransport {
    net: SimNet,
    peer: Option<Peer>,
    from: String,
}

/// A call that has been sent.
struct Sent {
    replies: mpsc::Receiver<Frame>,
    fate: Fate,
}

impl SimTransport {
    /// Brings the request to the peer and starts its handler.
    async fn send(&self, to: &str, request: Frame) -> Result<Sent, NetError> {
        if !frame::fits(&request) {
            return Err(refused(to, "the request is over the limit"));
        }
        let fate = {
            let mut state = self.net.shared.state.lock();
            let fate = state.fate();
            match (state.is_linked(&self.from, to), state.is_seen_dead(&self.from, to)) {
                (true, _) => Ok(fate),
                (false, true) => Err(fate.there + fate.back),
                (false, false) => Err(CONNECT_TIMEOUT),
            }
        };
        let fate = match fate {
            Ok(fate) => fate,
            Err(noticed) => {
                sleep(noticed).await;
                return Err(unreachable(to, "no connection"));
            }
        };
        sleep(fate.there).await;
        let (frames, replies) = mpsc::channel(REPLIES);
        let call = Call { peer: self.peer, request, replier: Replier::new(frames) };
        let mut state = self.net.shared.state.lock();
        let arrives = state.delivers(&self.from, to) && !fate.request_lost;
        if let Some(node) = state.nodes.get_mut(to).filter(|_| arrives) {
            while node.calls.try_join_next().is_some() {}
            node.calls.spawn(node.service.serve(call));
        }
        Ok(Sent { replies, fate })
    }

    async fn exchange(&self, to: &str, request: Frame, sent: &Mutex<bool>) -> Result<Frame, NetError> {
        let Sent { mut replies, fate } = self.send(to, request).await?;
        *sent.lock() = true;
        if fate.request_lost {
            return Err(no_answer(to, "the connection was lost"));
        }
        let reply = tokio::select! {
            reply = replies.recv() => reply,
            () = self.net.silence(&self.from, to) => return Err(no_answer(to, "the connection was lost")),
        };
        sleep(fate.back).await;
        if !self.net.shared.state.lock().delivers(to, &self.from) && !self.net.outlasts(&self.from, to).await {
            return Err(no_answer(to, "the connection was lost"));
        }
        match reply {
            Some(_) if fate.reply_lost => Err(no_answer(to, "the connection was lost")),
            Some(frame) => Ok(frame),
            None => Err(no_answer(to, "it ended the call without a reply")),
        }
    }
}

impl Transport for SimTransport {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Frame, NetError>> {
        Box::pin(async move {
            let sent = Mutex::new(false);
            match timeout(deadline, self.exchange(address, request, &sent)).await {
                Ok(result) => result,
                Err(_) if *sent.lock() => Err(no_answer(address, "the deadline passed")),
                Err(_) => Err(unreachable(address, "the deadline passed before the request was sent")),
            }
        })
    }

    fn subscribe<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Frame>, NetError>> {
        Box::pin(async move {
            let Sent { replies, fate } = self.send(address, request).await?;
            let (frames, receiver) = mpsc::channel(SUBSCRIPTION_FRAMES);
            if !fate.request_lost {
                tokio::spawn(forward(self.net.clone(), self.from.clone(), address.to_string(), replies, frames));
            }
            Ok(receiver)
        })
    }
}

/// Hands on frames, each after a delay and in order, until either side ends or the link is broken.
async fn forward(
    net: SimNet,
    from: String,
    to: String,
    mut replies: mpsc::Receiver<Frame>,
    frames: mpsc::Sender<Frame>,
) {
    loop {
        let frame = tokio::select! {
            frame = replies.recv() => frame,
            () = frames.closed() => return,
            () = net.silence(&from, &to) => return,
        };
        let delay = net.shared.state.lock().delay();
        sleep(delay).await;
        if !net.shared.state.lock().delivers(&to, &from) && !net.outlasts(&from, &to).await {
            return;
        }
        let Some(frame) = frame else { return };
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}
