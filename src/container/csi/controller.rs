//! The controller's calls: volumes made, found, grown, changed and removed, as an operator.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use tonic::Status;

use super::capability::{Use, access_for};
use super::fault::needed;
use super::identity::SpecLevel;
use super::spec::volume_health::VolumeHealthEntry;
use super::spec::*;
use super::topology::Segments;
use super::turns::Turns;
use crate::container::options::{OptionError, Wanted};
use crate::remote::operator::{Operator, OperatorError};
use crate::types::digest::fingerprint;
use crate::types::limits::REPLICAS_DEFAULT;
use crate::types::record::ClusterStatus;
use crate::types::volume::{NewVolume, Volume as Stored, VolumeChange, VolumeUsage};

/// What an orchestrator adds to the parameters of a StorageClass for the driver, with the name of the label that it becomes.
const ORIGINS: [(&str, &str); 3] = [
    ("csi.storage.k8s.io/pvc/name", "kubernetes.io/pvc-name"),
    ("csi.storage.k8s.io/pvc/namespace", "kubernetes.io/pvc-namespace"),
    ("csi.storage.k8s.io/pv/name", "kubernetes.io/pv-name"),
];
const RESERVED: &str = "csi.storage.k8s.io/";
/// What can be changed of a volume that is there.
const MUTABLE: &str = "inodes, patience, labels";
/// On every volume that is a block device: what else it is has no place in the cluster.
const BLOCK_LABEL: (&str, &str) = ("csi.holdfast.dev/volume-mode", "block");
/// A block device has a size, also where none is asked for.
const BLOCK_BYTES_DEFAULT: u64 = 1 << 30;
const SECTOR_BYTES: u64 = 512;
/// Before the name of the last volume of a page: other tokens are not ours.
const TOKEN_PREFIX: &str = "after/";

pub struct ControllerService {
    cluster: Operator,
    level: SpecLevel,
    /// Where volumes are reached from.
    segments: Segments,
    has_block: bool,
    turns: Turns,
}

impl ControllerService {
    pub fn new(cluster: Operator, level: SpecLevel, segments: Segments, has_block: bool) -> ControllerService {
        ControllerService { cluster, level, segments, has_block, turns: Turns::default() }
    }

    fn shown(&self, volume: &Stored) -> Volume {
        let capacity_bytes = i64::try_from(volume.policy.quota_bytes).unwrap_or(i64::MAX);
        let (volume_id, accessible_topology) = (volume.name.clone(), self.segments.places());
        Volume { volume_id, capacity_bytes, accessible_topology, ..Volume::default() }
    }

    /// The volume of an id.
    async fn volume(&self, id: &str) -> Result<(Stored, VolumeUsage), Status> {
        if NewVolume::named(id).check().is_err() {
            return Err(Status::not_found(format!("there is no volume {id}")));
        }
        Ok(self.cluster.volume(id).await?)
    }

    /// Asked again, or another of the same name.
    async fn found(&self, wanted: &Wanted, name: &str, range: Range, uses: &[Use]) -> Result<Stored, Status> {
        let (volume, _) = self.cluster.volume(name).await?;
        let other = |what: &str| Status::already_exists(format!("there is a volume {name} already, with {what}"));
        if !range.fits(volume.policy.quota_bytes) {
            return Err(other(&format!("{} bytes", volume.policy.quota_bytes)));
        }
        if uses.iter().any(|wish| wish.is_block != is_block(&volume)) {
            return Err(other("another volume mode"));
        }
        if !uses.iter().all(|wish| wish.is_possible(volume.policy.access)) {
            return Err(other(&format!("access {}", volume.policy.access.name())));
        }
        let same = Wanted { quota_bytes: None, access: None, ..wanted.clone() };
        match same.differences(&volume).into_iter().next() {
            Some((key, has)) => Err(other(&format!("{key} {has}"))),
            None => Ok(volume),
        }
    }

