//! What is bounded: memory, messages of a client that holds much, listings of directories that change.

use super::*;
use crate::client::recall::name_bytes_of;
use crate::types::limits::RECLAIM_CLAIMS_MAX;

#[tokio::test(start_paused = true)]
async fn a_large_cache_is_reclaimed_in_pieces() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (_, many) = (create(&client, "f").await, RECLAIM_CLAIMS_MAX as u64 + 10);
    let lease = Hold { lease: Lease::Read, open: false };
    for number in 0..many {
        client.core.nodes.node(Ino(1_000 + number)).lock().grant(lease, 1);
    }
    cluster.meta.fail_over();
    client.getattr(Ino(999_999)).await.unwrap_err();
    assert_eq!(cluster.meta.count("reclaim"), 2);
    for number in [0, many - 1] {
        assert_eq!(cluster.meta.hold(Ino(1_000 + number)), [lease]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_ends_with_what_was_there_when_it_began() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    create(&a, "one").await;
    create(&a, "two").await;
    let stream = a.open(Ino::ROOT, OpenMode { write: false, ..RW }).await.unwrap();
    let list = async |after| a.readdir(Ino::ROOT, Some(stream), after).await.unwrap();
    let begun = list(0).await;
    assert_eq!(begun.len(), 2);
    create(&a, "own").await;
    create(&b, "other").await;
    assert_eq!(list(begun[1].cookie).await, []);
    assert_eq!(list(begun[0].cookie).await, begun[1..], "an offset it gave stays good");
    assert_eq!(a.readdir(Ino::ROOT, None, begun[1].cookie).await.unwrap().len(), 2);
    assert_eq!(list(0).await.len(), 4, "rewound");
    assert_eq!(list(begun[1].cookie).await.len(), 2);
    assert!(list(0).await.len() == 4 && list(2).await.len() == 4, "from memory as well");
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_under_a_fast_writer() {
    let cluster = Cluster::new();
    let bound = 4 << 20;
    let client = cluster.client_with(|config| config.memory_bytes = bound).await;
    let (ino, handle) = create(&client, "f").await;
    let data = pattern(100_000, 3);
    for round in 0..200 {
        let request = at(round * 100_000, &data);
        match client.try_write(ino, handle, request) {
            Some(done) => assert_eq!(done, Ok(100_000)),
            None => assert_eq!(client.write(ino, handle, request).await, Ok(100_000)),
        }
    }
    client.sync().await.unwrap();
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 20_000_000);
    assert!(client.memory_high_bytes() <= bound);
    assert_eq!(read(&client, ino, handle, 19_900_000, 100_000).await, data);
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_lease_takes_the_capability_away_too() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, _) = create(&a, "f").await;
    a.setxattr(ino, b"security.capability".to_vec(), b"may".to_vec(), XattrMode::Set).await.unwrap();
    let handle = b.open(ino, RW).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    b.getattr(ino).await.unwrap();
    b.getxattr(ino, b"security.capability".to_vec()).await.unwrap();
    let asked = cluster.meta.count("getxattr");
    b.getxattr(ino, b"security.capability".to_vec()).await.unwrap();
    assert_eq!(cluster.meta.count("getxattr"), asked, "cached under a lease");
    // The other holds a read lease: what is written goes through to the leader.
    b.write(ino, handle, at(0, b"other bytes")).await.unwrap();
    b.getxattr(ino, b"security.capability".to_vec()).await.unwrap();
    assert_eq!(cluster.meta.count("getxattr"), asked + 1);
}

/// Nothing new is learned of a file while a flush of it is under way; what is buffered counts for its size all the same.
#[tokio::test(start_paused = true)]
async fn a_hole_before_what_a_flush_has_on_its_way_is_read_as_zeros() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    client.try_write(ino, handle, at(0, b"some bytes to cut")).unwrap().unwrap();
    client.setattr(ino, SetAttr { size: Some(10), ..SetAttr::default() }).await.unwrap();
    cluster.chunks.away.store(true, Ordering::Relaxed);
    client.try_write(ino, handle, at(200_000, &pattern(50_000, 1))).unwrap().unwrap();
    let syncing = client.clone();
    let flush = tokio::spawn(async move { syncing.fsync(ino, Some(handle)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(read(&client, ino, handle, 100_000, 100).await, vec![0; 100]);
    assert_eq!(read(&client, ino, handle, 240_000, 20_000).await, pattern(50_000, 1)[40_000..]);
    cluster.chunks.away.store(false, Ordering::Relaxed);
    flush.await.unwrap().unwrap();
    assert_eq!(read(&client, ino, handle, 100_000, 100).await, vec![0; 100]);
}

#[tokio::test(start_paused = true)]
async fn a_write_brings_a_time_in_the_future_back() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    let future = Time { sec: 1 << 33, nsec: 0 };
    client.setattr(ino, SetAttr { mtime: Some(SetTime::At(future)), ..SetAttr::default() }).await.unwrap();
    assert_eq!(client.getattr(ino).await.unwrap().mtime, future);
    client.try_write(ino, handle, at(0, b"now")).unwrap().unwrap();
    assert!(client.getattr(ino).await.unwrap().mtime < future);
}

#[tokio::test(start_paused = true)]
async fn what_is_closed_is_on_its_way() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    client.try_write(ino, handle, at(0, b"soon")).unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 0);
    client.flush(ino, handle, 1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 4);
}

