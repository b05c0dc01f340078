//! A volume that goes to whoever asks last.

use super::*;
use crate::types::volume::{Access, VolumePolicy};

#[tokio::test]
async fn who_had_it_hears_so_and_who_asked_gets_it() {
    let world = World::new().await;
    let policy = VolumePolicy { access: Access::Fenced, ..VolumePolicy::default() };
    world.ask(MetaRequest::CreateVolume(NewVolume { policy, ..NewVolume::named("one") })).await;
    let open = async |after, attempt| {
        let (volume, client) = ("one".into(), "test".into());
        world.ask(MetaRequest::OpenSession { volume, client, read_only: false, after, attempt }).await.body
    };
    let beat = async |session| world.ask(MetaRequest::Heartbeat { session, vitals: Vitals::default() }).await.body;
    let MetaBody::Session(first) = open(None, 1).await else { panic!("it is free") };
    assert!(matches!(beat(first.session).await, MetaBody::Heartbeat(_)));

    assert_eq!(open(None, 2).await, MetaBody::Error(FsError::InUse), "nobody else has it before it is over");
    assert_eq!(beat(first.session).await, MetaBody::Error(FsError::SessionExpired));
    assert_eq!(open(Some(first.session), 3).await, MetaBody::Error(FsError::TakenOver));
    world.ask(MetaRequest::CloseSession { session: first.session }).await;
    let MetaBody::Session(second) = open(None, 2).await else { panic!("it is free") };
    assert!(matches!(beat(second.session).await, MetaBody::Heartbeat(_)));
    world.stop().await;
}
