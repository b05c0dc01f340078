//! How a request is answered: in the FUSE thread if that takes no waiting, on the runtime if it does.
//!
//! A future is polled once where the request came in. Handing it to another thread costs as much as the request itself,
//! and what is cached answers at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle as Runtime;

use super::caller::Caller;
use super::interrupt::{Signals, signalled};
use crate::client::api::Result;
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
    /// As `Change`; what came of it must then be given back.
    Obtain(Box<dyn FnOnce(T) -> BoxFuture<'static, ()> + Send>),
}

/// Runs `work` to its end and hands the result to `reply`, which sends it.
pub(super) fn serve<T: Send + 'static>(
    runtime: &Runtime,
    caller: Caller,
    surrender: Surrender<T>,
    work: impl Future<Output = Result<T>> + Send + 'static,
    reply: impl FnOnce(Result<T>) + Send + 'static,
) {
    let mut work: Work<T> = Box::pin(work);
    let first = {
        let _timers_and_tasks = runtime.enter();
        work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    match first {
        Poll::Ready(result) => reply(result),
        Poll::Pending => drop(runtime.spawn(park(caller, surrender, work, reply))),
    }
}

async fn park<T>(caller: Caller, surrender: Surrender<T>, mut work: Work<T>, reply: impl FnOnce(Result<T>)) {
    let signals = if matches!(surrender, Surrender::Wait) { Signals::Any } else { Signals::Fatal };
    tokio::select! {
        biased;
        result = &mut work => return reply(result),
        () = signalled(caller, signals) => reply(Err(FsError::Interrupted)),
    }
    match surrender {
        Surrender::Wait | Surrender::Look => drop(work),
        Surrender::Change => drop(work.await),
        Surrender::Obtain(give_back) => {
            if let Ok(obtained) = work.await {
                give_back(obtained).await;
            }
        }
    }
}
