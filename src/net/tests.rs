//! What both networks promise, tried on both: QUIC over loopback and the simulated one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;

use super::quic::{QuicEndpoint, join_call};
use super::sim::SimNet;
use super::{BoxFuture, Call, Frame, NetError, Peer, Service, Transport};
use crate::crypto::Holder;
use crate::crypto::ca::ClusterAuthority;
use crate::crypto::identity::Identity;
use crate::daemon::shutdown::Shutdown;
use crate::types::id::ClusterId;
use crate::types::limits::{BULK_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::types::record::Role;

mod quic_only;
mod sim_only;

const PATIENCE: Duration = Duration::from_secs(20);
const CLIENT: Peer = Peer { reads_only: true, ..Peer::new(Role::Client, 42) };
const KIND: u16 = 77;

/// Does what the message says.
struct TestService {
    /// Calls that came to the service.
    begun: AtomicUsize,
    /// Calls whose caller is known to have gone.
    closed: watch::Sender<usize>,
}

impl TestService {
    fn new() -> Arc<TestService> {
        Arc::new(TestService { begun: AtomicUsize::new(0), closed: watch::Sender::new(0) })
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    async fn closed_once(&self) {
        timeout(PATIENCE, self.closed.subscribe().wait_for(|count| *count > 0)).await.unwrap().unwrap();
    }

    async fn handle(self: Arc<Self>, call: Call) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let Call { peer, request, replier } = call;
        match request.message.as_ref() {
            b"who" => replier.reply(text(&format!("{peer:?}"))).await,
            b"park" => {
                replier.closed().await;
                self.closed.send_modify(|count| *count += 1);
            }
            b"mute" => {}
            b"count" => {
                for number in 0..100 {
                    assert!(replier.send(text(&number.to_string())).await);
                }
            }
            b"flood" => {
                while replier.send(Frame { bulk: Bytes::from(vec![1; 1 << 16]), ..text("drop") }).await {}
                self.closed.send_modify(|count| *count += 1);
            }
            _ => replier.reply(request).await,
        }
    }
}

/// The service as a network takes it.
struct Served(Arc<TestService>);

impl Service for Served {
    fn serve(&self, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(self.0.clone().handle(call))
    }
}

/// One server, and a client to call it with.
struct Rig {
    address: String,
    client: Arc<dyn Transport>,
    service: Arc<TestService>,
    kill: Box<dyn FnOnce() + Send>,
}

impl Rig {
    async fn call(&self, request: Frame) -> Result<Frame, NetError> {
        self.client.call(&self.address, request, PATIENCE).await
    }
}

fn text(message: &str) -> Frame {
    Frame { kind: KIND, message: Bytes::copy_from_slice(message.as_bytes()), bulk: Bytes::new() }
}

fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|at| ((at * 31) >> 3) as u8).collect()
}

fn authority() -> ClusterAuthority {
    ClusterAuthority::create(ClusterId([5; 16])).unwrap()
}

fn identity(authority: &ClusterAuthority, peer: Peer) -> Identity {
    let Peer { role, id, reads_only } = peer;
    Identity::issue_to(authority, Holder { role, id, reads_only }).unwrap()
}

/// A server in a runtime of its own, so that it can be killed without a farewell.
struct Server {
    address: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    fn start(listen: &str, identity: &Identity, service: Arc<TestService>) -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let endpoint = QuicEndpoint::bind(Some(listen.parse().unwrap()), identity).unwrap();
        drop(entered);
        let address = endpoint.local_address().to_string();
        runtime.spawn(async move { endpoint.serve(Arc::new(Served(service)), Shutdown::new()).await });
        Server { address, runtime: Some(runtime) }
    }

    /// As by kill -9: dropping the runtime drops every task where it stands, and says goodbye to nobody.
    fn kill(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn quic_rig() -> Rig {
    let authority = authority();
    let service = TestService::new();
    let server = Server::start("127.0.0.1:0", &identity(&authority, Peer::new(Role::Meta, 1)), service.clone());
    let client = Arc::new(QuicEndpoint::bind(None, &identity(&authority, CLIENT)).unwrap());
    Rig { address: server.address.clone(), client, service, kill: Box::new(move || server.kill()) }
}

async fn sim_rig() -> Rig {
    let net = SimNet::new(7);
    let service = TestService::new();
    net.register("meta-1", Arc::new(Served(service.clone())));
    let client = net.transport(CLIENT, "client-42");
    Rig { address: "meta-1".into(), client, service, kill: Box::new(move || net.kill("meta-1")) }
}

macro_rules! on_both {
    ($($name:ident)*) => {
        mod over_quic {
            $(
            #[tokio::test]
            async fn $name() {
                super::$name(super::quic_rig().await).await;
            }
            )*
        }
        mod simulated {
            $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(super::sim_rig().await).await;
            }
            )*
        }
    };
}

