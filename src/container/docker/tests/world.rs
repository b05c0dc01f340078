//! A host with its kernel, a cluster and the plugin, which dies when a test wants it to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::driver::{Driver, DriverError};
use super::super::host::Host;
use super::super::protocol::{Answer, Request};
use crate::container::mounter::MountFailure;
use crate::remote::fake::{FakeVolumes, VolumesNet};
use crate::remote::meta::MetaClient;
use crate::remote::operator::Operator;

const FORGET: Duration = Duration::from_secs(600);

/// What ends at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The plugin. The next one has had time to put things in order when it is asked.
    Plugin,
    /// The plugin. The next one is asked at once, while a program that the last has started still runs.
    PluginAndAskedAtOnce,
    /// The call: whoever waited for its answer waits no longer, and the plugin lives.
    Call,
}

impl Cut {
    pub const ALL: [Cut; 3] = [Cut::Plugin, Cut::PluginAndAskedAtOnce, Cut::Call];
}

/// What Docker does when a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Docker {
    /// It waits: the next plugin is given the same call (`calls`).
    AsksAgain,
    /// It has died too, or nobody has kept its call: its user begins anew.
    Forgets,
}

pub enum Asked {
    Answered(Result<Answer, DriverError>),
    Lost,
}

/// When the end comes, for one plugin.
struct Fate {
    cut: Cut,
    at: usize,
    taken: AtomicUsize,
    has_come: watch::Sender<bool>,
}

impl Fate {
    fn new((cut, at): (Cut, usize)) -> Arc<Fate> {
        Arc::new(Fate { cut, at, taken: AtomicUsize::new(0), has_come: watch::channel(false).0 })
    }

    /// Before and after everything that stays.
    async fn step(&self) {
        let step = self.taken.fetch_add(1, Ordering::Relaxed);
        if step == self.at {
            self.has_come.send_replace(true);
        }
        match self.cut {
            Cut::Call => tokio::task::yield_now().await,
            _ if step >= self.at => std::future::pending().await,
            _ => {}
        }
    }

    async fn end(&self) {
        let _ = self.has_come.subscribe().wait_for(|has_come| *has_come).await;
    }
}

/// What programs do that the plugin starts; they end whatever becomes of it.
#[derive(Clone, Debug)]
enum Errand {
    Mount(String),
    Unmount,
}

/// What outlives the plugin: mounts, programs and containers.
#[derive(Default)]
struct Kernel {
    mounted: BTreeMap<PathBuf, String>,
    running: BTreeMap<PathBuf, Errand>,
    containers: BTreeSet<(String, String)>,
}

impl Kernel {
    fn containers_of(&self, volume: &str) -> usize {
        self.containers.iter().filter(|(has, _)| has == volume).count()
    }

    /// The program that runs for a place comes to its end.
    fn finish(&mut self, place: &Path, has_volume: impl Fn(&str) -> bool) {
        match self.running.remove(place) {
            Some(Errand::Mount(volume)) if has_volume(&volume) => {
                let under = self.mounted.insert(place.to_path_buf(), volume);
                assert_eq!(under, None, "a mount is on another one");
            }
            Some(Errand::Unmount) => {
                let volume = self.mounted.remove(place).expect("what is not mounted is unmounted");
                assert_eq!(self.containers_of(&volume), 0, "the volume is taken from a container");
            }
            _ => {}
        }
    }
}

/// The host as one plugin has it.
struct Hands {
    kernel: Arc<Mutex<Kernel>>,
    cluster: Arc<FakeVolumes>,
    fate: Arc<Fate>,
}

impl Hands {
    fn finish(&self, place: &Path) {
        self.kernel.lock().finish(place, |volume| self.cluster.names().iter().any(|name| name == volume));
    }

    async fn do_errand(&self, place: &Path, errand: Errand) {
        self.kernel.lock().running.insert(place.to_path_buf(), errand);
        self.fate.step().await;
        self.finish(place);
        self.fate.step().await;
    }
}

