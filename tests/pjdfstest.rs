//! `pjdfstest` on a mount of the reference: nothing fails, and all is tried that can be. Needs root, `/dev/fuse`, the
//! users `nobody` and `tests`, and the program (`cargo install pjdfstest --version 0.2.2`) in PATH or named by `PJDFSTEST`.

#[path = "model/reference.rs"]
mod reference;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use holdfast::fuse::invalidate::Invalidator;
use holdfast::fuse::options::MountOptions;
use holdfast::fuse::session::Mount;
use reference::Reference;
use tokio::runtime::Runtime;

/// How many cases there are besides.
const PASSED: usize = 397;

const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}

[settings]
naptime = 0.01
allow_remount = true

[dummy_auth]
entries = [["nobody", "nogroup"], ["tests", "tests"]]
"#;

/// The C library does not know the greatest link count of a FUSE filesystem, so this one does not know what to try;
/// `tests/fuse.rs` does.
const UNKNOWABLE: &str = "link::link_count_max";

/// `mount -o remount` of a `fuse.x` would look for a program to do it; the kernel alone can.
const REMOUNT: &str = "#!/bin/sh\nexec /bin/mount -i \"$@\"\n";

fn mount(runtime: &Runtime, dir: &Path) -> Mount {
    let options = MountOptions::parse("pjdfstest", "suid,dev").unwrap();
    let fs = Arc::new(Reference::default());
    Mount::start(fs, dir, &options, runtime.handle().clone(), Invalidator::new()).unwrap()
}

#[test]
fn posix_by_pjdfstest() {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let [first, second, programs] = ["a", "b", "bin"].map(|name| dir.path().join(name));
    [&first, &second, &programs].map(|path| fs::create_dir(path).unwrap());
    let config = dir.path().join("config.toml");
    fs::write(&config, CONFIGURATION).unwrap();
    fs::write(programs.join("mount"), REMOUNT).unwrap();
    fs::set_permissions(programs.join("mount"), Permissions::from_mode(0o755)).unwrap();
    let mounts = [mount(&runtime, &first), mount(&runtime, &second)];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let program = std::env::var_os("PJDFSTEST").unwrap_or("pjdfstest".into());
    let mut command = Command::new(&program);
    command.arg("-c").arg(&config).arg("-p").arg(&first).arg("-s").arg(&second);
    command.current_dir(&first).env("PATH", path);
    let output = command.output().unwrap_or_else(|error| panic!("this test needs {program:?}: {error}"));
    for mount in &mounts {
        mount.detach().unwrap();
    }
    let report = String::from_utf8_lossy(&output.stdout);
    let told = |how: &str| report.lines().filter(|line| line.trim_end().ends_with(how)).count();
    let skipped: Vec<&str> = report.lines().filter_map(|line| line.trim_end().strip_suffix(" skipped")).collect();
    assert_eq!(told(" FAILED"), 0, "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(skipped.iter().map(|name| name.trim()).collect::<Vec<_>>(), [UNKNOWABLE], "{report}");
    assert!(told(" ok") >= PASSED, "{report}");
}
