//! Volumes on a node: staged, published, looked at.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast::container::csi::spec::volume_capability::{AccessType, MountVolume};
use holdfast::container::csi::spec::*;
use tonic::Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};

use crate::world::{
    GIB, Outcome, World, capability, capability_of_group, cases, code, ensure, good, many, map, publishing, range,
    staging, text, wanted,
};

/// Staged and published; the volume's id, and both paths.
async fn ready(world: &mut World) -> Outcome<(String, PathBuf, PathBuf)> {
    let (id, staged, target) = (world.volume().await?, world.path("staging"), world.path("target"));
    good(world.stage(staging(&id, &staged)).await)?;
    good(world.publish(publishing(&id, &staged, &target)).await)?;
    Ok((id, staged, target))
}

fn unpublishing(id: &str, target: &Path) -> NodeUnpublishVolumeRequest {
    NodeUnpublishVolumeRequest { volume_id: id.into(), target_path: text(target) }
}

fn unstaging(id: &str, staged: &Path) -> NodeUnstageVolumeRequest {
    NodeUnstageVolumeRequest { volume_id: id.into(), staging_target_path: text(staged) }
}

fn stats(id: &str, path: &str) -> NodeGetVolumeStatsRequest {
    NodeGetVolumeStatsRequest { volume_id: id.into(), volume_path: path.into(), ..NodeGetVolumeStatsRequest::default() }
}

fn expanding(id: &str, path: &str) -> NodeExpandVolumeRequest {
    let (volume_id, volume_path) = (id.into(), path.into());
    NodeExpandVolumeRequest {
        volume_id,
        volume_path,
        capacity_range: range(2 * GIB),
        ..NodeExpandVolumeRequest::default()
    }
}

pub fn is_mount_point(path: &Path) -> bool {
    let here = fs::metadata(path).map(|found| found.dev()).ok();
    let above = path.parent().and_then(|parent| fs::metadata(parent).ok()).map(|found| found.dev());
    here.is_some() && here != above
}

