//! Snapshots on disk: what replaces the beginning of the log.
//!
//! Owns a directory of snapshot files. A snapshot is written beside its final name, fsynced, renamed, and the directory
//! fsynced; only then may the log be cut, and only then is the one before the previous one deleted. Two are kept: when
//! the newest turns out damaged, the older one and the log after it still rebuild everything. Every byte is behind a
//! checksum, and a file is read through once before any of it is loaded, and before the last of it is sent to anybody.
//!
//! One that is found damaged while the node runs stays listed until the next is written, which is asked for at once: a
//! leader without any snapshot counts as one whose disk has failed. It is not sent, and the log is not cut for its sake.
//!
//! `{index:020}-{term}-{leader}.snapshot`, all numbers little-endian:
//!
//! ```text
//! offset  size  field
//! 0       8     "HFRAFTSN"
//! 8       4     format version (1)
//! 12      4     m, length of the meta, at most 1 MiB
//! 16      m     meta: log id and membership as of this snapshot (postcard)
//! 16+m    4     crc32c of everything before
//!
//! then the body (what `Machine::dump` wrote) in blocks, each:
//! 0       4     n, length of the block, 1 to 256 KiB
//! 4       4     crc32c of the length and the bytes
//! 8       n     bytes
//!
//! and after the last block:
//! 0       4     zero
//! 4       4     crc32c of the next 12 bytes
//! 8       8     length of the body
//! 16      4     crc32c of the body
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::types::{RaftSnapshotMeta, from_bytes, to_bytes};

const MAGIC: &[u8; 8] = b"HFRAFTSN";
const VERSION: u32 = 1;
const META_BYTES_MAX: usize = 1 << 20;
const BLOCK_BYTES: usize = 256 << 10;
const SUFFIX: &str = "snapshot";
const TEMPORARY: &str = "tmp";
/// How many are kept.
pub const KEPT: usize = 2;

/// A snapshot that is whole on disk, held open: it can be read on after its name is gone.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    pub meta: RaftSnapshotMeta,
    path: PathBuf,
    file: Arc<File>,
    /// Length of the file.
    pub bytes: u64,
    /// It did not pass a check since it was taken on. Known to all copies of this.
    damaged: Arc<AtomicBool>,
}

/// The snapshots of one node.
pub struct SnapshotDir {
    dir: PathBuf,
    /// Newest first.
    files: Mutex<Vec<SnapshotFile>>,
    temporaries: AtomicU64,
    /// Rung when another one is needed.
    wanted: Notify,
}