    /// `refused` says what it is when the volume cannot be so.
    async fn change(&self, id: &str, change: VolumeChange, refused: fn(String) -> Status) -> Result<Stored, Status> {
        match self.cluster.change_volume(id, change).await {
            Ok((volume, _)) => Ok(volume),
            Err(OperatorError::Refused(why)) => Err(refused(why)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Bytes asked for, at least and at most; 0 is not said.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    required: u64,
    limit: u64,
}

impl Range {
    /// # Errors
    /// `OUT_OF_RANGE`: nothing is in it.
    fn of(range: Option<CapacityRange>) -> Result<Range, Status> {
        let range = range.unwrap_or_default();
        let fault =
            || Status::out_of_range(format!("no size is between {} and {}", range.required_bytes, range.limit_bytes));
        let bytes = |bytes: i64| u64::try_from(bytes).map_err(|_| fault());
        let (required, limit) = (bytes(range.required_bytes)?, bytes(range.limit_bytes)?);
        if limit > 0 && required > limit { Err(fault()) } else { Ok(Range { required, limit }) }
    }

    /// The size of a volume that is to be made; `None` where anything will do.
    fn size(self) -> Option<u64> {
        [self.required, self.limit].into_iter().find(|bytes| *bytes > 0)
    }

    /// A volume without a quota is as large as anybody likes, and no smaller.
    fn fits(self, quota: u64) -> bool {
        let size = if quota == 0 { u64::MAX } else { quota };
        self.size().is_none() || (size >= self.required && (self.limit == 0 || size <= self.limit))
    }
}

impl Controller for ControllerService {
    async fn controller_get_capabilities(
        &self,
        _: ControllerGetCapabilitiesRequest,
    ) -> Result<ControllerGetCapabilitiesResponse, Status> {
        use ControllerRpc::*;
        let always = [
            CreateDeleteVolume,
            ListVolumes,
            GetCapacity,
            ExpandVolume,
            GetVolume,
            SingleNodeMultiWriter,
            ModifyVolume,
        ];
        let health: &[ControllerRpc] = match self.level {
            SpecLevel::V1_12 => &[VolumeCondition],
            SpecLevel::V1_13 => &[GetVolumeHealth, ListVolumeHealth],
        };
        let capabilities = always.iter().chain(health).map(|rpc| (*rpc).into()).collect();
        Ok(ControllerGetCapabilitiesResponse { capabilities })
    }

    async fn create_volume(&self, request: CreateVolumeRequest) -> Result<CreateVolumeResponse, Status> {
        let name = volume_name(needed("the name of the volume", &request.name)?);
        let uses = Use::all(&request.volume_capabilities, self.has_block)?;
        if request.volume_content_source.is_some() {
            return Err(Status::invalid_argument("a volume cannot be made from another or from a snapshot"));
        }
        let range = Range::of(request.capacity_range)?;
        let mut wanted = wanted(&request.parameters, &request.mutable_parameters)?;
        wanted.quota_bytes = range.size().or(wanted.quota_bytes);
        if uses.iter().any(|wish| wish.is_block) {
            make_block(&mut wanted, range)?;
        }
        let access = *wanted.access.get_or_insert_with(|| access_for(&uses));
        if !uses.iter().all(|wish| wish.is_possible(access)) {
            let access = access.name();
            return Err(Status::invalid_argument(format!(
                "access {access} is not fit for the capabilities that are asked for"
            )));
        }
        let volume = wanted.volume(&name);
        volume.check().map_err(Status::invalid_argument)?;
        self.segments.check(request.accessibility_requirements.as_ref())?;
        let _turn = self.turns.take(&name)?;
        let made = match self.cluster.create_volume(volume).await {
            Err(OperatorError::Exists(_)) => self.found(&wanted, &name, range, &uses).await?,
            made => made?,
        };
        Ok(CreateVolumeResponse { volume: Some(self.shown(&made)) })
    }

    async fn delete_volume(&self, request: DeleteVolumeRequest) -> Result<DeleteVolumeResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let _turn = self.turns.take(id)?;
        // What cannot be a name is no volume of ours.
        if NewVolume::named(id).check().is_ok() {
            match self.cluster.delete_volume(id).await {
                Ok(()) | Err(OperatorError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(DeleteVolumeResponse {})
    }

    async fn validate_volume_capabilities(
        &self,
        request: ValidateVolumeCapabilitiesRequest,
    ) -> Result<ValidateVolumeCapabilitiesResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume capabilities are missing"));
        }
        let (volume, _) = self.volume(id).await?;
        let access = volume.policy.access;
        let unfit =
            request.volume_capabilities.iter().find_map(|capability| match Use::of(capability, self.has_block) {
                Ok(wish) if wish.is_block != is_block(&volume) => Some("the volume is of another mode".to_string()),
                Ok(wish) if wish.is_possible(access) => None,
                Ok(wish) => Some(format!("a volume of access {} cannot be used as {:?}", access.name(), wish.mode)),
                Err(status) => Some(status.message().to_string()),
            });
        let confirmed = validate_volume_capabilities_response::Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            mutable_parameters: request.mutable_parameters,
        };
        Ok(match unfit {
            None => ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message: String::new() },
            Some(message) => ValidateVolumeCapabilitiesResponse { confirmed: None, message },
        })
    }

    async fn list_volumes(&self, request: ListVolumesRequest) -> Result<ListVolumesResponse, Status> {
        let status = self.cluster.status().await?;
        let health = Health::of(&status);
        let (volumes, next_token) = page(&status, request.max_entries, &request.starting_token)?;
        let entry = |volume: &Stored| list_volumes_response::Entry {
            volume: Some(self.shown(volume)),
            status: Some(list_volumes_response::VolumeStatus {
                published_node_ids: Vec::new(),
                volume_condition: self.level.has_condition().then(|| health.condition(volume)),
            }),
        };
        Ok(ListVolumesResponse { entries: volumes.into_iter().map(entry).collect(), next_token })
    }

    async fn get_capacity(&self, request: GetCapacityRequest) -> Result<GetCapacityResponse, Status> {
        let wanted = wanted(&request.parameters, &Map::new())?;
        let possible = request.volume_capabilities.iter().all(|capability| Use::of(capability, self.has_block).is_ok());
        let possible = possible && request.accessible_topology.is_none_or(|place| self.segments.has(&place));
        let room = self.cluster.room(wanted.replicas.unwrap_or(REPLICAS_DEFAULT)).await?;
        let bytes = if possible { i64::try_from(room.free_bytes).unwrap_or(i64::MAX) } else { 0 };
        // A quota is no reservation: volumes may be larger than what is free now.
        let largest = i64::try_from(room.total_bytes).unwrap_or(i64::MAX);
        Ok(GetCapacityResponse {
            available_capacity: bytes,
            maximum_volume_size: Some(largest),
            minimum_volume_size: None,
        })
    }

    async fn controller_expand_volume(
        &self,
        request: ControllerExpandVolumeRequest,
    ) -> Result<ControllerExpandVolumeResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        if request.capacity_range.is_none() {
            return Err(Status::invalid_argument("the capacity range is missing"));
        }
        let range = Range::of(request.capacity_range)?;
        let size = range.size().ok_or_else(|| Status::invalid_argument("the capacity range says no size"))?;
        let _turn = self.turns.take(id)?;
        let (mut volume, _) = self.volume(id).await?;
        let size = if is_block(&volume) { sectors(size, range)? } else { size };
        if volume.policy.quota_bytes < size && volume.policy.quota_bytes > 0 {
            let change = VolumeChange { quota_bytes: Some(size), ..VolumeChange::default() };
            volume = self.change(id, change, Status::out_of_range).await?;
        }
        if !range.fits(volume.policy.quota_bytes) {
            let has = volume.policy.quota_bytes;
            return Err(Status::out_of_range(format!("volume {id} has {has} bytes already, and is not made smaller")));
        }
        let capacity_bytes = self.shown(&volume).capacity_bytes.max(i64::try_from(range.required).unwrap_or(i64::MAX));
        Ok(ControllerExpandVolumeResponse { capacity_bytes, node_expansion_required: is_block(&volume) })
    }

