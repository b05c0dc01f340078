//! One node: restarts, and every way its machine can be wrong.

use std::sync::Arc;
use std::time::Duration;

use super::{Hub, ToyMachine, config, eventually};
use crate::meta::raft::node::{ProposeError, RaftConfig, RaftError, RaftNode};
use crate::meta::raft::types::{Position, log_id, to_bytes};

use crate::meta::raft::log::{LogConfig, LogPoint};
use crate::meta::raft::room::RoomConfig;

async fn start(config: RaftConfig, machine: &Arc<ToyMachine>) -> Result<RaftNode, RaftError> {
    let link = Arc::new(Hub::default()).join("node-1");
    RaftNode::start(config, Arc::clone(machine) as _, link).await
}

async fn leading(config: RaftConfig, machine: &Arc<ToyMachine>) -> RaftNode {
    let node = start(config, machine).await.unwrap();
    node.bootstrap().await.unwrap();
    let mut leadership = node.leadership();
    let leads = leadership.wait_for(|now| now.am_leader);
    tokio::time::timeout(Duration::from_secs(20), leads).await.expect("it never leads").unwrap();
    node.read_barrier().await.unwrap();
    node
}

fn command(number: usize) -> Vec<u8> {
    format!("command {number}").into_bytes()
}

async fn propose(node: &RaftNode, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let reply = node.propose(command(number)).await.unwrap();
        assert_eq!(reply, (number as u64).to_be_bytes());
    }
}

fn commands(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(command).collect()
}

#[tokio::test]
async fn proposals_are_applied_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let machine = ToyMachine::new();
    let node = leading(config(dir.path(), 1), &machine).await;
    propose(&node, 0..20).await;
    assert_eq!(machine.commands(), commands(20));
    assert_eq!(node.members().len(), 1);
    node.stop().await;
    assert_eq!(node.propose(command(0)).await, Err(ProposeError::Stopped));
    drop(node);

    // The same machine, an empty one, and one that does not open: all end up the same.
    for machine in [machine, ToyMachine::new(), ToyMachine::new()] {
        let node = leading(config(dir.path(), 1), &machine).await;
        assert_eq!(machine.commands(), commands(20));
        node.stop().await;
        machine.break_down();
        drop(node);
        let node = leading(config(dir.path(), 1), &machine).await;
        assert_eq!(machine.commands(), commands(20));
        node.stop().await;
    }
}

#[tokio::test]
async fn snapshots_cut_the_log_and_rebuild_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let machine = ToyMachine::new();
    let mut settings = config(dir.path(), 1);
    settings.snapshot_after_entries = 20;
    settings.log.segment_bytes = 1000;
    let node = leading(settings.clone(), &machine).await;
    propose(&node, 0..200).await;
    let purged = || node.inner_log().standing().purged.is_some();
    eventually("the log is cut", purged).await;
    let at_150 = machine.copy();
    propose(&node, 200..260).await;
    node.stop().await;
    drop(node);

    for machine in [ToyMachine::new(), at_150, machine] {
        let node = leading(settings.clone(), &machine).await;
        assert_eq!(machine.commands(), commands(260));
        node.stop().await;
    }
}

#[tokio::test]
async fn a_damaged_snapshot_falls_back_to_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let machine = ToyMachine::new();
    let mut settings = config(dir.path(), 1);
    settings.log.segment_bytes = 1000;
    settings.snapshot_after_entries = 20;
    let node = leading(settings.clone(), &machine).await;
    let snapshots = dir.path().join("node-1/snapshots");
    propose(&node, 0..130).await;
    let purged = || node.inner_log().standing().purged.is_some_and(|purged| purged.index > 60);
    eventually("the log is cut", purged).await;
    node.stop().await;
    drop(node);

    let newest = files(&snapshots).pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&newest, bytes).unwrap();
    let machine = ToyMachine::new();
    let node = leading(settings, &machine).await;
    assert_eq!(machine.commands(), commands(130));
    assert!(newest.with_extension("damaged").exists());
    node.stop().await;
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "snapshot"));
    found.sort();
    found
}

#[tokio::test]
async fn a_machine_ahead_of_the_log_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let machine = ToyMachine::new();
    let node = leading(config(dir.path(), 1), &machine).await;
    propose(&node, 0..10).await;
    node.stop().await;
    drop(node);
    let lies = [
        to_bytes(&Position { applied: Some(log_id(LogPoint { term: 9, leader: 1, index: 4 })), ..Position::default() }),
        to_bytes(&Position {
            applied: Some(log_id(LogPoint { term: 1, leader: 1, index: 99 })),
            ..Position::default()
        }),
        Ok(b"garbage that is no position".to_vec()),
    ];
    for lie in lies {
        let machine = machine.copy();
        machine.tamper(&lie.unwrap());
        let node = leading(config(dir.path(), 1), &machine).await;
        assert_eq!(machine.commands(), commands(10));
        node.stop().await;
    }
}

#[tokio::test]
async fn too_large_a_command_is_refused_and_large_ones_pass() {
    let dir = tempfile::tempdir().unwrap();
    let machine = ToyMachine::new();
    let node = leading(config(dir.path(), 1), &machine).await;
    assert_eq!(node.propose(vec![0; 6 << 20]).await, Err(ProposeError::TooLarge(6 << 20)));
    node.propose(vec![1; 4 << 20]).await.unwrap();
    assert_eq!(machine.commands(), [vec![1; 4 << 20]]);
    node.stop().await;
}

/// Nothing makes a snapshot due, and there is no room: the log is cut all the same, as far as two snapshots allow.
#[tokio::test]
async fn a_log_on_a_full_disk_is_cut_before_it_is_due() {
    let dir = tempfile::tempdir().unwrap();
    let machine = ToyMachine::new();
    let log = LogConfig { segment_bytes: 1000, ..LogConfig::default() };
    let node = leading(RaftConfig { log, ..config(dir.path(), 1) }, &machine).await;
    propose(&node, 0..100).await;
    node.stop().await;
    drop(node);
    let segments = || std::fs::read_dir(dir.path().join("node-1/log")).unwrap().count();
    let grown = segments();
    assert!(grown > 5, "{grown}");
    // Any disk is too small for this one, and no snapshot too large.
    let room = RoomConfig { low_bytes: u64::MAX, period_ms: 20 };
    let node = leading(RaftConfig { log, room, ..config(dir.path(), 1) }, &machine).await;
    let mut proposed = 100;
    let started = tokio::time::Instant::now();
    while segments() > 5 {
        assert!(started.elapsed() < Duration::from_secs(30), "{} segments", segments());
        propose(&node, proposed..proposed + 1).await;
        proposed += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.stop().await;
    drop(node);
    let machine = ToyMachine::new();
    let node = leading(config(dir.path(), 1), &machine).await;
    assert_eq!(machine.commands(), commands(proposed));
    node.stop().await;
}
