use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

use super::{Place, Table, best_disk, replicas};
use crate::types::cluster::{ClusterMap, DiskInfo, StoreInfo};
use crate::types::digest::{ChunkId, SLOTS, Slot};
use crate::types::id::{DiskId, StoreId};
use crate::types::limits::REPLICAS_MAX;

fn disk(seed: u64, weight: u32) -> DiskInfo {
    let mut id = [0; 16];
    id.copy_from_slice(&ChunkId::of(&seed.to_le_bytes()).0[..16]);
    DiskInfo { id: DiskId(id), weight }
}

fn store(id: u64, host: &str, zone: &str, weights: &[u32]) -> StoreInfo {
    StoreInfo {
        id: StoreId(id),
        address: format!("{id}:1"),
        host: host.to_owned(),
        zone: zone.to_owned(),
        disks: weights.iter().enumerate().map(|(at, weight)| disk(id * 100 + at as u64, *weight)).collect(),
    }
}

fn map(stores: Vec<StoreInfo>) -> ClusterMap {
    ClusterMap { epoch: 1, stores }
}

/// Stores with one to three disks of weight 1 to 20, on few hosts in few zones.
fn maps() -> impl Strategy<Value = ClusterMap> {
    let one = (prop::collection::vec(1_u32..20, 1..4), 0_u8..5, 0_u8..3);
    prop::collection::vec(one, 1..9).prop_map(|stores| {
        let stores = stores.iter().enumerate().map(|(at, (weights, host, zone))| {
            store(at as u64 + 1, &format!("z{zone}h{host}"), &format!("z{zone}"), weights)
        });
        map(stores.collect())
    })
}

fn domains<'a>(map: &'a ClusterMap, places: &[Place]) -> Vec<(&'a str, &'a str)> {
    let of = |place: &Place| map.stores.iter().find(|store| store.id == place.store).unwrap();
    places.iter().map(|place| (of(place).host.as_str(), of(place).zone.as_str())).collect()
}

fn distinct<T: Ord>(items: impl IntoIterator<Item = T>) -> usize {
    items.into_iter().collect::<BTreeSet<_>>().len()
}

proptest! {
    #[test]
    fn copies_are_apart(map in maps(), slot in 0..SLOTS, copies in 1..=REPLICAS_MAX) {
        let places = replicas(&map, Slot(slot), copies);
        prop_assert_eq!(places.len(), map.stores.len().min(usize::from(copies)));
        prop_assert_eq!(distinct(places.iter().map(|place| place.store.0)), places.len());
        let hosts = distinct(map.stores.iter().map(|store| &store.host));
        let zones = distinct(map.stores.iter().map(|store| &store.zone));
        let chosen = domains(&map, &places);
        prop_assert_eq!(distinct(chosen.iter().map(|domain| domain.0)), hosts.min(places.len()));
        prop_assert_eq!(distinct(chosen.iter().map(|domain| domain.1)), zones.min(places.len()));
    }

    #[test]
    fn fewer_copies_are_a_prefix(map in maps(), slot in 0..SLOTS) {
        let all = replicas(&map, Slot(slot), u8::MAX);
        for copies in 0..=REPLICAS_MAX {
            let some = replicas(&map, Slot(slot), copies);
            prop_assert_eq!(&some[..], &all[..some.len()]);
        }
    }

    #[test]
    fn the_order_of_the_map_is_nothing(map in maps(), slot in 0..SLOTS) {
        let mut mirrored = map.clone();
        mirrored.stores.reverse();
        mirrored.stores.iter_mut().for_each(|store| store.disks.reverse());
        prop_assert_eq!(replicas(&map, Slot(slot), 3), replicas(&mirrored, Slot(slot), 3));
    }

    #[test]
    fn a_store_finds_its_own_disk(map in maps(), slot in 0..SLOTS) {
        for place in replicas(&map, Slot(slot), 7) {
            let store = map.stores.iter().find(|store| store.id == place.store).unwrap();
            prop_assert_eq!(best_disk(&store.disks, Slot(slot)), Some(place.disk));
        }
    }

    #[test]
    fn a_new_store_takes_and_nobody_else(
        weights in prop::collection::vec(1_u32..20, 1..10), new in 1_u32..20, seed in any::<u16>()
    ) {
        let stores = |weights: &[u32]| {
            let of = |(at, weight): (usize, &u32)| store(u64::from(seed) + at as u64 + 1, "", "", &[*weight]);
            map(weights.iter().enumerate().map(of).collect())
        };
        let before = stores(&weights);
        let after = stores(&[&weights[..], &[new]].concat());
        let added = after.stores.last().unwrap().id;
        for slot in (seed % 41..SLOTS).step_by(41) {
            let old = replicas(&before, Slot(slot), 3);
            let kept: Vec<Place> =
                replicas(&after, Slot(slot), 3).into_iter().filter(|place| place.store != added).collect();
            prop_assert_eq!(&kept[..], &old[..kept.len()]);
        }
    }

    #[test]
    fn a_new_disk_moves_at_most_one_copy(map in maps(), slot in 0..SLOTS, weight in 1_u32..20, host in 0_u8..5) {
        let mut grown = map.clone();
        grown.stores.push(store(77, &format!("z1h{host}"), "z1", &[weight]));
        let old = replicas(&map, Slot(slot), 3);
        let lost = old.iter().filter(|place| !replicas(&grown, Slot(slot), 3).contains(place)).count();
        prop_assert!(lost <= 1, "{lost} copies moved");
    }
}

