//! File handles: what name_to_handle_at gave opens the same inode again, with the caches dropped in between, through
//! this mount and the others, after a rename too; and never another inode, not even when the file is long gone.
//!
//! `handles-keep` and `handles-again` do the two halves with anything in between (suite `remount`).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Run;
use crate::fault::{At, Check, Fault, ensure, fault};
use crate::sys::{self, Handle};

const FILES: usize = 50;

pub fn run(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    let until = Instant::now() + Duration::from_secs(run.seconds);
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < until {
        round(&dirs[rounds % dirs.len()], dirs, rounds, run.sabotage).at(format_args!("round {rounds}"))?;
        rounds += 1;
    }
    Ok(format!("{rounds} rounds of {FILES} files, caches dropped between name and open"))
}

fn round(dir: &Path, dirs: &[PathBuf], round: usize, sabotage: bool) -> Check {
    let name = format!("tree-{round}");
    let dir = dir.join(&name);
    sys::mkdir(&dir, 0o755)?;
    sys::mkdir(dir.join("sub"), 0o755)?;
    let mut handles = Vec::new();
    for n in 0..FILES {
        let path = dir.join(format!("sub/file-{n}"));
        sys::write_file(&path, format!("file {n} of round {round}").as_bytes())?;
        handles.push(sys::name_to_handle(&path)?);
    }
    let directory = sys::name_to_handle(dir.join("sub"))?;
    sys::rename(dir.join("sub/file-0"), dir.join("moved"))?;
    sys::rename(dir.join("sub"), dir.join("elsewhere"))?;
    if sabotage {
        handles.swap(1, 2);
    }
    drop_caches()?;
    for mount in dirs {
        let mount = sys::open(mount, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        for (n, handle) in handles.iter().enumerate() {
            let fd = sys::open_by_handle(&mount, handle, libc::O_RDONLY).at(format_args!("handle of file {n}"))?;
            let content = sys::read_to_end(&fd, 0)?;
            let due = format!("file {n} of round {round}");
            ensure!(content == due.as_bytes(), "{due} opened by handle reads {:?}", String::from_utf8_lossy(&content));
        }
        let fd = sys::open_by_handle(&mount, &directory, libc::O_RDONLY | libc::O_DIRECTORY).at("the directory's")?;
        sys::openat(&fd, "file-1", libc::O_RDONLY, 0).at("in a directory opened by handle")?;
    }
    crate::remove_tree(&dir)?;
    drop_caches()?;
    gone(dirs, &handles)
}

/// A FUSE kernel tells its server of a last close when it has returned, and until then the inode lives.
const LAST_CLOSE_MAX: Duration = Duration::from_secs(2);

/// The inodes are gone: the handles are stale, also where new inodes took their places.
fn gone(dirs: &[PathBuf], handles: &[Handle]) -> Check {
    let again: Vec<PathBuf> = (0..FILES).map(|n| dirs[0].join(format!("again-{n}"))).collect();
    for path in &again {
        sys::write_file(path, b"another")?;
    }
    for path in dirs {
        let mount = sys::open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        for (n, handle) in handles.iter().enumerate() {
            let until = Instant::now() + LAST_CLOSE_MAX;
            while sys::open_by_handle(&mount, handle, libc::O_RDONLY).is_ok() && Instant::now() < until {
                drop_caches()?;
            }
            match sys::open_by_handle(&mount, handle, libc::O_RDONLY) {
                Err(e) => ensure!(e.code == libc::ESTALE, "the handle of removed file {n}: {e}"),
                Ok(fd) => {
                    let (links, content) = (sys::fstat(&fd)?.st_nlink, sys::read_to_end(&fd, 0)?);
                    let content = String::from_utf8_lossy(&content).into_owned();
                    return fault(format!("{}: removed file {n} opens, {links} links, {content:?}", path.display()));
                }
            }
        }
    }
    again.iter().try_for_each(|path| Ok(sys::unlink(path)?))
}

/// Dentries and inodes; needs root, as opening by handle does.
fn drop_caches() -> Check {
    fs::write("/proc/sys/vm/drop_caches", "3").map_err(|e| Fault(format!("/proc/sys/vm/drop_caches: {e}")))
}

/// Writes the handle of a file, in hexadecimal, to `into`.
pub fn keep(path: &Path, into: &Path) -> Check {
    let handle = sys::name_to_handle(path).at(path.display())?;
    fs::write(into, handle.to_text()).map_err(|e| Fault(format!("{}: {e}", into.display())))
}

/// Opens what `keep` wrote, below the mount, and writes the file's content to standard output.
pub fn again(mount: &Path, from: &Path) -> Check {
    let text = fs::read_to_string(from).map_err(|e| Fault(format!("{}: {e}", from.display())))?;
    let Some(handle) = Handle::from_text(&text) else {
        return fault(format!("{} holds no handle", from.display()));
    };
    let mount = sys::open(mount, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let fd = sys::open_by_handle(&mount, &handle, libc::O_RDONLY)?;
    let content = sys::read_to_end(&fd, 0)?;
    std::io::stdout().write_all(&content).map_err(|e| Fault(format!("standard output: {e}")))
}
