//! A whole cluster in one process over the simulated network: real metadata servers, real stores on real files, real
//! clients; only the wire is memory.

use std::sync::Arc;
use std::time::Duration;

use holdfast::client::{Client, ClientConfig};
use holdfast::crypto::ca::ClusterAuthority;
use holdfast::kv::SharedKv;
use holdfast::kv::memory::MemoryKv;
use holdfast::meta::server::{CACHE_BYTES_DEFAULT, MetaConfig, MetaServer};
use holdfast::net::sim::SimNet;
use holdfast::net::{BoxFuture, Peer};
use holdfast::placement::Table;
use holdfast::remote::meta::{MetaClient, MetaReply, MetaRequest};
use holdfast::remote::store::{StoreClient, StoreClientOptions};
use holdfast::store::serve::StoreService;
use holdfast::store::workers::{MetaLink, WorkerOptions, Workers};
use holdfast::store::{PACK_BYTES_DEFAULT, Store, StoreConfig, StoreParts};
use holdfast::types::error::FsError;
use holdfast::types::id::{ClusterId, MetaId, StoreId};
use holdfast::types::record::{MetaInfo, Role};
use holdfast::types::volume::{NewVolume, VolumePolicy};
use holdfast::wire::meta::MetaBody;
use tempfile::TempDir;
use tokio::sync::watch;

const CLUSTER: ClusterId = ClusterId([3; 16]);
const META: &str = "meta-1:1";
const STORES: u64 = 3;

pub struct Cluster {
    pub net: SimNet,
    meta: MetaServer,
    stores: Vec<(Arc<Store>, Workers)>,
    _dir: TempDir,
}

impl Cluster {
    pub async fn start(seed: u64, chunk_bytes: u32) -> Cluster {
        let dir = tempfile::tempdir().expect("a directory");
        let net = SimNet::new(seed);
        net.set_latency(Duration::ZERO, Duration::from_micros(300));
        let authority = ClusterAuthority::create(CLUSTER).expect("keys");
        let me = MetaInfo { id: MetaId(1), address: META.into() };
        let transport = net.transport(Peer::new(Role::Meta, 1), META);
        let config = MetaConfig { dir: dir.path().join("meta"), me, cache_bytes: CACHE_BYTES_DEFAULT, first: true };
        std::fs::create_dir_all(&config.dir).expect("a directory");
        let meta = MetaServer::start(config, authority, transport).await.expect("a metadata server");
        net.register(META, meta.service());
        let mut stores = Vec::new();
        for id in 1..=STORES {
            stores.push(start_store(&net, dir.path(), id));
        }
        let cluster = Cluster { net, meta, stores, _dir: dir };
        cluster.wait_for_stores().await;
        let policy = VolumePolicy { chunk_bytes, ..VolumePolicy::default() };
        let volume = NewVolume { policy, ..NewVolume::named("main") };
        cluster.admin(MetaRequest::CreateVolume(volume)).await;
        cluster
    }

    /// A client on a host of its own.
    pub async fn client(&self, host: &str) -> Arc<Client> {
        let transport = self.net.transport(Peer::new(Role::Admin, 1), host);
        let meta = Arc::new(MetaClient::new(Arc::clone(&transport), vec![META.into()]));
        let MetaBody::Map(map) = self.admin(MetaRequest::GetMap).await else { panic!("no map") };
        let (_, table) = watch::channel(Arc::new(Table::new(map)));
        let chunks = Arc::new(StoreClient::new(transport, table, StoreClientOptions::default()));
        let client = Client::start(ClientConfig::new("main", host), meta, chunks).await;
        Arc::new(client.expect("a session"))
    }

    pub async fn stop(self) {
        for (_, workers) in self.stores {
            workers.stop().await;
        }
        self.meta.stop().await;
    }

    async fn wait_for_stores(&self) {
        loop {
            if let MetaBody::Map(map) = self.admin(MetaRequest::GetMap).await
                && map.stores.len() as u64 == STORES
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn admin(&self, request: MetaRequest) -> MetaBody {
        let transport = self.net.transport(Peer::new(Role::Admin, 1), "operator");
        let meta = MetaClient::new(transport, vec![META.into()]);
        meta.call(&request, None).await.expect("an answer").reply.body
    }
}

fn start_store(net: &SimNet, dir: &std::path::Path, id: u64) -> (Arc<Store>, Workers) {
    let disk = dir.join(format!("store-{id}"));
    std::fs::create_dir_all(&disk).expect("a directory");
    let address = format!("store-{id}:1");
    let config = StoreConfig {
        cluster: CLUSTER,
        store: StoreId(id),
        address: address.clone(),
        host: format!("host-{id}"),
        zone: String::new(),
        disks: vec![disk],
        index_dir: None,
        pack_bytes: PACK_BYTES_DEFAULT,
        reserve_bytes: None,
    };
    let parts = StoreParts::new(Arc::new(|_| Ok(Arc::new(MemoryKv::new()) as SharedKv)));
    let store = Arc::new(Store::open(config, &parts).expect("a store"));
    net.register(&address, Arc::new(StoreService::new(Arc::clone(&store))));
    let transport = net.transport(Peer::new(Role::Store, id), &address);
    let link = Link(MetaClient::new(Arc::clone(&transport), vec![META.into()]));
    let workers = Workers::start(&store, Arc::new(link), transport, WorkerOptions::default());
    (store, workers)
}

struct Link(MetaClient);

impl MetaLink for Link {
    fn call(&self, request: MetaRequest) -> BoxFuture<'_, Result<MetaReply, FsError>> {
        Box::pin(async move {
            let answered = self.0.call(&request, Some(Duration::from_secs(10))).await;
            answered.map(|answered| answered.reply).map_err(|_| FsError::Unreachable)
        })
    }
}
