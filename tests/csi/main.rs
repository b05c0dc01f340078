//! A driver of the Container Storage Interface under test, as its specification, Kubernetes and csi-sanity 5.5 demand it.
//!
//! ```text
//! csi SOCKET --dir DIR --credential FILE [--only TEXT]
//!                                        every case against the driver on SOCKET; DIR is for staging and targets, and
//!                                        FILE a client's credential, which calls bring as a secret
//! csi SOCKET --dir DIR --set SET         other cases, for a driver and a cluster that are as SET says
//! csi SOCKET --dir DIR --keep NAME       a volume csi-NAME, staged and published: prints its target
//! csi SOCKET --dir DIR --inline NAME     a volume csi-NAME that lives as long as a pod, published: prints its target
//! csi SOCKET --dir DIR --device NAME     a volume csi-NAME of 64 MiB that is a block device, or the one that is: prints its target
//! csi SOCKET --dir DIR --lives NAME      staged and published once more: it is well
//! csi SOCKET --dir DIR --away NAME       what its node answers while the cluster is away
//! csi SOCKET --dir DIR --adrift NAME     the same of a block device
//! csi SOCKET --dir DIR --unpublish NAME  takes it from its target
//! csi SOCKET --dir DIR --unstage NAME    takes it from its staging path
//! csi SOCKET --dir DIR --end NAME        takes it off, and removes it
//! csi SOCKET --dir DIR --ended NAME      waits until a volume that lived as long as a pod is removed
//! csi                                    checks of the list of cases itself, as `cargo test` runs it
//! ```
//!
//! A case is called by a sentence. Those that csi-sanity has too bear its name behind a number sign, and `PUBLISHED` lists them all: a
//! case that is in one and not in the other is a fault. Where a capability is not advertised, the case is that its call is
//! `UNIMPLEMENTED`.

mod block;
mod call;
mod controller;
mod health;
mod held;
mod identity;
mod node;
mod published;
mod topology;
mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::published::{PUBLISHED, REPLACED, SPECS};
use crate::world::{Case, World};

