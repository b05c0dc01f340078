//! `holdfast config`: what holds, and where it came from.

use crate::cli::args::{CommonArgs, ConfigArgs, ConfigCommand};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::out::print;
use crate::cli::settings::settings;
use crate::config::layer::{Flags, example};
use crate::config::roles::TABLES;

/// # Errors
/// A layer of the settings cannot be used, or there is no such section.
pub fn run(common: &CommonArgs, args: ConfigArgs) -> Outcome {
    match args.command {
        ConfigCommand::Example => print(example()),
        ConfigCommand::Print { role } => {
            let names: Vec<&str> = TABLES.iter().map(|section| section.name).collect();
            if let Some(role) = role.as_deref().filter(|role| !names.contains(role)) {
                return Err(Failure::usage(format!(
                    "there is no section `{role}`; the sections are {}",
                    names.join(", ")
                )));
            }
            print(settings(common, Flags::default())?.print(role.as_deref()))
        }
    }
}