impl SnapshotDir {
    /// Opens or makes the directory, removes what was left unfinished, and checks every snapshot; a damaged one is
    /// renamed out of the way.
    ///
    /// # Errors
    /// The directory cannot be read; `Unsupported` when a snapshot has a format of a later release.
    pub fn open(dir: &Path) -> io::Result<SnapshotDir> {
        fs::create_dir_all(dir)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(TEMPORARY) => fs::remove_file(&path)?,
                Some(SUFFIX) => match check(&path) {
                    Ok(file) => files.push(file),
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(error),
                    Err(error) => {
                        tracing::error!(snapshot = %path.display(), %error, "a snapshot is damaged and set aside");
                        fs::rename(&path, path.with_extension("damaged"))?;
                    }
                },
                _ => {}
            }
        }
        files.sort_by_key(|file| std::cmp::Reverse(file.meta.last_log_id));
        Ok(SnapshotDir {
            dir: dir.to_path_buf(),
            files: Mutex::new(files),
            temporaries: AtomicU64::new(0),
            wanted: Notify::new(),
        })
    }

    /// All there are, newest first.
    pub fn all(&self) -> Vec<SnapshotFile> {
        self.files.lock().clone()
    }

    pub fn newest(&self) -> Option<SnapshotFile> {
        self.files.lock().first().cloned()
    }

    /// Up to which index the log can be cut with the older snapshot still of use; `None` with fewer than two.
    pub fn spare(&self) -> Option<u64> {
        let files = self.files.lock();
        let older = files.get(KEPT - 1).filter(|file| !file.is_damaged());
        older.and_then(|file| file.meta.last_log_id.map(|id| id.index))
    }

    /// Takes note that one did not pass a check, and has another written.
    pub fn distrust(&self, snapshot: &SnapshotFile) {
        snapshot.damaged.store(true, Ordering::Relaxed);
        self.wanted.notify_one();
    }

    /// Returns when another snapshot is needed.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Forgets one that did not load, and sets it aside.
    pub fn discard(&self, snapshot: &SnapshotFile) {
        self.files.lock().retain(|file| file.path != snapshot.path);
        // It has failed its reader already; failing to rename it changes nothing.
        let _ = fs::rename(&snapshot.path, snapshot.path.with_extension("damaged"));
    }

    /// A fresh name for something unfinished.
    pub fn temporary(&self) -> PathBuf {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{}-{number}.{TEMPORARY}", std::process::id()))
    }

    /// Writes a snapshot whose body is what `dump` writes.
    ///
    /// # Errors
    /// `dump` or the disk failed; no snapshot was added.
    pub fn write(
        &self,
        meta: RaftSnapshotMeta,
        dump: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<SnapshotFile> {
        let path = self.temporary();
        let written = write_file(&path, &meta, dump).and_then(|file| {
            let bytes = file.metadata()?.len();
            self.publish(SnapshotFile::new(meta, path.clone(), file, bytes))
        });
        if written.is_err() {
            // Best effort: the next start removes it as well.
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Takes over a file that came from elsewhere, after reading it through.
    ///
    /// # Errors
    /// `InvalidData` when it is damaged or not the snapshot `meta` speaks of; the disk failed.
    pub fn adopt(&self, path: &Path, meta: &RaftSnapshotMeta) -> io::Result<SnapshotFile> {
        let file = check(path)?;
        if file.meta != *meta {
            return Err(invalid("the snapshot is not the one that was announced"));
        }
        file.file.sync_all()?;
        self.publish(file)
    }

    /// Gives a finished file its name and its place, and removes what is no longer needed.
    fn publish(&self, mut file: SnapshotFile) -> io::Result<SnapshotFile> {
        let path = self.dir.join(name(&file.meta));
        fs::rename(&file.path, &path)?;
        super::log::sync_dir(&self.dir)?;
        file.path = path;
        let mut files = self.files.lock();
        files.retain(|other| {
            if other.is_damaged() && other.path != file.path {
                // Best effort: the next start does it as well.
                let _ = fs::rename(&other.path, other.path.with_extension("damaged"));
            }
            other.path != file.path && !other.is_damaged()
        });
        files.push(file.clone());
        files.sort_by_key(|file| std::cmp::Reverse(file.meta.last_log_id));
        let kept = KEPT.min(files.len());
        for old in files.drain(kept..) {
            // One too many is no harm; the next start finds it again.
            let _ = fs::remove_file(&old.path);
        }
        Ok(file)
    }
}

impl SnapshotFile {
    fn new(meta: RaftSnapshotMeta, path: PathBuf, file: File, bytes: u64) -> SnapshotFile {
        SnapshotFile { meta, path, file: Arc::new(file), bytes, damaged: Arc::default() }
    }

    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Reads the whole file through, whatever its name is by now. May wait for the disk.
    ///
    /// # Errors
    /// `InvalidData` when it is damaged or not what it is taken for; the disk failed.
    pub fn verify(&self) -> io::Result<()> {
        let input = Placed { file: &self.file, offset: 0 };
        if read_through(BufReader::with_capacity(BLOCK_BYTES, input))? != self.meta {
            return Err(invalid("the snapshot is not the one that was announced"));
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the file from `offset` on, at most `bytes_max`.
    ///
    /// # Errors
    /// The disk failed.
    pub fn part(&self, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let length = (self.bytes.saturating_sub(offset)).min(bytes_max as u64) as usize;
        let mut part = vec![0; length];
        self.file.read_exact_at(&mut part, offset)?;
        Ok(part)
    }

    /// The body, checked as it is read.
    ///
    /// # Errors
    /// The header cannot be read.
    pub fn body(&self) -> io::Result<impl Read + use<>> {
        // Not a clone of the handle: that would share its position.
        let mut input = BufReader::with_capacity(BLOCK_BYTES, File::open(&self.path)?);
        read_meta(&mut input)?;
        Ok(BodyReader::new(input))
    }

    /// A file that is still being received: nothing about it is known to be true.
    pub fn unchecked(meta: RaftSnapshotMeta, path: PathBuf, file: File, bytes: u64) -> SnapshotFile {
        SnapshotFile::new(meta, path, file, bytes)
    }
}

/// Reads a file from a place of its own: the handle's is shared.
struct Placed<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for Placed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(out, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

fn name(meta: &RaftSnapshotMeta) -> String {
    match meta.last_log_id {
        Some(id) => format!("{:020}-{}-{}.{SUFFIX}", id.index, id.leader_id.term, id.leader_id.node_id),
        None => format!("empty.{SUFFIX}"),
    }
}

fn write_file(
    path: &Path,
    meta: &RaftSnapshotMeta,
    dump: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    let mut body = BodyWriter::new(BufWriter::new(&file));
    let meta = to_bytes(meta)?;
    let mut header = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &(meta.len() as u32).to_le_bytes(), &meta].concat();
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    body.out.write_all(&header)?;
    dump(&mut body)?;
    body.finish()?;
    file.sync_all()?;
    Ok(file)
}

/// Opens a file that is a whole snapshot.
fn check(path: &Path) -> io::Result<SnapshotFile> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let meta = read_through(BufReader::with_capacity(BLOCK_BYTES, &file))?;
    Ok(SnapshotFile::new(meta, path.to_path_buf(), file, bytes))
}

/// Reads a whole snapshot to its end, and gives back its meta.
fn read_through(mut input: impl Read) -> io::Result<RaftSnapshotMeta> {
    let meta = read_meta(&mut input)?;
    let mut body = BodyReader::new(input);
    io::copy(&mut body, &mut io::sink())?;
    if body.input.read(&mut [0])? != 0 {
        return Err(invalid("the snapshot goes on after its end"));
    }
    Ok(meta)
}

fn read_meta(input: &mut impl Read) -> io::Result<RaftSnapshotMeta> {
    let mut header = vec![0; 16];
    input.read_exact(&mut header)?;
    if &header[0..8] != MAGIC {
        return Err(invalid("not a snapshot"));
    }
    let version = u32_at(&header, 8);
    let length = u32_at(&header, 12) as usize;
    if length > META_BYTES_MAX {
        return Err(invalid("the snapshot's meta is too long"));
    }
    header.resize(16 + length + 4, 0);
    input.read_exact(&mut header[16..])?;
    let (checked, crc) = header.split_at(16 + length);
    if crc32c::crc32c(checked) != u32_at(crc, 0) {
        return Err(invalid("the snapshot's header is damaged"));
    }
    if version != VERSION {
        let why = format!("a snapshot has format {version}; this program knows format {VERSION}");
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    from_bytes(&checked[16..])
}

/// Cuts what is written into checked blocks.
struct BodyWriter<W: Write> {
    out: W,
    block: Vec<u8>,
    bytes: u64,
    crc: u32,
}

impl<W: Write> BodyWriter<W> {
    fn new(out: W) -> BodyWriter<W> {
        BodyWriter { out, block: Vec::with_capacity(BLOCK_BYTES), bytes: 0, crc: 0 }
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let length = (self.block.len() as u32).to_le_bytes();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&length), &self.block);
        self.out.write_all(&length)?;
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.bytes += self.block.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &self.block);
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.write_block()?;
        let end = [self.bytes.to_le_bytes().as_slice(), &self.crc.to_le_bytes()].concat();
        self.out.write_all(&[0; 4])?;
        self.out.write_all(&crc32c::crc32c(&end).to_le_bytes())?;
        self.out.write_all(&end)?;
        self.out.flush()
    }
}

impl<W: Write> Write for BodyWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_BYTES {
            self.write_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives back what was written, block by block, and nothing that is not sound.
struct BodyReader<R: Read> {
    input: R,
    block: Vec<u8>,
    taken: usize,
    bytes: u64,
    crc: u32,
    ended: bool,
}

impl<R: Read> BodyReader<R> {
    fn new(input: R) -> BodyReader<R> {
        BodyReader { input, block: Vec::new(), taken: 0, bytes: 0, crc: 0, ended: false }
    }

    fn read_block(&mut self) -> io::Result<()> {
        let mut head = [0; 8];
        self.input.read_exact(&mut head)?;
        let (length, crc) = (u32_at(&head, 0) as usize, u32_at(&head, 4));
        if length == 0 {
            return self.read_end(crc);
        }
        if length > BLOCK_BYTES {
            return Err(invalid("a block of the snapshot is too long"));
        }
        self.block.resize(length, 0);
        self.taken = 0;
        self.input.read_exact(&mut self.block)?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[0..4]), &self.block) != crc {
            return Err(invalid("a block of the snapshot is damaged"));
        }
        self.bytes += length as u64;
        self.crc = crc32c::crc32c_append(self.crc, &self.block);
        Ok(())
    }

    fn read_end(&mut self, crc: u32) -> io::Result<()> {
        let mut end = [0; 12];
        self.input.read_exact(&mut end)?;
        let expected = [self.bytes.to_le_bytes().as_slice(), &self.crc.to_le_bytes()].concat();
        if crc32c::crc32c(&end) != crc || end.as_slice() != expected {
            return Err(invalid("the snapshot is incomplete"));
        }
        self.block.clear();
        self.taken = 0;
        self.ended = true;
        Ok(())
    }
}

