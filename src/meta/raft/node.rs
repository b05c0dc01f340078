//! One member of the Raft group: what the rest of the metadata service holds.
//!
//! Owns the order of a start: the log is opened and its tail cut, snapshots are checked, the machine is brought to where
//! they say it must be, and only then does openraft run. Leadership by lease depends on two rules of ours: a node that
//! was just started neither votes nor campaigns before every lease it may have helped to grant has run out, and it
//! never takes up its old leadership again, since what it had sent but not yet written would get a second meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError,
    LinearizableReadError, RaftError as OpenraftError,
};
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{ChangeMembers, Config, LinearizerOption, RaftMetrics, Snapshot, SnapshotPolicy};
use tokio::sync::watch;
use tokio::time::{self, Instant};

use super::Machine;
use super::log::{Log, LogConfig, LogError};
use super::machine::MachineStore;
use super::network::{Answer, Call, Network, Request, frame};
use super::receive::{Receiver, SnapshotPart};
use super::recover::recover;
use super::room::{Room, RoomConfig};
use super::snapshot::SnapshotDir;
use super::store::LogStore;
use super::types::{Command, RaftHandle, Types, from_bytes};
use crate::net::{Frame, Transport};
use crate::types::id::MetaId;
use crate::types::limits::MESSAGE_BYTES_MAX;
use crate::types::record::MetaInfo;

/// Room in a message for everything but the largest command: other entries, and their envelopes.
const ENVELOPE_BYTES: usize = 3 << 20;
const PROPOSAL_BYTES_MAX: usize = MESSAGE_BYTES_MAX - ENVELOPE_BYTES;
/// Entries in one message to a peer.
const PAYLOAD_ENTRIES_MAX: u64 = 1024;

/// How one node runs.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// Where log and snapshots are.
    pub dir: PathBuf,
    pub me: MetaInfo,
    pub heartbeat_ms: u64,
    /// A follower that has not heard of its leader for `election_max_ms`, and then for a random time between the two,
    /// stands for election.
    pub election_min_ms: u64,
    pub election_max_ms: u64,
    /// A snapshot is taken after this many entries, or this many bytes of log, whichever comes first.
    pub snapshot_after_entries: u64,
    pub snapshot_after_bytes: u64,
    /// Until when a proposal, a barrier or a change of members has to be through.
    pub patience_ms: u64,
    pub log: LogConfig,
    pub room: RoomConfig,
}

impl RaftConfig {
    pub fn new(dir: PathBuf, me: MetaInfo) -> RaftConfig {
        RaftConfig {
            dir,
            me,
            heartbeat_ms: 125,
            election_min_ms: 350,
            election_max_ms: 700,
            snapshot_after_entries: 50_000,
            snapshot_after_bytes: 256 << 20,
            patience_ms: 10_000,
            log: LogConfig::default(),
            room: RoomConfig::default(),
        }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the log begins after entry {0} and no sound snapshot holds what was before it")]
    Unrecoverable(u64),
    #[error("raft did not start: {0}")]
    Start(String),
}

/// Why a proposal, a barrier or a change of members was not carried out, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was done here; ask the leader, if one is known.
    #[error("not the leader")]
    NotLeader(Option<MetaInfo>),
    /// Not confirmed in time or by enough members. **It may still take effect**: try again with the same sequence.
    #[error("unavailable: {0}")]
    Unavailable(String),
    #[error("a command of {0} bytes is over the limit")]
    TooLarge(usize),
    /// This node has failed or was stopped.
    #[error("stopped")]
    Stopped,
}

/// Who leads, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<MetaInfo>,
    pub am_leader: bool,
}

/// A running member. Cheap to clone; runs until [`RaftNode::stop`].
#[derive(Clone)]
pub struct RaftNode {
    inner: Arc<Inner>,
}

struct Inner {
    me: MetaInfo,
    raft: RaftHandle,
    log: Arc<Log>,
    receiver: Receiver,
    leadership: watch::Receiver<Leadership>,
    /// Why this node does nothing any more.
    ended: watch::Receiver<Option<String>>,
    /// No votes before: see the module's documentation.
    votes_from: Instant,
    lease: Duration,
    patience: Duration,
}