impl Host for Hands {
    async fn mount(&self, volume: &str, place: &Path) -> Result<(), MountFailure> {
        self.fate.step().await;
        self.finish(place);
        if self.has(volume, place) {
            return Ok(());
        }
        fs::create_dir_all(place).unwrap();
        self.do_errand(place, Errand::Mount(volume.to_string())).await;
        if self.has(volume, place) { Ok(()) } else { Err(MountFailure::Refused(format!("there is no {volume}"))) }
    }

    async fn unmount(&self, place: &Path) -> Result<(), MountFailure> {
        self.fate.step().await;
        self.finish(place);
        if self.kernel.lock().mounted.contains_key(place) {
            self.do_errand(place, Errand::Unmount).await;
        }
        Ok(())
    }

    async fn users(&self, place: &Path) -> Result<usize, DriverError> {
        self.fate.step().await;
        let kernel = self.kernel.lock();
        Ok(kernel.mounted.get(place).map_or(0, |volume| kernel.containers_of(volume)))
    }

    fn has(&self, volume: &str, place: &Path) -> bool {
        self.kernel.lock().mounted.get(place).is_some_and(|there| there == volume)
    }
}

/// One process of the plugin.
struct Plugin {
    driver: Arc<Driver<Hands>>,
    fate: Arc<Fate>,
    /// Ends everything of it at once.
    runtime: Runtime,
}

impl Plugin {
    fn start(dir: &Path, kernel: &Arc<Mutex<Kernel>>, cluster: &Arc<FakeVolumes>, fate: Arc<Fate>) -> Plugin {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let stepping = fate.clone();
        let step = move || -> Pin<Box<dyn Future<Output = ()> + Send>> {
            let fate = stepping.clone();
            Box::pin(async move { fate.step().await })
        };
        let net = Arc::new(VolumesNet { volumes: cluster.clone(), step });
        let operator = Operator::new(Arc::new(MetaClient::new(net, vec!["a:1".to_string()])));
        let hands = Hands { kernel: kernel.clone(), cluster: cluster.clone(), fate: fate.clone() };
        let driver = {
            let _guard = runtime.enter();
            Driver::start_on(hands, operator, dir, FORGET).unwrap()
        };
        Plugin { driver, fate, runtime }
    }

    fn answer(&self, call: &str, request: &Request) -> Asked {
        let driver = self.driver.clone();
        let asking = async {
            let answer = match call {
                "Create" => driver.create(request).await,
                "Mount" => driver.mount(request).await,
                "Unmount" => driver.unmount(request).await,
                "Remove" => driver.remove(request).await,
                "Get" => driver.get(request).await,
                other => panic!("there is no call {other}"),
            };
            self.fate.step().await;
            answer
        };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.fate.end() => Asked::Lost,
                answer = asking => Asked::Answered(answer),
            }
        })
    }

    fn passes(&self, time: Duration) {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.fate.end() => {}
                () = sleep(time) => {}
            }
        });
    }
}

/// The book is made durable again and again, and what is lost here is a process.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub struct World {
    volume: String,
    dir: TempDir,
    kernel: Arc<Mutex<Kernel>>,
    cluster: Arc<FakeVolumes>,
    cuts: Vec<(Cut, usize)>,
    plugin: Option<Plugin>,
    /// How many of them have come.
    come: usize,
    /// Uses that were granted, and whose containers are not there yet.
    granted: BTreeSet<String>,
}

impl World {
    /// The plugins die at these steps of theirs, one after the other; the last one lives.
    pub fn new(volume: &str, cuts: &[(Cut, usize)]) -> World {
        let kernel = Arc::new(Mutex::new(Kernel::default()));
        let seen = kernel.clone();
        let cluster = FakeVolumes::new(move |volume| seen.lock().mounted.values().any(|mounted| mounted == volume));
        let cuts = cuts.iter().rev().copied().collect();
        let (dir, volume) = (in_memory(), volume.to_string());
        let mut world = World { volume, dir, kernel, cluster, cuts, plugin: None, come: 0, granted: BTreeSet::new() };
        world.starts();
        world
    }

