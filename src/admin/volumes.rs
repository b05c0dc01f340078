//! `/v1/volumes`: made, looked at, changed, deleted.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Shared;
use super::auth::Caller;
use super::documents::{NewVolumeDocument, VolumeChangeDocument, VolumeDocument, VolumesDocument};
use super::problem::Problem;
use super::routes::{Document, Named, Unread};
use crate::config::value::LabelFilter;
use crate::remote::operator::OperatorError;
use crate::types::api_key::ApiRole;
use crate::types::volume::{NewVolume, Volume, VolumeUsage};

const PAGE_MAX: usize = 1000;

/// Which volumes, and how many of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Those with all of these labels: `KEY=VALUE` or `KEY`, separated by commas.
    labels: Option<String>,
    /// At most so many, and at most 1,000.
    limit: Option<usize>,
    /// What the page before ended with.
    page_token: Option<String>,
}

/// Volumes, in the order of their names
#[utoipa::path(get, path = "/v1/volumes", operation_id = "list_volumes", tag = "volumes", params(Which), responses(
    (status = 200, description = "What was asked for.", body = VolumesDocument),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Result<Document<VolumesDocument>, Problem> {
    let Query(which) = which.map_err(|error| Problem::invalid(error.body_text()))?;
    let mut volumes = shared.cluster.volumes().await?;
    volumes.retain(|(volume, _)| caller.sees(&volume.name));
    page(volumes, &which).map(Document)
}

fn page(mut volumes: Vec<(Volume, VolumeUsage)>, which: &Which) -> Result<VolumesDocument, Problem> {
    let limit = which.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    if limit == 0 {
        return Err(Problem::invalid("limit is at least 1"));
    }
    let parse = |text: &str| text.parse::<LabelFilter>().map_err(|error| Problem::invalid(error.to_string()));
    let labels = which.labels.as_deref().unwrap_or_default().split(',').filter(|text| !text.is_empty());
    let labels = labels.map(parse).collect::<Result<Vec<_>, _>>()?;
    volumes.retain(|(volume, _)| labels.iter().all(|label| label.fits(&volume.labels)));
    volumes.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    if let Some(after) = &which.page_token {
        volumes.retain(|(volume, _)| volume.name > *after);
    }
    let more = volumes.len() > limit;
    volumes.truncate(limit);
    let next_page_token = volumes.last().filter(|_| more).map(|(volume, _)| volume.name.clone());
    let volumes = volumes.iter().map(|(volume, usage)| VolumeDocument::new(volume, usage)).collect();
    Ok(VolumesDocument { volumes, next_page_token })
}

/// Make a volume
///
/// One of that name that is just so is the answer as well: the same request can be made again.
#[utoipa::path(post, path = "/v1/volumes", operation_id = "create_volume", tag = "volumes", request_body = NewVolumeDocument, responses(
    (status = 201, description = "It was made.", body = VolumeDocument, headers(("Location" = String, description = "Where the volume is."))),
    (status = 200, description = "It was there already.", body = VolumeDocument),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "There is another volume of that name."),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create(State(shared): State<Shared>, caller: Caller, request: Unread) -> Result<Response, Problem> {
    caller.require(ApiRole::Operator)?;
    let wanted = request.read::<NewVolumeDocument>().await?.into_volume().map_err(Problem::invalid)?;
    if !caller.sees(&wanted.name) {
        return Err(Problem::forbidden(format!("this key is not for a volume {}", wanted.name)));
    }
    match shared.cluster.create_volume(wanted.clone()).await {
        Ok(volume) => {
            let place = [(LOCATION, format!("/v1/volumes/{}", volume.name))];
            let document = VolumeDocument::new(&volume, &VolumeUsage::default());
            Ok((StatusCode::CREATED, place, Document(document)).into_response())
        }
        Err(OperatorError::Exists(_)) => {
            let (volume, usage) = shared.cluster.volume(&wanted.name).await?;
            if is_as_wanted(&volume, &wanted) {
                return Ok(Document(VolumeDocument::new(&volume, &usage)).into_response());
            }
            let detail = format!("there is a volume {} already, and it is not as it was asked for", wanted.name);
            Err(Problem::exists(detail))
        }
        Err(error) => Err(error.into()),
    }
}

