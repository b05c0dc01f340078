//! Directories that are gone through one after the other.

use super::*;

const DIRS: usize = 40;

/// A tree of directories with a file in each, made by somebody else, and the client that goes through it.
async fn tree(cluster: &Cluster) -> (Vec<Ino>, Client) {
    let maker = cluster.client().await;
    let mut dirs = Vec::new();
    for n in 0..DIRS {
        let dir = maker.make(Ino::ROOT, name(&format!("d{n}")), new(NewNode::Dir)).await.unwrap().ino;
        maker.make(dir, name(&format!("f{n}")), new(NewNode::File)).await.unwrap();
        dirs.push(dir);
    }
    maker.sync().await.unwrap();
    maker.stop().await.unwrap();
    let client = cluster.client().await;
    assert_eq!(client.readdir(Ino::ROOT, None, 0).await.unwrap().len(), DIRS);
    (dirs, client)
}

async fn list(client: &Client, dir: Ino, n: usize) {
    let items = client.readdir(dir, None, 0).await.unwrap();
    assert_eq!(items.iter().map(|item| item.name.clone()).collect::<Vec<_>>(), [name(&format!("f{n}"))]);
}

#[tokio::test(start_paused = true)]
async fn the_next_directories_are_listed_meanwhile_and_each_once() {
    let cluster = Cluster::new();
    let (dirs, client) = tree(&cluster).await;
    let before = cluster.meta.count("readdir");
    let listings = || (cluster.meta.count("readdir") - before) as usize;
    list(&client, dirs[0], 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(listings(), 1, "one listing is no walk");
    tokio::join!(list(&client, dirs[1], 1), list(&client, dirs[2], 2));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(listings(), 17);
    for (n, dir) in dirs.iter().enumerate() {
        list(&client, *dir, n).await;
    }
    assert_eq!(listings(), DIRS);
}

#[tokio::test(start_paused = true)]
async fn who_goes_back_is_told_of_nothing_else() {
    let cluster = Cluster::new();
    let (dirs, client) = tree(&cluster).await;
    list(&client, dirs[20], 20).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = cluster.meta.count("readdir");
    for n in [15, 10, 5] {
        list(&client, dirs[n], n).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cluster.meta.count("readdir") - before, 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_like_what_was_changed_is_listed_to_be_changed() {
    let cluster = Cluster::new();
    let (dirs, client) = tree(&cluster).await;
    let [before, takes] = ["readdir", "take"].map(|kind| cluster.meta.count(kind));
    for (n, dir) in dirs.iter().enumerate() {
        list(&client, *dir, n).await;
        client.unlink(*dir, name(&format!("f{n}"))).await.unwrap();
    }
    client.sync().await.unwrap();
    let listings = cluster.meta.count("readdir") - before;
    assert_eq!(listings, DIRS as u64, "what was listed to be read need not be listed again to be changed");
    assert_eq!(cluster.meta.count("take") - takes, 2, "the first one, and what is in it");
    assert!(cluster.meta.hold(dirs[30]).iter().any(|hold| hold.lease == Lease::Write));
    assert_eq!(client.readdir(dirs[30], None, 0).await.unwrap(), Vec::new());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_takes_nothing_from_another_host() {
    let cluster = Cluster::new();
    let (dirs, client) = tree(&cluster).await;
    let other = cluster.client().await;
    other.make(dirs[5], name("theirs"), new(NewNode::File)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    other.make(dirs[5], name("again"), new(NewNode::File)).await.unwrap();
    assert!(cluster.meta.hold(dirs[5]).iter().any(|hold| hold.lease == Lease::Write));
    let recalls = cluster.meta.count("recall");
    for (n, dir) in dirs.iter().enumerate().take(3) {
        list(&client, *dir, n).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cluster.meta.count("recall"), recalls);
    assert_eq!(client.readdir(dirs[5], None, 0).await.unwrap().len(), 3, "who asks for it has it");
}
