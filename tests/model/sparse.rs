//! A file's bytes: runs of written or allocated bytes in a sea of holes, exact to the byte.

use std::collections::BTreeMap;

/// Runs by first offset. They never overlap and are never empty; what lies between them is a hole.
#[derive(Clone, Default)]
pub struct Sparse {
    runs: BTreeMap<u64, Run>,
}

#[derive(Clone)]
enum Run {
    Data(Vec<u8>),
    /// Allocated and not written: reads as zeros, is a hole to `SEEK_DATA`.
    Unwritten(u64),
}

impl Run {
    fn len(&self) -> u64 {
        match self {
            Run::Data(bytes) => bytes.len() as u64,
            Run::Unwritten(len) => *len,
        }
    }

    fn part(&self, from: u64, to: u64) -> Run {
        match self {
            Run::Data(bytes) => Run::Data(bytes[from as usize..to as usize].to_vec()),
            Run::Unwritten(_) => Run::Unwritten(to - from),
        }
    }
}

impl Sparse {
    pub fn allocated_bytes(&self) -> u64 {
        self.runs.values().map(Run::len).sum()
    }

    /// Bytes of `start..end` that are not holes.
    pub fn allocated_within(&self, start: u64, end: u64) -> u64 {
        self.touching(start, end).map(|(at, run)| (at + run.len()).min(end) - at.max(start)).sum()
    }

    /// The runs that have a byte in `start..end`.
    fn touching(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Run)> {
        let first = match self.runs.range(..=start).next_back() {
            Some((at, run)) if at + run.len() > start => *at,
            _ => start,
        };
        self.runs.range(first..end.max(first)).map(|(at, run)| (*at, run))
    }

    /// Makes `start..end` a hole.
    pub fn cut(&mut self, start: u64, end: u64) {
        let touched: Vec<u64> = self.touching(start, end).map(|(at, _)| at).collect();
        for at in touched {
            let run = self.runs.remove(&at).expect("listed just now");
            if at < start {
                self.runs.insert(at, run.part(0, start - at));
            }
            if at + run.len() > end {
                self.runs.insert(end, run.part(end - at, run.len()));
            }
        }
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.cut(offset, offset + data.len() as u64);
        // Appending to the run before keeps sequential writes from making a run each.
        if let Some((at, Run::Data(bytes))) = self.runs.range_mut(..offset).next_back()
            && at + bytes.len() as u64 == offset
        {
            bytes.extend_from_slice(data);
            return;
        }
        self.runs.insert(offset, Run::Data(data.to_vec()));
    }

    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let end = offset + len as u64;
        for (at, run) in self.touching(offset, end) {
            if let Run::Data(bytes) = run {
                let (from, to) = (at.max(offset), (at + run.len()).min(end));
                out[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
            }
        }
        out
    }

    /// Allocates what is a hole in `start..end`.
    pub fn allocate(&mut self, start: u64, end: u64) {
        let taken: Vec<(u64, u64)> = self.touching(start, end).map(|(at, run)| (at, at + run.len())).collect();
        let mut from = start;
        for (at, to) in taken {
            if at > from {
                self.runs.insert(from, Run::Unwritten(at - from));
            }
            from = from.max(to);
        }
        if from < end {
            self.runs.insert(from, Run::Unwritten(end - from));
        }
    }

    /// Zeroes `start..end` and allocates all of it.
    pub fn zero(&mut self, start: u64, end: u64) {
        self.cut(start, end);
        self.allocate(start, end);
    }

    /// The first written byte at or after `offset`.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        self.touching(offset, u64::MAX).find(|(_, run)| matches!(run, Run::Data(_))).map(|(at, _)| at.max(offset))
    }

    /// The first byte at or after `offset` that was not written.
    pub fn next_hole(&self, offset: u64) -> u64 {
        let mut hole = offset;
        for (at, run) in self.touching(offset, u64::MAX) {
            if at > hole || matches!(run, Run::Unwritten(_)) {
                break;
            }
            hole = at + run.len();
        }
        hole
    }

    /// Makes `to..to+len` what `from..from+len` of `source` is, holes included.
    pub fn copy_from(&mut self, source: &Sparse, from: u64, to: u64, len: u64) {
        let pieces: Vec<(u64, Run)> = source
            .touching(from, from + len)
            .map(|(at, run)| {
                let (start, end) = (at.max(from), (at + run.len()).min(from + len));
                (start - from + to, run.part(start - at, end - at))
            })
            .collect();
        self.cut(to, to + len);
        self.runs.extend(pieces);
    }
}