    async fn controller_get_volume(
        &self,
        request: ControllerGetVolumeRequest,
    ) -> Result<ControllerGetVolumeResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let (volume, _) = self.volume(id).await?;
        let health = Health::of(&self.cluster.status().await?);
        let status = controller_get_volume_response::VolumeStatus {
            published_node_ids: Vec::new(),
            volume_condition: self.level.has_condition().then(|| health.condition(&volume)),
        };
        Ok(ControllerGetVolumeResponse { volume: Some(self.shown(&volume)), status: Some(status) })
    }

    async fn controller_modify_volume(
        &self,
        request: ControllerModifyVolumeRequest,
    ) -> Result<ControllerModifyVolumeResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let wanted = mutable(&request.mutable_parameters)?;
        let _turn = self.turns.take(id)?;
        self.volume(id).await?;
        let change = VolumeChange {
            quota_inodes: wanted.quota_inodes,
            patience_ms: wanted.patience_ms,
            labels: wanted.labels.into_iter().map(|(key, value)| (key, Some(value))).collect(),
            ..VolumeChange::default()
        };
        self.change(id, change, Status::invalid_argument).await?;
        Ok(ControllerModifyVolumeResponse {})
    }

    async fn controller_get_volume_health(
        &self,
        request: ControllerGetVolumeHealthRequest,
    ) -> Result<ControllerGetVolumeHealthResponse, Status> {
        let id = needed("the id of the volume", &request.volume_id)?;
        let (volume, _) = self.volume(id).await?;
        let health = Health::of(&self.cluster.status().await?);
        Ok(ControllerGetVolumeHealthResponse { volume_health: Some(health.of_volume(&volume)) })
    }

    async fn controller_list_volume_health(
        &self,
        request: ControllerListVolumeHealthRequest,
    ) -> Result<ControllerListVolumeHealthResponse, Status> {
        let status = self.cluster.status().await?;
        let health = Health::of(&status);
        let (volumes, next_token) = page(&status, request.max_entries, &request.starting_token)?;
        let entries = volumes.into_iter().map(|volume| health.of_volume(volume));
        let entries = entries.filter(|health| !health.health_statuses.is_empty()).collect();
        Ok(ControllerListVolumeHealthResponse { entries, next_token })
    }
}

