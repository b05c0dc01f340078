//! The node's calls: a volume is mounted once on a host, at its staging path, and found from there where pods want it.
//!
//! What there is, is read off the kernel's table of mounts at each call. A call about a mount whose cluster is away ends in time and says
//! so; what it has begun goes on, and until it is done further calls about the volume are told to come back.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tonic::{Code, Status};

use super::block::{self, Block};
use super::capability::Use;
use super::ephemeral::{Ephemerals, is_ephemeral};
use super::fault::needed;
use super::identity::SpecLevel;
use super::patience::Patience;
use super::spec::volume_health::VolumeHealthEntry;
use super::spec::*;
use super::staged::{Note, Staged};
use super::stats::{Stats, StatsError};
use super::turns::{Turn, Turns};
use crate::container::mounter::{MountFailure, Mounter, is_gone, mounted};
use crate::host::bind::{bind, unbind};
use crate::host::loopdev::Attached;
use crate::host::mountinfo::{MountEntry, mounts, mounts_of, resolve_untouched};
use crate::remote::operator::Operator;
use crate::types::volume::NewVolume;

/// The name of a secret: the credential file of a client, whole.
const CREDENTIAL_SECRET: &str = "credential";
const CLUSTER_AWAY: &str = "the cluster does not answer";
/// Of a root that a group is to use.
const GROUP_MODE: u32 = 0o2070;

/// Where the node is, and what it keeps there.
#[derive(Clone, Debug)]
pub struct Place {
    pub node_id: String,
    /// Of this driver alone.
    pub dir: PathBuf,
    /// Segments by their domains; empty where volumes are told from everywhere.
    pub topology: Map,
    pub level: SpecLevel,
    /// Volumes may be block devices.
    pub has_block: bool,
    /// The servers that mounts ask.
    pub metas: Vec<String>,
    /// Of a call whose cluster is away.
    pub patience: Duration,
}

pub struct NodeService {
    place: Place,
    /// Asked whether it is there, and no more.
    cluster: Operator,
    mounter: Mounter,
    ephemerals: Option<Ephemerals>,
    patience: Patience,
    staged: Staged,
    turns: Turns,
    stats: Stats,
}

impl NodeService {
    /// `ephemerals`: who makes volumes that live as long as a pod, where this node may.
    pub fn new(place: Place, cluster: Operator, mounter: Mounter, ephemerals: Option<Ephemerals>) -> NodeService {
        let (patience, staged) = (Patience(place.patience), Staged::new(&place.dir));
        let (turns, stats) = (Turns::default(), Stats::default());
        NodeService { place, cluster, mounter, ephemerals, patience, staged, turns, stats }
    }

    /// The mounter for one mount: with the credential that comes with the call, if one does, or with the one that came first.
    fn mounter_for(&self, dir: &Path, secrets: Secrets<'_>) -> Result<Mounter, Status> {
        let file = match secrets {
            Secrets::OfCall(secrets) => {
                secrets.get(CREDENTIAL_SECRET).map(|text| self.staged.keep_credential(dir, text))
            }
            Secrets::OfBefore => self.staged.credential(dir).map(Ok),
        };
        let file = file.transpose();
        let file = file.map_err(|error| Status::internal(format!("the credential cannot be kept: {error}")))?;
        Ok(file.map_or_else(|| self.mounter.clone(), |file| self.mounter.with_credential(file)))
    }

    /// Has a volume mounted on `dir`, for this use.
    async fn mount(&self, turn: Turn, volume: &str, dir: &Path, wish: Wish<'_>) -> Result<(), Status> {
        // The file of a device has to be made, also for who will only read the device.
        let read_only = !wish.usage.is_block && wish.read_only;
        let is_new = self.take_note(volume, dir, wish.usage, read_only).await?;
        let mounter = self.mounter_for(dir, wish.secrets);
        let mounter = mounter.inspect_err(|_| {
            if is_new {
                self.staged.forget(dir)
            }
        })?;
        let metas = self.place.metas.clone();
        let mut options = wish.usage.flags.clone();
        if read_only {
            options.push("ro".to_string());
        }
        let group = wish.usage.group.filter(|_| !read_only);
        let (volume, place, staged) = (volume.to_string(), dir.to_path_buf(), self.staged.clone());
        let work = async move {
            let _turn = turn;
            let made = mounter.mount(&metas, &volume, &place, &options).await;
            // What a program that has failed has left mounted has a keeper, which goes on by its credential.
            if made.is_err() && is_new && !is_at(&volume, &place) {
                staged.forget(&place);
            }
            made?;
            match group.filter(|_| !is_elsewhere(&place)) {
                Some(group) => give_to_group(place, group).await,
                None => Ok(()),
            }
        };
        self.patience.in_time(work).await
    }

