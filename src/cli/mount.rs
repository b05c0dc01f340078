//! `holdfast mount`: a client and its FUSE mount.
//!
//! In order: options and mount point are checked, the process goes to the background unless told not to, the credential
//! is read (or a token is given for one), the client opens its session (an unknown volume ends here), and only then is
//! anything mounted. The command returns when the volume is mounted. `umount` from outside ends the process, SIGTERM
//! unmounts first. In the background it has a keeper, unless told otherwise (`again`). A process with a keeper goes on with the mount
//! of the one before it, if there is one, and leaves it to the next when it is told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cli::again::Again;
use crate::cli::args::{CommonArgs, MountArgs};
use crate::cli::detach::{Report, Side, detach};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::keeping::Keeping;
use crate::cli::mount_helper::format_source;
use crate::cli::out::print;
use crate::cli::settings::{absolute, settings, token};
use crate::cli::up::place::user_dir;
use crate::cli::{daemon, dial, join, map, mountpoint};
use crate::client::cache::disk::{DiskCache, DiskCacheError};
use crate::client::chunks::ChunkStore;
use crate::client::kept::Kept;
use crate::client::{Client, ClientConfig};
use crate::config::layer::Flags;
use crate::config::roles::{CommonConfig, MountConfig};
use crate::config::value::HostPorts;
use crate::container::mounter::NO_VOLUME;
use crate::crypto::identity::Credential;
use crate::crypto::token::JoinToken;
use crate::daemon::ready;
use crate::fuse::invalidate::Invalidator;
use crate::fuse::options::{AccessTimes, MountOptions};
use crate::fuse::session::{Mount, MountError, Served, detach as detach_mount};
use crate::host::memory;
use crate::host::mountinfo::mounted_at;
use crate::host::presence::Presence;
use crate::host::utab::Note;
use crate::net::Transport;
use crate::net::quic::QuicEndpoint;
use crate::remote::meta::{CallError, MetaClient};
use crate::remote::store::{StoreClient, StoreClientOptions};
use crate::types::error::FsError;
use crate::types::record::Role;

/// Where a mount's credential is when nobody says.
pub const CREDENTIAL_DEFAULT: &str = "/etc/holdfast/client.credential";
const THREADS_MAX: u32 = 64;
/// With less the program and its connections leave nothing for a write of the kernel and the block that it changes.
const MEMORY_BYTES_MIN: u64 = 80 << 20;
/// Between two tries to unmount what is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// How long a mount that is to be left to another process may keep its users waiting before.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// # Errors
/// Something cannot be used, the cluster refuses, or the mount fails; nothing is mounted then.
pub fn run(common: &CommonArgs, args: MountArgs) -> Outcome {
    let mut report = Report::inherited();
    let outcome = mount(common, args, &mut report);
    if let Err(failure) = &outcome {
        report.failed(failure);
    }
    outcome
}

fn mount(given: &CommonArgs, args: MountArgs, report: &mut Report) -> Outcome {
    memory::share_heaps();
    let settings = settings(given, Flags::from(&args))?;
    let (common, config): (CommonConfig, MountConfig) = (settings.section()?, settings.section()?);
    check_limits(&config)?;
    let mut words = Words::parse(&args.options)?;
    let options = words.mount_options(&args.metas, &args.volume)?;
    let mountpoint = absolute(&args.mountpoint)?;
    let keeping = Keeping::find(config.memory.0)?;
    if keeping.is_some() && !args.foreground {
        return Err(Failure::usage("a mount with a keeper stays in the foreground: --foreground"));
    }
    if keeping.as_ref().is_none_or(|keeping| !keeping.goes_on()) {
        mountpoint::check_free(&mountpoint)?;
    }
    if !common.credential.as_os_str().is_empty() {
        words.credential = Some(match words.credential {
            Some(named) => named,
            None => absolute(&common.credential)?,
        });
    }
    let token = token(&common)?;
    let access = Access::choose(words.credential, token.as_deref())?;
    if !args.foreground {
        let again = Again { given, args: &args, config: &config, options: &words.rest, mountpoint: &mountpoint };
        let kept = access.file().and_then(|file| again.kept(file, token.as_deref()).transpose()).transpose()?;
        match detach(&log_file(&config, &args.volume)?)? {
            Side::Parent(text) => return print(text),
            Side::Child(child) => *report = child,
        }
        if let Some(mut command) = kept {
            return Err(report.become_program(&mut command));
        }
    }
    if let Some(keeping) = &keeping
        && keeping.was_a_trial()?
    {
        return Ok(());
    }
    let plan = Plan { metas: args.metas, volume: args.volume, mountpoint, options, config, keeping };
    work(&common, access, plan, report)
}

