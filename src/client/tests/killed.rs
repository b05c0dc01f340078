//! Clients that are killed, at any moment: what they had taken is there.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::resume::{Process, first};
use super::*;
use crate::remote::meta::CallError;

const ROOT: Ino = Ino::ROOT;

/// What another host sees of a file, when everything is at home.
async fn seen_by_another(cluster: &Cluster, text: &str) -> Result<Vec<u8>, FsError> {
    let other = cluster.client().await;
    let attr = other.lookup(ROOT, name(text)).await?;
    let handle = other.open(attr.ino, RW).await?;
    let bytes = read(&other, attr.ino, handle, 0, 1 << 20).await;
    other.release(attr.ino, handle, None).await?;
    other.stop().await?;
    Ok(bytes)
}

#[tokio::test(start_paused = true)]
async fn what_was_not_stored_is_there() {
    for fails_over in [false, true] {
        let cluster = Cluster::new();
        let first = first(&cluster).await;
        let (ino, handle) = create(&first, "f").await;
        let data = pattern(3 * CHUNK_BYTES as usize + 77, 1);
        write(&first, ino, handle, 5, &data).await;
        write(&first, ino, handle, 0, b"begin").await;
        first.rename((ROOT, name("f")), (ROOT, name("g")), RenameMode::Replace).await.unwrap();
        write(&first, ino, handle, 2, b"G").await;
        let seen = first.getattr(ino).await.unwrap();
        let left = first.kill();
        if fails_over {
            cluster.meta.fail_over();
        }

        let second = Process::start(&cluster, left).await;
        let expected: Vec<u8> = b"beGin".iter().chain(&data).copied().collect();
        assert_eq!(second.lookup(ROOT, name("f")).await, Err(FsError::NotFound));
        let attr = second.lookup(ROOT, name("g")).await.unwrap();
        assert_eq!((attr.ino, attr.size, attr.mtime), (ino, seen.size, seen.mtime));
        assert_eq!(read(&second, ino, handle, 0, 1 << 20).await, expected);
        assert_eq!(second.fsync(ino, Some(handle)).await, Ok(()), "nothing was lost");
        assert_eq!(second.sync().await, Ok(()));
        assert_eq!(seen_by_another(&cluster, "g").await.unwrap(), expected);
        assert!(second.kept.copied().take_over().is_empty(), "nothing is kept of what is stored");
    }
}

