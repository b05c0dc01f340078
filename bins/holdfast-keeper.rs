//! Keeps a mount alive while its clients come and go; see `holdfast::keeper`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: holdfast-keeper COMMAND [ARGUMENT]...
       holdfast-keeper --serve SOCKET [--] PROGRAM

Starts a mount (`holdfast mount … --foreground`) and keeps what the kernel knows it by: when its process ends without having
unmounted, another one is started and goes on. SIGHUP replaces the process, by whatever program is there by then; SIGTERM
and SIGINT unmount.

--serve starts mounts for others, who ask on a socket: `holdfast csi --mounts-socket SOCKET` in a container that may be replaced.";

fn main() -> ExitCode {
    let command: Vec<_> = std::env::args_os().skip(1).collect();
    match command.first().map(|first| first.to_string_lossy()) {
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
        Some(first) if first == "--help" || first == "-h" => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Some(first) if first == "--version" => {
            println!("holdfast-keeper {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(first) if first == "--serve" => serve(&command[1..]),
        _ => holdfast::keeper::watch::run(command).unwrap_or_else(|error| {
            eprintln!("holdfast-keeper: {error}");
            ExitCode::FAILURE
        }),
    }
}

fn serve(arguments: &[OsString]) -> ExitCode {
    let (socket, program) = match arguments {
        [socket, dashes, program] if dashes == "--" => (socket, program),
        [socket, program] => (socket, program),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match holdfast::keeper::service::serve(Path::new(socket), program.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-keeper: {}: {error}", Path::new(socket).display());
            ExitCode::FAILURE
        }
    }
}
