//! Offering the leader what may be garbage that it has never heard of: chunks that were put, and whose writer was gone
//! or refused before anything referred to them.
//!
//! A store does not know what is referred to. So it goes through all chunks of the slots that are its first of all
//! stores', a page at a time and slowly, and names those that were put long ago; the leader condemns which it does not
//! know. In memory is one page. A page that was not heard is read and offered again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::placement::Table;
use crate::store::Store;
use crate::types::digest::{ChunkId, Slot};
use crate::types::limits::OFFER_CHUNKS_MAX;
use crate::wire::store::StoreError;

use super::WorkerOptions;

/// Where a pass through the chunks goes on: in this slot, after this chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    slot: u16,
    after: Option<ChunkId>,
}

pub(super) struct Offering {
    store: Arc<Store>,
    pace: Duration,
    rest: Duration,
    next: Cursor,
    due: Instant,
    /// Chunks were met in this pass that are not old enough.
    young: bool,
    /// What was old when the pass before this one ended.
    old_before: u64,
}

/// A part of a pass.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Put before the epoch that was asked for.
    pub old: Vec<ChunkId>,
    /// The pass ends here, and it would have offered more had the epoch gone on since the one before.
    pub aging: bool,
    young: bool,
    old_before: u64,
    next: Option<Cursor>,
}

impl Offering {
    pub fn new(store: Arc<Store>, options: &WorkerOptions) -> Offering {
        let (pace, rest) = (options.offer, options.offer_rest);
        let due = Instant::now() + pace;
        Offering { store, pace, rest, next: Cursor::default(), due, young: false, old_before: 0 }
    }

    /// The next page, when it is time for it.
    pub async fn page(&self, old_before: u64) -> Option<Page> {
        if Instant::now() < self.due {
            return None;
        }
        let (store, next) = (Arc::clone(&self.store), self.next);
        let read = tokio::task::spawn_blocking(move || {
            let table = Arc::clone(&store.table().borrow());
            read_page(&store, &table, next, old_before)
        });
        match read.await.ok()? {
            // One epoch for all stores is enough: whoever finds that it has gone on asks for none.
            Ok(page) => {
                let aging = page.next.is_none() && (self.young || page.young) && old_before == self.old_before;
                Some(Page { aging, ..page })
            }
            Err(error) => {
                tracing::debug!(%error, "no chunks are offered");
                None
            }
        }
    }

    /// The leader has heard of a page, or did not have to.
    pub fn turn(&mut self, page: &Page) {
        self.young |= page.young;
        let pause = match page.next {
            Some(next) => {
                self.next = next;
                self.pace
            }
            None => {
                (self.next, self.young, self.old_before) = (Cursor::default(), false, page.old_before);
                self.rest
            }
        };
        self.due = Instant::now() + pause;
    }
}

/// Looks at so many chunks as one page may have, from `from` on.
fn read_page(store: &Store, table: &Table, from: Cursor, old_before: u64) -> Result<Page, StoreError> {
    let mut page = Page { old_before, ..Page::default() };
    let mut room = OFFER_CHUNKS_MAX;
    for Slot(slot) in table.slots_of(store.config().store, 1).filter(|slot| slot.0 >= from.slot) {
        let mut after = from.after.filter(|_| slot == from.slot);
        loop {
            if room == 0 {
                page.next = Some(Cursor { slot, after });
                return Ok(page);
            }
            let listed = store.list(Slot(slot), after.as_ref(), room)?;
            let Some((last, _)) = listed.last() else { break };
            after = Some(*last);
            room -= listed.len();
            for (id, put_epoch) in listed {
                if put_epoch < old_before {
                    page.old.push(id);
                } else {
                    page.young = true;
                }
            }
        }
    }
    Ok(page)
}
