//! `holdfast up`: a whole cluster in this process, and a volume of it mounted.
//!
//! In order: everything is checked, the data directory is locked (or made), what a killed predecessor left mounted is
//! taken away, the process goes to the background if asked to, the cluster starts, the volume is mounted, and that is
//! said. On Ctrl-C or SIGTERM the volume is unmounted first (a busy one is retried, and taken away lazily at the second
//! signal), then the cluster stops. `umount` from outside ends it too.

pub mod embedded;
pub mod place;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::args::{CommonArgs, UpArgs};
use crate::cli::detach::{Report, Side, detach};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::mount::{Mounted, Plan};
use crate::cli::mountpoint::{self, UnmountError};
use crate::cli::settings::settings;
use crate::cli::up::embedded::{Embedded, VOLUME};
use crate::cli::up::place::Layout;
use crate::cli::{daemon, dial};
use crate::config::layer::Flags;
use crate::config::roles::{CommonConfig, MountConfig, UpConfig};
use crate::crypto::identity::Credential;
use crate::daemon::ready;
use crate::host::chance;
use crate::host::data_dir::DataDir;

/// Between two tries to unmount what is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// # Errors
/// Something is in the way of it (nothing is changed then), or a part of it fails.
pub fn run(common: &CommonArgs, args: UpArgs) -> Outcome {
    let settings = settings(common, Flags::from(&args))?;
    let config: UpConfig = settings.section()?;
    let (common, mount): (CommonConfig, MountConfig) = (settings.section()?, settings.section()?);
    let data = place::data_dir(&config)?;
    let known = open_known(&data)?;
    let mountpoint = prepare_mountpoint(&place::mount_dir(&config)?)?;
    let mut dir = match known {
        Some(dir) => dir,
        None => DataDir::create(&data, place::KIND, chance::cluster_id(), 0).map_err(Failure::new)?,
    };
    let mut report = Report::foreground();
    if args.detach {
        match detach(&Layout(&data).log())? {
            Side::Parent(text) => {
                print!("{text}");
                return Ok(());
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

/// The mount point as the kernel will name it: made if it is not there, freed of a dead mount.
fn prepare_mountpoint(path: &Path) -> Outcome<PathBuf> {
    mountpoint::check_fuse()?;
    if mountpoint::is_dead(path) {
        mountpoint::unmount(path, true).map_err(|error| cannot_unmount(path, &error))?;
    }
    if !path.exists() {
        fs::create_dir_all(path).or_fail(|| format!("the mount point {} cannot be made", path.display()))?;
    }
    let path = fs::canonicalize(path).or_fail(|| format!("the mount point {} cannot be used", path.display()))?;
    mountpoint::check_free(&path)?;
    Ok(path)
}

fn work(common: &CommonConfig, mount: MountConfig, dir: &DataDir, mountpoint: &Path, report: &mut Report) -> Outcome {
    let data = dir.path();
    daemon::begin(common)?;
    dial::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let cluster = tokio::select! {
            started = Embedded::start(data, dir.cluster()) => started?,
            () = signals.next() => return Err(Failure::new("interrupted before it was up")),
        };
        let credential = Credential::load(&Layout(data).client_credential()).map_err(Failure::new)?;
        let metas = cluster.meta_address().parse().map_err(Failure::new)?;
        let plan = Plan::new(credential, metas, VOLUME, mountpoint, &[], mount)?;
        let mounted = match Mounted::start(plan).await {
            Ok(mounted) => mounted,
            Err(failure) => {
                cluster.stop().await;
                return Err(failure);
            }
        };
        report.ready(&welcome(data, mountpoint));
        ready::announce("up", 0, mountpoint.display());
        run_until_unmounted(mounted, mountpoint, &mut signals).await;
        ready::stopping();
        cluster.stop().await;
        Ok(())
    })
}

/// Ends when the volume is unmounted, by a signal or by others, and everything it had is synced.
async fn run_until_unmounted(mut mounted: Mounted, mountpoint: &Path, signals: &mut Signals) {
    tokio::select! {
        () = mounted.ended() => {}
        () = signals.next() => unmount(&mut mounted, mountpoint, signals).await,
    }
    mounted.stop().await;
}

async fn unmount(mounted: &mut Mounted, mountpoint: &Path, signals: &mut Signals) {
    let mut said = false;
    loop {
        match mountpoint::unmount(mountpoint, false) {
            Ok(()) => return,
            Err(UnmountError::Busy) if !said => {
                said = true;
                let place = mountpoint.display();
                eprintln!("holdfast: {place} is busy; waiting for its users (once more to take it away from them)");
            }
            Err(UnmountError::Busy) => {}
            Err(error @ UnmountError::Failed(_)) => {
                tracing::warn!("{}", cannot_unmount(mountpoint, &error).sentence());
            }
        }
        tokio::select! {
            () = mounted.ended() => return,
            () = tokio::time::sleep(BUSY_PAUSE) => {}
            () = signals.next() => {
                if let Err(error) = mountpoint::unmount(mountpoint, true) {
                    tracing::warn!("{}", cannot_unmount(mountpoint, &error).sentence());
                }
                return;
            }
        }
    }
}

fn cannot_unmount(path: &Path, error: &UnmountError) -> Failure {
    let why = match error {
        UnmountError::Busy => "it is busy",
        UnmountError::Failed(why) => why,
    };
    Failure::new(format!("{} cannot be unmounted: {why}", path.display()))
}

/// SIGINT and SIGTERM, counted: the second one says that the first was not heeded fast enough.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Outcome<Signals> {
        let hook = |kind| signal(kind).or_fail(|| "signals cannot be handled".to_string());
        Ok(Signals { interrupt: hook(SignalKind::interrupt())?, terminate: hook(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
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
