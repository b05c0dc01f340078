//! Stores, metadata servers, tokens.

use super::*;
use crate::types::api_key::{ApiKey, ApiRole};
use crate::types::cluster::{DiskInfo, StoreInfo};
use crate::types::id::{DiskId, MetaId, StoreId};
use crate::types::record::{ClientGrant, MetaInfo};

fn info(id: u64, address: &str, disks: &[u8]) -> StoreInfo {
    let disks = disks.iter().map(|n| DiskInfo { id: DiskId([*n; 16]), weight: 10 }).collect();
    StoreInfo { id: StoreId(id), address: address.into(), host: "h".into(), zone: String::new(), disks }
}

fn register(world: &mut World, info: StoreInfo) -> (u64, u64) {
    match world.apply(Command::RegisterStore { info }) {
        Outcome::Store { id, map_epoch } => (id.0, map_epoch),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_map_changes_when_a_store_does() {
    let mut world = World::new();
    assert_eq!(register(&mut world, info(0, "a:1", &[1])), (1, 1));
    assert_eq!(register(&mut world, info(1, "a:1", &[1])), (1, 1), "nothing new");
    assert_eq!(register(&mut world, info(0, "b:1", &[2])), (2, 2));
    assert_eq!(register(&mut world, info(0, "c:1", &[1])), (1, 3), "known by its disk");
    assert_eq!(register(&mut world, info(0, "b:1", &[2, 3])), (2, 4), "known by its address");
    assert_eq!(register(&mut world, info(9, "d:1", &[4])), (9, 5));
    assert_eq!(register(&mut world, info(0, "e:1", &[5])), (10, 6));
    let map = world.state.view(|view| view.map()).unwrap();
    assert_eq!(map.stores.iter().map(|store| store.id.0).collect::<Vec<_>>(), [1, 2, 9, 10]);
}

#[test]
fn a_disk_belongs_to_one_store() {
    let mut world = World::new();
    register(&mut world, info(1, "a:1", &[1]));
    let refused = world.apply(Command::RegisterStore { info: info(2, "b:1", &[1]) });
    assert!(matches!(refused, Outcome::Refused(sentence) if sentence.ends_with("belongs to store 1")));
}

#[test]
fn metadata_servers_are_numbered_and_remembered() {
    let mut world = World::new();
    let mut add = |id, address: &str| {
        let info = MetaInfo { id: MetaId(id), address: address.into() };
        world.apply(Command::AddMeta { info })
    };
    assert_eq!(add(1, "a:1"), Outcome::Meta(MetaId(1)));
    assert_eq!(add(0, "b:1"), Outcome::Meta(MetaId(2)));
    assert_eq!(add(1, "c:1"), Outcome::Meta(MetaId(1)));
    let metas = world.state.view(|view| view.metas()).unwrap();
    assert_eq!(metas.iter().map(|meta| meta.address.as_str()).collect::<Vec<_>>(), ["c:1", "b:1"]);
}

fn token(world: &mut World, hash: u8, role: Role, expires: i64) -> Outcome {
    let grant = ClientGrant { volumes: vec!["v".into()], read_only: true };
    world.apply(Command::CreateToken { hash: [hash; 32], role, grant, expires: Time { sec: expires, nsec: 0 } })
}

fn spend(world: &mut World, hash: u8, key: u8, role: Role) -> Outcome {
    let (address, now) = ("x:1".to_string(), world.now());
    world.apply(Command::UseToken { hash: [hash; 32], key: [key; 32], role, address, now })
}

#[test]
fn a_token_admits_one_joiner() {
    let mut world = World::new();
    assert_eq!(token(&mut world, 1, Role::Client, 5000), Outcome::Done);
    assert!(matches!(token(&mut world, 1, Role::Client, 5000), Outcome::Refused(_)));
    assert!(matches!(spend(&mut world, 1, 7, Role::Store), Outcome::Refused(_)));
    assert!(matches!(spend(&mut world, 2, 7, Role::Client), Outcome::Refused(_)));
    let first = spend(&mut world, 1, 7, Role::Client);
    assert!(matches!(&first, Outcome::Member { id: 1, grant } if grant.read_only));
    assert_eq!(spend(&mut world, 1, 7, Role::Client), first, "the same joiner asks again");
    assert!(matches!(spend(&mut world, 1, 8, Role::Client), Outcome::Refused(_)));
    let credential = world.state.view(|view| view.credential(Role::Client, 1)).unwrap().unwrap();
    assert_eq!((credential.grant.volumes, credential.address.as_str()), (vec!["v".to_string()], "x:1"));
    token(&mut world, 3, Role::Client, 5000);
    assert!(matches!(spend(&mut world, 3, 9, Role::Client), Outcome::Member { id: 2, .. }));
}

#[test]
fn tokens_expire_and_are_swept() {
    let mut world = World::new();
    let soon = world.seconds + 1;
    token(&mut world, 1, Role::Store, soon);
    token(&mut world, 2, Role::Store, 1 << 40);
    assert!(matches!(spend(&mut world, 1, 7, Role::Store), Outcome::Refused(_)));
    assert!(matches!(spend(&mut world, 2, 7, Role::Store), Outcome::Member { id: 1, .. }));
    assert!(world.state.view(|view| view.token(&[1; 32])).unwrap().is_none());
    assert!(world.state.view(|view| view.token(&[2; 32])).unwrap().is_some());
}

fn key(name: &str) -> ApiKey {
    let created = Time { sec: 1, nsec: 0 };
    ApiKey { name: name.into(), role: ApiRole::Viewer, volumes: vec![], created, expires: None }
}

#[test]
fn a_key_is_found_by_its_secret_and_taken_back_by_its_name() {
    let mut world = World::new();
    let create = |hash: u8, name: &str| Command::CreateApiKey { hash: [hash; 32], key: key(name) };
    assert_eq!(world.apply(create(1, "a")), Outcome::Done);
    assert_eq!(world.apply(create(1, "a")), Outcome::Done, "asked again");
    assert_eq!(world.apply(create(2, "a")), Outcome::Error(FsError::Exists));
    assert!(matches!(world.apply(create(1, "b")), Outcome::Refused(_)));
    assert!(matches!(world.apply(create(3, "no name")), Outcome::Refused(_)));
    assert_eq!(world.apply(create(2, "b")), Outcome::Done);
    let found = |world: &World, hash: u8| world.state.view(|view| view.api_key(&[hash; 32])).unwrap();
    assert_eq!((found(&world, 1), found(&world, 3)), (Some(key("a")), None));
    let delete = |name: &str| Command::DeleteApiKey { name: name.into() };
    assert_eq!(world.apply(delete("a")), Outcome::Done);
    assert_eq!(world.apply(delete("a")), Outcome::Error(FsError::NotFound));
    assert_eq!(found(&world, 1), None);
    assert_eq!(world.state.view(|view| view.api_keys()).unwrap(), [key("b")]);
    assert_eq!(world.apply(create(1, "a")), Outcome::Done);
}

#[test]
fn a_key_that_has_expired_gives_back_its_name() {
    let mut world = World::new();
    let at = |sec| Time { sec, nsec: 0 };
    let create = |hash: u8, created, expires| {
        let key = ApiKey { created, expires: Some(expires), ..key("a") };
        Command::CreateApiKey { hash: [hash; 32], key }
    };
    assert_eq!(world.apply(create(1, at(1), at(10))), Outcome::Done);
    assert_eq!(world.apply(create(2, at(9), at(20))), Outcome::Error(FsError::Exists));
    assert_eq!(world.apply(create(2, at(10), at(20))), Outcome::Done);
    assert_eq!(world.state.view(|view| view.api_keys()).unwrap().len(), 1);
}
