//! Locks that are decided about here, and how others come to hear of them.

use super::*;

const EXCLUSIVE: Option<LockMode> = Some(LockMode::Exclusive);

fn call(owner: u64, mode: Option<LockMode>, start: u64, end: u64) -> LockCall {
    LockCall { space: LockSpace::Range, owner, mode, range: LockRange { start, end }, pid: 1 }
}

/// Requests about locks, and commands, that the leader has had.
fn asked(cluster: &Cluster) -> [u64; 3] {
    ["change", "own-locks", "ship"].map(|kind| cluster.meta.count(kind))
}

#[tokio::test(start_paused = true)]
async fn who_has_a_write_lease_takes_locks_without_the_leader() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, _) = create(&client, "f").await;
    client.sync().await.unwrap();
    let before = asked(&cluster);
    for _ in 0..100 {
        client.setlk(ino, call(1, EXCLUSIVE, 0, 9), true).await.unwrap();
        assert_eq!(client.setlk(ino, call(2, EXCLUSIVE, 5, 5), false).await, Err(FsError::WouldBlock));
        assert!(client.getlk(ino, call(2, EXCLUSIVE, 5, 5)).await.unwrap().is_some());
        client.setlk(ino, call(1, None, 0, 9), false).await.unwrap();
    }
    assert_eq!(asked(&cluster), before, "made here, nobody else can have one");
}

#[tokio::test(start_paused = true)]
async fn of_a_file_that_was_there_the_leader_is_asked_once() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ours) = create(&a, "f").await;
    let handle = b.open(ino, RW).await.unwrap();
    b.release(ino, handle, None).await.unwrap();
    a.setlk(ino, call(1, EXCLUSIVE, 0, 9), false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // It is written to, under a Write lease, while a lock from before is at the leader.
    write(&a, ino, ours, 0, b"mine").await;
    a.setlk(ino, call(1, EXCLUSIVE, 20, 29), false).await.unwrap();
    let [changes, questions, ships] = asked(&cluster);
    for start in 0..10 {
        a.setlk(ino, call(1, None, start, start), false).await.unwrap();
    }
    assert_eq!(asked(&cluster), [changes, questions, ships]);
    assert_eq!(questions, 1, "asked whether it may decide");
    assert_eq!(b.setlk(ino, call(1, EXCLUSIVE, 25, 25), false).await, Err(FsError::WouldBlock));
    b.setlk(ino, call(1, EXCLUSIVE, 0, 9), false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_host_finds_what_was_decided_here_in_its_way() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, _) = create(&a, "f").await;
    a.setlk(ino, call(1, EXCLUSIVE, 0, 9), false).await.unwrap();
    let held = b.getlk(ino, call(1, EXCLUSIVE, 0, 99)).await.unwrap().unwrap();
    assert_eq!((held.range, held.mode), (LockRange { start: 0, end: 9 }, LockMode::Exclusive));
    assert_eq!(b.setlk(ino, call(1, EXCLUSIVE, 9, 9), false).await, Err(FsError::WouldBlock));
    b.setlk(ino, call(1, EXCLUSIVE, 10, 19), false).await.unwrap();
    assert_eq!(a.setlk(ino, call(1, EXCLUSIVE, 0, 10), false).await, Err(FsError::WouldBlock));
}

/// Whoever waits is told of an unlock, wherever that was done: with a waiter nobody decides but the leader.
#[tokio::test(start_paused = true)]
async fn a_waiter_elsewhere_hears_of_an_unlock() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, handle) = create(&a, "f").await;
    a.setlk(ino, call(1, EXCLUSIVE, 0, 9), false).await.unwrap();
    let waiter = tokio::spawn({
        let b = b.clone();
        async move { b.setlk(ino, call(1, EXCLUSIVE, 0, 9), true).await }
    });
    // Long enough for the lease to come back.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        write(&a, ino, handle, 0, b"mine").await;
        a.setlk(ino, call(2, EXCLUSIVE, 20, 29), false).await.unwrap();
    }
    assert!(!waiter.is_finished());
    a.setlk(ino, call(1, None, 0, 9), false).await.unwrap();
    waiter.await.unwrap().unwrap();
}

/// The lease is on its way back, held up by what was lent: the locks go home, and a close must not overtake them.
#[tokio::test(start_paused = true)]
async fn a_lock_that_is_dropped_while_it_goes_home_is_dropped() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, handle) = create(&a, "f").await;
    a.sync().await.unwrap();
    a.setlk(ino, call(1, EXCLUSIVE, 0, 9), false).await.unwrap();
    assert!(a.lend_attr(&a.getattr(ino).await.unwrap()) > Duration::ZERO);
    let changing = tokio::spawn({
        let b = b.clone();
        async move { b.setattr(ino, SetAttr { mode: Some(0o600), ..SetAttr::default() }).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!changing.is_finished());
    a.flush(ino, handle, 1).await.unwrap();
    changing.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(b.getlk(ino, call(1, EXCLUSIVE, 0, 9)).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn two_processes_of_one_host_wait_for_one_another() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, _) = create(&client, "f").await;
    client.setlk(ino, call(1, EXCLUSIVE, 0, 9), false).await.unwrap();
    let waiter = tokio::spawn({
        let client = client.clone();
        async move { client.setlk(ino, call(2, EXCLUSIVE, 0, 9), true).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!waiter.is_finished());
    client.setlk(ino, call(1, None, 0, 9), false).await.unwrap();
    waiter.await.unwrap().unwrap();
    assert_eq!(client.setlk(ino, call(1, EXCLUSIVE, 0, 0), false).await, Err(FsError::WouldBlock));
}

/// Clients that take turns over one file, by locks that are decided about here and there: never two at once.
#[tokio::test(start_paused = true)]
async fn a_lock_has_one_holder_at_a_time_wherever_it_is_decided_about() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, _) = create(&a, "f").await;
    let holders = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for (number, client) in [a.clone(), b.clone(), a.clone(), b.clone()].into_iter().enumerate() {
        let holders = holders.clone();
        tasks.push(tokio::spawn(async move {
            let owner = number as u64 + 1;
            let handle = client.open(ino, RW).await.unwrap();
            for turn in 0..50 {
                client.setlk(ino, call(owner, EXCLUSIVE, 0, 9), true).await.unwrap();
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                // Sometimes long enough alone for a lease and the right to decide.
                tokio::time::sleep(Duration::from_millis(if turn % 10 == 0 { 1_500 } else { 3 })).await;
                write(&client, ino, handle, owner, b"x").await;
                holders.fetch_sub(1, Ordering::SeqCst);
                client.setlk(ino, call(owner, None, 0, 9), false).await.unwrap();
                tokio::time::sleep(Duration::from_millis(turn * 7 % 50 * owner)).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
