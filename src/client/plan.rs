//! What a read is made of: the dirty bytes over the extents over nothing. Pure, but for the chunks' bytes, which are fetched in
//! between.

use bytes::{Bytes, BytesMut};

use crate::types::attr::Attr;
use crate::types::extent::{ChunkPart, Extent, Source};

/// What a read consists of.
pub struct Plan {
    offset: u64,
    len: usize,
    /// Inline bytes and dirty bytes, already in place; `None` when there is nothing but at most one chunk.
    base: Option<BytesMut>,
    chunks: Vec<ChunkRead>,
    /// Dirty bytes that lie over chunks, put in place after them.
    over: Vec<(u64, Bytes)>,
    /// Attributes that came with the extents and could not be kept.
    pub seen: Option<Attr>,
}

/// A range of a chunk that goes to `at` in the file.
#[derive(Clone, Copy)]
pub struct ChunkRead {
    pub at: u64,
    pub part: ChunkPart,
    pub len: u32,
}

impl Plan {
    /// `over`: dirty bytes, and where in the file they are.
    pub fn new<'a>(extents: impl Iterator<Item = &'a Extent>, offset: u64, len: usize, over: &[(u64, Bytes)]) -> Plan {
        let end = offset + len as u64;
        let mut plan = Plan { offset, len, base: None, chunks: Vec::new(), over: over.to_vec(), seen: None };
        for extent in extents {
            let (from, to) = (extent.offset.max(offset), extent.end().min(end));
            if from >= to {
                continue;
            }
            match &extent.source {
                Source::Chunk(part) => {
                    let part = ChunkPart { offset: part.offset.saturating_add((from - extent.offset) as u32), ..*part };
                    plan.chunks.push(ChunkRead { at: from, part, len: (to - from) as u32 });
                }
                Source::Inline(bytes) => {
                    let skip = (from - extent.offset) as usize;
                    let slice = bytes.get(skip..skip + (to - from) as usize).unwrap_or_default();
                    plan.place(from, slice);
                }
                Source::Unwritten => {}
            }
        }
        plan
    }

    fn place(&mut self, at: u64, bytes: &[u8]) {
        let (start, len) = ((at - self.offset) as usize, self.len);
        let base = self.base.get_or_insert_with(|| BytesMut::zeroed(len));
        base[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// What has to be fetched before the plan can be put together.
    pub fn chunks(&self) -> &[ChunkRead] {
        &self.chunks
    }

    /// `parts`: the slices of each of [`Plan::chunks`], in order.
    pub fn assemble(mut self, mut parts: Vec<Vec<Bytes>>) -> Bytes {
        let single = self.base.is_none() && self.over.is_empty() && self.chunks.len() == 1;
        match parts.as_mut_slice() {
            [slices] if single && slices.len() == 1 && slices[0].len() == self.len => return slices.remove(0),
            _ => {}
        }
        let bare = self.chunks.is_empty() && self.base.is_none();
        match self.over.as_slice() {
            [(at, run)] if bare && *at == self.offset && run.len() == self.len => return run.clone(),
            _ => {}
        }
        let (chunks, over) = (std::mem::take(&mut self.chunks), std::mem::take(&mut self.over));
        for (read, slices) in chunks.iter().zip(parts) {
            let mut at = read.at;
            for slice in slices {
                self.place(at, &slice);
                at += slice.len() as u64;
            }
        }
        for (at, run) in over {
            self.place(at, &run);
        }
        let len = self.len;
        self.base.unwrap_or_else(|| BytesMut::zeroed(len)).freeze()
    }
}
