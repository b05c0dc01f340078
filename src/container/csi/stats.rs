//! How full a mounted volume is, asked so that a mount that hangs holds nobody up for long, and no more than one thread for each
//! path.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::spec::{UsageUnit, VolumeUsage};

const PATIENCE: Duration = Duration::from_secs(3);

/// Asks for the space of mounts.
#[derive(Clone, Debug, Default)]
pub(super) struct Stats {
    /// Where an answer is still waited for.
    waiting: Arc<Mutex<HashSet<PathBuf>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatsError {
    #[error("the mount does not answer")]
    Slow,
    #[error("the mount cannot be asked: {0}")]
    Failed(io::Error),
}

impl Stats {
    pub async fn of(&self, path: &Path) -> Result<Vec<VolumeUsage>, StatsError> {
        if !self.waiting.lock().insert(path.to_path_buf()) {
            return Err(StatsError::Slow);
        }
        let (asked, waiting) = (path.to_path_buf(), self.waiting.clone());
        let asking = tokio::task::spawn_blocking(move || {
            let answer = statfs(&asked);
            waiting.lock().remove(&asked);
            answer
        });
        match timeout(PATIENCE, asking).await {
            Ok(Ok(answer)) => answer.map(usages).map_err(StatsError::Failed),
            Ok(Err(_)) | Err(_) => Err(StatsError::Slow),
        }
    }
}

/// How large a volume is, in bytes. Waits for its mount.
///
/// # Errors
/// It cannot be asked.
pub(super) fn space(path: &Path) -> io::Result<u64> {
    statfs(path).map(|found| found.f_blocks.saturating_mul(found.f_frsize))
}

fn statfs(path: &Path) -> io::Result<libc::statvfs> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a NUL-terminated string, and `found` room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled by the call, which has succeeded.
    Ok(unsafe { found.assume_init() })
}

fn usages(found: libc::statvfs) -> Vec<VolumeUsage> {
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let bytes = |blocks: u64| whole(blocks.saturating_mul(found.f_frsize));
    vec![
        VolumeUsage {
            total: bytes(found.f_blocks),
            available: bytes(found.f_bavail),
            used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
            unit: UsageUnit::Bytes.into(),
        },
        VolumeUsage {
            total: whole(found.f_files),
            available: whole(found.f_favail),
            used: whole(found.f_files.saturating_sub(found.f_ffree)),
            unit: UsageUnit::Inodes.into(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_filesystem_says_how_full_it_is() {
        let usages = Stats::default().of(Path::new("/")).await.unwrap();
        let bytes = usages.iter().find(|usage| usage.unit == i32::from(UsageUnit::Bytes)).unwrap();
        assert!(bytes.total > 0 && bytes.used + bytes.available <= bytes.total);
        assert!(matches!(Stats::default().of(Path::new("/absent")).await, Err(StatsError::Failed(_))));
    }

    #[tokio::test]
    async fn where_an_answer_is_waited_for_nobody_asks_again() {
        let stats = Stats::default();
        stats.waiting.lock().insert("/".into());
        assert!(matches!(stats.of(Path::new("/")).await, Err(StatsError::Slow)));
    }
}
