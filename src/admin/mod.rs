//! The HTTP interface: volumes, stores, clients and the state of the cluster as JSON, metrics for Prometheus, and whether this
//! process is of use.
//!
//! Owns the documents that are shown to programs ([`documents`]; `--json` on the command line prints the same), their description
//! ([`openapi`]), and who may see what. Keeps nothing that matters: any number of these run beside one another, and a request
//! may go to any of them. It reaches the cluster as an operator does, and holds an operator's credential.
//!
//! A request is answered in this order: who is it (a key, known to the cluster by a hash: `auth.rs`); may they; is what they ask
//! for well-formed; then the cluster is asked, once. Errors are problem documents (`problem.rs`), never bare text.
//!
//! Must never: answer without a key, but for the description of itself and the two probes; keep a secret, or log one; listen
//! beyond this host without TLS.

mod auth;
mod cluster;
pub mod documents;
mod metrics;
pub mod openapi;
mod probes;
mod problem;
mod routes;
pub mod server;
mod tokens;
mod volumes;

use std::sync::Arc;

use self::auth::Keys;
use self::metrics::Requests;
use self::probes::Readiness;
use crate::remote::operator::Operator;

/// What every handler may use. Cheap to clone.
#[derive(Clone)]
struct Shared(Arc<Parts>);

struct Parts {
    cluster: Operator,
    keys: Keys,
    readiness: Readiness,
    requests: Requests,
}

impl Shared {
    fn new(cluster: Operator) -> Shared {
        let (keys, readiness, requests) = (Keys::default(), Readiness::default(), Requests::default());
        Shared(Arc::new(Parts { cluster, keys, readiness, requests }))
    }
}

impl std::ops::Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
