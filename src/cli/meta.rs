//! `holdfast meta`: one metadata server.

use std::sync::Arc;

use crate::cli::args::{CommonArgs, MetaArgs};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::member::{self, Member};
use crate::cli::settings::{absolute, settings, token};
use crate::cli::{daemon, dial};
use crate::config::layer::Flags;
use crate::config::roles::{CommonConfig, MetaConfig};
use crate::daemon::ready;
use crate::daemon::shutdown::Shutdown;
use crate::meta::server::{MetaConfig as ServerConfig, MetaServer};
use crate::net::Transport;
use crate::net::quic::QuicEndpoint;
use crate::types::id::MetaId;
use crate::types::record::{MetaInfo, Role};

/// # Errors
/// The settings or the directory cannot be used, the cluster refuses, or the server fails.
pub fn run(common: &CommonArgs, args: MetaArgs) -> Outcome {
    let settings = settings(common, Flags::from(&args))?;
    let (common, config): (CommonConfig, MetaConfig) = (settings.section()?, settings.section()?);
    let dir = absolute(&config.dir)?;
    let request = member::Request {
        role: Role::Meta,
        dir: dir.clone(),
        listen: &config.listen,
        advertise: &config.advertise,
        token: token(&common)?.as_deref().map(dial::parse_token).transpose()?,
    };
    daemon::begin(&common)?;
    dial::runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals().or_fail(|| "signals cannot be handled".to_string())?;
        let member = member::open_or_join(request, || member::check_room(&dir)).await?;
        let server = Running::start(member, config.cache.0, shutdown.clone()).await?;
        ready::announce("meta", server.id, &server.address);
        let failed = tokio::select! {
            () = shutdown.wait() => None,
            why = server.failed() => Some(why),
        };
        ready::stopping();
        server.stop().await;
        failed.map_or(Ok(()), |why| Err(Failure::new(format!("the metadata server has failed: {why}"))))
    })
}

/// A metadata server at work.
pub struct Running {
    pub id: u64,
    /// `host:port` that others are told.
    pub address: String,
    server: MetaServer,
    serving: tokio::task::JoinHandle<()>,
    shutdown: Shutdown,
    // Locked until everything has stopped.
    member: Member,
}

impl Running {
    /// Starts to serve; ends when [`Running::stop`] is called, and refuses new calls from `shutdown` on.
    ///
    /// # Errors
    /// The address is taken, or the server does not start.
    pub async fn start(member: Member, cache_bytes: u64, shutdown: Shutdown) -> Outcome<Running> {
        let id = member.dir.member();
        let authority = member.authority()?;
        let endpoint = QuicEndpoint::bind(Some(member.listen), &member.credential.identity).map_err(Failure::new)?;
        let endpoint = Arc::new(endpoint);
        let config = ServerConfig {
            dir: member.dir.path().to_path_buf(),
            me: MetaInfo { id: MetaId(id), address: member.advertise.clone() },
            cache_bytes,
            first: id == 1,
        };
        let transport: Arc<dyn Transport> = endpoint.clone();
        let server = MetaServer::start(config, authority, transport).await.map_err(Failure::new)?;
        let (service, token) = (server.service(), shutdown.clone());
        let serving = tokio::spawn(async move { endpoint.serve(service, token).await });
        Ok(Running { id, address: member.advertise.clone(), server, serving, shutdown, member })
    }

    /// Returns when the server has failed, with the reason; it must be stopped then, and started again.
    pub async fn failed(&self) -> String {
        self.server.failed().await
    }

    /// Stops the workers and the log, then the endpoint.
    pub async fn stop(self) {
        self.shutdown.trigger();
        self.server.stop().await;
        // The task ends with the token; a panic in it has ended the process.
        let _ = self.serving.await;
        drop(self.member);
    }
}
