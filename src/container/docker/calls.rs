//! Connections of Docker's, each with one call, that outlive the plugin.
//!
//! Docker makes a call again whose connection has ended without an answer, and says nothing the second time: what it has to say it has
//! read to its end ([moby#39331](https://github.com/moby/moby/issues/39331)). So such a connection is not to end. The service manager keeps
//! a copy of each ([`Manager`]), and what Docker says is looked at and not taken (`MSG_PEEK`): when the plugin is killed, the next one
//! is handed the connection, reads the same call from its beginning, and answers.
//!
//! In order: accepted, kept, read, answered, taken, forgotten, closed. A connection has one call, as there would be no beginning otherwise;
//! one that is closed in order without an answer is left to the next plugin. Where there is no service manager a call ends with the plugin.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use crate::keeper::manager::Manager;

/// What the names of those that are kept begin with.
pub(super) const NAME: &str = "call-";
/// After an accept that failed for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// What is left of a call is taken in parts of this.
const PART_BYTES: usize = 4 << 10;

/// A call that the plugin before has not answered, and the name by which it is kept.
pub type Left = (String, StdStream);

/// Where calls come from: first those that are left.
pub struct Calls {
    listener: UnixListener,
    left: Vec<Left>,
    manager: Option<Arc<Manager>>,
    made: u64,
}

impl Calls {
    pub fn new(listener: UnixListener, left: Vec<Left>, manager: Option<Manager>) -> Calls {
        if !left.is_empty() {
            tracing::info!(
                calls = left.len(),
                "the plugin before has ended in the middle of these: they are answered now"
            );
        }
        Calls { listener, left, manager: manager.map(Arc::new), made: 0 }
    }

    /// Of a connection that was not kept yet.
    fn keep(&mut self, stream: UnixStream) -> io::Result<Call> {
        let name = format!("{NAME}{}-{}", std::process::id(), self.made);
        self.made += 1;
        if let Some(manager) = &self.manager {
            manager.keep_connection(&name, stream.as_fd());
        }
        Call::begin(stream, name, self.manager.clone())
    }

    fn go_on(&self, (name, stream): Left) -> io::Result<Call> {
        stream.set_nonblocking(true)?;
        Call::begin(UnixStream::from_std(stream)?, name, self.manager.clone())
    }
}

impl Listener for Calls {
    type Io = Call;
    type Addr = ();

