//! `holdfast bootstrap`: a cluster that makes itself, where nobody is there to carry tokens from host to host.
//!
//! Run before each server, again and again: what is made already stays. The first metadata server finds the vault empty and makes the
//! cluster; the others, and stores, find the operator's credential there, make a token with it and spend it at once. No secret is printed or
//! stands on a command line. A server that has lost its disk joins anew and never makes a second cluster.
//!
//! Where nothing can be run before a server (Compose, Swarm), this is what its container starts: with `-- COMMAND` it becomes the server
//! when everything is made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::args::{
    BootstrapArgs, BootstrapClientArgs, BootstrapCommand, BootstrapMetaArgs, BootstrapProgramArgs, BootstrapStoreArgs,
    BootstrapVolumeArgs, ThenArgs, VaultArgs,
};
use crate::cli::cluster::{self, ADMIN_CREDENTIAL_FILE};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::settings::absolute;
use crate::cli::{dial, join, member, store, volume};
use crate::container::vault::Vault;
use crate::crypto::identity::Credential;
use crate::host::chance;
use crate::host::data_dir::DataDir;
use crate::host::file::sync_dir;
use crate::host::mountinfo::is_dead;
use crate::remote::meta::MetaClient;
use crate::remote::operator::{Operator, OperatorError};
use crate::types::record::{ClientGrant, Role};
use crate::types::volume::NewVolume;

/// What a client's credential is called in a vault.
const CLIENT_CREDENTIAL: &str = "client.credential";
/// For what others have to do first.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);
/// It is spent at once.
const TOKEN_TTL_MS: u64 = 60_000;
const PROGRAMS: [&str; 2] = ["holdfast", "holdfast-keeper"];

/// # Errors
/// Something cannot be used, or what others have to do first did not happen in five minutes.
pub fn run(args: BootstrapArgs) -> Outcome {
    match args.command {
        BootstrapCommand::Meta(args) => meta(&args).and_then(|()| then(&args.then)),
        BootstrapCommand::Store(args) => store(&args).and_then(|()| then(&args.then)),
        BootstrapCommand::Client(args) => client(&args).and_then(|()| then(&args.then)),
        BootstrapCommand::Volume(args) => volume(&args).and_then(|()| then(&args.client.then)),
        BootstrapCommand::Program(args) => program(&args),
    }
}

/// Goes on as another program, in this process: who started it has the server itself, for signals and for its end.
fn then(args: &ThenArgs) -> Outcome {
    let Some((program, arguments)) = args.command.split_first() else { return Ok(()) };
    let error = Command::new(program).args(arguments).exec();
    Err(Failure::new(format!("{} cannot be started: {error}", program.display())))
}

fn meta(args: &BootstrapMetaArgs) -> Outcome {
    let (vault, dir) = (vault(&args.vault)?, absolute(&args.dir)?);
    if DataDir::is_vacant(&dir).map_err(Failure::new)? {
        let request = request(Role::Meta, &dir, args.listen.as_str(), args.advertise.as_str());
        // The name of a pod may not be known yet.
        let addresses = wait_for(|| request.addresses().map(Some))?;
        match vault.get(ADMIN_CREDENTIAL_FILE).map_err(Failure::new)? {
            None if args.ordinal == 0 => {
                let made = cluster::create(chance::cluster_id(), &dir, addresses)?;
                made.admin.save(&dir.join(ADMIN_CREDENTIAL_FILE)).map_err(Failure::new)?;
            }
            _ => {
                let admin = wait_for(|| vault.get(ADMIN_CREDENTIAL_FILE).map_err(Failure::new))?;
                join_as(request, &parse(&admin)?, || member::check_room(&dir))?;
            }
        }
    }
    publish(&vault, &dir)?;
    if args.ordinal == 0 && vault.get(ADMIN_CREDENTIAL_FILE).map_err(Failure::new)?.is_none() {
        // It was ended between making the cluster and keeping its credential.
        vault.put(ADMIN_CREDENTIAL_FILE, &cluster::admin_again(&dir)?.to_text(), None).map_err(Failure::new)?;
    }
    refresh(&vault, ADMIN_CREDENTIAL_FILE)
}

/// The operator's credential, from where the cluster was made to where the others find it.
fn publish(vault: &Vault, dir: &Path) -> Outcome {
    let file = dir.join(ADMIN_CREDENTIAL_FILE);
    let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
    if vault.get(ADMIN_CREDENTIAL_FILE).map_err(Failure::new)?.is_none() {
        vault.put(ADMIN_CREDENTIAL_FILE, &text, None).map_err(Failure::new)?;
    }
    // Two of one cluster are one too many, and of another cluster it is of no use here.
    if vault.get(ADMIN_CREDENTIAL_FILE).map_err(Failure::new)?.as_deref() == Some(&text) {
        fs::remove_file(&file).or_fail(|| file.display().to_string())?;
    }
    Ok(())
}