fn work(common: &CommonConfig, access: Access, plan: Plan, report: &mut Report) -> Outcome {
    daemon::begin(common)?;
    memory::give_back_above(plan.config.memory.0 / 2).or_fail(|| "the program cannot start".to_string())?;
    dial::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let credential = access.credential().await?;
        let (mountpoint, keeping) = (plan.mountpoint.clone(), plan.keeping.clone());
        let place = mountpoint.display().to_string();
        let mounted = tokio::select! {
            mounted = Mounted::start(credential, plan) => mounted?,
            () = signals.next() => {
                abandon(&mountpoint, keeping.as_deref());
                return Err(Failure::new("interrupted before it was mounted"));
            }
        };
        mounted.keeping.iter().for_each(|keeping| keeping.hears());
        ready::announce("mount", mounted.volume_number(), place);
        report.ready("");
        mounted.run(&mut signals).await
    })
}

/// What stands behind `-o`: our own words, and what is the filesystem's.
#[derive(Debug, Default)]
struct Words {
    credential: Option<PathBuf>,
    rest: Vec<String>,
}

impl Words {
    fn parse(lists: &[String]) -> Outcome<Words> {
        let mut words = Words::default();
        for word in lists.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
            match word.strip_prefix("credential=") {
                Some("") => return Err(Failure::usage("the mount option credential= names no file")),
                Some(file) => words.credential = Some(absolute(Path::new(file))?),
                None => words.rest.push(word.to_string()),
            }
        }
        Ok(words)
    }

    fn mount_options(&self, metas: &HostPorts, volume: &str) -> Outcome<MountOptions> {
        let mut options = MountOptions::parse(volume, &self.rest.join(",")).map_err(Failure::usage)?;
        if !self.rest.iter().any(|word| word.starts_with("fsname=")) {
            options.fsname = format_source(metas, volume);
        }
        Ok(options)
    }
}

/// How this client shows who it is.
enum Access {
    File(PathBuf),
    /// Spent once; the credential is kept in the file, or in memory only.
    Token(JoinToken, Option<PathBuf>),
}

impl Access {
    fn choose(file: Option<PathBuf>, token: Option<&str>) -> Outcome<Access> {
        match (file, token) {
            // A file that is there is as good as the token that made it: the same command mounts again.
            (Some(file), _) if file.exists() => Ok(Access::File(file)),
            (Some(file), Some(token)) => {
                join::check_absent(&file)?;
                Ok(Access::Token(dial::parse_token(token)?, Some(file)))
            }
            (Some(file), None) => Err(Failure::new(format!("the credential {} is not there", file.display()))),
            (None, Some(token)) => Ok(Access::Token(dial::parse_token(token)?, None)),
            (None, None) if Path::new(CREDENTIAL_DEFAULT).exists() => Ok(Access::File(CREDENTIAL_DEFAULT.into())),
            (None, None) => Err(Failure::new(format!(
                "no credential: name one with --credential FILE, bring a token, or put it at {CREDENTIAL_DEFAULT}"
            ))),
        }
    }

    /// Where the credential is, or will be, for whoever mounts next.
    fn file(&self) -> Option<&Path> {
        match self {
            Access::File(file) | Access::Token(_, Some(file)) => Some(file),
            Access::Token(_, None) => None,
        }
    }

    async fn credential(self) -> Outcome<Credential> {
        match self {
            Access::File(file) => Credential::load(&file).or_fail(|| "the credential cannot be used".to_string()),
            Access::Token(token, file) => {
                let credential = join::redeem(&token, Role::Client).await?;
                if let Some(file) = file {
                    join::save(&credential, &file)?;
                }
                Ok(credential)
            }
        }
    }
}

