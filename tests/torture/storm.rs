//! Create, rename, link, unlink, mkdir and list storms in one directory: no call fails that should not, none takes over
//! 20 seconds, every listing shows every name that stays, and at the end all mounts list the same.
//!
//! Every process has names of its own, which nobody else touches, so it knows what each call on them must answer; and
//! all of them fight over a few shared names.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::Run;
use crate::fault::{At, Check, Fault, ensure};
use crate::procs::{self, Worker};
use crate::sys::{self, Sys};

const OWN_NAMES_MAX: usize = 100;
const SHARED_NAMES: u64 = 8;

pub fn run(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    let reports = procs::run(run, dirs, |worker| Storm::new(worker).rage(run.sabotage))?;
    let mut expected = BTreeSet::new();
    for (index, report) in reports.iter().enumerate() {
        expected.extend(report[1..].iter().map(|n| own_name(index, *n)));
    }
    let first = sys::list(&dirs[0])?;
    for dir in dirs {
        let listed = sys::list(dir)?;
        ensure!(listed == first, "{} lists {} names, {} others", dir.display(), listed.len(), first.len());
        for entry in &listed {
            let name = String::from_utf8_lossy(&entry.name);
            let stat = sys::lstat(dir.join(&*name)).at(format_args!("listed {name}"))?;
            ensure!(stat.st_ino == entry.ino, "{name}: listed as inode {}, is {}", entry.ino, stat.st_ino);
        }
        let own: BTreeSet<String> = listed
            .iter()
            .map(|e| String::from_utf8_lossy(&e.name).into_owned())
            .filter(|name| !name.starts_with("shared"))
            .collect();
        let odd: Vec<_> = own.symmetric_difference(&expected).take(8).collect();
        ensure!(odd.is_empty(), "{}: lost or left over: {odd:?}", dir.display());
    }
    let calls: u64 = reports.iter().map(|r| r[0]).sum();
    Ok(format!("{calls} calls, {} names left", first.len()))
}

fn own_name(index: usize, n: u64) -> String {
    format!("own-{index}-{n}{}", if n.is_multiple_of(5) { ".d" } else { "" })
}

struct Storm<'a> {
    worker: &'a mut Worker,
    /// The numbers of the names of its own that exist; multiples of five are directories.
    own: BTreeSet<u64>,
    /// Those that got a second name among the shared ones. Renaming one over that name would do nothing, by POSIX.
    linked: BTreeSet<u64>,
    next: u64,
    calls: u64,
}