    async fn accept(&mut self) -> (Call, ()) {
        loop {
            let call = match self.left.pop() {
                Some(left) => self.go_on(left),
                None => match self.listener.accept().await {
                    Ok((stream, _)) => self.keep(stream),
                    Err(error) => Err(error),
                },
            };
            match call {
                Ok(call) => return (call, ()),
                Err(error) => {
                    tracing::warn!(%error, "a call of Docker's cannot be taken");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection with one call.
pub struct Call {
    stream: UnixStream,
    name: String,
    manager: Option<Arc<Manager>>,
    /// Something of it.
    is_read: bool,
    is_answered: bool,
    /// Answered, or left to the next plugin.
    is_over: bool,
}

/// What was begun, and has become of none of the two, has failed: Docker is not to wait for it.
impl Drop for Call {
    fn drop(&mut self) {
        if self.is_read && !self.is_over {
            self.forget();
        }
    }
}

impl Call {
    /// What is said on it is read from its beginning, whoever has looked at it before.
    fn begin(stream: UnixStream, name: String, manager: Option<Arc<Manager>>) -> io::Result<Call> {
        let call = Call { stream, name, manager, is_read: false, is_answered: false, is_over: false };
        let offset: libc::c_int = 0;
        // SAFETY: an open socket, and a number with its size.
        let set = unsafe {
            libc::setsockopt(
                call.stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEEK_OFF,
                (&raw const offset).cast(),
                size_of_val(&offset) as u32,
            )
        };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(call) }
    }

    /// From where it was looked at last.
    fn look(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: an open socket, and a buffer with its size.
        let count = unsafe { libc::recv(self.stream.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Docker would be told of an error if something were left unread.
    fn end(&self) {
        let mut part = [0; PART_BYTES];
        while matches!(self.stream.try_read(&mut part), Ok(1..)) {}
        self.forget();
    }

    fn forget(&self) {
        if let Some(manager) = &self.manager {
            manager.forget(&self.name);
        }
    }
}

impl AsyncRead for Call {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_io(Interest::READABLE, || self.look(buffer.initialize_unfilled())) {
                Ok(count) => {
                    buffer.advance(count);
                    self.is_read |= count > 0;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Call {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_answered = true;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_over = true;
        if !self.is_answered {
            return Poll::Ready(Ok(()));
        }
        self.end();
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::path::Path;
    use std::sync::mpsc::{Sender, channel};

    use axum::Router;
    use axum::body::Bytes;
    use axum::http::header::CONNECTION;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::keeper::manager::Told;

    const CALL: &[u8] = b"POST /call HTTP/1.1\r\nHost: plugin\r\nContent-Length: 4\r\n\r\nname";
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A plugin that answers with what it was asked, or never.
    fn plugin(dir: &Path, left: Vec<Left>, read: Sender<Bytes>, answers: bool) -> Runtime {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _guard = runtime.enter();
        let path = dir.join("socket");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        let calls = Calls::new(listener, left, Some(Manager::at(&dir.join("manager")).unwrap()));
        let answer = async move |body: Bytes| {
            read.send(body.clone()).unwrap();
            if !answers {
                std::future::pending::<()>().await;
            }
            ([(CONNECTION, "close")], body)
        };
        let router = Router::new().route("/call", post(answer));
        runtime.spawn(async move { axum::serve(calls, router).await });
        runtime
    }

    #[test]
    fn a_call_outlives_plugins_that_die_before_they_have_answered() {
        let dir = tempfile::tempdir().unwrap();
        let told = Told::listen(&dir.path().join("manager"));
        let (read, was_read) = channel();
        let first = plugin(dir.path(), Vec::new(), read.clone(), false);
        let mut docker = StdStream::connect(dir.path().join("socket")).unwrap();
        docker.set_read_timeout(Some(PATIENCE)).unwrap();
        docker.write_all(CALL).unwrap();
        let (said, mut kept) = told.next();
        let name = said.strip_prefix("FDSTORE=1\nFDNAME=").unwrap().to_string();
        assert!(name.starts_with(NAME), "{name}");
        assert_eq!(was_read.recv_timeout(PATIENCE).unwrap(), "name");
        // Who is killed says nothing; here it is dropped, and what it says then is not gone by.
        let dies = |plugin: Runtime| {
            drop(plugin);
            assert_eq!(told.next().0, format!("FDSTOREREMOVE=1\nFDNAME={name}"));
        };
        dies(first);

        // The manager keeps its own, whoever has been given a copy.
        let kept = StdStream::from(kept.pop().unwrap());
        let left = || vec![(name.clone(), kept.try_clone().unwrap())];
        let second = plugin(dir.path(), left(), read.clone(), false);
        assert_eq!(was_read.recv_timeout(PATIENCE).unwrap(), "name");
        dies(second);

        let _third = plugin(dir.path(), left(), read, true);
        let mut answer = String::new();
        docker.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nname"), "{answer}");
        let (said, _) = told.next();
        assert_eq!(said, format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    #[tokio::test]
    async fn a_call_that_fails_here_is_kept_by_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let told = Told::listen(&dir.path().join("manager"));
        let manager = Some(Arc::new(Manager::at(&dir.path().join("manager")).unwrap()));
        let (mut docker, stream) = UnixStream::pair().unwrap();
        let copy = stream.as_fd().try_clone_to_owned().unwrap();
        // One that a plugin has not come to before it ends is kept.
        drop(Call::begin(stream, "call-0".to_string(), manager.clone()).unwrap());
        docker.write_all(CALL).await.unwrap();
        let mut call = Call::begin(UnixStream::from_std(copy.into()).unwrap(), "call-1".to_string(), manager).unwrap();
        call.read_exact(&mut [0; 9]).await.unwrap();
        // As when its task panics.
        drop(call);
        assert_eq!(told.next().0, "FDSTOREREMOVE=1\nFDNAME=call-1");
        // Something was left unread.
        assert!(docker.read(&mut [0; 9]).await.is_err());
    }

    #[tokio::test]
    async fn a_call_that_is_not_answered_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let told = Told::listen(&dir.path().join("manager"));
        let begin = |stream, name: &str| {
            let manager = Some(Arc::new(Manager::at(&dir.path().join("manager")).unwrap()));
            Call::begin(stream, name.to_string(), manager).unwrap()
        };
        let (mut docker, stream) = UnixStream::pair().unwrap();
        let copy = stream.as_fd().try_clone_to_owned().unwrap();
        docker.write_all(CALL).await.unwrap();
        let mut call = begin(stream, "call-1");
        let mut part = [0; 9];
        call.read_exact(&mut part).await.unwrap();
        call.shutdown().await.unwrap();
        drop(call);

        let mut call = begin(UnixStream::from_std(copy.into()).unwrap(), "call-2");
        let mut whole = vec![0; CALL.len()];
        call.read_exact(&mut whole).await.unwrap();
        assert_eq!(whole, CALL);
        call.write_all(b"answer").await.unwrap();
        call.shutdown().await.unwrap();
        drop(call);
        let mut answer = String::new();
        docker.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        assert_eq!(told.next().0, "FDSTOREREMOVE=1\nFDNAME=call-2", "the first was to be kept");
    }
}
