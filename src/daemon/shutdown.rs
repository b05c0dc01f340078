//! The token by which a process is told to stop.

use std::sync::Arc;

use tokio::sync::watch;

/// Cloneable; all clones are one token. Once triggered it stays so.
#[derive(Clone, Debug)]
pub struct Shutdown {
    triggered: Arc<watch::Sender<bool>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown::new()
    }
}

impl Shutdown {
    pub fn new() -> Shutdown {
        Shutdown { triggered: Arc::new(watch::Sender::new(false)) }
    }

    pub fn trigger(&self) {
        self.triggered.send_replace(true);
    }

    pub fn is_triggered(&self) -> bool {
        *self.triggered.borrow()
    }

    /// Returns when the token is triggered, at once if it already was. Safe to drop and call again.
    pub async fn wait(&self) {
        // The sender lives in `self`, so the only end of the wait is the trigger.
        let _ = self.triggered.subscribe().wait_for(|triggered| *triggered).await;
    }

    /// Triggers on SIGTERM and SIGINT. A second signal ends the process at once: whoever sends it has waited enough.
    ///
    /// # Errors
    /// The handlers could not be installed.
    pub fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = self.clone();
        tokio::spawn(async move {
            loop {
                let number = tokio::select! {
                    _ = term.recv() => libc::SIGTERM,
                    _ = interrupt.recv() => libc::SIGINT,
                };
                if token.is_triggered() {
                    std::process::exit(128 + number);
                }
                token.trigger();
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_trigger_and_not_before() {
        let token = Shutdown::new();
        let other = token.clone();
        assert!(tokio::time::timeout(Duration::from_secs(60), other.wait()).await.is_err());
        token.trigger();
        other.wait().await;
        other.wait().await;
        assert!(other.is_triggered());
    }
}