impl<R: Read> Read for BodyReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.block.len() && !self.ended {
            self.read_block()?;
        }
        let rest = &self.block[self.taken..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

/// The caller has the bytes: the slice is a fixed header.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::raft::log::LogPoint;
    use crate::meta::raft::types::log_id;

    fn meta(index: u64) -> RaftSnapshotMeta {
        let last_log_id = Some(log_id(LogPoint { term: 2, leader: 1, index }));
        RaftSnapshotMeta { last_log_id, ..RaftSnapshotMeta::default() }
    }

    fn write(dir: &SnapshotDir, index: u64, body: &[u8]) -> SnapshotFile {
        dir.write(meta(index), |out| out.write_all(body)).unwrap()
    }

    fn body(file: &SnapshotFile) -> Vec<u8> {
        let mut body = Vec::new();
        file.body().unwrap().read_to_end(&mut body).unwrap();
        body
    }

    #[test]
    fn bodies_of_every_length_survive() {
        let place = tempfile::tempdir().unwrap();
        let dir = SnapshotDir::open(place.path()).unwrap();
        for (index, length) in
            [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES].into_iter().enumerate()
        {
            let written: Vec<u8> = (0..length).map(|n| (n % 241) as u8).collect();
            let file = write(&dir, index as u64, &written);
            assert_eq!(body(&file), written);
            assert_eq!(body(&SnapshotDir::open(place.path()).unwrap().newest().unwrap()), written);
            let parts: Vec<u8> = (0..file.bytes).step_by(1000).flat_map(|at| file.part(at, 1000).unwrap()).collect();
            assert_eq!(parts, fs::read(file.path()).unwrap());
        }
    }

    #[test]
    fn one_of_a_later_release_is_refused_and_stays() {
        let place = tempfile::tempdir().unwrap();
        let path = write(&SnapshotDir::open(place.path()).unwrap(), 5, b"later").path().to_path_buf();
        let mut bytes = fs::read(&path).unwrap();
        bytes[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
        let checked = 16 + u32_at(&bytes, 12) as usize;
        let crc = crc32c::crc32c(&bytes[..checked]);
        bytes[checked..checked + 4].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let refused = SnapshotDir::open(place.path()).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn two_are_kept_and_tell_what_the_log_can_spare() {
        let place = tempfile::tempdir().unwrap();
        let dir = SnapshotDir::open(place.path()).unwrap();
        assert_eq!(dir.spare(), None);
        write(&dir, 10, b"a");
        assert_eq!(dir.spare(), None);
        write(&dir, 20, b"b");
        assert_eq!(dir.spare(), Some(10));
        write(&dir, 30, b"c");
        write(&dir, 30, b"d");
        assert_eq!(dir.spare(), Some(20));
        fs::write(dir.temporary(), b"half").unwrap();
        let dir = SnapshotDir::open(place.path()).unwrap();
        assert_eq!(dir.all().iter().map(body).collect::<Vec<_>>(), [b"d".to_vec(), b"b".to_vec()]);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failed_dump_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let dir = SnapshotDir::open(place.path()).unwrap();
        assert!(dir.write(meta(1), |_| Err(io::Error::other("no"))).is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn no_damage_passes() {
        let place = tempfile::tempdir().unwrap();
        let dir = SnapshotDir::open(place.path()).unwrap();
        let file = write(&dir, 7, b"the whole state");
        let whole = fs::read(file.path()).unwrap();
        let damaged = place.path().join("damaged.tmp");
        let refuses = |bytes: &[u8]| {
            fs::write(&damaged, bytes).unwrap();
            dir.adopt(&damaged, &meta(7)).is_err()
        };
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert!(refuses(&bytes), "byte {at}");
            assert!(refuses(&whole[..at]), "cut at {at}");
        }
        assert!(refuses(&[whole.as_slice(), b"more"].concat()));
        fs::write(&damaged, &whole).unwrap();
        assert!(dir.adopt(&damaged, &meta(8)).is_err(), "another snapshot than announced");
        assert_eq!(body(&dir.adopt(&damaged, &meta(7)).unwrap()), b"the whole state");
    }
}
