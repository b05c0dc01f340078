//! A client that ends, in order or not, and the one that goes on with what it left.

use std::ops::Deref;

use super::*;
use crate::client::kept::Kept;
use crate::remote::fake::Mortal;
use crate::remote::meta::CallError;

const EXCLUSIVE: Option<LockMode> = Some(LockMode::Exclusive);

fn call(owner: u64, mode: Option<LockMode>) -> LockCall {
    LockCall { space: LockSpace::Range, owner, mode, range: LockRange { start: 0, end: 9 }, pid: 1 }
}

/// A client, what it leaves, and the process that it is.
pub(super) struct Process {
    client: Client,
    pub kept: Arc<Kept>,
    mortal: Arc<Mortal>,
}

impl Deref for Process {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Process {
    pub async fn start(cluster: &Cluster, kept: Kept) -> Process {
        Process::try_start(cluster, kept).await.unwrap()
    }

    pub async fn try_start(cluster: &Cluster, kept: Kept) -> Result<Process, CallError> {
        let (mortal, kept) = (Arc::new(Mortal::new(cluster.meta.clone())), Arc::new(kept));
        let client = Process::client(cluster, &mortal, &kept).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(Process { client, kept, mortal })
    }

    async fn client(cluster: &Cluster, mortal: &Arc<Mortal>, kept: &Arc<Kept>) -> Result<Client, CallError> {
        let config = ClientConfig { kept: Some(kept.clone()), ..ClientConfig::new("v", "test") };
        let meta = Arc::new(MetaClient::new(mortal.clone(), vec!["b:1".into(), "a:1".into()]));
        Client::start(config, meta, cluster.chunks.clone()).await
    }

    /// One that is killed while it goes on, or soon after. What the next finds.
    pub async fn dies_going_on(cluster: &Cluster, kept: Kept, after: Duration) -> Kept {
        let (mortal, kept) = (Arc::new(Mortal::new(cluster.meta.clone())), Arc::new(kept));
        let mut going_on = std::pin::pin!(Process::client(cluster, &mortal, &kept));
        let client = tokio::time::timeout(after, going_on.as_mut()).await;
        // Before anything of it is dropped, as that ends what it keeps.
        let left = kept.copied();
        mortal.kill();
        if let Ok(client) = client {
            client.unwrap().core.stopping.send_replace(true);
        }
        left
    }

    /// What the next finds. Nothing more happens on behalf of this one.
    pub fn kill(self) -> Kept {
        let left = self.kept.copied();
        self.mortal.kill();
        self.client.core.stopping.send_replace(true);
        left
    }

