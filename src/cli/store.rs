//! `holdfast store`: one store, with its disks.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::args::{CommonArgs, StoreArgs};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::member::{self, Member};
use crate::cli::settings::{absolute, settings, token};
use crate::cli::{daemon, dial};
use crate::config::layer::Flags;
use crate::config::roles::{CommonConfig, StoreConfig};
use crate::daemon::ready;
use crate::daemon::shutdown::Shutdown;
use crate::types::record::Role;

/// Failure domains of a store.
pub struct Domain {
    pub host: String,
    pub zone: String,
}

/// A store at work.
pub struct Running {}
impl Running {
    pub async fn start(member: Member, disks: Vec<PathBuf>, domain: Domain, shutdown: Shutdown) -> Outcome<Running> {
        Err(Failure::new("x"))
    }
    pub async fn stop(self) {}
}
pub fn run(common: &CommonArgs, args: StoreArgs) -> Outcome {
    Err(Failure::new("x"))
}
