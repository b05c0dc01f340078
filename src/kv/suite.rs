//! What every engine must do. Each runs the same cases, and random ones against the engine in memory.

use std::thread;

use super::{Batch, Kv, Pair};

type Case = fn(&dyn Kv);
type Make<'a> = &'a dyn Fn() -> Box<dyn Kv>;

/// Runs every case on an empty store of its own.
pub fn run(make: Make) {
    let cases: &[(&str, Case)] = &[
        ("get, put, delete", puts_and_deletes),
        ("later changes of a batch win", later_changes_win),
        ("scans keep their bounds", scans_keep_bounds),
        ("the last pair and the count keep their bounds", last_and_count_keep_bounds),
        ("keys are ordered as unsigned bytes", orders_unsigned),
        ("empty keys and values are kept", keeps_empty_keys_and_values),
        ("large values are kept", keeps_large_values),
        ("a large batch is kept", keeps_large_batches),
        ("emptied ranges scan empty", emptied_ranges_scan_empty),
        ("a scan goes on beside writes", scans_beside_writes),
    ];
    for (name, case) in cases {
        println!("{name}");
        case(&*make());
    }
}

fn write(store: &dyn Kv, changes: &[(&[u8], Option<&[u8]>)]) {
    let mut batch = Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(*key, *value),
            None => batch.delete(*key),
        }
    }
    store.write(batch).unwrap();
}

fn scan(store: &dyn Kv, from: &[u8], to: Option<&[u8]>) -> Vec<Pair> {
    store.scan(from, to).collect::<Result<_, _>>().unwrap()
}

fn keys(store: &dyn Kv, from: &[u8], to: Option<&[u8]>) -> Vec<Vec<u8>> {
    scan(store, from, to).into_iter().map(|(key, _)| key).collect()
}

fn puts_and_deletes(store: &dyn Kv) {
    assert_eq!(store.get(b"a").unwrap(), None);
    write(store, &[(b"a", Some(b"1")), (b"b", Some(b"2"))]);
    assert_eq!(store.get(b"a").unwrap(), Some(b"1".to_vec()));
    write(store, &[(b"a", None), (b"b", Some(b"3")), (b"absent", None)]);
    assert_eq!(scan(store, b"", None), [(b"b".to_vec(), b"3".to_vec())]);
    store.write(Batch::default()).unwrap();
    store.flush().unwrap();
    assert_eq!(store.get(b"b").unwrap(), Some(b"3".to_vec()));
}

fn later_changes_win(store: &dyn Kv) {
    write(store, &[(b"k", Some(b"1")), (b"k", None), (b"k", Some(b"2")), (b"l", Some(b"1")), (b"l", None)]);
    assert_eq!(scan(store, b"", None), [(b"k".to_vec(), b"2".to_vec())]);
}

fn scans_keep_bounds(store: &dyn Kv) {
    write(store, &[(b"a", Some(b"")), (b"ab", Some(b"")), (b"b", Some(b"")), (b"ba", Some(b"")), (b"c", Some(b""))]);
    assert_eq!(keys(store, b"ab", Some(b"ba")), [b"ab".to_vec(), b"b".to_vec()]);
    assert_eq!(keys(store, b"a\0", Some(b"b")), [b"ab".to_vec()]);
    assert_eq!(keys(store, b"b", None), [b"b".to_vec(), b"ba".to_vec(), b"c".to_vec()]);
    assert_eq!(keys(store, b"b", Some(b"b")), Vec::<Vec<u8>>::new());
    assert_eq!(keys(store, b"c", Some(b"a")), Vec::<Vec<u8>>::new());
    assert_eq!(keys(store, b"d", None), Vec::<Vec<u8>>::new());
    assert_eq!(keys(store, b"", Some(b"")), Vec::<Vec<u8>>::new());
}

