//! `holdfast status`: the cluster at a glance, for people or as JSON.

use crate::admin::documents::StatusDocument;
use crate::cli::args::{CommonArgs, StatusArgs};
use crate::cli::failure::Outcome;
use crate::cli::table::{Table, bytes};
use crate::cli::volume;
use crate::cli::{operator, out};
use crate::types::cluster::DiskReport;
use crate::types::record::{ClusterStatus, MetaStatus};

/// # Errors
/// The cluster refused or did not answer.
pub fn run(common: &CommonArgs, args: StatusArgs) -> Outcome {
    operator::run(common, &args.admin, |cluster| async move {
        let status = cluster.status().await?;
        if args.json { out::print_json(&StatusDocument::new(&status)) } else { out::print(to_text(&status)) }
    })
}

fn total(status: &ClusterStatus, count: impl Fn(&DiskReport) -> u64) -> u64 {
    status.stores.iter().flat_map(|store| &store.disks).map(count).fold(0, u64::saturating_add)
}

fn to_text(status: &ClusterStatus) -> String {
    let leader = status.leader.map_or("no leader".to_string(), |id| format!("leader meta {id}"));
    let mut parts = vec![format!("cluster {}, {leader}, term {}\n", status.cluster, status.term)];
    let mut metas = Table::new(&["META", "ADDRESS", "STATE", "BEHIND"]);
    for meta in &status.metas {
        metas.row([
            meta.info.id.to_string(),
            meta.info.address.clone(),
            meta_state(status, meta).to_string(),
            meta.lag.map_or("unknown".to_string(), |lag| lag.to_string()),
        ]);
    }
    parts.push(metas.to_string());
    parts.push(stores(status).to_string());
    if !status.volumes.is_empty() {
        parts.push(volume::table(&status.volumes).to_string());
    }
    if !status.sessions.is_empty() {
        let mut sessions = Table::new(&["SESSION", "VOLUME", "CLIENT", "SILENT", "MEMORY PEAK"]);
        for session in &status.sessions {
            let silent = format!("{} ms", session.silent_ms);
            let (id, peak) = (session.id.to_string(), bytes(session.memory_bytes));
            sessions.row([id, session.volume.clone(), session.client.clone(), silent, peak]);
        }
        parts.push(sessions.to_string());
    }
    parts.push(format!(
        "{} chunks, {} before copies; {} references shared; {} put again and not stored ({})\n",
        status.chunks,
        bytes(status.chunk_bytes),
        status.shared_references,
        total(status, |disk| disk.dedup_hits),
        bytes(total(status, |disk| disk.dedup_bytes)),
    ));
    parts.join("\n")
}

fn meta_state(status: &ClusterStatus, meta: &MetaStatus) -> &'static str {
    match meta.voter {
        _ if status.leader == Some(meta.info.id) => "leader",
        true => "voter",
        false => "learner",
    }
}

fn stores(status: &ClusterStatus) -> Table {
    let mut table = Table::new(&["STORE", "ADDRESS", "HOST", "ZONE", "STATE", "DISKS", "USED", "FREE", "DAMAGED"]);
    for store in &status.stores {
        let sum = |count: fn(&DiskReport) -> u64| store.disks.iter().map(count).fold(0, u64::saturating_add);
        let failed = store.disks.iter().filter(|disk| disk.failed).count();
        let disks = if failed == 0 {
            store.disks.len().to_string()
        } else {
            format!("{} ({failed} failed)", store.disks.len())
        };
        table.row([
            store.info.id.to_string(),
            store.info.address.clone(),
            store.info.host.clone(),
            if store.info.zone.is_empty() { "-".to_string() } else { store.info.zone.clone() },
            if store.up { "up" } else { "down" }.to_string(),
            disks,
            bytes(sum(|disk| disk.chunk_bytes)),
            bytes(sum(|disk| disk.free_bytes)),
            sum(|disk| disk.damaged).to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::cluster::StoreInfo;
    use crate::types::id::{ClusterId, DiskId, MetaId, StoreId};
    use crate::types::record::{MetaInfo, StoreStatus};

    fn status() -> ClusterStatus {
        let disk = DiskReport {
            id: DiskId([1; 16]),
            filesystem: 1,
            capacity_bytes: 1 << 30,
            free_bytes: 1 << 29,
            chunks: 3,
            chunk_bytes: 3 << 20,
            dedup_hits: 5,
            dedup_bytes: 5 << 20,
            damaged: 0,
            failed: true,
        };
        let info =
            StoreInfo { id: StoreId(7), address: "b:2".into(), host: "h".into(), zone: String::new(), disks: vec![] };
        ClusterStatus {
            cluster: ClusterId([9; 16]),
            leader: Some(MetaId(1)),
            term: 4,
            metas: vec![MetaStatus {
                info: MetaInfo { id: MetaId(1), address: "a:1".into() },
                voter: true,
                lag: Some(0),
            }],
            map_epoch: 2,
            stores: vec![StoreStatus { info, up: true, disks: vec![disk] }],
            volumes: vec![],
            sessions: vec![],
            chunks: 3,
            chunk_bytes: 3 << 20,
            shared_references: 2,
        }
    }

    #[test]
    fn deduplication_and_failed_disks_are_shown() {
        let text = to_text(&status());
        assert!(text.contains("2 references shared; 5 put again and not stored (5.00 MiB)"), "{text}");
        assert!(text.contains("1 (1 failed)") && text.contains("leader"), "{text}");
        let json = serde_json::to_value(StatusDocument::new(&status())).unwrap();
        assert_eq!((json["dedup_bytes"].as_u64(), json["metas"][0]["voter"].as_bool()), (Some(5 << 20), Some(true)));
    }
}
