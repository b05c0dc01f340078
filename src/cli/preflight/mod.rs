//! `holdfast preflight`: whether this host has what a role needs, found out before it is started.
//!
//! One sentence for each finding, and how to mend it. What is only worse than it need be is noted and fails nothing. Changes nothing, but
//! for a small file in each directory that it measures. Runs in a container that sees the host's processes (`hostPID`) as well: then
//! mounts are looked at where the host has them.

mod disk;
mod finding;
mod host;
mod network;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use self::finding::{Finding, State};
use crate::cli::args::{CommonArgs, HostRole, PreflightArgs};
use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::mountpoint::{check_fuse, is_root};
use crate::cli::out;
use crate::cli::settings::{absolute, settings};
use crate::config::layer::{Flags, Settings};
use crate::config::roles::{CommonConfig, DockerConfig, MetaConfig, MountConfig, StoreConfig};
use crate::host::facts::{self, Confinement};

const KUBELET_DIR: &str = "/var/lib/kubelet";
const KEEPER: &str = "holdfast-keeper";
/// What a store's process takes, about.
const STORE_MEMORY_BYTES: u64 = 256 << 20;
/// What a metadata server takes beside its cache and the half of it.
const META_MEMORY_BYTES: u64 = 64 << 20;

/// # Errors
/// Something is missing; or the settings or the credential cannot be used.
pub fn run(common: &CommonArgs, args: &PreflightArgs) -> Outcome {
    let mut flags = Flags::default();
    flags.set("common", "credential", args.credential.as_ref().map(|path| path.to_string_lossy().into_owned()));
    let settings = settings(common, flags)?;
    let look = Look { roles: roles(&args.roles), args, settings: &settings };
    let findings = look.findings()?;
    let missing = findings.iter().filter(|finding| finding.state == State::Missing).count();
    if args.json {
        out::print_json(&Report { well: missing == 0, findings: &findings })?;
    } else {
        let lines: Vec<String> = findings.iter().map(|finding| format!("{finding}\n")).collect();
        out::print(lines.concat())?;
    }
    match missing {
        0 => Ok(()),
        1 => Err(Failure::new("something is missing on this host")),
        count => Err(Failure::new(format!("{count} things are missing on this host"))),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    well: bool,
    findings: &'a [Finding],
}

fn roles(asked: &[HostRole]) -> Vec<HostRole> {
    let all = [HostRole::Client, HostRole::Store, HostRole::Meta, HostRole::Csi, HostRole::Docker];
    all.into_iter().filter(|role| asked.contains(role) || asked.contains(&HostRole::All)).collect()
}

struct Look<'a> {
    roles: Vec<HostRole>,
    args: &'a PreflightArgs,
    settings: &'a Settings,
}

