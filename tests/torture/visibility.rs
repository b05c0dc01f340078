//! What a call through one mount has done, the next call through another sees: data, size, attributes, names, xattrs,
//! locks, and files unlinked while open.
//!
//! Each check prepares, looks through mount B and must *not* see the change yet (which fills B's caches and proves that
//! the check can fail), acts through mount A, looks again and must see it. One process makes all the calls, so "next"
//! is exact.

mod checks;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Run;
use crate::fault::{At, Check, ensure};
use crate::random::Random;
use crate::sys;

/// Two views of one fresh directory, and what a check keeps open between its steps.
pub struct Scene {
    pub a: PathBuf,
    pub b: PathBuf,
    /// Held through mount A.
    pub at_a: RefCell<Option<OwnedFd>>,
    /// Held through mount B.
    pub at_b: RefCell<Option<OwnedFd>>,
}

impl Scene {
    pub fn a(&self, name: &str) -> PathBuf {
        self.a.join(name)
    }

    pub fn b(&self, name: &str) -> PathBuf {
        self.b.join(name)
    }

    pub fn hold_a(&self, fd: OwnedFd) {
        *self.at_a.borrow_mut() = Some(fd);
    }

    pub fn hold_b(&self, fd: OwnedFd) {
        *self.at_b.borrow_mut() = Some(fd);
    }
}

pub struct Visible {
    pub name: &'static str,
    pub prepare: fn(&Scene) -> Check,
    pub act: fn(&Scene) -> Check,
    /// True when the change is seen through mount B.
    pub seen: fn(&Scene) -> Check<bool>,
    /// Zero but for what a FUSE kernel tells its server only after the call has returned: the last close of a file.
    pub within: Duration,
}

pub fn run(run: &Run, dirs: &[PathBuf]) -> Check<String> {
    let until = Instant::now() + Duration::from_secs(run.seconds);
    let mut random = Random::new(run.seed);
    let all = checks::all();
    if run.sabotage {
        return every_check_fails_without_its_act(&all, dirs);
    }
    let mut made = 0_u64;
    while made == 0 || Instant::now() < until {
        for check in &all {
            let (a, b) = two_of(dirs.len(), &mut random);
            let quiet = random.once_in(2);
            one(check, &dirs[a], &dirs[b], made, true, quiet).at(format_args!(
                "{} (made at mount {}, looked for at {})",
                check.name,
                a + 1,
                b + 1
            ))?;
            made += 1;
        }
    }
    Ok(format!("{} checks, {made} times", all.len()))
}

fn two_of(count: usize, random: &mut Random) -> (usize, usize) {
    let a = random.below(count as u64) as usize;
    let b = random.below(count as u64 - 1).min(count as u64) as usize;
    (a, if b >= a { b + 1 } else { b })
}

fn one(check: &Visible, a: &std::path::Path, b: &std::path::Path, n: u64, act: bool, warm_a: bool) -> Check {
    let name = format!("scene-{n}");
    let scene = Scene { a: a.join(&name), b: b.join(&name), at_a: RefCell::new(None), at_b: RefCell::new(None) };
    sys::mkdir(&scene.a, 0o755)?;
    (check.prepare)(&scene).at("prepare")?;
    if warm_a {
        sys::list(&scene.a).at("list")?;
    }
    ensure!(!(check.seen)(&scene).at("look before")?, "seen before it was done: the check is worth nothing");
    if act {
        (check.act)(&scene).at("act")?;
    }
    let until = Instant::now() + check.within;
    while !(check.seen)(&scene).at("look after")? {
        ensure!(Instant::now() < until, "not seen");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(scene);
    crate::remove_tree(&a.join(name))
}

fn every_check_fails_without_its_act(all: &[Visible], dirs: &[PathBuf]) -> Check<String> {
    for (n, check) in all.iter().enumerate() {
        if one(check, &dirs[0], &dirs[1], n as u64, false, false).is_ok() {
            return Ok(format!("{} passes although nothing was done", check.name));
        }
    }
    crate::fault::fault(format!("all {} checks fail when their act is left out", all.len()))
}
