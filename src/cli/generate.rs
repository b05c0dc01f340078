//! `holdfast generate`: what a package installs beside the program, made from the same description of the command line as its help.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};

use crate::cli::args::{Cli, GenerateArgs, GenerateCommand};
use crate::cli::failure::{Context, Outcome};
use crate::cli::out::print;

/// # Errors
/// A file cannot be written.
pub fn run(args: GenerateArgs) -> Outcome {
    match args.command {
        GenerateCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut script);
            print(String::from_utf8_lossy(&script))
        }
        GenerateCommand::Man { dir } => {
            fs::create_dir_all(&dir).or_fail(|| dir.display().to_string())?;
            let mut program = Cli::command();
            program.build();
            pages(&program, "holdfast", &dir)
        }
    }
}

/// A page for a command and for each of those below it: `holdfast-volume-create.1`.
fn pages(command: &Command, name: &str, dir: &Path) -> Outcome {
    let file = dir.join(format!("{name}.1"));
    let mut page = Vec::new();
    let page_of = clap_mangen::Man::new(command.clone()).title(name);
    let written = page_of.render(&mut page).and_then(|()| fs::write(&file, page));
    written.or_fail(|| file.display().to_string())?;
    command
        .get_subcommands()
        .filter(|below| !below.is_hide_set() && below.get_name() != "help")
        .try_for_each(|below| pages(below, &format!("{name}-{}", below.get_name()), dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        run(GenerateArgs { command: GenerateCommand::Man { dir: dir.path().to_path_buf() } }).unwrap();
        let page = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(page("holdfast.1").contains("distributed POSIX filesystem"));
        assert!(page("holdfast-volume-create.1").contains("quota"));
        assert!(page("holdfast-mount.1").contains("fB\\-\\-foreground"));
        for command in Cli::command().get_subcommands() {
            let name = format!("holdfast-{}.1", command.get_name());
            assert!(command.is_hide_set() || dir.path().join(&name).exists(), "{name}");
        }
    }
}
