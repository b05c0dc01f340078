//! Torture: real processes on several mounts of one directory, each scenario with a rule that must hold.
//!
//! ```text
//! torture DIR1 DIR2 [DIR3] --scenario NAME|all [--seconds N] [--processes N] [--seed S]
//! torture ack-writer --dir DIR --log FILE …      work, and note outside what was acknowledged
//! torture ack-check --dir DIR… --log FILE …      after the crash: is it all there?
//! torture prefix-writer DIR                      work without syncing until a call fails
//! torture prefix-check DIR                       after the crash: is it a prefix?
//! torture handles-keep PATH FILE                 the file handle of PATH, into FILE
//! torture handles-again MOUNT FILE               what the file of that handle holds
//! torture [NAME…]                                the self-test, as `cargo test` runs it
//! ```
//!
//! The directories are one directory seen through several mounts; giving a local directory twice tests the program
//! itself. The self-test does that with every scenario twice: as it is, when it must pass, and sabotaged, when the
//! program itself breaks the rule that the scenario guards (an omitted lock, a skipped call, a flipped byte) and the
//! scenario must notice. A scenario that cannot fail proves nothing.

mod ack;
mod append;
mod counter;
mod differential;
mod excl;
mod fault;
mod growing;
mod handles;
mod pages;
mod prefix;
mod procs;
mod random;
mod record;
mod replace;
mod storm;
mod sys;
mod turns;
mod visibility;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::fault::{At, Check, Fault, ensure, fault};

/// What a scenario is asked to do.
#[derive(Parser, Clone, Debug, Default)]
#[command(name = "torture", about = "Several mounts of one directory under fire")]
pub struct Run {
    /// One directory, seen through each of the mounts.
    #[arg(required = true)]
    pub dirs: Vec<PathBuf>,
    /// Which scenario, or `all`.
    #[arg(long)]
    pub scenario: String,
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Processes on each mount.
    #[arg(long, default_value_t = 2)]
    pub processes: usize,
    /// The same seed makes the same choices.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// `append`: a record's file position afterwards must be right too.
    #[arg(long)]
    pub offsets: bool,
    /// `differential`: the ext4 directory to compare with.
    #[arg(long)]
    pub reference: Option<PathBuf>,
    /// `differential`: stop after so many calls instead of by the clock.
    #[arg(long)]
    pub steps: Option<u64>,
    /// `differential`: compare the trees whole every so many calls; 1 finds the call that did it.
    #[arg(long, default_value_t = 100)]
    pub compare_every: u64,
    /// `differential`: say every call.
    #[arg(long)]
    pub verbose: bool,
    /// Break the rule on purpose; the scenario must fail. For the self-test.
    #[arg(long, hide = true)]
    pub sabotage: bool,
}

type Scenario = fn(&Run, &[PathBuf]) -> Check<String>;

