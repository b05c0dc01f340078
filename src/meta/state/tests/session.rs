//! Sessions and exactly-once.

use super::*;
use crate::meta::state::schema::{Table, numbers};
use crate::meta::state::tx::Tx;
use crate::types::volume::{Access, VolumePolicy};

fn replies(world: &World, session: SessionId) -> usize {
    let tx = Tx::new(&world.state.kv);
    tx.keys(&numbers(Table::Reply, &[session.0]), usize::MAX).unwrap().len()
}

fn made(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Changed(BatchReply::Done(_)))
}

#[test]
fn a_retried_command_happens_once() {
    let mut world = World::new();
    let op = vec![create(ROOT, "f", NewNode::File, 0o600)];
    let first = world.change(world.session, 7, 0, op.clone());
    assert!(made(&first));
    assert_eq!(world.change(world.session, 7, 0, op.clone()), first);
    let failed = world.change(world.session, 8, 0, op.clone());
    world.unlink(ROOT, "f").unwrap();
    assert_eq!(world.change(world.session, 8, 0, op), failed);
}

#[test]
fn acknowledged_sequences_are_trimmed_and_refused() {
    let mut world = World::new();
    let session = world.open("other", false);
    for sequence in 1..=200 {
        assert!(made(&world.change(
            session,
            sequence,
            0,
            vec![create(ROOT, &format!("f{sequence}"), NewNode::File, 0)]
        )));
    }
    assert_eq!(replies(&world, session), 200);
    let touch = || vec![Op::TouchAtime { ino: ROOT, was: Time::default(), atime: Time::default() }];
    assert!(made(&world.change(session, 201, 201, touch())));
    assert_eq!(replies(&world, session), 201 - 63, "trimming is bounded");
    assert_eq!(world.change(session, 150, 0, touch()), Outcome::Error(FsError::Stale));
    for sequence in 202..206 {
        world.change(session, sequence, 201, touch());
    }
    assert_eq!(replies(&world, session), 5);
}

#[test]
fn sequences_may_start_anywhere_but_not_run_ahead() {
    let mut world = World::new();
    let session = world.open("other", false);
    let far = 1 << 60;
    assert!(made(&world.change(session, far, far, Vec::new())));
    assert_eq!(world.change(session, far + (1 << 21), far, Vec::new()), Outcome::Error(FsError::Invalid));
    assert!(made(&world.change(session, far + 1, far + 99, Vec::new())));
    assert!(made(&world.change(session, far + 1, 0, Vec::new())));
}

#[test]
fn ended_sessions_are_refused_and_their_ids_not_used_again() {
    let mut world = World::new();
    let session = world.open("other", false);
    world.change(session, 1, 0, Vec::new());
    assert_eq!(world.apply(Command::ExpireSession { session }), Outcome::Done);
    assert_eq!(world.apply(Command::CloseSession { session }), Outcome::Done);
    assert_eq!(world.change(session, 1, 0, Vec::new()), Outcome::Error(FsError::SessionExpired));
    assert_eq!((replies(&world, session), world.session_record(session)), (0, None));
    assert!(world.open("other", false) > session);
}

#[test]
fn read_only_sessions_change_nothing() {
    let mut world = World::new();
    let session = world.open("reader", true);
    let outcome = world.change(session, 1, 0, vec![create(ROOT, "f", NewNode::File, 0)]);
    assert_eq!(outcome, Outcome::Changed(BatchReply::Failed { index: 0, error: FsError::ReadOnly }));
    assert!(made(&world.change(session, 2, 0, vec![Op::UnlockOwner { ino: ROOT, owner: 1 }])));
}

#[test]
fn sessions_need_a_volume() {
    let mut world = World::new();
    assert_eq!(world.open_after("none", "", false, None), Outcome::Error(FsError::NotFound));
    let sessions = world.state.view(|view| view.sessions()).unwrap();
    assert_eq!(sessions.iter().map(|session| session.client.as_str()).collect::<Vec<_>>(), ["host"]);
}

