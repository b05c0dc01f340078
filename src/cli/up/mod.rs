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
    let mountpoint = place::mount_dir(&config)?;
    check_data(&data)?;
    let mountpoint = prepare_mountpoint(&mountpoint)?;
    let mut report = Report::foreground();
    if args.detach {
        make_dir(&data)?;
        match detach(&Layout(&data).log())? {
            Side::Parent(text) => {
                print!("{text}");
                return Ok(());
            }
            Side::Child(child) => report = child,
        }
    }
    let outcome = work(&common, mount, &data, &mountpoint, &mut report);
    if let Err(failure) = &outcome {
        report.failed(failure);
    }
    outcome
}

/// That the data directory is ours or free, before anything is made.
fn check_data(data: &Path) -> Outcome {
    if DataDir::is_vacant(data).or_else(|error| match is_only_log(data) {
        true => Ok(true),
        false => Err(Failure::new(error)),
    })? {
        return Ok(());
    }
    // Opened and closed: another `up` that holds it is met here, before its mount point is.
    DataDir::open(data, place::KIND, None).map(drop).map_err(Failure::new)
}

/// A detached `up` that failed at once has left its log and nothing else.
fn is_only_log(data: &Path) -> bool {
    let Ok(entries) = fs::read_dir(data) else { return false };
    let mut names = entries.flatten().map(|entry| entry.path());
    names.all(|path| path == Layout(data).log())
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

fn make_dir(path: &Path) -> Outcome {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.or_fail(|| format!("{} cannot be made", path.display()))
}

/// The data directory, locked.
fn open_data(data: &Path) -> Outcome<DataDir> {
    if is_only_log(data) {
        // The log is open and lives on without its name for the moment it takes to make the directory.
        let log = Layout(data).log();
        let aside = log.with_extension("log.new");
        return match fs::rename(&log, &aside) {
            Ok(()) => Err(Failure::new(format!("{} is in the way", aside.display()))),
            Err(_) => DataDir::create(data, place::KIND, chance::cluster_id(), 0).map_err(Failure::new),
        };
    }
    DataDir::open(data, place::KIND, None).map_err(Failure::new)
}

fn work(
    common: &CommonConfig,
    mount: MountConfig,
    data: &Path,
    mountpoint: &Path,
    report: &mut Report,
) -> Outcome {
    let dir = open_data(data)?;
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
