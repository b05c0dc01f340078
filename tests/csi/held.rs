//! A volume that is in use while the driver, or the cluster, goes away and comes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast::container::csi::spec::*;
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::block::{publishing_block, staging_block, wanted_block};
use crate::node::is_removed;
use crate::world::{
    GIB, Outcome, World, capability, code, ensure, good, map, publishing, range, staging, text, wanted,
};

/// How long an orchestrator waits for a node's call.
const PATIENCE: Duration = Duration::from_secs(115);
/// For one that has nothing to wait for.
const PROMPT: Duration = Duration::from_secs(20);

pub struct Held {
    pub id: String,
    pub staged: PathBuf,
    pub target: PathBuf,
}

impl Held {
    pub fn of(world: &World, name: &str) -> Held {
        let at = |what: &str| world.dir().join(format!("{name}-{what}"));
        Held { id: format!("csi-{name}"), staged: at("staging"), target: at("target") }
    }

    fn unpublishing(&self) -> NodeUnpublishVolumeRequest {
        NodeUnpublishVolumeRequest { volume_id: self.id.clone(), target_path: text(&self.target) }
    }

    fn unstaging(&self) -> NodeUnstageVolumeRequest {
        NodeUnstageVolumeRequest { volume_id: self.id.clone(), staging_target_path: text(&self.staged) }
    }
}

/// # Errors
/// It cannot be staged or published.
pub async fn keep(world: &mut World, name: &str) -> Outcome<String> {
    let Held { id, staged, target } = Held::of(world, name);
    fs::create_dir_all(&staged).map_err(|error| error.to_string())?;
    good(world.controller.create_volume(wanted(&id)).await)?;
    good(world.node.node_stage_volume(staging(&id, &staged)).await)?;
    good(world.node.node_publish_volume(publishing(&id, &staged, &target)).await)?;
    Ok(text(&target))
}

/// One that lives as long as a pod.
///
/// # Errors
/// It cannot be published.
pub async fn keep_inline(world: &mut World, name: &str) -> Outcome<String> {
    let Held { id, target, .. } = Held::of(world, name);
    let request = NodePublishVolumeRequest {
        staging_target_path: String::new(),
        volume_context: map(&[("csi.storage.k8s.io/ephemeral", "true"), ("size", "64MiB")]),
        volume_capability: Some(capability(AccessModeKind::SingleNodeWriter)),
        ..publishing(&id, Path::new("/"), &target)
    };
    good(world.node.node_publish_volume(request).await)?;
    Ok(text(&target))
}

/// A block device; asked again, the one that is there.
///
/// # Errors
/// It cannot be staged or published.
pub async fn keep_device(world: &mut World, name: &str) -> Outcome<String> {
    let Held { id, staged, target } = Held::of(world, name);
    fs::create_dir_all(&staged).map_err(|error| error.to_string())?;
    good(world.controller.create_volume(wanted_block(&id)).await)?;
    good(world.node.node_stage_volume(staging_block(&id, &staged)).await)?;
    good(world.node.node_publish_volume(publishing_block(&id, &staged, &target)).await)?;
    Ok(text(&target))
}

/// # Errors
/// It is not there, or not well.
pub async fn lives(world: &mut World, name: &str) -> Outcome<String> {
    let Held { id, staged, target } = Held::of(world, name);
    good(world.node.node_stage_volume(staging(&id, &staged)).await)?;
    good(world.node.node_publish_volume(publishing(&id, &staged, &target)).await)?;
    for path in [&staged, &target] {
        let answer = good(world.node.node_get_volume_stats(stats(&id, path)).await)?;
        ensure!(answer.volume_condition.as_ref().is_some_and(|condition| !condition.abnormal), "{answer:?}");
        ensure!(answer.usage.iter().any(|usage| usage.total == GIB), "{answer:?}");
    }
    Ok("it is well".into())
}

fn stats(id: &str, path: &Path) -> NodeGetVolumeStatsRequest {
    NodeGetVolumeStatsRequest { volume_id: id.into(), volume_path: text(path), ..Default::default() }
}

/// A block device, published and with nothing on its way.
///
/// # Errors
/// A call takes too long, or does not say what is the matter.
pub async fn adrift(world: &mut World, name: &str) -> Outcome<String> {
    let held = Held::of(world, name);
    let Held { id, staged, target } = &held;
    let begun = Instant::now();
    good(world.node.node_stage_volume(staging_block(id, staged)).await)?;
    good(world.node.node_publish_volume(publishing_block(id, staged, target)).await)?;
    for _ in 0..3 {
        let answer = good(world.node.node_get_volume_stats(stats(id, target)).await)?;
        let is_abnormal = answer.volume_condition.as_ref().is_some_and(|condition| condition.abnormal);
        ensure!(is_abnormal && answer.usage.len() == 1, "{answer:?}");
    }
    good(world.node.node_unpublish_volume(held.unpublishing()).await)?;
    ensure!(!target.exists(), "its target is there");
    let prompt = begun.elapsed();
    ensure!(prompt < PROMPT, "what waits for nothing took {prompt:?}");
    // The file has to be opened, and its size asked for: that may wait, and goes on.
    let begun = Instant::now();
    let published = world.node.node_publish_volume(publishing_block(id, staged, target)).await;
    let is_aborted = |status: &Status| status.code() == Code::Aborted;
    ensure!(published.as_ref().err().is_none_or(is_aborted), "{published:?}");
    let unstaged = world.node.node_unstage_volume(held.unstaging()).await;
    // It goes on with the other, or the device is there and has the volume.
    ensure!(unstaged.as_ref().is_err_and(|status| published.is_ok() || is_aborted(status)), "{unstaged:?}");
    ensure!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
    let published = published.map_or_else(|_| "publishing goes on", |_| "published");
    Ok(format!("adrift: answered in {prompt:?}; {published} after {:?}", begun.elapsed()))
}