    fn starts(&mut self) {
        if let Some(plugin) = self.plugin.take() {
            let Fate { cut, at, taken, .. } = &*plugin.fate;
            if let Some(left) = at.checked_sub(taken.load(Ordering::Relaxed)) {
                self.cuts.push((*cut, left));
            }
        }
        let fate = Fate::new(self.cuts.pop().unwrap_or((Cut::Plugin, usize::MAX)));
        self.plugin = Some(Plugin::start(self.dir.path(), &self.kernel, &self.cluster, fate));
    }

    fn plugin(&self) -> &Plugin {
        self.plugin.as_ref().unwrap()
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("mounts").join(&self.volume)
    }

    fn finish(&self) {
        let cluster = &self.cluster;
        self.kernel.lock().finish(&self.place(), |volume| cluster.names().iter().any(|name| name == volume));
    }

    pub fn ask(&mut self, call: &str, request: &Request) -> Asked {
        let asked = self.plugin().answer(call, request);
        if matches!(asked, Asked::Lost) {
            self.goes_on();
        }
        asked
    }

    /// After a cut.
    fn goes_on(&mut self) {
        self.come += 1;
        match self.plugin().fate.cut {
            Cut::Call => drop(self.plugin().fate.has_come.send_replace(false)),
            Cut::PluginAndAskedAtOnce => self.starts(),
            Cut::Plugin => self.dies(),
        }
    }

    /// The plugin is killed; the next one has some time.
    pub fn dies(&mut self) {
        self.starts();
        self.finish();
        self.passes(Duration::from_secs(1));
    }

    fn passes(&mut self, time: Duration) {
        self.plugin().passes(time);
        if *self.plugin().fate.has_come.borrow() {
            self.goes_on();
        }
    }

    /// One plugin lives for so long.
    pub fn wait_until_forgotten(&mut self) {
        loop {
            let come = self.come;
            self.finish();
            self.passes(2 * FORGET);
            if self.come == come {
                break;
            }
        }
    }

    pub fn granted(&mut self, request: &Request, answer: &Answer) {
        assert_eq!(answer.mountpoint.as_deref(), self.place().to_str());
        if !self.has(request) {
            self.granted.insert(request.id.clone());
        }
        self.check();
    }

    /// The container is there.
    pub fn has(&self, request: &Request) -> bool {
        self.kernel.lock().containers.contains(&(request.name.clone(), request.id.clone()))
    }

    pub fn runs(&mut self, request: &Request) {
        self.check();
        self.granted.remove(&request.id);
        self.kernel.lock().containers.insert((request.name.clone(), request.id.clone()));
    }

    pub fn ends(&mut self, request: &Request) {
        self.kernel.lock().containers.remove(&(request.name.clone(), request.id.clone()));
    }

    /// Whoever has the volume, or was told that it may, finds it where it was told; and one alone, where there is to be one.
    pub fn check(&self) {
        let kernel = self.kernel.lock();
        let having = kernel.containers.len() + self.granted.len();
        if having > 0 {
            assert_eq!(
                kernel.mounted.get(&self.place()),
                Some(&self.volume),
                "the volume is not where it was said to be"
            );
            assert!(!matches!(kernel.running.get(&self.place()), Some(Errand::Unmount)), "and will not be for long");
        }
        assert!(having < 2 || self.volume != "rwop", "two have a volume for one");
    }

    /// All containers have ended, and what was forgotten is forgotten here too: nothing is left. How many ends have come.
    pub fn check_end(mut self, is_removed: bool) -> usize {
        self.granted.clear();
        self.plugin = None;
        self.cuts.clear();
        self.starts();
        self.wait_until_forgotten();
        let kernel = self.kernel.lock();
        assert!(kernel.mounted.is_empty() && kernel.running.is_empty(), "left mounted: {:?}", kernel.mounted);
        let book = fs::read_to_string(self.dir.path().join("uses.json")).unwrap();
        assert!(book.contains(r#""volumes":{}"#), "uses that nobody has: {book}");
        assert_eq!(fs::read_dir(self.dir.path().join("mounts")).unwrap().count(), 0, "directories are left");
        let left = if is_removed { vec![] } else { vec![self.volume.clone()] };
        assert_eq!(self.cluster.names(), left, "what other hosts see");
        self.come
    }
}
