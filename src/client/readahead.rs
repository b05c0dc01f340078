//! Reading ahead of a reader who goes straight on.
//!
//! A handle whose reads follow one another gets a window that doubles up to [`WINDOW_BYTES_MAX`]; whole chunks within it
//! are fetched before they are asked for. A read elsewhere closes the window, and then only what is asked for is fetched.

use std::sync::Arc;

use super::core::Core;
use super::inode::Node;
use crate::types::extent::Source;

const WINDOW_BYTES_MIN: u64 = 1 << 20;
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// One handle's reading.
#[derive(Debug, Default)]
pub struct Stream {
    next: u64,
    streak: u32,
    window_bytes: u64,
    ahead: u64,
}

impl Stream {
    /// Whether a read goes on where the last ones were, or begins at the beginning.
    pub fn is_straight(&self, offset: u64, len: u64) -> bool {
        // Several readers of one handle, and the kernel's own threads, arrive a little out of order.
        let near = offset <= self.next + 2 * len && offset + 2 * len >= self.next;
        near && (self.next > 0 || offset == 0)
    }

    /// Notes a read. Returns the range to fetch ahead, when there is one.
    pub fn note(&mut self, offset: u64, len: u64) -> Option<(u64, u64)> {
        let end = offset.saturating_add(len);
        if !self.is_straight(offset, len) {
            *self = Stream { next: end, ..Stream::default() };
            return None;
        }
        self.next = self.next.max(end);
        self.streak = self.streak.saturating_add(1);
        if self.streak < 2 {
            return None;
        }
        let target = end.saturating_add(self.window_bytes.max(WINDOW_BYTES_MIN));
        // Topped up when half of it is used, so that one request covers several reads.
        if self.ahead >= end.saturating_add(self.window_bytes / 2) && self.ahead > end {
            return None;
        }
        let from = self.ahead.max(end);
        self.window_bytes = (self.window_bytes * 2).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        self.ahead = target.max(from);
        (from < self.ahead).then_some((from, self.ahead))
    }
}

impl Core {
    /// Begins to fetch the chunks of a range whose extents are known.
    pub fn read_ahead(&self, node: &Arc<Node>, from: u64, to: u64) {
        let parts = {
            let state = node.lock();
            let Some(size) = state.size().filter(|_| state.leased(&self.life)) else { return };
            let mut parts = Vec::new();
            let to = to.min(size);
            for block in from / self.block_bytes..to.div_ceil(self.block_bytes) {
                for extent in state.extents.block(block).unwrap_or_default() {
                    match &extent.source {
                        Source::Chunk(part) if extent.end() > from && extent.offset < to => parts.push(*part),
                        _ => {}
                    }
                }
            }
            parts
        };
        // Fetches are tasks of the runtime; this may be called from a thread of the door.
        let _runtime = self.runtime.enter();
        self.cache.prefetch(&parts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_straight_on_opens_the_window() {
        let mut stream = Stream::default();
        let mut fetched = 0;
        for read in 0..256u64 {
            if let Some((from, to)) = stream.note(read * 65_536, 65_536) {
                assert!(from >= fetched, "nothing is fetched twice");
                assert!(to - from <= 2 * WINDOW_BYTES_MAX);
                fetched = to;
            }
        }
        assert!(fetched >= 256 * 65_536 + WINDOW_BYTES_MAX / 2);
    }

    #[test]
    fn jumping_about_fetches_nothing() {
        let mut stream = Stream::default();
        for read in 1..100u64 {
            assert_eq!(stream.note(read * 7_919_000 % 100_000_000, 4_096), None);
        }
    }
}