#[tokio::test(start_paused = true)]
async fn a_small_file_is_looked_up_opened_and_read_in_two_trips() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, handle) = create(&a, "f").await;
    a.write(ino, handle, at(0, b"small")).await.unwrap();
    a.stop().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = || ["lookup", "getattr", "extents"].map(|kind| cluster.meta.count(kind));
    let before = counts();
    b.lookup(Ino::ROOT, name("f")).await.unwrap();
    let handle = b.open(ino, OpenMode { read: true, write: false, sync: false }).await.unwrap();
    assert_eq!(read(&b, ino, handle, 0, 100).await, b"small");
    let after = counts();
    assert_eq!([after[0] - before[0], after[1] - before[1], after[2] - before[2]], [1, 0, 1]);
}

/// Scattered writes into one block by the thousand: no command lays more than the block's list can take.
#[test]
fn many_pieces_of_one_block_are_several_commands() {
    let piece = |offset: u64| crate::types::extent::Extent {
        offset,
        len: 1,
        source: crate::types::extent::Source::Inline(vec![1]),
    };
    let block = u64::from(CHUNK_BYTES);
    let pieces: Vec<_> = (0..5_000).map(|at| piece(at * 2)).chain((0..10).map(|at| piece(block + at * 2))).collect();
    let commands = crate::client::writeback::split(&pieces, block);
    assert_eq!(commands.iter().map(|command| command.len()).sum::<usize>(), pieces.len());
    assert_eq!(commands.iter().map(|command| command.len()).collect::<Vec<_>>(), [1024, 1024, 1024, 1024, 914]);
    assert_eq!(crate::client::writeback::split(&pieces[4_900..], block).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_cluster_is_away_ends_when_all_is_synced() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    write(&client, ino, handle, 0, b"read me").await;
    client.sync().await.unwrap();
    read(&client, ino, handle, 0, 10).await;
    cluster.meta.fault(|faults| faults.away = true);
    let stopped = tokio::time::timeout(Duration::from_secs(60), client.stop()).await;
    assert_eq!(stopped.expect("it ends"), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn names_are_forgotten_before_they_take_too_much() {
    let cluster = Cluster::new();
    let client = cluster.client_with(|config| config.memory_bytes = 1 << 20).await;
    let mut dirs = Vec::new();
    for number in 0..40 {
        let dir = client.make(Ino::ROOT, name(&format!("d{number}")), new(NewNode::Dir)).await.unwrap().ino;
        for number in 0..40 {
            client.make(dir, name(&format!("f{number}")), new(NewNode::File)).await.unwrap();
        }
        dirs.push(dir);
    }
    let bytes = || client.core.nodes.all().iter().map(|node| node.lock().dir.bytes()).sum::<usize>();
    assert!(bytes() > client.core.memory.name_bytes_max(), "what is not shipped is not forgotten");
    client.sync().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(bytes() <= client.core.memory.name_bytes_max());
    for dir in dirs {
        assert_eq!(client.readdir(dir, None, 0).await.unwrap().len(), 40);
        assert!(client.lookup(dir, name("f39")).await.is_ok());
        assert_eq!(client.lookup(dir, name("nothing")).await, Err(FsError::NotFound));
    }
}

/// Who waits for what is being stored knows that it gets on, however long the rest of it takes.
#[tokio::test(start_paused = true)]
async fn what_is_in_the_stores_is_told_before_it_is_committed() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    write(&client, ino, handle, 0, &pattern(CHUNK_BYTES as usize, 1)).await;
    client.fsync(ino, Some(handle)).await.unwrap();
    let before = client.core.vitals().stored_bytes;
    assert_eq!(before, u64::from(CHUNK_BYTES));
    cluster.meta.fault(|faults| faults.away = true);
    write(&client, ino, handle, CHUNK_BYTES.into(), &pattern(CHUNK_BYTES as usize, 2)).await;
    let put = async {
        while client.core.vitals().stored_bytes == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), put).await.expect("it was put");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_files_is_forgotten_before_it_takes_too_much() {
    let cluster = Cluster::new();
    let client = cluster.client_with(|config| config.memory_bytes = 1 << 20).await;
    let bytes = || client.core.nodes.all().iter().map(|node| name_bytes_of(&node.lock())).sum::<usize>();
    let (value, target) = (vec![7; 1000], vec![b'x'; 3000]);
    let mut inos = Vec::new();
    for number in 0..60 {
        let link = new(NewNode::Symlink(target.clone()));
        let ino = client.make(Ino::ROOT, name(&format!("l{number}")), link).await.unwrap().ino;
        assert_eq!(client.readlink(ino).await.unwrap(), target);
        let (file, handle) = create(&client, &format!("f{number}")).await;
        client.setxattr(file, b"user.a".to_vec(), value.clone(), XattrMode::Set).await.unwrap();
        client.release(file, handle, None).await.unwrap();
        inos.push((ino, file));
    }
    assert!(bytes() > client.core.memory.name_bytes_max(), "what is not shipped is not forgotten");
    client.sync().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(bytes() <= client.core.memory.name_bytes_max(), "{} bytes", bytes());
    for (link, file) in inos {
        assert_eq!(client.readlink(link).await.unwrap(), target);
        assert_eq!(client.getxattr(file, b"user.a".to_vec()).await.unwrap(), value);
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_file_after_file_asks_for_many_at_once() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let dir = a.make(Ino::ROOT, name("d"), new(NewNode::Dir)).await.unwrap().ino;
    for number in 0..200 {
        let created = a.create(dir, name(&format!("f{number}")), new(NewNode::File), true, RW).await;
        let (attr, handle) = created.unwrap();
        write(&a, attr.ino, handle, 0, format!("file {number}").as_bytes()).await;
        a.release(attr.ino, handle, None).await.unwrap();
    }
    a.stop().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let items = b.readdir(dir, None, 0).await.unwrap();
    assert_eq!(items.len(), 200);
    let before = ["getattr", "extents", "lookup"].map(|kind| cluster.meta.count(kind));
    for item in &items {
        let handle = b.open(item.ino, OpenMode { write: false, ..RW }).await.unwrap();
        let content = read(&b, item.ino, handle, 0, 100).await;
        assert_eq!(content, [b"file ", &item.name.as_bytes()[1..]].concat());
        b.release(item.ino, handle, None).await.unwrap();
    }
    let after = ["getattr", "extents", "lookup"].map(|kind| cluster.meta.count(kind));
    assert!(after.iter().sum::<u64>() - before.iter().sum::<u64>() < 5, "{before:?} {after:?}");
    assert!(cluster.meta.count("small") < 8, "{}", cluster.meta.count("small"));
}

#[tokio::test(start_paused = true)]
async fn full_stores_are_waited_for_while_something_is_being_deleted() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, handle) = create(&a, "f").await;
    let fills = |full: bool| cluster.chunks.full.store(full, Ordering::Relaxed);
    cluster.meta.fault(|faults| faults.freeing = true);
    fills(true);
    write(&a, ino, handle, 0, &vec![7; 1 << 20]).await;
    let deleted = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        fills(false);
    };
    assert_eq!(tokio::join!(a.fsync(ino, Some(handle)), deleted).0, Ok(()));
    // Not while somebody else waits.
    fills(true);
    write(&a, ino, handle, 0, &vec![8; 1 << 20]).await;
    let begun = tokio::time::Instant::now();
    let looks = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        b.getattr(ino).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    };
    assert_eq!(tokio::join!(a.fsync(ino, Some(handle)), looks).0, Err(FsError::NoSpace));
    // Without the lease the write goes to the stores itself; and not for ever, however many there are.
    fills(false);
    cluster.meta.fault(|faults| faults.grants_nothing = true);
    assert!(a.write(ino, handle, at(0, &vec![9; 1 << 20])).await.is_ok());
    fills(true);
    for patience in [30..32, 0..1] {
        let begun = tokio::time::Instant::now();
        assert_eq!(a.write(ino, handle, at(0, &vec![9; 1 << 20])).await, Err(FsError::NoSpace));
        assert!(patience.contains(&begun.elapsed().as_secs()), "{patience:?}: {:?}", begun.elapsed());
    }
    // Nor where nothing is deleted.
    fills(false);
    cluster.meta.fault(|faults| faults.grants_nothing = false);
    assert!(a.write(ino, handle, at(0, &vec![9; 1 << 20])).await.is_ok());
    fills(true);
    cluster.meta.fault(|faults| faults.freeing = false);
    let begun = tokio::time::Instant::now();
    let _ = a.write(ino, handle, at(0, &vec![9; 1 << 20])).await;
    assert_eq!(a.fsync(ino, Some(handle)).await, Err(FsError::NoSpace));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// A name is not to wait for data of the file that has it.
#[tokio::test(start_paused = true)]
async fn other_changes_do_not_wait_for_space() {
    let cluster = Cluster::new();
    let a = cluster.client().await;
    let (ino, handle) = create(&a, "f").await;
    a.fsync(ino, Some(handle)).await.unwrap();
    cluster.meta.fault(|faults| faults.freeing = true);
    cluster.chunks.full.store(true, Ordering::Relaxed);
    write(&a, ino, handle, 0, &vec![7; 1 << 20]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begun = tokio::time::Instant::now();
    a.setattr(ino, SetAttr { size: Some(10), ..SetAttr::default() }).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(a.fsync(ino, Some(handle)).await, Err(FsError::NoSpace));
}
