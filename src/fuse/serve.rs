//! How a request is answered: in the FUSE thread if that takes no waiting, on the runtime if it does.
//!
//! A future is polled once where the request came in. Handing it to another thread costs as much as the request itself,
//! and what is cached answers at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle as Runtime;

use super::caller::Caller;
use super::interrupt::{Signals, signalled};
use crate::client::api::Result;
use crate::client::calls::{Call, within};
use crate::types::error::FsError;

type Work<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// What becomes of the work when its process is signalled while it waits.
pub(super) enum Surrender<T> {
    /// It is dropped, which undoes it: waiting for a lock.
    Wait,
    /// It is dropped when the process dies: it changes nothing.
    Look,
    /// When the process dies it gets its answer, and the work goes on to its end: half a change is none.
    Change,
    /// As `Change`; and after this long it is answered that the cluster is away, for callers whom nobody can kill.
    Bounded(Duration),
    /// As `Change`; what came of it must then be given back.
    Obtain(Box<dyn FnOnce(T) -> BoxFuture<'static, ()> + Send>),
}

/// Runs `work` to its end and hands the result to `reply`, which sends it.
pub(super) fn serve<T: Send + 'static>(
    desk: &Desk,
    caller: Caller,
    surrender: Surrender<T>,
    work: impl Future<Output = Result<T>> + Send + 'static,
    reply: impl FnOnce(Result<T>) + Send + 'static,
) {
    let changes = matches!(surrender, Surrender::Change | Surrender::Bounded(_) | Surrender::Obtain(_));
    let call = if changes { desk.call(caller) } else { None };
    let mut work: Work<T> = Box::pin(within(call.clone(), work));
    match begin(&desk.runtime, &mut work) {
        Poll::Ready(result) => reply(result),
        Poll::Pending => {
            let parked = park(desk.afterwork.clone(), caller, surrender, work, reply);
            desk.runtime.spawn(async move {
                parked.await;
                drop(call);
            });
            return;
        }
    }
    // Until it is answered it is noted what came of it.
    drop(call);
}

/// Work that goes on after its request was answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Afterwork(Arc<AtomicUsize>);

struct Begun(Afterwork);

/// Where requests are worked on.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub runtime: Runtime,
    pub afterwork: Afterwork,
    /// Another process may have to answer what this one has begun.
    pub notes_calls: bool,
}

impl Desk {
    /// The call, where it is to be noted what came of it until it is answered.
    pub fn call(&self, caller: Caller) -> Option<Arc<Call>> {
        self.notes_calls.then(|| Call::new(caller.call))
    }

    pub fn new(runtime: Runtime, notes_calls: bool) -> Desk {
        Desk { runtime, afterwork: Afterwork::default(), notes_calls }
    }
}

impl Afterwork {
    pub fn is_done(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }

    fn begin(&self) -> Begun {
        self.0.fetch_add(1, Ordering::SeqCst);
        Begun(self.clone())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `work` to its end, and answers before it if it has to wait. For a file that is let go of: whoever does so cannot be
/// killed while the kernel waits for the answer, and may be a thread of ours that the work needs.
///
/// `before`: done before it is answered early.
pub(super) fn serve_leaving(
    desk: &Desk,
    before: impl FnOnce(),
    work: impl Future<Output = Result<()>> + Send + 'static,
    reply: impl FnOnce(Result<()>),
) {
    let mut work: Work<()> = Box::pin(work);
    match begin(&desk.runtime, &mut work) {
        Poll::Ready(result) => reply(result),
        Poll::Pending => {
            before();
            let begun = desk.afterwork.begin();
            desk.runtime.spawn(async move {
                if let Err(error) = work.await {
                    tracing::warn!(%error, "a file was let go of, and not all that it held");
                }
                drop(begun);
            });
            reply(Ok(()));
        }
    }
}

fn begin<T>(runtime: &Runtime, work: &mut Work<T>) -> Poll<Result<T>> {
    let _timers_and_tasks = runtime.enter();
    work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

async fn park<T>(
    afterwork: Afterwork,
    caller: Caller,
    surrender: Surrender<T>,
    mut work: Work<T>,
    reply: impl FnOnce(Result<T>),
) {
    let signals = if matches!(surrender, Surrender::Wait) { Signals::Any } else { Signals::Fatal };
    let patience = if let Surrender::Bounded(patience) = &surrender { Some(*patience) } else { None };
    let error = tokio::select! {
        biased;
        result = &mut work => return reply(result),
        () = signalled(caller, signals) => FsError::Interrupted,
        () = wait(patience) => FsError::Unreachable,
    };
    let _begun = afterwork.begin();
    reply(Err(error));
    match surrender {
        Surrender::Wait | Surrender::Look => drop(work),
        Surrender::Change | Surrender::Bounded(_) => drop(work.await),
        Surrender::Obtain(give_back) => {
            if let Ok(obtained) = work.await {
                give_back(obtained).await;
            }
        }
    }
}

/// For ever without a bound.
async fn wait(bound: Option<Duration>) {
    match bound {
        Some(bound) => tokio::time::sleep(bound).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const KERNEL: Caller = Caller { tid: 0, uid: 0, gid: 0, call: 0 };

    #[tokio::test(start_paused = true)]
    async fn who_cannot_be_killed_waits_for_so_long_and_the_work_goes_on() {
        let ((answer, answered), (done, ended)) = (oneshot::channel(), oneshot::channel());
        let work = async move {
            tokio::time::sleep(Duration::from_secs(50)).await;
            done.send(()).unwrap();
            Ok(())
        };
        let bound = Surrender::Bounded(Duration::from_secs(30));
        let begun = tokio::time::Instant::now();
        let desk = Desk::new(Runtime::current(), false);
        serve(&desk, KERNEL, bound, work, |result| answer.send(result).unwrap());
        assert_eq!(answered.await.unwrap(), Err(FsError::Unreachable));
        assert_eq!(begun.elapsed().as_secs(), 30);
        assert!(!desk.afterwork.is_done());
        ended.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_does_not_wait() {
        let ((answer, mut answered), (done, ended)) = (oneshot::channel(), oneshot::channel());
        let work = async move {
            tokio::time::sleep(Duration::from_secs(50)).await;
            done.send(()).unwrap();
            Err(FsError::Io)
        };
        let desk = Desk::new(Runtime::current(), false);
        serve_leaving(&desk, || (), work, |result| answer.send(result).unwrap());
        assert_eq!(answered.try_recv().unwrap(), Ok(()));
        assert!(!desk.afterwork.is_done());
        ended.await.unwrap();
        tokio::task::yield_now().await;
        assert!(desk.afterwork.is_done());
    }
}
