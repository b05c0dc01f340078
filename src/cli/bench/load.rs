//! The loads of `holdfast bench`: each runs, and says how often it did what it does and how long each took.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 4096;
const MIB: usize = 1 << 20;

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// As programs do.
    Cached,
    /// Past the kernel's cache.
    Direct,
}

/// What came of a load.
pub struct Measured {
    /// In a second.
    pub rate: f64,
    /// Of each step, in ascending order.
    steps_us: Vec<u64>,
}

impl Measured {
    /// `weight`: what one step counts for.
    fn of(mut steps_us: Vec<u64>, took: Duration, weight: f64) -> Measured {
        steps_us.sort_unstable();
        Measured { rate: steps_us.len() as f64 * weight / took.as_secs_f64().max(1e-9), steps_us }
    }

    pub fn percentile_us(&self, percent: usize) -> u64 {
        let last = self.steps_us.len().saturating_sub(1);
        self.steps_us.get(last * percent / 100).copied().unwrap_or(0)
    }
}

/// Bytes of which no two stretches are alike, fast enough for any disk (splitmix64).
struct Noise(u64);

impl Noise {
    /// Seeded by the time: two runs do not write the same.
    fn new(number: u64) -> Noise {
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
        Noise(now.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            let noise = self.next().to_le_bytes();
            word.copy_from_slice(&noise[..word.len()]);
        }
    }
}

/// Memory that direct I/O takes anywhere: it begins at a multiple of a block.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let bytes = vec![0; len + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        Aligned { bytes, start, len }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// Where the loads work, and how large they are.
pub struct Load {
    dir: PathBuf,
    large: PathBuf,
    size_mib: u64,
    files: u64,
    /// How long a random load goes on.
    pub span: Duration,
}

impl Load {
    pub fn new(dir: &Path, size_mib: u64, files: u64, seconds: u64) -> Load {
        let (dir, large) = (dir.to_path_buf(), dir.join("large"));
        Load { dir, large, size_mib, files, span: Duration::from_secs(seconds) }
    }

    /// The fsync counts as one more step, and into the time.
    pub fn write_sequentially(&mut self) -> io::Result<Measured> {
        let file = File::create(&self.large)?;
        let (mut noise, mut buffer) = (Noise::new(0), vec![0; MIB]);
        let mut unmeasured = Duration::ZERO;
        let began = Instant::now();
        let mut steps_us = steps(0..self.size_mib, |at| {
            let filling = Instant::now();
            noise.fill(&mut buffer);
            unmeasured += filling.elapsed();
            timed(|| file.write_all_at(&buffer, at * MIB as u64))
        })?;
        let synced = timed(|| file.sync_all())?;
        let took = began.elapsed().saturating_sub(unmeasured);
        steps_us.push(synced);
        Ok(Measured::of(steps_us, took, self.size_mib as f64 / (self.size_mib + 1) as f64))
    }

    pub fn read_sequentially(&mut self, access: Access) -> io::Result<Measured> {
        let file = open(&self.large, access, false)?;
        let mut buffer = Aligned::new(MIB);
        let began = Instant::now();
        let steps_us = steps(0..self.size_mib, |at| timed(|| file.read_exact_at(buffer.get(), at * MIB as u64)))?;
        Ok(Measured::of(steps_us, began.elapsed(), 1.0))
    }

    pub fn read_at_random(&mut self, depth: u64) -> io::Result<Measured> {
        self.at_random(depth, |file, _, buffer, offset| file.read_exact_at(buffer, offset))
    }

    pub fn write_at_random(&mut self, depth: u64) -> io::Result<Measured> {
        self.at_random(depth, |file, noise, buffer, offset| {
            noise.fill(buffer);
            file.write_all_at(buffer, offset)
        })
    }

    /// So many threads on one file, each with a descriptor of its own.
    fn at_random(
        &self,
        depth: u64,
        step: impl Fn(&File, &mut Noise, &mut [u8], u64) -> io::Result<()> + Sync,
    ) -> io::Result<Measured> {
        let blocks = self.size_mib * (MIB / BLOCK_BYTES) as u64;
        let began = Instant::now();
        let one = |number: u64| -> io::Result<Vec<u64>> {
            let file = open(&self.large, Access::Direct, true)?;
            let (mut noise, mut buffer) = (Noise::new(number + 1), Aligned::new(BLOCK_BYTES));
            let mut steps_us = Vec::new();
            while began.elapsed() < self.span || steps_us.is_empty() {
                let offset = noise.next() % blocks * BLOCK_BYTES as u64;
                steps_us.push(timed(|| step(&file, &mut noise, buffer.get(), offset))?);
            }
            Ok(steps_us)
        };
        let all = thread::scope(|scope| {
            let started: Vec<_> = (0..depth)
                .map(|number| {
                    scope.spawn({
                        let one = &one;
                        move || one(number)
                    })
                })
                .collect();
            let joined = started
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread broke"))));
            joined.collect::<io::Result<Vec<_>>>()
        })?;
        Ok(Measured::of(all.concat(), began.elapsed(), 1.0))
    }

