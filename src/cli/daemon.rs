//! What every role's process begins with: settings, log, runtime.

use crate::cli::failure::{Failure, Outcome};
use crate::config::roles::CommonConfig;
use crate::config::value::LogFormat;
use crate::daemon::worker::abort_on_panic;
use crate::telemetry::log;

/// Starts the log and makes a panic the end of the process.
///
/// # Errors
/// The filter does not parse; a usage error.
pub fn begin(common: &CommonConfig) -> Outcome {
    let format = match common.log_format {
        LogFormat::Text => log::LogFormat::Text,
        LogFormat::Json => log::LogFormat::Json,
    };
    log::init(format, &common.log).map_err(Failure::usage)?;
    abort_on_panic();
    raise_descriptor_limit();
    Ok(())
}

/// A daemon has a descriptor for every pack, log segment and connection: the soft limit is for `select` users.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write the one struct, which lives through them.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if !raised {
        tracing::warn!("the limit of open files could not be raised");
    }
}
