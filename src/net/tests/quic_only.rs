//! What only a real peer can do wrong: certificates, malformed bytes, a restart.

use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::Instant;

use super::{
    Arc, CLIENT, Duration, Frame, NetError, PATIENCE, Peer, QuicEndpoint, Role, Server, Service, Shutdown, TestService,
    Transport, authority, identity, join_call, pattern, text,
};
use crate::crypto::ca::ClusterAuthority;
use crate::crypto::tls;
use crate::net::knock::knock;
use crate::types::limits::BULK_BYTES_MAX;
use crate::wire::codec::{FLAG_FAULT, HEADER_BYTES, Header};

const META: Peer = Peer::new(Role::Meta, 1);

fn server(authority: &ClusterAuthority) -> (Server, Arc<TestService>) {
    let service = TestService::new();
    (Server::start("127.0.0.1:0", &identity(authority, META), service.clone()), service)
}

#[tokio::test]
async fn a_caller_without_certificate_is_nobody() {
    let authority = authority();
    let (server, _) = server(&authority);
    let reply = join_call(&server.address, authority.fingerprint(), text("who"), PATIENCE).await.unwrap();
    assert_eq!(reply.message, "None");
    let large = Frame { bulk: pattern(1 << 20), ..text("echo") };
    let reply = join_call(&server.address, authority.fingerprint(), large, PATIENCE).await;
    assert!(matches!(reply, Err(NetError::Refused { .. })), "{reply:?}");
    server.kill();
}

#[tokio::test]
async fn joining_another_cluster_is_refused() {
    let (server, service) = server(&authority());
    let reply = join_call(&server.address, [9; 32], text("who"), PATIENCE).await;
    assert!(matches!(reply, Err(NetError::Refused { .. })), "{reply:?}");
    assert_eq!(service.begun(), 0);
    server.kill();
}

#[tokio::test]
async fn members_of_another_cluster_are_refused() {
    let (server, service) = server(&authority());
    // The same cluster id, and still not the same authority.
    let stranger = QuicEndpoint::bind(None, &identity(&authority(), CLIENT)).unwrap();
    let reply = stranger.call(&server.address, text("echo"), PATIENCE).await;
    assert!(matches!(reply, Err(NetError::Refused { .. })), "{reply:?}");
    assert_eq!(service.begun(), 0);
    server.kill();
}

#[tokio::test]
async fn a_client_cannot_pose_as_a_server() {
    let authority = authority();
    let service = TestService::new();
    let poser = Server::start("127.0.0.1:0", &identity(&authority, CLIENT), service.clone());
    let client = QuicEndpoint::bind(None, &identity(&authority, CLIENT)).unwrap();
    let reply = client.call(&poser.address, text("echo"), PATIENCE).await;
    assert!(matches!(reply, Err(NetError::Refused { .. })), "{reply:?}");
    poser.kill();
}

