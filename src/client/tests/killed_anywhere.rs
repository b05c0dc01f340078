//! Clients that are killed again and again, while they serve and while they go on, under programs that do whatever comes: exact trees.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::killed::call;
use super::resume::{Process, first};
use super::*;
use crate::client::kept::Kept;

const ROOT: Ino = Ino::ROOT;

/// What a program does.
#[derive(Clone, Debug)]
enum Step {
    Append { file: u8, len: u32 },
    Make(u8),
    Remove(u8),
    Rename(u8, u8),
    Write { file: u8, at: u32, len: u32 },
    Truncate(u8, u32),
    Sync(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..5u8;
    prop_oneof![
        2 => file.clone().prop_map(Step::Make),
        1 => file.clone().prop_map(Step::Remove),
        2 => (file.clone(), 0..5u8).prop_map(|(from, to)| Step::Rename(from, to)),
        3 => (file.clone(), 1..80_000u32).prop_map(|(file, len)| Step::Append { file, len }),
        6 => (file.clone(), 0..150_000u32, 1..80_000u32).prop_map(|(file, at, len)| Step::Write { file, at, len }),
        1 => (file.clone(), 0..150_000u32).prop_map(|(file, size)| Step::Truncate(file, size)),
        1 => file.prop_map(Step::Sync),
    ]
}

type Tree = BTreeMap<u8, Vec<u8>>;

fn file_name(file: u8) -> Name {
    name(&format!("file-{file}"))
}

/// What a step makes of the tree.
fn after(tree: &Tree, n: usize, step: &Step) -> Tree {
    let mut tree = tree.clone();
    match *step {
        Step::Make(file) => drop(tree.entry(file).or_default()),
        Step::Remove(file) => drop(tree.remove(&file)),
        Step::Rename(from, to) => {
            if let Some(bytes) = tree.remove(&from) {
                tree.insert(to, bytes);
            }
        }
        Step::Write { file, at, len } => {
            if let Some(bytes) = tree.get_mut(&file) {
                let (at, data) = (at as usize, pattern(len as usize, n as u8));
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[at..at + data.len()].copy_from_slice(&data);
            }
        }
        Step::Append { file, len } => {
            if let Some(bytes) = tree.get_mut(&file) {
                bytes.extend(pattern(len as usize, n as u8));
            }
        }
        Step::Truncate(file, size) => drop(tree.get_mut(&file).map(|bytes| bytes.resize(size as usize, 0))),
        Step::Sync(_) => {}
    }
    tree
}

/// A step that is under way.
struct Taking {
    n: usize,
    step: Step,
    before: Tree,
    is_answered: AtomicBool,
}

impl Taking {
    fn after(&self) -> Tree {
        after(&self.before, self.n, &self.step)
    }

    /// The call that changes something. Answered it is not made again.
    async fn change<T>(&self, work: impl Future<Output = Result<T, FsError>>) -> Result<T, FsError> {
        let done = call(self.n as u64 + 1, work).await;
        self.is_answered.store(true, Ordering::Relaxed);
        done
    }

    async fn take(&self, client: &Client) -> Result<(), FsError> {
        let data = |len: u32| pattern(len as usize, self.n as u8);
        match self.step {
            Step::Make(file) => {
                let making = client.create(ROOT, file_name(file), new(NewNode::File), true, RW);
                let (attr, handle) = self.change(making).await?;
                client.release(attr.ino, handle, None).await
            }
            Step::Remove(file) => self.change(client.unlink(ROOT, file_name(file))).await,
            Step::Rename(from, to) => {
                let (from, to) = ((ROOT, file_name(from)), (ROOT, file_name(to)));
                self.change(client.rename(from, to, RenameMode::Replace)).await
            }
            Step::Append { file, len } => {
                self.write(client, file, WriteRequest { append: true, ..at(0, &data(len)) }).await
            }
            Step::Write { file, at: offset, len } => self.write(client, file, at(offset.into(), &data(len))).await,
            Step::Truncate(file, size) => {
                let ino = client.lookup(ROOT, file_name(file)).await?.ino;
                let set = SetAttr { size: Some(size.into()), ..SetAttr::default() };
                self.change(client.setattr(ino, set)).await.map(drop)
            }
            Step::Sync(file) => {
                let ino = client.lookup(ROOT, file_name(file)).await?.ino;
                let handle = client.open(ino, RW).await?;
                client.fsync(ino, Some(handle)).await?;
                client.release(ino, handle, None).await
            }
        }
    }

    async fn write(&self, client: &Client, file: u8, write: WriteRequest<'_>) -> Result<(), FsError> {
        let ino = client.lookup(ROOT, file_name(file)).await?.ino;
        let handle = client.open(ino, RW).await?;
        self.change(client.write(ino, handle, write)).await?;
        client.flush(ino, handle, 1).await?;
        client.release(ino, handle, None).await
    }