    /// Has it written down how the volume is asked for. Whether that is new.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`: it is mounted, and was asked for otherwise.
    async fn take_note(&self, volume: &str, dir: &Path, usage: &Use, read_only: bool) -> Result<bool, Status> {
        let note = Note { volume: volume.into(), flags: usage.flags.clone(), read_only, is_block: usage.is_block };
        let there = mounted(dir)?.filter(|entry| entry.is_volume(volume));
        let had = self.staged.note(dir);
        let is_otherwise =
            |entry: &MountEntry| entry.read_only != read_only || had.as_ref().is_some_and(|had| !had.is_like(&note));
        // One that has ended is nobody's any more.
        if there.as_ref().is_some_and(is_otherwise) && !is_gone(dir).await {
            return Err(Status::already_exists("the volume is there already, to be used otherwise"));
        }
        if had.as_ref() != Some(&note) {
            let kept = self.staged.keep_note(dir, &note);
            kept.map_err(|error| Status::internal(format!("it cannot be written down: {error}")))?;
        }
        Ok(had.is_none() && there.is_none())
    }

    /// Has nothing mounted on `dir`, and then does the rest.
    fn unmount(
        &self,
        turn: Turn,
        dir: &Path,
        is_to_be_kept: bool,
        rest: impl FnOnce() -> Result<(), Status> + Send + 'static,
    ) -> impl Future<Output = Result<(), Status>> {
        let (mounter, dir, staged) = (self.mounter.clone(), dir.to_path_buf(), self.staged.clone());
        self.patience.in_time(async move {
            let _turn = turn;
            match is_to_be_kept {
                true => mounter.unmount(&dir).await?,
                false => mounter.discard(&dir).await?,
            }
            staged.forget(&dir);
            rest()
        })
    }

    /// A volume that is there from the pod's beginning to its end.
    async fn publish_ephemeral(
        &self,
        request: &NodePublishVolumeRequest,
        wish: &Use,
        turn: Turn,
    ) -> Result<(), Status> {
        let ephemerals = self.ephemerals.as_ref();
        let ephemerals = ephemerals.ok_or_else(|| {
            Status::failed_precondition("this node makes no volumes of its own: it has no operator's credential")
        })?;
        let volume = &request.volume_id;
        ephemerals.create(volume, &request.volume_context).await?;
        let read_only = request.readonly || wish.is_read_only();
        let wish = Wish { usage: wish, read_only, secrets: Secrets::OfCall(&request.secrets) };
        self.mount(turn, volume, Path::new(&request.target_path), wish).await
    }

    /// The device that a volume is at this path, if it is one.
    ///
    /// # Errors
    /// `NOT_FOUND`: the volume is not at this path.
    fn here(&self, id: &str, path: &Path) -> Result<Option<Attached>, Status> {
        if mounted(path)?.is_some_and(|entry| entry.is_volume(id)) {
            return Ok(None);
        }
        let device = Block::of(id).at(path).map_err(|error| host(path, &error))?;
        let missing = || Status::not_found(format!("volume {id} is not mounted on {}", path.display()));
        device.ok_or_else(missing).map(Some)
    }

