//! What the leader has heard from the stores: volatile, refilled by the next heartbeats.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::cluster::DiskReport;
use crate::types::id::StoreId;

/// A store not heard of for this long counts as down.
const SILENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct StoreReports {
    reports: Mutex<HashMap<StoreId, Report>>,
}

struct Report {
    heard: Instant,
    disks: Vec<DiskReport>,
}

impl StoreReports {
    pub fn record(&self, store: StoreId, disks: Vec<DiskReport>) {
        self.reports.lock().insert(store, Report { heard: Instant::now(), disks });
    }

    /// The last report, and whether it is recent.
    pub fn last(&self, store: StoreId) -> (Vec<DiskReport>, bool) {
        match self.reports.lock().get(&store) {
            Some(report) => (report.disks.clone(), report.heard.elapsed() < SILENCE),
            None => (Vec::new(), false),
        }
    }

    /// Bytes of all disks that work: (capacity, free).
    pub fn space(&self) -> (u64, u64) {
        let reports = self.reports.lock();
        let disks = reports.values().flat_map(|report| &report.disks).filter(|disk| !disk.failed);
        disks.fold((0, 0), |(capacity, free), disk| (capacity + disk.capacity_bytes, free + disk.free_bytes))
    }
}
