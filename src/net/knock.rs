//! Whether anybody speaks QUIC at an address, asked without being anybody: a packet of a version that there is not, which a server
//! answers with those that it knows (RFC 9000, 6.1). So a way that is closed to UDP shows before there is a credential.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const LONG_HEADER: u8 = 0xc0;
/// Of the form that is kept free for asking so.
const NO_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];
const CONNECTION_ID: [u8; 8] = *b"holdfast";
/// Servers answer nothing shorter.
const PACKET_BYTES: usize = 1200;
/// A packet may be lost.
const TRIES: u32 = 3;

/// How long the answer took.
///
/// # Errors
/// Nobody listens there (`ConnectionRefused`), or nobody answers in time (`TimedOut`).
pub fn knock(address: SocketAddr, patience: Duration) -> io::Result<Duration> {
    let any = if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind::<SocketAddr>(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(patience / TRIES))?;
    let mut answer = [0; PACKET_BYTES];
    for _ in 0..TRIES {
        let asked = Instant::now();
        socket.send(&question())?;
        match socket.recv(&mut answer) {
            Ok(count) if is_answer(&answer[..count]) => return Ok(asked.elapsed()),
            Ok(_) => return Err(io::Error::other("what answers there does not speak QUIC")),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

fn question() -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    let parts: [&[u8]; 5] = [&[LONG_HEADER], &NO_VERSION, &[8], &CONNECTION_ID, &[8]];
    let header: Vec<u8> = parts.concat().into_iter().chain(CONNECTION_ID).collect();
    packet[..header.len()].copy_from_slice(&header);
    packet
}

/// A long header of version 0, and our own connection id behind it.
fn is_answer(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0x80 != 0)
        && packet.get(1..5) == Some(&[0; 4])
        && packet.get(6..14) == Some(&CONNECTION_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_this_question_is_one() {
        let mut answer = vec![0x80, 0, 0, 0, 0, 8];
        answer.extend(CONNECTION_ID);
        assert!(is_answer(&answer));
        answer[1] = 1;
        assert!(!is_answer(&answer) && !is_answer(&question()) && !is_answer(&[]) && !is_answer(&[0x80, 0, 0, 0, 0]));
    }

    #[test]
    fn silence_and_nobody_are_told_apart() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let there = silent.local_addr().unwrap();
        assert_eq!(knock(there, Duration::from_millis(30)).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(silent);
        assert_eq!(knock(there, Duration::from_secs(10)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