/// By name. Each is given its own directory, seen through every mount, and answers with one line of figures.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("append", append::run),
    ("excl", excl::run),
    ("counter-flock", counter::by_flock),
    ("counter-fcntl", counter::by_fcntl),
    ("counter-ofd", counter::by_ofd),
    ("counter-mapped", counter::mapped),
    ("replace", replace::run),
    ("pages", pages::run),
    ("growing-log", growing::run),
    ("storm", storm::run),
    ("turns", turns::run),
    ("visibility", visibility::run),
    ("handles", handles::run),
    ("differential", differential::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("ack-writer") => ack::writer_main(),
        Some("ack-check") => ack::check_main(),
        Some("prefix-writer") if arguments.len() == 2 => prefix::writer_main(Path::new(&arguments[1])),
        Some("prefix-check") if arguments.len() == 2 => prefix::check_main(Path::new(&arguments[1])),
        Some("handles-keep") if arguments.len() == 3 => {
            handles::keep(Path::new(&arguments[1]), Path::new(&arguments[2]))
        }
        Some("handles-again") if arguments.len() == 3 => {
            handles::again(Path::new(&arguments[1]), Path::new(&arguments[2]))
        }
        _ if arguments.iter().any(|a| a.starts_with("--scenario") || a == "--help") => {
            absolute(Run::parse()).and_then(|run| run_named(&run))
        }
        _ => self_test(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fault(text)) => {
            eprintln!("torture: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run_named(run: &Run) -> Check {
    let chosen: Vec<_> = SCENARIOS.iter().filter(|(name, _)| run.scenario == "all" || run.scenario == *name).collect();
    ensure!(!chosen.is_empty(), "no scenario {:?}; there are {}", run.scenario, names());
    let mut failed = Vec::new();
    for (name, scenario) in chosen {
        let start = Instant::now();
        match in_own_directory(run, name, *scenario) {
            Ok(line) => {
                println!("ok     {name}: {line}, {} ({:.1} s)", procs::slowest(), start.elapsed().as_secs_f64())
            }
            Err(Fault(text)) => {
                println!("FAILED {name}: {text}\n       again: {}", replay(run, name));
                failed.push(*name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Scenarios change their working directory.
fn absolute(mut run: Run) -> Check<Run> {
    for dir in run.dirs.iter_mut().chain(&mut run.reference) {
        *dir = std::path::absolute(&dir).map_err(|e| Fault(format!("{}: {e}", dir.display())))?;
    }
    Ok(run)
}

fn names() -> String {
    SCENARIOS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The command that does the same again.
pub fn replay(run: &Run, name: &str) -> String {
    let dirs: Vec<String> = run.dirs.iter().map(|d| d.display().to_string()).collect();
    let reference = run.reference.as_ref().map(|r| format!(" --reference {}", r.display())).unwrap_or_default();
    format!(
        "torture {} --scenario {name} --seconds {} --processes {} --seed {}{reference}",
        dirs.join(" "),
        run.seconds,
        run.processes,
        run.seed
    )
}

/// Makes a directory for the scenario, sees that every mount shows it, runs, and takes it away when all was well.
fn in_own_directory(run: &Run, name: &str, scenario: Scenario) -> Check<String> {
    let own = format!("torture-{name}-{}-{}", run.seed, std::process::id());
    let dirs: Vec<PathBuf> = run.dirs.iter().map(|dir| dir.join(&own)).collect();
    sys::mkdir(&dirs[0], 0o777).at(dirs[0].display())?;
    for dir in &dirs {
        sys::stat(dir).at(format_args!("{} was made through {}", dir.display(), dirs[0].display()))?;
    }
    let line = scenario(run, &dirs)?;
    remove_tree(&dirs[0])?;
    for dir in &dirs {
        ensure!(sys::stat(dir).is_err(), "{} was removed and is still there", dir.display());
    }
    Ok(line)
}

pub fn remove_tree(dir: &Path) -> Check {
    std::fs::remove_dir_all(dir).map_err(|e| Fault(format!("remove {}: {e}", dir.display())))
}

/// Every scenario as it is and sabotaged, on a local directory given twice.
fn self_test(filters: &[String]) -> Check {
    let wanted = |name: &str| {
        let mut filters = filters.iter().filter(|f| !f.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|f| name.contains(f.as_str()))
    };
    let base = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let temporary = tempfile::tempdir_in(&base).map_err(|e| Fault(format!("{}: {e}", base.display())))?;
    let mut faults = Vec::new();
    for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| wanted(name)) {
        for sabotage in [false, true] {
            let dir = temporary.path().to_path_buf();
            let reference = dir.join(format!("reference-{name}-{sabotage}"));
            std::fs::create_dir(&reference).map_err(|e| Fault(e.to_string()))?;
            let run = Run {
                dirs: vec![dir.clone(), dir],
                scenario: (*name).to_string(),
                seconds: 1,
                processes: 2,
                seed: u64::from(std::process::id()),
                offsets: true,
                compare_every: 100,
                reference: Some(reference),
                sabotage,
                ..Run::default()
            };
            match (in_own_directory(&run, &format!("{name}-{sabotage}"), *scenario), sabotage) {
                (Ok(line), false) => println!("self-test {name} ... ok ({line})"),
                (Err(Fault(text)), true) => println!("self-test {name}, sabotaged ... ok (noticed: {text:.160})"),
                (Ok(line), true) => faults.push(format!("{name}, sabotaged, passed: {line}")),
                (Err(Fault(text)), false) => faults.push(format!("{name}, seed {}: {text}", run.seed)),
            }
        }
    }
    if wanted("ack") {
        let line = ack::self_test(temporary.path(), Duration::from_millis(700))?;
        println!("self-test ack ... ok ({line})");
    }
    if wanted("prefix") {
        let line = prefix::self_test(temporary.path())?;
        println!("self-test prefix ... ok ({line})");
    }
    if faults.is_empty() { Ok(()) } else { fault(faults.join("\n")) }
}
