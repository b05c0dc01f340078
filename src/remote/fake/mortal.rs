//! The network as a process sees it that may be killed.

use tokio::sync::watch;

use super::*;

/// The way to the cluster of a process that can be killed: nothing more leaves it then, and nothing comes back.
pub struct Mortal {
    net: FakeNet,
    dead: watch::Sender<bool>,
}

impl Mortal {
    pub fn new(meta: Arc<FakeMeta>) -> Mortal {
        Mortal { net: FakeNet(meta), dead: watch::channel(false).0 }
    }

    pub fn kill(&self) {
        self.dead.send_replace(true);
    }

    async fn death(&self) {
        let mut dead = self.dead.subscribe();
        drop(dead.wait_for(|dead| *dead).await);
    }

    async fn alive<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.death() => std::future::pending().await,
            done = work => done,
        }
    }
}

impl Transport for Mortal {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Frame, NetError>> {
        Box::pin(self.alive(self.net.call(address, request, deadline)))
    }

    fn subscribe<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Frame>, NetError>> {
        Box::pin(self.alive(self.net.subscribe(address, request)))
    }
}