    /// Has the file of a device there. A volume that is refused as one is not left mounted.
    async fn fill(&self, id: &str, staging: PathBuf) -> Result<(), Status> {
        let (turn, block, place) = (self.turns.take(id)?, Block::of(id), staging.clone());
        let staged = mounted(&staging)?.ok_or_else(|| Status::aborted("it was unmounted meanwhile"))?;
        let standing = block.standing(&staged).await.map_err(|error| host(&staging, &error))?;
        let fill = move || match block.fill_unless_attached(&place, &standing) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(Status::failed_precondition(error.to_string()))
            }
            filled => filled.map_err(|error| host(&place, &error)),
        };
        let filled = self.patience.on_host(turn, fill).await;
        if filled.as_ref().is_err_and(|refused| refused.code() == Code::FailedPrecondition) {
            self.unmount(self.turns.take(id)?, &staging, true, || Ok(())).await?;
        }
        filled
    }

    /// Has a device and its file as large as the volume is now, and as is asked for.
    async fn grow(&self, block: Block, id: &str, at_least: u64) -> Result<i64, Status> {
        let turn = self.turns.take(id)?;
        let all = mounts().map_err(|error| host(Path::new("/proc"), &error))?;
        // Somebody else may have mounted a volume of that name.
        let is_staged = |entry: &MountEntry| self.staged.note(&entry.target).is_some_and(|note| note.is_block);
        let staging = all.into_iter().find(|entry| entry.is_volume(id) && is_staged(entry)).map(|entry| entry.target);
        let staging = staging.ok_or_else(|| Status::not_found(format!("volume {id} is not staged")))?;
        let bytes = Arc::new(AtomicU64::new(0));
        let told = bytes.clone();
        self.patience
            .on_host(turn, move || {
                let filled = block.fill(&staging, at_least).and_then(|bytes| block.resize().map(|()| bytes));
                told.store(filled.map_err(|error| host(&staging, &error))?, Ordering::Relaxed);
                Ok(())
            })
            .await?;
        Ok(i64::try_from(bytes.load(Ordering::Relaxed)).unwrap_or(i64::MAX))
    }

    /// What is at a volume's staging path. A mount whose process is gone, or that was given up by its process while pods had it, is
    /// made anew, as it was.
    async fn staged(&self, request: &NodePublishVolumeRequest, wish: &Use, turn: Turn) -> Result<MountEntry, Status> {
        let (id, staging) = (&request.volume_id, absolute("the staging path", &request.staging_target_path)?);
        let find = || Ok::<_, Status>(mounted(&staging)?.filter(|entry| entry.is_volume(id)));
        let not_staged = || Status::failed_precondition(format!("volume {id} is not staged"));
        let found = find()?;
        if let Some(found) = &found
            && !is_gone(&staging).await
        {
            return Ok(found.clone());
        }
        let note = self.staged.note(&staging).filter(|note| note.volume == *id);
        // The pod's group is seen to with its target.
        let wish = Use { group: None, ..wish.clone() };
        let (usage, read_only) = match (note, found) {
            (Some(Note { flags, is_block, read_only, .. }), _) => (Use { flags, is_block, ..wish }, read_only),
            // It was staged by a driver that made no notes.
            (None, Some(found)) => (wish, found.read_only),
            (None, None) => return Err(not_staged()),
        };
        tracing::warn!(volume = id, staging = %staging.display(), "a mount that has ended is made anew");
        self.mount(turn, id, &staging, Wish { usage: &usage, read_only, secrets: Secrets::OfBefore }).await?;
        find()?.ok_or_else(not_staged)
    }
}

/// How a volume is to be mounted.
struct Wish<'a> {
    usage: &'a Use,
    read_only: bool,
    secrets: Secrets<'a>,
}

/// What a mount shows for who it is.
enum Secrets<'a> {
    OfCall(&'a Map),
    /// It is made again: what came when it was first.
    OfBefore,
}

/// Of a device only its size is known.
fn device_usage(bytes: u64) -> VolumeUsage {
    let total = i64::try_from(bytes).unwrap_or(i64::MAX);
    VolumeUsage { total, available: 0, used: 0, unit: UsageUnit::Bytes.into() }
}

/// The volume is mounted there, as far as can be told.
fn is_at(volume: &str, place: &Path) -> bool {
    mounted(place).is_ok_and(|found| found.is_some_and(|entry| entry.is_volume(volume)))
}

/// Pods have what is mounted there, and their groups: who asks again takes it from none of them.
fn is_elsewhere(place: &Path) -> bool {
    let Ok(Some(entry)) = mounted(place) else { return false };
    mounts_of(entry.device).is_ok_and(|all| all.len() > 1)
}

