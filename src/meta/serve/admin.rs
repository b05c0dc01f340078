//! What operators ask: volumes, tokens, status; and `statfs`, which is made of the same numbers.

use std::time::Duration;

use super::room::LogRoom;
use super::{Fail, Shared, plain, unexpected};
use crate::crypto::token::JoinToken;
use crate::meta::command::{Command, Outcome};
use crate::meta::garbage::is_freeing;
use crate::meta::leader::{Leader, Told};
use crate::meta::state::{StateError, View};
use crate::meta::stores::Room;
use crate::net::Peer;
use crate::types::api_key::ApiKey;
use crate::types::attr::Time;
use crate::types::error::FsError;
use crate::types::id::SessionId;
use crate::types::record::{ClientGrant, ClusterStatus, MetaStatus, Role, SessionStatus, SpaceReport, StoreStatus};
use crate::types::volume::{NewVolume, Volume, VolumeChange, VolumeUsage};
use crate::wire::meta::{MetaBody, MetaReply, MetaRequest};

/// What `statfs` shows where nothing bounds the number of inodes.
const INODES_UNBOUNDED: u64 = 1 << 40;
/// Between them it is waited for what clients were promised.
const CHANGE_TRIES: u32 = 4;
/// With less than this free it is told whether more is about to be.
const SCARCE_BYTES: u64 = 1 << 30;

impl Shared {
    pub(super) async fn administer(&self, peer: Peer, request: MetaRequest) -> Result<MetaReply, Fail> {
        if peer.role != Role::Admin {
            return Err(Fail::Refused("this credential is not an operator's".into()));
        }
        self.lead()?;
        match request {
            MetaRequest::CreateVolume(volume) => self.create_volume(volume).await,
            MetaRequest::ChangeVolume { name, change } => self.change_volume(name, change).await,
            MetaRequest::ListVolumes => Ok(plain(MetaBody::Volumes(self.read(|view| view.volumes()).await?))),
            MetaRequest::ShowVolume { name } => self.show_volume(&name).await,
            MetaRequest::DeleteVolume { name } => self.propose_to_be_done(&Command::DeleteVolume { name }).await,
            MetaRequest::CreateToken { role, grant, ttl_ms } => self.create_token(role, grant, ttl_ms).await,
            MetaRequest::CreateApiKey { hash, name, role, volumes, ttl_ms } => {
                let created = self.now();
                let expires = ttl_ms.map(|ttl_ms| later(created, Duration::from_millis(ttl_ms)));
                let key = ApiKey { name, role, volumes, created, expires };
                self.propose_to_be_done(&Command::CreateApiKey { hash, key }).await
            }
            MetaRequest::ListApiKeys => Ok(plain(MetaBody::ApiKeys(self.read(|view| view.api_keys()).await?))),
            MetaRequest::DeleteApiKey { name } => self.propose_to_be_done(&Command::DeleteApiKey { name }).await,
            MetaRequest::CheckApiKey { hash } => self.check_api_key(hash).await,
            MetaRequest::Status => self.status().await,
            MetaRequest::Room { copies } => self.room(copies).await,
            _ => Err(FsError::Invalid.into()),
        }
    }

    async fn propose_to_be_done(&self, command: &Command) -> Result<MetaReply, Fail> {
        match self.propose(command).await? {
            Outcome::Done => Ok(plain(MetaBody::Done)),
            other => Err(unexpected(other)),
        }
    }

    async fn check_api_key(&self, hash: [u8; 32]) -> Result<MetaReply, Fail> {
        let key = self.read(|view| view.api_key(&hash)).await?;
        let key = key.filter(|key| !key.is_expired(self.now())).ok_or(FsError::NotFound)?;
        Ok(plain(MetaBody::ApiKey(key)))
    }

    async fn create_volume(&self, volume: NewVolume) -> Result<MetaReply, Fail> {
        match self.propose(&Command::CreateVolume { volume, now: self.now() }).await? {
            Outcome::Volume(volume) => Ok(plain(MetaBody::Volume(volume, VolumeUsage::default()))),
            other => Err(unexpected(other)),
        }
    }