on_both! {
    a_call_brings_back_what_was_sent
    the_largest_frames_pass
    oversize_requests_are_not_sent
    many_calls_run_at_once
    the_service_knows_the_caller
    a_deadline_ends_the_call_and_tells_the_peer
    a_dropped_call_tells_the_peer
    no_reply_is_no_answer
    nobody_there_is_unreachable
    death_in_mid_call_is_no_answer
    a_subscription_brings_all_in_order_and_ends
    a_dropped_subscription_tells_the_peer
}

async fn a_call_brings_back_what_was_sent(rig: Rig) {
    for bytes in [0, 1, 1452, 100_000] {
        let request = Frame { bulk: pattern(bytes), ..text("echo") };
        let reply = rig.call(request).await.unwrap();
        assert_eq!((reply.kind, reply.message.as_ref()), (KIND, b"echo".as_ref()));
        assert_eq!(reply.bulk, pattern(bytes));
    }
}

async fn the_largest_frames_pass(rig: Rig) {
    let request = Frame { kind: KIND, message: pattern(MESSAGE_BYTES_MAX), bulk: pattern(BULK_BYTES_MAX) };
    let reply = rig.call(request.clone()).await.unwrap();
    assert!(reply.message == request.message && reply.bulk == request.bulk);
}

async fn oversize_requests_are_not_sent(rig: Rig) {
    let request = Frame { bulk: Bytes::from(vec![0; BULK_BYTES_MAX + 1]), ..text("echo") };
    assert!(matches!(rig.call(request).await, Err(NetError::Refused { .. })));
    assert_eq!(rig.service.begun(), 0);
}

async fn many_calls_run_at_once(rig: Rig) {
    let calls = (0..500).map(|number: u32| {
        let request = Frame { bulk: pattern(number as usize * 10), ..text(&number.to_string()) };
        let reply = rig.call(request.clone());
        async move {
            let reply = reply.await.unwrap();
            assert!(reply.message == request.message && reply.bulk == request.bulk);
        }
    });
    join_all(calls).await;
    assert_eq!(rig.service.begun(), 500);
}

async fn the_service_knows_the_caller(rig: Rig) {
    let reply = rig.call(text("who")).await.unwrap();
    assert_eq!(reply.message, format!("{:?}", Some(CLIENT)));
}

async fn a_deadline_ends_the_call_and_tells_the_peer(rig: Rig) {
    rig.call(text("warm")).await.unwrap();
    let late = rig.client.call(&rig.address, text("park"), Duration::from_millis(100)).await;
    assert!(matches!(late, Err(NetError::NoAnswer { .. })), "{late:?}");
    rig.service.closed_once().await;
}

async fn a_dropped_call_tells_the_peer(rig: Rig) {
    rig.call(text("warm")).await.unwrap();
    let call = rig.call(text("park"));
    assert!(timeout(Duration::from_millis(100), call).await.is_err());
    rig.service.closed_once().await;
}

async fn no_reply_is_no_answer(rig: Rig) {
    let reply = rig.call(text("mute")).await;
    assert!(matches!(reply, Err(NetError::NoAnswer { .. })), "{reply:?}");
}

async fn nobody_there_is_unreachable(rig: Rig) {
    // Bound and deaf: nothing else can take the port meanwhile.
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let reply = rig.client.call(&address, text("echo"), PATIENCE).await;
    assert!(matches!(reply, Err(NetError::Unreachable { .. })), "{reply:?}");
}

async fn death_in_mid_call_is_no_answer(rig: Rig) {
    let Rig { address, client, service, kill } = rig;
    client.call(&address, text("warm"), PATIENCE).await.unwrap();
    let call = client.call(&address, text("park"), PATIENCE);
    let killer = async {
        while service.begun() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        kill();
    };
    let before = tokio::time::Instant::now();
    let (reply, ()) = tokio::join!(call, killer);
    assert!(matches!(reply, Err(NetError::NoAnswer { .. })), "{reply:?}");
    assert!(before.elapsed() < Duration::from_secs(6), "noticed after {:?}", before.elapsed());
    let next = client.call(&address, text("echo"), PATIENCE).await;
    assert!(matches!(next, Err(NetError::Unreachable { .. })), "{next:?}");
}

async fn a_subscription_brings_all_in_order_and_ends(rig: Rig) {
    let mut frames = rig.client.subscribe(&rig.address, text("count")).await.unwrap();
    for number in 0..100 {
        let frame = timeout(PATIENCE, frames.recv()).await.unwrap().unwrap();
        assert_eq!(frame.message, number.to_string());
    }
    assert!(timeout(PATIENCE, frames.recv()).await.unwrap().is_none());
}

async fn a_dropped_subscription_tells_the_peer(rig: Rig) {
    let mut frames = rig.client.subscribe(&rig.address, text("flood")).await.unwrap();
    for _ in 0..10 {
        timeout(PATIENCE, frames.recv()).await.unwrap().unwrap();
    }
    drop(frames);
    rig.service.closed_once().await;
}