/// Has new files belong to the group that a pod asks for: by the root's set-group-id, whatever there is below it already. Changes nothing
/// that is so. Waits for the cluster: the volume's turn is not to end before this does, or a group of before could have it later.
async fn give_to_group(dir: PathBuf, group: u32) -> Result<(), Status> {
    let giving = spawn_blocking(move || -> io::Result<()> {
        let found = fs::metadata(&dir)?;
        if found.gid() != group {
            chown(&dir, None, Some(group))?;
        }
        if found.mode() & GROUP_MODE != GROUP_MODE {
            fs::set_permissions(&dir, fs::Permissions::from_mode(found.mode() & 0o7777 | GROUP_MODE))?;
        }
        Ok(())
    });
    let given = giving.await.map_err(|error| Status::internal(error.to_string()))?;
    given.map_err(|error| Status::unavailable(format!("the volume cannot be given to group {group}: {error}")))
}

impl Node for NodeService {
    async fn node_get_capabilities(
        &self,
        _: NodeGetCapabilitiesRequest,
    ) -> Result<NodeGetCapabilitiesResponse, Status> {
        use NodeRpc::*;
        let always = [StageUnstageVolume, GetVolumeStats, SingleNodeMultiWriter, VolumeMountGroup];
        let health: &[NodeRpc] = match self.place.level {
            SpecLevel::V1_12 => &[VolumeCondition],
            SpecLevel::V1_13 => &[GetVolumeHealth, GetStorageHealth],
        };
        let block: &[NodeRpc] = if self.place.has_block { &[ExpandVolume] } else { &[] };
        let capabilities = always.iter().chain(block).chain(health).map(|rpc| (*rpc).into()).collect();
        Ok(NodeGetCapabilitiesResponse { capabilities })
    }

    async fn node_get_info(&self, _: NodeGetInfoRequest) -> Result<NodeGetInfoResponse, Status> {
        let segments = self.place.topology.clone();
        let accessible_topology = (!segments.is_empty()).then_some(Topology { segments });
        Ok(NodeGetInfoResponse { node_id: self.place.node_id.clone(), max_volumes_per_node: 0, accessible_topology })
    }

