//! Volumes for one host at a time: what the kernel keeps, and what happens when the session has expired.

use super::*;
use crate::client::lent::EXCLUSIVE_VALIDITY;

async fn exclusive() -> (Cluster, Client) {
    let cluster = Cluster::new();
    cluster.meta.fault(|faults| faults.exclusive = true);
    let client = cluster.client().await;
    (cluster, client)
}

/// The session has expired; time for the next.
async fn expire(cluster: &Cluster) {
    cluster.meta.expire_all();
    tokio::time::sleep(Duration::from_secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn the_kernel_goes_by_what_it_knows_for_longer() {
    let (_cluster, client) = exclusive().await;
    let (ino, _) = create(&client, "f").await;
    assert!(client.exclusive());
    assert_eq!(client.lend_attr(&client.getattr(ino).await.unwrap()), EXCLUSIVE_VALIDITY);
}

#[tokio::test(start_paused = true)]
async fn with_nothing_lost_it_goes_on_after_its_session() {
    let (cluster, client) = exclusive().await;
    let (ino, handle) = create(&client, "f").await;
    write(&client, ino, handle, 0, b"kept").await;
    client.fsync(ino, Some(handle)).await.unwrap();
    expire(&cluster).await;
    assert_eq!(read(&client, ino, handle, 0, 9).await, b"kept");
    write(&client, ino, handle, 0, b"more").await;
    client.fsync(ino, Some(handle)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_ends_it() {
    let (cluster, client) = exclusive().await;
    let (ino, handle) = create(&client, "f").await;
    client.fsync(ino, Some(handle)).await.unwrap();
    client.try_write(ino, handle, at(0, b"never")).unwrap().unwrap();
    expire(&cluster).await;
    says_eio(&cluster, &client, ino, handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_lost_ends_it_too() {
    let (cluster, client) = exclusive().await;
    let (ino, handle) = create(&client, "f").await;
    client.fsync(ino, Some(handle)).await.unwrap();
    client.make(Ino::ROOT, name("never"), new(NewNode::Dir)).await.unwrap();
    expire(&cluster).await;
    says_eio(&cluster, &client, ino, handle).await;
}

#[tokio::test(start_paused = true)]
async fn who_was_followed_by_another_host_does_not_come_back() {
    let (cluster, client) = exclusive().await;
    let (ino, handle) = create(&client, "f").await;
    client.fsync(ino, Some(handle)).await.unwrap();
    cluster.meta.fault(|faults| faults.taken_over = true);
    expire(&cluster).await;
    says_eio(&cluster, &client, ino, handle).await;
}

/// Every call fails at once, nothing is written, and it can be stopped.
async fn says_eio(cluster: &Cluster, client: &Client, ino: Ino, handle: Handle) {
    let before = cluster.meta.attr(ino).unwrap();
    let is_eio = |error: FsError| assert_eq!(error.errno(), libc::EIO, "{error}");
    is_eio(client.read(ino, handle, 0, 9).await.unwrap_err());
    is_eio(client.getattr(ino).await.unwrap_err());
    is_eio(client.statfs().unwrap_err());
    is_eio(client.make(Ino::ROOT, name("late"), new(NewNode::Dir)).await.unwrap_err());
    let wrote = client.write(ino, handle, at(0, b"late")).await;
    is_eio(wrote.and(client.fsync(ino, Some(handle)).await).unwrap_err());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.meta.attr(ino).unwrap(), before);
    let _ = client.flush(ino, handle, 1).await;
    let _ = client.release(ino, handle, None).await;
    let stopped = tokio::time::timeout(Duration::from_secs(30), client.stop()).await;
    assert!(stopped.is_ok(), "it does not stop");
}
