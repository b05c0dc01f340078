//! What programs are shown, and what they may ask for: the JSON of the HTTP interface and of `--json` on the command line.
//!
//! Bytes and milliseconds are whole numbers, and say so in their names; a size may also be given as text (`10GiB`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::value::{ByteSize, Mode};
use crate::types::attr::Owner;
use crate::types::cluster::DiskReport;
use crate::types::record::{ClusterStatus, MetaStatus, SessionStatus, StoreStatus};
use crate::types::volume::{Access, NewVolume, Volume, VolumeChange, VolumePolicy, VolumeUsage};

/// A volume, and what it holds.
#[derive(Debug, Serialize, ToSchema)]
pub struct VolumeDocument {
    id: u64,
    name: String,
    /// Copies of every chunk.
    replicas: u8,
    chunk_bytes: u32,
    /// The most it may hold; 0 is no limit.
    quota_bytes: u64,
    /// The most inodes it may hold; 0 is no limit.
    quota_inodes: u64,
    /// How long I/O waits while the cluster is away before it fails; 0 waits for ever.
    patience_ms: u64,
    #[schema(value_type = AccessDocument)]
    access: Access,
    labels: BTreeMap<String, String>,
    inodes: u64,
    /// What its files take, before copies and deduplication.
    allocated_bytes: u64,
}

/// `rwx`: any number of hosts, each seeing what the others did. `rwo`: one host, whose kernel then caches all it likes. `rox`: any
/// number of hosts, which read only. `fenced`: as `rwo`, but who mounts it shuts out who had it. `rwop`: as `rwo`,
/// and one container there has it.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "describes `Access`, whose own module knows of no schema")]
enum AccessDocument {
    Rwx,
    Rwo,
    Rox,
    Fenced,
    Rwop,
}

/// Whole bytes, or text with a unit: `10GiB`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes `ByteSize`, whose own module knows of no schema")]
enum SizeDocument {
    Bytes(u64),
    Text(String),
}