/// That a mount can work within what it is allowed.
///
/// # Errors
/// It cannot; nothing was changed.
pub fn check_limits(config: &MountConfig) -> Outcome {
    if config.threads > THREADS_MAX {
        return Err(Failure::new(format!("{} threads are more than {THREADS_MAX}", config.threads)));
    }
    if config.memory.0 < MEMORY_BYTES_MIN {
        return Err(Failure::new(format!("a mount needs {} MiB of memory at least", MEMORY_BYTES_MIN >> 20)));
    }
    Ok(())
}

/// What to mount, and how.
pub struct Plan {
    pub metas: HostPorts,
    pub volume: String,
    pub mountpoint: PathBuf,
    pub options: MountOptions,
    pub config: MountConfig,
    pub keeping: Option<Arc<Keeping>>,
}

impl Plan {
    fn kept(&self) -> Option<Arc<Kept>> {
        self.keeping.as_ref().map(|keeping| keeping.kept.clone())
    }
}

/// A volume that is mounted.
pub struct Mounted {
    mount: Mount,
    client: Client,
    endpoint: Arc<QuicEndpoint>,
    follower: JoinHandle<()>,
    keeping: Option<Arc<Keeping>>,
    /// Taken out when the mount is gone, and nothing is left to do.
    _note: Option<Note>,
    _presence: Option<Presence>,
}

impl Mounted {
    /// Opens a session, then mounts.
    ///
    /// # Errors
    /// The cluster does not answer or refuses, or the mount point cannot be used; nothing is mounted then.
    pub async fn start(credential: Credential, plan: Plan) -> Outcome<Mounted> {
        let endpoint = Arc::new(QuicEndpoint::bind(None, &credential.identity).map_err(Failure::new)?);
        let transport: Arc<dyn Transport> = endpoint.clone();
        let metas = plan.metas.0.iter().map(ToString::to_string).collect();
        let meta = Arc::new(MetaClient::new(transport.clone(), metas));
        let patience = plan.config.patience.0;
        let (table, follower) = map::follow(&meta, patience).await?;
        let options = StoreClientOptions { short_circuit: plan.config.short_circuit, ..StoreClientOptions::default() };
        let store = Arc::new(StoreClient::new(transport, table, options));
        let store = with_cache(store, &plan)?;
        let client = Client::start(client_config(&plan), meta, store).await;
        if let Err(CallError::Refused(_) | CallError::TakenOver | CallError::NoVolume(_)) = &client {
            // Nor is any other client to go on with it.
            abandon(&plan.mountpoint, plan.keeping.as_deref());
        }
        let client = client.map_err(|error| {
            let failure = Failure::new(format!("volume {} cannot be mounted: {error}", plan.volume));
            match error {
                CallError::NoVolume(_) => Failure::with_code(NO_VOLUME, failure.sentence()),
                _ => failure,
            }
        })?;
        match attach(&client, &plan).await {
            Ok(mount) => {
                let mountpoint = mount.mountpoint().to_owned();
                let showing = tokio::task::spawn_blocking(move || show(&mountpoint));
                let (_note, _presence) = showing.await.unwrap_or_default();
                Ok(Mounted { mount, client, endpoint, follower, keeping: plan.keeping, _note, _presence })
            }
            Err(failure) => {
                // Nothing was written through it: what this reports does not matter beside the failure. And with a session that is
                // gone on with the next process goes on.
                if plan.keeping.as_ref().is_none_or(|keeping| !keeping.goes_on()) {
                    let _ = client.stop().await;
                }
                Err(failure)
            }
        }
    }

    /// Serves until the volume is unmounted: by others, or by a signal. A busy volume is tried again; a second signal
    /// takes it away from its users. Everything is synced when this returns.
    ///
    /// # Errors
    /// The mount ended badly, or something could not be made durable.
    pub async fn run(self, signals: &mut Signals) -> Outcome {
        let mut calls = self.keeping.as_ref().map(Keeping::calls).transpose()?;
        let ended = loop {
            tokio::select! {
                ended = self.mount.wait() => break ended,
                () = signals.next() => {
                    ready::stopping();
                    break self.unmount(signals).await;
                }
                () = called(&mut calls) => self.leave().await,
            }
        };
        self.keeping.iter().for_each(|keeping| keeping.is_done());
        let stopped = tokio::select! {
            stopped = self.client.stop() => stopped,
            // A cluster that is away is waited for as long as nobody minds.
            () = signals.next() => Err(FsError::Unreachable),
        };
        self.follower.abort();
        self.endpoint.close().await;
        ended.map_err(Failure::new)?;
        stopped.or_fail(|| "not everything could be made durable".to_string())
    }

