//! Which changes of names the kernel waits for: it holds locks while it does.
//!
//! A change has its directories locked from before it is asked for until after it is answered, and one that moves a name between two
//! directories holds a lock of the whole mount besides. The kernel takes both, at once or not at all, when it moves a directory that
//! is in use here and was moved by another host (`__d_unalias` in its `fs/dcache.c`): a look-up that comes upon one in vain is
//! ESTALE for whoever asked. So the answer to such a look-up waits here for what is under way, which waits for no look-up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::id::Ino;

/// One change after another may be under way; then the kernel has to try its luck.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between our answer and the kernel's letting go of its locks.
const SETTLES: Duration = Duration::from_millis(2);

#[derive(Default)]
pub(super) struct Underway {
    locked: Mutex<Locked>,
    ended: Notify,
}

#[derive(Default)]
struct Locked {
    /// How many changes each directory is locked for: one, and those that wait for a lock we do not see.
    dirs: HashMap<Ino, usize>,
    /// Changes of two directories.
    crossing: usize,
}

/// A change that has not been answered. Dropped when it is.
pub(super) struct Change {
    underway: Arc<Underway>,
    dirs: [Ino; 2],
}

impl Underway {
    /// The kernel asked for a change in these directories, which may be one and the same.
    pub fn begin(self: &Arc<Self>, dirs: [Ino; 2]) -> Change {
        let mut locked = self.locked.lock();
        dirs.iter().for_each(|dir| *locked.dirs.entry(*dir).or_default() += 1);
        locked.crossing += usize::from(dirs[0] != dirs[1]);
        Change { underway: self.clone(), dirs }
    }

    /// Returns when the kernel can move a directory away from `dir`, or after some patience.
    pub async fn lets_go_of(&self, dir: Ino) {
        let _ = tokio::time::timeout(PATIENCE, self.is_free(dir)).await;
    }

    async fn is_free(&self, dir: Ino) {
        while self.locked.lock().keeps(dir) {
            loop {
                let ended = self.ended.notified();
                if !self.locked.lock().keeps(dir) {
                    break;
                }
                ended.await;
            }
            tokio::time::sleep(SETTLES).await;
        }
    }
}

impl Locked {
    fn keeps(&self, dir: Ino) -> bool {
        self.crossing > 0 || self.dirs.contains_key(&dir)
    }

    fn end(&mut self, dirs: [Ino; 2]) {
        for dir in dirs {
            if let Some(count) = self.dirs.get_mut(&dir) {
                *count -= 1;
                if *count == 0 {
                    self.dirs.remove(&dir);
                }
            }
        }
        self.crossing -= usize::from(dirs[0] != dirs[1]);
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.underway.locked.lock().end(self.dirs);
        self.underway.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::Instant;

    use super::*;

    const A: Ino = Ino(8);
    const B: Ino = Ino(9);
    const ELSEWHERE: Ino = Ino(10);

    #[tokio::test(start_paused = true)]
    async fn a_directory_is_let_go_of_when_its_last_change_is_answered() {
        let underway = Arc::new(Underway::default());
        let (first, second) = (underway.begin([A, A]), underway.begin([A, A]));
        assert!(underway.lets_go_of(B).now_or_never().is_some());
        drop(first);
        assert!(underway.lets_go_of(A).now_or_never().is_none());
        let wait = tokio::spawn({
            let underway = underway.clone();
            async move { underway.lets_go_of(A).await }
        });
        tokio::task::yield_now().await;
        drop(second);
        let begun = Instant::now();
        wait.await.unwrap();
        assert_eq!(begun.elapsed(), SETTLES, "the kernel is on its way");
        assert!(underway.locked.lock().dirs.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_move_between_directories_holds_up_every_other() {
        let underway = Arc::new(Underway::default());
        let change = underway.begin([A, B]);
        let begun = Instant::now();
        underway.lets_go_of(ELSEWHERE).await;
        assert_eq!(begun.elapsed(), PATIENCE);
        drop(change);
        assert!(underway.lets_go_of(ELSEWHERE).now_or_never().is_some());
    }
}
