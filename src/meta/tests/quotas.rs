//! What sessions were promised of a volume's quotas, when others have need of it.

use super::*;
use crate::types::volume::{VolumeChange, VolumePolicy};

#[tokio::test]
async fn what_was_promised_comes_back_when_others_need_it() {
    let world = World::new().await;
    let policy = VolumePolicy { quota_inodes: 101, ..VolumePolicy::default() };
    world.ask(MetaRequest::CreateVolume(NewVolume { policy, ..NewVolume::named("small") })).await;
    let (a, b) = (world.session_of("small").await, world.session_of("small").await);
    let reserve = async |inodes| {
        let op = Op::Reserve { numbers: 0, upto: Allowance { inodes, bytes: 0 } };
        let MetaBody::Changed(BatchReply::Done(replies)) = a.change(op, Hold::default()).await.body else { panic!() };
        let [OpReply::Reserved { allowance, .. }] = replies[..] else { panic!("{replies:?}") };
        allowance.inodes
    };
    assert_eq!(reserve(500).await, 50);
    for n in 0..50 {
        b.create(&format!("{n}"), Hold::default()).await;
    }
    let mut events = a.events().await;
    let gives_back = async {
        assert_eq!(next(&mut events).await, Event::Spare);
        assert_eq!(reserve(7).await, 7);
    };
    let (refused, ()) = tokio::join!(b.change(create("more"), Hold::default()), gives_back);
    let promised = BatchReply::Failed { index: 0, error: FsError::Promised };
    assert_eq!(refused.body, MetaBody::Changed(promised));
    b.create("more", Hold::default()).await;
    assert_eq!(reserve(500).await, 7, "it is scarce");
    world.stop().await;
}

#[tokio::test]
async fn a_volume_that_is_to_shrink_has_what_was_promised_back() {
    let world = World::new().await;
    let a = world.session().await;
    let mut events = a.events().await;
    let reserve = async |inodes| {
        let upto = Allowance { inodes, bytes: 0 };
        a.change(Op::Reserve { numbers: 0, upto }, Hold::default()).await.body
    };
    reserve(500).await;
    let change = VolumeChange { quota_inodes: Some(100), ..VolumeChange::default() };
    let give_back = async {
        assert!(matches!(next(&mut events).await, Event::Spare));
        reserve(7).await
    };
    let set = world.ask(MetaRequest::ChangeVolume { name: "main".into(), change });
    let (set, _) = tokio::join!(set, give_back);
    let MetaBody::Volume(volume, usage) = set.body else { panic!("{:?}", set.body) };
    assert_eq!((volume.policy.quota_inodes, usage.inodes), (100, 1));
    world.stop().await;
}
