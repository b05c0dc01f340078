//! Sessions: opening, heartbeats, the stream of events, reclaiming after an election, closing.

use std::cmp::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Fail, Shared, granting, plain, unexpected};
use crate::meta::command::{Command, Outcome};
use crate::meta::leader::{Leader, Told};
use crate::net::{Frame, Peer, Replier};
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId};
use crate::types::limits::{RECLAIM_CLAIMS_MAX, SESSION_HEARTBEAT_MS};
use crate::types::record::{ClientGrant, Role};
use crate::types::session::{Claim, Event, HeartbeatReply, SessionOpened, Shown, Vitals};
use crate::wire::codec::{KIND_META, encode};
use crate::wire::meta::{MetaBody, MetaReply};

/// A host that is there is heard of within so long.
const HEARD_WITHIN: Duration = Duration::from_millis(2 * SESSION_HEARTBEAT_MS);
const HEARD_TICK: Duration = Duration::from_millis(50);

impl Shared {
    pub(super) async fn open_session(
        &self,
        peer: Peer,
        volume: String,
        client: String,
        read_only: bool,
        (after, attempt): (Option<SessionId>, u64),
    ) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        let grant = self.grant_of(peer).await?;
        if !grant.volumes.is_empty() && !grant.volumes.contains(&volume) {
            return Err(Fail::Refused(format!("this credential may not mount the volume {volume}")));
        }
        if grant.read_only && !read_only {
            return Err(Fail::Refused(format!("this credential may mount the volume {volume} read-only only")));
        }
        let Peer { role, id: credential, .. } = peer;
        let now = self.now();
        let name = volume.clone();
        let command = Command::OpenSession { volume, client, role, credential, read_only, after, attempt, now };
        let (session, record) = match self.propose(&command).await? {
            Outcome::Session { session, volume, .. } => (session, volume),
            Outcome::Error(FsError::NotFound) => return Err(FsError::NotFound.into()),
            Outcome::Fenced { session: holder } => {
                leader.condemn(holder);
                return Err(FsError::InUse.into());
            }
            Outcome::Error(FsError::InUse) => return Err(self.in_use(&leader, &name).await?),
            Outcome::Error(FsError::TakenOver) => return Err(FsError::TakenOver.into()),
            other => return Err(unexpected(other)),
        };
        leader.add_session(session, record.tree);
        let opened =
            SessionOpened { session, volume: record, read_only, heartbeat: self.heartbeat_reply(leader.term)? };
        Ok(plain(MetaBody::Session(opened)))
    }

    /// Why a volume for one host cannot be had: its host is there, which people are told when it is heard of again; or it may be
    /// gone, which is `InUse`, and the answer is another one soon.
    async fn in_use(&self, leader: &Leader, name: &str) -> Result<Fail, Fail> {
        let holder = self.state.view(|view| {
            let volume = view.volume_by_name(name)?.map(|volume| volume.id);
            let holder = view.sessions()?.into_iter().find(|session| Some(session.volume) == volume);
            Ok(holder.map(|session| (session.id, session.client)))
        })?;
        let Some((session, client)) = holder else { return Ok(FsError::InUse.into()) };
        let begun = Instant::now();
        while begun.elapsed() < HEARD_WITHIN {
            tokio::time::sleep(HEARD_TICK).await;
            let is_heard = |(id, told): (SessionId, Told)| id == session && told.silence < begun.elapsed();
            if leader.told().into_iter().any(is_heard) {
                return Ok(Fail::Refused(format!(
                    "volume {name} is for one host at a time, and {client} has it (session {session})"
                )));
            }
        }
        Ok(FsError::InUse.into())
    }

    /// What a certificate's holder may mount. Operators may mount everything.
    async fn grant_of(&self, peer: Peer) -> Result<ClientGrant, Fail> {
        match peer.role {
            Role::Admin => Ok(ClientGrant::default()),
            Role::Client => {
                let credential = self.read(|view| view.credential(Role::Client, peer.id)).await?;
                Ok(credential.ok_or(FsError::AccessDenied)?.grant)
            }
            Role::Meta | Role::Store => Err(FsError::AccessDenied.into()),
        }
    }

    pub(super) async fn heartbeat(&self, session: SessionId, vitals: Vitals) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        // The client counts its time to live from this answer: only a leader that still is one may give it.
        self.raft.read_barrier().await?;
        leader.confirm(session, vitals)?;
        Ok(plain(MetaBody::Heartbeat(self.heartbeat_reply(leader.term)?)))
    }

    pub(super) async fn resume_session(&self, session: SessionId) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        self.raft.read_barrier().await?;
        leader.confirm(session, Vitals::default())?;
        let (volume, read_only) = self.state.view(|view| {
            let opened = view.session(session)?;
            Ok((view.volume(opened.volume)?, opened.read_only))
        })?;
        let opened = SessionOpened { session, volume, read_only, heartbeat: self.heartbeat_reply(leader.term)? };
        Ok(plain(MetaBody::Session(opened)))
    }

    pub(super) fn holdings(&self, session: SessionId, after: Ino) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        let mut claims = leader.holdings(session, after, RECLAIM_CLAIMS_MAX + 1)?;
        let end = claims.len() <= RECLAIM_CLAIMS_MAX;
        claims.truncate(RECLAIM_CLAIMS_MAX);
        Ok(plain(MetaBody::Holdings { term: leader.term, claims, end }))
    }

    fn heartbeat_reply(&self, term: u64) -> Result<HeartbeatReply, Fail> {
        let (map_epoch, collection_epoch) =
            self.state.view(|view| Ok((view.map()?.epoch, view.collection()?.epoch)))?;
        let now = self.now();
        let now_ns = now.sec.saturating_mul(1_000_000_000).saturating_add(i64::from(now.nsec));
        Ok(HeartbeatReply { term, map_epoch, collection_epoch, now_ns })
    }

    pub(super) fn reclaim(
        &self,
        session: SessionId,
        term: u64,
        claims: &[Claim],
        done: bool,
    ) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        match term.cmp(&leader.term) {
            // Another election while the pieces came. No leader takes the rest, so the client has to begin anew.
            Ordering::Less => Err(FsError::Stale.into()),
            Ordering::Equal => Ok(granting(MetaBody::Done, leader.reclaim(session, claims, done)?)),
            Ordering::Greater => Err(Fail::NotLeader(None)),
        }
    }

    pub(super) fn yielded(&self, session: SessionId, claims: &[Claim], shown: &[Shown]) -> Result<MetaReply, Fail> {
        self.lead()?.yielded(session, claims, shown)?;
        Ok(plain(MetaBody::Done))
    }

    pub(super) async fn close_session(&self, session: SessionId) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        self.propose(&Command::CloseSession { session }).await?;
        leader.drop_session(session);
        Ok(plain(MetaBody::Done))
    }

    /// Tells a session its events until either side is gone.
    pub(super) async fn stream_events(&self, peer: Peer, session: SessionId, replier: Replier) {
        let Ok(leader) = self.lead() else { return };
        if self.may_use(peer, session).await.is_err() {
            return;
        }
        let Ok(mut events) = leader.subscribe(session) else { return };
        loop {
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { return };
                    if !replier.send(event_frame(&event)).await {
                        return;
                    }
                }
                () = replier.closed() => return,
                () = leader.deposed() => return,
            }
        }
    }

    /// A session belongs to the credential that opened it, which is a role and a number: store 1 is not client 1. Only
    /// clients and operators open any ([`Shared::grant_of`]).
    ///
    /// # Errors
    /// `SessionExpired` when there is no such session of this peer.
    pub(super) async fn may_use(&self, peer: Peer, session: SessionId) -> Result<(), Fail> {
        let opened = self.state.view(|view| view.session(session))?;
        let is_owner = (opened.role, opened.credential) == (peer.role, peer.id);
        if is_owner { Ok(()) } else { Err(FsError::SessionExpired.into()) }
    }
}

fn event_frame(event: &Event) -> Frame {
    Frame { kind: KIND_META, message: Bytes::from(encode(event)), bulk: Bytes::new() }
}
