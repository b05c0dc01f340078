//! What is found where, and JSON in and out.

use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::{Shared, cluster, metrics, openapi, probes, tokens, volumes};

/// A request is a document of a volume at most.
const REQUEST_BYTES_MAX: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer, as JSON.
pub struct Document<T>(pub T);

pub(super) fn router(shared: Shared) -> Router {
    let counted = middleware::from_fn_with_state(shared.clone(), metrics::count);
    Router::new()
        .route("/v1/volumes", get(volumes::list).post(volumes::create))
        .route("/v1/volumes/{name}", get(volumes::show).patch(volumes::change).delete(volumes::delete))
        .route("/v1/tokens", post(tokens::create))
        .route("/v1/status", get(cluster::status))
        .route("/v1/stores", get(cluster::stores))
        .route("/v1/stores/{id}", get(cluster::store))
        .route("/v1/clients", get(cluster::clients))
        .route("/v1/openapi.json", get(openapi::show))
        .route("/metrics", get(metrics::show))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .fallback(|| async { Problem::not_found("there is nothing here; /v1/openapi.json says what there is") })
        .layer(counted)
        .with_state(shared)
}

/// A request whose body is read when it is known that its sender may.
pub struct Unread(Request);

/// The last part of a path.
pub struct Named(pub String);

impl Unread {
    /// # Errors
    /// It is not such a document, or does not come.
    pub async fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        let kind = self.0.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Problem::not_json());
        }
        let body = axum::body::to_bytes(self.0.into_body(), REQUEST_BYTES_MAX);
        let bytes = tokio::time::timeout(BODY_TIMEOUT, body).await.map_err(|_| Problem::too_slow())?;
        let bytes = bytes.map_err(|_| Problem::too_large())?;
        serde_json::from_slice(&bytes).map_err(|error| Problem::invalid(error.to_string()))
    }
}

impl<S: Send + Sync> FromRequest<S> for Unread {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Unread, Problem> {
        Ok(Unread(request))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Named(name)),
            Err(error) => Err(Problem::invalid(error.body_text())),
        }
    }
}

impl<T: Serialize> IntoResponse for Document<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}
