//! How stores have answered lately, and so which replica of a chunk is asked first.
//!
//! Each chunk has a favourite among its replicas, which depends on the chunk and on the client: what one store has read from its disk
//! for a client it has in memory the next time, and all stores have about as much to do. The favourite is passed over only for one
//! that is expected to answer in less than half the time: the time that its last answers took, once for each call that is under
//! way and once for this one. So one nearby is asked before one far away, until it has more to do than the way takes; and noise changes
//! nothing. What is known of a store that was not asked for a while is forgotten: it may be nearer, or idle, by now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::types::id::StoreId;

/// A store that did not answer is asked last for this long.
const SHUN: Duration = Duration::from_secs(2);
/// What is known of how long a store takes is believed for this long.
const MEMORY: Duration = Duration::from_secs(10);
/// Below this, stores are alike: that is the work of this host, not the way.
const ALIKE: Duration = Duration::from_micros(200);
/// An answer counts for so much of what is expected of the next.
const WEIGHT: u32 = 8;

#[derive(Clone, Default)]
pub struct Standings {
    stores: Arc<Mutex<HashMap<StoreId, Standing>>>,
}

#[derive(Clone, Copy, Default)]
struct Standing {
    shunned_until: Option<Instant>,
    under_way: u32,
    took: Option<(Duration, Instant)>,
}

/// A call that is under way until this is dropped.
pub struct Asked {
    standings: Standings,
    store: StoreId,
    begun: Instant,
    ended: bool,
}

impl Standings {
    /// The store did not answer, or it did.
    pub fn judge(&self, store: StoreId, answered: bool, now: Instant) {
        let mut stores = self.stores.lock();
        stores.entry(store).or_default().shunned_until = (!answered).then(|| now + SHUN);
    }

    pub fn is_shunned(&self, store: StoreId, now: Instant) -> bool {
        let standing = self.stores.lock().get(&store).copied();
        standing.and_then(|standing| standing.shunned_until).is_some_and(|until| until > now)
    }

    /// A part of a chunk is asked for.
    pub fn begin(&self, store: StoreId, now: Instant) -> Asked {
        self.stores.lock().entry(store).or_default().under_way += 1;
        Asked { standings: self.clone(), store, begun: now, ended: false }
    }

    /// Puts the replica that is to be asked first to the front; the favourite is there already.
    pub fn choose(&self, replicas: &mut [StoreId], now: Instant) {
        let stores = self.stores.lock();
        let standings = replicas.iter().map(|store| stores.get(store).copied().unwrap_or_default());
        let standings: Vec<Standing> = standings.collect();
        // Of whom nothing is known the best is believed.
        let least = standings.iter().filter_map(|standing| standing.known(now)).min().unwrap_or_default();
        let expected = |standing: &Standing| {
            standing.known(now).unwrap_or(least).max(ALIKE) * standing.under_way.saturating_add(1)
        };
        let best = standings.iter().map(expected).enumerate().min_by_key(|(_, expected)| *expected);
        if let (Some((place, best)), Some(favourite)) = (best, standings.first())
            && expected(favourite) > best * 2
        {
            replicas.swap(0, place);
        }
    }
}

impl Standing {
    fn known(&self, now: Instant) -> Option<Duration> {
        self.took.filter(|(_, at)| now.saturating_duration_since(*at) < MEMORY).map(|(took, _)| took)
    }

    fn note(&mut self, took: Duration, now: Instant) {
        let smoothed = self.known(now).map_or(took, |known| known * (WEIGHT - 1) / WEIGHT + took / WEIGHT);
        self.took = Some((smoothed, now));
    }
}

impl Asked {
    /// It has ended; with an answer, or with an error, of which the time says nothing.
    pub fn end(mut self, answered: bool, now: Instant) {
        self.ended = true;
        if answered {
            let took = now.saturating_duration_since(self.begun);
            self.standings.stores.lock().entry(self.store).or_default().note(took, now);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut stores = self.standings.stores.lock();
        let standing = stores.entry(self.store).or_default();
        standing.under_way = standing.under_way.saturating_sub(1);
        // Nobody waited for it to the end: it takes longer than that.
        let (now, took) = (Instant::now(), self.begun.elapsed());
        if !self.ended && standing.known(now).is_none_or(|known| took > known) {
            standing.note(took, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: StoreId = StoreId(1);
    const FAR: StoreId = StoreId(2);
    const OTHER: StoreId = StoreId(3);

    fn answer(standings: &Standings, store: StoreId, took: Duration, now: Instant) {
        standings.begin(store, now).end(true, now + took);
    }

    fn first(standings: &Standings, mut replicas: [StoreId; 3], now: Instant) -> StoreId {
        standings.choose(&mut replicas, now);
        replicas[0]
    }

    #[test]
    fn one_nearby_is_asked_before_one_far_away_until_it_has_much_to_do() {
        let (standings, now) = (Standings::default(), Instant::now());
        let all = [FAR, NEAR, OTHER];
        assert_eq!(first(&standings, all, now), FAR, "nothing is known");
        answer(&standings, FAR, Duration::from_millis(20), now);
        answer(&standings, NEAR, Duration::from_millis(1), now);
        answer(&standings, OTHER, Duration::from_millis(30), now);
        assert_eq!(first(&standings, all, now), NEAR);
        let busy: Vec<Asked> = (0..10).map(|_| standings.begin(NEAR, now)).collect();
        assert_eq!(first(&standings, all, now), FAR, "eleven milliseconds are more than half of twenty");
        drop(busy);
    }

    #[test]
    fn noise_changes_nothing() {
        let (standings, now) = (Standings::default(), Instant::now());
        answer(&standings, FAR, Duration::from_micros(150), now);
        answer(&standings, NEAR, Duration::from_micros(40), now);
        assert_eq!(first(&standings, [FAR, NEAR, OTHER], now), FAR);
        answer(&standings, OTHER, Duration::from_micros(1500), now);
        answer(&standings, FAR, Duration::from_micros(5000), now);
        assert_eq!(first(&standings, [OTHER, FAR, NEAR], now), NEAR);
        assert_eq!(first(&standings, [FAR, OTHER, NEAR], now), NEAR);
    }

    #[test]
    fn what_was_slow_is_tried_again() {
        let (standings, now) = (Standings::default(), Instant::now());
        answer(&standings, FAR, Duration::from_millis(90), now);
        answer(&standings, NEAR, Duration::from_millis(1), now);
        assert_eq!(first(&standings, [FAR, NEAR, OTHER], now), NEAR);
        let later = now + MEMORY + Duration::from_millis(100);
        assert_eq!(first(&standings, [FAR, NEAR, OTHER], later), FAR);
    }

    #[test]
    fn who_was_given_up_on_is_slow() {
        let (standings, now) = (Standings::default(), Instant::now());
        answer(&standings, NEAR, Duration::from_millis(1), now);
        drop(standings.begin(FAR, now - Duration::from_millis(50)));
        assert_eq!(first(&standings, [FAR, NEAR, OTHER], Instant::now()), NEAR);
        assert_eq!(standings.stores.lock()[&FAR].under_way, 0);
    }

    #[test]
    fn who_does_not_answer_is_shunned_for_a_while() {
        let (standings, now) = (Standings::default(), Instant::now());
        standings.judge(FAR, false, now);
        assert!(standings.is_shunned(FAR, now) && !standings.is_shunned(FAR, now + SHUN));
        standings.judge(FAR, true, now);
        assert!(!standings.is_shunned(FAR, now));
    }
}
