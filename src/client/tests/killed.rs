//! Clients that are killed, at any moment: what they had taken is there.

use super::resume::{Process, first};
use super::*;
use crate::client::calls::{Call, within};
use crate::client::kept::taken::{CallPart, Written};
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
async fn what_was_sealed_stays_in_front_however_many_die_going_on() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    first.sync().await.unwrap();
    cluster.chunks.away.store(true, Ordering::Relaxed);
    write(&first, ino, handle, 0, &pattern(200_000, 1)).await;
    let then = Time { sec: 77, nsec: 5 };
    let set = SetAttr { mtime: Some(SetTime::At(then)), mode: Some(0o4755), ..SetAttr::default() };
    first.setattr(ino, set).await.unwrap();
    let mut left = first.kill();
    for _ in 0..3 {
        left = Process::dies_going_on(&cluster, left, Duration::from_millis(300)).await;
    }
    cluster.chunks.away.store(false, Ordering::Relaxed);
    let last = Process::start(&cluster, left).await;
    assert_eq!((last.sync().await, last.core.journal.failures()), (Ok(()), 0));
    let attr = cluster.meta.attr(ino).unwrap();
    assert_eq!((attr.mtime, attr.mode), (then, 0o4755));
    assert_eq!(seen_by_another(&cluster, "f").await.unwrap(), pattern(200_000, 1));
}

