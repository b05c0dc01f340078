//! Asking a host whether anybody listens on a port.
//!
//! QUIC on its own cannot tell a killed process from a slow one before the idle timeout. The host can: it answers a
//! datagram to a port that nobody has open with an ICMP message, which the kernel reports on a *connected* UDP socket
//! as "connection refused". So beside QUIC's socket a second, connected one asks, with a byte that no QUIC endpoint
//! takes for a packet. A host that is down or filtered does not answer; then the timeouts decide, as before.
//!
//! A forged answer would have to name the probe's port, and could do no more than end a connection, which is dialled
//! again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use quinn::Connection;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::fault::code;

/// A connection on which nothing arrived for this long is asked after.
const QUIET: Duration = Duration::from_millis(200);
/// Between two questions to an address being dialled.
const DIAL_INTERVAL: Duration = Duration::from_millis(100);
/// An answer that takes longer is not waited for; the next question may bring it.
const ANSWER: Duration = Duration::from_millis(100);
/// Too short for any QUIC header.
const QUESTION: &[u8] = &[0];

/// Returns when the host at `target` says that nobody listens there; never, if it does not say so.
pub(super) async fn refusal(target: SocketAddr) {
    let Ok(socket) = connected(target).await else { return std::future::pending().await };
    while !refuses(&socket).await {
        sleep(DIAL_INTERVAL).await;
    }
}

/// Closes `connection` when its peer's host says that the peer is gone. Returns when the connection is closed.
pub(super) async fn watch(connection: Connection, target: SocketAddr) {
    let watched = async {
        let socket = connected(target).await?;
        let mut heard = 0;
        loop {
            sleep(QUIET).await;
            let datagrams = connection.stats().udp_rx.datagrams;
            if datagrams == heard && refuses(&socket).await {
                return io::Result::Ok(());
            }
            heard = datagrams;
        }
    };
    tokio::select! {
        _ = connection.closed() => {}
        refused = watched => match refused {
            Ok(()) => {
                tracing::debug!(%target, "the peer is gone");
                connection.close(code::DONE, b"nobody listens there any more");
            }
            Err(error) => tracing::debug!(%target, %error, "no probe: a dead peer is noticed by the idle timeout only"),
        },
    }
}

/// Asks once.
async fn refuses(socket: &UdpSocket) -> bool {
    let is_refusal = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    // The answer to an earlier question may be reported by this send.
    if let Err(error) = socket.send(QUESTION).await {
        return is_refusal(error);
    }
    let mut nothing = [0; 16];
    match timeout(ANSWER, socket.recv(&mut nothing)).await {
        Ok(Err(error)) => is_refusal(error),
        Ok(Ok(_)) | Err(_) => false,
    }
}

async fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = match target {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}
