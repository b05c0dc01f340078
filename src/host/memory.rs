//! What memory this process takes, and what of it is given back.

use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at what is resident: while there is not much, and while there is.
const CALM_PERIOD: Duration = Duration::from_millis(500);
const BUSY_PERIOD: Duration = Duration::from_millis(100);
/// By how much it may have grown since something was given back.
const SLACK_BYTES: u64 = 16 << 20;

/// The most that was ever resident; `None` when the kernel does not say.
pub fn resident_high_bytes() -> Option<u64> {
    high_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn high_in(status: &str) -> Option<u64> {
    field_in(status, "VmHWM:")
}

fn resident_bytes() -> Option<u64> {
    field_in(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

fn field_in(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Has the C library keep what is freed in two heaps, and not in eight for each processor: what one thread frees another can use.
/// With the usual number a client that is to take 256 MiB took 296; with two it takes 238, no slower (measured). To be called
/// before there are threads.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator's.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// From now on, what is free in the heaps goes back to the kernel while more than `ample_bytes` are resident: blocks of all sizes
/// come and go in all threads, and the C library by itself gives back the end of a heap only (decision 24).
///
/// # Errors
/// The host gives no thread.
pub fn give_back_above(ample_bytes: u64) -> std::io::Result<()> {
    let give_back_in_time = move || {
        let mut kept_bytes = 0;
        loop {
            let resident = resident_bytes().unwrap_or(0);
            kept_bytes = resident.min(kept_bytes);
            if resident > ample_bytes && resident - kept_bytes > SLACK_BYTES {
                let begun = Instant::now();
                give_back();
                kept_bytes = resident_bytes().unwrap_or(0);
                tracing::debug!(resident, kept_bytes, took_us = begun.elapsed().as_micros(), "gave memory back");
            }
            thread::sleep(if resident > ample_bytes { BUSY_PERIOD } else { CALM_PERIOD });
        }
    };
    thread::Builder::new().name("heaps".into()).spawn(give_back_in_time).map(drop)
}

fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_much_it_was() {
        assert_eq!(high_in("Name:\tx\nVmHWM:\t   15664 kB\nVmRSS:\t 1 kB\n"), Some(15664 * 1024));
        assert_eq!((high_in("VmRSS:\t 1 kB\n"), high_in("VmHWM:\tmuch\n")), (None, None));
        assert!(resident_high_bytes() > Some(1 << 20));
    }

    #[test]
    fn what_is_free_between_blocks_is_given_back() {
        let mut blocks: Vec<Vec<u8>> = (0..20_000).map(|_| vec![1; 4000]).collect();
        let mut number = 0;
        blocks.retain(|_| {
            number += 1;
            number % 16 == 0
        });
        let before = resident_bytes().unwrap();
        give_back();
        let after = resident_bytes().unwrap();
        assert!(after + (30 << 20) < before, "{before} bytes were resident, and {after} are");
        assert_eq!(blocks.len(), 1250);
    }
}
