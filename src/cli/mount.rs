//! `holdfast mount`.
use crate::cli::args::{CommonArgs, MountArgs};
use crate::cli::failure::{Failure, Outcome};
pub fn run(_: &CommonArgs, _: MountArgs) -> Outcome {
    Err(Failure::new("not built yet"))
}