/// The owner and mode of the root are the volume's users' to change, and no part of what it is.
fn is_as_wanted(volume: &Volume, wanted: &NewVolume) -> bool {
    volume.policy == wanted.policy && volume.labels == wanted.labels
}

/// A volume
#[utoipa::path(get, path = "/v1/volumes/{name}", operation_id = "show_volume", tag = "volumes", params(("name" = String, Path)), responses(
    (status = 200, description = "What was asked for.", body = VolumeDocument),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Named(name): Named,
) -> Result<Document<VolumeDocument>, Problem> {
    caller.require_volume(&name)?;
    let (volume, usage) = shared.cluster.volume(&name).await?;
    Ok(Document(VolumeDocument::new(&volume, &usage)))
}

/// Change a volume: its size, its patience, its access, its labels
///
/// It may be mounted and written to meanwhile. What is not named stays as it is.
#[utoipa::path(patch, path = "/v1/volumes/{name}", operation_id = "change_volume", tag = "volumes", params(("name" = String, Path)),
    request_body = VolumeChangeDocument, responses(
    (status = 200, description = "What was asked for.", body = VolumeDocument),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "It holds more than that, or is in use."),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn change(
    State(shared): State<Shared>,
    caller: Caller,
    Named(name): Named,
    request: Unread,
) -> Result<Document<VolumeDocument>, Problem> {
    caller.require(ApiRole::Operator)?;
    caller.require_volume(&name)?;
    let change = request.read::<VolumeChangeDocument>().await?;
    let (volume, usage) = shared.cluster.change_volume(&name, change.into()).await?;
    Ok(Document(VolumeDocument::new(&volume, &usage)))
}

/// Delete a volume with all that is in it
#[utoipa::path(delete, path = "/v1/volumes/{name}", operation_id = "delete_volume", tag = "volumes", params(("name" = String, Path)), responses(
    (status = 204, description = "It is gone; its space comes back in the background."),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "It is in use."),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    Named(name): Named,
) -> Result<StatusCode, Problem> {
    caller.require(ApiRole::Operator)?;
    caller.require_volume(&name)?;
    shared.cluster.delete_volume(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::problem::Code;
    use crate::types::id::{TreeId, VolumeId};
    use crate::types::volume::{Labels, VolumePolicy};

    fn volume(name: &str, label: &str) -> (Volume, VolumeUsage) {
        let labels = Labels::from([("tier".into(), label.into())]);
        let policy = VolumePolicy::default();
        (Volume { id: VolumeId(1), name: name.into(), tree: TreeId(1), policy, labels }, VolumeUsage::default())
    }

    fn which(labels: Option<&str>, limit: Option<usize>, page_token: Option<&str>) -> Which {
        Which { labels: labels.map(Into::into), limit, page_token: page_token.map(Into::into) }
    }

    fn names(page: &VolumesDocument) -> Vec<String> {
        let names = page.volumes.iter().map(|volume| serde_json::to_value(volume).unwrap()["name"].clone());
        names.map(|name| name.as_str().unwrap().to_string()).collect()
    }

    #[test]
    fn pages_follow_one_another() {
        let all = || vec![volume("c", "web"), volume("a", "web"), volume("b", "db")];
        let first = page(all(), &which(None, Some(2), None)).unwrap();
        assert_eq!((names(&first), first.next_page_token.as_deref()), (vec!["a".into(), "b".into()], Some("b")));
        let second = page(all(), &which(None, Some(2), Some("b"))).unwrap();
        assert_eq!((names(&second), second.next_page_token), (vec!["c".into()], None));
        let web = page(all(), &which(Some("tier=web"), None, None)).unwrap();
        assert_eq!(names(&web), ["a", "c"]);
        assert_eq!(page(all(), &which(None, Some(0), None)).unwrap_err().code(), Code::Invalid);
    }

    #[test]
    fn a_volume_is_as_wanted_whatever_its_root_is() {
        let (volume, _) = volume("www", "web");
        let wanted = NewVolume { labels: volume.labels.clone(), mode: 0o700, ..NewVolume::named("www") };
        assert!(is_as_wanted(&volume, &wanted));
        assert!(!is_as_wanted(&volume, &NewVolume::named("www")));
    }
}
