//! What the store's tests share.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::kv::{KvError, SharedKv};
use crate::net::{BoxFuture, Call, Frame, NetError, Peer, Replier, Service, Transport};
use crate::types::digest::ChunkId;
use crate::types::id::{ClusterId, StoreId};
use crate::types::record::Role;

use super::disk::OpenIndex;
use super::serve::StoreService;
use super::{Store, StoreConfig, StoreParts};
use crate::pack::format::CheckedChunk;

/// An index that lives as long as somebody holds it: a restart has lost it.
pub use crate::kv::memory::MemoryKv;

/// Indexes that outlive the stores of one test, by directory; gone when the directory is.
pub fn kept_indexes() -> OpenIndex {
    let kept: Mutex<BTreeMap<std::path::PathBuf, SharedKv>> = Mutex::default();
    Arc::new(move |path: &Path| {
        let marker = path.join("here");
        let mut kept = kept.lock();
        if !marker.exists() {
            kept.remove(path);
            File::create(&marker).map_err(|error| KvError(error.to_string()))?;
        }
        let kv = kept.entry(path.to_owned()).or_insert_with(|| Arc::new(MemoryKv::default()));
        Ok(Arc::clone(kv))
    })
}

/// No index survives a restart.
pub fn lost_indexes() -> OpenIndex {
    Arc::new(|_: &Path| Ok(Arc::new(MemoryKv::default()) as SharedKv))
}

pub fn config(store: u64, disks: &[&Path]) -> StoreConfig {
    StoreConfig {
        cluster: ClusterId([7; 16]),
        store: StoreId(store),
        address: format!("store{store}"),
        host: String::new(),
        zone: String::new(),
        disks: disks.iter().map(|path| path.to_path_buf()).collect(),
        index_dir: None,
        pack_bytes: 1 << 20,
        reserve_bytes: Some(0),
    }
}

/// Without waiting for the device: what these tests look at is in the page cache.
pub fn parts(open_index: OpenIndex) -> StoreParts {
    StoreParts { open_index, sync: Arc::new(|_| Ok(())) }
}

pub fn open(dir: &Path, open_index: &OpenIndex) -> Store {
    Store::open(config(1, &[dir]), &parts(Arc::clone(open_index))).unwrap()
}

/// `len` bytes that nobody else has.
pub fn bytes(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

pub fn chunk(seed: u64, len: usize) -> CheckedChunk {
    let bytes = bytes(seed, len);
    CheckedChunk::check(ChunkId::of(&bytes), bytes).unwrap()
}

/// Calls between stores of one process.
#[derive(Default)]
pub struct Mesh {
    services: Mutex<BTreeMap<String, Arc<dyn Service>>>,
    calls: AtomicU64,
}

impl Mesh {
    pub fn join(&self, store: &Arc<Store>) {
        let service = Arc::new(StoreService::new(Arc::clone(store)));
        self.services.lock().insert(store.config().address.clone(), service);
    }

    pub fn leave(&self, address: &str) {
        self.services.lock().remove(address);
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Transport for Mesh {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
        _deadline: Duration,
    ) -> BoxFuture<'a, Result<Frame, NetError>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let gone = |why: &str| NetError::Unreachable { address: address.to_owned(), why: why.to_owned() };
        let service = self.services.lock().get(address).map(Arc::clone);
        Box::pin(async move {
            let service = service.ok_or_else(|| gone("not in the mesh"))?;
            let (frames, mut answers) = mpsc::channel(1);
            let peer = Some(Peer::new(Role::Store, 0));
            tokio::spawn(service.serve(Call { peer, request, replier: Replier::new(frames) }));
            answers.recv().await.ok_or_else(|| gone("no answer"))
        })
    }

    fn subscribe<'a>(
        &'a self,
        _address: &'a str,
        _request: Frame,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Frame>, NetError>> {
        unreachable!("stores have no streams")
    }
}
