//! Background tasks with a name and an end.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::shutdown::Shutdown;

/// The tasks of one process. Each gets the shutdown token and must end soon after it is triggered.
pub struct Workers {
    shutdown: Shutdown,
    running: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
}

impl Workers {
    pub fn new(shutdown: Shutdown) -> Workers {
        Workers { shutdown, running: Mutex::new(Vec::new()) }
    }

    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts `task`, which is given the token.
    pub fn spawn<T, F>(&self, name: &'static str, task: T)
    where
        T: FnOnce(Shutdown) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let handle = tokio::spawn(task(self.shutdown.clone()));
        let mut running = self.running.lock();
        running.retain(|(_, handle)| !handle.is_finished());
        running.push((name, handle));
    }

    /// Triggers the token and waits until every task has ended; one that takes longer than `patience` is named in the
    /// log and cut off.
    pub async fn stop(&self, patience: Duration) {
        self.shutdown.trigger();
        let deadline = tokio::time::Instant::now() + patience;
        let running = std::mem::take(&mut *self.running.lock());
        for (name, mut handle) in running {
            match tokio::time::timeout_at(deadline, &mut handle).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(worker = name, %error, "worker failed"),
                Err(_) => {
                    tracing::warn!(worker = name, "worker did not stop in time");
                    handle.abort();
                }
            }
        }
    }
}

/// From now on a panic in any thread or task ends the process.
///
/// A panic is a broken promise inside the program: whatever the task was keeping (a lease, a queue, a log position) is
/// in an unknown state, and tokio would quietly drop the task and let the rest go on as if it were still at work. Every
/// role is built to be killed at any moment and to recover from what it made durable, so stopping is the safe thing to
/// do; limping is not. The release profile aborts anyway, this makes the others do the same.
pub fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        tracing::error!("{panic}");
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stop_waits_for_the_last_steps_of_a_worker() {
        let workers = Workers::new(Shutdown::new());
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        workers.spawn("tidy", |shutdown| async move {
            shutdown.wait().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            flag.store(true, Ordering::SeqCst);
        });
        workers.stop(Duration::from_secs(5)).await;
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_end_is_cut_off() {
        let workers = Workers::new(Shutdown::new());
        workers.spawn("stuck", |_| std::future::pending());
        let before = tokio::time::Instant::now();
        workers.stop(Duration::from_secs(5)).await;
        assert_eq!(before.elapsed().as_secs(), 5);
    }
}