#[tokio::test(start_paused = true)]
async fn locks_are_as_they_were() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, _) = create(&first, "f").await;
    first.sync().await.unwrap();
    let call =
        |owner, mode| LockCall { space: LockSpace::Range, owner, mode, range: LockRange { start: 0, end: 9 }, pid: 1 };
    let exclusive = Some(LockMode::Exclusive);
    first.setlk(ino, call(1, exclusive), true).await.unwrap();
    // One that the leader does not know of is locked as well.
    let (new, _) = create(&first, "new").await;
    first.setlk(new, call(1, exclusive), true).await.unwrap();
    let second = first.killed_and_followed(&cluster).await;
    assert_eq!(second.setlk(new, call(2, exclusive), false).await, Err(FsError::WouldBlock));
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
async fn what_could_not_be_stored_is_told_by_the_next() {
    for in_order in [false, true] {
        let cluster = Cluster::new();
        let first = first(&cluster).await;
        let (ino, handle) = create(&first, "f").await;
        let other = first.open(ino, RW).await.unwrap();
        first.sync().await.unwrap();
        cluster.meta.fault(|faults| faults.full = true);
        cluster.chunks.full.store(true, Ordering::Relaxed);
        write(&first, ino, handle, 0, &pattern(200_000, 1)).await;
        let told = first.fsync(ino, Some(other)).await;
        assert_eq!(told, Err(FsError::NoSpace), "one has heard of it, the other has not");
        if in_order {
            cluster.meta.fault(|faults| faults.full = false);
            cluster.chunks.full.store(false, Ordering::Relaxed);
            first.leave().await.unwrap();
        }
        let second = first.killed_and_followed(&cluster).await;
        assert_eq!(second.fsync(ino, Some(other)).await, Ok(()), "it was told");
        assert_eq!(second.fsync(ino, Some(handle)).await, Err(FsError::Io));
        assert_eq!(second.fsync(ino, Some(handle)).await, Ok(()));
    }
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

/// A call of the kernel with this number, answered or not.
pub(super) async fn call<T>(number: u64, work: impl Future<Output = T>) -> T {
    within(Some(Call::new(number)), work).await
}

/// Calls that are not idempotent, one by one, as the kernel hands them out again after the client has done them and died.
#[tokio::test(start_paused = true)]
async fn what_was_done_for_a_call_that_was_not_answered_is_answered() {
    // Here under leases; and by the leader, whose answer is lost.
    for is_alone in [true, false] {
        let cluster = Cluster::new();
        cluster.meta.fault(|faults| faults.grants_nothing = !is_alone);
        let mut process = first(&cluster).await;
        let (kept, handle) = create(&process, "kept").await;
        create(&process, "old").await;
        create(&process, "gone").await;
        process.make(ROOT, name("empty"), new(NewNode::Dir)).await.unwrap();
        process.setxattr(kept, b"user.gone".into(), b"x".into(), XattrMode::Set).await.unwrap();
        write(&process, kept, handle, 0, b"begin").await;
        process.sync().await.unwrap();
        let append = WriteRequest { append: true, ..at(0, b" and end") };
        // So that the first of them to be sent is what is asked for, and no promise of a quota.
        process.core.reserve().await;
        for number in 1..=8 {
            let done = async |client: &Client| match number {
                1 => client.create(ROOT, name("new"), new(NewNode::File), true, RW).await.map(drop),
                2 => client.make(ROOT, name("dir"), new(NewNode::Dir)).await.map(drop),
                3 => client.link(kept, ROOT, name("link")).await.map(drop),
                4 => client.rename((ROOT, name("old")), (ROOT, name("moved")), RenameMode::NoReplace).await,
                5 => client.unlink(ROOT, name("gone")).await,
                6 => client.rmdir(ROOT, name("empty")).await,
                7 => client.setxattr(kept, b"user.new".into(), b"y".into(), XattrMode::Create).await,
                _ => client.write(kept, handle, append).await.map(drop),
            };
            let unanswered = Call::new(number);
            if is_alone {
                assert_eq!(within(Some(unanswered.clone()), done(&process)).await, Ok(()), "{number}");
            } else {
                cluster.meta.fault(|faults| faults.lose_replies = u32::MAX);
                let asking = within(Some(unanswered.clone()), done(&process));
                assert!(tokio::time::timeout(Duration::from_secs(2), asking).await.is_err(), "{number}");
                cluster.meta.fault(|faults| faults.lose_replies = 0);
            }
            // Twice, as the next one dies as well.
            process = process.killed_and_followed(&cluster).await;
            process = process.killed_and_followed(&cluster).await;
            drop(unanswered);
            assert_eq!(call(number, done(&process)).await, Ok(()), "{number}, {is_alone}");
            assert!(call(number + 100, done(&process)).await.is_err() || number == 8, "anew it is refused: {number}");
        }
        let expected = b"begin and end and end";
        assert_eq!(read(&process, kept, handle, 0, 99).await, expected, "once for each call");
        assert_eq!(process.sync().await, Ok(()));
        assert_eq!(process.core.journal.failures(), 0);
        assert_eq!(seen_by_another(&cluster, "link").await.unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_what_was_to_be_appended_is_not_there() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    write(&first, ino, handle, 0, b"begin").await;
    let call = Some(CallPart { call: 7, is_last: false });
    let mtime = Time { sec: 9, nsec: 0 };
    let half = Written { ino, offset: 5, mtime, clear_privileges: false, bytes: &b" and"[..], call };
    let _noted = first.kept.takes_data(&half).unwrap();
    let second = first.killed_and_followed(&cluster).await;
    assert_eq!(read(&second, ino, handle, 0, 99).await, b"begin");
    assert!(second.core.calls.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_for_holds_up_nothing() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    // It is answered, and the client dies before it has noted that.
    let answered = Call::new(7);
    let (ino, handle) = within(Some(answered.clone()), create(&first, "f")).await;
    let second = first.killed_and_followed(&cluster).await;
    let (begun, data) = (tokio::time::Instant::now(), pattern(1 << 20, 3));
    for round in 0..40 {
        write(&second, ino, handle, round << 20, &data).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?} for more than there is room for", begun.elapsed());
    drop(answered);
}

/// The kernel knows of no file that was opened and not answered: nobody would ever close it.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_opened_for_a_call_is_opened_once() {
    let cluster = Cluster::new();
    let mut process = first(&cluster).await;
    let (made, opened) = (Call::new(7), Call::new(8));
    let (ino, handle) = within(Some(made.clone()), create(&process, "f")).await;
    let other = within(Some(opened.clone()), process.open(ino, RW)).await.unwrap();
    process = process.killed_and_followed(&cluster).await;
    process = process.killed_and_followed(&cluster).await;
    assert_eq!(call(8, process.open(ino, RW)).await, Ok(other));
    assert_eq!(call(7, create(&process, "f")).await, (ino, handle));
    let third = call(9, process.open(ino, RW)).await.unwrap();
    assert_eq!(process.kept.handles().len(), 3, "each call has its own");
    for handle in [handle, other, third] {
        process.release(ino, handle, None).await.unwrap();
    }
    assert!(process.kept.handles().is_empty());
    drop((made, opened));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_for_is_forgotten() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let unanswered = Call::new(7);
    within(Some(unanswered.clone()), create(&first, "f")).await;
    let second = first.killed_and_followed(&cluster).await;
    assert!(!second.core.calls.is_empty());
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert!(second.core.calls.is_empty() && second.kept.copied().take_over().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_session_was_asked_for_is_not_asked_of_the_next() {
    let cluster = Cluster::new();
    cluster.meta.fault(|faults| faults.grants_nothing = true);
    let first = first(&cluster).await;
    // Its sequences are far ahead of those that a new session begins with.
    for n in 0..20 {
        first.make(ROOT, name(&format!("dir-{n}")), new(NewNode::Dir)).await.unwrap();
    }
    cluster.meta.fault(|faults| faults.lose_replies = u32::MAX);
    let asking = call(7, first.make(ROOT, name("late"), new(NewNode::Dir)));
    assert!(tokio::time::timeout(Duration::from_secs(2), asking).await.is_err());
    let left = first.kill();
    cluster.meta.fault(|faults| (faults.lose_replies, faults.grants_nothing) = (0, false));
    cluster.meta.expire_all();
    let second = Process::start(&cluster, left).await;
    let (ino, handle) = create(&second, "f").await;
    write(&second, ino, handle, 0, b"kept").await;
    assert_eq!(second.fsync(ino, Some(handle)).await, Ok(()));
    assert_eq!((second.sync().await, second.core.journal.failures()), (Ok(()), 0));
    assert_eq!(seen_by_another(&cluster, "f").await.unwrap(), b"kept");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_not_taken_for_sent() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    first.link(ino, ROOT, name("g")).await.unwrap();
    first.sync().await.unwrap();
    // An unlink takes no data with it: it is the next flush's.
    write(&first, ino, handle, 0, b"dirty").await;
    first.unlink(ROOT, name("f")).await.unwrap();
    cluster.meta.fault(|faults| faults.lose_replies = u32::MAX);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let left = first.kill();
    assert!(left.shipping().is_some() && cluster.meta.attr(ino).unwrap().nlink == 1, "the leader has done it");
    cluster.meta.fault(|faults| faults.lose_replies = 0);
    let second = Process::start(&cluster, left).await;
    assert_eq!(read(&second, ino, handle, 0, 99).await, b"dirty");
    assert_eq!((second.sync().await, second.core.journal.failures()), (Ok(()), 0));
    assert_eq!(seen_by_another(&cluster, "g").await.unwrap(), b"dirty");
}

#[tokio::test(start_paused = true)]
async fn what_was_sealed_together_is_sealed_together() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    first.link(ino, ROOT, name("g")).await.unwrap();
    first.sync().await.unwrap();
    cluster.meta.fault(|faults| faults.away = true);
    write(&first, ino, handle, 0, b"before").await;
    first.unlink(ROOT, name("f")).await.unwrap();
    write(&first, ino, handle, 6, b" and after").await;
    let then = Time { sec: 77, nsec: 5 };
    let set = SetAttr { mtime: Some(SetTime::At(then)), ..SetAttr::default() };
    first.setattr(ino, set).await.unwrap();
    write(&first, ino, handle, 0, b"B").await;
    let left = first.kill();
    cluster.meta.fault(|faults| faults.away = false);
    let second = Process::start(&cluster, left).await;
    assert_eq!(cluster.meta.attr(ino).unwrap().mtime, then, "what was sealed is there, and what was not is not");
    assert_eq!(read(&second, ino, handle, 0, 99).await, b"Before and after");
    assert_eq!((second.sync().await, second.core.journal.failures()), (Ok(()), 0));
}

#[tokio::test(start_paused = true)]
async fn what_came_of_calls_is_known_however_long_it_takes_to_go_on() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let unanswered = Call::new(7);
    let made = within(Some(unanswered.clone()), first.make(ROOT, name("dir"), new(NewNode::Dir))).await.unwrap();
    let left = first.kill();
    // The journal cannot be shipped for longer than answers are kept.
    cluster.meta.fault(|faults| faults.lose_replies = u32::MAX);
    let (waking, meta) = (Duration::from_secs(200), cluster.meta.clone());
    tokio::spawn(async move {
        tokio::time::sleep(waking).await;
        meta.fault(|faults| faults.lose_replies = 0);
    });
    let second = Process::start(&cluster, left).await;
    let again = call(7, second.make(ROOT, name("dir"), new(NewNode::Dir))).await;
    assert_eq!(again.map(|attr| attr.ino), Ok(made.ino));
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_told_by_the_next_if_nobody_was_told() {
    let cluster = Cluster::new();
    let first = first(&cluster).await;
    let (ino, handle) = create(&first, "f").await;
    first.sync().await.unwrap();
    write(&first, ino, handle, 0, b"lost").await;
    let left = first.kill();
    cluster.meta.expire_all();
    let second = Process::start(&cluster, left).await;
    let unanswered = Call::new(7);
    assert_eq!(within(Some(unanswered.clone()), second.fsync(ino, Some(handle))).await, Err(FsError::Io));
    let third = second.killed_and_followed(&cluster).await;
    assert_eq!(call(7, third.fsync(ino, Some(handle))).await, Err(FsError::Io), "the answer died with the second");
    assert_eq!(third.fsync(ino, Some(handle)).await, Ok(()));
    drop(unanswered);
}
