//! The driver that is asked, and what cases have in common.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use holdfast::container::csi::spec::volume_capability::{AccessMode, AccessType, MountVolume};
use holdfast::container::csi::spec::*;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub type Outcome<T = ()> = Result<T, String>;
type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

pub struct Case {
    pub name: &'static str,
    pub run: for<'a> fn(&'a mut World) -> Running<'a>,
}

/// `cases! { "what holds #published" => async |world| { … } … }`
macro_rules! cases {
    ($($name:literal => |$world:ident| $body:block)+) => {
        pub fn cases() -> Vec<crate::world::Case> {
            vec![$(crate::world::Case {
                name: $name,
                run: |$world| Box::pin(async move { $body; #[allow(unreachable_code)] Ok(()) }),
            }),+]
        }
    };
}
pub(crate) use cases;

/// # Errors
/// It does not hold.
macro_rules! ensure {
    ($condition:expr, $($said:tt)+) => {
        if !$condition {
            return Err(format!($($said)+));
        }
    };
}
pub(crate) use ensure;

pub const GIB: i64 = 1 << 30;

pub struct World {
    pub identity: IdentityClient<Channel>,
    pub controller: ControllerClient<Channel>,
    pub groups: GroupControllerClient<Channel>,
    pub node: NodeClient<Channel>,
    /// A client's credential file, whole.
    pub credential: String,
    dir: PathBuf,
    made: Vec<String>,
    staged: Vec<(String, PathBuf)>,
    published: Vec<(String, PathBuf)>,
    count: u32,
}

impl World {
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(socket: &Path, dir: &Path, credential: Option<&Path>) -> Outcome<World> {
        let credential = credential.map(fs::read_to_string).transpose().map_err(|error| error.to_string())?;
        let endpoint = Endpoint::try_from(format!("unix:{}", socket.display())).map_err(|error| error.to_string())?;
        let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
        Ok(World {
            identity: IdentityClient::new(channel.clone()),
            controller: ControllerClient::new(channel.clone()),
            groups: GroupControllerClient::new(channel.clone()),
            node: NodeClient::new(channel),
            credential: credential.unwrap_or_default(),
            dir: dir.to_path_buf(),
            made: Vec::new(),
            staged: Vec::new(),
            published: Vec::new(),
            count: 0,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A name that no case has had.
    pub fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("csi-case-{what}-{}-{}", std::process::id(), self.count)
    }

    pub fn path(&mut self, what: &str) -> PathBuf {
        let name = self.name(what);
        self.dir.join(name)
    }

    /// A volume, which is removed after the case.
    pub async fn create(&mut self, request: CreateVolumeRequest) -> Result<Volume, Status> {
        let volume = self.controller.create_volume(request).await?.volume.unwrap_or_default();
        self.made.push(volume.volume_id.clone());
        Ok(volume)
    }

    /// A volume of 1 GiB for many.
    pub async fn volume(&mut self) -> Outcome<String> {
        let name = self.name("volume");
        let volume = self.create(wanted(&name)).await.map_err(|status| format!("create: {status}"))?;
        Ok(volume.volume_id)
    }

    /// Staged; unstaged after the case.
    pub async fn stage(&mut self, request: NodeStageVolumeRequest) -> Result<(), Status> {
        let path = PathBuf::from(&request.staging_target_path);
        let _ = fs::create_dir_all(&path);
        self.staged.push((request.volume_id.clone(), path));
        self.node.node_stage_volume(request).await.map(drop)
    }

    /// Published; unpublished after the case.
    pub async fn publish(&mut self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.published.push((request.volume_id.clone(), PathBuf::from(&request.target_path)));
        self.node.node_publish_volume(request).await.map(drop)
    }

    /// Undoes what a case has done.
    ///
    /// # Errors
    /// That did not work.
    pub async fn tidy(&mut self) -> Outcome {
        let mut outcome = Ok(());
        for (volume_id, path) in self.published.drain(..).rev() {
            let request = NodeUnpublishVolumeRequest { volume_id, target_path: text(&path) };
            outcome = outcome
                .and(self.node.node_unpublish_volume(request).await.map(drop).map_err(|s| format!("unpublish: {s}")));
        }
        for (volume_id, path) in self.staged.drain(..).rev() {
            let request = NodeUnstageVolumeRequest { volume_id, staging_target_path: text(&path) };
            outcome = outcome
                .and(self.node.node_unstage_volume(request).await.map(drop).map_err(|s| format!("unstage: {s}")));
            let _ = fs::remove_dir(&path);
        }
        for volume_id in self.made.drain(..) {
            let request = DeleteVolumeRequest { volume_id, ..DeleteVolumeRequest::default() };
            outcome =
                outcome.and(self.controller.delete_volume(request).await.map(drop).map_err(|s| format!("delete: {s}")));
        }
        outcome
    }
}

/// # Errors
/// It was answered otherwise.
pub fn code<T: Debug>(wanted: Code, answer: Result<T, Status>) -> Outcome {
    match answer {
        Err(status) if status.code() == wanted && status.details().is_empty() && !status.message().is_empty() => Ok(()),
        Err(status) => Err(format!("{wanted:?} was wanted, and not {status:?}")),
        Ok(answer) => Err(format!("{wanted:?} was wanted, and not {answer:?}")),
    }
}

/// # Errors
/// The call failed.
pub fn good<T>(answer: Result<T, Status>) -> Outcome<T> {
    answer.map_err(|status| format!("{:?}: {}", status.code(), status.message()))
}

pub fn text(path: &Path) -> String {
    path.display().to_string()
}

pub fn map(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<BTreeMap<_, _>>()
}

pub fn capability(mode: AccessModeKind) -> VolumeCapability {
    let access_type = Some(AccessType::Mount(MountVolume::default()));
    VolumeCapability { access_type, access_mode: Some(AccessMode { mode: mode.into() }) }
}

/// For a group, as a pod with an fsGroup asks.
pub fn capability_of_group(group: &str) -> VolumeCapability {
    let mount = MountVolume { volume_mount_group: group.into(), ..MountVolume::default() };
    VolumeCapability { access_type: Some(AccessType::Mount(mount)), ..many() }
}

pub fn many() -> VolumeCapability {
    capability(AccessModeKind::MultiNodeMultiWriter)
}

pub fn range(required_bytes: i64) -> Option<CapacityRange> {
    Some(CapacityRange { required_bytes, limit_bytes: 0 })
}

pub fn wanted(name: &str) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.into(),
        capacity_range: range(GIB),
        volume_capabilities: vec![many()],
        ..CreateVolumeRequest::default()
    }
}

pub fn staging(volume: &str, path: &Path) -> NodeStageVolumeRequest {
    NodeStageVolumeRequest {
        volume_id: volume.into(),
        staging_target_path: text(path),
        volume_capability: Some(many()),
        ..NodeStageVolumeRequest::default()
    }
}

pub fn publishing(volume: &str, staged: &Path, target: &Path) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_id: volume.into(),
        staging_target_path: text(staged),
        target_path: text(target),
        volume_capability: Some(many()),
        ..NodePublishVolumeRequest::default()
    }
}
