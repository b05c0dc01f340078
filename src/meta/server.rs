//! One metadata server: its index, its place in the Raft group, its service and its workers.
//!
//! Start: the index is opened, or thrown away and made anew when it does not open; Raft brings it up to the log; the
//! service answers; the workers begin. Stop is the reverse.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::command::Command;
use super::raft::node::{ProposeError, RaftConfig, RaftError, RaftNode};
use super::serve::{MetaService, Shared};
use super::state::State;
use super::strays::Strays;
use super::waiting::Waiting;
use super::workers;
use crate::crypto::ca::ClusterAuthority;
use crate::daemon::shutdown::Shutdown;
use crate::daemon::worker::Workers;
use crate::kv::sled::{Sizes, SledKv};
use crate::kv::{KvError, SharedKv};
use crate::net::{Service, Transport};
use crate::types::record::MetaInfo;

/// How long the workers may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// A file of this name beside the index says that it holds what cannot be.
const DAMAGED_MARK: &str = "index.damaged";
/// As much of an index as a million inodes take.
pub const CACHE_BYTES_DEFAULT: u64 = 512 << 20;
/// How long a new cluster may take to elect its one member.
const BOOTSTRAP_TRIES: u32 = 200;

pub struct MetaConfig {
    /// The data directory (locked by the caller): `log`, `snapshots` and `index` are made in it.
    pub dir: PathBuf,
    pub me: MetaInfo,
    /// What the index may keep in memory of what was read and written.
    pub cache_bytes: u64,
    /// This is the first server of a new cluster: it begins the Raft group. Harmless when that has happened already.
    pub first: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error("the metadata index cannot be made: {0}")]
    Index(#[from] KvError),
    #[error("the metadata index cannot be thrown away: {0}")]
    Destroy(#[from] std::io::Error),
    #[error(transparent)]
    Raft(#[from] RaftError),
    #[error("the cluster could not be begun: {0}")]
    Begin(String),
}

pub struct MetaServer {
    pub(super) shared: Arc<Shared>,
    workers: Workers,
    damaged_mark: PathBuf,
}

impl MetaServer {
    /// Starts everything but the network endpoint: the caller lets [`MetaServer::service`] serve it.
    ///
    /// # Errors
    /// The log is damaged or unreadable, or the disk failed. A damaged index is not an error: it is rebuilt.
    pub async fn start(
        config: MetaConfig,
        authority: ClusterAuthority,
        transport: Arc<dyn Transport>,
    ) -> Result<MetaServer, MetaError> {
        let state = Arc::new(State::new(open_index(&config)?));
        let raft_config = RaftConfig::new(config.dir.clone(), config.me.clone());
        let raft = RaftNode::start(raft_config, Arc::clone(&state) as _, transport).await?;
        let shared = Arc::new(Shared {
            cluster: authority.cluster(),
            me: config.me.clone(),
            raft,
            state,
            authority,
            waiting: Waiting::default(),
            strays: Strays::default(),
            leader: watch::Sender::new(None),
            room: watch::Sender::default(),
        });
        let workers = Workers::new(Shutdown::new());
        let damaged_mark = config.dir.join(DAMAGED_MARK);
        workers::start(&shared, &workers, config.dir);
        let server = MetaServer { shared, workers, damaged_mark };
        if config.first {
            server.begin(config.me).await?;
        }
        Ok(server)
    }

    /// What answers calls to this server.
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::new(MetaService { shared: Arc::clone(&self.shared) })
    }

    /// This server leads and is ready to.
    pub fn leads(&self) -> bool {
        self.shared.leader.borrow().is_some()
    }

    /// Returns when this server has failed, with the reason: stop it and start it again. An index found damaged is
    /// marked, and rebuilt by the next start.
    pub async fn failed(&self) -> String {
        // An index that fails while something is read would have nothing applied for as long as nobody can ask for a change.
        let why = tokio::select! {
            why = self.shared.raft.stopped() => why,
            () = self.shared.state.fails() => "the metadata index has failed".to_string(),
        };
        if self.shared.state.damaged()
            && let Err(error) = std::fs::write(&self.damaged_mark, b"")
        {
            tracing::error!(%error, "the damaged index could not be marked");
        }
        why
    }

    pub async fn stop(self) {
        // Another server leads at once, and not only when this one is missed.
        self.shared.raft.resign().await;
        self.workers.stop(STOP_PATIENCE).await;
        self.shared.raft.stop().await;
    }

    /// Begins the Raft group with this server alone, and makes it known in the state.
    async fn begin(&self, me: MetaInfo) -> Result<(), MetaError> {
        self.shared.raft.bootstrap().await.map_err(|error| MetaError::Begin(error.to_string()))?;
        let known = |info: &MetaInfo| *info == me;
        if self.shared.state.view(|view| view.metas()).is_ok_and(|metas| metas.iter().any(known)) {
            return Ok(());
        }
        let command = Command::AddMeta { info: me.clone() }.encode();
        for _ in 0..BOOTSTRAP_TRIES {
            match self.shared.raft.propose(command.clone()).await {
                Ok(_) => return Ok(()),
                // A group that has grown knows its first member already, and somebody else may lead it.
                Err(ProposeError::NotLeader(Some(leader))) if leader.id != me.id => return Ok(()),
                Err(ProposeError::Stopped) => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        Err(MetaError::Begin("no leader was elected".into()))
    }
}

/// Opens the index, or begins an empty one when it does not open: Raft refills it from snapshot and log.
fn open_index(config: &MetaConfig) -> Result<SharedKv, MetaError> {
    let (dir, damaged_mark) = (&config.dir.join("index"), &config.dir.join(DAMAGED_MARK));
    let cache_bytes = usize::try_from(config.cache_bytes).unwrap_or(usize::MAX);
    let sizes = Sizes { cache_bytes, ..Sizes::default() };
    if damaged_mark.exists() {
        tracing::warn!(dir = %dir.display(), "the metadata index was found damaged; it is rebuilt from the log");
        SledKv::destroy(dir)?;
        std::fs::remove_file(damaged_mark)?;
    }
    match SledKv::open_with(dir, sizes) {
        Ok(index) => Ok(Arc::new(index)),
        Err(error) => {
            tracing::warn!(%error, dir = %dir.display(), "the metadata index does not open; it is rebuilt from the log");
            SledKv::destroy(dir)?;
            Ok(Arc::new(SledKv::open_with(dir, sizes)?))
        }
    }
}
