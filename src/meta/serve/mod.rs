//! The metadata service as seen from the network: decode, authorise, then read here or propose.
//!
//! Only the leader answers for a namespace. A read passes the Raft barrier (the leader's lease, no log write), brings
//! another host's unshipped changes home if there are any, grants what lease it can, and reads the state. A change
//! goes through `change`. Meta never dials out: recalls go down the stream that the client opened, orders to stores
//! ride on the replies to their heartbeats.

mod admin;
mod change;
mod join;
mod large;
mod lock;
mod promised;
mod read;
pub mod room;
mod session;
mod ship;
mod store;
mod touch;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use self::room::LogRoom;
use super::leader::Leader;
use super::raft::node::{ProposeError, RaftNode};
use super::state::{State, StateError, View};
use super::strays::Strays;
use super::waiting::Waiting;
use crate::crypto::ca::ClusterAuthority;
use crate::host::clock;
use crate::meta::command::{Command, Outcome};
use crate::net::{BoxFuture, Call, Frame, Peer, Replier, Service};
use crate::types::error::FsError;
use crate::types::id::ClusterId;
use crate::types::record::{MetaInfo, Role};
use crate::types::session::Claim;
use crate::wire::codec::{KIND_JOIN, KIND_META, KIND_RAFT, decode, encode};
use crate::wire::meta::{MetaBody, MetaReply, MetaRequest};

/// Serves one metadata server's part of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct MetaService {
    pub(super) shared: Arc<Shared>,
}

/// What every handler may use.
pub struct Shared {
    pub cluster: ClusterId,
    pub me: MetaInfo,
    pub raft: RaftNode,
    pub state: Arc<State>,
    pub authority: ClusterAuthority,
    /// `Some` while this server leads and is ready to.
    pub leader: watch::Sender<Option<Arc<Leader>>>,
    pub waiting: Waiting,
    pub strays: Strays,
    /// The disk under the log is nearly full: nothing but freeing goes on.
    pub room: watch::Sender<LogRoom>,
}

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub enum Fail {
    Fs(FsError),
    /// Nothing was done.
    NotLeader(Option<MetaInfo>),
    /// Not the leader any more, or not heard by enough others: what was proposed may be in the log, and be applied.
    Uncertain(Option<MetaInfo>),
    /// One sentence for people.
    Refused(String),
}

impl From<FsError> for Fail {
    fn from(error: FsError) -> Fail {
        Fail::Fs(error)
    }
}

impl From<StateError> for Fail {
    fn from(error: StateError) -> Fail {
        match error {
            StateError::Fs(error) => Fail::Fs(error),
            StateError::Refused(why) => Fail::Refused(why),
            other => {
                // What was asked for may be in the log. This server stops (see `MetaServer::failed`), and another one has the answer,
                // or this one when it was started again.
                tracing::error!(error = %other, "the metadata index failed");
                Fail::Uncertain(None)
            }
        }
    }
}

impl From<ProposeError> for Fail {
    fn from(error: ProposeError) -> Fail {
        match error {
            ProposeError::NotLeader(hint) => Fail::NotLeader(hint),
            ProposeError::TooLarge(_) => Fail::Fs(FsError::Invalid),
            ProposeError::Unavailable(_) | ProposeError::Stopped => Fail::NotLeader(None),
        }
    }
}

/// A body without grants.
fn plain(body: MetaBody) -> MetaReply {
    MetaReply { body, granted: Vec::new() }
}

fn granting(body: MetaBody, granted: impl IntoIterator<Item = Claim>) -> MetaReply {
    MetaReply { body, granted: granted.into_iter().collect() }
}

impl Service for MetaService {
    fn serve(&self, call: Call) -> BoxFuture<'static, ()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.serve(call).await })
    }
}

impl Shared {
    /// Only changes that free something may be made.
    fn log_is_full(&self) -> bool {
        *self.room.borrow() == LogRoom::Full
    }

    async fn serve(self: Arc<Self>, call: Call) {
        match (call.request.kind, call.peer) {
            (KIND_RAFT, Some(Peer { role: Role::Meta, .. })) => {
                let reply = self.raft.serve(call.request).await;
                call.replier.reply(reply).await;
            }
            (KIND_JOIN, _) => {
                let reply = self.join(&call.request.message).await;
                call.replier.reply(frame(KIND_JOIN, &encode(&reply))).await;
            }
            (KIND_META, Some(peer)) => self.serve_meta(peer, call).await,
            // Not for this peer: the stream ends without an answer.
            _ => tracing::warn!(kind = call.request.kind, peer = ?call.peer, "refused a call"),
        }
    }

