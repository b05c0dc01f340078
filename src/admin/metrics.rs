//! `/metrics`: the cluster as Prometheus sees it, in OpenMetrics' text; and what this process was asked.
//!
//! Names begin with `holdfast_` and end with their unit. Of what there may be many (volumes, stores) there is a line each, with
//! its name as a label; never of files or chunks.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::Shared;
use super::auth::Caller;
use super::problem::Problem;
use crate::remote::operator::PROBE_PATIENCE;
use crate::types::cluster::DiskReport;
use crate::types::record::{ClusterStatus, StoreStatus};

const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Of a request that nothing is found for: a label for each path that somebody tries would have no end.
const ELSEWHERE: &str = "elsewhere";

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;

/// What this process was asked, and how long it took.
pub struct Requests {
    count: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram>,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests { count: Family::default(), seconds: Family::new_with_constructor(durations) }
    }
}

/// A millisecond to sixteen seconds: so long the cluster is waited for.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// Counts a request when it is answered.
pub(super) async fn count(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or(ELSEWHERE, MatchedPath::as_str).to_string();
    let method = name_of(request.method()).to_string();
    let response = next.run(request).await;
    let code = response.status().as_u16().to_string();
    let labels = vec![("method", method.clone()), ("route", route.clone()), ("code", code)];
    shared.requests.count.get_or_create(&labels).inc();
    let labels = vec![("method", method), ("route", route)];
    shared.requests.seconds.get_or_create(&labels).observe(begun.elapsed().as_secs_f64());
    response
}

/// Who asks may call a method what they like.
fn name_of(method: &Method) -> &str {
    let known = [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS];
    if known.contains(method) { method.as_str() } else { "other" }
}

/// Metrics, in OpenMetrics' text
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "cluster", responses(
    (status = 200, description = "What was asked for.", body = String, content_type = "application/openmetrics-text"),
    (status = "default", description = "What went wrong.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(shared): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.require_all()?;
    let mut registry = Registry::with_prefix("holdfast");
    registry.register("api_requests", "Requests answered by this process", shared.requests.count.clone());
    let seconds = shared.requests.seconds.clone();
    registry.register("api_request_duration_seconds", "How long they took", seconds);
    // Of a cluster that is away it is told that it is away, and what this process knows.
    let status = shared.cluster.status_within(PROBE_PATIENCE).await.ok();
    let up = gauge(&mut registry, "cluster_up", "Whether the cluster answers and has a leader");
    set(&up, vec![], u64::from(status.is_some()));
    if let Some(status) = &status {
        register_cluster(&mut registry, status);
        register_stores(&mut registry, &status.stores);
        register_volumes(&mut registry, status);
    }
    let mut body = String::new();
    // Writing to a string cannot fail.
    let _ = text::encode(&mut body, &registry);
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], body).into_response())
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let gauges = Gauges::default();
    registry.register(name, help, gauges.clone());
    gauges
}

fn set(gauges: &Gauges, labels: Labels, value: u64) {
    gauges.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn register_cluster(registry: &mut Registry, status: &ClusterStatus) {
    let build = gauge(registry, "build_info", "The release of this process");
    set(&build, vec![("version", env!("CARGO_PKG_VERSION").to_string())], 1);
    let term = gauge(registry, "raft_term", "The term of the leader; it grows when another is elected");
    set(&term, vec![], status.term);
    let leader = gauge(registry, "raft_is_leader", "Whether this metadata server leads");
    let lag = gauge(registry, "raft_lag_entries", "Entries of the log that a metadata server has not said to have");
    for meta in &status.metas {
        let labels = vec![("meta", meta.info.id.to_string())];
        set(&leader, labels.clone(), u64::from(status.leader == Some(meta.info.id)));
        meta.lag.into_iter().for_each(|entries| set(&lag, labels.clone(), entries));
    }
    let chunks = gauge(registry, "chunks", "Chunks that are referred to");
    set(&chunks, vec![], status.chunks);
    let bytes = gauge(registry, "chunk_bytes", "What they take, before copies");
    set(&bytes, vec![], status.chunk_bytes);
    let epoch = gauge(registry, "map_epoch", "The epoch of the cluster map; it grows when stores or disks change");
    set(&epoch, vec![], status.map_epoch);
}

/// What is told of each disk: a name, what it means, and where it is.
type DiskGauge = (&'static str, &'static str, fn(&DiskReport) -> u64);

const DISK_GAUGES: [DiskGauge; 6] = [
    ("disk_capacity_bytes", "The size of the filesystem that a disk of a store is on", |disk| disk.capacity_bytes),
    ("disk_free_bytes", "What is free there", |disk| disk.free_bytes),
    ("disk_chunks", "Chunks on a disk", |disk| disk.chunks),
    ("disk_chunk_bytes", "What they take", |disk| disk.chunk_bytes),
    ("disk_damaged_chunks", "Chunks on a disk that were found damaged", |disk| disk.damaged),
    ("disk_failed", "Whether a disk has failed", |disk| disk.failed as u64),
];

fn register_stores(registry: &mut Registry, stores: &[StoreStatus]) {
    let up = gauge(registry, "store_up", "Whether a store was heard of lately");
    for store in stores {
        let labels = vec![
            ("store", store.info.id.to_string()),
            ("host", store.info.host.clone()),
            ("zone", store.info.zone.clone()),
        ];
        set(&up, labels, u64::from(store.up));
    }
    for (name, help, of) in DISK_GAUGES {
        let gauges = gauge(registry, name, help);
        for store in stores {
            for disk in &store.disks {
                set(&gauges, vec![("store", store.info.id.to_string()), ("disk", disk.id.to_string())], of(disk));
            }
        }
    }
}

fn register_volumes(registry: &mut Registry, status: &ClusterStatus) {
    let quota = gauge(registry, "volume_quota_bytes", "The most that a volume may hold; 0 is no limit");
    let quota_inodes = gauge(registry, "volume_quota_inodes", "The most inodes that it may hold; 0 is no limit");
    let bytes = gauge(registry, "volume_allocated_bytes", "What its files take, before copies and deduplication");
    let inodes = gauge(registry, "volume_inodes", "Its inodes");
    let mounts = gauge(registry, "volume_clients", "How many clients have it mounted");
    for (volume, usage) in &status.volumes {
        let labels = vec![("volume", volume.name.clone())];
        set(&quota, labels.clone(), volume.policy.quota_bytes);
        set(&quota_inodes, labels.clone(), volume.policy.quota_inodes);
        set(&bytes, labels.clone(), usage.allocated_bytes);
        set(&inodes, labels.clone(), usage.inodes);
        let has = status.sessions.iter().filter(|session| session.volume == volume.name).count();
        set(&mounts, labels, has as u64);
    }
}
