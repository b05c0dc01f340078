//! What the specification has from 1.13 on in place of a volume's condition: a driver of that level, with a volume `csi-health` in use
//! ([`crate::held`]), while the cluster is well, while a store is down, and while all of it is away.

use std::time::Duration;

use holdfast::container::csi::spec::volume_health::VolumeHealthEntry;
use holdfast::container::csi::spec::*;
use tokio::time::timeout;
use tonic::Code::{Aborted, InvalidArgument, NotFound, Unavailable};
use tonic::Status;

use crate::held::Held;
use crate::world::{Outcome, World, cases, code, ensure, good, map, text, wanted};

/// Less than any orchestrator waits, and more than the driver asks the cluster for.
const PATIENCE: Duration = Duration::from_secs(20);

fn held(world: &World) -> Held {
    Held::of(world, "health")
}

/// # Errors
/// No answer in time.
async fn in_time<T>(asking: impl Future<Output = Result<T, Status>>) -> Outcome<Result<T, Status>> {
    timeout(PATIENCE, asking).await.map_err(|_| format!("no answer in {PATIENCE:?}"))
}

fn of_id(id: &str) -> ControllerGetVolumeHealthRequest {
    ControllerGetVolumeHealthRequest { volume_id: id.into(), ..Default::default() }
}

fn at_path(id: &str, path: &str) -> NodeGetVolumeHealthRequest {
    NodeGetVolumeHealthRequest { volume_id: id.into(), volume_publish_path: path.into(), ..Default::default() }
}

/// What the controller says of a volume.
async fn told(world: &mut World, id: &str) -> Outcome<Vec<VolumeHealthEntry>> {
    let answer = good(in_time(world.controller.controller_get_volume_health(of_id(id))).await?)?;
    statuses(id, answer.volume_health)
}

/// What the node says of the volume that is in use.
async fn told_by_node(world: &mut World) -> Outcome<Vec<VolumeHealthEntry>> {
    let Held { id, target, .. } = held(world);
    let answer = good(in_time(world.node.node_get_volume_health(at_path(&id, &text(&target)))).await?)?;
    statuses(&id, answer.volume_health)
}

fn statuses(id: &str, health: Option<VolumeHealth>) -> Outcome<Vec<VolumeHealthEntry>> {
    let health = health.ok_or("no health is told")?;
    ensure!(health.volume_id == id, "it is that of {}", health.volume_id);
    Ok(health.health_statuses)
}

/// Those with something the matter, over pages of one volume each.
async fn listed(world: &mut World) -> Outcome<Vec<VolumeHealth>> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let request = ControllerListVolumeHealthRequest { max_entries: 1, starting_token: token, ..Default::default() };
        let answer = good(in_time(world.controller.controller_list_volume_health(request)).await?)?;
        ensure!(answer.entries.len() <= 1, "a page of {}", answer.entries.len());
        all.extend(answer.entries);
        token = answer.next_token;
        if token.is_empty() {
            return Ok(all);
        }
    }
}

fn is(entries: &[VolumeHealthEntry], status: VolumeHealthErrorType, reason: &str) -> bool {
    let fits = |entry: &VolumeHealthEntry| entry.status == i32::from(status) && entry.reason == reason;
    matches!(entries, [entry] if fits(entry) && !entry.message.is_empty())
}

/// Nothing is the matter.
pub mod well {
    use super::*;

