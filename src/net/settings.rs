//! QUIC for a storage cluster: quinn's defaults are for the internet, these are for a data centre's network.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    TransportConfig, VarInt,
};

use crate::crypto::identity::Identity;
use crate::crypto::tls::Cipher;
use crate::host::chance;
use crate::types::digest::{derived_key, keyed};

/// A dial that takes longer has failed: within a data centre an answer takes a millisecond.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The dialling side shows that it lives this often when there is nothing else to send.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A peer that was silent for this long is dead: three keep-alives lost and a slow one.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Calls under way on one connection.
const STREAMS_MAX: u32 = 4096;
/// Of all streams of a connection together, in each direction.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Before the first measurement. Too low costs a handshake packet sent twice, too high a slow start.
const INITIAL_RTT: Duration = Duration::from_millis(2);
/// What the kernel is asked to hold for us while we are not scheduled.
pub const SOCKET_BUFFER_BYTES: libc::c_int = 8 << 20;
const CONNECTION_ID_BYTES: usize = 8;

/// What can be chosen otherwise, for the benchmark that shows what each choice brings (`bench/net`, with the figures in
/// `bench/NET.md`). Everybody else takes the default.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The largest packet that discovery looks for; on a path that carries less it settles for less (1,452 on Ethernet). It
    /// starts from 1,200, which every path carries, an overlay network's too.
    ///
    /// quinn hands ten packets to the kernel at once (segmentation offload), and together they must stay below the 64 KiB of
    /// one UDP send: with larger ones every burst is lost, so for jumbo frames the offload would have to go.
    pub packet_bytes: u16,
    pub segmentation_offload: bool,
    /// How many packets the peer may leave unacknowledged; by itself it acknowledges every other.
    pub ack_every: Option<u32>,
    pub congestion: Congestion,
    /// What is sent before the first acknowledgement.
    pub initial_window_bytes: u64,
    /// How much one call may have on its way.
    pub stream_window_bytes: u32,
    pub cipher: Cipher,
}

/// How a sender judges what the path carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    Cubic,
    NewReno,
    Bbr,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            packet_bytes: 6_500,
            segmentation_offload: true,
            ack_every: None,
            congestion: Congestion::Cubic,
            initial_window_bytes: 1 << 20,
            stream_window_bytes: 16 << 20,
            cipher: Cipher::default(),
        }
    }
}

/// The settings of every connection, of both sides.
pub(super) fn transport(tuning: &Tuning) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(tuning.packet_bytes);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(tuning.stream_window_bytes))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(discovery))
        .enable_segmentation_offload(tuning.segmentation_offload)
        .congestion_controller_factory(congestion(tuning));
    if let Some(ack_every) = tuning.ack_every {
        let mut frequency = AckFrequencyConfig::default();
        frequency.ack_eliciting_threshold(VarInt::from_u32(ack_every));
        config.ack_frequency_config(Some(frequency));
    }
    Arc::new(config)
}

fn congestion(tuning: &Tuning) -> Arc<dyn ControllerFactory + Send + Sync> {
    let window = tuning.initial_window_bytes;
    match tuning.congestion {
        Congestion::Cubic => {
            let mut config = CubicConfig::default();
            config.initial_window(window);
            Arc::new(config)
        }
        Congestion::NewReno => {
            let mut config = NewRenoConfig::default();
            config.initial_window(window);
            Arc::new(config)
        }
        Congestion::Bbr => {
            let mut config = BbrConfig::default();
            config.initial_window(window);
            Arc::new(config)
        }
    }
}

/// The settings of an endpoint.
///
/// A process that was killed and started again does not know its old connections. It says so (QUIC's stateless reset),
/// and the peer believes it because the reset is made with a key that only this member has, and has again after the
/// start. So its peers dial again at once instead of waiting for the idle timeout.
pub(super) fn endpoint(identity: &Identity, tuning: &Tuning) -> EndpointConfig {
    let key = derived_key("holdfast 2025 quic stateless reset", &identity.key_der);
    let mut config = EndpointConfig::new(Arc::new(ResetKey(key)));
    config.cid_generator(|| Box::new(RandomIds));
    // Cannot fail: the value is over the 1,200 that QUIC asks for.
    let _ = config.max_udp_payload_size(tuning.packet_bytes);
    config
}

/// A UDP socket: on `listen`, or on any free port, for IPv4 and IPv6 where the host has both.
///
/// # Errors
/// The address is taken, or not ours.
pub(super) fn socket(listen: Option<SocketAddr>) -> io::Result<UdpSocket> {
    let socket = match listen {
        Some(address) => UdpSocket::bind(address)?,
        None => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?,
    };
    set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF);
    set_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF);
    Ok(socket)
}

/// Asks for a big buffer. Only the privileged get more than the host's limit; with less, bursts are lost and sent again,
/// which is slower and nothing else.
fn set_buffer(socket: &UdpSocket, force: libc::c_int, ask: libc::c_int) {
    for option in [force, ask] {
        let bytes = SOCKET_BUFFER_BYTES;
        // SAFETY: the descriptor is open, and the value is an int of the length given.
        let failed = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                size_of_val(&bytes) as libc::socklen_t,
            )
        };
        if failed == 0 {
            return;
        }
    }
}

/// Stateless reset tokens by keyed BLAKE3.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let signature = keyed(&self.0, data);
        let count = signature_out.len().min(signature.len());
        signature_out[..count].copy_from_slice(&signature[..count]);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = keyed(&self.0, data);
        // Compared without an early end: how much was right must not show in the time it takes.
        let difference = expected.iter().zip(signature).fold(0, |sum, (a, b)| sum | (a ^ b));
        if signature.len() == expected.len() && difference == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ResetKey")
    }
}

/// Connection ids that any run of the program accepts as possibly its own: without that, a restarted process would
/// ignore packets of old connections instead of resetting them.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&chance::bytes::<CONNECTION_ID_BYTES>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