fn is_block(volume: &Stored) -> bool {
    volume.labels.get(BLOCK_LABEL.0).is_some_and(|mode| mode == BLOCK_LABEL.1)
}

/// So many bytes as whole sectors.
///
/// # Errors
/// `OUT_OF_RANGE`: those are too many.
fn sectors(bytes: u64, range: Range) -> Result<u64, Status> {
    let whole = bytes.checked_next_multiple_of(SECTOR_BYTES).filter(|whole| range.limit == 0 || *whole <= range.limit);
    whole.ok_or_else(|| Status::out_of_range("a block device is whole sectors of 512 bytes"))
}

/// # Errors
/// `OUT_OF_RANGE`: no size in the range is one of a block device.
fn make_block(wanted: &mut Wanted, range: Range) -> Result<(), Status> {
    let bytes = wanted.quota_bytes.filter(|bytes| *bytes > 0).unwrap_or(BLOCK_BYTES_DEFAULT);
    wanted.quota_bytes = Some(sectors(bytes, range)?);
    wanted.labels.insert(BLOCK_LABEL.0.to_string(), BLOCK_LABEL.1.to_string());
    Ok(())
}

/// What is wrong with the cluster, and so with the volumes in it.
struct Health {
    stores_down: usize,
    stores: usize,
}

impl Health {
    fn of(status: &ClusterStatus) -> Health {
        let down = status.stores.iter().filter(|store| !store.up || store.disks.iter().any(|disk| disk.failed)).count();
        Health { stores_down: down, stores: status.stores.len() }
    }

