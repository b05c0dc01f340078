//! What one host changes while others read it: who has the lease, what it costs, and that nobody reads what is old.

use super::*;

const READER: OpenMode = OpenMode { read: true, write: false, sync: false };

/// `a` writes and `b` reads in turns, until `a` keeps its lease.
async fn take_turns(cluster: &Cluster, a: &Client, b: &Client) -> (Ino, Handle, Handle) {
    let (ino, ours) = create(a, "f").await;
    a.sync().await.unwrap();
    let theirs = b.open(ino, READER).await.unwrap();
    for turn in 0..3 {
        write(a, ino, ours, 0, format!("turn {turn}").as_bytes()).await;
        assert_eq!(read(b, ino, theirs, 0, 10).await, format!("turn {turn}").as_bytes());
    }
    assert!(cluster.meta.hold(ino).iter().any(|hold| hold.lease == Lease::Write), "kept");
    (ino, ours, theirs)
}

#[tokio::test(start_paused = true)]
async fn who_writes_what_another_reads_goes_on_by_itself_and_is_read_at_once() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ours, theirs) = take_turns(&cluster, &a, &b).await;
    let asked = || ["take", "recall", "getattr"].map(|kind| cluster.meta.count(kind));
    let before = asked();
    for turn in 0..100 {
        let told = format!("round {turn:03}");
        write(&a, ino, ours, 0, told.as_bytes()).await;
        assert_eq!(read(&b, ino, theirs, 0, 10).await, told.as_bytes());
        tokio::time::sleep(Duration::from_millis(turn % 50)).await;
    }
    assert_eq!(asked(), before, "the writer asks for nothing");
    assert!(cluster.meta.count("shown") >= 100);
}

#[tokio::test(start_paused = true)]
async fn who_has_done_writing_leaves_it_to_the_readers() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, _, theirs) = take_turns(&cluster, &a, &b).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    read(&b, ino, theirs, 0, 10).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    read(&b, ino, theirs, 0, 10).await;
    assert!(cluster.meta.hold(ino).iter().all(|hold| hold.lease == Lease::Read));
    let asked = || ["look", "extents", "getattr"].map(|kind| cluster.meta.count(kind));
    let before = asked();
    assert_eq!(read(&b, ino, theirs, 0, 10).await, b"turn 2");
    assert_eq!(asked(), before);
}

/// The lease is taken away while what was done under it is shown.
#[tokio::test(start_paused = true)]
async fn a_recall_answers_a_look_that_is_under_way() {
    let cluster = Cluster::new();
    let (a, b, c) = (cluster.client().await, cluster.client().await, cluster.client().await);
    let (ino, ours, theirs) = take_turns(&cluster, &a, &b).await;
    let third = c.open(ino, RW).await.unwrap();
    for turn in 0..20 {
        let told = format!("mine {turn:03}");
        write(&a, ino, ours, 0, told.as_bytes()).await;
        let seen = tokio::join!(read(&b, ino, theirs, 0, 8), write(&c, ino, third, 20, b"c")).0;
        assert_eq!(seen, told.as_bytes());
        assert_eq!(read(&a, ino, ours, 0, 21).await[20..], *b"c");
        tokio::time::sleep(Duration::from_millis(turn * 30)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_made_here_while_another_lists_them() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let mut last_changes = 0;
    for number in 0..60 {
        if number == 10 {
            last_changes = cluster.meta.count("change");
        }
        create(&a, &format!("f{number}")).await;
        assert_eq!(b.readdir(Ino::ROOT, None, 0).await.unwrap().len(), number + 1);
    }
    let more = cluster.meta.count("change") - last_changes;
    assert!(more <= 1, "{more} changes were made at the leader");
}

#[tokio::test(start_paused = true)]
async fn what_another_has_read_is_taken_many_at_a_time() {
    const FILES: usize = 300;
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    for number in 0..FILES {
        let (ino, handle) = create(&a, &format!("f{number:03}")).await;
        a.release(ino, handle, None).await.unwrap();
    }
    a.sync().await.unwrap();
    let items = b.readdir(Ino::ROOT, None, 0).await.unwrap();
    for item in &items {
        b.lookup(Ino::ROOT, item.name.clone()).await.unwrap();
    }
    // Both have leases on everything.
    a.readdir(Ino::ROOT, None, 0).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = || ["take", "yield", "change"].map(|kind| cluster.meta.count(kind));
    let before = counts();
    for item in &items {
        a.unlink(Ino::ROOT, item.name.clone()).await.unwrap();
    }
    let after = counts();
    let [takes, yields, changes] = [0, 1, 2].map(|kind| after[kind] - before[kind]);
    assert!(takes <= 3 + FILES as u64 / 60, "{takes} takes");
    assert!(yields <= 3 * takes, "{yields} answers to {takes} takes");
    assert_eq!(changes, 0);
    assert_eq!(b.readdir(Ino::ROOT, None, 0).await.unwrap(), Vec::new());
}

/// What is taken from a writer is not taken back at once: while it is quiet the leader does it.
#[tokio::test(start_paused = true)]
async fn two_who_change_the_same_take_it_from_one_another_now_and_then() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ours) = create(&a, "f").await;
    a.sync().await.unwrap();
    let theirs = b.open(ino, RW).await.unwrap();
    let before = cluster.meta.count("take");
    for turn in 0..200 {
        write(&a, ino, ours, turn * 2, b"a").await;
        write(&b, ino, theirs, turn * 2 + 1, b"b").await;
    }
    let takes = cluster.meta.count("take") - before;
    assert!(takes < 20, "{takes} takes");
    assert_eq!(read(&a, ino, ours, 0, 400).await, b"ab".repeat(200));
    assert_eq!(read(&b, ino, theirs, 0, 400).await, b"ab".repeat(200));
}
