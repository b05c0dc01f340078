//! Several stores: copies become complete and whole again.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{get, put};
use crate::pack::format::CheckedChunk;
use crate::placement::Table;
use crate::remote::store::{StoreClient, StoreClientOptions};
use crate::store::Store;
use crate::store::testing::{Mesh, chunk, config, lost_indexes, parts};
use crate::store::workers::WorkerOptions;
use crate::store::workers::catchup::{Catchup, Round};
use crate::types::cluster::ClusterMap;
use crate::types::digest::{SLOTS, Slot};
use crate::types::error::FsError;
use crate::wire::store::StoreError;

pub struct Cluster {
    pub mesh: Arc<Mesh>,
    pub stores: Vec<Arc<Store>>,
    pub dirs: Vec<tempfile::TempDir>,
    map: ClusterMap,
}

impl Cluster {
    pub fn of(stores: u64) -> Cluster {
        let mut cluster =
            Cluster { mesh: Arc::default(), stores: Vec::new(), dirs: Vec::new(), map: ClusterMap::default() };
        (0..stores).for_each(|_| cluster.grow());
        cluster
    }

    fn grow(&mut self) {
        let (id, dir) = (self.stores.len() as u64 + 1, tempfile::tempdir().unwrap());
        let store = Arc::new(Store::open(config(id, &[dir.path()]), &parts(lost_indexes())).unwrap());
        self.mesh.join(&store);
        self.map.stores.push(store.info());
        self.map.epoch += 1;
        self.stores.push(store);
        self.dirs.push(dir);
        self.stores.iter().for_each(|store| store.learn(self.map.clone()));
    }

    fn client(&self) -> StoreClient {
        self.client_with(StoreClientOptions::default())
    }

    pub fn client_with(&self, options: StoreClientOptions) -> StoreClient {
        StoreClient::new(Arc::clone(&self.mesh) as _, self.stores[0].table(), options)
    }

    async fn catch_up(&self, store: usize) -> Round {
        let transport = Arc::clone(&self.mesh) as _;
        let catchup = Catchup::new(Arc::clone(&self.stores[store]), transport, WorkerOptions::default());
        catchup.round(&Table::new(self.map.clone()), true).await
    }

    pub fn close(&self) {
        self.stores.iter().for_each(|store| store.close());
    }
}

fn listed(store: &Store) -> Vec<(crate::types::digest::ChunkId, u64)> {
    (0..SLOTS).flat_map(|slot| store.list(Slot(slot), None, 4096).unwrap()).collect()
}

