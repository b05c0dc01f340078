//! What a leader has heard from the stores, and how much room that makes: begins empty with each term, filled by the next
//! heartbeats.
//!
//! Room is counted in this order. A filesystem counts once, however many disks are on it: each of them is given an equal
//! part. Disks add up to hosts. And of hosts only so much counts as can be used together: copies of one chunk go to
//! different hosts ([`crate::placement`]), so a host with more room than all others together has no use for the rest.
//!
//! Free is what is free on stores that are heard of. One that is silent takes no part in that, as if its copies went to
//! the others; how large it is stays known, from its last report or from the cluster map.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::types::cluster::{ClusterMap, DiskReport, StoreInfo};
use crate::types::id::{DiskId, StoreId};

/// A store not heard of for this long counts as down.
const SILENCE: Duration = Duration::from_secs(5);
/// A new leader has heard of every store that is up after this long: a heartbeat, and some more.
const FIRST_ROUND: Duration = Duration::from_millis(1_500);

#[derive(Default)]
pub struct StoreReports {
    reports: Mutex<HashMap<StoreId, Report>>,
    /// Counts the reports.
    heard: watch::Sender<u64>,
}

struct Report {
    heard: Instant,
    disks: Vec<DiskReport>,
}

impl Report {
    fn is_recent(&self) -> bool {
        self.heard.elapsed() < SILENCE
    }
}

/// Bytes that files of so many copies can have, and can still get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

impl StoreReports {
    pub fn record(&self, store: StoreId, disks: Vec<DiskReport>) {
        self.reports.lock().insert(store, Report { heard: Instant::now(), disks });
        self.heard.send_modify(|count| *count += 1);
    }

    /// The last report, and whether it is recent.
    pub fn last(&self, store: StoreId) -> (Vec<DiskReport>, bool) {
        match self.reports.lock().get(&store) {
            Some(report) => (report.disks.clone(), report.is_recent()),
            None => (Vec::new(), false),
        }
    }

    /// Waits until every store has been heard of; no longer than those that are up need for it under a leader that began
    /// so long ago.
    pub async fn first_round(&self, map: &ClusterMap, leading: Duration) {
        let deadline = Instant::now() + FIRST_ROUND.saturating_sub(leading);
        let mut heard = self.heard.subscribe();
        while !self.are_all_heard(map) && timeout_at(deadline, heard.changed()).await.is_ok() {}
    }

    fn are_all_heard(&self, map: &ClusterMap) -> bool {
        let reports = self.reports.lock();
        map.stores.iter().all(|store| reports.get(&store.id).is_some_and(Report::is_recent))
    }

    pub fn room(&self, map: &ClusterMap, copies: u8) -> Room {
        let reports = self.reports.lock();
        let (mut sizes, mut frees) = (Vec::new(), Vec::new());
        for store in &map.stores {
            match reports.get(&store.id) {
                Some(report) => {
                    sizes.extend(parts(store, &report.disks, |disk| disk.capacity_bytes));
                    if report.is_recent() {
                        frees.extend(parts(store, &report.disks, |disk| disk.free_bytes));
                    }
                }
                None => sizes.extend(store.disks.iter().map(|disk| Part {
                    host: Host::of(store),
                    filesystem: Filesystem::Alone(disk.id),
                    bytes: u64::from(disk.weight) << 30,
                })),
            }
        }
        Room { total_bytes: usable(&by_host(&sizes), copies), free_bytes: usable(&by_host(&frees), copies) }
    }

    /// What was free when each store was last heard of; `None` when some store never was.
    pub fn free_at_last(&self, map: &ClusterMap, copies: u8) -> Option<u64> {
        let reports = self.reports.lock();
        let mut frees = Vec::new();
        for store in &map.stores {
            frees.extend(parts(store, &reports.get(&store.id)?.disks, |disk| disk.free_bytes));
        }
        (!frees.is_empty()).then(|| usable(&by_host(&frees), copies))
    }
}

