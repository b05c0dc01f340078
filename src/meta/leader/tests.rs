use super::*;

const TREE: TreeId = TreeId(1);
const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const INO: Ino = Ino(9);
const WRITE: Hold = Hold { lease: Lease::Write, open: true };

async fn recalled(events: &mut mpsc::UnboundedReceiver<Event>) -> (Ino, Lease, u64) {
    loop {
        match events.recv().await {
            Some(Event::Recall { ino, keep, grant }) => return (ino, keep, grant),
            Some(Event::Look { ino, grant, .. }) => return (ino, Lease::Read, grant),
            Some(Event::Hello { .. } | Event::Spare) => {}
            None => panic!("the stream ended"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_the_holder_and_then_goes_on() {
    let leader = Leader::new(1, []);
    leader.add_session(A, TREE);
    leader.add_session(B, TREE);
    let mut events = leader.subscribe(A).expect("alive");
    leader.grant(A, key(TREE, INO), WRITE).expect("free");
    let change = leader.begin_change(B, vec![key(TREE, INO)]);
    let answer = async {
        let (ino, keep, grant) = recalled(&mut events).await;
        let hold = Hold { lease: keep, open: true };
        leader.yielded(A, &[Claim { ino, hold, grant }], &[]).expect("alive");
    };
    let (guard, ()) = tokio::join!(change, answer);
    drop(guard.expect("went on"));
    let granted = leader.grant(A, key(TREE, INO), Hold { lease: Lease::Read, open: true });
    assert_eq!(granted.map(|claim| claim.hold), Some(Hold { lease: Lease::None, open: true }), "quiet time");
}

#[tokio::test(start_paused = true)]
async fn recalls_survive_a_lost_stream() {
    let leader = Leader::new(1, []);
    leader.add_session(A, TREE);
    leader.add_session(B, TREE);
    leader.grant(A, key(TREE, INO), WRITE).expect("free");
    let read = leader.before_read(B, key(TREE, INO));
    let answer = async {
        let mut events = leader.subscribe(A).expect("alive");
        let (ino, keep, grant) = recalled(&mut events).await;
        assert_eq!(keep, Lease::Read);
        leader.yielded(A, &[Claim { ino, hold: Hold { lease: keep, open: true }, grant }], &[]).expect("alive");
    };
    let (read, ()) = tokio::join!(read, answer);
    read.expect("went on");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_answers_becomes_overdue_and_stands_in_nobodys_way() {
    let leader = Leader::new(1, []);
    leader.add_session(A, TREE);
    leader.add_session(B, TREE);
    leader.grant(A, key(TREE, INO), WRITE).expect("free");
    let expire = async {
        let mut confirmed = tokio::time::Instant::now();
        while leader.overdue() != [A] {
            leader.confirm(B, Vitals::default()).expect("alive");
            if leader.confirm(A, Vitals::default()).is_ok() {
                confirmed = tokio::time::Instant::now();
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert!(confirmed.elapsed() > Duration::from_millis(SESSION_TTL_MS), "it may go by its leases until then");
        leader.drop_session(A);
    };
    let (guard, ()) = tokio::join!(leader.begin_change(B, vec![key(TREE, INO)]), expire);
    assert!(guard.is_ok());
}

/// It has more to store than twelve seconds are enough for, over a slow line.
#[tokio::test(start_paused = true)]
async fn a_client_that_stores_what_it_has_to_is_waited_for() {
    let leader = Leader::new(1, []);
    leader.add_session(A, TREE);
    leader.add_session(B, TREE);
    let claim = leader.grant(A, key(TREE, INO), WRITE).expect("free");
    let store = async {
        for stored_bytes in 0..40 {
            let alive = leader.confirm(A, Vitals { stored_bytes, ..Vitals::default() });
            assert_eq!(alive, Ok(()), "after {stored_bytes} s");
            leader.confirm(B, Vitals::default()).expect("alive");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        leader.yielded(A, &[Claim { hold: Hold::default(), ..claim }], &[]).expect("alive");
    };
    let (guard, ()) = tokio::join!(leader.begin_change(B, vec![key(TREE, INO)]), store);
    drop(guard.expect("went on"));

    // But not for ever.
    leader.add_session(A, TREE);
    leader.grant(A, key(TREE, Ino(10)), WRITE).expect("free");
    let begun = Instant::now();
    let store_on = async {
        let mut stored_bytes = 100;
        while leader.confirm(A, Vitals { stored_bytes, ..Vitals::default() }).is_ok() {
            stored_bytes += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        _ = leader.begin_change(B, vec![key(TREE, Ino(10))]) => panic!("nobody answered"),
        () = store_on => assert!((60..75).contains(&begun.elapsed().as_secs())),
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_grants_nothing_until_all_have_reclaimed() {
    let leader = Leader::new(2, [(A, TREE), (B, TREE)]);
    assert!(leader.grant(A, key(TREE, INO), WRITE).is_none());
    let claim = Claim { ino: INO, hold: WRITE, grant: 77 };
    assert_eq!(leader.reclaim(A, &[claim], false).expect("alive")[0].hold, WRITE);
    leader.reclaim(B, &[], true).expect("alive");
    assert!(!leader.is_settled(), "there is more to come");
    let other = Claim { ino: Ino(10), ..claim };
    assert_eq!(leader.reclaim(A, &[other], true).expect("alive")[0].hold, WRITE);
    leader.settled().await.expect("settled");
    assert!(leader.grant(B, key(TREE, Ino(10)), WRITE).is_some_and(|claim| claim.hold.lease == Lease::None));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_granted_to_who_was_dropped_while_it_waited() {
    let leader = Leader::new(1, []);
    leader.add_session(A, TREE);
    leader.add_session(B, TREE);
    leader.grant(A, key(TREE, INO), WRITE).expect("free");
    let read = async {
        leader.before_read(B, key(TREE, INO)).await.expect("went on");
        leader.acquire(B, key(TREE, INO), WRITE).await
    };
    let drop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        leader.drop_session(B);
        leader.drop_session(A);
    };
    let (granted, ()) = tokio::join!(read, drop);
    assert_eq!(granted, Ok(None));
    assert!(leader.grant_made(B, &[key(TREE, INO)]).is_empty());
    leader.add_session(A, TREE);
    leader.begin_change(A, vec![key(TREE, INO)]).await.expect("nobody is in the way");
}

#[tokio::test(start_paused = true)]
async fn who_beats_and_never_reclaims_stands_in_nobodys_way() {
    let leader = Leader::new(2, [(A, TREE), (B, TREE)]);
    leader.reclaim(A, &[], true).expect("alive");
    leader.reclaim(B, &[Claim { ino: INO, hold: WRITE, grant: 77 }], false).expect("alive");
    for _ in 0..20 {
        assert!(leader.overdue().is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        leader.confirm(A, Vitals::default()).expect("alive");
        leader.confirm(B, Vitals::default()).expect("alive");
    }
    for _ in 0..10 {
        tokio::time::advance(Duration::from_millis(1_001)).await;
        leader.confirm(A, Vitals::default()).expect("alive");
        assert_eq!(leader.confirm(B, Vitals::default()), Err(FsError::SessionExpired));
    }
    assert_eq!(leader.overdue(), [B]);
    leader.drop_session(B);
    leader.settled().await.expect("settled");
    assert!(leader.grant(A, key(TREE, Ino(10)), WRITE).is_some());
}

/// Who gives it back and who takes it next are not the same, and whoever waits for it to be unowned waits for both.
#[tokio::test(start_paused = true)]
async fn what_is_taken_while_it_comes_down_is_taken_down_again() {
    let leader = Leader::new(1, []);
    let (c, place) = (SessionId(3), key(TREE, INO));
    [A, B, c].into_iter().for_each(|session| leader.add_session(session, TREE));
    let (mut of_a, mut of_b) = (leader.subscribe(A).expect("alive"), leader.subscribe(B).expect("alive"));
    leader.grant(A, place, WRITE).expect("free");
    let gives = async {
        let (ino, _, grant) = recalled(&mut of_a).await;
        leader.yielded(A, &[Claim { ino, hold: Hold::default(), grant }], &[]).expect("alive");
        let taken = leader.begin_take(B, vec![place]).await.expect("alive").grant();
        assert_eq!(taken.len(), 1);
        let (ino, keep, grant) = recalled(&mut of_b).await;
        leader.yielded(B, &[Claim { ino, hold: Hold { lease: keep, open: false }, grant }], &[]).expect("alive");
    };
    let both = async { tokio::join!(leader.take_down(c, place), gives).0 };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("not for ever").expect("went on");
}