/// With `csi-going` staged alone, and `csi-inline` a pod's own: those are taken off.
///
/// # Errors
/// A call takes too long, or does not say what is the matter.
pub async fn away(world: &mut World, name: &str) -> Outcome<String> {
    let held = Held::of(world, name);
    let Held { id, staged, target } = &held;
    let begun = Instant::now();
    let unstaging = tokio::spawn(unstage(world.node.clone(), Held::of(world, "going").unstaging()));
    // What is there is there.
    good(world.node.node_stage_volume(staging(id, staged)).await)?;
    good(world.node.node_publish_volume(publishing(id, staged, target)).await)?;
    for _ in 0..3 {
        let answer = good(world.node.node_get_volume_stats(stats(id, target)).await)?;
        ensure!(answer.volume_condition.as_ref().is_some_and(|condition| condition.abnormal), "it is well: {answer:?}");
    }
    let (volume_id, volume_path) = (id.clone(), text(target));
    let expand =
        NodeExpandVolumeRequest { volume_id, volume_path, capacity_range: range(2 * GIB), ..Default::default() };
    good(world.node.node_expand_volume(expand).await)?;
    // A pod can go, and another come.
    good(world.node.node_unpublish_volume(held.unpublishing()).await)?;
    good(world.node.node_publish_volume(publishing(id, staged, target)).await)?;
    inline_goes(world).await?;
    let other = world.path("staging");
    code(Code::Unavailable, world.node.node_stage_volume(staging("csi-other", &other)).await)?;
    let _ = fs::remove_dir(other);
    code(Code::Unavailable, world.controller.list_volumes(ListVolumesRequest::default()).await)?;
    ensure!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
    let others = begun.elapsed();
    let unstaged = unstaging.await.map_err(|error| error.to_string())??;
    Ok(format!("away: answered in {others:?}; {unstaged}"))
}

/// What was written is to be durable first, so it may have to go on without anybody who waits; then it says so at once.
async fn unstage(
    mut node: NodeClient<tonic::transport::Channel>,
    request: NodeUnstageVolumeRequest,
) -> Outcome<String> {
    let is_aborted = |answer: &Result<_, Status>| answer.as_ref().is_err_and(|status| status.code() == Code::Aborted);
    let begun = Instant::now();
    let first = node.node_unstage_volume(request.clone()).await;
    let took = begun.elapsed();
    ensure!(took < PATIENCE, "a volume is unstaged in {took:?}");
    if !is_aborted(&first) {
        good(first)?;
        return Ok(format!("unstaged in {took:?}"));
    }
    let again = Instant::now();
    let second = node.node_unstage_volume(request).await;
    ensure!(is_aborted(&second), "what goes on is {second:?}");
    ensure!(again.elapsed() < PROMPT, "it is asked for again in {:?}", again.elapsed());
    Ok(format!("unstaging goes on after {took:?}"))
}

/// Nobody reads it again: it has nothing to wait for. It is removed when the cluster is back.
async fn inline_goes(world: &mut World) -> Outcome {
    let held = Held::of(world, "inline");
    let begun = Instant::now();
    for _ in 0..3 {
        good(world.node.node_unpublish_volume(held.unpublishing()).await)?;
    }
    ensure!(begun.elapsed() < PROMPT, "a pod's own volume is taken off in {:?}", begun.elapsed());
    ensure!(!held.target.exists(), "its target is there");
    Ok(())
}

/// # Errors
/// It cannot be taken from there.
pub async fn unpublish(world: &mut World, name: &str) -> Outcome<String> {
    good(world.node.node_unpublish_volume(Held::of(world, name).unpublishing()).await)?;
    Ok("unpublished".into())
}

/// # Errors
/// It cannot be taken from there.
pub async fn unstage_now(world: &mut World, name: &str) -> Outcome<String> {
    good(world.node.node_unstage_volume(Held::of(world, name).unstaging()).await)?;
    Ok("unstaged".into())
}

/// # Errors
/// It cannot be taken off.
pub async fn end(world: &mut World, name: &str) -> Outcome<String> {
    let held = Held::of(world, name);
    let begun = Instant::now();
    // What was begun without the cluster may still be under way.
    let is_under_way = |status: &Status| status.code() == Code::Aborted && begun.elapsed() < PATIENCE;
    while let Err(status) = world.node.node_unpublish_volume(held.unpublishing()).await {
        ensure!(is_under_way(&status), "unpublish: {status:?}");
        sleep(Duration::from_millis(500)).await;
    }
    while let Err(status) = world.node.node_unstage_volume(held.unstaging()).await {
        ensure!(is_under_way(&status), "unstage: {status:?}");
        sleep(Duration::from_millis(500)).await;
    }
    let _ = fs::remove_dir(held.staged);
    let delete = DeleteVolumeRequest { volume_id: held.id, ..Default::default() };
    good(world.controller.delete_volume(delete).await)?;
    Ok("taken off".into())
}

/// # Errors
/// It is there.
pub async fn ended(world: &mut World, name: &str) -> Outcome<String> {
    is_removed(world, &Held::of(world, name).id, PATIENCE).await?;
    Ok("removed".into())
}
