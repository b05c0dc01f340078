//! One call after another by hand, for `deploy/demo/claim`: fields as `key=value`, and the answer as the driver gave it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use holdfast::config::value::ByteSize;
use holdfast::container::csi::spec::*;

use crate::world::{Outcome, World, good, many, publishing, range, staging};

/// The fields of a call, each of which has to be used.
struct Fields(BTreeMap<String, String>);

impl Fields {
    fn parse(words: &[String]) -> Outcome<Fields> {
        let pair = |word: &String| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_string(), value.to_string())),
            None => Err(format!("{word} is no key=value")),
        };
        words.iter().map(pair).collect::<Outcome<_>>().map(Fields)
    }

    fn take(&mut self, key: &str) -> Outcome<String> {
        self.0.remove(key).ok_or_else(|| format!("{key}= is missing"))
    }

    fn take_range(&mut self) -> Outcome<Option<CapacityRange>> {
        let size: ByteSize = self.take("required_bytes")?.parse().map_err(|error| format!("{error}"))?;
        i64::try_from(size.0).map(range).map_err(|error| error.to_string())
    }
}

/// # Errors
/// The call is not known here, lacks a field or has one too many; or the driver refuses it.
pub async fn call(world: &mut World, method: &str, words: &[String]) -> Outcome<String> {
    let mut fields = Fields::parse(words)?;
    let answered = match method {
        "GetPluginInfo" => said(world.identity.get_plugin_info(GetPluginInfoRequest {}).await),
        "NodeGetInfo" => said(world.node.node_get_info(NodeGetInfoRequest {}).await),
        _ if method.starts_with("Node") => node(world, method, &mut fields).await,
        _ => controller(world, method, &mut fields).await,
    };
    match fields.0.pop_first() {
        Some((key, _)) if answered.is_ok() => Err(format!("{method} has no {key} here")),
        _ => answered,
    }
}

async fn controller(world: &mut World, method: &str, fields: &mut Fields) -> Outcome<String> {
    match method {
        "CreateVolume" => {
            let request = CreateVolumeRequest {
                name: fields.take("name")?,
                capacity_range: fields.take_range()?,
                volume_capabilities: vec![many()],
                ..Default::default()
            };
            said(world.controller.create_volume(request).await)
        }
        "ControllerExpandVolume" => {
            let request = ControllerExpandVolumeRequest {
                volume_id: fields.take("volume_id")?,
                capacity_range: fields.take_range()?,
                ..Default::default()
            };
            said(world.controller.controller_expand_volume(request).await)
        }
        "DeleteVolume" => {
            let request = DeleteVolumeRequest { volume_id: fields.take("volume_id")?, ..Default::default() };
            said(world.controller.delete_volume(request).await)
        }
        _ => Err(format!("{method} is not known here")),
    }
}

async fn node(world: &mut World, method: &str, fields: &mut Fields) -> Outcome<String> {
    let id = fields.take("volume_id")?;
    match method {
        "NodeStageVolume" => {
            let staged = fields.take("staging_target_path")?;
            said(world.node.node_stage_volume(staging(&id, Path::new(&staged))).await)
        }
        "NodePublishVolume" => {
            let (staged, target) = (fields.take("staging_target_path")?, fields.take("target_path")?);
            said(world.node.node_publish_volume(publishing(&id, Path::new(&staged), Path::new(&target))).await)
        }
        "NodeGetVolumeStats" => {
            let request = NodeGetVolumeStatsRequest {
                volume_id: id,
                volume_path: fields.take("volume_path")?,
                ..Default::default()
            };
            said(world.node.node_get_volume_stats(request).await)
        }
        "NodeUnpublishVolume" => {
            let request = NodeUnpublishVolumeRequest { volume_id: id, target_path: fields.take("target_path")? };
            said(world.node.node_unpublish_volume(request).await)
        }
        "NodeUnstageVolume" => {
            let staging_target_path = fields.take("staging_target_path")?;
            let request = NodeUnstageVolumeRequest { volume_id: id, staging_target_path };
            said(world.node.node_unstage_volume(request).await)
        }
        _ => Err(format!("{method} is not known here")),
    }
}

fn said<T: Debug>(answer: Result<T, tonic::Status>) -> Outcome<String> {
    good(answer).map(|answer| format!("{answer:?}"))
}