/// A pod's own volume is removed by whoever it was taken from.
pub async fn is_removed(world: &mut World, id: &str, within: Duration) -> Outcome {
    let request = ControllerGetVolumeRequest { volume_id: id.into() };
    let begun = Instant::now();
    loop {
        match world.controller.controller_get_volume(request.clone()).await {
            Err(status) if status.code() == NotFound => return Ok(()),
            found => ensure!(begun.elapsed() < within, "it is there when its pod is gone: {found:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The credential files that mounts at this path were given.
fn credentials_of(staged: &Path) -> Vec<PathBuf> {
    let lines = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = lines.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    let of_mount = lines.filter(|line| line.contains(&text(staged)) && !line.contains("holdfast-keeper"));
    let file = |line: String| line.split('\0').skip_while(|word| *word != "--credential").nth(1).map(PathBuf::from);
    of_mount.filter_map(file).collect()
}

fn with_flags(id: &str, staged: &Path, flags: &[&str]) -> NodeStageVolumeRequest {
    let mount_flags = flags.iter().map(ToString::to_string).collect();
    let mount = MountVolume { mount_flags, ..MountVolume::default() };
    let volume_capability = Some(VolumeCapability { access_type: Some(AccessType::Mount(mount)), ..many() });
    NodeStageVolumeRequest { volume_capability, ..staging(id, staged) }
}

fn with_group(group: &str, request: NodePublishVolumeRequest) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest { volume_capability: Some(capability_of_group(group)), ..request }
}

/// The options that the kernel shows of what is mounted there.
fn options_of(place: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let of_place = |line: &&str| line.split(' ').nth(1) == Some(&text(place));
    table.lines().rfind(of_place).and_then(|line| line.split(' ').nth(3)).unwrap_or_default().to_string()
}

/// Has the kernel end a mount under its users, and waits until its processes have ended too. It stays in its place, or does not.
async fn end_mount(staged: &Path, is_given_up: bool) -> Outcome {
    let user = fs::File::open(staged).map_err(|error| error.to_string())?;
    let place = CString::new(text(staged)).map_err(|error| error.to_string())?;
    let flags = libc::MNT_FORCE | if is_given_up { libc::MNT_DETACH } else { 0 };
    // SAFETY: a NUL-terminated string that lives through the call.
    let is_taken_away = unsafe { libc::umount2(place.as_ptr(), flags) } == 0;
    ensure!(is_taken_away == is_given_up, "taken away: {is_taken_away}");
    drop(user);
    is_ended(staged, |_| ()).await
}

/// Kills the processes of a mount, and whoever goes on with it.
pub async fn kill_mount(staged: &Path) -> Outcome {
    let kill = |pid| {
        // SAFETY: takes numbers. One that has just ended is none.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    };
    is_ended(staged, kill).await
}

/// Waits until a mount has no process, and meanwhile does something with each.
async fn is_ended(staged: &Path, each: impl Fn(libc::pid_t)) -> Outcome {
    let begun = Instant::now();
    loop {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let is_of_mount = |process: &fs::DirEntry| {
            fs::read_to_string(process.path().join("cmdline")).is_ok_and(|line| line.contains(&text(staged)))
        };
        let pids = processes.filter(is_of_mount).filter_map(|process| process.file_name().to_str()?.parse().ok());
        let pids: Vec<libc::pid_t> = pids.collect();
        if pids.is_empty() {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(20), "its processes do not end: {pids:?}");
        pids.into_iter().for_each(&each);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|found| found.mode() & 0o777)
}

cases! {
    "the node's capabilities are known ones #NodeGetCapabilities/appropriate" => |world| {
        let answer = good(world.node.node_get_capabilities(NodeGetCapabilitiesRequest {}).await)?;
        let known: Vec<NodeServiceCapability> =
            (1..=6).filter_map(|number| Some(NodeRpc::try_from(number).ok()?.into())).collect();
        let strange = answer.capabilities.iter().find(|capability| !known.contains(capability));
        ensure!(strange.is_none(), "{strange:?}");
        for needed in [NodeRpc::StageUnstageVolume, NodeRpc::GetVolumeStats, NodeRpc::VolumeMountGroup] {
            ensure!(answer.capabilities.contains(&needed.into()), "{needed:?} is missing");
        }
    }
    "the node has a name #NodeGetInfo/appropriate" => |world| {
        let answer = good(world.node.node_get_info(NodeGetInfoRequest {}).await)?;
        ensure!(!answer.node_id.is_empty() && answer.max_volumes_per_node >= 0, "{answer:?}");
    }
    "what is published has an id #NodePublishVolume/no-id" => |world| {
        let (staged, target) = (world.path("staging"), world.path("target"));
        code(InvalidArgument, world.node.node_publish_volume(publishing("", &staged, &target)).await)?;
    }
    "a target #NodePublishVolume/no-target" => |world| {
        let staged = world.path("staging");
        let request = NodePublishVolumeRequest { target_path: String::new(), ..publishing("id", &staged, &staged) };
        code(InvalidArgument, world.node.node_publish_volume(request).await)?;
        let request = NodePublishVolumeRequest { target_path: "some/path".into(), ..publishing("id", &staged, &staged) };
        code(InvalidArgument, world.node.node_publish_volume(request).await)?;
    }
    "and a capability #NodePublishVolume/no-capability" => |world| {
        let (staged, target) = (world.path("staging"), world.path("target"));
        let request = NodePublishVolumeRequest { volume_capability: None, ..publishing("id", &staged, &target) };
        code(InvalidArgument, world.node.node_publish_volume(request).await)?;
    }
    "and was staged" => |world| {
        let (id, staged, target) = (world.volume().await?, world.path("staging"), world.path("target"));
        code(FailedPrecondition, world.node.node_publish_volume(publishing(&id, &staged, &target)).await)?;
        let request = NodePublishVolumeRequest { staging_target_path: String::new(), ..publishing(&id, &staged, &target) };
        code(FailedPrecondition, world.node.node_publish_volume(request).await)?;
        ensure!(!target.exists(), "the target was made");
    }
    "what is for one workload is not for a second #NodePublishVolume/single-writer-second-target" => |world| {
        let one = Some(capability(AccessModeKind::SingleNodeSingleWriter));
        let (name, staged) = (world.name("single"), world.path("staging"));
        let (target, second) = (world.path("target"), world.path("second"));
        let request = CreateVolumeRequest { volume_capabilities: one.clone().into_iter().collect(), ..wanted(&name) };
        good(world.create(request).await)?;
        good(world.stage(NodeStageVolumeRequest { volume_capability: one.clone(), ..staging(&name, &staged) }).await)?;
        let to = |target: &Path| NodePublishVolumeRequest { volume_capability: one.clone(), ..publishing(&name, &staged, target) };
        good(world.publish(to(&target)).await)?;
        good(world.publish(to(&target)).await)?;
        code(FailedPrecondition, world.node.node_publish_volume(to(&second)).await)?;
        good(world.node.node_unpublish_volume(unpublishing(&name, &target)).await)?;
        good(world.publish(to(&second)).await)?;
    }
    "what is for many is for a second, and not otherwise at the same target" => |world| {
        let (id, staged, target) = ready(world).await?;
        let second = world.path("second");
        let read_only = NodePublishVolumeRequest { readonly: true, ..publishing(&id, &staged, &second) };
        good(world.publish(read_only.clone()).await)?;
        good(world.publish(read_only.clone()).await)?;
        fs::write(target.join("file"), "x").map_err(|error| error.to_string())?;
        let found = fs::read_to_string(second.join("file")).map_err(|error| error.to_string())?;
        ensure!(found == "x", "the second sees {found}");
        let error = fs::write(second.join("file"), "y").err().and_then(|error| error.raw_os_error());
        ensure!(error == Some(30), "what is read-only takes a write, or says {error:?}");
        let otherwise = NodePublishVolumeRequest { readonly: false, ..read_only };
        code(AlreadyExists, world.node.node_publish_volume(otherwise).await)?;
    }
    "what is unpublished has an id #NodeUnpublishVolume/no-id" => |world| {
        let target = world.path("target");
        code(InvalidArgument, world.node.node_unpublish_volume(unpublishing("", &target)).await)?;
    }
    "and a target #NodeUnpublishVolume/no-target" => |world| {
        let request = NodeUnpublishVolumeRequest { volume_id: "id".into(), target_path: String::new() };
        code(InvalidArgument, world.node.node_unpublish_volume(request).await)?;
    }
    "its target is gone then #NodeUnpublishVolume/removes-target" => |world| {
        let (id, _, target) = ready(world).await?;
        ensure!(is_mount_point(&target), "nothing is mounted there");
        good(world.node.node_unpublish_volume(unpublishing(&id, &target)).await)?;
        ensure!(!target.exists(), "it is there");
    }
    "what is staged has an id #NodeStageVolume/no-id" => |world| {
        let staged = world.path("staging");
        code(InvalidArgument, world.node.node_stage_volume(staging("", &staged)).await)?;
    }
    "a path #NodeStageVolume/no-staging" => |world| {
        let request = NodeStageVolumeRequest { staging_target_path: String::new(), ..staging("id", Path::new("/")) };
        code(InvalidArgument, world.node.node_stage_volume(request).await)?;
    }
    "and a capability #NodeStageVolume/no-capability" => |world| {
        let staged = world.path("staging");
        let request = NodeStageVolumeRequest { volume_capability: None, ..staging("id", &staged) };
        code(InvalidArgument, world.node.node_stage_volume(request).await)?;
    }
    "and is there" => |world| {
        let staged = world.path("staging");
        code(NotFound, world.node.node_stage_volume(staging("missing", &staged)).await)?;
        code(NotFound, world.node.node_stage_volume(staging("no name", &staged)).await)?;
        let _ = fs::remove_dir(staged);
    }
    "what is staged to be read is not there to be written" => |world| {
        let (id, staged) = (world.volume().await?, world.path("staging"));
        let readers = Some(capability(AccessModeKind::MultiNodeReaderOnly));
        good(world.stage(NodeStageVolumeRequest { volume_capability: readers, ..staging(&id, &staged) }).await)?;
        code(AlreadyExists, world.node.node_stage_volume(staging(&id, &staged)).await)?;
    }
    "nor with other options of its mount, but with the same in any order" => |world| {
        let (id, staged, target) = (world.volume().await?, world.path("staging"), world.path("target"));
        good(world.stage(with_flags(&id, &staged, &["noatime", "nosuid"])).await)?;
        good(world.stage(with_flags(&id, &staged, &["nosuid", "noatime"])).await)?;
        code(AlreadyExists, world.node.node_stage_volume(with_flags(&id, &staged, &["noatime"])).await)?;
        good(world.publish(publishing(&id, &staged, &target)).await)?;
        good(world.node.node_unpublish_volume(unpublishing(&id, &target)).await)?;
        good(world.node.node_unstage_volume(unstaging(&id, &staged)).await)?;
        code(FailedPrecondition, world.node.node_publish_volume(publishing(&id, &staged, &target)).await)?;
        good(world.stage(with_flags(&id, &staged, &["noatime"])).await)?;
    }
    "a mount that has ended under a pod is made again as it was, and so is one that was given up" => |world| {
        let (id, staged, target) = (world.volume().await?, world.path("staging"), world.path("target"));
        let secrets = map(&[("credential", &world.credential)]);
        good(world.stage(NodeStageVolumeRequest { secrets, ..with_flags(&id, &staged, &["noatime"]) }).await)?;
        good(world.publish(publishing(&id, &staged, &target)).await)?;
        let shown = credentials_of(&staged);
        for is_given_up in [false, true] {
            end_mount(&staged, is_given_up).await?;
            ensure!(fs::read_dir(&target).is_err(), "the mount goes on");
            // Another pod's comes first, then the one that has what has ended.
            let other = world.path("other");
            for target in [&other, &target] {
                good(world.publish(publishing(&id, &staged, target)).await)?;
                fs::write(target.join("file"), "x").map_err(|error| error.to_string())?;
            }
            ensure!(credentials_of(&staged) == shown, "{:?} is shown", credentials_of(&staged));
            ensure!(options_of(&staged).contains("noatime"), "it has {}", options_of(&staged));
        }
    }
    "and so it is where its processes were killed and it was staged anew before, also for one workload" => |world| {
        let one = Some(capability(AccessModeKind::SingleNodeSingleWriter));
        let (id, staged, target) = (world.name("healed"), world.path("staging"), world.path("target"));
        let request = CreateVolumeRequest { volume_capabilities: one.clone().into_iter().collect(), ..wanted(&id) };
        good(world.create(request).await)?;
        let stage = NodeStageVolumeRequest { volume_capability: one.clone(), ..staging(&id, &staged) };
        let publish = NodePublishVolumeRequest { volume_capability: one, ..publishing(&id, &staged, &target) };
        good(world.stage(stage.clone()).await)?;
        good(world.publish(publish.clone()).await)?;
        kill_mount(&staged).await?;
        good(world.stage(stage).await)?;
        ensure!(fs::read_dir(&target).is_err(), "the mount goes on at its target");
        good(world.publish(publish).await)?;
        fs::write(target.join("file"), "x").map_err(|error| error.to_string())?;
    }
    "what is mounted at a target and is another volume stays there" => |world| {
        let (_, _, target) = ready(world).await?;
        let (other, staged) = (world.volume().await?, world.path("staging"));
        good(world.stage(staging(&other, &staged)).await)?;
        code(FailedPrecondition, world.node.node_publish_volume(publishing(&other, &staged, &target)).await)?;
        ensure!(is_mount_point(&target), "it is gone");
    }
    "read-only by an option of its mount is read-only, as often as it is asked for" => |world| {
        let (id, staged, target) = (world.volume().await?, world.path("staging"), world.path("target"));
        let stage = with_flags(&id, &staged, &["noatime", "ro"]);
        let volume_capability = stage.volume_capability.clone();
        let publish = NodePublishVolumeRequest { volume_capability, ..publishing(&id, &staged, &target) };
        for _ in 0..2 {
            good(world.stage(stage.clone()).await)?;
            good(world.publish(publish.clone()).await)?;
        }
        let error = fs::write(target.join("file"), "x").err().and_then(|error| error.raw_os_error());
        ensure!(error == Some(30), "what is read-only takes a write, or says {error:?}");
        code(AlreadyExists, world.node.node_stage_volume(with_flags(&id, &staged, &["noatime"])).await)?;
        code(AlreadyExists, world.node.node_publish_volume(publishing(&id, &staged, &target)).await)?;
    }
    "a mount shows the credential that came with its call, and no other ends with it" => |world| {
        let (id, one, other) = (world.volume().await?, world.path("staging"), world.path("staging"));
        let secrets = map(&[("credential", &world.credential)]);
        for staged in [&one, &other] {
            good(world.stage(NodeStageVolumeRequest { secrets: secrets.clone(), ..staging(&id, staged) }).await)?;
        }
        let files = || -> Vec<PathBuf> { credentials_of(&other) };
        ensure!(files().len() == 1 && files() != credentials_of(&one), "{:?} and {:?}", files(), credentials_of(&one));
        good(world.node.node_unstage_volume(unstaging(&id, &one)).await)?;
        let file = files().pop().unwrap_or_default();
        ensure!(file.exists() && mode(&file) == Some(0o600), "{} has mode {:?}", file.display(), mode(&file));
        good(world.node.node_unstage_volume(unstaging(&id, &other)).await)?;
        ensure!(!file.exists(), "the credential outlives its mount");
        let wrong = map(&[("credential", "nonsense")]);
        let refused = world.node.node_stage_volume(NodeStageVolumeRequest { secrets: wrong, ..staging(&id, &one) }).await;
        ensure!(refused.is_err(), "a credential that is none is one");
        let left: Vec<_> = fs::read_dir(file.parent().unwrap_or(&file)).into_iter().flatten().flatten().collect();
        ensure!(left.is_empty(), "what nothing was mounted by is kept: {left:?}");
    }
    "what is unstaged has an id #NodeUnstageVolume/no-id" => |world| {
        let staged = world.path("staging");
        code(InvalidArgument, world.node.node_unstage_volume(unstaging("", &staged)).await)?;
    }
    "and a path #NodeUnstageVolume/no-staging" => |world| {
        let request = NodeUnstageVolumeRequest { volume_id: "id".into(), staging_target_path: String::new() };
        code(InvalidArgument, world.node.node_unstage_volume(request).await)?;
    }
    "what is looked at has an id #NodeGetVolumeStats/no-id" => |world| {
        code(InvalidArgument, world.node.node_get_volume_stats(stats("", "/path")).await)?;
    }
    "and a path #NodeGetVolumeStats/no-path" => |world| {
        code(InvalidArgument, world.node.node_get_volume_stats(stats("id", "")).await)?;
    }
    "and is there #NodeGetVolumeStats/unknown" => |world| {
        let (_, _, target) = ready(world).await?;
        code(NotFound, world.node.node_get_volume_stats(stats("missing", &text(&target))).await)?;
    }
    "where it is said to be #NodeGetVolumeStats/bogus-path" => |world| {
        let (id, ..) = ready(world).await?;
        code(NotFound, world.node.node_get_volume_stats(stats(&id, "some/path")).await)?;
    }
    "it says how full it is, in bytes and inodes" => |world| {
        let (id, staged, target) = ready(world).await?;
        for path in [staged, target] {
            let answer = good(world.node.node_get_volume_stats(stats(&id, &text(&path))).await)?;
            let of = |unit: UsageUnit| answer.usage.iter().find(|usage| usage.unit == i32::from(unit));
            let bytes = of(UsageUnit::Bytes).ok_or("no bytes")?;
            let inodes = of(UsageUnit::Inodes).ok_or("no inodes")?;
            ensure!(bytes.total == GIB && bytes.available > 0 && inodes.total > 0, "{answer:?}");
            ensure!(answer.volume_condition.as_ref().is_some_and(|condition| !condition.abnormal), "{answer:?}");
        }
    }
    "what grows has an id #NodeExpandVolume/no-id" => |world| {
        code(InvalidArgument, world.node.node_expand_volume(expanding("", "/path")).await)?;
    }
    "and a path #NodeExpandVolume/no-path" => |world| {
        code(InvalidArgument, world.node.node_expand_volume(expanding("id", "")).await)?;
    }
    "and is there #NodeExpandVolume/unknown" => |world| {
        code(NotFound, world.node.node_expand_volume(expanding("missing", "/some/path")).await)?;
    }
    "it has grown when the controller has said so #NodeExpandVolume/works" => |world| {
        let (id, _, target) = ready(world).await?;
        let grown = ControllerExpandVolumeRequest { volume_id: id.clone(), capacity_range: range(2 * GIB), ..Default::default() };
        good(world.controller.controller_expand_volume(grown).await)?;
        let answer = good(world.node.node_expand_volume(expanding(&id, &text(&target))).await)?;
        ensure!(answer.capacity_bytes >= 2 * GIB, "{answer:?}");
        // A mount asks how full it is once a second.
        for _ in 0..100 {
            let answer = good(world.node.node_get_volume_stats(stats(&id, &text(&target))).await)?;
            if answer.usage.iter().any(|usage| usage.total == 2 * GIB) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        return Err("df does not say so".into());
    }
    "a group has what a pod makes, and nothing is changed below the root" => |world| {
        let (id, staged, target) = (world.volume().await?, world.path("staging"), world.path("target"));
        let wish = Some(capability_of_group("4321"));
        good(world.stage(NodeStageVolumeRequest { volume_capability: wish.clone(), ..staging(&id, &staged) }).await)?;
        good(world.publish(NodePublishVolumeRequest { volume_capability: wish, ..publishing(&id, &staged, &target) }).await)?;
        fs::write(target.join("file"), "x").map_err(|error| error.to_string())?;
        let group = fs::metadata(target.join("file")).map(|found| found.gid()).map_err(|error| error.to_string())?;
        ensure!(group == 4321, "a new file is of group {group}");
        let root = fs::metadata(&target).map_err(|error| error.to_string())?;
        ensure!(root.mode() & 0o2070 == 0o2070, "the root's mode is {:o}", root.mode());
        let nonsense = Some(capability_of_group("wheel"));
        let other = NodeStageVolumeRequest { volume_capability: nonsense, ..staging(&id, &staged) };
        code(InvalidArgument, world.node.node_stage_volume(other).await)?;
    }
    "the last pod that comes with a group has it, whoever asks again" => |world| {
        let (id, staged) = (world.volume().await?, world.path("staging"));
        let [first, second, third] = ["first", "second", "third"].map(|name| world.path(name));
        let to = |group: &str, target: &Path| with_group(group, publishing(&id, &staged, target));
        let root = || fs::metadata(&staged).map(|found| (found.gid(), found.mode() & 0o2070)).map_err(|error| error.to_string());
        let changed = || fs::metadata(&staged).map(|found| (found.ctime(), found.ctime_nsec())).map_err(|error| error.to_string());
        good(world.stage(staging(&id, &staged)).await)?;
        for (group, target) in [(1001, &first), (2002, &second)] {
            good(world.publish(to(&group.to_string(), target)).await)?;
            ensure!(root()? == (group, 0o2070), "for {group} it is {:?}", root());
        }
        let since = changed()?;
        good(world.publish(to("1001", &first)).await)?;
        good(world.publish(to("2002", &second)).await)?;
        good(world.publish(to("2002", &third)).await)?;
        let again = NodeStageVolumeRequest { volume_capability: Some(capability_of_group("1001")), ..staging(&id, &staged) };
        good(world.stage(again).await)?;
        let reader = |target: &Path| NodePublishVolumeRequest { readonly: true, ..to("3003", target) };
        let (target, late) = (world.path("reader"), world.path("late"));
        good(world.publish(reader(&target)).await)?;
        fs::File::open(&staged).and_then(|root| root.sync_all()).map_err(|error| error.to_string())?;
        end_mount(&staged, false).await?;
        good(world.publish(reader(&late)).await)?;
        ensure!(changed()? == since, "who asks again, or only reads, has changed it: {:?}", root());
    }
    "a volume may live as long as a pod" => |world| {
        let (id, target) = (world.name("inline"), world.path("target"));
        let context = [("csi.storage.k8s.io/ephemeral", "true"), ("csi.storage.k8s.io/pod.name", "web-1"), ("size", "64MiB")];
        let request = NodePublishVolumeRequest {
            staging_target_path: String::new(),
            volume_context: map(&context),
            volume_capability: Some(capability(AccessModeKind::SingleNodeWriter)),
            ..publishing(&id, Path::new("/"), &target)
        };
        for _ in 0..3 {
            good(world.publish(request.clone()).await)?;
        }
        fs::write(target.join("file"), "x").map_err(|error| error.to_string())?;
        let answer = good(world.node.node_get_volume_stats(stats(&id, &text(&target))).await)?;
        ensure!(answer.usage.iter().any(|usage| usage.total == 64 << 20), "{answer:?}");
        for _ in 0..3 {
            good(world.node.node_unpublish_volume(unpublishing(&id, &target)).await)?;
        }
        ensure!(!target.exists(), "its target is there");
        is_removed(world, &id, Duration::from_secs(20)).await?;
        // A pod of the same name gets a new one, to be read alone if it says so.
        good(world.publish(NodePublishVolumeRequest { readonly: true, ..request }).await)?;
        ensure!(!target.join("file").exists(), "the new one has what the one before had");
        let error = fs::write(target.join("file"), "x").err().and_then(|error| error.raw_os_error());
        ensure!(error == Some(30), "what is read-only takes a write, or says {error:?}");
        good(world.node.node_unpublish_volume(unpublishing(&id, &target)).await)?;
        is_removed(world, &id, Duration::from_secs(20)).await?;
    }
    "a volume that lives longer than a pod is not taken for one that does not" => |world| {
        let (id, target) = (world.volume().await?, world.path("target"));
        let request = NodePublishVolumeRequest {
            staging_target_path: String::new(),
            volume_context: map(&[("csi.storage.k8s.io/ephemeral", "true")]),
            ..publishing(&id, Path::new("/"), &target)
        };
        code(AlreadyExists, world.node.node_publish_volume(request).await)?;
        good(world.node.node_unpublish_volume(unpublishing(&id, &target)).await)?;
        good(world.controller.controller_get_volume(ControllerGetVolumeRequest { volume_id: id }).await)?;
    }
    "two claims may be for one volume, each with its own path" => |world| {
        let (id, staged, target) = ready(world).await?;
        let (staged_too, target_too) = (world.path("staging"), world.path("target"));
        good(world.stage(staging(&id, &staged_too)).await)?;
        good(world.publish(publishing(&id, &staged_too, &target_too)).await)?;
        fs::write(target.join("file"), "x").map_err(|error| error.to_string())?;
        let found = fs::read_to_string(target_too.join("file")).map_err(|error| error.to_string())?;
        ensure!(found == "x" && staged.exists(), "{found}");
    }
    "from its making to its end #Node/lifecycle" => |world| {
        let (id, staged, target) = ready(world).await?;
        fs::write(target.join("file"), "kept").map_err(|error| error.to_string())?;
        good(world.node.node_unpublish_volume(unpublishing(&id, &target)).await)?;
        good(world.node.node_unstage_volume(unstaging(&id, &staged)).await)?;
        ensure!(!is_mount_point(&staged), "it is still staged");
        good(world.stage(staging(&id, &staged)).await)?;
        good(world.publish(publishing(&id, &staged, &target)).await)?;
        let found = fs::read_to_string(target.join("file")).map_err(|error| error.to_string())?;
        ensure!(found == "kept", "{found}");
    }
    "each step ten times over #Node/idempotent" => |world| {
        let (id, staged, target) = (world.volume().await?, world.path("staging"), world.path("target"));
        for _ in 0..10 {
            good(world.stage(staging(&id, &staged)).await)?;
        }
        for _ in 0..10 {
            good(world.publish(publishing(&id, &staged, &target)).await)?;
        }
        for _ in 0..10 {
            good(world.node.node_unpublish_volume(unpublishing(&id, &target)).await)?;
        }
        for _ in 0..10 {
            good(world.node.node_unstage_volume(unstaging(&id, &staged)).await)?;
        }
    }
}
