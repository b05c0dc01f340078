//! Frames on a QUIC stream: written without copying the bulk, read with bounds and at most one copy.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use super::Frame;
use crate::types::limits::{BULK_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::wire::codec::{DecodeError, FLAG_FAULT, HEADER_BYTES, Header};

/// Messages up to this are copied behind their header and sent as one piece.
const SMALL_MESSAGE_BYTES: usize = 4 << 10;
/// Pieces fetched from the stream under one lock.
const PIECES: usize = 32;

/// Why no frame was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error(transparent)]
    Lost(#[from] ReadError),
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    #[error("the stream ended inside a frame")]
    Truncated,
    #[error("a frame of {0} bytes is over the limit here")]
    TooLarge(usize),
    #[error("bytes follow the frame")]
    Trailing,
}

/// Whether a frame keeps the limits; one that does not must not be sent.
pub(super) fn fits(frame: &Frame) -> bool {
    frame.message.len() <= MESSAGE_BYTES_MAX && frame.bulk.len() <= BULK_BYTES_MAX
}

/// Writes one frame that [`fits`]. Until this returns `Ok`, the peer cannot have the whole of it.
pub(super) async fn write(send: &mut SendStream, frame: Frame) -> Result<(), WriteError> {
    write_flagged(send, frame, 0).await
}

/// Answers with one sentence instead of a reply.
pub(super) async fn write_fault(send: &mut SendStream, kind: u16, why: String) -> Result<(), WriteError> {
    write_flagged(send, Frame { kind, message: why.into(), bulk: Bytes::new() }, FLAG_FAULT).await
}

async fn write_flagged(send: &mut SendStream, frame: Frame, flags: u8) -> Result<(), WriteError> {
    debug_assert!(fits(&frame));
    let Frame { kind, message, bulk } = frame;
    let header = Header { flags, kind, message_bytes: message.len() as u32, bulk_bytes: bulk.len() as u32 }.encode();
    if message.len() <= SMALL_MESSAGE_BYTES {
        let mut first = BytesMut::with_capacity(HEADER_BYTES + message.len());
        first.extend_from_slice(&header);
        first.extend_from_slice(&message);
        if bulk.is_empty() {
            return send.write_all_chunks(&mut [first.freeze()]).await;
        }
        return send.write_all_chunks(&mut [first.freeze(), bulk]).await;
    }
    let header = Bytes::copy_from_slice(&header);
    if bulk.is_empty() {
        return send.write_all_chunks(&mut [header, message]).await;
    }
    send.write_all_chunks(&mut [header, message, bulk]).await
}

/// Reads frames one after another.
pub(super) struct FrameReader {
    stream: RecvStream,
    pieces: VecDeque<Bytes>,
    /// Bytes in `pieces`.
    ready_bytes: usize,
}

impl FrameReader {
    pub fn new(stream: RecvStream) -> FrameReader {
        FrameReader { stream, pieces: VecDeque::new(), ready_bytes: 0 }
    }

    pub fn stream(&mut self) -> &mut RecvStream {
        &mut self.stream
    }

    /// The next header, or `None` at a clean end.
    pub async fn header(&mut self) -> Result<Option<Header>, FrameError> {
        while self.ready_bytes < HEADER_BYTES {
            if !self.fetch().await? {
                return if self.ready_bytes == 0 { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
        let bytes = self.take(HEADER_BYTES).await?;
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&bytes);
        Ok(Some(Header::decode(&header)?))
    }

    /// What follows `header`. The header's lengths are within the limits, [`Header::decode`] saw to it.
    pub async fn body(&mut self, header: &Header) -> Result<Frame, FrameError> {
        let message = self.take(header.message_bytes as usize).await?;
        let bulk = self.take(header.bulk_bytes as usize).await?;
        Ok(Frame { kind: header.kind, message, bulk })
    }

    /// Looks, without waiting, whether the stream has ended where it should. When its end came along with the frame,
    /// as it nearly always does, the peer need not be told that nothing more is read.
    pub fn expect_end(&mut self) -> Result<(), FrameError> {
        if self.ready_bytes == 0 {
            // The end, an error, or nothing yet: all fine, the frame is complete.
            let _ = self.fetch().now_or_never();
        }
        if self.ready_bytes == 0 { Ok(()) } else { Err(FrameError::Trailing) }
    }

    /// Exactly `count` bytes: a slice of what arrived when they arrived together, else one copy.
    async fn take(&mut self, count: usize) -> Result<Bytes, FrameError> {
        if count == 0 {
            return Ok(Bytes::new());
        }
        while self.pieces.is_empty() {
            if !self.fetch().await? {
                return Err(FrameError::Truncated);
            }
        }
        if let Some(first) = self.pieces.front_mut().filter(|first| first.len() >= count) {
            let bytes = first.split_to(count);
            if first.is_empty() {
                self.pieces.pop_front();
            }
            self.ready_bytes -= count;
            return Ok(bytes);
        }
        let mut bytes = BytesMut::with_capacity(count);
        while bytes.len() < count {
            let Some(mut piece) = self.pieces.pop_front() else {
                if !self.fetch().await? {
                    return Err(FrameError::Truncated);
                }
                continue;
            };
            let part = piece.split_to(piece.len().min(count - bytes.len()));
            self.ready_bytes -= part.len();
            bytes.extend_from_slice(&part);
            if !piece.is_empty() {
                self.pieces.push_front(piece);
            }
        }
        Ok(bytes.freeze())
    }

    /// Waits for more; `false` at the end.
    async fn fetch(&mut self) -> Result<bool, ReadError> {
        let mut pieces = [const { Bytes::new() }; PIECES];
        let Some(count) = self.stream.read_chunks(&mut pieces).await? else { return Ok(false) };
        for piece in pieces.into_iter().take(count).filter(|piece| !piece.is_empty()) {
            self.ready_bytes += piece.len();
            self.pieces.push_back(piece);
        }
        Ok(true)
    }
}
