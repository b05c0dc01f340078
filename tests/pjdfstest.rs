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
use holdfast::fuse::session::{Mount, Served};
use reference::Reference;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Cases that pass in one run; the others want the filesystem read-only, see `posix_by_pjdfstest`.
const PASSED: usize = 384;
const READ_ONLY: usize = 13;

/// The C library does not know the greatest link count of a FUSE filesystem, so this one does not know what to try;
/// `tests/fuse.rs` does.
const UNKNOWABLE: &str = "link::link_count_max";

/// `mount -o remount` of a `fuse.x` would look for a program to do it; the kernel alone can.
const REMOUNT: &str = "#!/bin/sh\nexec /bin/mount -i \"$@\"\n";

fn configuration(allow_remount: bool) -> String {
    format!(
        r#"
        [features]
        posix_fallocate = {{}}
        rename_ctime = {{}}
        utimensat = {{}}
        utime_now = {{}}
        [settings]
        naptime = 0.01
        allow_remount = {allow_remount}
        [dummy_auth]
        entries = [["nobody", "nogroup"], ["tests", "tests"]]
        "#
    )
}

fn mount(runtime: &Runtime, dir: &Path) -> Mount {
    let options = MountOptions::parse("pjdfstest", "suid,dev").unwrap();
    let fs = Arc::new(Reference::default());
    Mount::start(Served::new(fs, runtime.handle().clone(), Invalidator::new()), dir, &options).unwrap()
}

/// Two mounts, and the program to run on them.
struct Suite {
    _mounts: [Mount; 2],
    _runtime: Runtime,
    dir: TempDir,
}

/// Case names by outcome.
struct Report {
    passed: usize,
    skipped: Vec<String>,
    failed: Vec<String>,
    text: String,
}

impl Suite {
    fn new() -> Suite {
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let [first, second, programs] = ["a", "b", "bin"].map(|name| dir.path().join(name));
        [&first, &second, &programs].into_iter().for_each(|path| fs::create_dir(path).unwrap());
        fs::write(programs.join("mount"), REMOUNT).unwrap();
        fs::set_permissions(programs.join("mount"), Permissions::from_mode(0o755)).unwrap();
        Suite { _mounts: [mount(&runtime, &first), mount(&runtime, &second)], _runtime: runtime, dir }
    }

    fn run(&self, allow_remount: bool, cases: &[&str]) -> Report {
        let [first, second, programs, config] = ["a", "b", "bin", "config"].map(|name| self.dir.path().join(name));
        fs::write(&config, configuration(allow_remount)).unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path))).unwrap();
        let program = std::env::var_os("PJDFSTEST").unwrap_or("pjdfstest".into());
        let mut command = Command::new(&program);
        command.arg("-c").arg(&config).arg("-p").arg(&first).arg("-s").arg(&second).args(cases);
        command.current_dir(&first).env("PATH", path);
        let output = command.output().unwrap_or_else(|error| panic!("this test needs {program:?}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let told = |how| {
            let names = text.lines().filter_map(|line| line.trim_end().strip_suffix(how));
            names.map(|name| name.trim().to_owned()).collect::<Vec<String>>()
        };
        Report { passed: told(" ok").len(), skipped: told(" skipped"), failed: told(" FAILED"), text }
    }
}

/// Read-only cases run in a process each: together they fail on every filesystem, because the program holds files open
/// for writing that earlier cases left.
#[test]
fn posix_by_pjdfstest() {
    let suite = Suite::new();
    let report = suite.run(false, &[]);
    assert_eq!(report.failed, [""; 0], "{}", report.text);
    assert!(report.passed >= PASSED, "{}", report.text);
    let (read_only, skipped): (Vec<String>, Vec<String>) =
        report.skipped.into_iter().partition(|name| name.contains("::erofs_"));
    assert_eq!(skipped, [UNKNOWABLE]);
    assert_eq!(read_only.len(), READ_ONLY);
    for case in &read_only {
        let report = suite.run(true, &[case]);
        assert!(report.passed >= 1 && report.failed.is_empty(), "{}", report.text);
    }
}
