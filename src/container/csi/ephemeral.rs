//! Volumes that live as long as a pod: made where it starts, and removed where it has ended.
//!
//! Each has a file in a directory of the driver's before it is made, and until it is removed: so a crash in between leaves none behind.
//! Removing waits for nobody: a cluster that is away is asked again later.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Status;

use super::spec::Map;
use crate::container::options::Wanted;
use crate::host::file::{sync_dir, write_private};
use crate::remote::operator::{Operator, OperatorError};
use crate::types::volume::{Access, NewVolume};

/// What Kubernetes says of such a volume.
const CONTEXT_KEY: &str = "csi.storage.k8s.io/ephemeral";
/// On every such volume: one without it is somebody's, whatever it is called.
const LABEL: &str = "csi.holdfast.dev/ephemeral";
const RESERVED: &str = "csi.storage.k8s.io/";
const RETRY_PERIOD: Duration = Duration::from_secs(30);
const DELETE_PATIENCE: Duration = Duration::from_secs(15);
const DELETE_PAUSE: Duration = Duration::from_millis(200);

/// The ephemeral volumes of this node.
#[derive(Clone)]
pub struct Ephemerals {
    cluster: Operator,
    /// A file for each that is there.
    here: PathBuf,
    /// A file for each that is to go.
    leaving: PathBuf,
}

pub(super) fn is_ephemeral(context: &Map) -> bool {
    context.get(CONTEXT_KEY).is_some_and(|value| value == "true")
}

impl Ephemerals {
    /// Goes on removing what the process before has not.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn start(cluster: Operator, dir: &Path) -> io::Result<Ephemerals> {
        let ephemerals = Ephemerals { cluster, here: dir.join("ephemeral"), leaving: dir.join("leaving") };
        fs::create_dir_all(&ephemerals.here)?;
        fs::create_dir_all(&ephemerals.leaving)?;
        tokio::spawn(ephemerals.clone().remove_all());
        Ok(ephemerals)
    }

    pub(super) fn has(&self, volume: &str) -> bool {
        NewVolume::named(volume).check().is_ok() && self.here.join(volume).exists()
    }

    /// Makes the volume, for one pod; asked again, it is there.
    ///
    /// # Errors
    /// An attribute is not understood, or the cluster refuses.
    pub(super) async fn create(&self, volume: &str, attributes: &Map) -> Result<(), Status> {
        let mut wanted = Wanted::parse(attributes.iter().filter(|(key, _)| !key.starts_with(RESERVED)))?;
        wanted.access.get_or_insert(Access::Container);
        wanted.labels.insert(LABEL.to_string(), "true".to_string());
        if self.leaving.join(volume).exists() {
            return Err(Status::aborted(format!("the volume {volume} of before is still being removed")));
        }
        let new = wanted.volume(volume);
        new.check().map_err(Status::invalid_argument)?;
        write_private(&self.here.join(volume), b"").map_err(|error| Status::internal(error.to_string()))?;
        match self.cluster.create_volume(new).await {
            Ok(_) => Ok(()),
            Err(OperatorError::Exists(_)) if self.is_ephemeral(volume).await? => Ok(()),
            Err(OperatorError::Exists(_)) => {
                let _ = fs::remove_file(self.here.join(volume));
                Err(Status::already_exists(format!(
                    "there is a volume {volume} already, which lives longer than a pod"
                )))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn is_ephemeral(&self, volume: &str) -> Result<bool, OperatorError> {
        Ok(self.cluster.volume(volume).await?.0.labels.contains_key(LABEL))
    }

    /// Nobody has it any more: it goes, now or later.
    ///
    /// # Errors
    /// That cannot be written down.
    pub(super) fn remove(&self, volume: &str) -> io::Result<()> {
        match fs::rename(self.here.join(volume), self.leaving.join(volume)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sync_dir(&self.leaving)?;
        tokio::spawn(self.clone().remove_one(volume.to_string()));
        Ok(())
    }

    async fn remove_one(self, volume: String) {
        let since = Instant::now();
        let deleted = loop {
            match self.delete(&volume).await {
                // Its mount has just ended, and the cluster may not know yet.
                Err(OperatorError::Refused(_)) if since.elapsed() < DELETE_PATIENCE => sleep(DELETE_PAUSE).await,
                deleted => break deleted,
            }
        };
        match deleted {
            Ok(()) | Err(OperatorError::NotFound(_)) => drop(fs::remove_file(self.leaving.join(&volume))),
            Err(error) => tracing::warn!(volume, %error, "an ephemeral volume is not removed yet"),
        }
    }

    async fn delete(&self, volume: &str) -> Result<(), OperatorError> {
        if self.is_ephemeral(volume).await? { self.cluster.delete_volume(volume).await } else { Ok(()) }
    }

    async fn remove_all(self) {
        let mut ticks = tokio::time::interval(RETRY_PERIOD);
        loop {
            ticks.tick().await;
            for entry in fs::read_dir(&self.leaving).into_iter().flatten().flatten() {
                self.clone().remove_one(entry.file_name().to_string_lossy().into_owned()).await;
            }
        }
    }
}
