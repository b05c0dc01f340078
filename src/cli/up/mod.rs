//! `holdfast up`: a whole cluster in this process, and a volume of it mounted.
//!
//! In order: everything is checked, the data directory is locked (or made), what a killed predecessor left mounted is
//! taken away, the process goes to the background if asked to, the cluster starts, the volume is mounted, and that is
//! said. On Ctrl-C or SIGTERM the volume is unmounted first (a busy one is retried, and taken away lazily at the second
//! signal), then the cluster stops. `umount` from outside ends it too.

pub mod embedded;
pub mod place;

use std::fs;
use std::path::Path;

use crate::cli::args::{CommonArgs, UpArgs};
use crate::cli::detach::{Report, Side, detach};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::member;
use crate::cli::mount::{Mounted, Plan, Signals, check_limits};
use crate::cli::mount_helper::format_source;
use crate::cli::mountpoint;
use crate::cli::out::print;
use crate::cli::settings::settings;
use crate::cli::up::embedded::{Embedded, VOLUME};
use crate::cli::up::place::Layout;
use crate::cli::{daemon, dial};
use crate::config::layer::Flags;
use crate::config::roles::{CommonConfig, MountConfig, UpConfig};
use crate::config::value::HostPorts;
use crate::crypto::identity::Credential;
use crate::fuse::options::MountOptions;
use crate::host::chance;
use crate::host::data_dir::DataDir;
use crate::host::mountinfo::is_dead;

/// What goes to the terminal unless told otherwise: people want to see what to do next, not how it works.
const LOG_ON_TERMINAL: &str = "warn,openraft=error";

/// # Errors
/// Something is in the way of it (nothing is changed then), or a part of it fails.
pub fn run(common: &CommonArgs, args: UpArgs) -> Outcome {
    let settings = settings(common, Flags::from(&args))?;
    let config: UpConfig = settings.section()?;
    let (mut common, mount): (CommonConfig, MountConfig) = (settings.section()?, settings.section()?);
    check_limits(&mount)?;
    if !args.detach && settings.is_default("common", "log") {
        common.log = LOG_ON_TERMINAL.to_string();
    }
    let data = place::data_dir(&config)?;
    let known = open_known(&data)?;
    let mountpoint = place::mount_dir(&config)?;
    if mountpoint.starts_with(&data) {
        return Err(Failure::new(format!("the mount point {} is inside the data directory", mountpoint.display())));
    }
    if known.is_none() {
        member::check_room(&data)?;
    }
    let made = prepare_mountpoint(&mountpoint)?;
    let mut dir = match known {
        Some(dir) => dir,
        None => DataDir::create(&data, place::KIND, chance::cluster_id(), 0).map_err(|error| {
            if made {
                let _ = fs::remove_dir(&mountpoint);
            }
            Failure::new(error)
        })?,
    };
    let mut report = Report::foreground();
    if args.detach {
        match detach(&Layout(&data).log())? {
            Side::Parent(text) => {
                dir.leave_to_child();
                return print(text);
            }
            Side::Child(child) => report = child,
        }
        dir.sign().or_fail(|| data.display().to_string())?;
    }
    let outcome = work(&common, mount, &dir, &mountpoint, &mut report);
    if let Err(failure) = &outcome {
        report.failed(failure);
    }
    outcome
}

/// The data directory, locked, if there is one; another `up` that holds it is met here, before its mount is.
fn open_known(data: &Path) -> Outcome<Option<DataDir>> {
    match DataDir::is_vacant(data).map_err(Failure::new)? {
        true => Ok(None),
        false => DataDir::open(data, place::KIND, None).map(Some).map_err(Failure::new),
    }
}

/// The mount point, made if it is not there (then `true`); what a killed predecessor left mounted counts as free.
fn prepare_mountpoint(path: &Path) -> Outcome<bool> {
    mountpoint::check_fuse()?;
    let missing = !is_dead(path) && !path.exists();
    if missing {
        fs::create_dir_all(path).or_fail(|| format!("the mount point {} cannot be made", path.display()))?;
    }
    mountpoint::check_free(path)?;
    Ok(missing)
}

fn work(common: &CommonConfig, mount: MountConfig, dir: &DataDir, mountpoint: &Path, report: &mut Report) -> Outcome {
    let data = dir.path();
    daemon::begin(common)?;
    dial::runtime_for_all_roles()?.block_on(async {
        let mut signals = Signals::new()?;
        let cluster = tokio::select! {
            started = Embedded::start(data, dir.cluster()) => started?,
            () = signals.next() => return Err(Failure::new("interrupted before it was up")),
        };
        let credential = Credential::load(&Layout(data).client_credential()).map_err(Failure::new)?;
        let outcome = serve(&cluster, credential, mount, mountpoint, &mut signals, || {
            report.ready(&welcome(data, mountpoint));
        });
        let outcome = tokio::select! {
            outcome = outcome => outcome,
            why = cluster.failed() => Err(Failure::new(format!("the metadata server has failed: {why}"))),
        };
        cluster.stop().await;
        outcome
    })
}

/// Mounts the volume, says so, and serves it to its end.
async fn serve(
    cluster: &Embedded,
    credential: Credential,
    config: MountConfig,
    mountpoint: &Path,
    signals: &mut Signals,
    say: impl FnOnce(),
) -> Outcome {
    let metas: HostPorts = cluster.meta_address().parse().map_err(Failure::new)?;
    let mut options = MountOptions::new(VOLUME);
    options.fsname = format_source(&metas, VOLUME);
    let plan =
        Plan { metas, volume: VOLUME.into(), mountpoint: mountpoint.to_path_buf(), options, config, keeping: None };
    let mounted = tokio::select! {
        mounted = Mounted::start(credential, plan) => mounted?,
        () = signals.next() => return Err(Failure::new("interrupted before it was mounted")),
    };
    say();
    mounted.run(signals).await
}

fn welcome(data: &Path, mountpoint: &Path) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "holdfast".to_string());
    let (data, mount) = (data.display(), mountpoint.display());
    format!(
        "Volume `{VOLUME}` is mounted on {mount}: one metadata server, three stores, three copies of everything.\n\
         \n\
         Try:   cp -r /etc/ssl {mount}/ && ls -l {mount}\n\
         \x20      {program} status --credential {data}/{}\n\
         Data:  {data}\n\
         Stop:  Ctrl-C, or {program} down --data {data}\n",
        place::CREDENTIAL_FILE
    )
}
