//! A volume that is in use while the driver, or the cluster, goes away and comes back.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use holdfast::container::csi::spec::*;
use tonic::Code;

use crate::world::{Outcome, World, ensure, good, publishing, staging, text, wanted};

/// How long an orchestrator waits for a node's call.
const PATIENCE: Duration = Duration::from_secs(115);

struct Held {
    id: String,
    staged: PathBuf,
    target: PathBuf,
}

impl Held {
    fn of(world: &World, name: &str) -> Held {
        let at = |what: &str| world.dir().join(format!("{name}-{what}"));
        Held { id: format!("csi-{name}"), staged: at("staging"), target: at("target") }
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

/// # Errors
/// A call takes too long, or does not say what is the matter.
pub async fn away(world: &mut World, name: &str) -> Outcome<String> {
    let Held { id, staged, target } = Held::of(world, name);
    let begun = Instant::now();
    // What is there is there.
    good(world.node.node_stage_volume(staging(&id, &staged)).await)?;
    good(world.node.node_publish_volume(publishing(&id, &staged, &target)).await)?;
    let stats = NodeGetVolumeStatsRequest { volume_id: id.clone(), volume_path: text(&target), ..Default::default() };
    for _ in 0..3 {
        let answer = good(world.node.node_get_volume_stats(stats.clone()).await)?;
        ensure!(answer.volume_condition.as_ref().is_some_and(|condition| condition.abnormal), "it is well: {answer:?}");
    }
    // A pod can go, and another come.
    let unpublish = NodeUnpublishVolumeRequest { volume_id: id.clone(), target_path: text(&target) };
    good(world.node.node_unpublish_volume(unpublish).await)?;
    good(world.node.node_publish_volume(publishing(&id, &staged, &target)).await)?;
    let other = world.path("staging");
    let refused = world.node.node_stage_volume(staging("csi-other", &other)).await;
    let is_away = refused.as_ref().is_err_and(|status| status.code() == Code::Unavailable);
    ensure!(is_away, "a volume that is not there is staged so: {refused:?}");
    let _ = fs::remove_dir(other);
    let refused = world.controller.list_volumes(ListVolumesRequest::default()).await;
    let is_away = refused.as_ref().is_err_and(|status| status.code() == Code::Unavailable);
    ensure!(is_away, "volumes are listed so: {refused:?}");
    ensure!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
    Ok(format!("away: answered in {:?}", begun.elapsed()))
}

/// # Errors
/// It cannot be taken from there.
pub async fn unpublish(world: &mut World, name: &str) -> Outcome<String> {
    let Held { id, target, .. } = Held::of(world, name);
    let unpublish = NodeUnpublishVolumeRequest { volume_id: id, target_path: text(&target) };
    good(world.node.node_unpublish_volume(unpublish).await)?;
    Ok("unpublished".into())
}

/// # Errors
/// It cannot be taken off.
pub async fn end(world: &mut World, name: &str) -> Outcome<String> {
    unpublish(world, name).await?;
    let Held { id, staged, .. } = Held::of(world, name);
    let unstage = NodeUnstageVolumeRequest { volume_id: id.clone(), staging_target_path: text(&staged) };
    good(world.node.node_unstage_volume(unstage).await)?;
    let _ = fs::remove_dir(staged);
    let delete = DeleteVolumeRequest { volume_id: id, ..Default::default() };
    good(world.controller.delete_volume(delete).await)?;
    Ok("taken off".into())
}
