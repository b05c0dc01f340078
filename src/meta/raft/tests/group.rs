//! Three nodes: elections, lost leaders, lagging and wiped members, growth, and random crashes.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::Vote;
use openraft::raft::VoteRequest;
use tokio::time::{Instant, sleep};

use super::{Hub, ToyMachine, config, eventually, info};
use crate::meta::raft::network::{Answer, Call, Request};
use crate::meta::raft::node::{ProposeError, RaftConfig, RaftNode};
use crate::meta::raft::types::{from_bytes, to_bytes};
use crate::net::Frame;
use crate::types::id::MetaId;
use crate::wire::codec::KIND_RAFT;

/// A group of nodes, each with a machine, in one directory.
struct Group {
    dir: tempfile::TempDir,
    hub: Arc<Hub>,
    members: Vec<Option<Member>>,
    snapshot_after_entries: u64,
    crashes: u32,
}

struct Member {
    node: RaftNode,
    machine: Arc<ToyMachine>,
    home: PathBuf,
}

impl Group {
    /// `count` nodes, all voters.
    async fn new(count: u64, snapshot_after_entries: u64) -> Group {
        let dir = tempfile::tempdir().unwrap();
        let hub = Arc::new(Hub::default());
        let mut group = Group { dir, hub, members: Vec::new(), snapshot_after_entries, crashes: 0 };
        for id in 1..=count {
            group.members.push(None);
            let home = group.dir.path().to_path_buf();
            group.start(id, ToyMachine::new(), home).await;
        }
        group.node(1).bootstrap().await.unwrap();
        group.node(1).leadership().wait_for(|now| now.am_leader).await.unwrap();
        for id in 2..=count {
            group.node(1).add_member(info(id)).await.unwrap();
        }
        group
    }

    fn settings(&self, home: &Path, id: u64) -> RaftConfig {
        let mut settings = config(home, id);
        settings.snapshot_after_entries = self.snapshot_after_entries;
        settings.log.segment_bytes = 2000;
        settings.log.recent_bytes = 1000;
        settings.patience_ms = 5000;
        settings
    }

    async fn start(&mut self, id: u64, machine: Arc<ToyMachine>, home: PathBuf) {
        let address = info(id).address;
        let link = self.hub.join(&address);
        let node = RaftNode::start(self.settings(&home, id), Arc::clone(&machine) as _, link).await.unwrap();
        self.hub.plug(&address, &node);
        self.members[id as usize - 1] = Some(Member { node, machine, home });
    }

    fn member(&self, id: u64) -> &Member {
        self.members[id as usize - 1].as_ref().expect("it is down")
    }

    fn node(&self, id: u64) -> &RaftNode {
        &self.member(id).node
    }

    fn up(&self) -> Vec<u64> {
        (1..=self.members.len() as u64).filter(|id| self.members[*id as usize - 1].is_some()).collect()
    }

    /// Takes a node away as a power cut does: nothing it does from here on counts. Gives back its machine as it stood,
    /// and where the image of its files is.
    async fn crash(&mut self, id: u64) -> (Arc<ToyMachine>, PathBuf) {
        self.hub.unplug(&info(id).address);
        let member = self.members[id as usize - 1].take().unwrap();
        self.crashes += 1;
        let image = self.dir.path().join(format!("image-{}", self.crashes));
        let (home, copied) = (member.home.join(format!("node-{id}")), image.join(format!("node-{id}")));
        // A crash takes everything at one moment; a copy does only if nothing came or went meanwhile.
        while names_in(&home) != {
            let _ = std::fs::remove_dir_all(&copied);
            copy(&home, &copied);
            names_in(&copied)
        } {}
        let machine = member.machine.copy();
        member.node.stop().await;
        (machine, image)
    }

    async fn restart(&mut self, id: u64) {
        let (machine, home) = self.crash(id).await;
        self.start(id, machine, home).await;
    }

    /// Who leads, once somebody does who can confirm it.
    async fn leader(&self) -> u64 {
        let started = Instant::now();
        loop {
            for id in self.up() {
                if self.node(id).leadership().borrow().am_leader && self.node(id).read_barrier().await.is_ok() {
                    return id;
                }
            }
            assert!(started.elapsed() < Duration::from_secs(30), "nobody leads");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Proposes at whoever leads until it is acknowledged.
    async fn propose(&self, command: &str) {
        let started = Instant::now();
        while self.node(self.leader().await).propose(command.into()).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "{command} is never acknowledged");
        }
    }

