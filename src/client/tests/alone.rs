//! Changes made by a client on its own: nobody can tell, but by the time they take.

use super::*;

/// Makes files until names in the root are changed here.
pub async fn alone(client: &Client) {
    create(client, "first").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    create(client, "second").await;
    client.sync().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_thousand_changes_are_a_few_commands() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    alone(&client).await;
    let before = (cluster.meta.count("change"), cluster.meta.count("ship"));
    let dir = client.make(Ino::ROOT, name("dir"), new(NewNode::Dir)).await.unwrap().ino;
    for number in 0..300 {
        let text = name(&format!("f{number}"));
        let (attr, handle) = client.create(dir, text.clone(), new(NewNode::File), true, RW).await.unwrap();
        client.try_write(attr.ino, handle, at(0, b"little")).unwrap().unwrap();
        client.flush(attr.ino, handle, 1).await.unwrap();
        client.release(attr.ino, handle, None).await.unwrap();
        let to = name(&format!("g{number}"));
        client.rename((dir, text), (dir, to), RenameMode::Replace).await.unwrap();
    }
    assert_eq!(client.readdir(dir, None, 0).await.unwrap().len(), 300);
    client.fsync(dir, None).await.unwrap();
    assert_eq!(cluster.meta.count("change"), before.0);
    assert!(cluster.meta.count("ship") - before.1 < 10);
    let other = cluster.client().await;
    let seen = other.lookup(dir, name("g299")).await.unwrap();
    assert_eq!((seen.size, client.getattr(seen.ino).await.unwrap().size), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn another_client_sees_what_was_not_shipped() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    alone(&a).await;
    let (ino, handle) = create(&a, "f").await;
    a.try_write(ino, handle, at(0, b"hello")).unwrap().unwrap();
    assert_eq!(cluster.meta.attr(ino), None, "it is here alone");
    let seen = b.lookup(Ino::ROOT, name("f")).await.unwrap();
    assert_eq!((seen.ino, seen.size), (ino, 5));
    a.unlink(Ino::ROOT, name("second")).await.unwrap();
    assert_eq!(b.lookup(Ino::ROOT, name("second")).await, Err(FsError::NotFound));
    assert!(b.readdir(Ino::ROOT, None, 0).await.unwrap().iter().all(|item| item.name != name("second")));
}

#[tokio::test(start_paused = true)]
async fn two_clients_that_take_turns_in_a_directory_never_disagree() {
    let cluster = Cluster::new();
    let clients = [cluster.client().await, cluster.client().await];
    for round in 0..40 {
        let (one, two) = (&clients[round % 2], &clients[(round + 1) % 2]);
        let text = name(&format!("n{round}"));
        one.make(Ino::ROOT, text.clone(), new(NewNode::File)).await.unwrap();
        assert!(two.lookup(Ino::ROOT, text.clone()).await.is_ok());
        let again = two.make(Ino::ROOT, text.clone(), new(NewNode::File)).await;
        assert_eq!(again, Err(FsError::Exists));
        two.unlink(Ino::ROOT, text.clone()).await.unwrap();
        assert_eq!(one.lookup(Ino::ROOT, text).await, Err(FsError::NotFound));
        if round % 10 == 9 {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_shipped_outlives_a_change_of_leader() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    alone(&client).await;
    let (ino, handle) = create(&client, "f").await;
    client.try_write(ino, handle, at(0, b"kept")).unwrap().unwrap();
    cluster.meta.fail_over();
    cluster.meta.fault(|faults| faults.lose_replies = 1);
    client.fsync(ino, Some(handle)).await.unwrap();
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 4);
    let other = cluster.client().await;
    assert_eq!(other.lookup(Ino::ROOT, name("f")).await.unwrap().ino, ino);
}

#[tokio::test(start_paused = true)]
async fn what_goes_with_a_session_is_told() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    alone(&client).await;
    let (ino, handle) = create(&client, "f").await;
    cluster.meta.expire_all();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(client.fsync(ino, Some(handle)).await, Err(FsError::SessionExpired));
    assert_eq!(client.lookup(Ino::ROOT, name("f")).await, Err(FsError::NotFound));
    assert!(client.lookup(Ino::ROOT, name("first")).await.is_ok());
    create(&client, "f").await;
    client.sync().await.unwrap();
    assert!(client.lookup(Ino::ROOT, name("f")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_is_told_and_holds_nothing_up() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    alone(&client).await;
    let (ino, handle) = create(&client, "f").await;
    client.try_write(ino, handle, at(0, b"too much")).unwrap().unwrap();
    client.flush(ino, handle, 1).await.unwrap();
    create(&client, "after").await;
    cluster.meta.fault(|faults| faults.full = true);
    assert_eq!(client.fsync(ino, Some(handle)).await, Err(FsError::NoSpace));
    cluster.meta.fault(|faults| faults.full = false);
    client.sync().await.unwrap();
    let other = cluster.client().await;
    assert_eq!(other.lookup(Ino::ROOT, name("f")).await.unwrap().size, 0);
    assert!(other.lookup(Ino::ROOT, name("after")).await.is_ok());
    assert_eq!(client.getattr(ino).await.unwrap().size, 0);
}

#[tokio::test(start_paused = true)]
async fn data_too_large_to_stay_inline_keeps_its_place() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    alone(&client).await;
    let (ino, handle) = create(&client, "f.new").await;
    let data = pattern(40_000, 9);
    write(&client, ino, handle, 0, &data).await;
    client.rename((Ino::ROOT, name("f.new")), (Ino::ROOT, name("f")), RenameMode::Replace).await.unwrap();
    write(&client, ino, handle, 40_000, b"more").await;
    cluster.meta.fault(|faults| faults.put_again = true);
    client.fsync(Ino::ROOT, None).await.unwrap();
    assert!(cluster.meta.attr(ino).unwrap().size >= 40_000, "the name is there, and so is what was written before it");
    client.fsync(ino, Some(handle)).await.unwrap();
    let other = cluster.client().await;
    let seen = other.lookup(Ino::ROOT, name("f")).await.unwrap();
    let theirs = other.open(seen.ino, RW).await.unwrap();
    assert_eq!(read(&other, ino, theirs, 0, 50_000).await, [&data[..], b"more"].concat());
}

#[tokio::test(start_paused = true)]
async fn a_removed_file_is_let_go_of_when_its_removal_is_shipped() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    alone(&client).await;
    let (ino, handle) = create(&client, "f").await;
    write(&client, ino, handle, 0, b"gone soon").await;
    client.unlink(Ino::ROOT, name("f")).await.unwrap();
    assert_eq!(read(&client, ino, handle, 0, 9).await, b"gone soon");
    client.sync().await.unwrap();
    assert!(cluster.meta.attr(ino).is_some(), "it is open");
    client.release(ino, handle, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.meta.attr(ino), None);
    let (short, lived) = create(&client, "g").await;
    client.release(short, lived, None).await.unwrap();
    client.unlink(Ino::ROOT, name("g")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((cluster.meta.attr(short), cluster.meta.hold(short)), (None, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn files_are_emptied_here() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    alone(&client).await;
    let (ino, handle) = create(&client, "f").await;
    write(&client, ino, handle, 0, &pattern(40_000, 1)).await;
    client.sync().await.unwrap();
    let changes = cluster.meta.count("change");
    let emptied = client.setattr(ino, SetAttr { size: Some(0), ..SetAttr::default() }).await.unwrap();
    assert_eq!((emptied.size, emptied.allocated_bytes), (0, 0));
    assert_eq!(read(&client, ino, handle, 0, 10).await, b"");
    write(&client, ino, handle, 3, b"new").await;
    assert_eq!(read(&client, ino, handle, 0, 10).await, b"\0\0\0new");
    client.fsync(ino, Some(handle)).await.unwrap();
    assert_eq!(cluster.meta.count("change"), changes);
    let other = cluster.client().await;
    let theirs = other.open(ino, RW).await.unwrap();
    assert_eq!(read(&other, ino, theirs, 0, 10).await, b"\0\0\0new");
}

#[tokio::test(start_paused = true)]
async fn what_is_leased_is_opened_without_asking_and_outlives_its_name() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, handle) = create(&a, "f").await;
    write(&a, ino, handle, 0, b"still here").await;
    a.release(ino, handle, None).await.unwrap();
    a.sync().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    b.lookup(Ino::ROOT, name("f")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    b.getattr(ino).await.unwrap();
    let reading = OpenMode { write: false, ..RW };
    let theirs = b.try_open(ino, reading).expect("a lease is there").unwrap();
    assert!(cluster.meta.hold(ino).iter().filter(|hold| hold.open).count() < 2, "nobody was told");
    a.unlink(Ino::ROOT, name("f")).await.unwrap();
    a.sync().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(read(&b, ino, theirs, 0, 20).await, b"still here");
    b.release(ino, theirs, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.meta.attr(ino), None);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_is_lost_is_told() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    alone(&client).await;
    let reading = OpenMode { write: false, ..RW };
    let dir = client.open(Ino::ROOT, reading).await.unwrap();
    create(&client, "f").await;
    cluster.meta.fault(|faults| faults.away = true);
    let (syncing, closing) = (client.clone(), client.clone());
    let sync = tokio::spawn(async move { syncing.sync().await });
    let fsync = tokio::spawn(async move { closing.fsync(Ino::ROOT, Some(dir)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.meta.expire_all();
    cluster.meta.fault(|faults| faults.away = false);
    assert!(sync.await.unwrap().is_err());
    assert_eq!(fsync.await.unwrap(), Err(FsError::SessionExpired));
    create(&client, "third").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    create(&client, "g").await;
    cluster.meta.expire_all();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(client.fsync(Ino::ROOT, Some(dir)).await, Err(FsError::SessionExpired), "it was lost before the call");
}

#[tokio::test(start_paused = true)]
async fn extended_attributes_are_set_and_removed_here() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    alone(&client).await;
    let (ino, _) = create(&client, "f").await;
    let before = cluster.meta.count("change");
    let set = |text: &'static str, value: &'static [u8], mode| {
        let client = client.clone();
        async move { client.setxattr(ino, text.into(), value.to_vec(), mode).await }
    };
    set("user.a", b"one", XattrMode::Create).await.unwrap();
    set("user.b", b"two", XattrMode::Set).await.unwrap();
    assert_eq!(set("user.a", b"x", XattrMode::Create).await, Err(FsError::Exists));
    assert_eq!(set("user.c", b"x", XattrMode::Replace).await, Err(FsError::NoAttribute));
    set("user.a", b"three", XattrMode::Replace).await.unwrap();
    client.removexattr(ino, b"user.b".to_vec()).await.unwrap();
    assert_eq!(client.removexattr(ino, b"user.b".to_vec()).await, Err(FsError::NoAttribute));
    assert_eq!(client.getxattr(ino, b"user.a".to_vec()).await.unwrap(), b"three");
    assert_eq!(client.getxattr(ino, b"user.b".to_vec()).await, Err(FsError::NoAttribute));
    assert_eq!(client.listxattr(ino).await.unwrap(), [b"user.a".to_vec()]);
    assert_eq!(cluster.meta.count("change"), before, "nobody was asked");
    let other = cluster.client().await;
    let theirs = other.lookup(Ino::ROOT, name("f")).await.unwrap();
    assert!(theirs.has_xattr);
    assert_eq!(other.getxattr(theirs.ino, b"user.a".to_vec()).await.unwrap(), b"three");
    assert_eq!(other.getxattr(theirs.ino, b"user.b".to_vec()).await, Err(FsError::NoAttribute));
}