    fn of_volume(&self, volume: &Stored) -> VolumeHealth {
        let copies = usize::from(volume.policy.replicas).min(self.stores);
        let status = match self.stores_down {
            0 => None,
            down if down < copies => Some((VolumeHealthErrorType::Degraded, "StoresDown")),
            _ => Some((VolumeHealthErrorType::Inaccessible, "TooManyStoresDown")),
        };
        let message = format!("{} of {} stores are down", self.stores_down, self.stores);
        let entry = |(status, reason): (VolumeHealthErrorType, &str)| VolumeHealthEntry {
            status: status.into(),
            reason: reason.to_string(),
            message,
        };
        VolumeHealth { volume_id: volume.name.clone(), health_statuses: status.map(entry).into_iter().collect() }
    }

    fn condition(&self, volume: &Stored) -> VolumeCondition {
        match self.of_volume(volume).health_statuses.pop() {
            Some(entry) => VolumeCondition { abnormal: true, message: entry.message },
            None => VolumeCondition { abnormal: false, message: "every store is up".to_string() },
        }
    }
}

/// The volumes of a page, in the order of their names, and what the next page is asked for with.
fn page<'a>(status: &'a ClusterStatus, max: i32, token: &str) -> Result<(Vec<&'a Stored>, String), Status> {
    let max = usize::try_from(max).map_err(|_| Status::invalid_argument("max_entries is below 0"))?;
    let after = match token {
        "" => None,
        token => {
            Some(token.strip_prefix(TOKEN_PREFIX).ok_or_else(|| Status::aborted("the starting token is not ours"))?)
        }
    };
    let mut volumes: Vec<&Stored> = status.volumes.iter().map(|(volume, _)| volume).collect();
    volumes.sort_by(|one, other| one.name.cmp(&other.name));
    volumes.retain(|volume| after.is_none_or(|after| *volume.name > *after));
    let more = max > 0 && volumes.len() > max;
    volumes.truncate(if more { max } else { volumes.len() });
    let next = volumes.last().filter(|_| more).map(|last| format!("{TOKEN_PREFIX}{}", last.name));
    Ok((volumes, next.unwrap_or_default()))
}

/// A volume's name for that of a request, which may have any letters.
fn volume_name(asked: &str) -> String {
    match NewVolume::named(asked).check() {
        Ok(()) => asked.to_string(),
        Err(_) => format!("csi-{}", HEXLOWER.encode(&fingerprint(asked.as_bytes()))),
    }
}

fn wanted(parameters: &Map, changeable: &Map) -> Result<Wanted, Status> {
    let ours = parameters.iter().filter(|(key, _)| !key.starts_with(RESERVED));
    let mut wanted = Wanted::parse(ours)?;
    let changed = mutable(changeable)?;
    wanted.quota_inodes = changed.quota_inodes.or(wanted.quota_inodes);
    wanted.patience_ms = changed.patience_ms.or(wanted.patience_ms);
    wanted.labels.extend(changed.labels);
    let origins = ORIGINS.iter().filter_map(|(key, label)| Some((label.to_string(), parameters.get(*key)?.clone())));
    wanted.labels.extend(origins);
    Ok(wanted)
}

/// # Errors
/// `INVALID_ARGUMENT`: something else is named, or a value is not understood.
fn mutable(parameters: &Map) -> Result<Wanted, Status> {
    let wanted = Wanted::parse(parameters).map_err(|error| match error {
        OptionError::Unknown(key) => immutable(&key),
        error => error.into(),
    })?;
    let allowed = Wanted {
        quota_inodes: wanted.quota_inodes,
        patience_ms: wanted.patience_ms,
        labels: wanted.labels.clone(),
        ..Wanted::default()
    };
    if wanted == allowed {
        return Ok(wanted);
    }
    let keys: BTreeMap<_, _> = parameters.iter().collect();
    Err(immutable(&keys.keys().map(|key| key.as_str()).collect::<Vec<_>>().join(", ")))
}

fn immutable(keys: &str) -> Status {
    Status::invalid_argument(format!("{keys}: what can be changed of a volume are {MUTABLE}"))
}