    async fn change_volume(&self, name: String, change: VolumeChange) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        for tries in 1..=CHANGE_TRIES {
            match self.propose(&Command::ChangeVolume { name: name.clone(), change: change.clone() }).await? {
                Outcome::Volume(volume) => {
                    let usage = self.read(|view| view.usage(volume.tree)).await?;
                    return Ok(plain(MetaBody::Volume(volume, usage)));
                }
                Outcome::Error(FsError::Promised) if tries == CHANGE_TRIES => break,
                Outcome::Error(FsError::Promised) => self.gather_for_change(&leader, &name, &change).await?,
                other => return Err(unexpected(other)),
            }
        }
        Err(Fail::Refused(format!(
            "volume {name} is being written to, and what its clients have accepted does not fit"
        )))
    }

    async fn show_volume(&self, name: &str) -> Result<MetaReply, Fail> {
        let found = self
            .read(|view| match view.volume_by_name(name)? {
                Some(volume) => Ok(Some((view.usage(volume.tree)?, volume))),
                None => Ok(None),
            })
            .await?;
        match found {
            Some((usage, volume)) => Ok(plain(MetaBody::Volume(volume, usage))),
            None => Err(FsError::NotFound.into()),
        }
    }

    async fn create_token(&self, role: Role, grant: ClientGrant, ttl_ms: u64) -> Result<MetaReply, Fail> {
        let metas = self.raft.members().into_iter().map(|(info, ..)| info.address).collect();
        let token = JoinToken::create(self.authority.fingerprint(), metas);
        let expires = later(self.now(), Duration::from_millis(ttl_ms));
        self.check_granted(&grant).await?;
        let command = Command::CreateToken { hash: token.secret_hash(), role, grant, expires };
        match self.propose(&command).await? {
            Outcome::Done => Ok(plain(MetaBody::Token(token.encode()))),
            other => Err(unexpected(other)),
        }
    }

    /// A token for a volume that is not there would be found useless by whoever it is given to.
    async fn check_granted(&self, grant: &ClientGrant) -> Result<(), Fail> {
        for name in &grant.volumes {
            if self.read(|view| view.volume_by_name(name)).await?.is_none() {
                return Err(Fail::Refused(format!("there is no volume {name}")));
            }
        }
        Ok(())
    }

    pub(super) fn members(&self) -> MetaReply {
        let leader = self.raft.leadership().borrow().leader.as_ref().map(|info| info.id);
        let metas = self.raft.members().into_iter().map(|(info, ..)| info).collect();
        plain(MetaBody::Members { leader, metas })
    }

    async fn status(&self) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        let told = leader.told();
        let counted = self
            .read(|view| {
                let sessions = told.iter().map(|(id, told)| session_status(view, *id, *told));
                let sessions: Vec<_> = sessions.collect::<Result<_, StateError>>()?;
                Ok((view.map()?, view.volumes()?, view.chunk_totals()?, sessions))
            })
            .await?;
        let (map, volumes, chunks, sessions) = counted;
        let stores = map.stores.into_iter().map(|info| {
            let (disks, up) = leader.stores.last(info.id);
            StoreStatus { info, up, disks }
        });
        let metas = self.raft.members().into_iter().map(|(info, voter, lag)| MetaStatus { info, voter, lag });
        Ok(plain(MetaBody::Status(ClusterStatus {
            cluster: self.cluster,
            leader: Some(self.me.id),
            term: leader.term,
            metas: metas.collect(),
            map_epoch: map.epoch,
            stores: stores.collect(),
            volumes,
            sessions: sessions.into_iter().flatten().collect(),
            chunks: chunks.chunks,
            chunk_bytes: chunks.chunk_bytes,
            shared_references: chunks.shared_references,
        })))
    }

    async fn room(&self, copies: u8) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        let map = self.read(|view| view.map()).await?;
        leader.stores.first_round(&map, leader.age()).await;
        let Room { total_bytes, free_bytes } = leader.stores.room(&map, copies);
        let report = SpaceReport { total_bytes, free_bytes, disk_free_bytes: free_bytes, ..SpaceReport::default() };
        Ok(plain(MetaBody::Space(bounded_by_log(report, *self.room.borrow()))))
    }

    /// The space of a session's volume: what its copies can use of the stores', or what its quota leaves of that.
    pub(super) async fn statfs(&self, session: SessionId) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        let tree = leader.heard(session)?;
        let read = |view: &View<'_>| Ok((view.volume(view.session(session)?.volume)?, view.usage(tree)?, view.map()?));
        let (volume, usage, map) = self.read(read).await?;
        leader.stores.first_round(&map, leader.age()).await;
        let room = leader.stores.room(&map, volume.policy.replicas);
        let mut report = space_report(&volume, usage, room);
        if report.free_bytes < SCARCE_BYTES {
            report.freeing = self.freeing(&leader).await?;
        }
        Ok(plain(MetaBody::Space(bounded_by_log(report, *self.room.borrow()))))
    }

    async fn freeing(&self, leader: &Leader) -> Result<bool, Fail> {
        if let Some(freeing) = leader.freeing() {
            return Ok(freeing);
        }
        let freeing = self.read(|view| is_freeing(view, leader)).await?;
        leader.note_freeing(freeing);
        Ok(freeing)
    }
}