    cases! {
        "health is advertised, and no condition #Health/capabilities" => |world| {
            let request = ControllerGetCapabilitiesRequest {};
            let controller = good(world.controller.controller_get_capabilities(request).await)?.capabilities;
            for wanted in [ControllerRpc::GetVolumeHealth, ControllerRpc::ListVolumeHealth] {
                ensure!(controller.contains(&wanted.into()), "{wanted:?} is missing");
            }
            ensure!(!controller.contains(&ControllerRpc::VolumeCondition.into()), "{controller:?}");
            let node = good(world.node.node_get_capabilities(NodeGetCapabilitiesRequest {}).await)?.capabilities;
            for wanted in [NodeRpc::GetVolumeHealth, NodeRpc::GetStorageHealth] {
                ensure!(node.contains(&wanted.into()), "{wanted:?} is missing");
            }
            ensure!(!node.contains(&NodeRpc::VolumeCondition.into()), "{node:?}");
        }
        "and no answer has a condition #Health/no-condition" => |world| {
            let Held { id, target, .. } = held(world);
            let request = ControllerGetVolumeRequest { volume_id: id.clone() };
            let found = good(world.controller.controller_get_volume(request).await)?.status.unwrap_or_default();
            ensure!(found.volume_condition.is_none(), "{found:?}");
            let listed = good(world.controller.list_volumes(ListVolumesRequest::default()).await)?.entries;
            let conditions = listed.iter().filter_map(|entry| entry.status.as_ref()?.volume_condition.as_ref());
            ensure!(!listed.is_empty() && conditions.count() == 0, "{listed:?}");
            let request =
                NodeGetVolumeStatsRequest { volume_id: id, volume_path: text(&target), ..Default::default() };
            let stats = good(world.node.node_get_volume_stats(request).await)?;
            ensure!(stats.volume_condition.is_none() && !stats.usage.is_empty(), "{stats:?}");
        }
        "a volume that is well has nothing the matter, wherever it is asked #Health/well" => |world| {
            let Held { id, staged, .. } = held(world);
            ensure!(told(world, &id).await?.is_empty(), "{:?}", told(world, &id).await);
            ensure!(listed(world).await?.is_empty(), "{:?}", listed(world).await);
            ensure!(told_by_node(world).await?.is_empty(), "{:?}", told_by_node(world).await);
            let staging_target_path = text(&staged);
            let staged = NodeGetVolumeHealthRequest { staging_target_path, ..at_path(&id, "") };
            let answer = good(world.node.node_get_volume_health(staged).await)?;
            ensure!(statuses(&id, answer.volume_health)?.is_empty(), "at its staging path it is not well");
            let storage = good(world.node.node_get_storage_health(NodeGetStorageHealthRequest::default()).await)?;
            ensure!(storage.backend_health.is_empty(), "{storage:?}");
        }
        "whose health is asked for has an id, and is there #Health/ControllerGetVolumeHealth" => |world| {
            code(InvalidArgument, world.controller.controller_get_volume_health(of_id("")).await)?;
            for id in ["missing", "no name of a volume"] {
                code(NotFound, world.controller.controller_get_volume_health(of_id(id)).await)?;
            }
        }
        "a page of health that nobody gave is refused #Health/ControllerListVolumeHealth" => |world| {
            let request =
                ControllerListVolumeHealthRequest { starting_token: "invalid-token".into(), ..Default::default() };
            code(Aborted, world.controller.controller_list_volume_health(request).await)?;
        }
        "on a node it has a path too, where it is #Health/NodeGetVolumeHealth" => |world| {
            let Held { id, target, .. } = held(world);
            code(InvalidArgument, world.node.node_get_volume_health(at_path("", &text(&target))).await)?;
            code(InvalidArgument, world.node.node_get_volume_health(at_path(&id, "")).await)?;
            code(NotFound, world.node.node_get_volume_health(at_path(&id, "some/path")).await)?;
            code(NotFound, world.node.node_get_volume_health(at_path("missing", &text(&target))).await)?;
        }
    }
}

/// One store of three is down.
pub mod degraded {
    use super::*;

    cases! {
        "with a store down a volume of three copies is degraded #Health/degraded" => |world| {
            let Held { id, .. } = held(world);
            let entries = told(world, &id).await?;
            ensure!(is(&entries, VolumeHealthErrorType::Degraded, "StoresDown"), "{entries:?}");
            let listed = listed(world).await?;
            let entries = listed.iter().find(|health| health.volume_id == id).map(|health| &health.health_statuses[..]);
            ensure!(is(entries.unwrap_or_default(), VolumeHealthErrorType::Degraded, "StoresDown"), "{listed:?}");
        }
        "and one of a single copy may not be reached #Health/inaccessible" => |world| {
            let name = world.name("single");
            good(world.create(CreateVolumeRequest { parameters: map(&[("replicas", "1")]), ..wanted(&name) }).await)?;
            let entries = told(world, &name).await?;
            ensure!(is(&entries, VolumeHealthErrorType::Inaccessible, "TooManyStoresDown"), "{entries:?}");
        }
        "while its node reaches what it needs #Health/degraded-node" => |world| {
            let entries = told_by_node(world).await?;
            ensure!(entries.is_empty(), "{entries:?}");
            let request = NodeGetStorageHealthRequest::default();
            let storage = good(in_time(world.node.node_get_storage_health(request)).await?)?;
            ensure!(storage.backend_health.is_empty(), "{storage:?}");
        }
    }
}

/// No server answers.
pub mod away {
    use super::*;

    cases! {
        "without the cluster a node says that it is not reached #Health/away-storage" => |world| {
            let request = NodeGetStorageHealthRequest::default();
            let storage = good(in_time(world.node.node_get_storage_health(request)).await?)?.backend_health;
            let unreachable = i32::from(StorageHealthErrorType::StorageUnreachable);
            let fits = matches!(&storage[..], [only] if only.status == unreachable && only.reason == "ClusterAway");
            ensure!(fits, "{storage:?}");
        }
        "nor the volume that is in use #Health/away-volume" => |world| {
            let entries = told_by_node(world).await?;
            ensure!(is(&entries, VolumeHealthErrorType::Inaccessible, "ClusterAway"), "{entries:?}");
        }
        "and a controller that it cannot know #Health/away-controller" => |world| {
            let Held { id, .. } = held(world);
            code(Unavailable, in_time(world.controller.controller_get_volume_health(of_id(&id))).await?)?;
            let request = ControllerListVolumeHealthRequest::default();
            code(Unavailable, in_time(world.controller.controller_list_volume_health(request)).await?)?;
        }
    }
}
