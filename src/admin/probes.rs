//! `/healthz` and `/readyz`: for those that restart processes and send them requests. Answered to anybody, so they say next to
//! nothing, and cost the cluster no more than one question a second.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Shared;
use super::problem::Problem;
use crate::remote::operator::Operator;

const TOLD_FOR: Duration = Duration::from_secs(1);

/// Whether the cluster had a leader a moment ago.
#[derive(Default)]
pub struct Readiness(Mutex<Option<(Instant, bool)>>);

impl Readiness {
    /// Those who ask at the same time wait for one answer.
    async fn is_ready(&self, cluster: &Operator) -> bool {
        let mut told = self.0.lock().await;
        if let Some((_, ready)) = told.filter(|(asked, _)| asked.elapsed() < TOLD_FOR) {
            return ready;
        }
        let ready = cluster.has_leader().await;
        *told = Some((Instant::now(), ready));
        ready
    }
}

/// Whether this process lives
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "probes", security(()), responses((status = 200, description = "It does.")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether this process is of use: the cluster answers, and has a leader
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "probes", security(()), responses(
    (status = 200, description = "It is."),
    (status = 503, description = "It is not.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn readyz(State(shared): State<Shared>) -> Result<(StatusCode, &'static str), Problem> {
    match shared.readiness.is_ready(&shared.cluster).await {
        true => Ok((StatusCode::OK, "ready\n")),
        false => Err(Problem::unavailable("the cluster does not answer, or has no leader")),
    }
}