impl Look<'_> {
    fn any(&self, roles: &[HostRole]) -> bool {
        self.roles.iter().any(|role| roles.contains(role))
    }

    fn findings(&self) -> Outcome<Vec<Finding>> {
        let confinement = Confinement::of_this_process().or_fail(|| "/proc cannot be read".to_string())?;
        let mut found = self.of_every_role(&confinement)?;
        if self.any(&[HostRole::Client, HostRole::Csi, HostRole::Docker]) {
            found.extend(of_mounts(&confinement));
        }
        let mounts = facts::mounts_of_host().or_fail(|| "/proc cannot be read".to_string())?;
        for path in self.shared_paths()? {
            found.push(host::propagation(&mounts, &path));
        }
        if self.any(&[HostRole::Store, HostRole::Meta]) {
            found.extend(self.of_servers()?);
        }
        let servers: Vec<String> = self.args.servers.iter().map(ToString::to_string).collect();
        let credential = self.settings.section::<CommonConfig>()?.credential;
        found.extend(network::servers(
            &servers,
            Some(credential).filter(|path| !path.as_os_str().is_empty()).as_deref(),
        )?);
        Ok(found)
    }

    fn of_every_role(&self, confinement: &Confinement) -> Outcome<Vec<Finding>> {
        let [rmem, wmem] = ["net/core/rmem_max", "net/core/wmem_max"].map(facts::setting);
        Ok(vec![
            host::memory(facts::memory_bytes(), self.memory_bytes()?),
            host::open_files(facts::open_files_max()),
            host::clock(facts::clock_is_kept()),
            host::buffers(rmem, wmem, confinement.may_exceed_buffers()),
        ])
    }

    /// What the roles take, by their settings.
    fn memory_bytes(&self) -> Outcome<u64> {
        let mount = self.settings.section::<MountConfig>()?.memory.0;
        let cache = self.settings.section::<MetaConfig>()?.cache.0;
        Ok(self.roles.iter().fold(0, |sum: u64, role| {
            sum.saturating_add(match role {
                HostRole::Store => STORE_MEMORY_BYTES,
                HostRole::Meta => cache.saturating_add(cache / 2).saturating_add(META_MEMORY_BYTES),
                _ => mount,
            })
        }))
    }

    /// Below which mounts have to be seen by containers.
    fn shared_paths(&self) -> Outcome<Vec<PathBuf>> {
        let mut paths = Vec::new();
        if self.any(&[HostRole::Csi]) {
            paths.push(self.args.path.clone().unwrap_or_else(|| KUBELET_DIR.into()));
        }
        if self.any(&[HostRole::Docker]) {
            let configured = self.settings.section::<DockerConfig>()?.dir;
            paths.push(self.args.path.clone().unwrap_or(configured));
        }
        paths.dedup();
        paths.iter().map(|path| absolute(path)).collect()
    }

    fn of_servers(&self) -> Outcome<Vec<Finding>> {
        let (meta, store) = (self.settings.section::<MetaConfig>()?, self.settings.section::<StoreConfig>()?);
        let (mut disks, mut listen) = (self.args.disks.clone(), Vec::new());
        if self.any(&[HostRole::Store]) {
            if self.args.disks.is_empty() {
                disks.extend(store.disks);
            }
            listen.push(store.listen);
        }
        if self.any(&[HostRole::Meta]) {
            // It is made at the first start.
            disks.extend(Some(meta.dir).filter(|dir| self.args.disks.is_empty() && dir.exists()));
            listen.push(meta.listen);
        }
        if !self.args.listen.is_empty() {
            listen = self.args.listen.iter().map(ToString::to_string).collect();
        }
        let mut found = Vec::new();
        if disks.is_empty() {
            let says = "no directory was looked at that a server could keep things in";
            found.push(Finding::note("disk", says, "name it with --disk DIR"));
        }
        // Of its own table: a directory is named as this process sees it.
        let mounts = std::fs::read("/proc/self/mountinfo").or_fail(|| "/proc cannot be read".to_string())?;
        found.extend(disk::check(&disks, &mounts));
        found.extend(listen.iter().filter(|address| !address.is_empty()).map(|address| network::port(address)));
        Ok(found)
    }
}

fn of_mounts(confinement: &Confinement) -> Vec<Finding> {
    let mut found = vec![host::kernel(facts::kernel())];
    found.push(match check_fuse() {
        Ok(()) if facts::has_filesystem("fuse").unwrap_or(true) => Finding::ok("fuse", "FUSE can be used"),
        Ok(()) => Finding::missing("fuse", "the kernel does not know FUSE", "load the module: modprobe fuse"),
        Err(failure) => {
            let (says, mend) = failure.sentence().split_once(": ").unwrap_or((failure.sentence(), "see above"));
            Finding::missing("fuse", says, mend)
        }
    });
    found.extend(host::confinement(confinement, is_root()));
    found.push(host::keeper(version_of_keeper().as_deref()));
    found
}

fn version_of_keeper() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    version_of(&program.with_file_name(KEEPER))
}

fn version_of(program: &Path) -> Option<String> {
    let said = Command::new(program).arg("--version").output().ok()?;
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_each_of_them() {
        assert_eq!(roles(&[HostRole::All]).len(), 5);
        assert_eq!(roles(&[HostRole::Meta, HostRole::Meta]), [HostRole::Meta]);
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(version_of(Path::new("/no/such/program")), None);
        assert_eq!(version_of(Path::new("/bin/false")), None);
    }
}
