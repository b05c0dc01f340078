//! The whole state as a stream, for snapshots.
//!
//! ```text
//! magic          8 bytes   "HFSTATE1"
//! pair …         key bytes (u32), value bytes (u32), key, value; little-endian, in key order
//! end            0 (u32), number of pairs (u64)
//! ```
//!
//! The stream carries no checksum: snapshot files do. Lengths and order are checked before anything is allocated or
//! written. The log position is not part of it.

use std::io::{self, Read, Write};

use super::schema::{Table, position_key};
use crate::kv::{Batch, Kv, KvError, Pair};

const MAGIC: [u8; 8] = *b"HFSTATE1";
/// Longest key (an entry: tag, tree, directory, name) and value (a block full of inline data, a batch of chunks).
const KEY_BYTES_MAX: u32 = 1024;
const VALUE_BYTES_MAX: u32 = 16 << 20;
/// Bytes written to the index in one batch.
const BATCH_BYTES: usize = 1 << 20;

/// Where what is dumped begins: behind the position.
pub(super) fn first_key() -> [u8; 1] {
    [Table::Position as u8 + 1]
}

pub(super) fn dump(found: impl Iterator<Item = Result<Pair, KvError>>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&MAGIC)?;
    let mut pairs = 0u64;
    for pair in found {
        let (key, value) = pair.map_err(io::Error::other)?;
        let (Ok(key_bytes), Ok(value_bytes)) = (u32::try_from(key.len()), u32::try_from(value.len())) else {
            return Err(invalid("a pair is too large for a dump"));
        };
        if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return Err(invalid("a pair is too large for a dump"));
        }
        out.write_all(&key_bytes.to_le_bytes())?;
        out.write_all(&value_bytes.to_le_bytes())?;
        out.write_all(&key)?;
        out.write_all(&value)?;
        pairs += 1;
    }
    out.write_all(&0u32.to_le_bytes())?;
    out.write_all(&pairs.to_le_bytes())
}

/// Replaces everything by a dump. The position goes first and comes last: whatever stops it in between leaves an index
/// that is seen to be empty.
pub(super) fn load(kv: &dyn Kv, position: &[u8], input: &mut dyn Read) -> io::Result<()> {
    clear(kv)?;
    let loaded = load_pairs(kv, input);
    if loaded.is_err() {
        clear(kv)?;
        return loaded;
    }
    let mut batch = Batch::default();
    batch.put(position_key(), position);
    kv.write(batch).map_err(io::Error::other)
}

fn clear(kv: &dyn Kv) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.delete(position_key());
    kv.write(batch).map_err(io::Error::other)?;
    loop {
        let mut batch = Batch::default();
        for pair in kv.scan(&[], None).take(4096) {
            batch.delete(pair.map_err(io::Error::other)?.0);
        }
        if batch.changes.is_empty() {
            return Ok(());
        }
        kv.write(batch).map_err(io::Error::other)?;
    }
}

fn load_pairs(kv: &dyn Kv, input: &mut dyn Read) -> io::Result<()> {
    if take::<8>(input)? != MAGIC {
        return Err(invalid("not a dump of the metadata state"));
    }
    let (mut batch, mut bytes, mut pairs) = (Batch::default(), 0, 0u64);
    let mut last = Vec::new();
    loop {
        let key_bytes = u32::from_le_bytes(take(input)?);
        if key_bytes == 0 {
            break;
        }
        let value_bytes = u32::from_le_bytes(take(input)?);
        if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return Err(invalid("a pair of the dump is too large"));
        }
        let key = take_vec(input, key_bytes)?;
        let value = take_vec(input, value_bytes)?;
        if key <= last || Table::of(&key).is_none_or(|table| table == Table::Position) {
            return Err(invalid("a key of the dump is out of place"));
        }
        bytes += key.len() + value.len();
        last.clone_from(&key);
        batch.put(key, value);
        pairs += 1;
        if bytes >= BATCH_BYTES {
            kv.write(std::mem::take(&mut batch)).map_err(io::Error::other)?;
            bytes = 0;
        }
    }
    if u64::from_le_bytes(take(input)?) != pairs {
        return Err(invalid("the dump is not complete"));
    }
    kv.write(batch).map_err(io::Error::other)
}

fn take<const N: usize>(input: &mut dyn Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn take_vec(input: &mut dyn Read, len: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn invalid(sentence: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, sentence)
}
