//! Transactions: reading one's own writes, merged scans, rolling back.

use std::collections::BTreeMap;

use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::Memory;
use crate::kv::{Batch, Kv};
use crate::meta::state::tx::{Tx, prefix_end};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Mark,
    RollBack,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..12u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        (0..12u8).prop_map(Step::Delete),
        proptest::prelude::Just(Step::Mark),
        proptest::prelude::Just(Step::RollBack),
    ]
}

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn scanned(tx: &Tx<'_>, from: u8, to: Option<u8>) -> Pairs {
    let all: Vec<_> =
        tx.scan(&[from], to.map(|to| [to]).as_ref().map(|to| to.as_slice())).map(Result::unwrap).collect();
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "out of order: {all:?}");
    all.into_iter().collect()
}

proptest! {
    #[test]
    fn a_transaction_is_a_map_laid_over_another(
        base in proptest::collection::btree_map(0..12u8, any::<u8>(), 0..12),
        steps in proptest::collection::vec(step(), 0..30),
        from in 0..12u8,
        to in 0..12u8,
    ) {
        let kv = Memory::default();
        let mut model: Pairs = base.into_iter().map(|(key, value)| (vec![key], vec![value])).collect();
        kv.write(Batch { changes: model.clone().into_iter().map(|(key, value)| (key, Some(value))).collect() }).unwrap();
        let mut tx = Tx::new(&kv);
        let mut marks = vec![(tx.mark(), model.clone())];
        for step in steps {
            match step {
                Step::Put(key, value) => {
                    tx.put_raw(vec![key], vec![value]);
                    model.insert(vec![key], vec![value]);
                }
                Step::Delete(key) => {
                    tx.delete(vec![key]);
                    model.remove(&vec![key]);
                }
                Step::Mark => marks.push((tx.mark(), model.clone())),
                Step::RollBack => {
                    let (mark, then) = if marks.len() > 1 { marks.pop().unwrap() } else { marks[0].clone() };
                    tx.roll_back(mark);
                    model = then;
                }
            }
            assert_eq!(scanned(&tx, 0, None), model);
        }
        let range: Pairs = if from < to {
            model.range(vec![from]..vec![to]).map(|(key, value)| (key.clone(), value.clone())).collect()
        } else {
            Pairs::new()
        };
        assert_eq!(scanned(&tx, from, Some(to)), range);
        let last = range.last_key_value().map(|(key, value)| (key.clone(), value.clone()));
        assert_eq!(tx.last(&[from], &[to]).unwrap(), last);
        assert_eq!(tx.count(&[from], &[to]).unwrap(), range.len());
        kv.write(tx.into_batch()).unwrap();
        assert_eq!(scanned(&Tx::new(&kv), 0, None), model);
    }
}

#[test]
fn prefixes_end_where_the_next_begins() {
    assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
    assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
    assert_eq!(prefix_end(&[0xff, 0xff]), None);
}
