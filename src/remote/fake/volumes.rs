//! The volumes of a cluster, as an operator asks for them.

use super::*;
use crate::types::volume::VolumeUsage;

/// By their names. It outlives who asks.
pub struct FakeVolumes {
    volumes: Mutex<BTreeMap<String, Volume>>,
    is_mounted: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl FakeVolumes {
    /// One that is mounted is not removed.
    pub fn new(is_mounted: impl Fn(&str) -> bool + Send + Sync + 'static) -> Arc<FakeVolumes> {
        Arc::new(FakeVolumes { volumes: Mutex::default(), is_mounted: Box::new(is_mounted) })
    }

    pub fn names(&self) -> Vec<String> {
        self.volumes.lock().keys().cloned().collect()
    }

    fn answer(&self, request: MetaRequest) -> MetaBody {
        let mut volumes = self.volumes.lock();
        let one = |volume: &Volume| (volume.clone(), VolumeUsage::default());
        let missing = MetaBody::Error(FsError::NotFound);
        match request {
            MetaRequest::CreateVolume(new) if volumes.contains_key(&new.name) => MetaBody::Error(FsError::Exists),
            MetaRequest::CreateVolume(new) => {
                let (id, tree) = (VolumeId(volumes.len() as u64 + 1), TreeId(volumes.len() as u64 + 1));
                let volume = Volume { id, name: new.name.clone(), tree, policy: new.policy, labels: new.labels };
                volumes.insert(new.name, volume.clone());
                MetaBody::Volume(volume, VolumeUsage::default())
            }
            MetaRequest::ShowVolume { name } => {
                volumes.get(&name).map(one).map_or(missing, |(volume, usage)| MetaBody::Volume(volume, usage))
            }
            MetaRequest::ListVolumes => MetaBody::Volumes(volumes.values().map(one).collect()),
            MetaRequest::DeleteVolume { name } if (self.is_mounted)(&name) => {
                MetaBody::Refused(format!("volume {name} is mounted"))
            }
            MetaRequest::DeleteVolume { name } => volumes.remove(&name).map_or(missing, |_| MetaBody::Done),
            other => panic!("{other:?} is not about volumes"),
        }
    }
}

/// The way to them of one process. `step` comes before a request is acted upon, and before its answer arrives.
pub struct VolumesNet<S> {
    pub volumes: Arc<FakeVolumes>,
    pub step: S,
}

impl<S: Fn() -> BoxFuture<'static, ()> + Send + Sync> Transport for VolumesNet<S> {
    fn call<'a>(
        &'a self,
        _address: &'a str,
        request: Frame,
        _deadline: Duration,
    ) -> BoxFuture<'a, Result<Frame, NetError>> {
        Box::pin(async move {
            (self.step)().await;
            let body = self.volumes.answer(decode(&request.message).unwrap());
            (self.step)().await;
            let reply = MetaReply { body, granted: Vec::new() };
            Ok(Frame { kind: KIND_META, message: encode(&reply).into(), bulk: Default::default() })
        })
    }

    fn subscribe<'a>(
        &'a self,
        address: &'a str,
        _request: Frame,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Frame>, NetError>> {
        Box::pin(async move { Err(NetError::Unreachable { address: address.into(), why: "no stream here".into() }) })
    }
}
