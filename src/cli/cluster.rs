//! `holdfast cluster init`: the authority, the first metadata server's directory, the operator's credential.

use std::path::{Path, PathBuf};

use crate::cli::args::{ClusterArgs, ClusterCommand, CommonArgs};
use crate::cli::dial::Joined;
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::member::{self, Addresses, Member};
use crate::cli::out::print;
use crate::cli::settings::{absolute, settings};
use crate::config::layer::Flags;
use crate::config::roles::MetaConfig;
use crate::crypto::ca::ClusterAuthority;
use crate::crypto::identity::{Credential, Identity};
use crate::host::chance;
use crate::host::data_dir::DataDir;
use crate::types::id::ClusterId;
use crate::types::record::Role;

pub const ADMIN_CREDENTIAL_FILE: &str = "admin.credential";
/// The first metadata server.
const FIRST_META: u64 = 1;
/// The operator who makes the cluster: a number that no token gives.
const FOUNDER: u64 = 0;

/// A cluster that was just made.
pub struct NewCluster {
    pub id: ClusterId,
    pub admin: Credential,
    pub first_meta: Member,
}

/// # Errors
/// The directory is not empty or cannot be written, or an address cannot be used.
pub fn run(common: &CommonArgs, args: ClusterArgs) -> Outcome {
    let ClusterCommand::Init(args) = args.command;
    let config: MetaConfig = settings(common, Flags::from(&args))?.section()?;
    let dir = absolute(&config.dir)?;
    let addresses = addresses(&config)?;
    let cluster = create(chance::cluster_id(), &dir, addresses)?;
    let credential = dir.join(ADMIN_CREDENTIAL_FILE);
    cluster.admin.save(&credential).map_err(Failure::new)?;
    print(next_steps(&cluster, &dir, &credential))
}

/// Makes the cluster `id` with one metadata server in `dir`.
///
/// # Errors
/// The directory is not empty or cannot be written, or the host cannot make keys.
pub fn create(id: ClusterId, dir: &Path, addresses: Addresses) -> Outcome<NewCluster> {
    if !DataDir::is_vacant(dir).map_err(Failure::new)? {
        return Err(Failure::new(format!("{} is a Holdfast directory already", dir.display())));
    }
    member::check_room(dir)?;
    let making = || "the cluster's keys cannot be made".to_string();
    let authority = ClusterAuthority::create(id).or_fail(making)?;
    let metas = vec![addresses.advertise.clone()];
    let issue = |role, id| Identity::issue(&authority, role, id).or_fail(making);
    let admin = Credential { identity: issue(Role::Admin, FOUNDER)?, metas: metas.clone() };
    let joined = Joined {
        credential: Credential { identity: issue(Role::Meta, FIRST_META)?, metas },
        ca_key: Some(authority.ca_key_der().to_vec()),
    };
    let first_meta = member::create(dir, &joined, addresses)?;
    Ok(NewCluster { id, admin, first_meta })
}

/// The operator's credential once more, by the authority that the metadata server of a directory keeps: for who made the cluster and was
/// ended before it was put anywhere.
///
/// # Errors
/// It is no directory of a metadata server.
pub fn admin_again(dir: &Path) -> Outcome<Credential> {
    let (authority, server) = member::authority_of(dir)?;
    let making = || "the operator's key cannot be made".to_string();
    Ok(Credential { identity: Identity::issue(&authority, Role::Admin, FOUNDER).or_fail(making)?, metas: server.metas })
}

fn addresses(config: &MetaConfig) -> Outcome<Addresses> {
    let request = member::Request {
        role: Role::Meta,
        dir: PathBuf::new(),
        listen: &config.listen,
        advertise: &config.advertise,
        token: None,
    };
    let addresses = request.addresses()?;
    member::check_listen(&addresses.listen)?;
    Ok(addresses)
}

fn next_steps(cluster: &NewCluster, dir: &Path, credential: &Path) -> String {
    let (dir, credential) = (dir.display(), credential.display());
    format!(
        "cluster {} made\n\
         \n\
         start its first metadata server:   holdfast meta --dir {dir}\n\
         then let others join, with tokens: holdfast token create --role store --credential {credential} > TOKEN\n\
         \x20                                  holdfast store --dir DIR --disk DISK --listen ADDR --token-file TOKEN\n\
         look around:                       holdfast status --credential {credential}\n\
         \n\
         {credential} is the operator's key to everything; without --credential it is looked for in\n\
         /etc/holdfast/admin.credential.\n",
        cluster.id
    )
}