    pub async fn killed_and_followed(self, cluster: &Cluster) -> Process {
        Process::start(cluster, self.kill()).await
    }
}

/// A client that can be followed by another.
pub(super) async fn first(cluster: &Cluster) -> Process {
    Process::start(cluster, Kept::new(0).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn open_files_and_leases_live_on() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    let (_, gone) = create(&first, "g").await;
    first.release(ino, gone, None).await.unwrap();
    write(&first, ino, handle, 0, b"before").await;
    first.leave().await.unwrap();
    let left = first.kill();

    let second = Process::start(&cluster, left).await;
    assert_eq!(read(&second, ino, handle, 0, 99).await, b"before");
    write(&second, ino, handle, 0, b"beyond").await;
    assert_eq!(second.fsync(ino, Some(handle)).await, Ok(()), "nothing was lost");
    assert_eq!(second.check_handle(gone), Err(FsError::BadHandle));
    let (_, another) = create(&second, "h").await;
    assert!(another != handle && another != gone);

    // What it holds is recalled from it, and given up when the kernel goes by nothing of it any more.
    let other = cluster.client().await;
    let (recalls, begun) = (cluster.meta.count("recall"), tokio::time::Instant::now());
    other.setattr(ino, SetAttr { mode: Some(0o600), ..SetAttr::default() }).await.unwrap();
    assert!(cluster.meta.count("recall") > recalls);
    assert!(begun.elapsed() > Duration::from_millis(900), "a name was lent, perhaps");
    assert_eq!(second.getattr(ino).await.unwrap().mode, 0o600);
}

#[tokio::test(start_paused = true)]
async fn a_file_without_a_name_lives_on() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    write(&first, ino, handle, 0, b"here").await;
    first.unlink(Ino::ROOT, name("f")).await.unwrap();
    first.leave().await.unwrap();
    let left = first.kill();
    // Another server leads, and knows of nothing that it is not told.
    cluster.meta.fail_over();
    let second = Process::start(&cluster, left).await;
    assert_eq!(read(&second, ino, handle, 0, 99).await, b"here");
    second.release(ino, handle, None).await.unwrap();
    second.sync().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(cluster.meta.attr(ino).is_none(), "closed, it is gone");
}

#[tokio::test(start_paused = true)]
async fn locks_that_were_decided_here_hold() {
    for fails_over in [false, true] {
        let cluster = Cluster::new();
        let first = first(&cluster).await;
        let (ino, handle) = create(&first, "f").await;
        first.sync().await.unwrap();
        first.setlk(ino, call(1, EXCLUSIVE), true).await.unwrap();
        first.setlk(ino, call(2, None), true).await.unwrap();
        first.leave().await.unwrap();
        let left = first.kill();
        if fails_over {
            cluster.meta.fail_over();
        }

        let second = Process::start(&cluster, left).await;
        let other = cluster.client().await;
        assert_eq!(second.setlk(ino, call(2, EXCLUSIVE), false).await, Err(FsError::WouldBlock));
        assert_eq!(other.setlk(ino, call(1, EXCLUSIVE), false).await, Err(FsError::WouldBlock), "{fails_over}");
        second.flush(ino, handle, 1).await.unwrap();
        other.setlk(ino, call(1, EXCLUSIVE), false).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn locks_on_their_way_home_hold() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, _) = create(&first, "f").await;
    first.sync().await.unwrap();
    first.setlk(ino, call(1, EXCLUSIVE), true).await.unwrap();
    // Two are in each other's way: the leader is to decide, and the first dies before it has told what it decided.
    cluster.meta.fault(|faults| faults.away = true);
    let waiting = tokio::spawn({
        let first = first.clone();
        async move { first.setlk(ino, call(2, EXCLUSIVE), true).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let left = first.kill();
    waiting.abort();
    cluster.meta.fault(|faults| faults.away = false);
    let second = Process::start(&cluster, left).await;
    let other = cluster.client().await;
    assert_eq!(other.setlk(ino, call(1, EXCLUSIVE), false).await, Err(FsError::WouldBlock));
    assert_eq!(second.setlk(ino, call(2, EXCLUSIVE), false).await, Err(FsError::WouldBlock));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ended_meanwhile_is_replaced() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let ((ino, handle), (locked, lock_handle)) = (create(&first, "f").await, create(&first, "l").await);
    write(&first, ino, handle, 0, b"here").await;
    first.setlk(locked, call(1, EXCLUSIVE), true).await.unwrap();
    first.leave().await.unwrap();
    let left = first.kill();
    cluster.meta.expire_all();
    let second = Process::start(&cluster, left).await;
    assert_eq!(read(&second, ino, handle, 0, 99).await, b"here");
    assert_eq!(second.read(locked, lock_handle, 0, 9).await, Err(FsError::Io), "others may have had the lock");
    assert_eq!(second.check_handle(handle), Ok(()));
    assert!(second.kept.lockers().is_empty());
    // The third goes on with the session of the second.
    second.leave().await.unwrap();
    let third = second.killed_and_followed(&cluster).await;
    assert_eq!(read(&third, ino, handle, 0, 99).await, b"here");
    assert_eq!(third.read(locked, lock_handle, 0, 9).await, Err(FsError::Io), "until it is opened anew");
}

#[tokio::test(start_paused = true)]
async fn a_close_that_was_answered_is_done_by_the_next() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    first.sync().await.unwrap();
    first.setlk(ino, call(1, EXCLUSIVE), true).await.unwrap();
    first.kept.leaves(handle, ino, 1);
    let left = first.kill();
    let second = Process::start(&cluster, left).await;
    assert_eq!(second.check_handle(handle), Err(FsError::BadHandle));
    let other = cluster.client().await;
    other.setlk(ino, call(1, EXCLUSIVE), false).await.unwrap();
    assert!(second.kept.leaving().is_empty());
}