fn store(args: &BootstrapStoreArgs) -> Outcome {
    let dir = absolute(&args.dir)?;
    if !DataDir::is_vacant(&dir).map_err(Failure::new)? {
        return Ok(());
    }
    let disks = store::check_disks(&args.disks)?;
    let request = request(Role::Store, &dir, args.listen.as_str(), args.advertise.as_str());
    wait_for(|| request.addresses().map(Some))?;
    join_as(request, &credential(&args.credential)?, || store::check_new(&disks))
}

fn client(args: &BootstrapClientArgs) -> Outcome {
    let vault = vault(&args.vault)?;
    if vault.get(CLIENT_CREDENTIAL).map_err(Failure::new)?.is_none() {
        let admin = credential(&args.credential)?;
        let made = dial::small_runtime()?.block_on(async {
            let token = token(&admin, Role::Client).await?;
            join::redeem(&dial::parse_token(&token)?, Role::Client).await
        })?;
        // Somebody else may have been faster; one is as good as another.
        vault.put(CLIENT_CREDENTIAL, &made.to_text(), None).map_err(Failure::new)?;
    }
    refresh(&vault, CLIENT_CREDENTIAL)
}

/// A volume that is there stays as it is.
fn volume(args: &BootstrapVolumeArgs) -> Outcome {
    let wanted = volume::new_volume(&args.volume)?;
    let admin = credential(&args.client.credential)?;
    dial::small_runtime()?.block_on(async {
        let cluster = operator(&admin)?;
        until_it_answers(async || made(&cluster, wanted.clone()).await).await
    })?;
    client(&args.client)?;
    args.mount_point.as_deref().map_or(Ok(()), mount_point)
}

async fn made(cluster: &Operator, wanted: NewVolume) -> Result<(), OperatorError> {
    // Looked for first, so that starting again writes nothing.
    match cluster.volume(&wanted.name).await {
        Err(OperatorError::NotFound(_)) => match cluster.create_volume(wanted).await {
            Err(OperatorError::Exists(_)) => Ok(()),
            made => made.map(drop),
        },
        found => found.map(drop),
    }
}

/// A directory to mount on. What a mount that was killed has left there is the next mount's to take away.
fn mount_point(dir: &Path) -> Outcome {
    if is_dead(dir) {
        return Ok(());
    }
    fs::create_dir_all(dir).or_fail(|| dir.display().to_string())
}

/// This program and its keeper, for mounts that other processes make. What is there already stays: to a mount's keeper a new file is another
/// program.
fn program(args: &BootstrapProgramArgs) -> Outcome {
    let (from, dir) = (std::env::current_exe().or_fail(|| "this program".to_string())?, absolute(&args.dir)?);
    fs::create_dir_all(&dir).or_fail(|| dir.display().to_string())?;
    for name in PROGRAMS {
        let (source, target) = (from.with_file_name(name), dir.join(name));
        let bytes = fs::read(&source).or_fail(|| source.display().to_string())?;
        if fs::read(&target).is_ok_and(|there| there == bytes) {
            continue;
        }
        let temporary = dir.join(format!(".{name}.new"));
        let written = fs::write(&temporary, &bytes)
            .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)))
            .and_then(|()| fs::File::open(&temporary)?.sync_all())
            .and_then(|()| fs::rename(&temporary, &target))
            .and_then(|()| sync_dir(&dir));
        written.or_fail(|| target.display().to_string())?;
    }
    Ok(())
}

fn vault(args: &VaultArgs) -> Outcome<Vault> {
    match (&args.secret, &args.secret_dir) {
        (Some(name), None) => Vault::secret(name).map_err(Failure::new),
        (None, Some(dir)) => Ok(Vault::Dir(absolute(dir)?)),
        _ => Err(Failure::usage("name one place for credentials: --secret NAME or --secret-dir DIR")),
    }
}

fn request<'a>(role: Role, dir: &Path, listen: &'a str, advertise: &'a str) -> member::Request<'a> {
    member::Request { role, dir: dir.to_path_buf(), listen, advertise, token: None }
}

/// Makes the directory of a server that joins; starts none.
fn join_as(mut request: member::Request<'_>, admin: &Credential, check: impl FnOnce() -> Outcome) -> Outcome {
    dial::small_runtime()?.block_on(async {
        let token = token(admin, request.role).await?;
        request.token = Some(dial::parse_token(&token)?);
        member::open_or_join(request, check).await.map(drop)
    })
}

/// One that is asked for until somebody leads the cluster.
async fn token(admin: &Credential, role: Role) -> Outcome<String> {
    let cluster = operator(admin)?;
    until_it_answers(async || cluster.create_token(role, ClientGrant::default(), TOKEN_TTL_MS).await).await
}