    async fn serve_meta(self: Arc<Self>, peer: Peer, call: Call) {
        let request = match decode::<MetaRequest>(&call.request.message) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(?peer, %error, "a request could not be decoded");
                call.replier.reply(meta_frame(&plain(MetaBody::Error(FsError::Invalid)))).await;
                return;
            }
        };
        if let MetaRequest::Subscribe { session } = request {
            return self.stream_events(peer, session, call.replier).await;
        }
        let reply = match self.answer(peer, request, &call.replier).await {
            Ok(reply) => reply,
            // What waited here was deposed: the next leader is to be asked.
            Err(Fail::Fs(FsError::Unreachable)) => plain(MetaBody::NotLeader(None)),
            Err(Fail::Fs(error)) => plain(MetaBody::Error(error)),
            Err(Fail::NotLeader(hint)) => plain(MetaBody::NotLeader(hint)),
            Err(Fail::Uncertain(hint)) => plain(MetaBody::Uncertain(hint)),
            Err(Fail::Refused(why)) => plain(MetaBody::Refused(why)),
        };
        call.replier.reply(meta_frame(&reply)).await;
    }

    async fn answer(&self, peer: Peer, request: MetaRequest, replier: &Replier) -> Result<MetaReply, Fail> {
        match request {
            MetaRequest::Members => Ok(self.members()),
            MetaRequest::GetMap => Ok(plain(MetaBody::Map(self.read(|view| view.map()).await?))),
            MetaRequest::StoreHeartbeat { store, disks, confirmed, .. } => {
                self.store_heartbeat(peer, store, disks, confirmed).await
            }
            MetaRequest::OfferChunks { store, chunks, aging } => self.offer_chunks(peer, store, chunks, aging).await,
            MetaRequest::RegisterStore { info } => self.register_store(peer, info).await,
            MetaRequest::CreateVolume(_)
            | MetaRequest::ChangeVolume { .. }
            | MetaRequest::Room { .. }
            | MetaRequest::ListVolumes
            | MetaRequest::ShowVolume { .. }
            | MetaRequest::DeleteVolume { .. }
            | MetaRequest::CreateToken { .. }
            | MetaRequest::CreateApiKey { .. }
            | MetaRequest::ListApiKeys
            | MetaRequest::DeleteApiKey { .. }
            | MetaRequest::CheckApiKey { .. }
            | MetaRequest::Status => self.administer(peer, request).await,
            MetaRequest::OpenSession { volume, client, read_only, after, attempt } => {
                self.open_session(peer, volume, client, read_only, (after, attempt)).await
            }
            other => self.answer_session(peer, other, replier).await,
        }
    }

    /// The requests of a session.
    async fn answer_session(&self, peer: Peer, request: MetaRequest, replier: &Replier) -> Result<MetaReply, Fail> {
        let session = request.session().ok_or(FsError::Invalid)?;
        self.lead()?;
        self.may_use(peer, session).await?;
        match request {
            MetaRequest::Heartbeat { session, vitals } => self.heartbeat(session, vitals).await,
            MetaRequest::ResumeSession { session } => self.resume_session(session).await,
            MetaRequest::Holdings { session, after } => self.holdings(session, after),
            MetaRequest::Reclaim { session, term, leases, done } => self.reclaim(session, term, &leases, done),
            MetaRequest::Yield { session, leases, shown } => self.yielded(session, &leases, &shown),
            MetaRequest::CloseSession { session } => self.close_session(session).await,
            MetaRequest::StatFs { session } => self.statfs(session).await,
            MetaRequest::TestLock { session, request } => self.test_lock(session, &request).await,
            MetaRequest::OwnLocks { session, ino } => self.own_locks(session, ino).await,
            MetaRequest::Change { session, sequence, acknowledged, ops, want } => {
                self.change(change::Change { session, sequence, acknowledged, ops, want }).await
            }
            MetaRequest::Ship { session, sequence, acknowledged, changes } => {
                self.ship(ship::Batch { session, sequence, acknowledged, changes }).await
            }
            MetaRequest::WaitLock { session, sequence, acknowledged, request } => {
                self.wait_lock(session, sequence, acknowledged, request, replier).await
            }
            MetaRequest::CancelLock { session, sequence } => {
                self.waiting.cancel(session, sequence);
                Ok(plain(MetaBody::Done))
            }
            read => self.read_tree(session, read).await,
        }
    }

    /// The leader's volatile half, when this server leads.
    pub fn lead(&self) -> Result<Arc<Leader>, Fail> {
        let leader = self.leader.borrow().clone();
        leader.ok_or_else(|| {
            let hint = self.raft.leadership().borrow().leader.clone();
            Fail::NotLeader(hint.filter(|leader| leader.id != self.me.id))
        })
    }

    /// Reads the newest state.
    pub async fn read<R>(&self, read: impl FnOnce(&View<'_>) -> Result<R, StateError>) -> Result<R, Fail> {
        self.raft.read_barrier().await?;
        Ok(self.state.view(read)?)
    }

    /// Puts a command through the log and gives back what the state machine says.
    ///
    /// Ends only when it is known what becomes of the command, so that whoever holds a lock on what it changes holds it
    /// for as long as it may be applied. Callers who cannot wait go away; this goes on.
    pub async fn propose(&self, command: &Command) -> Result<Outcome, Fail> {
        let reply = self.raft.propose(command.encode()).await.map_err(|error| match error {
            // A leader that steps down answers so for what it has sent to others already.
            ProposeError::NotLeader(hint) => Fail::Uncertain(hint),
            ProposeError::Unavailable(_) | ProposeError::Stopped => Fail::Uncertain(None),
            ProposeError::TooLarge(_) => error.into(),
        })?;
        Outcome::decode(&reply).map_err(|error| {
            tracing::error!(%error, "the state machine's reply could not be decoded");
            Fail::Fs(FsError::Io)
        })
    }

    pub fn now(&self) -> crate::types::attr::Time {
        clock::now()
    }
}

/// The error in an outcome, or that it is not the one the command has.
fn unexpected(outcome: Outcome) -> Fail {
    match outcome {
        Outcome::Error(error) => Fail::Fs(error),
        Outcome::Refused(why) => Fail::Refused(why),
        other => {
            tracing::error!(?other, "an outcome does not fit its command");
            Fail::Fs(FsError::Io)
        }
    }
}

fn meta_frame(reply: &MetaReply) -> Frame {
    frame(KIND_META, &encode(reply))
}

fn frame(kind: u16, message: &[u8]) -> Frame {
    Frame { kind, message: Bytes::copy_from_slice(message), bulk: Bytes::new() }
}
