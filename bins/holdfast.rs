//! Every role and every command of Holdfast; see `holdfast::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast::cli::main()
}
