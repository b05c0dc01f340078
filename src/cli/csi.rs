//! `holdfast csi`: the driver of the Container Storage Interface.
//!
//! With an operator's credential it has the controller, and volumes that live as long as a pod; with a client's only the node.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::args::{CommonArgs, CsiArgs};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::mount::{CREDENTIAL_DEFAULT, host_name};
use crate::cli::settings::{absolute, settings};
use crate::cli::{daemon, dial, of_mounts, operator};
use crate::config::layer::{Flags, Settings};
use crate::config::roles::{CommonConfig, CsiConfig};
use crate::config::value::Label;
use crate::container::csi::ephemeral::Ephemerals;
use crate::container::csi::server::{self, Driver};
use crate::container::csi::spec::Map;
use crate::container::csi::{ControllerService, IdentityService, NodeService, Place, Segments, Services, SpecLevel};
use crate::container::mounter::Mounter;
use crate::crypto::identity::Credential;
use crate::daemon::ready;
use crate::daemon::shutdown::Shutdown;
use crate::keeper::service;
use crate::remote::meta::MetaClient;
use crate::remote::operator::Operator;
use crate::types::record::Role;

/// # Errors
/// The settings or the credential cannot be used, the socket is another's, or the server fails.
pub fn run(common: &CommonArgs, args: CsiArgs) -> Outcome {
    let settings = settings(common, Flags::from(&args))?;
    let (common, config): (CommonConfig, CsiConfig) = (settings.section()?, settings.section()?);
    let services = services(&config.role)?;
    let (file, credential) = credential(&settings, services)?;
    let path = server::path_of(&config.endpoint).map_err(Failure::usage)?;
    let segments = segments(&config)?;
    let place = place(&config, &credential, services, &segments)?;
    daemon::begin(&common)?;
    dial::run_to_end(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals().or_fail(|| "signals cannot be handled".to_string())?;
        let id = credential.identity.id;
        let driver = driver(services, (place, segments), credential, file, &config.mounts_socket).await?;
        let listener = server::listen(&path).await.or_fail(|| format!("the socket {}", path.display()))?;
        ready::announce("csi", id, path.display());
        let served = server::serve(listener, driver, shutdown).await;
        ready::stopping();
        served.or_fail(|| "the socket has failed".to_string())
    })
}

async fn driver(
    services: Services,
    (place, segments): (Place, Segments),
    credential: Credential,
    file: PathBuf,
    mounts_socket: &Path,
) -> Outcome<Driver> {
    let is_operator = credential.identity.role == Role::Admin;
    let Credential { identity, metas } = credential;
    let cluster = Operator::new(Arc::new(MetaClient::new(dial::transport(&identity)?, metas)));
    let identity = IdentityService::new(services, segments.is_known());
    let controller = services
        .has_controller()
        .then(|| ControllerService::new(cluster.clone(), place.level, segments, place.has_block));
    if !services.has_node() {
        return Ok(Driver { identity, controller, node: None });
    }
    let (of_mounts, ephemerals) = match is_operator {
        true => {
            let ephemerals = Ephemerals::start(cluster.clone(), &place.dir);
            let ephemerals = ephemerals.or_fail(|| format!("the directory {}", place.dir.display()))?;
            (of_mounts::credential(&cluster, &place.dir).await?, Some(ephemerals))
        }
        false => (file, None),
    };
    let mounter = mounter(of_mounts, mounts_socket, &place.dir)?;
    Ok(Driver { identity, controller, node: Some(NodeService::new(place, cluster, mounter, ephemerals)) })
}

/// What another process has mounted goes on by the program that came with this one.
fn mounter(credential: PathBuf, socket: &Path, dir: &Path) -> Outcome<Mounter> {
    if socket.as_os_str().is_empty() {
        return Mounter::new(credential, dir).or_fail(|| "this program cannot be found".to_string());
    }
    let socket = absolute(socket)?;
    let asked = socket.clone();
    // Not waited for: who makes mounts may be busy, and volumes are to be had meanwhile.
    tokio::task::spawn_blocking(move || {
        if let Err(error) = service::upgrade(&asked) {
            tracing::warn!(%error, socket = %asked.display(), "nobody makes mounts there yet");
        }
    });
    Ok(Mounter::by_service(socket, credential, dir))
}

fn services(text: &str) -> Outcome<Services> {
    match text {
        "all" => Ok(Services::All),
        "controller" => Ok(Services::Controller),
        "node" => Ok(Services::Node),
        other => Err(Failure::usage(format!("`{other}` are no services: write all, controller or node"))),
    }
}

/// An operator's credential, or for a node alone a client's.
fn credential(settings: &Settings, services: Services) -> Outcome<(PathBuf, Credential)> {
    if services.has_controller() {
        return operator::credential(settings);
    }
    let named = settings.section::<CommonConfig>()?.credential;
    let path = if named.as_os_str().is_empty() { Path::new(CREDENTIAL_DEFAULT) } else { &named };
    let credential = Credential::load(path).or_fail(|| "the credential cannot be used".to_string())?;
    match credential.identity.role {
        Role::Admin | Role::Client => Ok((absolute(path)?, credential)),
        other => Err(Failure::new(format!("{} is the credential of a {other:?}", path.display()))),
    }
}

/// Where a node is, and where a controller's volumes are reached from.
fn segments(config: &CsiConfig) -> Outcome<Segments> {
    let labels = config.topology.iter().map(|segment| segment.parse::<Label>().map_err(Failure::usage));
    let labels = labels.collect::<Outcome<Vec<Label>>>()?;
    let segments = Segments::of(labels.into_iter().map(|label| (label.key, label.value)));
    segments.map_err(Failure::usage)
}

fn place(config: &CsiConfig, credential: &Credential, services: Services, segments: &Segments) -> Outcome<Place> {
    let level = match config.spec_level.as_str() {
        "1.12" => SpecLevel::V1_12,
        "1.13" => SpecLevel::V1_13,
        other => return Err(Failure::usage(format!("`{other}` is no level of the specification: write 1.12 or 1.13"))),
    };
    let topology = match services.has_node() {
        true => segments.of_one_node().map_err(Failure::usage)?,
        false => Map::new(),
    };
    let node_id = if config.node_id.is_empty() { host_name() } else { config.node_id.clone() };
    Ok(Place {
        node_id,
        dir: absolute(&config.dir)?,
        topology,
        level,
        has_block: config.raw_block,
        metas: credential.metas.clone(),
        patience: config.patience.0,
    })
}