impl Storm<'_> {
    fn new(worker: &mut Worker) -> Storm<'_> {
        Storm { worker, own: BTreeSet::new(), linked: BTreeSet::new(), next: 0, calls: 0 }
    }

    /// Answers `[calls, names left…]`.
    fn rage(mut self, sabotage: bool) -> Check<Vec<u64>> {
        while self.worker.time_is_left() {
            self.calls += 1;
            match self.worker.random.below(20) {
                0..6 => self.create()?,
                6..10 => self.remove()?,
                10..13 => self.rename_own()?,
                13 => self.own_over_shared()?,
                14..19 => self.fight()?,
                _ => self.list()?,
            }
        }
        self.list()?;
        if sabotage && self.worker.index == 0 {
            self.create()?;
            self.own.pop_last();
        }
        Ok(std::iter::once(self.calls).chain(self.own).collect())
    }

    fn path(&self, n: u64) -> PathBuf {
        self.worker.dir.join(own_name(self.worker.index, n))
    }

    fn shared_path(&mut self) -> PathBuf {
        let n = self.worker.random.below(SHARED_NAMES);
        self.worker.dir.join(format!("shared-{n}"))
    }

    fn create(&mut self) -> Check {
        if self.own.len() >= OWN_NAMES_MAX {
            return self.remove();
        }
        let n = self.next;
        let path = self.path(n);
        let made = if n.is_multiple_of(5) {
            sys::mkdir(&path, 0o755)
        } else {
            sys::open(&path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o644).map(|_| ())
        };
        made.at(path.display())?;
        self.next += 1;
        self.own.insert(n);
        Ok(())
    }

    fn any_own(&mut self) -> Option<u64> {
        let place = self.worker.random.below(self.own.len().max(1) as u64) as usize;
        self.own.iter().nth(place).copied()
    }

    fn remove(&mut self) -> Check {
        let Some(n) = self.any_own() else { return Ok(()) };
        let path = self.path(n);
        if n.is_multiple_of(5) { sys::rmdir(&path) } else { sys::unlink(&path) }.at(path.display())?;
        self.own.remove(&n);
        self.linked.remove(&n);
        let after = sys::lstat(&path).map(|_| ());
        ensure!(after.is_err_and(|e| e.code == libc::ENOENT), "{} was removed and is there", path.display());
        Ok(())
    }

    /// To a new name, or over another of its own of the same kind.
    fn rename_own(&mut self) -> Check {
        let Some(from) = self.any_own() else { return Ok(()) };
        let onto = self.any_own().filter(|to| to.is_multiple_of(5) == from.is_multiple_of(5) && *to != from);
        let to = onto.unwrap_or_else(|| {
            while self.next.is_multiple_of(5) != from.is_multiple_of(5) {
                self.next += 1;
            }
            self.next += 1;
            self.next - 1
        });
        let (from_path, to_path) = (self.path(from), self.path(to));
        sys::rename(&from_path, &to_path).at(format_args!("{} to {}", from_path.display(), to_path.display()))?;
        self.own.remove(&from);
        self.own.insert(to);
        self.linked.remove(&to);
        if self.linked.remove(&from) {
            self.linked.insert(to);
        }
        sys::lstat(&to_path).at(to_path.display())?;
        Ok(())
    }

    fn own_over_shared(&mut self) -> Check {
        let Some(n) = self.any_own().filter(|n| !n.is_multiple_of(5)) else { return Ok(()) };
        let (from, to) = (self.path(n), self.shared_path());
        if self.linked.contains(&n) || self.worker.random.once_in(2) {
            self.linked.insert(n);
            return allow(&[libc::EEXIST], sys::link(&from, &to)).at(to.display());
        }
        sys::rename(&from, &to).at(format_args!("{} to {}", from.display(), to.display()))?;
        self.own.remove(&n);
        Ok(())
    }

    /// What others may have done to the name first decides the answer; anything else is wrong.
    fn fight(&mut self) -> Check {
        let (path, other) = (self.shared_path(), self.shared_path());
        let outcome = match self.worker.random.below(5) {
            0 => allow(&[], sys::open(&path, libc::O_WRONLY | libc::O_CREAT, 0o644).map(|_| ())),
            1 => allow(&[libc::ENOENT], sys::unlink(&path)),
            2 => allow(&[libc::ENOENT], sys::rename(&path, &other)),
            3 => allow(&[libc::ENOENT, libc::EEXIST], sys::link(&path, &other)),
            _ => allow(&[libc::ENOENT], sys::renameat2(&path, &other, libc::RENAME_EXCHANGE)),
        };
        outcome.at(format_args!("{} {}", path.display(), other.display()))
    }

    /// Every name of its own, once, and none that is gone.
    fn list(&mut self) -> Check {
        let prefix = format!("own-{}-", self.worker.index);
        let listed: Vec<String> = sys::list(&self.worker.dir)?
            .iter()
            .map(|e| String::from_utf8_lossy(&e.name).into_owned())
            .filter(|name| name.starts_with(&prefix))
            .collect();
        let mut expected: Vec<String> = self.own.iter().map(|n| own_name(self.worker.index, *n)).collect();
        expected.sort();
        ensure!(listed == expected, "listed {listed:?}, there are {expected:?}");
        Ok(())
    }
}

fn allow(codes: &[i32], outcome: Sys<()>) -> Check {
    match outcome {
        Err(e) if !codes.contains(&e.code) => Err(Fault::from(e)),
        _ => Ok(()),
    }
}
