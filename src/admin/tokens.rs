//! `/v1/tokens`: one-time tokens to join with, for clients of all volumes or some.

use axum::extract::State;
use axum::http::StatusCode;

use super::Shared;
use super::auth::Caller;
use super::documents::{NewTokenDocument, TokenDocument};
use super::problem::Problem;
use super::routes::{Document, Unread};
use crate::types::api_key::ApiRole;
use crate::types::record::{ClientGrant, Role};

/// Make a one-time token for a client, which `holdfast join` turns into a credential
///
/// Who has the credential may mount the volumes that are named, and sees no other.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "tokens", request_body = NewTokenDocument,
    responses(
    (status = 201, description = "The token. It cannot be shown again.", body = TokenDocument),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    request: Unread,
) -> Result<(StatusCode, Document<TokenDocument>), Problem> {
    caller.require(ApiRole::Admin)?;
    let NewTokenDocument { volumes, read_only, ttl_ms } = request.read().await?;
    if ttl_ms == 0 {
        return Err(Problem::invalid("a token needs some time: ttl_ms 0 is none"));
    }
    let grant = ClientGrant { volumes, read_only };
    let token = shared.cluster.create_token(Role::Client, grant, ttl_ms).await?;
    Ok((StatusCode::CREATED, Document(TokenDocument { token })))
}