fn operator(admin: &Credential) -> Outcome<Operator> {
    Ok(Operator::new(Arc::new(MetaClient::new(dial::transport(&admin.identity)?, admin.metas.clone()))))
}

/// Asks again while the cluster cannot answer, for five minutes; what it refuses it would refuse again.
async fn until_it_answers<T>(mut ask: impl AsyncFnMut() -> Result<T, OperatorError>) -> Outcome<T> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error @ OperatorError::Refused(_)) => return Err(error.into()),
            Err(error) if begun.elapsed() >= PATIENCE => return Err(error.into()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A credential's file, which somebody may still have to write.
fn credential(file: &Path) -> Outcome<Credential> {
    wait_for(|| match fs::read_to_string(file) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(_) => Credential::load(file).map(Some).map_err(Failure::new),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!("{}: {error}", file.display()))),
    })
}

fn parse(text: &str) -> Outcome<Credential> {
    Credential::from_text(text).or_fail(|| "the credential in the vault cannot be used".to_string())
}

/// Has a credential name the metadata servers that there are now: the first was made when there was one.
fn refresh(vault: &Vault, name: &str) -> Outcome {
    let Some(before) = vault.get(name).map_err(Failure::new)? else { return Ok(()) };
    let mut credential = parse(&before)?;
    let fresh = dial::small_runtime()?.block_on(async {
        let meta = MetaClient::new(dial::transport(&credential.identity)?, credential.metas.clone());
        Ok::<_, Failure>(dial::metas_now(&meta).await)
    })?;
    if let Some(metas) = fresh.filter(|metas| *metas != credential.metas) {
        credential.metas = metas;
        // Whoever else has put it knows as much.
        vault.put(name, &credential.to_text(), Some(&before)).map_err(Failure::new)?;
    }
    Ok(())
}

/// Until it is there, or has failed for five minutes.
fn wait_for<T>(mut what: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let begun = Instant::now();
    loop {
        let looked = what();
        match looked {
            Ok(Some(found)) => return Ok(found),
            Err(failure) if begun.elapsed() >= PATIENCE => return Err(failure),
            Ok(None) if begun.elapsed() >= PATIENCE => {
                return Err(Failure::new("the credential that others are to make has not come"));
            }
            _ => thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_whose_credential_was_never_kept_gets_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("meta");
        let addresses = member::Addresses { listen: "127.0.0.1:7400".into(), advertise: "127.0.0.1:7400".into() };
        let made = cluster::create(chance::cluster_id(), &server, addresses).unwrap();
        let again = cluster::admin_again(&server).unwrap();
        let told = |credential: &Credential| {
            let identity = &credential.identity;
            (identity.cluster, identity.role, identity.id, identity.ca_der.clone(), credential.metas.clone())
        };
        assert_eq!(told(&again), told(&made.admin));
        assert!(cluster::admin_again(dir.path()).is_err());
    }

    #[test]
    fn a_mount_point_is_made_and_may_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("mnt/www");
        for _ in 0..2 {
            mount_point(&place).unwrap();
            assert!(place.is_dir());
        }
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(mount_point(&dir.path().join("file")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_is_away_is_asked_again_and_a_refusal_is_an_answer() {
        let mut calls = 0;
        let answer = until_it_answers(async || {
            calls += 1;
            if calls < 3 { Err(OperatorError::Misfit) } else { Ok(calls) }
        });
        assert_eq!(answer.await.unwrap(), 3);
        let mut calls = 0;
        let refused = until_it_answers(async || {
            calls += 1;
            Err::<(), _>(OperatorError::Refused("no".into()))
        });
        assert!(refused.await.is_err());
        assert_eq!(calls, 1);
    }

    #[test]
    fn the_credential_of_a_new_cluster_goes_to_the_vault_once() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::Dir(dir.path().join("vault"));
        let server = dir.path().join("meta");
        fs::create_dir(&server).unwrap();
        publish(&vault, &server).unwrap();
        assert_eq!(vault.get(ADMIN_CREDENTIAL_FILE).unwrap(), None, "there is none");
        fs::write(server.join(ADMIN_CREDENTIAL_FILE), "of this cluster").unwrap();
        publish(&vault, &server).unwrap();
        assert_eq!(vault.get(ADMIN_CREDENTIAL_FILE).unwrap().as_deref(), Some("of this cluster"));
        assert!(!server.join(ADMIN_CREDENTIAL_FILE).exists());
        // One that is there stays, and what it would have replaced is not lost.
        fs::write(server.join(ADMIN_CREDENTIAL_FILE), "of another").unwrap();
        publish(&vault, &server).unwrap();
        assert_eq!(vault.get(ADMIN_CREDENTIAL_FILE).unwrap().as_deref(), Some("of this cluster"));
        assert!(server.join(ADMIN_CREDENTIAL_FILE).exists());
    }
}