    /// Only what has to be is refused.
    fn check(&self, done: &Result<(), FsError>) {
        let is_there = |file: u8| self.before.contains_key(&file);
        let is_right = match (done, &self.step) {
            (Ok(()), _) => true,
            (Err(FsError::Exists), Step::Make(file)) => is_there(*file),
            (Err(FsError::NotFound), Step::Rename(file, _) | Step::Remove(file) | Step::Truncate(file, _)) => {
                !is_there(*file)
            }
            (Err(FsError::NotFound), Step::Append { file, .. } | Step::Write { file, .. } | Step::Sync(file)) => {
                !is_there(*file)
            }
            _ => false,
        };
        assert!(is_right, "{:?}: {done:?}", self.step);
    }
}

async fn seen(client: &Client) -> Tree {
    let mut tree = Tree::new();
    for file in 0..5 {
        let Ok(attr) = client.lookup(ROOT, file_name(file)).await else { continue };
        let handle = client.open(attr.ino, RW).await.unwrap();
        tree.insert(file, read(client, attr.ino, handle, 0, 1 << 20).await);
        client.release(attr.ino, handle, None).await.unwrap();
    }
    tree
}

/// Goes on until it is killed. What was under way then, and what is there if that is not counted.
async fn run(
    process: &Process,
    n: &mut usize,
    steps: &[(Step, u64)],
    die_after: Duration,
    tree: &mut Tree,
) -> Option<Taking> {
    let mut under_way = None;
    let running = async {
        for (step, pause_us) in steps {
            *n += 1;
            let (step, before) = (step.clone(), tree.clone());
            let taking = under_way.insert(Taking { n: *n, step, before, is_answered: AtomicBool::new(false) });
            let done = taking.take(process).await;
            taking.check(&done);
            *tree = taking.after();
            under_way = None;
            tokio::time::sleep(Duration::from_micros(*pause_us)).await;
        }
    };
    let _ = tokio::time::timeout(die_after, running).await;
    under_way
}

/// All of them, too: then it dies with something that the leader has done.
fn lost_replies() -> impl Strategy<Value = u32> {
    prop_oneof![0..3u32, Just(u32::MAX)]
}

/// Of those that go on: after how long, how many answers of the cluster are lost, and are the stores away.
type Death = (u64, u32, bool);

fn deaths() -> impl Strategy<Value = Vec<Death>> {
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec((0..300_000u64, lost_replies(), any::<bool>()), 1..3)]
}

async fn die_going_on(cluster: &Cluster, mut left: Kept, deaths: &[Death]) -> Kept {
    for (after_us, lose_replies, is_away) in deaths {
        cluster.meta.fault(|faults| faults.lose_replies = *lose_replies);
        cluster.chunks.away.store(*is_away, Ordering::Relaxed);
        left = Process::dies_going_on(cluster, left, Duration::from_micros(*after_us)).await;
    }
    cluster.meta.fault(|faults| faults.lose_replies = 0);
    cluster.chunks.away.store(false, Ordering::Relaxed);
    left
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Killed again and again, with answers of the cluster lost on the way and the leader changing.
    #[test]
    fn what_was_answered_is_there_at_whatever_moment_a_client_dies(
        lives in prop::collection::vec(
            (prop::collection::vec((step(), 0..30_000u64), 1..30), 0..400_000u64, lost_replies(), any::<(bool, bool)>(), deaths()), 1..5)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let cluster = Cluster::new();
            let mut process = first(&cluster).await;
            let (mut tree, mut n) = (Tree::new(), 0);
            for (steps, die_after_us, lose_replies, (grants_nothing, fails_over), deaths) in &lives {
                cluster.meta.fault(|faults| {
                    (faults.lose_replies, faults.grants_nothing) = (*lose_replies, *grants_nothing);
                });
                let die_after = Duration::from_micros(*die_after_us);
                let under_way = run(&process, &mut n, steps, die_after, &mut tree).await;
                let left = process.kill();
                cluster.meta.fault(|faults| (faults.lose_replies, faults.grants_nothing) = (0, false));
                if *fails_over {
                    cluster.meta.fail_over();
                }
                let left = die_going_on(&cluster, left, deaths).await;
                process = Process::start(&cluster, left).await;
                assert_eq!(process.core.journal.failures(), 0, "something was done twice, or not foreseen");
                if let Some(taking) = under_way {
                    // As the kernel does.
                    if !taking.is_answered.load(Ordering::Relaxed) {
                        taking.check(&taking.take(&process).await);
                    }
                    tree = taking.after();
                }
                let seen = seen(&process).await;
                assert!(seen == tree, "{:?} is not {:?}", sizes(&seen), sizes(&tree));
            }
            assert_eq!((process.sync().await, process.core.journal.failures()), (Ok(()), 0));
            let other = cluster.client().await;
            assert!(seen(&other).await == tree, "another host sees something else");
        });
    }
}

fn sizes(tree: &Tree) -> Vec<(u8, usize, u64)> {
    let sum = |bytes: &Vec<u8>| bytes.iter().map(|byte| u64::from(*byte)).sum();
    tree.iter().map(|(file, bytes)| (*file, bytes.len(), sum(bytes))).collect()
}