fn last_and_count_keep_bounds(store: &dyn Kv) {
    assert_eq!((store.last(b"", b"z").unwrap(), store.count(b"", b"z").unwrap()), (None, 0));
    for n in 0..1000_u32 {
        write(store, &[(&(n * 2).to_be_bytes(), Some(&n.to_be_bytes()))]);
    }
    for (from, to) in [(0, 1), (0, 2), (1, 2), (5, 900), (6, 901), (1998, 1999), (1999, 3000), (7, 7), (9, 3)] {
        let (low, high) = (u32::to_be_bytes(from), u32::to_be_bytes(to));
        let expected = scan(store, &low, Some(&high));
        assert_eq!(store.last(&low, &high).unwrap().as_ref(), expected.last(), "{from}..{to}");
        assert_eq!(store.count(&low, &high).unwrap(), expected.len(), "{from}..{to}");
    }
    for n in 300..700_u32 {
        write(store, &[(&(n * 2).to_be_bytes(), None)]);
    }
    let last = store.last(&0_u32.to_be_bytes(), &1200_u32.to_be_bytes()).unwrap().unwrap();
    assert_eq!(last.0, 598_u32.to_be_bytes());
    assert_eq!(store.last(&600_u32.to_be_bytes(), &1400_u32.to_be_bytes()).unwrap(), None);
}

fn orders_unsigned(store: &dyn Kv) {
    let mut written: Vec<Vec<u8>> = (0..=255_u8).flat_map(|n| [vec![n], vec![n, 0], vec![n, 0xff]]).collect();
    for key in written.iter().rev() {
        write(store, &[(key, Some(b"v"))]);
    }
    written.sort();
    assert_eq!(keys(store, b"", None), written);
}

fn keeps_empty_keys_and_values(store: &dyn Kv) {
    write(store, &[(b"", Some(b"")), (b"\0", Some(b""))]);
    assert_eq!(store.get(b"").unwrap(), Some(Vec::new()));
    assert_eq!(keys(store, b"", None), [Vec::new(), vec![0]]);
    write(store, &[(b"", None)]);
    assert_eq!(store.get(b"").unwrap(), None);
    assert_eq!(keys(store, b"", None), [vec![0]]);
}

fn keeps_large_values(store: &dyn Kv) {
    let value: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let key = vec![0x61; 4000];
    write(store, &[(&key, Some(&value)), (b"z", Some(b"end"))]);
    store.flush().unwrap();
    assert_eq!(store.get(&key).unwrap().as_deref(), Some(value.as_slice()));
    assert_eq!(scan(store, &key, Some(b"b")), [(key, value)]);
}

fn keeps_large_batches(store: &dyn Kv) {
    let mut batch = Batch::default();
    for n in (0..5000_u32).rev() {
        batch.put(n.to_be_bytes(), n.to_le_bytes());
    }
    store.write(batch).unwrap();
    let found = scan(store, &[], None);
    assert_eq!(found.len(), 5000);
    for (n, (key, value)) in (0_u32..).zip(&found) {
        assert_eq!((key.as_slice(), value.as_slice()), (&n.to_be_bytes()[..], &n.to_le_bytes()[..]));
    }
}

fn emptied_ranges_scan_empty(store: &dyn Kv) {
    for round in 0..3 {
        for n in 0..1000_u32 {
            write(store, &[(&n.to_be_bytes(), Some(&[round; 20]))]);
        }
        for n in 100..900_u32 {
            write(store, &[(&n.to_be_bytes(), None)]);
        }
        store.flush().unwrap();
        assert_eq!(keys(store, &100_u32.to_be_bytes(), Some(&900_u32.to_be_bytes())), Vec::<Vec<u8>>::new());
        assert_eq!(keys(store, b"", None).len(), 200);
    }
}

/// Keys that nobody touches are all seen, in order, however much is written between and beside them.
fn scans_beside_writes(store: &dyn Kv) {
    const KEPT: u32 = 2000;
    for n in 0..KEPT {
        write(store, &[(&(n * 2).to_be_bytes(), Some(b"kept"))]);
    }
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..3 * KEPT {
                let key = (n.wrapping_mul(7919) % KEPT * 2 + 1).to_be_bytes();
                write(store, &[(&key, if n % 3 == 0 { None } else { Some(b"passing") })]);
            }
        });
        while !writer.is_finished() {
            let mut kept = 0;
            let mut last = None;
            for pair in store.scan(b"", None) {
                let (key, value) = pair.unwrap();
                assert!(last.as_ref().is_none_or(|last| *last < key), "out of order");
                kept += u32::from(value == b"kept");
                last = Some(key);
            }
            assert_eq!(kept, KEPT);
        }
        writer.join().unwrap();
    });
}

