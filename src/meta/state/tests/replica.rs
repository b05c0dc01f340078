//! Replicas: determinism, dumps, damage.

use proptest::prelude::{any, proptest};

use super::random::commands;
use super::*;
use crate::kv::{Batch, Kv};

fn fresh() -> State {
    State::new(Arc::new(Memory::default()))
}

fn dump(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.dump(&mut bytes).unwrap();
    bytes
}

#[test]
fn batches_may_be_cut_anywhere() {
    let commands: Vec<_> = commands(7, 2000).iter().map(Command::encode).collect();
    let run = |sizes: &[usize]| {
        let state = fresh();
        let (mut rest, mut outcomes) = (commands.as_slice(), Vec::new());
        for size in sizes.iter().cycle() {
            let (batch, after) = rest.split_at((*size).min(rest.len()));
            outcomes.extend(state.apply(b"p", batch).unwrap());
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        (dump(&state), outcomes)
    };
    let one = run(&[1]);
    assert!(one == run(&[64]) && one == run(&[3, 17, 1, 200]), "replicas differ");
}

#[test]
fn a_dump_is_the_state() {
    let state = fresh();
    let commands: Vec<_> = commands(8, 500).iter().map(Command::encode).collect();
    state.apply(b"before", &commands).unwrap();
    let bytes = dump(&state);
    let copy = fresh();
    copy.apply(b"other", &[commands[0].clone()]).unwrap();
    copy.load(b"after", &mut bytes.as_slice()).unwrap();
    assert_eq!(
        (copy.position().unwrap(), state.position().unwrap()),
        (Some(b"after".to_vec()), Some(b"before".to_vec()))
    );
    assert!(dump(&copy) == bytes);
    assert!(copy.check().unwrap().is_empty());
}

#[test]
fn half_a_dump_leaves_an_empty_replica() {
    let state = fresh();
    state.apply(b"p", &commands(9, 50).iter().map(Command::encode).collect::<Vec<_>>()).unwrap();
    let bytes = dump(&state);
    for len in [0, 5, 8, 11, 40, bytes.len() / 2, bytes.len() - 1] {
        assert!(state.load(b"q", &mut &bytes[..len]).is_err());
        assert_eq!((state.position().unwrap(), state.damaged()), (None, true));
        assert!(state.apply(b"q", &[]).is_err(), "not before it is whole again");
    }
    state.load(b"q", &mut bytes.as_slice()).unwrap();
    assert!(!state.damaged() && dump(&state) == bytes);
}

#[test]
fn dumps_with_absurd_lengths_or_order_are_refused() {
    let state = fresh();
    let pair = |key: &[u8], value: &[u8]| {
        [&(key.len() as u32).to_le_bytes(), &(value.len() as u32).to_le_bytes(), key, value].concat()
    };
    let end = |pairs: u64| [0u32.to_le_bytes().as_slice(), &pairs.to_le_bytes()].concat();
    let stream = |parts: &[Vec<u8>]| [b"HFSTATE1".as_slice(), &parts.concat()].concat();
    let huge = [u32::MAX.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
    for bad in [
        b"NOTADUMP".to_vec(),
        stream(&[huge]),
        stream(&[pair(&[0], b"a position"), end(1)]),
        stream(&[pair(&[0xff, 1], b"an unknown table"), end(1)]),
        stream(&[pair(&[1, 2], b""), pair(&[1, 1], b""), end(2)]),
        stream(&[pair(&[1, 2], b""), end(2)]),
    ] {
        assert!(state.load(b"p", &mut bad.as_slice()).is_err());
    }
    state.load(b"p", &mut stream(&[pair(&[1, 2], b""), end(1)]).as_slice()).unwrap();
}

#[test]
fn what_is_no_command_is_answered_on_every_replica() {
    let state = fresh();
    let outcomes = state.apply(b"p", &[vec![], vec![1; 33], vec![0xff; 64]]).unwrap();
    for outcome in outcomes {
        assert_eq!(Outcome::decode(&outcome), Ok(Outcome::Error(FsError::Invalid)));
    }
    assert_eq!(state.position().unwrap(), Some(b"p".to_vec()));
}

#[test]
fn a_damaged_record_is_a_fault_of_this_replica() {
    let kv = Arc::new(Memory::default());
    let state = State::new(kv.clone());
    let commands: Vec<_> = commands(3, 50).iter().map(Command::encode).collect();
    state.apply(b"p", &commands).unwrap();
    let mut batch = Batch::default();
    batch.put(crate::meta::state::schema::inode_key(TreeId(1), ROOT), b"garbage");
    kv.write(batch).unwrap();
    assert!(state.view(|view| view.attr(TreeId(1), ROOT)).is_err());
    assert!(state.damaged() && state.apply(b"q", &[]).is_err());
    assert_eq!(state.position().unwrap(), Some(b"p".to_vec()));
}

proptest! {
    #[test]
    fn broken_commands_are_answered(seed in 0u64..50, flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut all: Vec<_> = commands(seed, 20).iter().map(Command::encode).collect();
        for bytes in &mut all {
            for (at, bits) in &flips {
                let at = at % bytes.len();
                bytes[at] ^= bits;
            }
        }
        let state = fresh();
        assert_eq!(state.apply(b"p", &all).unwrap().len(), all.len());
        assert!(state.check().unwrap().is_empty());
    }
}