    /// Leaves the mount to the process that comes after this one. Returns when that cannot be done: everything is as before.
    async fn leave(&self) {
        let Some(keeping) = &self.keeping else { return };
        if !self.mount.stop_taking(LEAVE_PATIENCE).await {
            return keeping.refuses("something waits for the cluster");
        }
        match tokio::time::timeout(LEAVE_PATIENCE, self.client.leave()).await {
            Ok(Ok(())) => std::process::exit(0),
            Ok(Err(error)) => keeping.refuses(&format!("not everything is durable: {error}")),
            Err(_) => keeping.refuses("the cluster does not take what is to be stored"),
        }
        self.mount.go_on_taking();
    }

    /// The volume's number: what the readiness line calls this mount.
    pub fn volume_number(&self) -> u64 {
        self.client.volume().id.0
    }

    async fn unmount(&self, signals: &mut Signals) -> Result<(), MountError> {
        let mut said = false;
        loop {
            match self.mount.unmount().await {
                Err(MountError::InUse(path)) => {
                    if !said {
                        let path = path.display();
                        eprintln!(
                            "holdfast: {path} is busy; waiting for its users (once more takes it away from them)"
                        );
                    }
                    said = true;
                }
                other => return other,
            }
            tokio::select! {
                ended = self.mount.wait() => return ended,
                () = tokio::time::sleep(BUSY_PAUSE) => {}
                () = signals.next() => return self.mount.detach(),
            }
        }
    }
}

/// Returns when the mount is to be left to another process.
async fn called(calls: &mut Option<mpsc::Receiver<()>>) {
    let called = match calls {
        Some(calls) => calls.recv().await,
        None => None,
    };
    if called.is_none() {
        std::future::pending().await
    }
}

/// Nobody goes on with what another process has mounted: whoever uses it is told so, and it is out of the way.
fn abandon(mountpoint: &Path, keeping: Option<&Keeping>) {
    let Some(keeping) = keeping.filter(|keeping| keeping.goes_on()) else { return };
    keeping.is_done();
    // The last descriptor but the keeper's, which lets go of its own: nothing is answered any more.
    drop(keeping.device());
    if let Err(error) = detach_mount(mountpoint) {
        tracing::warn!(%error, "a mount is left behind");
    }
}

/// The stores behind a cache on disk, if there is to be one. It may be the first mount of a volume that has it; the next goes
/// without.
fn with_cache(store: Arc<StoreClient>, plan: &Plan) -> Outcome<Arc<dyn ChunkStore>> {
    if plan.config.cache.as_os_str().is_empty() {
        return Ok(store);
    }
    let dir = absolute(&plan.config.cache)?.join(&plan.volume);
    match DiskCache::open(&dir, plan.config.cache_size.0, store.clone()) {
        Ok(cache) => Ok(Arc::new(cache)),
        Err(DiskCacheError::InUse) => {
            tracing::warn!(dir = %dir.display(), "another mount uses this cache; going on without one");
            Ok(store)
        }
        Err(DiskCacheError::Io(error)) if is_of_the_disk(&error) => {
            tracing::warn!(dir = %dir.display(), %error, "the cache cannot be written to; going on without one");
            Ok(store)
        }
        Err(error) => Err(Failure::new(format!("the cache {} cannot be used: {error}", dir.display()))),
    }
}

/// No fault of whoever named it.
fn is_of_the_disk(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EROFS | libc::ENOSPC))
}

fn client_config(plan: &Plan) -> ClientConfig {
    let mut config = ClientConfig::new(plan.volume.clone(), host_name());
    config.read_only = plan.options.read_only;
    config.noatime = plan.options.access_times == AccessTimes::Never;
    config.memory_bytes = plan.config.memory.0;
    config.resident_high_bytes = memory::resident_high_bytes;
    config.start_patience = Some(plan.config.patience.0);
    config.kept = plan.kept();
    config
}

