//! What can be asked for, described for programs: OpenAPI 3.1, made from the handlers themselves. A copy is kept at
//! `deploy/openapi.json`, so that a change of it is seen.

use axum::Json;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{cluster, metrics, probes, tokens, volumes};

#[derive(OpenApi)]
#[openapi(
    info(title = "Holdfast", description = "Volumes on demand, and how the cluster is."),
    paths(
        volumes::list,
        volumes::create,
        volumes::show,
        volumes::change,
        volumes::delete,
        tokens::create,
        cluster::status,
        cluster::stores,
        cluster::store,
        cluster::clients,
        metrics::show,
        probes::healthz,
        probes::readyz,
        show,
    ),
    modifiers(&Key),
    security(("key" = []))
)]
struct Description;

/// A key, as `holdfast key create` prints it.
struct Key;

impl Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

/// The document, as text.
pub fn document() -> String {
    Description::openapi().to_pretty_json().unwrap_or_default()
}

/// This description
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "openapi", tag = "probes", security(()), responses((status = 200, description = "OpenAPI 3.1.")))]
pub(super) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_copy_is_what_the_program_says() {
        let kept = include_str!("../../deploy/openapi.json");
        let description = serde_json::to_value(Description::openapi()).unwrap();
        let operations =
            description["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        let mut ids = HashSet::new();
        for operation in operations {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{operation}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses
                    .values()
                    .all(|response| response["description"].as_str().is_some_and(|text| !text.is_empty())),
                "{operation}"
            );
        }
        let labels = &description["paths"]["/v1/volumes"]["get"]["parameters"][0];
        assert_eq!((labels["in"].as_str(), labels["required"].as_bool()), (Some("query"), Some(false)));
        assert_eq!(kept.trim_end(), document(), "write it anew: holdfast api --openapi > deploy/openapi.json");
    }
}
