//! Attributes of both kinds: what another change brings along, and when accesses count.

use super::*;
use crate::client::atime::Access;

/// More than is kept, so that the client cannot set it alone.
const LARGE_BYTES: usize = 4096;

#[tokio::test(start_paused = true)]
async fn a_read_without_a_lease_is_an_access_too() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ours) = create(&a, "f").await;
    write(&a, ino, ours, 0, b"read me").await;
    let theirs = b.open(ino, RW).await.unwrap();
    // The first read may find it quiet; the second gets a lease, and both are told.
    for _ in 0..2 {
        read(&b, ino, theirs, 0, 10).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    // Recalls what the other holds: nothing is granted for a while.
    let then = Time { sec: 77, nsec: 5 };
    a.setattr(ino, SetAttr { atime: Some(SetTime::At(then)), ..SetAttr::default() }).await.unwrap();
    read(&b, ino, theirs, 0, 10).await;
    b.stop().await.unwrap();
    assert!(cluster.meta.attr(ino).unwrap().atime > then);
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_set_after_an_access_is_not_undone_by_it() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ours) = create(&a, "f").await;
    write(&a, ino, ours, 0, b"read me").await;
    let theirs = b.open(ino, RW).await.unwrap();
    read(&b, ino, theirs, 0, 10).await;
    let then = Time { sec: 77, nsec: 5 };
    a.setattr(ino, SetAttr { atime: Some(SetTime::At(then)), ..SetAttr::default() }).await.unwrap();
    // Now the access is told.
    b.stop().await.unwrap();
    a.sync().await.unwrap();
    assert_eq!(cluster.meta.attr(ino).unwrap().atime, then);
    assert_eq!(a.getattr(ino).await.unwrap().atime, then);
}

#[tokio::test(start_paused = true)]
async fn a_capability_that_goes_with_the_owner_is_asked_for_anew() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, _) = create(&client, "f").await;
    for xattr in ["security.capability", "user.other"] {
        client.setxattr(ino, xattr.into(), b"value".to_vec(), XattrMode::Set).await.unwrap();
    }
    let asked = async |xattr: &str| {
        let before = cluster.meta.count("getxattr");
        assert_eq!(client.getxattr(ino, xattr.into()).await.unwrap(), b"value");
        cluster.meta.count("getxattr") - before
    };
    assert_eq!((asked("security.capability").await, asked("user.other").await), (1, 1));
    assert_eq!((asked("security.capability").await, asked("user.other").await), (0, 0), "cached under the lease");
    client.setattr(ino, SetAttr { uid: Some(7), ..SetAttr::default() }).await.unwrap();
    assert_eq!((asked("security.capability").await, asked("user.other").await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_set_after_a_write_is_seen_though_both_go_in_one_command() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    client.try_write(ino, handle, at(0, b"buffered")).unwrap().unwrap();
    let value = vec![7; LARGE_BYTES];
    client.setxattr(ino, b"user.large".to_vec(), value.clone(), XattrMode::Set).await.unwrap();
    let seen = client.getattr(ino).await.unwrap();
    assert_eq!(Some(seen), cluster.meta.attr(ino));
    assert_eq!(client.getxattr(ino, b"user.large".to_vec()).await, Ok(value));
}

#[tokio::test(start_paused = true)]
async fn an_access_that_is_noticed_while_another_is_told_goes_on_from_it() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, _) = create(&client, "f").await;
    client.sync().await.unwrap();
    let node = client.core.nodes.node(ino);
    let mut state = node.lock();
    let was = state.base().unwrap().atime;
    let at = |sec| Time { sec: was.sec + sec, nsec: 0 };
    state.access = Some(Access { was, at: at(2) });
    state.told_access(Access { was, at: at(1) }, Some(at(1)));
    assert_eq!(state.access, Some(Access { was: at(1), at: at(2) }));
    assert_eq!(state.visible().unwrap().atime, at(2));
    state.told_access(Access { was: at(1), at: at(2) }, Some(at(2)));
    assert_eq!((state.access, state.visible().unwrap().atime), (None, at(2)));
}