impl RaftNode {
    /// Opens the node's files, makes the machine's state what they say, and runs.
    ///
    /// # Errors
    /// See [`RaftError`]; nothing runs then.
    pub async fn start(
        config: RaftConfig,
        machine: Arc<dyn Machine>,
        transport: Arc<dyn Transport>,
    ) -> Result<RaftNode, RaftError> {
        let id = config.me.id.0;
        let opening = (config.clone(), Arc::clone(&machine));
        let opened = tokio::task::spawn_blocking(move || open(&opening.0, &*opening.1)).await;
        let (log, snapshots, position) = opened.map_err(io::Error::other)??;
        let has_history = log.standing().vote.is_some();
        let lease = Duration::from_millis(config.election_max_ms);
        let votes_from = Instant::now() + if has_history { lease } else { Duration::ZERO };

        let spare = Arc::clone(&snapshots);
        let store = LogStore::new(Arc::clone(&log), Arc::new(move || spare.spare()));
        let room = Room {
            config: config.room,
            dir: config.dir.clone(),
            segment_bytes: config.log.segment_bytes.into(),
            log: Arc::downgrade(&log),
            snapshots: Arc::clone(&snapshots),
            machine: Arc::downgrade(&machine),
        };
        let machine = MachineStore::new(machine, Arc::clone(&snapshots), position);
        let settings = openraft_config(&config, !has_history)?;
        let raft =
            RaftHandle::new(id, Arc::new(settings), Network::new(transport, Arc::clone(&snapshots)), store, machine)
                .await;
        let raft = raft.map_err(|fatal| RaftError::Start(fatal.to_string()))?;
        let (told, leadership) = watch::channel(Leadership::default());
        let (tell_end, ended) = watch::channel(None);
        tokio::spawn(tell_leadership(raft.metrics(), told, tell_end));
        let due = SnapshotsDue { log: Arc::clone(&log), snapshots: Arc::clone(&snapshots) };
        tokio::spawn(due.watch(raft.clone(), config.snapshot_after_bytes));
        tokio::spawn(room.watch(raft.clone()));
        let inner = Inner {
            me: config.me,
            raft,
            log,
            receiver: Receiver::new(snapshots),
            leadership,
            ended,
            votes_from,
            lease,
            patience: Duration::from_millis(config.patience_ms),
        };
        let node = RaftNode { inner: Arc::new(inner) };
        if has_history {
            node.allow_elections().await;
        }
        Ok(node)
    }