#[test]
fn a_volume_for_one_host_has_one_at_a_time() {
    let mut world = World::new();
    let policy = VolumePolicy { access: Access::One, ..VolumePolicy::default() };
    let now = world.now();
    world.apply(Command::CreateVolume { volume: NewVolume { policy, ..NewVolume::named("one") }, now });
    let opened = |outcome| match outcome {
        Outcome::Session { session, .. } => session,
        other => panic!("{other:?}"),
    };
    let first = opened(world.open_after("one", "a", false, None));
    assert_eq!(world.open_after("one", "b", true, None), Outcome::Error(FsError::InUse));
    assert_eq!(world.open_after("one", "a", false, Some(first)), Outcome::Error(FsError::InUse));

    // It goes on from a session that has expired, if that was the last.
    world.apply(Command::ExpireSession { session: first });
    let second = opened(world.open_after("one", "a", false, Some(first)));
    world.apply(Command::ExpireSession { session: second });
    let third = opened(world.open_after("one", "b", false, None));
    assert_eq!(world.open_after("one", "a", false, Some(second)), Outcome::Error(FsError::TakenOver));
    world.apply(Command::CloseSession { session: third });
    assert_eq!(world.open_after("one", "a", false, Some(second)), Outcome::Error(FsError::TakenOver));
    opened(world.open_after("one", "a", false, None));
}

#[test]
fn a_fenced_volume_goes_to_who_asked_last() {
    let mut world = World::new();
    let policy = VolumePolicy { access: Access::Fenced, ..VolumePolicy::default() };
    let now = world.now();
    world.apply(Command::CreateVolume { volume: NewVolume { policy, ..NewVolume::named("one") }, now });
    let opened = |outcome| match outcome {
        Outcome::Session { session, .. } => session,
        other => panic!("{other:?}"),
    };
    let first = opened(world.attempt("one", "a", false, None, 1));
    let fenced = Outcome::Fenced { session: first };
    assert_eq!(world.attempt("one", "b", false, None, 2), fenced);
    assert!(world.state.view(|view| view.session(first)).is_ok(), "it lives as long as it was told");

    // It is shut out whether it comes back before its session has ended or after.
    assert_eq!(world.attempt("one", "a", false, Some(first), 3), Outcome::Error(FsError::TakenOver));
    assert_eq!(world.attempt("one", "b", false, None, 2), fenced);
    world.apply(Command::CloseSession { session: first });
    assert_eq!(world.attempt("one", "a", false, Some(first), 3), Outcome::Error(FsError::TakenOver));

    // Who goes on from a session of its own shuts out nobody.
    let second = opened(world.attempt("one", "b", false, None, 2));
    assert_eq!(opened(world.attempt("one", "b", false, None, 2)), second);
    assert_eq!(world.attempt("one", "b", false, Some(second), 4), Outcome::Error(FsError::InUse));
    world.apply(Command::ExpireSession { session: second });
    opened(world.attempt("one", "b", false, Some(second), 4));
}

#[test]
fn a_volume_for_one_host_is_opened_once_however_often_it_is_asked() {
    let mut world = World::new();
    let policy = VolumePolicy { access: Access::One, ..VolumePolicy::default() };
    let now = world.now();
    world.apply(Command::CreateVolume { volume: NewVolume { policy, ..NewVolume::named("one") }, now });
    let first = world.attempt("one", "a", false, None, 7);
    assert!(matches!(first, Outcome::Session { .. }));
    assert_eq!(world.attempt("one", "a", false, None, 7), first);
    let Outcome::Session { session, .. } = first else { unreachable!() };
    world.apply(Command::ExpireSession { session });
    // The answer is lost, and so is the session that nobody knew of.
    let second = world.attempt("one", "a", false, Some(session), 8);
    assert_eq!(world.attempt("one", "a", false, Some(session), 8), second);
    let Outcome::Session { session: unknown, .. } = second else { panic!("{second:?}") };
    world.apply(Command::ExpireSession { session: unknown });
    assert!(matches!(world.attempt("one", "a", false, Some(session), 8), Outcome::Session { .. }));
    assert_eq!(world.attempt("one", "b", false, Some(session), 9), Outcome::Error(FsError::TakenOver));
}

#[test]
fn a_batch_that_is_too_long_is_refused() {
    let mut world = World::new();
    let reply = world.batch(vec![Op::UnlockOwner { ino: ROOT, owner: 1 }; 1025]);
    assert_eq!(reply, BatchReply::Failed { index: 0, error: FsError::Invalid });
}
