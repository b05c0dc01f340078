//! The command line: every role and every operator's command, one file per noun.
//!
//! The one place that knows all engines and doors: it assembles a role from its settings and lets it run. Decides
//! nothing about data. Every command checks all it can before its first side effect, and fails with one sentence.

mod again;
mod api;
pub mod args;
mod bench;
mod bootstrap;
mod cluster;
mod config;
mod csi;
mod daemon;
mod detach;
mod dial;
mod docker;
mod down;
mod failure;
mod generate;
mod join;
mod keeping;
mod key;
mod map;
mod member;
mod meta;
mod mount;
mod mount_helper;
mod mountpoint;
mod of_mounts;
mod operator;
mod out;
mod preflight;
mod probe;
mod settings;
mod status;
mod store;
mod table;
mod token;
mod umount_helper;
mod up;
mod volume;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::args::{Cli, Command};
use crate::cli::failure::{Failure, Outcome};

/// The whole program: picks the command by its name and its arguments, runs it, and says what went wrong.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let program = Path::new(&name).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (program, outcome) = match program.as_str() {
        "mount.holdfast" | "mount.fuse.holdfast" | "mount.fuseblk.holdfast" => {
            ("mount.holdfast", mount_helper::run(arguments.collect()))
        }
        "umount.holdfast" | "umount.fuse.holdfast" | "umount.fuseblk.holdfast" => {
            ("umount.holdfast", umount_helper::run(arguments.collect()))
        }
        _ => ("holdfast", run(std::env::args_os())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(program),
    }
}

fn run(arguments: impl Iterator<Item = OsString>) -> Outcome {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let common = &cli.common;
    match cli.command {
        Command::Up(args) => up::run(common, args),
        Command::Down(args) => down::run(common, args),
        Command::Cluster(args) => cluster::run(common, args),
        Command::Meta(args) => meta::run(common, args),
        Command::Store(args) => store::run(common, args),
        Command::Mount(args) => mount::run(common, args),
        Command::Api(args) => api::run(common, args),
        Command::Docker(args) => docker::run(common, args),
        Command::Csi(args) => csi::run(common, args),
        Command::Sync(args) => umount_helper::sync(&args.path),
        Command::Volume(args) => volume::run(common, args),
        Command::Token(args) => token::run(common, args),
        Command::Key(args) => key::run(common, args),
        Command::Join(args) => join::run(common, args),
        Command::Status(args) => status::run(common, args),
        Command::Bootstrap(args) => bootstrap::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Probe(args) => probe::run(&args),
        Command::Preflight(args) => preflight::run(common, &args),
        Command::Bench(args) => bench::run(&args),
        Command::Config(args) => config::run(common, args),
    }
}

/// Prints what was asked for (help, version), or makes clap's page one sentence.
fn explain(error: &clap::Error) -> Outcome {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that closed the pipe has seen enough.
        let _ = error.print();
        return Ok(());
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Err(Failure::usage("a command is missing; `holdfast --help` lists them"));
    }
    let page = error.render().to_string();
    let text = page.split("\n\nUsage:").next().unwrap_or(&page);
    let text = text.split("\n\nFor more information").next().unwrap_or(text);
    let text = text.strip_prefix("error: ").unwrap_or(text).replace("\n\n  tip: ", "; ");
    Err(Failure::usage(format!("{}; `--help` says more", text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(line: &str) -> Failure {
        run(line.split(' ').map(OsString::from)).unwrap_err()
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_one_sentence() {
        for line in
            ["holdfast", "holdfast nonsense", "holdfast meta --lissten x", "holdfast mount a:1 v", "holdfast up --data"]
        {
            let failure = failure(line);
            assert_eq!(failure.code(), 2, "{line}");
            assert!(!failure.sentence().contains("Usage:"), "{}", failure.sentence());
        }
        assert!(failure("holdfast meta --lissten x").sentence().contains("--listen"));
        assert!(failure("holdfast meta --listen x").sentence().contains("host:port"));
    }
}