/// Writes `bytes` as a request and reads the answer whole.
async fn send_raw(address: &str, authority: &ClusterAuthority, bytes: &[u8]) -> Vec<u8> {
    let config = tls::client_config(&identity(authority, CLIENT), tls::Cipher::default()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connection = endpoint.connect_with(config, address.parse().unwrap(), "holdfast").unwrap().await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    let _ = send.finish();
    receive.read_to_end(1 << 20).await.unwrap_or_default()
}

#[tokio::test]
async fn malformed_requests_are_told_so_and_not_served() {
    let authority = authority();
    let (server, service) = server(&authority);
    let good = Header { flags: 0, kind: 1, message_bytes: 4, bulk_bytes: 0 }.encode();
    let mut version = good;
    version[0] = 99;
    let oversize = Header { flags: 0, kind: 1, message_bytes: 4, bulk_bytes: BULK_BYTES_MAX as u32 + 1 }.encode();
    let trailing = [good.as_slice(), b"four", b"and more"].concat();
    for bytes in [version.as_slice(), &oversize, &trailing] {
        let reply = send_raw(&server.address, &authority, bytes).await;
        let header = Header::decode(reply.first_chunk::<HEADER_BYTES>().unwrap()).unwrap();
        assert_eq!(header.flags & FLAG_FAULT, FLAG_FAULT);
        assert!(String::from_utf8_lossy(&reply[HEADER_BYTES..]).len() > 10);
    }
    // Cut short: there is nobody to tell.
    assert!(send_raw(&server.address, &authority, &good[..7]).await.is_empty());
    assert!(send_raw(&server.address, &authority, &[good.as_slice(), b"fo"].concat()).await.is_empty());
    assert_eq!(service.begun(), 0);
    let client = QuicEndpoint::bind(None, &identity(&authority, CLIENT)).unwrap();
    client.call(&server.address, text("still here"), PATIENCE).await.unwrap();
    server.kill();
}

#[tokio::test]
async fn a_restart_is_noticed_long_before_the_idle_timeout() {
    let authority = authority();
    let identity_of_server = identity(&authority, META);
    let service = TestService::new();
    let first = Server::start("127.0.0.1:0", &identity_of_server, service.clone());
    let address = first.address.clone();
    let client = QuicEndpoint::bind(None, &identity(&authority, CLIENT)).unwrap();
    client.call(&address, text("warm"), PATIENCE).await.unwrap();
    first.kill();
    let second = loop {
        // The old runtime lets go of its socket in its own time.
        if std::net::UdpSocket::bind(&address).is_ok() {
            break Server::start(&address, &identity_of_server, service.clone());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let before = Instant::now();
    let lost = client.call(&address, text("echo"), PATIENCE).await;
    assert!(matches!(lost, Err(NetError::NoAnswer { .. })), "{lost:?}");
    assert!(before.elapsed() < Duration::from_secs(2), "noticed after {:?}", before.elapsed());
    client.call(&address, text("echo"), PATIENCE).await.unwrap();
    second.kill();
}

#[tokio::test]
async fn a_killed_process_is_noticed_long_before_the_idle_timeout() {
    let authority = authority();
    let (server, service) = server(&authority);
    let address = server.address.clone();
    let client = QuicEndpoint::bind(None, &identity(&authority, CLIENT)).unwrap();
    client.call(&address, text("warm"), PATIENCE).await.unwrap();
    let call = client.call(&address, text("park"), PATIENCE);
    let killer = async {
        while service.begun() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill();
        Instant::now()
    };
    let (lost, killed) = tokio::join!(call, killer);
    assert!(matches!(lost, Err(NetError::NoAnswer { .. })), "{lost:?}");
    assert!(killed.elapsed() < Duration::from_secs(2), "noticed after {:?}", killed.elapsed());
    let next = Instant::now();
    let refused = client.call(&address, text("echo"), PATIENCE).await;
    assert!(matches!(refused, Err(NetError::Unreachable { .. })), "{refused:?}");
    assert!(next.elapsed() < Duration::from_millis(700), "noticed after {:?}", next.elapsed());
}

#[tokio::test]
async fn a_stopping_server_ends_what_it_began_and_takes_no_more() {
    let authority = authority();
    let endpoint = QuicEndpoint::bind(Some("127.0.0.1:0".parse().unwrap()), &identity(&authority, META)).unwrap();
    let address = endpoint.local_address().to_string();
    let shutdown = Shutdown::new();
    let begun = Arc::new(tokio::sync::Notify::new());
    let service = Arc::new(Slow { begun: begun.clone() });
    let token = shutdown.clone();
    let serving = tokio::spawn(async move { endpoint.serve(service, token).await });
    let client = QuicEndpoint::bind(None, &identity(&authority, CLIENT)).unwrap();
    let slow = client.call(&address, text("slow"), PATIENCE);
    let late = async {
        begun.notified().await;
        shutdown.trigger();
        client.call(&address, text("late"), PATIENCE).await
    };
    let (slow, late) = tokio::join!(slow, late);
    assert_eq!(slow.unwrap().message, "slow");
    assert!(matches!(late, Err(NetError::Unreachable { .. })), "{late:?}");
    serving.await.unwrap();
}

/// Takes its time.
struct Slow {
    begun: Arc<tokio::sync::Notify>,
}

impl Service for Slow {
    fn serve(&self, call: super::Call) -> super::BoxFuture<'static, ()> {
        self.begun.notify_one();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            call.replier.reply(call.request).await;
        })
    }
}

#[tokio::test]
async fn names_are_resolved_and_unknown_ones_unreachable() {
    let authority = authority();
    let (server, _) = server(&authority);
    let client = QuicEndpoint::bind(None, &identity(&authority, CLIENT)).unwrap();
    let port = server.address.rsplit(':').next().unwrap();
    client.call(&format!("localhost:{port}"), text("echo"), PATIENCE).await.unwrap();
    for address in ["no-such-host.invalid:7001", "no port", ""] {
        let reply = client.call(address, text("echo"), PATIENCE).await;
        assert!(matches!(reply, Err(NetError::Unreachable { .. })), "{reply:?}");
    }
    server.kill();
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let authority = authority();
    let (server, _) = server(&authority);
    let error = QuicEndpoint::bind(Some(server.address.parse().unwrap()), &identity(&authority, META)).err().unwrap();
    assert!(error.to_string().contains(&server.address), "{error}");
    server.kill();
}

#[tokio::test]
async fn a_server_answers_a_knock() {
    let (server, service) = server(&authority());
    let address = server.address.parse().unwrap();
    let answered = tokio::task::spawn_blocking(move || knock(address, PATIENCE)).await.unwrap();
    assert!(answered.unwrap() < PATIENCE);
    assert_eq!(service.begun(), 0);
}