#[derive(Parser)]
#[command(name = "csi", about = "The cases that a CSI driver has to pass")]
struct Run {
    socket: PathBuf,
    #[arg(long, required_unless_present = "call")]
    dir: Option<PathBuf>,
    #[arg(long)]
    credential: Option<PathBuf>,
    #[arg(long, default_value = "")]
    only: String,
    #[arg(long, value_enum, default_value_t = Set::Sanity)]
    set: Set,
    #[arg(long)]
    keep: Option<String>,
    #[arg(long)]
    inline: Option<String>,
    #[arg(long)]
    device: Option<String>,
    #[arg(long)]
    lives: Option<String>,
    #[arg(long)]
    away: Option<String>,
    #[arg(long)]
    adrift: Option<String>,
    #[arg(long)]
    unpublish: Option<String>,
    #[arg(long)]
    unstage: Option<String>,
    #[arg(long)]
    end: Option<String>,
    #[arg(long)]
    ended: Option<String>,
    #[arg(long, value_name = "METHOD")]
    call: Option<String>,
    #[arg(requires = "call", value_name = "KEY=VALUE")]
    fields: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Set {
    /// Those of a driver as it is by default.
    Sanity,
    /// Of one of level 1.13.
    Health,
    /// The same, with a store down.
    Degraded,
    /// The same, with no server up.
    Away,
    /// Of a controller that was told where volumes are reached from.
    Topology,
    /// Of one whose volumes may be block devices.
    Block,
}

impl Set {
    fn cases(self) -> Vec<Case> {
        match self {
            Set::Sanity => [identity::cases(), controller::cases(), node::cases()].into_iter().flatten().collect(),
            Set::Health => health::well::cases(),
            Set::Degraded => health::degraded::cases(),
            Set::Away => health::away::cases(),
            Set::Topology => topology::cases(),
            Set::Block => block::cases(),
        }
    }
}

fn main() -> ExitCode {
    // What cargo passes on (a filter, --quiet) is nothing to this program.
    if std::env::args().nth(1).is_none_or(|first| !first.starts_with('/')) {
        return check_list(&Set::Sanity.cases());
    }
    let run = Run::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run_all(&run, &run.set.cases())),
        Err(error) => {
            eprintln!("csi: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run_all(run: &Run, cases: &[Case]) -> ExitCode {
    let dir = run.dir.clone().unwrap_or_default();
    let mut world = match World::connect(&run.socket, &dir, run.credential.as_deref()).await {
        Ok(world) => world,
        Err(error) => {
            eprintln!("csi: {}: {error}", run.socket.display());
            return ExitCode::FAILURE;
        }
    };
    let step = match run {
        Run { keep: Some(name), .. } => Some(held::keep(&mut world, name).await),
        Run { device: Some(name), .. } => Some(held::keep_device(&mut world, name).await),
        Run { inline: Some(name), .. } => Some(held::keep_inline(&mut world, name).await),
        Run { lives: Some(name), .. } => Some(held::lives(&mut world, name).await),
        Run { adrift: Some(name), .. } => Some(held::adrift(&mut world, name).await),
        Run { away: Some(name), .. } => Some(held::away(&mut world, name).await),
        Run { unpublish: Some(name), .. } => Some(held::unpublish(&mut world, name).await),
        Run { unstage: Some(name), .. } => Some(held::unstage_now(&mut world, name).await),
        Run { call: Some(method), fields, .. } => Some(call::call(&mut world, method, fields).await),
        Run { ended: Some(name), .. } => Some(held::ended(&mut world, name).await),
        Run { end: Some(name), .. } => Some(held::end(&mut world, name).await),
        _ => None,
    };
    if let Some(outcome) = step {
        outcome.iter().for_each(|said| println!("{said}"));
        outcome.as_ref().err().iter().for_each(|fault| eprintln!("csi: {fault}"));
        return if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (mut passed, mut failed) = (0, 0);
    for case in cases.iter().filter(|case| case.name.contains(&run.only)) {
        let outcome = (case.run)(&mut world).await;
        let left = world.tidy().await;
        match outcome.and(left) {
            Ok(()) => passed += 1,
            Err(fault) => {
                failed += 1;
                println!("FAILED  {}: {fault}", case.name);
            }
        }
    }
    println!("{passed} cases passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check_list(cases: &[Case]) -> ExitCode {
    let had: Vec<&str> = cases.iter().filter_map(|case| Some(case.name.split_once(" #")?.1)).collect();
    let (unique, published): (BTreeSet<&str>, BTreeSet<&str>) =
        (had.iter().copied().collect(), PUBLISHED.iter().copied().collect());
    let missing: Vec<_> = published.difference(&unique).collect();
    let strange: Vec<_> = unique.difference(&published).collect();
    for name in &missing {
        println!("no case for {name}");
    }
    for name in &strange {
        println!("{name} is not published");
    }
    if had.len() != unique.len() {
        println!("a case is there twice");
    }
    println!("{} cases, {} of them published", cases.len(), unique.len());
    let sound = missing.is_empty() && strange.is_empty() && had.len() == unique.len() && is_accounted_for(&published);
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every one of csi-sanity's is a case here, or is replaced by one.
fn is_accounted_for(published: &BTreeSet<&str>) -> bool {
    let replacing: BTreeSet<&str> = REPLACED.iter().map(|replaced| replaced.by).collect();
    let replaced: usize = REPLACED.iter().map(|replaced| replaced.specs).sum();
    let unknown: Vec<_> = replacing.difference(published).collect();
    if !unknown.is_empty() {
        println!("no case is {unknown:?}");
    }
    let count = published.len() - replacing.len() + replaced;
    if count != SPECS {
        println!("{count} of csi-sanity's {SPECS} specs are accounted for");
    }
    unknown.is_empty() && count == SPECS
}