async fn attach(client: &Client, plan: &Plan) -> Outcome<Mount> {
    let cache = Invalidator::new();
    client.set_kernel(cache.clone());
    let served =
        Served { kept: plan.kept(), ..Served::new(Arc::new(client.clone()), tokio::runtime::Handle::current(), cache) };
    let options = MountOptions { threads: plan.config.threads, ..plan.options.clone() };
    let mountpoint = plan.mountpoint.clone();
    let keeping = plan.keeping.clone();
    let mounting = move || {
        if let Some(device) = keeping.as_ref().and_then(|keeping| keeping.device()) {
            return Mount::resume(served, &mountpoint, &options, device);
        }
        let mut mount = Mount::start(served, &mountpoint, &options)?;
        if let Some(Err(error)) = keeping.map(|keeping| keeping.keep(&mut mount)) {
            tracing::error!(%error, "nobody keeps this mount: it ends with this process");
        }
        Ok(mount)
    };
    let mount = tokio::task::spawn_blocking(mounting).await.or_fail(|| "the mount failed".to_string())?;
    mount.map_err(Failure::new)
}

/// What umount(8) goes by. Only root may; and an ordinary user's runs fusermount3, which asks nobody.
fn show(mountpoint: &Path) -> (Option<Note>, Option<Presence>) {
    let entry = mounted_at(mountpoint).ok().flatten().filter(|_| mountpoint::is_root());
    let Some(entry) = entry else { return (None, None) };
    let presence = Presence::of(entry.device);
    if let Err(error) = &presence {
        tracing::warn!(%error, "nobody will wait for the end of this process");
    }
    (Note::of(mountpoint, &entry.source), presence.ok())
}

/// This host's name, as others know it.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_string() } else { name.to_string() }
}

fn log_file(config: &MountConfig, volume: &str) -> Outcome<PathBuf> {
    if !config.log_file.as_os_str().is_empty() {
        return absolute(&config.log_file);
    }
    let name = format!("mount-{}.log", volume.replace('/', "_"));
    let dir = match mountpoint::is_root() {
        true => PathBuf::from("/var/log/holdfast"),
        false => user_dir("XDG_STATE_HOME", ".local/state", "--log-file")?.join("holdfast"),
    };
    Ok(dir.join(name))
}

/// SIGINT and SIGTERM, counted: the second one says that the first was not heeded fast enough.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Inside a runtime.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn new() -> Outcome<Signals> {
        let hook = |kind| signal(kind).or_fail(|| "signals cannot be handled".to_string());
        Ok(Signals { interrupt: hook(SignalKind::interrupt())?, terminate: hook(SignalKind::terminate())? })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_words_are_taken_out_of_the_options() {
        let words = Words::parse(&["ro,credential=/c".to_string(), "nosuid".to_string()]).unwrap();
        assert_eq!(words.credential, Some(PathBuf::from("/c")));
        let options = words.mount_options(&"a:1".parse().unwrap(), "v").unwrap();
        assert!(options.read_only && !options.suid);
        assert_eq!(options.fsname, "a:1:/v");
        assert_eq!(Words::parse(&["credential=".to_string()]).unwrap_err().code(), 2);
        let unknown = Words::parse(&["frobnicate".to_string()]).unwrap();
        assert_eq!(unknown.mount_options(&"a:1".parse().unwrap(), "v").unwrap_err().code(), 2);
    }

    #[test]
    fn a_credential_or_a_token_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let (there, absent) = (dir.path().join("there"), dir.path().join("absent"));
        std::fs::write(&there, "").unwrap();
        let token = JoinToken::create([1; 32], vec!["a:1".into()]).encode();
        assert!(matches!(Access::choose(Some(there), Some(&token)), Ok(Access::File(_))));
        assert!(matches!(Access::choose(Some(absent.clone()), Some(&token)), Ok(Access::Token(_, Some(_)))));
        assert!(matches!(Access::choose(None, Some(&token)), Ok(Access::Token(_, None))));
        assert!(Access::choose(Some(absent), None).is_err());
        assert!(Access::choose(None, Some("hf1.nonsense")).is_err());
    }
}
