//! A driver whose volumes may be raw block devices.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use holdfast::container::csi::spec::volume_capability::{AccessType, BlockVolume};
use holdfast::container::csi::spec::*;
use holdfast::host::loopdev;
use tonic::Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};

use crate::node::{is_mount_point, kill_mount};
use crate::world::{Outcome, World, capability, cases, code, ensure, good, publishing, range, staging, text, wanted};

const MIB: i64 = 1 << 20;

fn block(mode: AccessModeKind) -> VolumeCapability {
    VolumeCapability { access_type: Some(AccessType::Block(BlockVolume {})), ..capability(mode) }
}

fn one() -> VolumeCapability {
    block(AccessModeKind::SingleNodeWriter)
}

pub fn wanted_block(name: &str) -> CreateVolumeRequest {
    CreateVolumeRequest { capacity_range: range(64 * MIB), volume_capabilities: vec![one()], ..wanted(name) }
}

pub fn staging_block(id: &str, staged: &Path) -> NodeStageVolumeRequest {
    NodeStageVolumeRequest { volume_capability: Some(one()), ..staging(id, staged) }
}

pub fn publishing_block(id: &str, staged: &Path, target: &Path) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest { volume_capability: Some(one()), ..publishing(id, staged, target) }
}

fn unpublishing(id: &str, target: &Path) -> NodeUnpublishVolumeRequest {
    NodeUnpublishVolumeRequest { volume_id: id.into(), target_path: text(target) }
}

fn unstaging(id: &str, staged: &Path) -> NodeUnstageVolumeRequest {
    NodeUnstageVolumeRequest { volume_id: id.into(), staging_target_path: text(staged) }
}

fn stats(id: &str, path: &Path) -> NodeGetVolumeStatsRequest {
    NodeGetVolumeStatsRequest { volume_id: id.into(), volume_path: text(path), ..Default::default() }
}

/// Staged; the volume's id, and both paths.
async fn staged(world: &mut World) -> Outcome<(String, PathBuf, PathBuf)> {
    let (name, staged, target) = (world.name("block"), world.path("staging"), world.path("target"));
    good(world.create(wanted_block(&name)).await)?;
    good(world.stage(staging_block(&name, &staged)).await)?;
    Ok((name, staged, target))
}

fn is_device(target: &Path) -> bool {
    fs::metadata(target).is_ok_and(|found| found.file_type().is_block_device())
}

/// How many devices the kernel has for a volume.
fn devices(id: &str) -> Outcome<usize> {
    let all = loopdev::attached().map_err(|error| error.to_string())?;
    Ok(all.iter().filter(|device| text(&device.file).contains(id)).count())
}

fn bytes(target: &Path) -> Outcome<i64> {
    let end = File::open(target).and_then(|mut device| device.seek(SeekFrom::End(0)));
    end.map_err(|error| error.to_string()).map(|end| end as i64)
}

fn write(target: &Path, at: u64, data: &[u8]) -> std::io::Result<()> {
    let mut device = OpenOptions::new().write(true).open(target)?;
    device.seek(SeekFrom::Start(at))?;
    device.write_all(data)?;
    device.sync_all()
}

fn read(target: &Path, at: u64) -> Outcome<[u8; 4]> {
    let mut data = [0; 4];
    let read = File::open(target).and_then(|mut device| {
        device.seek(SeekFrom::Start(at))?;
        device.read_exact(&mut data)
    });
    read.map_err(|error| error.to_string()).map(|()| data)
}

