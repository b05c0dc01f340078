//! The FUSE door with the reference behind it, on real mounts. Needs root and `/dev/fuse`.

#[path = "fuse/attrs.rs"]
mod attrs;
#[path = "fuse/data.rs"]
mod data;
#[path = "fuse/locks.rs"]
mod locks;
#[path = "fuse/mapped.rs"]
mod mapped;
#[path = "fuse/mounting.rs"]
mod mounting;
#[path = "fuse/names.rs"]
mod names;
#[path = "fuse/parked.rs"]
mod parked;
#[path = "model/reference.rs"]
mod reference;
#[path = "fuse/synced.rs"]
mod synced;
#[path = "fuse/sys.rs"]
mod sys;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast::fuse::invalidate::Invalidator;
use holdfast::fuse::options::MountOptions;
use holdfast::fuse::session::{Mount, Served};
use parking_lot::{Mutex, MutexGuard};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use reference::Reference;

/// One test at a time, from its first line: forked processes inherit the descriptors of every mount there is and every
/// lock another thread holds at that moment (that of the environment, for one), and the umask is everyone's.
static TURN: Mutex<()> = Mutex::new(());

/// A reference mounted on a directory of its own, unmounted when dropped.
struct Mounted {
    fs: Arc<Reference>,
    cache: Arc<Invalidator>,
    mount: Mount,
    runtime: Runtime,
    dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Mounted {
    fn new() -> Mounted {
        Mounted::with("suid,dev", Reference::default())
    }

    fn with(options: &str, fs: Reference) -> Mounted {
        assert!(Path::new("/dev/fuse").exists(), "this test needs /dev/fuse");
        assert!(sys::is_root(), "this test needs root");
        let turn = TURN.lock();
        let runtime = runtime();
        let dir = tempfile::tempdir().unwrap();
        let (fs, cache) = (Arc::new(fs), Invalidator::new());
        let options = MountOptions::parse("test", options).unwrap();
        let mount =
            Mount::start(Served::new(fs.clone(), runtime.handle().clone(), cache.clone()), dir.path(), &options)
                .unwrap();
        Mounted { fs, cache, mount, runtime, dir, _turn: turn }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