    async fn node_stage_volume(&self, request: NodeStageVolumeRequest) -> Result<NodeStageVolumeResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let staging = absolute("the staging path", &request.staging_target_path)?;
        let wish = Use::required(request.volume_capability.as_ref(), self.place.has_block)?;
        check_volume(id)?;
        let turn = self.turns.take(id)?;
        let is_block = wish.is_block;
        let read_only = wish.is_read_only();
        let wish = Wish { usage: &wish, read_only, secrets: Secrets::OfCall(&request.secrets) };
        self.mount(turn, id, &staging, wish).await?;
        if is_block {
            self.fill(id, staging).await?;
        }
        Ok(NodeStageVolumeResponse {})
    }

    async fn node_unstage_volume(
        &self,
        request: NodeUnstageVolumeRequest,
    ) -> Result<NodeUnstageVolumeResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let staging = absolute("the staging path", &request.staging_target_path)?;
        let turn = self.turns.take(id)?;
        self.unmount(turn, &staging, true, || Ok(())).await?;
        Ok(NodeUnstageVolumeResponse {})
    }

    async fn node_publish_volume(
        &self,
        request: NodePublishVolumeRequest,
    ) -> Result<NodePublishVolumeResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let target = absolute("the target path", &request.target_path)?;
        let wish = Use::required(request.volume_capability.as_ref(), self.place.has_block)?;
        check_volume(id)?;
        let turn = self.turns.take(id)?;
        if is_ephemeral(&request.volume_context) {
            if wish.is_block {
                return Err(Status::invalid_argument("a pod's own volume is no block device"));
            }
            self.publish_ephemeral(&request, &wish, turn).await?;
            return Ok(NodePublishVolumeResponse {});
        }
        if request.staging_target_path.is_empty() {
            return Err(Status::failed_precondition("the staging path is missing"));
        }
        let staging = absolute("the staging path", &request.staging_target_path)?;
        let staged = self.staged(&request, &wish, turn).await?;
        let turn = self.turns.take(id)?;
        take_away_dead(id, &staged, &target).await?;
        let read_only = request.readonly || wish.is_read_only();
        if wish.is_block {
            let block = Block::of(id);
            let standing = block.standing(&staged).await.map_err(|error| host(&target, &error))?;
            let wish = block::Wish { read_only, is_for_one: wish.is_for_one() };
            self.patience.on_host(turn, move || block.publish(&staging, &target, &wish, &standing)).await?;
            return Ok(NodePublishVolumeResponse {});
        }
        if is_published(&staged, &staging, &target, &wish, read_only)? {
            return Ok(NodePublishVolumeResponse {});
        }
        let group = wish.group.filter(|_| !read_only && !staged.read_only);
        self.patience
            .in_time(async move {
                let _turn = turn;
                // Staged once, for the pod that came first. What is bound has the group: a call that comes again finds that.
                if let Some(group) = group {
                    give_to_group(staging.clone(), group).await?;
                }
                fs::create_dir_all(&target).map_err(|error| host(&target, &error))?;
                let to = target.clone();
                let bound = spawn_blocking(move || bind(&staging, &to, read_only)).await;
                bound.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| host(&target, &error))
            })
            .await?;
        Ok(NodePublishVolumeResponse {})
    }

    async fn node_unpublish_volume(
        &self,
        request: NodeUnpublishVolumeRequest,
    ) -> Result<NodeUnpublishVolumeResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let target = absolute("the target path", &request.target_path)?;
        let turn = self.turns.take(id)?;
        let ephemerals = self.ephemerals.clone().filter(|ephemerals| ephemerals.has(id));
        if let Some(ephemerals) = ephemerals {
            let (id, place) = (id.to_string(), target.clone());
            let rest = move || {
                remove_target(&place)?;
                ephemerals.remove(&id).map_err(|error| Status::internal(error.to_string()))
            };
            self.unmount(turn, &target, false, rest).await?;
            return Ok(NodeUnpublishVolumeResponse {});
        }
        let block = Block::of(id);
        if block.is_at_or_loose(&target).map_err(|error| host(&target, &error))? {
            self.patience
                .on_host(turn, move || block.unpublish(&target).map_err(|error| host(&target, &error)))
                .await?;
            return Ok(NodeUnpublishVolumeResponse {});
        }
        // Whatever was bound there, as often as it was.
        while mounted(&target)?.is_some() {
            unbind(&target).map_err(|error| host(&target, &error))?;
        }
        remove_target(&target)?;
        Ok(NodeUnpublishVolumeResponse {})
    }

    async fn node_get_volume_stats(
        &self,
        request: NodeGetVolumeStatsRequest,
    ) -> Result<NodeGetVolumeStatsResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let path = PathBuf::from(needed("the path of the volume", &request.volume_path)?);
        let usage = match self.here(id, &path)? {
            Some(device) => Ok(vec![device_usage(device.bytes)]),
            None => self.stats.of(&path).await,
        };
        if !self.place.level.has_condition() {
            let usage = usage.map_err(|error| Status::unavailable(error.to_string()))?;
            return Ok(NodeGetVolumeStatsResponse { usage, volume_condition: None });
        }
        let wrong = match &usage {
            Err(error) => Some(error.to_string()),
            // A mount tells what it was told last.
            Ok(_) => (!self.cluster.has_leader().await).then(|| CLUSTER_AWAY.to_string()),
        };
        let condition = VolumeCondition {
            abnormal: wrong.is_some(),
            message: wrong.unwrap_or_else(|| "the volume and its cluster answer".to_string()),
        };
        Ok(NodeGetVolumeStatsResponse { usage: usage.unwrap_or_default(), volume_condition: Some(condition) })
    }

    async fn node_expand_volume(&self, request: NodeExpandVolumeRequest) -> Result<NodeExpandVolumeResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let path = PathBuf::from(needed("the path of the volume", &request.volume_path)?);
        let device = self.here(id, &path)?;
        let capacity_bytes = request.capacity_range.map_or(0, |range| range.required_bytes);
        let block = Block::of(id);
        let is_block = device.is_some() || Block::is_asked_for(request.volume_capability.as_ref());
        if is_block {
            let capacity_bytes = self.grow(block, id, u64::try_from(capacity_bytes).unwrap_or(0)).await?;
            return Ok(NodeExpandVolumeResponse { capacity_bytes });
        }
        // A mount goes by the quota as it is; nothing is to be done here.
        Ok(NodeExpandVolumeResponse { capacity_bytes })
    }

    async fn node_get_volume_health(
        &self,
        request: NodeGetVolumeHealthRequest,
    ) -> Result<NodeGetVolumeHealthResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let paths = [&request.volume_publish_path, &request.staging_target_path];
        let path = paths.into_iter().find(|path| !path.is_empty()).map(PathBuf::from);
        let path = path.ok_or_else(|| Status::invalid_argument("a path of the volume is missing"))?;
        self.here(id, &path)?;
        let wrong = match self.stats.of(&path).await {
            Err(StatsError::Slow) => Some(("MountHangs", StatsError::Slow.to_string())),
            Err(error) => Some(("MountGone", error.to_string())),
            Ok(_) => (!self.cluster.has_leader().await).then(|| ("ClusterAway", CLUSTER_AWAY.to_string())),
        };
        let status = VolumeHealthErrorType::Inaccessible.into();
        let entry = |(reason, message): (&str, _)| VolumeHealthEntry { status, reason: reason.to_string(), message };
        let health_statuses = wrong.map(entry).into_iter().collect();
        let volume_health = Some(VolumeHealth { volume_id: id.to_string(), health_statuses });
        Ok(NodeGetVolumeHealthResponse { volume_health })
    }

    async fn node_get_storage_health(
        &self,
        _: NodeGetStorageHealthRequest,
    ) -> Result<NodeGetStorageHealthResponse, Status> {
        let away = !self.cluster.has_leader().await;
        let unreachable = node_get_storage_health_response::StorageBackendHealth {
            status: StorageHealthErrorType::StorageUnreachable.into(),
            reason: "ClusterAway".to_string(),
            message: CLUSTER_AWAY.to_string(),
            volume_capability: None,
        };
        Ok(NodeGetStorageHealthResponse { backend_health: away.then_some(unreachable).into_iter().collect() })
    }
}

