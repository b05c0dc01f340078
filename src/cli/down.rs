//! `holdfast down`: stops what `holdfast up` started.
//!
//! The pid is in the data directory's LOCK, and the lock itself says whether that process lives: a stale pid is never
//! signalled. It has stopped when the lock is free.

use std::time::{Duration, Instant};

use crate::cli::args::{CommonArgs, DownArgs};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::out::print_line;
use crate::cli::settings::settings;
use crate::cli::up::place;
use crate::config::layer::Flags;
use crate::host::data_dir::{DataDir, DataDirError};

const PAUSE: Duration = Duration::from_millis(50);

/// # Errors
/// There is no such cluster, or it does not stop in time.
pub fn run(common: &CommonArgs, args: DownArgs) -> Outcome {
    let mut flags = Flags::default();
    flags.set("up", "data", args.data.as_ref().map(|path| path.to_string_lossy().into_owned()));
    let data = place::data_dir(&settings(common, flags)?.section()?)?;
    let pid = match DataDir::open(&data, place::KIND, None) {
        Ok(_) => {
            return print_line(format_args!("nothing is running on {}", data.display()));
        }
        Err(DataDirError::Held { pid: Some(pid), .. }) => pid,
        Err(error) => return Err(Failure::new(error)),
    };
    let pid = libc::pid_t::try_from(pid).map_err(Failure::new)?;
    // SAFETY: takes no pointers; the lock shows that the process lives.
    if unsafe { libc::kill(pid, libc::SIGTERM) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Failure::new(format!("process {pid} cannot be stopped: {error}")));
    }
    let begun = Instant::now();
    while begun.elapsed() < args.timeout.0 {
        if DataDir::open(&data, place::KIND, None).is_ok() {
            return print_line("stopped");
        }
        std::thread::sleep(PAUSE);
    }
    Err(Failure::new(format!(
        "process {pid} has not stopped within {}; is something using its mount? A second `holdfast down` takes the \
         mount away",
        args.timeout
    )))
}