cases! {
    "that a node has to grow a device is advertised #Block/capability" => |world| {
        let answer = good(world.node.node_get_capabilities(NodeGetCapabilitiesRequest {}).await)?;
        ensure!(answer.capabilities.contains(&NodeRpc::ExpandVolume.into()), "{answer:?}");
    }
    "a device is for one node, and no filesystem #Block/create" => |world| {
        let name = world.name("block");
        let volume = good(world.create(wanted_block(&name)).await)?;
        ensure!(good(world.create(wanted_block(&name)).await)? == volume, "it is another");
        let as_filesystem = CreateVolumeRequest {
            volume_capabilities: vec![capability(AccessModeKind::SingleNodeWriter)], ..wanted_block(&name)
        };
        code(AlreadyExists, world.create(as_filesystem.clone()).await)?;
        for capabilities in [
            vec![block(AccessModeKind::MultiNodeMultiWriter)],
            vec![block(AccessModeKind::MultiNodeReaderOnly)],
            [as_filesystem.volume_capabilities.clone(), vec![one()]].concat(),
        ] {
            let name = world.name("block");
            let request = CreateVolumeRequest { volume_capabilities: capabilities, ..wanted_block(&name) };
            code(InvalidArgument, world.create(request).await)?;
        }
        for (volume_capabilities, is_fit) in [(vec![one()], true), (as_filesystem.volume_capabilities, false)] {
            let request =
                ValidateVolumeCapabilitiesRequest { volume_id: name.clone(), volume_capabilities, ..Default::default() };
            let answer = good(world.controller.validate_volume_capabilities(request).await)?;
            ensure!(answer.confirmed.is_some() == is_fit, "{answer:?}");
        }
    }
    "a device whose mount has ended is there again when it is published again, and a volume with files is none" => |world| {
        let (id, staged, target) = staged(world).await?;
        good(world.publish(publishing_block(&id, &staged, &target)).await)?;
        write(&target, 4096, b"kept").map_err(|error| error.to_string())?;
        kill_mount(&staged).await?;
        ensure!(write(&target, 8192, b"lost").is_err(), "it goes on without its mount");
        let other = world.path("other");
        good(world.publish(publishing_block(&id, &staged, &target)).await)?;
        ensure!(read(&target, 4096)? == *b"kept" && devices(&id)? == 1, "{} devices", devices(&id)?);
        write(&target, 4096, b"more").map_err(|error| error.to_string())?;
        good(world.node.node_unpublish_volume(unpublishing(&id, &target)).await)?;
        good(world.node.node_unstage_volume(unstaging(&id, &staged)).await)?;
        let (with_files, target) = (world.volume().await?, world.path("target"));
        good(world.stage(staging(&with_files, &other)).await)?;
        good(world.publish(publishing(&with_files, &other, &target)).await)?;
        std::fs::write(target.join("file"), "x").map_err(|error| error.to_string())?;
        let staged = world.path("staging");
        code(FailedPrecondition, world.node.node_stage_volume(staging_block(&with_files, &staged)).await)?;
        ensure!(!is_mount_point(&staged), "what was refused is mounted");
        good(world.node.node_unpublish_volume(unpublishing(&with_files, &target)).await)?;
        good(world.node.node_unstage_volume(unstaging(&with_files, &other)).await)?;
        // What the call that was refused has made, the orchestrator removes.
        fs::remove_dir(&staged).map_err(|error| error.to_string())?;
    }
    "each step ten times over, and what was written is there again #Block/lifecycle" => |world| {
        let (id, staged, target) = staged(world).await?;
        for round in 0..2 {
            for _ in 0..10 {
                good(world.stage(staging_block(&id, &staged)).await)?;
            }
            for _ in 0..10 {
                good(world.publish(publishing_block(&id, &staged, &target)).await)?;
            }
            ensure!(is_device(&target) && devices(&id)? == 1, "{} devices", devices(&id)?);
            ensure!(bytes(&target)? == 64 * MIB, "{} bytes", bytes(&target)?);
            let last = (64 * MIB - 4) as u64;
            ensure!(read(&target, last)? == if round == 0 { [0; 4] } else { *b"last" }, "{:?}", read(&target, last));
            write(&target, last, b"last").map_err(|error| error.to_string())?;
            for _ in 0..10 {
                good(world.node.node_unpublish_volume(unpublishing(&id, &target)).await)?;
            }
            ensure!(!target.exists() && devices(&id)? == 0, "{} devices are left", devices(&id)?);
            for _ in 0..10 {
                good(world.node.node_unstage_volume(unstaging(&id, &staged)).await)?;
            }
        }
    }
    "a device at two targets is one, and goes with the last #Block/two-targets" => |world| {
        let (id, staged, target) = staged(world).await?;
        let second = world.path("second");
        good(world.publish(publishing_block(&id, &staged, &target)).await)?;
        good(world.publish(publishing_block(&id, &staged, &second)).await)?;
        write(&target, 0, b"both").map_err(|error| error.to_string())?;
        ensure!(read(&second, 0)? == *b"both" && devices(&id)? == 1, "{} devices", devices(&id)?);
        let single = Some(block(AccessModeKind::SingleNodeSingleWriter));
        let third = world.path("third");
        let third = NodePublishVolumeRequest { volume_capability: single, ..publishing_block(&id, &staged, &third) };
        code(FailedPrecondition, world.node.node_publish_volume(third).await)?;
        good(world.node.node_unpublish_volume(unpublishing(&id, &target)).await)?;
        ensure!(is_device(&second) && devices(&id)? == 1, "it goes with the first");
        good(world.node.node_unpublish_volume(unpublishing(&id, &second)).await)?;
        ensure!(devices(&id)? == 0, "it is left");
    }
    "one to be read takes no write, and is not there to be written #Block/read-only" => |world| {
        let (id, staged, target) = staged(world).await?;
        let read_only = NodePublishVolumeRequest { readonly: true, ..publishing_block(&id, &staged, &target) };
        good(world.publish(read_only.clone()).await)?;
        good(world.publish(read_only).await)?;
        ensure!(write(&target, 0, b"lost").is_err(), "it takes a write");
        ensure!(read(&target, 0)? == [0; 4], "{:?}", read(&target, 0));
        code(AlreadyExists, world.node.node_publish_volume(publishing_block(&id, &staged, &target)).await)?;
    }
    "it says how large it is, and grows while it is in use #Block/expand" => |world| {
        let (id, staged, target) = staged(world).await?;
        good(world.publish(publishing_block(&id, &staged, &target)).await)?;
        let usage = good(world.node.node_get_volume_stats(stats(&id, &target)).await)?.usage;
        ensure!(usage.len() == 1 && usage[0].total == 64 * MIB, "{usage:?}");
        code(NotFound, world.node.node_get_volume_stats(stats("missing", &target)).await)?;
        let held = File::open(&target).map_err(|error| error.to_string())?;
        for _ in 0..10 {
            let request = ControllerExpandVolumeRequest {
                volume_id: id.clone(), capacity_range: range(96 * MIB), volume_capability: Some(one()), ..Default::default()
            };
            let answer = good(world.controller.controller_expand_volume(request).await)?;
            ensure!(answer.node_expansion_required, "{answer:?}");
            let request = NodeExpandVolumeRequest {
                volume_id: id.clone(), volume_path: text(&target), capacity_range: range(96 * MIB), ..Default::default()
            };
            let answer = good(world.node.node_expand_volume(request).await)?;
            ensure!(answer.capacity_bytes == 96 * MIB && bytes(&target)? == 96 * MIB, "{answer:?}, {} bytes", bytes(&target)?);
        }
        drop(held);
        write(&target, (96 * MIB - 4) as u64, b"last").map_err(|error| error.to_string())?;
    }
}
