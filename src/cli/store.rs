//! `holdfast store`: one store, with its disks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::cli::args::{CommonArgs, StoreArgs};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::member::{self, Member};
use crate::cli::mount::host_name;
use crate::cli::settings::{absolute, settings, token};
use crate::cli::{daemon, dial};
use crate::config::layer::Flags;
use crate::config::roles::{CommonConfig, StoreConfig};
use crate::daemon::ready;
use crate::daemon::shutdown::Shutdown;
use crate::kv::SharedKv;
use crate::kv::sled::SledKv;
use crate::net::quic::QuicEndpoint;
use crate::net::{BoxFuture, Transport};
use crate::remote::meta::{MetaClient, MetaReply, MetaRequest};
use crate::store::identity::DiskDir;
use crate::store::serve::StoreService;
use crate::store::workers::{MetaLink, WorkerOptions, Workers};
use crate::store::{PACK_BYTES_DEFAULT, Store, StoreConfig as EngineConfig, StoreParts};
use crate::types::error::FsError;
use crate::types::id::StoreId;
use crate::types::record::Role;

/// How long a store tries for an answer of the metadata service before it looks at its own affairs again.
const META_PATIENCE: Duration = Duration::from_secs(10);

/// # Errors
/// The settings, the state directory or a disk cannot be used, the cluster refuses, or the store fails.
pub fn run(common: &CommonArgs, args: StoreArgs) -> Outcome {
    let settings = settings(common, Flags::from(&args))?;
    let (common, config): (CommonConfig, StoreConfig) = (settings.section()?, settings.section()?);
    let disks = check_disks(&config.disks)?;
    let domain = Domain {
        host: if config.host.is_empty() { host_name() } else { config.host.clone() },
        zone: config.zone.clone(),
    };
    let request = member::Request {
        role: Role::Store,
        dir: absolute(&config.dir)?,
        listen: &config.listen,
        advertise: &config.advertise,
        token: token(&common)?.as_deref().map(dial::parse_token).transpose()?,
    };
    daemon::begin(&common)?;
    dial::runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals().or_fail(|| "signals cannot be handled".to_string())?;
        let member = member::open_or_join(request, || check_new(&disks)).await?;
        let store = Running::start(member, disks, domain, shutdown.clone()).await?;
        ready::announce("store", store.id, &store.address);
        shutdown.wait().await;
        ready::stopping();
        store.stop().await;
        Ok(())
    })
}

/// The disks, which must be there: a disk that is not mounted looks like a directory that is missing or empty, and is
/// not to be made anew on the filesystem below it.
///
/// # Errors
/// There is none, or one of them is missing or given twice.
pub fn check_disks(disks: &[PathBuf]) -> Outcome<Vec<PathBuf>> {
    if disks.is_empty() {
        return Err(Failure::usage("a store needs a disk: --disk DIR, once for each"));
    }
    let disks = disks.iter().map(|disk| absolute(disk)).collect::<Outcome<Vec<_>>>()?;
    for (n, disk) in disks.iter().enumerate() {
        if !disk.is_dir() {
            return Err(Failure::new(format!("the disk {} is not a directory", disk.display())));
        }
        if disks[..n].contains(disk) {
            return Err(Failure::usage(format!("the disk {} is given twice", disk.display())));
        }
    }
    Ok(disks)
}

/// Before a token is spent on a store that could not use them.
///
/// # Errors
/// One of them is another store's, or cannot be used.
pub fn check_new(disks: &[PathBuf]) -> Outcome {
    disks.iter().try_for_each(|disk| DiskDir::check_new(disk)).map_err(Failure::new)
}

/// Failure domains of a store.
pub struct Domain {
    pub host: String,
    pub zone: String,
}

/// A store at work.
pub struct Running {
    pub id: u64,
    /// `host:port` that others are told.
    pub address: String,
    store: Arc<Store>,
    workers: Workers,
    serving: JoinHandle<()>,
    shutdown: Shutdown,
    // Locked until everything has stopped.
    member: Member,
}

impl Running {
    /// Opens the disks, serves, and reports to the metadata service; refuses new calls from `shutdown` on.
    ///
    /// # Errors
    /// The address is taken, or a disk cannot be used.
    pub async fn start(member: Member, disks: Vec<PathBuf>, domain: Domain, shutdown: Shutdown) -> Outcome<Running> {
        let identity = &member.credential.identity;
        let endpoint = Arc::new(QuicEndpoint::bind(Some(member.listen), identity).map_err(Failure::new)?);
        let config = EngineConfig {
            cluster: identity.cluster,
            store: StoreId(identity.id),
            address: member.advertise.clone(),
            host: domain.host,
            zone: domain.zone,
            disks,
            index_dir: None,
            pack_bytes: PACK_BYTES_DEFAULT,
            reserve_bytes: None,
        };
        let opening = tokio::task::spawn_blocking(move || {
            Store::open(config, &StoreParts::new(Arc::new(|path| Ok(Arc::new(SledKv::open(path)?) as SharedKv))))
        });
        let store = opening.await.or_fail(|| "the disks could not be opened".to_string())?.map_err(Failure::new)?;
        let store = Arc::new(store);
        let transport: Arc<dyn Transport> = endpoint.clone();
        let link = Link(MetaClient::new(transport.clone(), member.credential.metas.clone()));
        let workers = Workers::start(&store, Arc::new(link), transport, WorkerOptions::default());
        let (service, token) = (Arc::new(StoreService::new(Arc::clone(&store))), shutdown.clone());
        let serving = tokio::spawn(async move { endpoint.serve(service, token).await });
        let (id, address) = (identity.id, member.advertise.clone());
        Ok(Running { id, address, store, workers, serving, shutdown, member })
    }

    /// Stops to serve, then to work, and leaves clean disks.
    pub async fn stop(self) {
        self.shutdown.trigger();
        // These tasks end with the token; a panic in one has ended the process.
        let _ = self.serving.await;
        self.workers.stop().await;
        let store = self.store;
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
        drop(self.member);
    }
}

/// The store's line to the metadata service.
struct Link(MetaClient);

impl MetaLink for Link {
    fn call(&self, request: MetaRequest) -> BoxFuture<'_, Result<MetaReply, FsError>> {
        Box::pin(async move {
            let answered = self.0.call(&request, Some(META_PATIENCE)).await;
            answered.map(|answered| answered.reply).map_err(|error| {
                tracing::warn!(%error, "the metadata service was not reached");
                FsError::Unreachable
            })
        })
    }
}
