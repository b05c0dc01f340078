//! `holdfast volume`: make, change, list, show and delete volumes.

use crate::admin::documents::VolumeDocument;
use crate::cli::args::{
    AccessArg, CommonArgs, NewVolumeArgs, VolumeArgs, VolumeChangeArgs, VolumeCommand, VolumeSetArgs,
};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::operator;
use crate::cli::out::{print, print_json, print_line};
use crate::cli::table::Table;
use crate::config::value::{ByteSize, LabelFilter, Span};
use crate::remote::operator::Operator;
use crate::types::attr::Owner;
use crate::types::volume::{Access, NewVolume, Volume, VolumeChange, VolumePolicy, VolumeUsage};

/// # Errors
/// The cluster refused or did not answer.
pub fn run(common: &CommonArgs, args: VolumeArgs) -> Outcome {
    match args.command {
        VolumeCommand::Create(args) => {
            let volume = new_volume(&args.volume)?;
            operator::run(common, &args.admin, |cluster| create(cluster, volume))
        }
        VolumeCommand::Set(VolumeSetArgs { name, change: args, admin }) => {
            operator::run(common, &admin, |cluster| set(cluster, name, change(args)))
        }
        VolumeCommand::List { labels, json, admin } => {
            operator::run(common, &admin, |cluster| list(cluster, labels, json))
        }
        VolumeCommand::Show { name, json, admin } => operator::run(common, &admin, |cluster| show(cluster, name, json)),
        VolumeCommand::Delete { name, admin } => operator::run(common, &admin, |cluster| delete(cluster, name)),
    }
}

/// Volumes for people, one a line.
pub fn table<'a>(volumes: impl IntoIterator<Item = &'a (Volume, VolumeUsage)>) -> Table {
    let mut table = Table::new(&["VOLUME", "ACCESS", "COPIES", "CHUNK", "QUOTA", "USED", "INODES"]);
    for (volume, usage) in volumes {
        let policy = &volume.policy;
        table.row([
            volume.name.clone(),
            policy.access.name().to_string(),
            policy.replicas.to_string(),
            ByteSize(policy.chunk_bytes.into()).to_string(),
            limit(policy.quota_bytes),
            crate::cli::table::bytes(usage.allocated_bytes),
            usage.inodes.to_string(),
        ]);
    }
    table
}

fn limit(bytes: u64) -> String {
    if bytes == 0 { "none".to_string() } else { ByteSize(bytes).to_string() }
}

/// # Errors
/// A chunk cannot be that large.
pub fn new_volume(args: &NewVolumeArgs) -> Outcome<NewVolume> {
    let defaults = NewVolume::named(&args.name);
    Ok(NewVolume {
        policy: policy(args, defaults.policy)?,
        labels: args.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
        owner: args.owner.unwrap_or_else(me),
        mode: args.mode.map_or(defaults.mode, |mode| mode.0),
        ..defaults
    })
}

fn policy(args: &NewVolumeArgs, defaults: VolumePolicy) -> Outcome<VolumePolicy> {
    let chunk_bytes = match args.chunk_size {
        Some(size) => u32::try_from(size.0).map_err(|_| Failure::usage(format!("a chunk of {size} is too large")))?,
        None => defaults.chunk_bytes,
    };
    Ok(VolumePolicy {
        replicas: args.replicas.unwrap_or(defaults.replicas),
        chunk_bytes,
        quota_bytes: args.quota.unwrap_or_default().0,
        quota_inodes: args.quota_inodes.unwrap_or(defaults.quota_inodes),
        patience_ms: args.patience.unwrap_or_default().millis(),
        access: access(args.access),
    })
}

fn access(arg: AccessArg) -> Access {
    match arg {
        AccessArg::Rwx => Access::Many,
        AccessArg::Rwo => Access::One,
        AccessArg::Rox => Access::Readers,
        AccessArg::Fenced => Access::Fenced,
        AccessArg::Rwop => Access::Container,
    }
}

fn change(args: VolumeChangeArgs) -> VolumeChange {
    let set = args.labels.into_iter().map(|label| (label.key, Some(label.value)));
    VolumeChange {
        quota_bytes: args.quota.map(|quota| quota.0),
        quota_inodes: args.quota_inodes,
        patience_ms: args.patience.map(Span::millis),
        access: args.access.map(access),
        labels: args.unlabels.into_iter().map(|key| (key, None)).chain(set).collect(),
    }
}

/// The user of this process: an ordinary user's volumes are of use to them.
pub fn me() -> Owner {
    // SAFETY: both take and touch nothing.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    Owner { uid, gid }
}

async fn create(cluster: Operator, volume: NewVolume) -> Outcome {
    let volume = cluster.create_volume(volume).await?;
    print_line(format_args!("volume {} made: {} copies", volume.name, volume.policy.replicas))
}

async fn set(cluster: Operator, name: String, change: VolumeChange) -> Outcome {
    let (volume, usage) = cluster.change_volume(&name, change).await?;
    print(details(&volume, &usage))
}

async fn list(cluster: Operator, labels: Vec<LabelFilter>, as_json: bool) -> Outcome {
    let mut volumes = cluster.volumes().await?;
    volumes.retain(|(volume, _)| labels.iter().all(|label| label.fits(&volume.labels)));
    if as_json {
        let all = volumes.iter().map(|(volume, usage)| VolumeDocument::new(volume, usage));
        return print_json(&all.collect::<Vec<_>>());
    }
    print(table(&volumes))
}

async fn show(cluster: Operator, name: String, as_json: bool) -> Outcome {
    let (volume, usage) = cluster.volume(&name).await?;
    if as_json { print_json(&VolumeDocument::new(&volume, &usage)) } else { print(details(&volume, &usage)) }
}

fn details(volume: &Volume, usage: &VolumeUsage) -> String {
    let policy = &volume.policy;
    let waits = std::time::Duration::from_millis(policy.patience_ms);
    let patience = if waits.is_zero() { "for ever".to_string() } else { Span(waits).to_string() };
    let inodes = if policy.quota_inodes == 0 { "any number of".to_string() } else { policy.quota_inodes.to_string() };
    let access = match policy.access {
        Access::Many => "rwx: any number of hosts at once",
        Access::One => "rwo: one host at a time",
        Access::Readers => "rox: any number of hosts, which read only",
        Access::Fenced => "fenced: one host at a time, the one that asked last",
        Access::Container => "rwop: one container at a time, on whatever host",
    };
    let labels = volume.labels.iter().map(|(key, value)| format!("label        {key}={value}"));
    let lines = [
        format!("volume       {} (number {})", volume.name, volume.id),
        format!("access       {access}"),
        format!("copies       {}", policy.replicas),
        format!("chunk size   {}", ByteSize(policy.chunk_bytes.into())),
        format!("quota        {} bytes, {inodes} inodes", limit(policy.quota_bytes)),
        format!("patience     {patience}"),
        format!("holds        {} in {} inodes", crate::cli::table::bytes(usage.allocated_bytes), usage.inodes),
    ];
    lines.into_iter().chain(labels).map(|line| line + "\n").collect()
}

async fn delete(cluster: Operator, name: String) -> Outcome {
    cluster.delete_volume(&name).await?;
    print_line(format_args!("volume {name} deleted"))
}