/// # Errors
/// It is not empty, or cannot be removed.
fn remove_target(target: &Path) -> Result<(), Status> {
    match fs::remove_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(host(target, &error)),
        _ => Ok(()),
    }
}

/// # Errors
/// `NOT_FOUND`: no volume has such an id.
fn check_volume(id: &str) -> Result<(), Status> {
    NewVolume::named(id).check().map_err(|_| Status::not_found(format!("there is no volume {id}")))
}

/// # Errors
/// `INVALID_ARGUMENT`: it is missing, or relative.
fn absolute(what: &str, path: &str) -> Result<PathBuf, Status> {
    let path = PathBuf::from(needed(what, path)?);
    if !path.is_absolute() {
        return Err(Status::invalid_argument(format!("{what} is not absolute")));
    }
    // The kernel's table knows no links. What leads there may not be there yet.
    Ok(resolve_untouched(&path).unwrap_or(path))
}

/// Has a target free of mounts of the volume that have ended.
///
/// # Errors
/// The host cannot do it.
async fn take_away_dead(id: &str, staged: &MountEntry, target: &Path) -> Result<(), Status> {
    let is_of_before = |entry: &MountEntry| entry.is_volume(id) && entry.device != staged.device;
    while mounted(target)?.as_ref().is_some_and(is_of_before) && is_gone(target).await {
        unbind(target).map_err(|error| host(target, &error))?;
    }
    Ok(())
}

/// Whether the volume is at its target already, as it is asked for.
///
/// # Errors
/// It is there otherwise, or somewhere else though it is for one workload.
fn is_published(
    staged: &MountEntry,
    staging: &Path,
    target: &Path,
    wish: &Use,
    read_only: bool,
) -> Result<bool, Status> {
    match mounted(target)? {
        Some(entry) if entry.device == staged.device && entry.read_only == read_only => return Ok(true),
        Some(entry) if entry.device == staged.device => {
            return Err(Status::already_exists("the volume is there already, to be written or read otherwise"));
        }
        Some(entry) => return Err(MountFailure::Taken { path: target.into(), source_name: entry.source }.into()),
        None => {}
    }
    let elsewhere = mounts_of(staged.device).map_err(|error| host(target, &error))?;
    if wish.is_for_one() && elsewhere.iter().any(|entry| entry.target != staging) {
        return Err(Status::failed_precondition("the volume is for one workload, and another has it"));
    }
    Ok(false)
}

pub(super) fn host(path: &Path, error: &io::Error) -> Status {
    let sentence = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::TimedOut => Status::unavailable(sentence),
        _ => Status::internal(sentence),
    }
}
