//! TRANSACTION_PAYLOAD: a whole transaction in one event, compressed (`binlog_transaction_compression`).
//!
//! Format: `Transaction_payload_event` in `libs/mysql/binlog/event/control_events.h` and `codecs/binary.cpp`: fields of
//! type, length, value; type 0 ends, the payload follows. In it are the transaction's events without checksums.
//!
//! A payload of 1 GiB may unpack to any size, so it is unpacked event by event: at most one of them, and zstd's window
//! (8 MiB at the servers' default level), are in memory besides the compressed bytes.

use std::io::Read;

use bytes::{Buf, Bytes};

use super::cursor::{Cursor, malformed};
use super::header::{EventHeader, HEADER_LENGTH};
use crate::error::Result;

/// The longest event a server writes.
const LONGEST_EVENT: u32 = 1 << 30;

/// A transaction that was not unpacked yet.
#[derive(Debug, Clone)]
pub struct TransactionPayload {
    compressed: bool,
    /// Bytes of all events, as the server says; for knowing, not for allocating.
    pub uncompressed_size: Option<u64>,
    payload: Bytes,
}

impl TransactionPayload {
    pub(super) fn decode(body: &Bytes) -> Result<Self> {
        let mut cursor = Cursor::new(body);
        let (mut size, mut compressed, mut uncompressed_size) = (None, None, None);
        loop {
            let field = cursor.lenenc()?;
            if field == 0 {
                break;
            }
            let mut value = Cursor::new(cursor.lenenc_bytes()?);
            match field {
                1 => size = Some(value.lenenc()?),
                2 => {
                    compressed = Some(match value.lenenc()? {
                        0 => true,
                        255 => false,
                        other => return Err(malformed(format!("a transaction is compressed by method {other}"))),
                    });
                }
                3 => uncompressed_size = Some(value.lenenc()?),
                _ => {}
            }
        }
        let (Some(size), Some(compressed)) = (size, compressed) else {
            return Err(malformed("a compressed transaction does not say its size or method"));
        };
        Ok(TransactionPayload { compressed, uncompressed_size, payload: body.slice_ref(cursor.take_u64(size)?) })
    }

    /// The events, each whole and without a checksum, for [`Event::decode`](super::Event::decode) with
    /// [`FormatDescription::without_checksum`](super::FormatDescription::without_checksum).
    pub fn events(&self) -> Result<PayloadEvents> {
        let payload = self.payload.clone().reader();
        let source = if self.compressed {
            let decoder = zstd::stream::read::Decoder::with_buffer(payload)
                .map_err(|error| malformed(format!("a compressed transaction cannot be unpacked: {error}")))?;
            Source::Zstd(Box::new(decoder))
        } else {
            Source::Plain(payload)
        };
        Ok(PayloadEvents { source, failed: false })
    }
}

enum Source {
    Plain(bytes::buf::Reader<Bytes>),
    Zstd(Box<zstd::stream::read::Decoder<'static, bytes::buf::Reader<Bytes>>>),
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Source::Plain(plain) => plain.read(into),
            Source::Zstd(zstd) => zstd.read(into),
        }
    }
}

/// The events of a payload, unpacked one at a time. Ends after the first error.
pub struct PayloadEvents {
    source: Source,
    failed: bool,
}

impl std::fmt::Debug for PayloadEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PayloadEvents").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl PayloadEvents {
    /// Reads up to `length` bytes; the buffer grows with what comes, not by what was claimed.
    fn read(&mut self, length: usize, into: &mut Vec<u8>) -> Result<usize> {
        (&mut self.source)
            .take(length as u64)
            .read_to_end(into)
            .map_err(|error| malformed(format!("a compressed transaction is damaged: {error}")))
    }

    fn event(&mut self) -> Result<Option<Bytes>> {
        let mut event = Vec::new();
        match self.read(HEADER_LENGTH, &mut event)? {
            0 => return Ok(None),
            HEADER_LENGTH => {}
            _ => return Err(malformed("a compressed transaction is cut short")),
        }
        let size = EventHeader::parse(&event)?.size;
        let rest = usize::try_from(size).ok().and_then(|size| size.checked_sub(HEADER_LENGTH));
        let rest = rest
            .filter(|_| size <= LONGEST_EVENT)
            .ok_or_else(|| malformed(format!("an event in a compressed transaction claims to be {size} bytes long")))?;
        if self.read(rest, &mut event)? != rest {
            return Err(malformed("a compressed transaction is cut short"));
        }
        Ok(Some(event.into()))
    }
}

impl Iterator for PayloadEvents {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        if self.failed {
            return None;
        }
        let event = self.event().transpose();
        self.failed = !matches!(event, Some(Ok(_)));
        event
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn inner() -> Vec<u8> {
        let event = |length: u8| {
            let mut event = vec![0; 19 + usize::from(length)];
            event[4] = 16;
            event[9] = 19 + length;
            event
        };
        [event(8), event(0), event(200)].concat()
    }

    fn body(method: u8, payload: &[u8]) -> Bytes {
        let mut body = vec![2, if method == 255 { 3 } else { 1 }];
        body.extend_from_slice(if method == 255 { &[0xFC, 255, 0] } else { &[0] });
        body.extend_from_slice(&[3, 3, 0xFC, 1, 1, 99, 1, 7, 1, 3, 0xFC]);
        body.extend_from_slice(&(payload.len() as u16).to_le_bytes());
        body.push(0);
        body.extend_from_slice(payload);
        body.into()
    }

    fn lengths(body: &Bytes) -> Result<Vec<usize>> {
        TransactionPayload::decode(body)?.events()?.map(|event| Ok(event?.len())).collect()
    }

    #[test]
    fn a_transaction_is_unpacked_event_by_event() {
        let packed = zstd::encode_all(&inner()[..], 3).unwrap();
        assert_eq!(lengths(&body(0, &packed)).unwrap(), [27, 19, 219]);
        assert_eq!(lengths(&body(255, &inner())).unwrap(), [27, 19, 219]);
    }

    #[test]
    fn a_transaction_cut_short_or_damaged_is_an_error() {
        let whole = body(0, &zstd::encode_all(&inner()[..], 3).unwrap());
        for end in 0..whole.len() {
            assert!(lengths(&whole.slice(..end)).is_err(), "cut at {end}");
        }
        let plain = inner();
        for end in (1..plain.len()).filter(|end| ![27, 46].contains(end)) {
            assert!(lengths(&body(255, &plain[..end])).is_err(), "cut at {end}");
        }
        let mut liar = plain;
        liar[9..13].copy_from_slice(&0x3FFF_FFFFu32.to_le_bytes());
        assert!(lengths(&body(255, &liar)).is_err());
        liar[9..13].copy_from_slice(&5u32.to_le_bytes());
        assert!(lengths(&body(255, &liar)).is_err());
    }
}
