//! Waiting for what a cluster that is away may hold up: work that is begun goes on when nobody waits for it any more.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::Status;

use super::turns::Turn;

/// For how long a call waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience(pub Duration);

impl Patience {
    /// # Errors
    /// Those of the work. `ABORTED`: it is still under way.
    pub async fn in_time(self, work: impl Future<Output = Result<(), Status>> + Send + 'static) -> Result<(), Status> {
        match timeout(self.0, tokio::spawn(work)).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(Status::internal(error.to_string())),
            Err(_) => Err(Status::aborted("it is still under way: the cluster does not answer")),
        }
    }

    /// For what waits in the kernel. The turn is taken until it is done.
    ///
    /// # Errors
    /// As [`Patience::in_time`].
    pub async fn on_host(
        self,
        turn: Turn,
        work: impl FnOnce() -> Result<(), Status> + Send + 'static,
    ) -> Result<(), Status> {
        self.in_time(async move {
            let _turn = turn;
            spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))?
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::container::csi::turns::Turns;

    #[tokio::test]
    async fn what_takes_longer_goes_on_and_keeps_its_turn() {
        let (turns, (go, wait)) = (Turns::default(), mpsc::channel());
        let work = move || {
            let _ = wait.recv();
            Ok(())
        };
        let waited = Patience(Duration::from_millis(10)).on_host(turns.take("a").unwrap(), work).await;
        assert_eq!(waited.unwrap_err().code(), tonic::Code::Aborted);
        assert!(turns.take("a").is_err(), "it has ended with who waited for it");
        go.send(()).unwrap();
        while turns.take("a").is_err() {
            tokio::task::yield_now().await;
        }
    }
}