    /// Lets a node that has a past take part in elections: at once when nobody else could hold a lease.
    async fn allow_elections(&self) {
        let raft = self.inner.raft.clone();
        let is_alone = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
            voters == [self.inner.me.id.0]
        };
        if is_alone {
            raft.runtime_config().elect(true);
            // Only hurries: the timer would come to the same.
            let _ = raft.trigger().elect(false).await;
            return;
        }
        let votes_from = self.inner.votes_from;
        tokio::spawn(async move {
            time::sleep_until(votes_from).await;
            raft.runtime_config().elect(true);
        });
    }

    /// Makes this node the first member of a new cluster. Does nothing on one that has a past.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn bootstrap(&self) -> Result<(), ProposeError> {
        let members = BTreeMap::from([(self.inner.me.id.0, self.inner.me.clone())]);
        match self.inner.raft.initialize(members).await {
            Ok(()) | Err(OpenraftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(OpenraftError::APIError(other)) => Err(ProposeError::Unavailable(other.to_string())),
            Err(OpenraftError::Fatal(_)) => Err(ProposeError::Stopped),
        }
    }

    /// Has a command applied by a majority's machines, and gives back this machine's reply. Waits as long as this node
    /// leads: until then the command may still be applied.
    ///
    /// # Errors
    /// `NotLeader`: it may be applied all the same, by whoever leads next. `TooLarge`, `Stopped`.
    pub async fn propose(&self, command: Vec<u8>) -> Result<Vec<u8>, ProposeError> {
        if command.len() > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge(command.len()));
        }
        let written = self.inner.raft.client_write(Command(Bytes::from(command))).await.map_err(write_error)?;
        Ok(written.data.0)
    }

    /// Returns when this node's machine is known to hold everything that was acknowledged before the call: reads of it
    /// are linearizable. Costs no disk, and no network while the lease is fresh.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        // Half of what followers wait for: clocks need not run equally fast, only within a factor of two.
        let policy = LinearizerOption::new(Some(self.inner.lease / 2), true);
        let ready = self.in_time(self.inner.raft.ensure_linearizable(policy)).await?;
        match ready {
            Ok(_) => Ok(()),
            Err(OpenraftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => Err(forwarded(forward)),
            Err(OpenraftError::APIError(LinearizableReadError::QuorumNotEnough(error))) => {
                Err(ProposeError::Unavailable(error.to_string()))
            }
            Err(OpenraftError::Fatal(_)) => Err(ProposeError::Stopped),
        }
    }

    /// Who leads, now and whenever that changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Returns when this node has failed or was stopped, with the reason. It does nothing more then: start again.
    pub async fn stopped(&self) -> String {
        let mut ended = self.inner.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "raft stopped".to_string(),
        }
    }

    /// Adds a member: a learner first, and a voter once it has caught up. Also tells a known member's new address.
    ///
    /// # Errors
    /// See [`ProposeError`]. It may be left a learner; ask again.
    pub async fn add_member(&self, info: MetaInfo) -> Result<(), ProposeError> {
        let id = info.id.0;
        let known = self.members().into_iter().find(|(member, _, _)| member.id.0 == id);
        match known {
            Some((member, true, _)) if member == info => return Ok(()),
            Some((member, _, _)) if member == info => {}
            Some(_) => self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, info)]))).await?,
            None => self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, info)]))).await?,
        }
        self.in_time(self.caught_up(id)).await??;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Removes a member, voter or not. Removing an unknown one does nothing. An id is never given out again.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn remove_member(&self, id: MetaId) -> Result<(), ProposeError> {
        let known = self.members().into_iter().find(|(member, _, _)| member.id == id);
        match known {
            None => Ok(()),
            Some((_, true, _)) => self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id.0]))).await,
            Some((_, false, _)) => self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id.0]))).await,
        }
    }

    /// Bytes of the log that is there.
    pub fn log_bytes(&self) -> u64 {
        let log = &self.inner.log;
        log.bytes_from(log.range().start)
    }

    /// There is more than the segment that is written to: some can be cut off when there are snapshots.
    pub fn can_be_cut(&self) -> bool {
        self.log_bytes() > u64::from(self.inner.log.segment_bytes())
    }

    /// Every member, whether it votes, and how many entries it is behind the leader; the last is known to the leader
    /// alone, and only of members it has heard of.
    pub fn members(&self) -> Vec<(MetaInfo, bool, Option<u64>)> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let last = metrics.last_log_index.map_or(0, |index| index + 1);
        let lag = |id: &u64| {
            let replication = metrics.replication.as_ref()?;
            let matched = if *id == metrics.id { last } else { (*replication.get(id)?).as_ref()?.index + 1 };
            Some(last.saturating_sub(matched))
        };
        let nodes = metrics.membership_config.nodes();
        nodes.map(|(id, info)| (info.clone(), voters.contains(id), lag(id))).collect()
    }

    /// Answers a `KIND_RAFT` call of a peer.
    pub async fn serve(&self, request: Frame) -> Frame {
        let answer = match from_bytes::<Request>(&request.message) {
            Ok(decoded) if decoded.to == self.inner.me.id.0 => self.answer(decoded.call, request.bulk).await,
            Ok(decoded) => Answer::Refused(format!("this is node {}, not {}", self.inner.me.id, decoded.to)),
            Err(error) => Answer::Refused(format!("malformed request: {error}")),
        };
        // An empty message, which no peer can decode, is the answer to a bug.
        frame(&answer, Bytes::new()).unwrap_or_default()
    }

    /// Makes the state durable beyond the log: takes a snapshot and cuts the log behind it, in the background.
    pub async fn snapshot(&self) -> Result<(), ProposeError> {
        self.inner.raft.trigger().snapshot().await.map_err(|_| ProposeError::Stopped)
    }

    /// Hands leadership to the voter that has most of the log, so that nobody has to wait for an election. Returns
    /// when another leads, or nobody took over in time. Does nothing on a node that does not lead.
    pub async fn resign(&self) {
        let heir = {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
            let replication = metrics.replication.as_ref();
            let others = replication.into_iter().flatten().filter(|(id, _)| **id != metrics.id && voters.contains(id));
            others.max_by_key(|(_, matched)| **matched).map(|(id, _)| *id)
        };
        let Some(heir) = heir else { return };
        if self.inner.raft.trigger().transfer_leader(heir).await.is_ok() {
            let mut leadership = self.inner.leadership.clone();
            let gone = leadership.wait_for(|now| !now.am_leader && now.leader.is_some());
            let _ = time::timeout(self.inner.lease, gone).await;
        }
    }

    /// Stops, with everything that was queued on disk. A leader should [`RaftNode::resign`] first.
    pub async fn stop(&self) {
        // A core that panicked is as stopped as it will be.
        let _ = self.inner.raft.shutdown().await;
        let log = Arc::clone(&self.inner.log);
        let _ = tokio::task::spawn_blocking(move || log.close()).await;
    }

    #[cfg(test)]
    pub(super) fn inner_log(&self) -> &Log {
        &self.inner.log
    }

    async fn answer(&self, call: Call, bulk: Bytes) -> Answer {
        let raft = &self.inner.raft;
        let answered = match call {
            Call::Append(request) => raft.append_entries(request).await.map(Answer::Append),
            Call::Vote(_) | Call::PreVote(_) if Instant::now() < self.inner.votes_from => {
                return Answer::Refused("started a moment ago, and a lease may be running".to_string());
            }
            Call::Vote(request) => raft.vote(request).await.map(Answer::Vote),
            Call::PreVote(request) => raft.pre_vote(request).await.map(Answer::Vote),
            Call::TransferLeader(request) => {
                raft.handle_transfer_leader(request).await.map(Answer::TransferLeader).map_err(OpenraftError::Fatal)
            }
            Call::Snapshot(part) => return self.take_part(part, bulk).await,
        };
        answered.unwrap_or_else(|error| Answer::Refused(error.to_string()))
    }

    async fn take_part(&self, part: SnapshotPart, bulk: Bytes) -> Answer {
        let vote = part.vote;
        let file = match self.inner.receiver.take(part, bulk).await {
            Ok(None) => return Answer::Part,
            Ok(Some(file)) => file,
            Err(error) => return Answer::Refused(error.to_string()),
        };
        let path = file.path().to_path_buf();
        let snapshot = Snapshot { meta: file.meta.clone(), snapshot: file };
        let installed = self.inner.raft.install_full_snapshot(vote, snapshot).await;
        // Under its temporary name it is only still there when it was not wanted.
        let _ = std::fs::remove_file(path);
        installed.map_or_else(|error| Answer::Refused(error.to_string()), Answer::Snapshot)
    }

    /// Proposes a change of members, again while another one is under way.
    async fn change(&self, change: ChangeMembers<u64, MetaInfo>) -> Result<(), ProposeError> {
        let changed = async {
            loop {
                match self.inner.raft.change_membership(change.clone(), false).await {
                    Ok(_) => return Ok(()),
                    Err(OpenraftError::APIError(ClientWriteError::ChangeMembershipError(
                        ChangeMembershipError::InProgress(_),
                    ))) => time::sleep(Duration::from_millis(50)).await,
                    Err(error) => return Err(write_error(error)),
                }
            }
        };
        self.in_time(changed).await?
    }

    /// Waits until the member has everything that was in the log at the call.
    async fn caught_up(&self, id: u64) -> Result<(), ProposeError> {
        let mut metrics = self.inner.raft.metrics();
        let goal = metrics.borrow_watched().last_log_index;
        loop {
            {
                let now = metrics.borrow_watched();
                let Some(replication) = &now.replication else {
                    return Err(ProposeError::NotLeader(self.inner.leadership.borrow().leader.clone()));
                };
                let matched = replication.get(&id).and_then(|matched| matched.as_ref()).map(|id| id.index);
                if id == now.id || (matched.is_some() && matched >= goal) {
                    return Ok(());
                }
            }
            metrics.changed().await.map_err(|_| ProposeError::Stopped)?;
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, ProposeError> {
        let late = |_| ProposeError::Unavailable("not confirmed in time".to_string());
        time::timeout(self.inner.patience, work).await.map_err(late)
    }
}

type Opened = (Arc<Log>, Arc<SnapshotDir>, super::types::Position);

fn open(config: &RaftConfig, machine: &dyn Machine) -> Result<Opened, RaftError> {
    let log = Log::open(&config.dir.join("log"), config.me.id.0, config.log)?;
    let snapshots = SnapshotDir::open(&config.dir.join("snapshots"))?;
    let position = recover(machine, &log, &snapshots)?;
    Ok((Arc::new(log), Arc::new(snapshots), position))
}

fn openraft_config(config: &RaftConfig, may_elect: bool) -> Result<Config, RaftError> {
    let settings = Config {
        cluster_name: "holdfast".to_string(),
        heartbeat_interval: config.heartbeat_ms,
        election_timeout_min: config.election_min_ms,
        election_timeout_max: config.election_max_ms,
        enable_elect: may_elect,
        enable_pre_vote: Some(true),
        // Entries are sent before they are on the leader's own disk. If it crashed in between and came back as the
        // same leader, it would give the same places to other entries.
        enable_leader_restore: Some(false),
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_after_entries),
        max_in_snapshot_log_to_keep: config.snapshot_after_entries / 4,
        replication_lag_threshold: config.snapshot_after_entries.saturating_mul(2),
        backoff: "50ms 100ms 200ms ...400ms".to_string(),
        ..Config::default()
    };
    settings.validate().map_err(|error| RaftError::Start(error.to_string()))
}

