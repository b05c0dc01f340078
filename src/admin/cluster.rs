//! `/v1/status`, `/v1/stores`, `/v1/clients`: how the cluster is.

use axum::extract::State;

use super::Shared;
use super::auth::Caller;
use super::documents::{ClientDocument, ClientsDocument, StatusDocument, StoreDocument, StoresDocument};
use super::problem::Problem;
use super::routes::{Document, Named};

/// The cluster at a glance
#[utoipa::path(get, path = "/v1/status", operation_id = "status", tag = "cluster", responses(
    (status = 200, description = "What was asked for.", body = StatusDocument),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn status(State(shared): State<Shared>, caller: Caller) -> Result<Document<StatusDocument>, Problem> {
    caller.require_all()?;
    Ok(Document(StatusDocument::new(&shared.cluster.status().await?)))
}

/// Stores and their disks
#[utoipa::path(get, path = "/v1/stores", operation_id = "list_stores", tag = "cluster", responses(
    (status = 200, description = "What was asked for.", body = StoresDocument),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn stores(State(shared): State<Shared>, caller: Caller) -> Result<Document<StoresDocument>, Problem> {
    caller.require_all()?;
    let status = shared.cluster.status().await?;
    Ok(Document(StoresDocument { stores: status.stores.iter().map(StoreDocument::new).collect() }))
}

/// A store and its disks
#[utoipa::path(get, path = "/v1/stores/{id}", operation_id = "show_store", tag = "cluster", params(("id" = u64, Path)), responses(
    (status = 200, description = "What was asked for.", body = StoreDocument),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn store(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
) -> Result<Document<StoreDocument>, Problem> {
    caller.require_all()?;
    let status = shared.cluster.status().await?;
    let found = status.stores.iter().find(|store| store.info.id.to_string() == id);
    let found = found.ok_or_else(|| Problem::not_found(format!("there is no store {id}")))?;
    Ok(Document(StoreDocument::new(found)))
}

/// Mounts, of all volumes that the key is for
#[utoipa::path(get, path = "/v1/clients", operation_id = "list_clients", tag = "cluster", responses(
    (status = 200, description = "What was asked for.", body = ClientsDocument),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn clients(
    State(shared): State<Shared>,
    caller: Caller,
) -> Result<Document<ClientsDocument>, Problem> {
    let status = shared.cluster.status().await?;
    let seen = status.sessions.iter().filter(|session| caller.sees(&session.volume));
    Ok(Document(ClientsDocument { clients: seen.map(ClientDocument::new).collect() }))
}
