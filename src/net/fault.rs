//! What went wrong with a connection, told truthfully: did the peer possibly act on the request, or surely not?

use quinn::{ConnectionError, ReadError, VarInt};

use super::NetError;
use super::frame::FrameError;

/// Application codes with which connections are closed and streams reset.
pub(super) mod code {
    use quinn::VarInt;

    pub const DONE: VarInt = VarInt::from_u32(0);
    /// The server is stopping: what it resets with this, it has not looked at.
    pub const STOPPING: VarInt = VarInt::from_u32(1);
    pub const MALFORMED: VarInt = VarInt::from_u32(2);
    /// The caller does not want the answer any more.
    pub const CANCELLED: VarInt = VarInt::from_u32(3);
    /// The certificate is valid and still not good enough.
    pub const REFUSED: VarInt = VarInt::from_u32(4);
}

/// TLS alerts with which a peer refuses our certificate or our protocol. All end the handshake, so nothing we sent was
/// looked at.
const REFUSALS: &[u64] = &[
    40,  // handshake_failure
    42,  // bad_certificate
    43,  // unsupported_certificate
    44,  // certificate_revoked
    45,  // certificate_expired
    46,  // certificate_unknown
    48,  // unknown_ca
    49,  // access_denied
    51,  // decrypt_error
    116, // certificate_required
    120, // no_application_protocol
];

pub(super) fn unreachable(address: &str, why: impl ToString) -> NetError {
    NetError::Unreachable { address: address.into(), why: why.to_string() }
}

pub(super) fn no_answer(address: &str, why: impl ToString) -> NetError {
    NetError::NoAnswer { address: address.into(), why: why.to_string() }
}

pub(super) fn refused(address: &str, why: impl ToString) -> NetError {
    NetError::Refused { address: address.into(), why: why.to_string() }
}

/// The connection failed before the whole of a request was sent.
pub(super) fn before_sending(address: &str, error: &ConnectionError) -> NetError {
    if is_refusal(error) { refused(address, error) } else { unreachable(address, error) }
}

/// The connection failed after a request was sent.
pub(super) fn after_sending(address: &str, error: &ConnectionError) -> NetError {
    if is_refusal(error) { refused(address, error) } else { no_answer(address, error) }
}

/// No reply could be read.
pub(super) fn reading(address: &str, error: FrameError) -> NetError {
    match error {
        FrameError::Lost(ReadError::ConnectionLost(error)) => after_sending(address, &error),
        FrameError::Lost(ReadError::Reset(code)) => reset(address, code),
        FrameError::Lost(error) => no_answer(address, error),
        FrameError::Truncated => no_answer(address, error),
        FrameError::Malformed(_) | FrameError::TooLarge(_) | FrameError::Trailing => {
            NetError::Malformed { address: address.into(), why: error.to_string() }
        }
    }
}

/// The peer gave up the stream of a call.
pub(super) fn reset(address: &str, code: VarInt) -> NetError {
    match code {
        code::STOPPING => unreachable(address, "it is stopping"),
        code => no_answer(address, format!("it dropped the call (code {code})")),
    }
}

fn is_refusal(error: &ConnectionError) -> bool {
    let code: u64 = match error {
        ConnectionError::TransportError(error) => error.code.into(),
        ConnectionError::ConnectionClosed(close) => close.error_code.into(),
        ConnectionError::ApplicationClosed(close) => return close.error_code == code::REFUSED,
        _ => return false,
    };
    // TLS alerts are transport errors from 0x100 up.
    code.checked_sub(0x100).is_some_and(|alert| REFUSALS.contains(&alert))
}
