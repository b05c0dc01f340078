//! `holdfast mount`.
use crate::cli::args::{CommonArgs, MountArgs};
use crate::cli::failure::{Failure, Outcome};
use crate::config::roles::MountConfig;
use crate::config::value::HostPorts;
use crate::crypto::identity::Credential;
use std::path::Path;
pub fn run(_: &CommonArgs, _: MountArgs) -> Outcome {
    Err(Failure::new("not built yet"))
}
pub struct Plan;
impl Plan {
    pub fn new(
        credential: Credential,
        metas: HostPorts,
        volume: &str,
        mountpoint: &Path,
        options: &[String],
        config: MountConfig,
    ) -> Outcome<Plan> {
        Ok(Plan)
    }
}
pub struct Mounted;
impl Mounted {
    pub async fn start(plan: Plan) -> Outcome<Mounted> {
        Ok(Mounted)
    }
    pub async fn ended(&mut self) {}
    pub async fn stop(self) {}
}