    /// Everybody who is up has the same commands, and these among them.
    async fn agree(&self, acknowledged: &[String]) {
        self.propose("the last").await;
        let expected: BTreeSet<Vec<u8>> = acknowledged.iter().map(|command| command.clone().into_bytes()).collect();
        let all: Vec<u64> = self.up();
        eventually("all machines agree", || {
            let first = self.member(all[0]).machine.commands();
            first.iter().any(|command| command == b"the last")
                && all.iter().all(|id| self.member(*id).machine.commands() == first)
        })
        .await;
        let there: BTreeSet<Vec<u8>> = self.member(all[0]).machine.commands().into_iter().collect();
        let lost: Vec<_> = expected.difference(&there).map(|command| String::from_utf8_lossy(command)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }

    async fn stop(self) {
        for member in self.members.into_iter().flatten() {
            member.node.stop().await;
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            // A file may be renamed or deleted under the copy, as a crash may find it gone.
            let _ = std::fs::copy(&path, &target);
        }
    }
}

fn names_in(dir: &Path) -> BTreeSet<PathBuf> {
    let under = |sub: &str| std::fs::read_dir(dir.join(sub)).unwrap().map(|entry| entry.unwrap().file_name().into());
    under("log").chain(under("snapshots")).collect()
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix} {number}")).collect()
}