/// Does the same random things to both and compares everything they can be asked.
pub fn compare(left: &dyn Kv, right: &dyn Kv, seed: u64) {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for step in 0..600 {
        let mut batch = Batch::default();
        for _ in 0..chance.below(12) {
            if chance.below(3) == 0 {
                batch.delete(chance.key());
            } else {
                batch.put(chance.key(), vec![step as u8; chance.below(300)]);
            }
        }
        left.write(batch.clone()).unwrap();
        right.write(batch).unwrap();
        if chance.below(40) == 0 {
            left.flush().unwrap();
            right.flush().unwrap();
        }
        let key = chance.key();
        assert_eq!(left.get(&key).unwrap(), right.get(&key).unwrap(), "seed {seed}, step {step}");
        let (from, to) = (chance.key(), chance.key());
        let to = (chance.below(4) != 0).then_some(to.as_slice());
        assert_eq!(scan(left, &from, to), scan(right, &from, to), "seed {seed}, step {step}");
        let to = to.unwrap_or(b"z");
        assert_eq!(left.last(&from, to).unwrap(), right.last(&from, to).unwrap(), "seed {seed}, step {step}");
        assert_eq!(left.count(&from, to).unwrap(), right.count(&from, to).unwrap(), "seed {seed}, step {step}");
    }
    assert_eq!(scan(left, b"", None), scan(right, b"", None), "seed {seed}");
}

/// Steps of [`churn`]; `HOLDFAST_CHURN_STEPS` has another number for a long look.
fn churn_steps() -> usize {
    std::env::var("HOLDFAST_CHURN_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(3_000)
}

/// Batches over many keys, some of whole ranges, so that leaves fill, split and empty; what is looked at is compared.
pub fn churn(left: &dyn Kv, right: &dyn Kv, seed: u64) {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for first in (0..CHURN_KEYS).step_by(500) {
        let mut batch = Batch::default();
        (first..first + 500).for_each(|number| batch.put(churn_key(number), vec![1; 40]));
        left.write(batch.clone()).unwrap();
        right.write(batch).unwrap();
    }
    for step in 0..churn_steps() {
        let mut batch = Batch::default();
        let (first, is_range) = (chance.below(CHURN_KEYS), chance.below(20) == 0);
        for n in 0..chance.below(if is_range { 600 } else { 12 }) {
            let number = if is_range { first + n } else { chance.below(CHURN_KEYS) };
            match chance.below(if is_range { 8 } else { 3 }) {
                0 => batch.put(churn_key(number), vec![step as u8; chance.below(300)]),
                _ if is_range => batch.delete(churn_key(number)),
                _ => batch.put(churn_key(number), step.to_be_bytes()),
            }
        }
        left.write(batch.clone()).unwrap();
        right.write(batch).unwrap();
        for _ in 0..4 {
            let key = churn_key(chance.below(CHURN_KEYS));
            assert_eq!(left.get(&key).unwrap(), right.get(&key).unwrap(), "seed {seed}, step {step}");
        }
        if step % 2_000 == 1_999 {
            assert_eq!(scan(left, b"", None), scan(right, b"", None), "seed {seed}, step {step}");
        }
    }
    assert_eq!(scan(left, b"", None), scan(right, b"", None), "seed {seed}");
}

pub fn are_equal(left: &dyn Kv, right: &dyn Kv) {
    assert_eq!(scan(left, b"", None), scan(right, b"", None));
}

/// Reads and flushes until it is done.
pub fn read_beside(store: &dyn Kv, seed: u64, is_done: impl Fn() -> bool) {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    while !is_done() {
        store.get(&churn_key(chance.below(CHURN_KEYS))).unwrap();
        if chance.below(50) == 0 {
            store.flush().unwrap();
        }
    }
}

/// sled keeps the last two leaves of each of 256 parts of its cache, however small that is: these fill several times as many.
const CHURN_KEYS: usize = 100_000;

fn churn_key(number: usize) -> Vec<u8> {
    [&b"key"[..], &(number as u32).to_be_bytes()].concat()
}

/// xorshift: enough chance for a test, and the same on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    /// Short keys over a small alphabet: neighbours, prefixes of one another, and repeats.
    fn key(&mut self) -> Vec<u8> {
        (0..self.below(5)).map(|_| [0, 1, b'a', b'b', 0xff][self.below(5)]).collect()
    }
}
