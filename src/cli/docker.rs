//! `holdfast docker`: the volume plugin of this host's Docker engine.

use std::sync::Arc;

use crate::cli::args::{CommonArgs, DockerArgs};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::settings::{absolute, settings};
use crate::cli::{daemon, dial, of_mounts, operator};
use crate::config::layer::Flags;
use crate::config::roles::{CommonConfig, DockerConfig};
use crate::container::docker::calls::Calls;
use crate::container::docker::driver::Driver;
use crate::container::docker::server;
use crate::container::docker::socket::PluginSocket;
use crate::container::mounter::Mounter;
use crate::crypto::identity::Credential;
use crate::daemon::ready;
use crate::daemon::shutdown::Shutdown;
use crate::keeper::manager::Manager;
use crate::remote::meta::MetaClient;
use crate::remote::operator::Operator;

/// # Errors
/// The settings or the credential cannot be used, the directory or the socket is another's, or the server fails.
pub fn run(common: &CommonArgs, args: DockerArgs) -> Outcome {
    let settings = settings(common, Flags::from(&args))?;
    let (common, config): (CommonConfig, DockerConfig) = (settings.section()?, settings.section()?);
    let (_, credential) = operator::credential(&settings)?;
    let (dir, path) = (absolute(&config.dir)?, absolute(&config.socket)?);
    let mut socket = PluginSocket::open(&path).or_fail(|| format!("the socket {}", path.display()))?;
    daemon::begin(&common)?;
    dial::run_to_end(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals().or_fail(|| "signals cannot be handled".to_string())?;
        let Credential { identity, metas } = credential;
        let meta = Arc::new(MetaClient::new(dial::transport(&identity)?, metas.clone()));
        let cluster = Operator::new(meta);
        let of_mounts = of_mounts::credential(&cluster, &dir).await?;
        let mounter = Mounter::new(of_mounts, &dir).or_fail(|| "this program cannot be found".to_string())?;
        let driver = Driver::start(cluster, metas, mounter, &dir, config.forget.0).map_err(Failure::new)?;
        let listener = socket.listener().or_fail(|| "the socket cannot be used".to_string())?;
        let calls = Calls::new(listener, socket.left(), Manager::find());
        ready::announce("docker", identity.id, socket.name());
        let served = server::serve(calls, driver, shutdown).await;
        ready::stopping();
        served.or_fail(|| "the socket has failed".to_string())
    })
}