/// A host as placement tells it from others. A store that does not tell its host is one of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Host<'a> {
    Named { host: &'a str, zone: &'a str },
    Alone(StoreId),
}

impl Host<'_> {
    fn of(store: &StoreInfo) -> Host<'_> {
        match store.host.as_str() {
            "" => Host::Alone(store.id),
            host => Host::Named { host, zone: &store.zone },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Filesystem {
    Known(u64),
    /// Nobody said; taken for the disk's own.
    Alone(DiskId),
}

/// A disk's view of the filesystem that it is on.
struct Part<'a> {
    host: Host<'a>,
    filesystem: Filesystem,
    bytes: u64,
}

/// Of the disks that work.
fn parts<'a>(store: &'a StoreInfo, disks: &[DiskReport], bytes: impl Fn(&DiskReport) -> u64) -> Vec<Part<'a>> {
    let part = |disk: &DiskReport| Part {
        host: Host::of(store),
        filesystem: if disk.filesystem == 0 { Filesystem::Alone(disk.id) } else { Filesystem::Known(disk.filesystem) },
        bytes: bytes(disk),
    };
    disks.iter().filter(|disk| !disk.failed).map(part).collect()
}

/// The bytes of each host. Disks on one filesystem are given equal parts of it; what they say of it can differ by what
/// happened between their reports, and the least is believed.
fn by_host(parts: &[Part<'_>]) -> Vec<u64> {
    let mut filesystems: HashMap<Filesystem, (u64, u64)> = HashMap::new();
    for part in parts {
        let (bytes, disks) = filesystems.entry(part.filesystem).or_insert((u64::MAX, 0));
        *bytes = part.bytes.min(*bytes);
        *disks += 1;
    }
    let mut hosts: HashMap<Host<'_>, u64> = HashMap::new();
    for part in parts {
        let (bytes, disks) = filesystems.get(&part.filesystem).copied().unwrap_or((0, 1));
        let host = hosts.entry(part.host).or_default();
        *host = host.saturating_add(bytes / disks);
    }
    hosts.into_values().collect()
}

/// The most bytes of which `copies` copies fit on these hosts, no host with more copies than it must have: one, as long
/// as there are enough hosts. That is the largest `x` for which the hosts together take `copies * x` when none takes more
/// than its copies of `x`.
fn usable(hosts: &[u64], copies: u8) -> u64 {
    let copies = u128::from(copies.max(1));
    let on_one = copies.div_ceil(hosts.len().max(1) as u128);
    let fits = |bytes: u64| {
        let bytes = u128::from(bytes);
        hosts.iter().map(|room| u128::from(*room).min(on_one * bytes)).sum::<u128>() >= copies * bytes
    };
    let all: u128 = hosts.iter().map(|room| u128::from(*room)).sum();
    let (mut least, mut most) = (0, u64::try_from(all / copies).unwrap_or(u64::MAX));
    while least < most {
        let middle = most - (most - least) / 2;
        if fits(middle) {
            least = middle;
        } else {
            most = middle - 1;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::cluster::DiskInfo;

    const GIB: u64 = 1 << 30;

    fn store(id: u64, host: &str, disks: u64) -> StoreInfo {
        let disk = |at| DiskInfo { id: DiskId([(id * 10 + at) as u8; 16]), weight: 7 };
        let (address, host, zone) = (format!("{id}:1"), host.into(), String::new());
        StoreInfo { id: StoreId(id), address, host, zone, disks: (0..disks).map(disk).collect() }
    }

    fn report(store: &StoreInfo, filesystem: u64, free: u64) -> Vec<DiskReport> {
        let disk = |disk: &DiskInfo| DiskReport {
            id: disk.id,
            filesystem,
            capacity_bytes: 100 * GIB,
            free_bytes: free * GIB,
            chunks: 0,
            chunk_bytes: 0,
            dedup_hits: 0,
            dedup_bytes: 0,
            damaged: 0,
            failed: false,
        };
        store.disks.iter().map(disk).collect()
    }

    fn room(total: u64, free: u64) -> Room {
        Room { total_bytes: total * GIB, free_bytes: free * GIB }
    }

    #[test]
    fn copies_bound_what_hosts_can_use_together() {
        assert_eq!(usable(&[100, 100, 100], 3), 100);
        assert_eq!(usable(&[100, 100, 10], 3), 10);
        assert_eq!(usable(&[100, 100, 10], 2), 105);
        assert_eq!(usable(&[1000, 50, 10], 2), 60, "the large one has the first copy of all");
        assert_eq!(usable(&[100, 100, 10], 1), 210);
        assert_eq!(usable(&[90], 3), 30, "fewer hosts than copies");
        assert_eq!(usable(&[100, 100], 3), 66);
        assert_eq!(usable(&[], 3), 0);
        assert_eq!(usable(&[u64::MAX; 3], 1), u64::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_filesystem_counts_once() {
        let reports = StoreReports::default();
        let one_host = ClusterMap { epoch: 1, stores: (1..4).map(|id| store(id, "h", 1)).collect() };
        one_host.stores.iter().for_each(|store| reports.record(store.id, report(store, 5, 60)));
        assert_eq!(reports.room(&one_host, 1), Room { total_bytes: 100 * GIB / 3 * 3, ..room(0, 60) });
        assert_eq!(reports.room(&one_host, 3).free_bytes, 20 * GIB);
        // Stores that call themselves different hosts and are not.
        let three_hosts = ClusterMap { epoch: 1, stores: (1..4).map(|id| store(id, &format!("h{id}"), 1)).collect() };
        assert_eq!(reports.room(&three_hosts, 3).free_bytes, 20 * GIB);
        // Two disks on one filesystem, and a store whose filesystem is not known.
        let mixed = ClusterMap { epoch: 1, stores: vec![store(1, "a", 2), store(2, "b", 1)] };
        reports.record(StoreId(1), report(&mixed.stores[0], 8, 60));
        reports.record(StoreId(2), report(&mixed.stores[1], 0, 30));
        assert_eq!(reports.room(&mixed, 1), room(200, 90));
        assert_eq!(reports.room(&mixed, 2), room(100, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_stores_have_no_free_space_and_keep_their_size() {
        let reports = StoreReports::default();
        let map = ClusterMap { epoch: 1, stores: vec![store(1, "a", 1), store(2, "b", 1)] };
        assert_eq!(reports.room(&map, 1), room(14, 0), "not heard of yet: as large as the map says");
        assert_eq!(reports.free_at_last(&map, 1), None);
        for (at, store) in map.stores.iter().enumerate() {
            reports.record(store.id, report(store, at as u64 + 1, 60));
        }
        assert_eq!((reports.room(&map, 2), reports.room(&map, 1)), (room(100, 60), room(200, 120)));
        tokio::time::advance(SILENCE).await;
        reports.record(StoreId(2), report(&map.stores[1], 2, 60));
        assert_eq!((reports.room(&map, 2), reports.room(&map, 1)), (room(100, 30), room(200, 60)));
        assert_eq!(reports.free_at_last(&map, 1), Some(120 * GIB));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_waits_for_the_stores_but_not_for_long() {
        let reports = StoreReports::default();
        let map = ClusterMap { epoch: 1, stores: vec![store(1, "a", 1), store(2, "b", 1)] };
        reports.record(StoreId(1), report(&map.stores[0], 1, 60));
        let begun = Instant::now();
        let beat = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            reports.record(StoreId(2), report(&map.stores[1], 2, 60));
        };
        tokio::join!(reports.first_round(&map, Duration::ZERO), beat);
        assert_eq!(begun.elapsed(), Duration::from_millis(700));
        reports.first_round(&map, Duration::ZERO).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(700), "all are heard of");
        tokio::time::advance(SILENCE).await;
        let begun = Instant::now();
        reports.first_round(&map, Duration::from_millis(1_000)).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(500));
    }
}