#[tokio::test(start_paused = true)]
async fn another_host_waits_for_what_was_not_stored() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    first.sync().await.unwrap();
    write(&first, ino, handle, 0, b"taken").await;
    let left = first.kill();
    // It asks while nobody is there to answer.
    let reading = seen_by_another(&cluster, "f");
    tokio::pin!(reading);
    assert!(tokio::time::timeout(Duration::from_millis(50), reading.as_mut()).await.is_err());
    let second = Process::start(&cluster, left).await;
    assert_eq!(reading.await.unwrap(), b"taken");
    assert_eq!(second.sync().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_happens_once() {
    for is_refused in [false, true] {
        let cluster = Cluster::new();
        let first = first(&cluster).await;
        let (ino, handle) = create(&first, "f").await;
        first.sync().await.unwrap();
        write(&first, ino, handle, 0, b"old").await;
        first.rename((ROOT, name("f")), (ROOT, name("g")), RenameMode::Replace).await.unwrap();
        let (other, _) = create(&first, "f").await;
        // The leader does it, or has no room for it, and nobody hears of that.
        cluster.meta.fault(|faults| (faults.lose_replies, faults.full) = (u32::MAX, is_refused));
        cluster.chunks.full.store(is_refused, Ordering::Relaxed);
        assert!(tokio::time::timeout(Duration::from_millis(500), first.sync()).await.is_err());
        assert_eq!(cluster.meta.attr(other).is_some(), !is_refused);
        let left = first.kill();
        cluster.meta.fault(|faults| (faults.lose_replies, faults.full) = (0, false));
        cluster.chunks.full.store(false, Ordering::Relaxed);

        let ships = cluster.meta.count("ship");
        let second = Process::start(&cluster, left).await;
        assert_eq!(cluster.meta.count("ship") > ships, is_refused, "it was answered from memory");
        assert_eq!(second.lookup(ROOT, name("g")).await.unwrap().ino, ino);
        assert_eq!(second.lookup(ROOT, name("f")).await.unwrap().ino, other);
        assert_eq!(read(&second, ino, handle, 0, 9).await, b"old");
        assert_eq!(second.sync().await, Ok(()), "nothing was refused");
        assert_eq!(seen_by_another(&cluster, "g").await.unwrap(), b"old");
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_that_was_set_after_a_write_stays() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    write(&first, ino, handle, 0, b"data").await;
    let then = Time { sec: 77, nsec: 5 };
    let set = SetAttr { mtime: Some(SetTime::At(then)), mode: Some(0o4755), ..SetAttr::default() };
    first.setattr(ino, set).await.unwrap();
    let second = first.killed_and_followed(&cluster).await;
    second.sync().await.unwrap();
    let attr = cluster.meta.attr(ino).unwrap();
    assert_eq!((attr.mtime, attr.mode, attr.size), (then, 0o4755, 4));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_dropped_is_not_had_again() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, _) = create(&first, "f").await;
    first.sync().await.unwrap();
    let call =
        |owner, mode| LockCall { space: LockSpace::Range, owner, mode, range: LockRange { start: 0, end: 9 }, pid: 1 };
    let exclusive = Some(LockMode::Exclusive);
    first.setlk(ino, call(1, exclusive), true).await.unwrap();
    let second = first.killed_and_followed(&cluster).await;
    // The leader has it by then, and is told that it is dropped.
    second.setlk(ino, call(1, None), true).await.unwrap();
    let third = second.killed_and_followed(&cluster).await;
    assert_eq!(third.setlk(ino, call(2, exclusive), false).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_with_the_session_is_reported() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    let (other, others) = create(&first, "g").await;
    first.sync().await.unwrap();
    let reader = first.open(ino, OpenMode { read: true, ..OpenMode::default() }).await.unwrap();
    write(&first, ino, handle, 0, b"lost").await;
    let left = first.kill();
    cluster.meta.expire_all();
    let second = Process::start(&cluster, left).await;
    // Killed before anybody has asked, the next has it to say.
    let third = second.killed_and_followed(&cluster).await;
    assert_eq!(third.fsync(ino, Some(handle)).await, Err(FsError::Io));
    let fourth = third.killed_and_followed(&cluster).await;
    assert_eq!(fourth.fsync(ino, Some(handle)).await, Ok(()), "once");
    assert_eq!(fourth.fsync(other, Some(others)).await, Ok(()));
    write(&fourth, ino, handle, 0, b"kept").await;
    assert_eq!(read(&fourth, ino, reader, 0, 99).await, b"kept");
    fourth.leave().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_stored_is_reported_by_the_next() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    let other = first.open(ino, RW).await.unwrap();
    first.sync().await.unwrap();
    cluster.meta.fault(|faults| faults.full = true);
    cluster.chunks.full.store(true, Ordering::Relaxed);
    write(&first, ino, handle, 0, &pattern(200_000, 1)).await;
    assert_eq!(first.fsync(ino, Some(other)).await, Err(FsError::NoSpace), "one has heard of it, the other has not");
    let second = first.killed_and_followed(&cluster).await;
    assert_eq!(second.fsync(ino, Some(other)).await, Ok(()), "it was told");
    assert_eq!(second.fsync(ino, Some(handle)).await, Err(FsError::Io));
    assert_eq!(second.fsync(ino, Some(handle)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_volume_for_one_host_is_gone_on_with_while_its_session_lives() {
    let cluster = Cluster::new();
    cluster.meta.fault(|faults| faults.exclusive = true);
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    write(&first, ino, handle, 0, b"taken").await;
    let second = first.killed_and_followed(&cluster).await;
    assert_eq!(read(&second, ino, handle, 0, 9).await, b"taken");
    let left = second.kill();
    cluster.meta.expire_all();
    let third = Process::try_start(&cluster, left).await;
    assert!(matches!(third.map(drop), Err(CallError::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_to_note_a_write_waits() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    // The first entry stays: nothing behind it is had again before it.
    cluster.chunks.away.store(true, Ordering::Relaxed);
    let data = pattern(1 << 20, 3);
    let (client, bytes) = (first.clone(), data.clone());
    let filling = async move {
        for round in 0..40 {
            write(&client, ino, handle, round << 20, &bytes).await;
        }
    };
    let mut filling = Box::pin(filling);
    assert!(tokio::time::timeout(Duration::from_secs(5), filling.as_mut()).await.is_err(), "16 MiB are not enough");
    create(&first, "a name has room").await;
    cluster.chunks.away.store(false, Ordering::Relaxed);
    filling.await;
    let second = first.killed_and_followed(&cluster).await;
    for round in 0..40 {
        assert_eq!(read(&second, ino, handle, round << 20, 1 << 20).await, data, "{round}");
    }
}

/// What a program does.
#[derive(Clone, Debug)]
enum Step {
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
        Step::Truncate(file, size) => drop(tree.get_mut(&file).map(|bytes| bytes.resize(size as usize, 0))),
        Step::Sync(_) => {}
    }
    tree
}

async fn take(client: &Client, n: usize, step: &Step) -> Result<(), FsError> {
    let open = async |file: u8| {
        let ino = client.lookup(ROOT, file_name(file)).await?.ino;
        Ok::<_, FsError>((ino, client.open(ino, RW).await?))
    };
    match *step {
        Step::Make(file) => {
            let made = client.create(ROOT, file_name(file), new(NewNode::File), false, RW).await?;
            client.release(made.0.ino, made.1, None).await
        }
        Step::Remove(file) => client.unlink(ROOT, file_name(file)).await,
        Step::Rename(from, to) => {
            client.rename((ROOT, file_name(from)), (ROOT, file_name(to)), RenameMode::Replace).await
        }
        Step::Write { file, at: offset, len } => {
            let (ino, handle) = open(file).await?;
            client.write(ino, handle, at(offset.into(), &pattern(len as usize, n as u8))).await?;
            client.flush(ino, handle, 1).await?;
            client.release(ino, handle, None).await
        }
        Step::Truncate(file, size) => {
            let ino = client.lookup(ROOT, file_name(file)).await?.ino;
            client.setattr(ino, SetAttr { size: Some(size.into()), ..SetAttr::default() }).await.map(drop)
        }
        Step::Sync(file) => {
            let (ino, handle) = open(file).await?;
            client.fsync(ino, Some(handle)).await?;
            client.release(ino, handle, None).await
        }
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

/// Goes on until it is killed. The trees that may be there then: what was answered, and that with the step under way.
async fn run(process: Process, steps: &[(Step, u64)], die_after: Duration, tree: Tree) -> (usize, [Tree; 2], Process) {
    let mut trees = [tree.clone(), tree];
    let mut done = 0;
    let running = async {
        for (n, (step, pause_us)) in steps.iter().enumerate() {
            trees[1] = after(&trees[0], n, step);
            match take(&process, n, step).await {
                Ok(()) | Err(FsError::NotFound) => trees[0] = trees[1].clone(),
                Err(error) => panic!("{step:?}: {error}"),
            }
            done = n + 1;
            tokio::time::sleep(Duration::from_micros(*pause_us)).await;
        }
    };
    let _ = tokio::time::timeout(die_after, running).await;
    (done, trees, process)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Killed again and again, with answers of the cluster lost on the way and the leader changing.
    #[test]
    fn what_was_answered_is_there_at_whatever_moment_a_client_dies(
        lives in prop::collection::vec(
            (prop::collection::vec((step(), 0..30_000u64), 1..30), 0..400_000u64, 0..3u32, any::<bool>()), 1..5)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let cluster = Cluster::new();
            let mut process = first(&cluster).await;
            let mut tree = Tree::new();
            for (steps, die_after_us, lose_replies, fails_over) in &lives {
                cluster.meta.fault(|faults| faults.lose_replies = *lose_replies);
                let die_after = Duration::from_micros(*die_after_us);
                let (_, trees, dying) = run(process, steps, die_after, tree).await;
                let left = dying.kill();
                if *fails_over {
                    cluster.meta.fail_over();
                }
                process = Process::start(&cluster, left).await;
                assert_eq!(process.core.journal.failures(), 0, "something was done twice, or not foreseen");
                tree = seen(&process).await;
                assert!(trees.contains(&tree), "{:?} is not {:?}", sizes(&tree), trees.map(|tree| sizes(&tree)));
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
