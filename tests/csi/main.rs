//! A driver of the Container Storage Interface under test, as its specification, Kubernetes and csi-sanity 5.5 demand it.
//!
//! ```text
//! csi SOCKET --dir DIR --credential FILE [--only TEXT]
//!                                        every case against the driver on SOCKET; DIR is for staging and targets, and
//!                                        FILE a client's credential, which calls bring as a secret
//! csi SOCKET --dir DIR --keep NAME       a volume csi-NAME, staged and published: prints its target
//! csi SOCKET --dir DIR --away NAME       what its node answers while the cluster is away
//! csi SOCKET --dir DIR --unpublish NAME  takes it from its target
//! csi SOCKET --dir DIR --end NAME        takes it off, and removes it
//! csi                                    checks of the list of cases itself, as `cargo test` runs it
//! ```
//!
//! A case is called by a sentence. Those that csi-sanity has too bear its name behind a number sign, and `PUBLISHED` lists them all: a
//! case that is in one and not in the other is a fault. Where a capability is not advertised, the case is that its call is
//! `UNIMPLEMENTED`.

mod call;
mod controller;
mod held;
mod identity;
mod node;
mod published;
mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::published::PUBLISHED;
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
    #[arg(long)]
    keep: Option<String>,
    #[arg(long)]
    away: Option<String>,
    #[arg(long)]
    unpublish: Option<String>,
    #[arg(long)]
    end: Option<String>,
    #[arg(long, value_name = "METHOD")]
    call: Option<String>,
    #[arg(requires = "call", value_name = "KEY=VALUE")]
    fields: Vec<String>,
}

fn main() -> ExitCode {
    let cases: Vec<Case> = [identity::cases(), controller::cases(), node::cases()].into_iter().flatten().collect();
    // What cargo passes on (a filter, --quiet) is nothing to this program.
    if std::env::args().nth(1).is_none_or(|first| !first.starts_with('/')) {
        return check_list(&cases);
    }
    let run = Run::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run_all(&run, &cases)),
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
        Run { away: Some(name), .. } => Some(held::away(&mut world, name).await),
        Run { unpublish: Some(name), .. } => Some(held::unpublish(&mut world, name).await),
        Run { call: Some(method), fields, .. } => Some(call::call(&mut world, method, fields).await),
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
    let sound = missing.is_empty() && strange.is_empty() && had.len() == unique.len();
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
