//! From the bytes of a message to a [`Message`].
//!
//! In: the read buffer and how long the message is. Out: the message, whose rows share the buffer. Nothing is read past
//! the message's length, nothing allocated that its length does not pay for, and what does not fit is an error.

use bytes::{Buf, Bytes};

use super::message::{AbortPlace, Message, OldRow, Prepared, Relation, RelationColumn};
use crate::change::{Lsn, Row};
use crate::error::{Error, Kind, Result};

/// Decodes the message that fills the first `length` bytes of `input`, and cuts exactly those off.
#[inline]
pub fn decode(input: &mut Bytes, length: usize) -> Result<Message> {
    let mut reader = Reader::over(input, length)?;
    let kind = reader.u8()?;
    let message = reader.message(kind)?;
    reader.end(kind)?;
    Ok(message)
}

/// As [`decode`], between a Stream Start and its stop: there a message that belongs to the body of a transaction carries
/// the id of its transaction or subtransaction, by which a later Stream Abort cuts it out again.
pub fn decode_streamed(input: &mut Bytes, length: usize) -> Result<(Option<u32>, Message)> {
    let mut reader = Reader::over(input, length)?;
    let kind = reader.u8()?;
    let in_body = matches!(kind, b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M');
    let xid = if in_body { Some(reader.u32()?) } else { None };
    let message = reader.message(kind)?;
    reader.end(kind)?;
    Ok((xid, message))
}

fn malformed(why: &str) -> Error {
    Error::new(Kind::Protocol, format!("a message of the replication stream cannot be read: {why}"))
}

/// Reads from the front of `input`, never past `left` bytes.
struct Reader<'a> {
    input: &'a mut Bytes,
    left: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    fn over(input: &'a mut Bytes, length: usize) -> Result<Reader<'a>> {
        if length > input.len() {
            return Err(malformed("its frame is cut short"));
        }
        Ok(Reader { left: length, input })
    }

    /// The whole message has been read, and nothing after it.
    #[inline]
    fn end(&self, kind: u8) -> Result<()> {
        match self.left {
            0 => Ok(()),
            left => Err(malformed(&format!("message {:?} has {left} bytes too many", char::from(kind)))),
        }
    }

    #[inline]
    fn need(&mut self, bytes: usize) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| malformed("it is cut short"))?;
        Ok(())
    }

    #[inline]
    fn u8(&mut self) -> Result<u8> {
        self.need(1)?;
        Ok(self.input.get_u8())
    }

    fn u16(&mut self) -> Result<u16> {
        self.need(2)?;
        Ok(self.input.get_u16())
    }

    #[inline]
    fn u32(&mut self) -> Result<u32> {
        self.need(4)?;
        Ok(self.input.get_u32())
    }

    fn i64(&mut self) -> Result<i64> {
        self.need(8)?;
        Ok(self.input.get_i64())
    }

    fn lsn(&mut self) -> Result<Lsn> {
        self.need(8)?;
        Ok(Lsn(self.input.get_u64()))
    }

    /// A string that a zero byte ends.
    fn string(&mut self) -> Result<String> {
        let within = &self.input[..self.left];
        let length = within.iter().position(|&byte| byte == 0).ok_or_else(|| malformed("a string has no end"))?;
        let text = std::str::from_utf8(&within[..length]).map_err(|_| malformed("a name is not UTF-8"))?.to_owned();
        self.need(length + 1)?;
        self.input.advance(length + 1);
        Ok(text)
    }

    #[inline]
    fn row(&mut self) -> Result<Row> {
        let row = Row::split_from(self.input).ok_or_else(|| malformed("a row is cut short"))?;
        self.need(row.size())?;
        Ok(row)
    }

    #[inline]
    fn message(&mut self, kind: u8) -> Result<Message> {
        Ok(match kind {
            b'I' => {
                let relation = self.u32()?;
                self.expect_new()?;
                Message::Insert { relation, new: self.row()? }
            }
            b'U' => {
                let relation = self.u32()?;
                let old = match self.u8()? {
                    b'N' => None,
                    marker => {
                        let old = self.old_row(marker)?;
                        self.expect_new()?;
                        Some(old)
                    }
                };
                Message::Update { relation, old, new: self.row()? }
            }
            b'D' => {
                let relation = self.u32()?;
                let marker = self.u8()?;
                Message::Delete { relation, old: self.old_row(marker)? }
            }
            b'B' => Message::Begin { final_lsn: self.lsn()?, commit_time: self.i64()?, xid: self.u32()? },
            b'C' => {
                self.u8()?; // flags, none in use
                Message::Commit { commit_lsn: self.lsn()?, end_lsn: self.lsn()?, commit_time: self.i64()? }
            }
            _ => self.rare_message(kind)?,
        })
    }

    fn rare_message(&mut self, kind: u8) -> Result<Message> {
        Ok(match kind {
            b'R' => Message::Relation(self.relation()?),
            b'Y' => Message::Type { oid: self.u32()?, schema: self.string()?, name: self.string()? },
            b'O' => Message::Origin { commit_lsn: self.lsn()?, name: self.string()? },
            b'T' => {
                let count = self.u32()? as usize;
                let options = self.u8()?;
                if count > self.left / 4 {
                    return Err(malformed("a truncate names more tables than it holds"));
                }
                let relations = (0..count).map(|_| self.u32()).collect::<Result<_>>()?;
                Message::Truncate { relations, cascade: options & 1 != 0, restart_identity: options & 2 != 0 }
            }
            b'M' => {
                let (flags, lsn, prefix) = (self.u8()?, self.lsn()?, self.string()?);
                let length = self.u32()? as usize;
                self.need(length)?;
                let content = self.input.split_to(length);
                Message::Logical { transactional: flags & 1 != 0, lsn, prefix, content }
            }
            b'S' => Message::StreamStart { xid: self.u32()?, first: self.u8()? == 1 },
            b'E' => Message::StreamStop,
            b'c' => {
                let xid = self.u32()?;
                self.u8()?; // flags, none in use
                Message::StreamCommit { xid, commit_lsn: self.lsn()?, end_lsn: self.lsn()?, commit_time: self.i64()? }
            }
            b'A' => {
                let (xid, subtransaction) = (self.u32()?, self.u32()?);
                let place = match self.left {
                    0 => None,
                    _ => Some(AbortPlace { lsn: self.lsn()?, time: self.i64()? }),
                };
                Message::StreamAbort { xid, subtransaction, place }
            }
            _ => self.two_phase_message(kind)?,
        })
    }

    fn two_phase_message(&mut self, kind: u8) -> Result<Message> {
        Ok(match kind {
            b'b' => Message::BeginPrepare(self.prepared()?),
            b'P' => {
                self.u8()?; // flags, none in use
                Message::Prepare(self.prepared()?)
            }
            b'p' => {
                self.u8()?; // flags, none in use
                Message::StreamPrepare(self.prepared()?)
            }
            b'K' => {
                self.u8()?; // flags, none in use
                Message::CommitPrepared {
                    commit_lsn: self.lsn()?,
                    end_lsn: self.lsn()?,
                    commit_time: self.i64()?,
                    xid: self.u32()?,
                    gid: self.string()?,
                }
            }
            b'r' => {
                self.u8()?; // flags, none in use
                Message::RollbackPrepared {
                    prepare_end_lsn: self.lsn()?,
                    end_lsn: self.lsn()?,
                    prepare_time: self.i64()?,
                    rollback_time: self.i64()?,
                    xid: self.u32()?,
                    gid: self.string()?,
                }
            }
            other => return Err(malformed(&format!("its kind is {:?}", char::from(other)))),
        })
    }

    fn prepared(&mut self) -> Result<Prepared> {
        Ok(Prepared {
            prepare_lsn: self.lsn()?,
            end_lsn: self.lsn()?,
            prepare_time: self.i64()?,
            xid: self.u32()?,
            gid: self.string()?,
        })
    }

    fn expect_new(&mut self) -> Result<()> {
        match self.u8()? {
            b'N' => Ok(()),
            other => Err(malformed(&format!("{:?} stands where a new row should", char::from(other)))),
        }
    }

    fn old_row(&mut self, marker: u8) -> Result<OldRow> {
        let key_only = match marker {
            b'K' => true,
            b'O' => false,
            other => return Err(malformed(&format!("{:?} stands where an old row should", char::from(other)))),
        };
        Ok(OldRow { row: self.row()?, key_only })
    }

    fn relation(&mut self) -> Result<Relation> {
        let (id, schema, name) = (self.u32()?, self.string()?, self.string()?);
        let replica_identity = self.u8()?;
        let count = self.u16()?;
        let columns = (0..count)
            .map(|_| {
                Ok(RelationColumn {
                    key: self.u8()? & 1 != 0,
                    name: self.string()?,
                    type_oid: self.u32()?,
                    modifier: self.u32()? as i32,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Relation { id, schema, name, replica_identity, columns })
    }
}
