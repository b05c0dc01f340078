//! What calls took, by the clock and by the processor.

use std::time::{Duration, Instant};

/// What calls took. On a busy machine the processor time of both sides together says more than the clock.
pub struct Cost {
    at: Instant,
    took: Duration,
    processor: Duration,
    count: usize,
}

impl Cost {
    pub fn so_far() -> Cost {
        // SAFETY: all zeroes is a valid rusage, and it is valid for the call to fill in.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage
        };
        let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        let processor = of(usage.ru_utime) + of(usage.ru_stime);
        Cost { at: Instant::now(), took: Duration::ZERO, processor, count: 0 }
    }

    pub fn until_now(self, count: usize) -> Cost {
        let processor = Cost::so_far().processor - self.processor;
        Cost { took: self.at.elapsed(), processor, count, ..self }
    }

    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }

    pub fn processor_us(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.count as f64
    }
}