    pub fn write_and_sync(&mut self) -> io::Result<Measured> {
        let file = OpenOptions::new().write(true).open(&self.large)?;
        let blocks = self.size_mib * (MIB / BLOCK_BYTES) as u64;
        let (mut noise, mut buffer) = (Noise::new(99), vec![0; BLOCK_BYTES]);
        let (mut steps_us, began) = (Vec::new(), Instant::now());
        while began.elapsed() < self.span || steps_us.is_empty() {
            noise.fill(&mut buffer);
            let offset = noise.next() % blocks * BLOCK_BYTES as u64;
            steps_us.push(timed(|| file.write_all_at(&buffer, offset).and_then(|()| file.sync_data()))?);
        }
        Ok(Measured::of(steps_us, began.elapsed(), 1.0))
    }

    pub fn create(&mut self) -> io::Result<Measured> {
        self.make("a", |_| Ok(()))
    }

    pub fn create_and_sync(&mut self) -> io::Result<Measured> {
        self.make("s", File::sync_all)
    }

    fn make(&self, prefix: &str, finish: impl Fn(&File) -> io::Result<()>) -> io::Result<Measured> {
        let (mut noise, mut buffer) = (Noise::new(7), vec![0; BLOCK_BYTES]);
        self.each(|load, number| {
            noise.fill(&mut buffer);
            let file = File::create_new(load.small(prefix, number))?;
            file.write_all_at(&buffer, 0)?;
            finish(&file)
        })
    }

    pub fn look(&mut self) -> io::Result<Measured> {
        self.each(|load, number| fs::metadata(load.small("a", number)).map(drop))
    }

    pub fn read(&mut self) -> io::Result<Measured> {
        self.each(|load, number| fs::read(load.small("a", number)).map(drop))
    }

    pub fn rename(&mut self) -> io::Result<Measured> {
        self.each(|load, number| fs::rename(load.small("a", number), load.small("b", number)))
    }

    pub fn unlink(&mut self) -> io::Result<Measured> {
        self.each(|load, number| fs::remove_file(load.small("b", number)))
    }

    fn each(&self, mut step: impl FnMut(&Load, u64) -> io::Result<()>) -> io::Result<Measured> {
        let began = Instant::now();
        let steps_us = steps(0..self.files, |number| timed(|| step(self, number)))?;
        Ok(Measured::of(steps_us, began.elapsed(), 1.0))
    }

    fn small(&self, prefix: &str, number: u64) -> PathBuf {
        self.dir.join(format!("{prefix}{number}"))
    }
}

/// Where a filesystem has no direct I/O, as in memory, it goes without.
fn open(path: &Path, access: Access, write: bool) -> io::Result<File> {
    let open = |flags| OpenOptions::new().read(true).write(write).custom_flags(flags).open(path);
    match access {
        Access::Cached => open(0),
        Access::Direct => open(libc::O_DIRECT).or_else(|_| open(0)),
    }
}

/// How long each took.
fn steps(numbers: std::ops::Range<u64>, step: impl FnMut(u64) -> io::Result<u64>) -> io::Result<Vec<u64>> {
    numbers.map(step).collect()
}

fn timed(step: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
    let began = Instant::now();
    step()?;
    Ok(began.elapsed().as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_percentiles() {
        let measured = Measured::of((1..=100).rev().collect(), Duration::from_secs(2), 1.0);
        assert_eq!(measured.rate, 50.0);
        assert_eq!([0, 50, 99, 100].map(|percent| measured.percentile_us(percent)), [1, 50, 99, 100]);
    }

    #[test]
    fn no_two_blocks_are_alike() {
        let mut noise = Noise::new(1);
        let mut blocks = vec![[0; BLOCK_BYTES]; 64];
        blocks.iter_mut().for_each(|block| noise.fill(block));
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), 64);
    }
}
