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
    Ok(())
}