/// Some volumes, in the order of their names.
#[derive(Debug, Serialize, ToSchema)]
pub struct VolumesDocument {
    pub volumes: Vec<VolumeDocument>,
    /// Give it as `page_token` to go on from there; absent with the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A volume to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVolumeDocument {
    name: String,
    /// Copies of every chunk: 3 where nothing is said.
    replicas: Option<u8>,
    /// A power of two from 64KiB to 4MiB: 1MiB where nothing is said.
    #[schema(value_type = Option<SizeDocument>)]
    chunk_bytes: Option<ByteSize>,
    #[schema(value_type = Option<SizeDocument>)]
    quota_bytes: Option<ByteSize>,
    quota_inodes: Option<u64>,
    patience_ms: Option<u64>,
    #[schema(value_type = Option<AccessDocument>)]
    access: Option<Access>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Whom its root directory belongs to: root where nothing is said.
    owner: Option<OwnerDocument>,
    /// The permissions of its root directory, in octal: 755 where nothing is said.
    mode: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OwnerDocument {
    uid: u32,
    gid: u32,
}

/// What is to be different about a volume; what is not named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeChangeDocument {
    /// Not less than the volume holds; 0 is no limit.
    #[schema(value_type = Option<SizeDocument>)]
    quota_bytes: Option<ByteSize>,
    quota_inodes: Option<u64>,
    /// For mounts made from then on.
    patience_ms: Option<u64>,
    /// While it is not mounted.
    #[schema(value_type = Option<AccessDocument>)]
    access: Option<Access>,
    /// Labels to set, or, with null, to take off.
    #[serde(default)]
    labels: BTreeMap<String, Option<String>>,
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTokenDocument {
    /// What its holder may mount; none is all.
    #[serde(default)]
    pub volumes: Vec<String>,
    #[serde(default)]
    pub read_only: bool,
    /// How long it can be used: an hour where nothing is said.
    #[serde(default = "an_hour_ms")]
    pub ttl_ms: u64,
}

fn an_hour_ms() -> u64 {
    3_600_000
}

/// Without a `Debug`: it is a secret.
#[derive(Serialize, ToSchema)]
pub struct TokenDocument {
    pub token: String,
}

/// The cluster at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatusDocument {
    cluster: String,
    leader: Option<u64>,
    term: u64,
    metas: Vec<MetaDocument>,
    map_epoch: u64,
    stores: Vec<StoreDocument>,
    volumes: Vec<VolumeDocument>,
    sessions: Vec<ClientDocument>,
    chunks: u64,
    /// Before copies.
    chunk_bytes: u64,
    shared_references: u64,
    /// Chunks that were put again and not stored.
    dedup_hits: u64,
    dedup_bytes: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct MetaDocument {
    id: u64,
    address: String,
    voter: bool,
    /// Entries of the log that it has not said to have; absent where the leader does not know.
    lag: Option<u64>,
}

/// A store and its disks.
#[derive(Debug, Serialize, ToSchema)]
pub struct StoreDocument {
    pub id: u64,
    address: String,
    host: String,
    zone: String,
    up: bool,
    disks: Vec<DiskDocument>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DiskDocument {
    id: String,
    capacity_bytes: u64,
    free_bytes: u64,
    chunks: u64,
    chunk_bytes: u64,
    dedup_hits: u64,
    dedup_bytes: u64,
    /// Chunks that were found damaged.
    damaged: u64,
    failed: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StoresDocument {
    pub stores: Vec<StoreDocument>,
}

/// A mount.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClientDocument {
    id: u64,
    volume: String,
    /// What it is called: its host, usually.
    client: String,
    /// Since it was heard of.
    silent_ms: u64,
    /// The most memory it has held.
    memory_high_bytes: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ClientsDocument {
    pub clients: Vec<ClientDocument>,
}

impl VolumeDocument {
    pub fn new(volume: &Volume, usage: &VolumeUsage) -> VolumeDocument {
        let policy = &volume.policy;
        VolumeDocument {
            id: volume.id.0,
            name: volume.name.clone(),
            replicas: policy.replicas,
            chunk_bytes: policy.chunk_bytes,
            quota_bytes: policy.quota_bytes,
            quota_inodes: policy.quota_inodes,
            patience_ms: policy.patience_ms,
            access: policy.access,
            labels: volume.labels.clone(),
            inodes: usage.inodes,
            allocated_bytes: usage.allocated_bytes,
        }
    }
}

impl NewVolumeDocument {
    /// # Errors
    /// One sentence saying what is wrong with it.
    pub fn into_volume(self) -> Result<NewVolume, String> {
        let defaults = NewVolume::named(self.name);
        let policy = defaults.policy.clone();
        let mode = self.mode.map(|mode| mode.parse::<Mode>()).transpose().map_err(|error| error.to_string())?;
        let chunk_bytes = match self.chunk_bytes {
            Some(size) => u32::try_from(size.0).map_err(|_| format!("a chunk of {size} is too large"))?,
            None => policy.chunk_bytes,
        };
        let volume = NewVolume {
            policy: VolumePolicy {
                replicas: self.replicas.unwrap_or(policy.replicas),
                chunk_bytes,
                quota_bytes: self.quota_bytes.map_or(policy.quota_bytes, |size| size.0),
                quota_inodes: self.quota_inodes.unwrap_or(policy.quota_inodes),
                patience_ms: self.patience_ms.unwrap_or(policy.patience_ms),
                access: self.access.unwrap_or(policy.access),
            },
            labels: self.labels,
            owner: self.owner.map_or(defaults.owner, |OwnerDocument { uid, gid }| Owner { uid, gid }),
            mode: mode.map_or(defaults.mode, |mode| mode.0),
            ..defaults
        };
        volume.check().map(|()| volume)
    }
}

impl From<VolumeChangeDocument> for VolumeChange {
    fn from(change: VolumeChangeDocument) -> VolumeChange {
        VolumeChange {
            quota_bytes: change.quota_bytes.map(|size| size.0),
            quota_inodes: change.quota_inodes,
            patience_ms: change.patience_ms,
            access: change.access,
            labels: change.labels,
        }
    }
}

impl StatusDocument {
    pub fn new(status: &ClusterStatus) -> StatusDocument {
        let total = |count: fn(&DiskReport) -> u64| {
            status.stores.iter().flat_map(|store| &store.disks).map(count).fold(0, u64::saturating_add)
        };
        StatusDocument {
            cluster: status.cluster.to_string(),
            leader: status.leader.map(|id| id.0),
            term: status.term,
            metas: status.metas.iter().map(MetaDocument::new).collect(),
            map_epoch: status.map_epoch,
            stores: status.stores.iter().map(StoreDocument::new).collect(),
            volumes: status.volumes.iter().map(|(volume, usage)| VolumeDocument::new(volume, usage)).collect(),
            sessions: status.sessions.iter().map(ClientDocument::new).collect(),
            chunks: status.chunks,
            chunk_bytes: status.chunk_bytes,
            shared_references: status.shared_references,
            dedup_hits: total(|disk| disk.dedup_hits),
            dedup_bytes: total(|disk| disk.dedup_bytes),
        }
    }
}

impl MetaDocument {
    fn new(meta: &MetaStatus) -> MetaDocument {
        MetaDocument { id: meta.info.id.0, address: meta.info.address.clone(), voter: meta.voter, lag: meta.lag }
    }
}

impl StoreDocument {
    pub fn new(store: &StoreStatus) -> StoreDocument {
        StoreDocument {
            id: store.info.id.0,
            address: store.info.address.clone(),
            host: store.info.host.clone(),
            zone: store.info.zone.clone(),
            up: store.up,
            disks: store.disks.iter().map(DiskDocument::new).collect(),
        }
    }
}

impl DiskDocument {
    fn new(disk: &DiskReport) -> DiskDocument {
        DiskDocument {
            id: disk.id.to_string(),
            capacity_bytes: disk.capacity_bytes,
            free_bytes: disk.free_bytes,
            chunks: disk.chunks,
            chunk_bytes: disk.chunk_bytes,
            dedup_hits: disk.dedup_hits,
            dedup_bytes: disk.dedup_bytes,
            damaged: disk.damaged,
            failed: disk.failed,
        }
    }
}

impl ClientDocument {
    pub fn new(session: &SessionStatus) -> ClientDocument {
        ClientDocument {
            id: session.id.0,
            volume: session.volume.clone(),
            client: session.client.clone(),
            silent_ms: session.silent_ms,
            memory_high_bytes: session.memory_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn new(document: serde_json::Value) -> Result<NewVolume, String> {
        serde_json::from_value::<NewVolumeDocument>(document).map_err(|error| error.to_string())?.into_volume()
    }

    #[test]
    fn a_name_is_enough() {
        assert_eq!(new(json!({"name": "www"})), Ok(NewVolume::named("www")));
    }

    #[test]
    fn all_of_a_volume_can_be_said() {
        let made = new(json!({
            "name": "www", "replicas": 2, "chunk_bytes": "256KiB", "quota_bytes": "10GiB", "quota_inodes": 1000,
            "patience_ms": 5000, "access": "rwo", "labels": {"team": "web"}, "owner": {"uid": 33, "gid": 34}, "mode": "2770",
        }));
        let policy = VolumePolicy {
            replicas: 2,
            chunk_bytes: 256 << 10,
            quota_bytes: 10 << 30,
            quota_inodes: 1000,
            patience_ms: 5000,
            access: Access::One,
        };
        let labels = BTreeMap::from([("team".into(), "web".into())]);
        let owner = Owner { uid: 33, gid: 34 };
        assert_eq!(made, Ok(NewVolume { policy, labels, owner, mode: 0o2770, ..NewVolume::named("www") }));
    }

    #[test]
    fn what_cannot_be_is_said_in_a_sentence() {
        for wrong in [
            json!({}),
            json!({"name": "a b"}),
            json!({"name": "www", "quota": 7}),
            json!({"name": "www", "quota_bytes": "much"}),
            json!({"name": "www", "quota_bytes": -1}),
            json!({"name": "www", "mode": "999"}),
            json!({"name": "www", "access": "all"}),
            json!({"name": "www", "replicas": 0}),
        ] {
            assert!(new(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_are_set_and_taken_off() {
        let document = json!({"quota_bytes": "1GiB", "labels": {"a": "b", "c": null}});
        let change = VolumeChange::from(serde_json::from_value::<VolumeChangeDocument>(document).unwrap());
        let labels = BTreeMap::from([("a".into(), Some("b".into())), ("c".into(), None)]);
        assert_eq!(change, VolumeChange { quota_bytes: Some(1 << 30), labels, ..VolumeChange::default() });
    }
}
