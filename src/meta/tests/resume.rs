//! A session that another process goes on with.

use super::*;

#[tokio::test]
async fn the_next_process_is_told_what_is_held() {
    let world = World::new().await;
    let a = world.session().await;
    let write = Hold { lease: Lease::Write, open: true };
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(a.create(&format!("{n}"), write).await.0);
    }
    let resume = MetaRequest::ResumeSession { session: a.session };
    let MetaBody::Session(opened) = world.ask(resume.clone()).await.body else { panic!("it is there") };
    assert_eq!((opened.session, opened.volume.name.as_str(), opened.read_only), (a.session, "main", false));

    let holdings = async |after| {
        let MetaBody::Holdings { term, claims, end } =
            world.ask(MetaRequest::Holdings { session: a.session, after }).await.body
        else {
            panic!("it is there")
        };
        assert_eq!((term, end), (opened.heartbeat.term, true));
        claims.into_iter().filter(|claim| claim.hold == write).map(|claim| claim.ino).collect::<Vec<_>>()
    };
    assert_eq!(holdings(Ino(0)).await, made);
    assert_eq!(holdings(made[2]).await, made[3..]);

    // It is its owner's alone, and over when it is over.
    let namesake = Peer { role: Role::Client, ..ADMIN };
    assert_eq!(world.ask_as(namesake, resume.clone()).await.body, MetaBody::Error(FsError::SessionExpired));
    world.ask(MetaRequest::CloseSession { session: a.session }).await;
    assert_eq!(world.ask(resume).await.body, MetaBody::Error(FsError::SessionExpired));
    world.stop().await;
}
