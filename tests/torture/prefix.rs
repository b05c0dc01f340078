//! What survives of a mount that is killed is a prefix of what was done through it, with nothing synced.
//!
//! The writer makes files (written beside, closed, renamed) and directories, and removes those of a while ago, in an order
//! that the checker knows. After the crash the names that are there must be those of some moment of that order, and a file
//! that has got its name must be whole.

use std::collections::BTreeSet;
use std::path::Path;

use crate::fault::{At, Check, Fault, ensure, fault};
use crate::random::Random;
use crate::record::{self, Tag};
use crate::sys;

/// How long what was made stays.
const STAY: u64 = 8;

/// One call, or a few of which only the first changes a name.
enum Step {
    Write(u64),
    Rename(u64),
    Mkdir(u64),
    Unlink(u64),
    Rmdir(u64),
}

/// What is done in the round of this number.
fn round(number: u64) -> Vec<Step> {
    let mut steps = vec![Step::Write(number), Step::Rename(number), Step::Mkdir(number)];
    if let Some(old) = number.checked_sub(STAY) {
        steps.extend([Step::Unlink(old), Step::Rmdir(old)]);
    }
    steps
}

fn names(number: u64) -> [String; 3] {
    [format!("new-{number}"), format!("file-{number}"), format!("dir-{number}")]
}

/// Every seventh is too large to stay inline.
fn content(number: u64) -> Vec<u8> {
    let bytes = if number.is_multiple_of(7) { 40_000 } else { 100 + (number % 50) as usize * 40 };
    record::encode(Tag { writer: 0, sequence: number }, bytes, &mut Random::new(number))
}

/// Works until a call fails, or so many rounds.
fn work(dir: &Path, rounds: u64) -> Check<u64> {
    for number in 0..rounds {
        for step in round(number) {
            if let Err(error) = take(dir, &step) {
                ensure!(number > STAY, "round {number}: {error}");
                return Ok(number);
            }
        }
    }
    Ok(rounds)
}

fn take(dir: &Path, step: &Step) -> std::io::Result<()> {
    let path = |number: u64, which: usize| dir.join(&names(number)[which]);
    match step {
        Step::Write(number) => std::fs::write(path(*number, 0), content(*number)),
        Step::Rename(number) => std::fs::rename(path(*number, 0), path(*number, 1)),
        Step::Mkdir(number) => std::fs::create_dir(path(*number, 2)),
        Step::Unlink(number) => std::fs::remove_file(path(*number, 1)),
        Step::Rmdir(number) => std::fs::remove_dir(path(*number, 2)),
    }
}

fn note(there: &mut BTreeSet<String>, step: &Step) {
    match step {
        Step::Write(number) => drop(there.insert(names(*number)[0].clone())),
        Step::Rename(number) => {
            let [new, file, _] = names(*number);
            there.remove(&new);
            there.insert(file);
        }
        Step::Mkdir(number) => drop(there.insert(names(*number)[2].clone())),
        Step::Unlink(number) => drop(there.remove(&names(*number)[1])),
        Step::Rmdir(number) => drop(there.remove(&names(*number)[2])),
    }
}

/// Of which round, and how many calls in, the directory is.
fn check(dir: &Path) -> Check<(u64, usize)> {
    let listed: BTreeSet<String> = sys::list(dir)
        .at(dir.display())?
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
        .collect();
    let number = |name: &String| name.rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
    for name in listed.iter().filter(|name| name.starts_with("file-")) {
        let Some(number) = number(name) else { return fault(format!("{name} is none of ours")) };
        let found = sys::read_file(dir.join(name)).at(name)?;
        ensure!(found == content(number), "{name} has its name and is not whole: {} bytes", found.len());
    }
    let last = listed.iter().filter_map(number).max().unwrap_or(0);
    let mut there = BTreeSet::new();
    if listed.is_empty() {
        return Ok((0, 0));
    }
    for number in 0..=last + 1 {
        for (step, taken) in round(number).iter().enumerate() {
            note(&mut there, taken);
            if there == listed {
                return Ok((number, step + 1));
            }
        }
    }
    fault(format!("at no moment there was what is there: {listed:?}"))
}

pub fn writer_main(dir: &Path) -> Check {
    println!("rounds={}", work(dir, u64::MAX)?);
    Ok(())
}

pub fn check_main(dir: &Path) -> Check {
    let (number, steps) = check(dir)?;
    ensure!(number > STAY, "only {number} rounds survived, which proves nothing");
    println!("a prefix of {number} rounds and {steps} calls");
    Ok(())
}

/// On a local directory: a prefix is one, and what is none is noticed.
pub fn self_test(dir: &Path) -> Check<String> {
    let dir = dir.join("prefix");
    std::fs::create_dir(&dir).map_err(|e| Fault(e.to_string()))?;
    work(&dir, 30)?;
    let found = check(&dir)?;
    ensure!(found == (29, 5), "{found:?}");
    std::fs::remove_dir(dir.join("dir-25")).map_err(|e| Fault(e.to_string()))?;
    ensure!(check(&dir).is_err(), "a gap was not noticed");
    std::fs::create_dir(dir.join("dir-25")).map_err(|e| Fault(e.to_string()))?;
    std::fs::write(dir.join("file-28"), b"torn").map_err(|e| Fault(e.to_string()))?;
    ensure!(check(&dir).is_err(), "a torn file was not noticed");
    Ok("30 rounds".into())
}