async fn propose_all(group: &Group, commands: &[String]) {
    for command in commands {
        group.propose(command).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_nothing_acknowledged_with_it() {
    let mut group = Group::new(3, 10_000).await;
    let mut acknowledged = names("before", 20);
    propose_all(&group, &acknowledged).await;
    let leader = group.leader().await;
    let (machine, home) = group.crash(leader).await;
    let since = Instant::now();
    group.propose("after").await;
    let without = since.elapsed();
    assert!(without < Duration::from_secs(3), "an election took {without:?}");
    acknowledged.push("after".to_string());
    assert_ne!(group.leader().await, leader);
    group.start(leader, machine, home).await;
    group.agree(&acknowledged).await;
    for id in group.up() {
        let members = group.node(id).members();
        assert_eq!(members.iter().filter(|(_, voter, _)| *voter).count(), 3, "{members:?}");
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_point_to_the_leader_and_a_cut_off_leader_answers_nothing() {
    let group = Group::new(3, 10_000).await;
    let leader = group.leader().await;
    let follower = group.up().into_iter().find(|id| *id != leader).unwrap();
    let to_leader = ProposeError::NotLeader(Some(info(leader)));
    eventually("the follower knows", || group.node(follower).leadership().borrow().leader == Some(info(leader))).await;
    assert_eq!(group.node(follower).propose(b"x".to_vec()).await, Err(to_leader.clone()));
    assert_eq!(group.node(follower).read_barrier().await, Err(to_leader));

    for other in group.up() {
        group.hub.cut(&info(leader).address, &info(other).address, true);
    }
    sleep(Duration::from_millis(400)).await;
    assert!(group.node(leader).read_barrier().await.is_err(), "a leader without a majority answered");
    assert!(group.node(leader).propose(b"y".to_vec()).await.is_err());
    let others: Vec<u64> = group.up().into_iter().filter(|id| *id != leader).collect();
    eventually("another leads", || others.iter().any(|id| group.node(*id).leadership().borrow().am_leader)).await;
    for other in group.up() {
        group.hub.cut(&info(leader).address, &info(other).address, false);
    }
    group.agree(&[]).await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_resigns_is_succeeded_at_once() {
    let group = Group::new(3, 10_000).await;
    propose_all(&group, &names("command", 5)).await;
    let leader = group.leader().await;
    let term = group.node(leader).leadership().borrow().term;
    group.node(leader).resign().await;
    let after = group.node(leader).leadership().borrow().clone();
    assert!(after.leader.is_some_and(|heir| heir != info(leader)), "nobody took over");
    assert_eq!(after.term, term + 1, "it took more than one election");
    group.agree(&names("command", 5)).await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_for_this_node_is_refused() {
    let group = Group::new(1, 10_000).await;
    let call = |to| Call::PreVote(VoteRequest::new(Vote::new(to, 9), None));
    let ask = async |message: Vec<u8>| {
        let reply = group.node(1).serve(Frame { kind: KIND_RAFT, message: message.into(), bulk: Bytes::new() }).await;
        from_bytes::<Answer>(&reply.message).unwrap()
    };
    let request = to_bytes(&Request { to: 2, call: call(5) }).unwrap();
    assert!(matches!(ask(request.clone()).await, Answer::Refused(why) if why.contains("not 2")));
    let request = to_bytes(&Request { to: 1, call: call(5) }).unwrap();
    assert!(matches!(ask(request.clone()).await, Answer::Vote(_)));
    for cut in 0..request.len() {
        assert!(matches!(ask(request[..cut].to_vec()).await, Answer::Refused(_)));
    }
    assert!(matches!(ask([request, vec![0]].concat()).await, Answer::Refused(_)));
    assert!(matches!(ask(vec![0xff; 64]).await, Answer::Refused(_)));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_at_once_may_crash() {
    let mut group = Group::new(3, 10_000).await;
    let acknowledged = names("command", 30);
    propose_all(&group, &acknowledged).await;
    let mut images = Vec::new();
    for id in 1..=3 {
        images.push(group.crash(id).await.1);
    }
    for (id, home) in (1..).zip(images) {
        group.start(id, ToyMachine::new(), home).await;
    }
    group.agree(&acknowledged).await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_member_catches_up_by_snapshot() {
    let mut group = Group::new(3, 25).await;
    let lagging = group.up().into_iter().find(|id| *id != 1).unwrap();
    let (machine, home) = group.crash(lagging).await;
    let acknowledged = names("command", 200);
    propose_all(&group, &acknowledged).await;
    let leader = group.leader().await;
    let behind = machine.commands().len() as u64;
    eventually("the log is cut past it", || {
        group.node(leader).inner_log().standing().purged.is_some_and(|purged| purged.index > behind + 20)
    })
    .await;
    group.start(lagging, machine, home).await;
    group.agree(&acknowledged).await;
    eventually("nobody lags", || group.node(leader).members().iter().all(|(_, _, lag)| lag.is_none_or(|lag| lag < 5)))
        .await;

    // What it was sent is good for a restart with nothing but that.
    let (_, home) = group.crash(lagging).await;
    group.start(lagging, ToyMachine::new(), home).await;
    group.agree(&acknowledged).await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_written_anew_and_not_sent() {
    let mut group = Group::new(1, 25).await;
    let acknowledged = names("command", 200);
    propose_all(&group, &acknowledged).await;
    eventually("the log is cut", || group.node(1).inner_log().standing().purged.is_some()).await;
    let snapshots = group.dir.path().join("node-1/snapshots");
    let newest = || std::fs::read_dir(&snapshots).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let (path, whole) = (newest(), std::fs::read(newest()).unwrap());
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[whole[whole.len() / 2] ^ 1], whole.len() as u64 / 2).unwrap();

    group.members.push(None);
    let home = group.dir.path().to_path_buf();
    group.start(2, ToyMachine::new(), home).await;
    group.node(1).add_member(info(2)).await.unwrap();
    group.agree(&acknowledged).await;
    let damaged = path.with_extension("damaged");
    assert!(damaged.exists() != path.exists(), "it was set aside, or the new one took its name");
    assert!(damaged.exists() || std::fs::read(&path).unwrap() == whole);
    let (_, home) = group.crash(1).await;
    group.start(1, ToyMachine::new(), home).await;
    group.agree(&acknowledged).await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let mut group = Group::new(1, 10_000).await;
    propose_all(&group, &names("alone", 10)).await;
    for id in 2..=3 {
        group.members.push(None);
        let home = group.dir.path().to_path_buf();
        group.start(id, ToyMachine::new(), home).await;
        group.node(1).add_member(info(id)).await.unwrap();
        group.node(1).add_member(info(id)).await.unwrap();
    }
    group.agree(&names("alone", 10)).await;
    let (_, home) = group.crash(1).await;
    group.propose("without the first").await;
    group.start(1, ToyMachine::new(), home).await;
    let leader = group.leader().await;
    let gone = group.up().into_iter().find(|id| *id != leader && *id != 1).unwrap();
    group.node(leader).remove_member(MetaId(gone)).await.unwrap();
    group.node(leader).remove_member(MetaId(gone)).await.unwrap();
    group.crash(gone).await;
    assert_eq!(group.node(leader).members().len(), 2);
    group.agree(&["without the first".to_string()]).await;
    group.stop().await;
}

/// Random crashes, cuts and wiped machines under a writer that remembers what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_crashes_lose_nothing_acknowledged() {
    let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11_u64);
    println!("HOLDFAST_SEED={seed}");
    let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = move |bound: u64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        (chance >> 11) % bound
    };
    let mut group = Group::new(3, 40).await;
    let mut acknowledged = Vec::new();
    for round in 0..12 {
        let commands = names(&format!("round {round},"), 5 + below(20) as usize);
        propose_all(&group, &commands).await;
        acknowledged.extend(commands);
        let victim = 1 + below(3);
        match below(4) {
            0 => group.restart(victim).await,
            1 => {
                let (_, home) = group.crash(victim).await;
                group.propose(&format!("while {victim} is down")).await;
                group.start(victim, ToyMachine::new(), home).await;
            }
            2 => {
                let (old, home) = group.crash(victim).await;
                let commands = names(&format!("round {round} without {victim},"), 60);
                propose_all(&group, &commands).await;
                acknowledged.extend(commands);
                group.start(victim, old, home).await;
            }
            _ => {
                let mut images = Vec::new();
                for id in 1..=3 {
                    images.push(group.crash(id).await);
                }
                for (id, (machine, home)) in (1..).zip(images) {
                    let machine = if below(2) == 0 { machine } else { ToyMachine::new() };
                    group.start(id, machine, home).await;
                }
            }
        }
    }
    group.agree(&acknowledged).await;
    group.stop().await;
}
