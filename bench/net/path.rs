//! A network path: a relay of datagrams that takes its time and loses some.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// All that a sender may have on its way: the path loses what it is told to and no more.
const SOCKET_BUFFER_BYTES: libc::c_int = 256 << 20;

#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// In each direction.
    pub delay: Duration,
    /// One datagram in so many is lost.
    pub loses_one_in: u64,
}

/// A path to one server. It ends when this is dropped: one that ran on would take its time from what is measured next.
pub struct Relay {
    /// Whom to dial in the server's place.
    pub address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

pub fn through(path: Path, server: SocketAddr) -> Relay {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("an address");
    let bytes = SOCKET_BUFFER_BYTES;
    // SAFETY: the descriptor is open, and the value is an int of the length given.
    unsafe {
        let (value, len) = ((&raw const bytes).cast(), size_of_val(&bytes) as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, len);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, value, len);
    }
    socket.set_nonblocking(true).expect("a socket that does not block");
    let over = Arc::new(AtomicBool::new(false));
    let ends = over.clone();
    thread::spawn(move || relay(&socket, path, server, &ends));
    Relay { address, over }
}

fn relay(socket: &UdpSocket, path: Path, server: SocketAddr, over: &AtomicBool) {
    let mut client = server;
    let mut under_way: VecDeque<(Instant, SocketAddr, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    // xorshift, by Marsaglia: the same datagrams are lost in each run.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while !over.load(Ordering::Relaxed) {
        let mut idle = true;
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            idle = false;
            let to = if from == server { client } else { server };
            if from != server {
                client = from;
            }
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if !random.is_multiple_of(path.loses_one_in) {
                under_way.push_back((Instant::now() + path.delay, to, buffer[..len].to_vec()));
            }
        }
        while under_way.front().is_some_and(|(due, _, _)| *due <= Instant::now()) {
            if let Some((_, to, datagram)) = under_way.pop_front() {
                // A full buffer loses it, as any router would.
                let _ = socket.send_to(&datagram, to);
            }
        }
        if idle {
            thread::sleep(Duration::from_micros(50));
        }
    }
}