/// The one task that is woken by every entry: others are told when there is something new.
async fn tell_leadership(
    mut metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    told: watch::Sender<Leadership>,
    ended: watch::Sender<Option<String>>,
) {
    loop {
        let now = {
            let metrics = metrics.borrow_watched();
            if let Err(fatal) = &metrics.running_state {
                ended.send_replace(Some(fatal.to_string()));
            }
            leadership(&metrics)
        };
        told.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        if metrics.changed().await.is_err() || told.is_closed() {
            told.send_modify(|last| *last = Leadership { term: last.term, ..Leadership::default() });
            return;
        }
    }
}

fn leadership(metrics: &RaftMetrics<Types>) -> Leadership {
    let term = metrics.current_term;
    if metrics.running_state.is_err() {
        return Leadership { term, ..Leadership::default() };
    }
    let leader = metrics.current_leader.and_then(|id| metrics.membership_config.get_node(&id).cloned());
    Leadership { term, leader, am_leader: metrics.state.is_leader() }
}

/// When snapshots are taken that openraft does not think of.
struct SnapshotsDue {
    log: Arc<Log>,
    snapshots: Arc<SnapshotDir>,
}

impl SnapshotsDue {
    /// openraft counts entries; large commands fill the disk long before their number says so. And it does not know
    /// that a snapshot has gone bad.
    async fn watch(self, raft: RaftHandle, bytes_max: u64) {
        let mut metrics = raft.metrics();
        let mut asked_at = None;
        loop {
            let is_wanted = tokio::select! {
                changed = metrics.changed() => if changed.is_ok() { false } else { return },
                () = self.snapshots.wanted() => true,
            };
            let (snapshot, applied) = {
                let now = metrics.borrow_watched();
                if now.running_state.is_err() {
                    return;
                }
                (now.snapshot, now.last_applied)
            };
            let from = snapshot.max(asked_at).map_or(0, |id| id.index + 1);
            let is_large = applied > asked_at && self.log.bytes_from(from) > bytes_max;
            if (is_wanted || is_large) && raft.trigger().snapshot().await.is_ok() {
                asked_at = applied;
            }
        }
    }
}

fn write_error(error: OpenraftError<Types, ClientWriteError<Types>>) -> ProposeError {
    match error {
        OpenraftError::APIError(ClientWriteError::ForwardToLeader(forward)) => forwarded(forward),
        OpenraftError::APIError(other) => ProposeError::Unavailable(other.to_string()),
        OpenraftError::Fatal(Fatal::StorageError(error)) => {
            tracing::error!(%error, "raft has failed");
            ProposeError::Stopped
        }
        OpenraftError::Fatal(_) => ProposeError::Stopped,
    }
}

fn forwarded(forward: ForwardToLeader<Types>) -> ProposeError {
    match forward.reason {
        ForwardReason::LeaseExpired => ProposeError::Unavailable("no majority answers".to_string()),
        _ => ProposeError::NotLeader(forward.leader_node),
    }
}
