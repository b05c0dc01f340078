//! The command by which a mount is made again: what its keeper starts, first and whenever a process of it has ended.
//!
//! It works in `/`, without a terminal, and may be started by a later release: it names all that was given on the command line, with
//! absolute paths, and leaves to the settings what came from them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::args::{CommonArgs, MountArgs};
use crate::cli::failure::{Context, Outcome};
use crate::cli::settings::{absolute, named_file};
use crate::config::roles::MountConfig;
use crate::host::facts::{KERNEL_RESENDS, mounts_outlive_processes};

/// Beside the program itself.
const KEEPER: &str = "holdfast-keeper";

/// A mount that goes to the background.
pub struct Again<'a> {
    pub given: &'a CommonArgs,
    pub args: &'a MountArgs,
    pub config: &'a MountConfig,
    /// What stands behind `-o`, without the credential.
    pub options: &'a [String],
    pub mountpoint: &'a Path,
}

impl Again<'_> {
    /// How a keeper makes this mount; `None` where it is to have none, or there is no such program.
    ///
    /// # Errors
    /// A path cannot be used.
    pub fn kept(&self, credential: &Path, token: Option<&str>) -> Outcome<Option<Command>> {
        if !self.config.keeper {
            return Ok(None);
        }
        let program = std::env::current_exe().or_fail(|| "this program cannot be found".to_string())?;
        let keeper = program.with_file_name(KEEPER);
        if !keeper.exists() {
            eprintln!("holdfast: {} is not there: the mount will end with its process", keeper.display());
            return Ok(None);
        }
        if !mounts_outlive_processes() {
            let (major, minor) = KERNEL_RESENDS;
            eprintln!("holdfast: the mount will end with its process: to go on with it takes Linux {major}.{minor}");
            return Ok(None);
        }
        let mut command = Command::new(keeper);
        command.arg(program).args(self.arguments(credential)?);
        // It is in a file by then, or on its way there: what was spent is not asked for again.
        command.env("HOLDFAST_TOKEN_FILE", "");
        if let Some(token) = token {
            command.env("HOLDFAST_TOKEN", token);
        }
        Ok(Some(command))
    }

    fn arguments(&self, credential: &Path) -> Outcome<Vec<OsString>> {
        let (given, args) = (self.given, self.args);
        let mut line: Vec<OsString> = vec!["mount".into(), args.metas.to_string().into(), args.volume.clone().into()];
        line.extend([self.mountpoint.into(), "--foreground".into()]);
        let mut add = |flag: &str, value: Option<OsString>| {
            if let Some(value) = value {
                line.extend([flag.into(), value]);
            }
        };
        let file = |path: Option<PathBuf>| path.map(|path| absolute(&path).map(OsString::from)).transpose();
        add("--credential", Some(absolute(credential)?.into()));
        add("-o", Some(self.options.join(",")).filter(|options| !options.is_empty()).map(OsString::from));
        add("--config", file(named_file(given))?);
        add("--log", given.log.clone().map(OsString::from));
        add("--log-format", given.log_format.map(|format| format.name().into()));
        add("--memory", args.memory.clone().map(OsString::from));
        // From wherever it came, it was meant from where the command was given.
        add("--cache", file(Some(self.config.cache.clone()).filter(|cache| !cache.as_os_str().is_empty()))?);
        add("--cache-size", args.cache_size.clone().map(OsString::from));
        add("--threads", args.threads.map(|count| count.to_string().into()));
        add("--patience", args.patience.clone().map(OsString::from));
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command as Parsed};
    use crate::config::layer::{Flags, Settings, Sources};

    fn parsed(line: &[OsString]) -> (CommonArgs, MountArgs) {
        let cli = Cli::try_parse_from([&["holdfast".into()], line].concat()).unwrap();
        let Parsed::Mount(args) = cli.command else { panic!("another command") };
        (cli.common, args)
    }

    fn config(args: &MountArgs) -> MountConfig {
        let sources = Sources { flags: Flags::from(args), env: &|_| None, file: None };
        Settings::resolve(sources).unwrap().section().unwrap()
    }

    /// What a second process would be told, from what the first was told.
    fn again(line: &[OsString]) -> Vec<OsString> {
        let (given, args) = parsed(line);
        let mountpoint = absolute(&args.mountpoint).unwrap();
        let again = Again {
            given: &given,
            args: &args,
            config: &config(&args),
            options: &args.options,
            mountpoint: &mountpoint,
        };
        again.arguments(Path::new("client.credential")).unwrap()
    }

    #[test]
    fn the_same_mount_is_made_again() {
        let given = "mount a:1,b:2 web mnt -o ro,nosuid -o noatime --config set.toml --log debug --log-format json --memory 1GiB \
                     --cache c --cache-size 2GiB --threads 3 --patience 7s";
        let given: Vec<OsString> = given.split_whitespace().map(OsString::from).collect();
        let line = again(&given);
        let here = std::env::current_dir().unwrap();
        for named in ["mnt", "client.credential", "set.toml", "c"] {
            assert!(line.contains(&here.join(named).into()), "{named} in {line:?}");
        }
        let ((common_before, before), (common, args)) = (parsed(&given), parsed(&line));
        assert!(args.foreground);
        assert_eq!((args.metas.to_string(), &args.volume), (before.metas.to_string(), &before.volume));
        assert_eq!(args.options, ["ro,nosuid,noatime"]);
        assert_eq!((&common.log, common.log_format), (&common_before.log, common_before.log_format));
        let (had, has) = (config(&before), config(&args));
        assert_eq!(has, MountConfig { cache: here.join("c"), ..had });
        assert_eq!(again(&line), line, "and so on");
    }

    #[test]
    fn nothing_is_said_that_was_not() {
        let given: Vec<OsString> = ["mount", "a:1", "web", "/mnt"].map(OsString::from).to_vec();
        let line = again(&given);
        assert_eq!(line.len(), 7, "{line:?}");
    }
}