fn session_status(view: &View<'_>, id: SessionId, told: Told) -> Result<Option<SessionStatus>, StateError> {
    let session = match view.session(id) {
        Ok(session) => session,
        Err(StateError::Fs(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let volume = view.volume(session.volume)?.name;
    let silent_ms = u64::try_from(told.silence.as_millis()).unwrap_or(u64::MAX);
    Ok(Some(SessionStatus { id, volume, client: session.client, silent_ms, memory_bytes: told.memory_bytes }))
}

fn space_report(volume: &Volume, usage: VolumeUsage, room: Room) -> SpaceReport {
    let (mut total, mut left) = (room.total_bytes, room.free_bytes);
    if volume.policy.quota_bytes > 0 {
        total = total.min(volume.policy.quota_bytes);
        left = left.min(volume.policy.quota_bytes.saturating_sub(usage.allocated_bytes));
    }
    let inodes = match volume.policy.quota_inodes {
        0 => INODES_UNBOUNDED,
        quota => quota,
    };
    SpaceReport {
        total_bytes: total,
        free_bytes: left.min(total),
        disk_free_bytes: room.free_bytes,
        inodes,
        inodes_free: inodes.saturating_sub(usage.inodes),
        tight: false,
        freeing: false,
    }
}

/// Where no record can be written, no byte can be.
fn bounded_by_log(report: SpaceReport, room: LogRoom) -> SpaceReport {
    match room {
        LogRoom::Ample => report,
        LogRoom::Tight => SpaceReport { tight: true, ..report },
        LogRoom::Full => SpaceReport { tight: true, free_bytes: 0, disk_free_bytes: 0, ..report },
    }
}

fn later(now: Time, by: Duration) -> Time {
    let nsec = u64::from(now.nsec) + u64::from(by.subsec_nanos());
    let carry = nsec / 1_000_000_000;
    let sec = i64::try_from(by.as_secs() + carry).unwrap_or(i64::MAX);
    Time { sec: now.sec.saturating_add(sec), nsec: (nsec % 1_000_000_000) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::{TreeId, VolumeId};
    use crate::types::volume::{Labels, VolumePolicy};

    #[test]
    fn quotas_bound_what_df_shows() {
        let policy = VolumePolicy { quota_bytes: 1000, ..VolumePolicy::default() };
        let volume = Volume { id: VolumeId(1), name: "v".into(), tree: TreeId(1), policy, labels: Labels::new() };
        let usage = VolumeUsage { inodes: 2, allocated_bytes: 400 };
        let report = space_report(&volume, usage, Room { total_bytes: 3000, free_bytes: 2000 });
        assert_eq!((report.total_bytes, report.free_bytes), (1000, 600));
        let report = space_report(&volume, usage, Room { total_bytes: 3000, free_bytes: 200 });
        assert_eq!(report.free_bytes, 200);
    }

    #[test]
    fn time_carries() {
        let now = Time { sec: 1, nsec: 900_000_000 };
        assert_eq!(later(now, Duration::from_millis(1200)), Time { sec: 3, nsec: 100_000_000 });
    }
}