pub fn flip_in_all_packs(dir: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    for pack in fs::read_dir(dir.join("packs")).unwrap() {
        let file = fs::OpenOptions::new().read(true).write(true).open(pack.unwrap().path()).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
}

#[tokio::test]
async fn an_empty_store_catches_up() {
    let cluster = Cluster::of(3);
    let chunks: Vec<CheckedChunk> = (0..40).map(|seed| chunk(seed, 2000)).collect();
    for (epoch, chunk) in chunks.iter().enumerate() {
        // The third was away.
        put(&cluster.stores[0], chunk, epoch as u64).await.unwrap();
        put(&cluster.stores[1], chunk, epoch as u64).await.unwrap();
    }
    assert_eq!(cluster.catch_up(2).await, Round { fetched: 40, unfinished: 0 });
    assert_eq!(listed(&cluster.stores[2]), listed(&cluster.stores[0]));
    for chunk in &chunks {
        assert_eq!(get(&cluster.stores[2], chunk).as_ref(), Ok(chunk.payload()));
    }
    // Nothing is left to do, and that is seen from the summaries alone.
    let before = cluster.mesh.calls();
    assert_eq!(cluster.catch_up(2).await, Round::default());
    assert_eq!(cluster.mesh.calls() - before, 2 * u64::from(SLOTS));
    cluster.close();
}

#[tokio::test]
async fn a_new_store_takes_over_its_slots() {
    let mut cluster = Cluster::of(3);
    let client = cluster.client();
    let chunks: Vec<CheckedChunk> = (0..40).map(|seed| chunk(seed, 2000)).collect();
    for chunk in &chunks {
        client.put(&[(chunk.id(), chunk.payload().clone())], 1, 3).await.unwrap();
    }
    cluster.grow();
    let table = Table::new(cluster.map.clone());
    let mine = |chunk: &&CheckedChunk| {
        table.replicas_of(&chunk.id(), 3).iter().any(|place| place.store == cluster.stores[3].config().store)
    };
    let due = chunks.iter().filter(mine).count();
    assert!(due > 0);
    // Everything can be read all the while, from whoever has it.
    for chunk in &chunks {
        let len = chunk.payload_bytes();
        assert_eq!(client.get(chunk.id(), 0, len, len).await.as_ref(), Ok(chunk.payload()));
    }
    assert_eq!(cluster.catch_up(3).await, Round { fetched: due as u64, unfinished: 0 });
    assert_eq!(listed(&cluster.stores[3]).len(), due);
    cluster.close();
}

#[tokio::test]
async fn a_damaged_copy_is_fetched_anew() {
    let cluster = Cluster::of(3);
    let chunk = chunk(1, 20_000);
    for store in &cluster.stores {
        put(store, &chunk, 5).await.unwrap();
    }
    flip_in_all_packs(cluster.dirs[0].path(), 4096 + 4096 + 9000);
    // So is one of those that could help.
    flip_in_all_packs(cluster.dirs[1].path(), 4096 + 10);
    assert_eq!(get(&cluster.stores[0], &chunk), Err(StoreError::Damaged));
    assert_eq!(cluster.catch_up(0).await, Round { fetched: 1, unfinished: 0 });
    assert_eq!(get(&cluster.stores[0], &chunk).as_ref(), Ok(chunk.payload()));
    assert_eq!(listed(&cluster.stores[0]), [(chunk.id(), 5)]);
    assert_eq!(get(&cluster.stores[1], &chunk), Err(StoreError::Damaged));
    assert_eq!(cluster.catch_up(1).await, Round { fetched: 1, unfinished: 0 });
    assert_eq!(get(&cluster.stores[1], &chunk).as_ref(), Ok(chunk.payload()));
    cluster.close();
}

#[tokio::test]
async fn what_was_deleted_here_is_not_fetched_back() {
    let cluster = Cluster::of(3);
    let (old, again) = (chunk(1, 3000), chunk(2, 3000));
    for store in &cluster.stores {
        put(store, &old, 1).await.unwrap();
        put(store, &again, 1).await.unwrap();
    }
    cluster.stores[0].delete(&[old.id(), again.id()], 2).await.unwrap();
    put(&cluster.stores[1], &again, 2).await.unwrap();
    put(&cluster.stores[2], &again, 2).await.unwrap();
    cluster.catch_up(0).await;
    assert_eq!(listed(&cluster.stores[0]), [(again.id(), 2)]);
    cluster.close();
}

#[tokio::test]
async fn an_absent_replica_leaves_the_round_unfinished() {
    let cluster = Cluster::of(3);
    put(&cluster.stores[0], &chunk(1, 100), 1).await.unwrap();
    cluster.mesh.leave("store2");
    let round = cluster.catch_up(2).await;
    assert_eq!(round, Round { fetched: 1, unfinished: 1 });
    cluster.close();
}

#[tokio::test]
async fn a_client_survives_the_loss_of_one_store() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let put = |chunk: &CheckedChunk| [(chunk.id(), chunk.payload().clone())];
    let (before, after) = (chunk(1, 200_000), chunk(2, 200_000));
    client.put(&put(&before), 1, 3).await.unwrap();
    cluster.mesh.leave("store1");
    client.put(&put(&after), 1, 3).await.unwrap();
    for chunk in [&before, &after] {
        let whole = client.get(chunk.id(), 0, 200_000, 200_000).await;
        assert_eq!(whole.as_ref(), Ok(chunk.payload()));
        let part = client.get(chunk.id(), 150_000, 100, 200_000).await;
        assert_eq!(part, Ok(chunk.payload().slice(150_000..150_100)));
    }
    cluster.mesh.leave("store2");
    assert_eq!(client.put(&put(&before), 1, 3).await, Err(FsError::Unreachable));
    let nobody = chunk(3, 10);
    assert_eq!(client.get(nobody.id(), 0, 10, 10).await, Err(FsError::Unreachable));
    cluster.mesh.join(&cluster.stores[0]);
    cluster.mesh.join(&cluster.stores[1]);
    assert_eq!(client.get(nobody.id(), 0, 10, 10).await, Err(FsError::ChunkLost(nobody.id())));
    cluster.close();
}
