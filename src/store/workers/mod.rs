//! What a store does unasked: it reports to the metadata service and carries out its orders ([`report`]), offers it what
//! may be garbage (`offer`), keeps its copies complete and whole ([`catchup`]), and makes its indexes durable now and
//! then.
//!
//! All of it waits for service and never the other way round.

pub mod catchup;
mod offer;
pub mod report;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::net::{BoxFuture, Transport};
use crate::types::error::FsError;
use crate::types::limits::REPLICAS_DEFAULT;
use crate::wire::meta::{MetaReply, MetaRequest};

use super::Store;
use catchup::Catchup;
use report::Reporter;

/// The way to the metadata leader, wherever it is. Retries and redirections are its business.
pub trait MetaLink: Send + Sync + 'static {
    fn call(&self, request: MetaRequest) -> BoxFuture<'_, Result<MetaReply, FsError>>;
}

/// How often, and how hard.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    pub heartbeat: Duration,
    pub checkpoint: Duration,
    /// Between two pages of chunks that are offered as perhaps garbage, and between two passes through all of them.
    pub offer: Duration,
    pub offer_rest: Duration,
    /// Between two comparisons with the other replicas when nothing else asks for one.
    pub compare: Duration,
    /// Until a comparison that could not be finished is tried again.
    pub compare_again: Duration,
    /// Copies kept of every chunk: how far down the ranking of a slot a store is responsible for it.
    pub copies: u8,
    /// Bytes fetched from others per second, at most.
    pub fetch_bytes_per_s: u64,
}

impl Default for WorkerOptions {
    fn default() -> WorkerOptions {
        WorkerOptions {
            heartbeat: Duration::from_secs(1),
            checkpoint: Duration::from_secs(10),
            offer: Duration::from_secs(10),
            offer_rest: Duration::from_secs(600),
            compare: Duration::from_secs(60),
            compare_again: Duration::from_secs(5),
            copies: REPLICAS_DEFAULT,
            fetch_bytes_per_s: 200 << 20,
        }
    }
}

/// The running workers of a store.
pub struct Workers {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Workers {
    pub fn start(
        store: &Arc<Store>,
        meta: Arc<dyn MetaLink>,
        transport: Arc<dyn Transport>,
        options: WorkerOptions,
    ) -> Workers {
        let stop = watch::Sender::new(false);
        let tasks = vec![
            tokio::spawn(until(stop.subscribe(), Reporter::new(Arc::clone(store), meta, options).run())),
            tokio::spawn(until(stop.subscribe(), Catchup::new(Arc::clone(store), transport, options).run())),
            tokio::spawn(until(stop.subscribe(), checkpoint(Arc::clone(store), options.checkpoint))),
        ];
        Workers { stop, tasks }
    }

    /// Stops them wherever they are, which is safe everywhere, and returns when they have.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a worker of the store ended by accident");
            }
        }
    }
}

async fn until(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn checkpoint(store: Arc<Store>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let store = Arc::clone(&store);
        // Only ends early when the runtime does.
        let _ = tokio::task::spawn_blocking(move || store.checkpoint()).await;
    }
}