#[test]
fn weights_are_honoured() {
    let map = map(vec![store(1, "", "", &[1]), store(2, "", "", &[2]), store(3, "", "", &[3, 4])]);
    let mut taken = BTreeMap::new();
    for slot in 0..SLOTS {
        *taken.entry(replicas(&map, Slot(slot), 1)[0].disk).or_insert(0_u32) += 1;
    }
    for info in map.stores.iter().flat_map(|store| &store.disks) {
        let expected = f64::from(SLOTS) * f64::from(info.weight) / 10.0;
        let got = f64::from(taken[&info.id]);
        // Five standard deviations of a binomial draw; the draw is fixed, so this holds or does not.
        assert!((got - expected).abs() < 5.0 * expected.sqrt(), "weight {}: {got} of {expected}", info.weight);
    }
}

#[test]
fn a_new_disk_takes_about_its_share() {
    let before = map((1..=9).map(|id| store(id, "", "", &[10])).collect());
    let after = map((1..=10).map(|id| store(id, "", "", &[10])).collect());
    let taken = (0..SLOTS).filter(|slot| replicas(&after, Slot(*slot), 1) != replicas(&before, Slot(*slot), 1)).count();
    assert!((70..=140).contains(&taken), "{taken} of {SLOTS} slots moved, a tenth was due");
}

#[test]
fn weight_zero_takes_nothing() {
    let map = map(vec![store(1, "", "", &[0]), store(2, "", "", &[1, 0])]);
    for slot in 0..SLOTS {
        let places = replicas(&map, Slot(slot), 3);
        assert_eq!(places, [Place { store: StoreId(2), disk: map.stores[1].disks[0].id }]);
    }
}

#[test]
fn tables_say_the_same() {
    let map = map((1..=9).map(|id| store(id, &format!("h{}", id / 2), "", &[id as u32, 3])).collect());
    let table = Table::new(map.clone());
    let id = ChunkId::of(b"somewhere");
    assert_eq!(table.replicas_of(&id, 3), replicas(&map, id.slot(), 3));
    assert_eq!(table.ranking_of(&id).len(), 9);
    assert_eq!(table.ranking_of(&id)[0], table.replicas_of(&id, 1)[0].store);
    let mine: Vec<Slot> = table.slots_of(StoreId(4), 3).collect();
    assert!(mine.iter().all(|slot| table.replicas(*slot, 3).iter().any(|place| place.store == StoreId(4))));
    let everybody: usize = (1..=9).map(|id| table.slots_of(StoreId(id), 3).count()).sum();
    assert_eq!(everybody, 3 * usize::from(SLOTS));
    assert!(Table::default().replicas(Slot(9), 3).is_empty());
}
