//! Decoder of pgoutput, the logical replication protocol, versions 1 and 2.
//!
//! In: one message as a slice of the read buffer. Out: a [`Message`] whose rows are slices of the same buffer (law 5).
//! Malformed input is an error, never a panic. Each variant names its part of
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>.

use bytes::{Buf, Bytes};

use crate::change::{Lsn, Row};
use crate::error::{Error, Kind, Result};

/// Microseconds since 2000-01-01, as Postgres counts them.
pub type PgMicros = i64;

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// `Begin`
    Begin {
        /// Where the commit record of the transaction starts.
        final_lsn: Lsn,
        /// When it committed.
        commit_time: PgMicros,
        /// Its id.
        xid: u32,
    },
    /// `Commit`
    Commit {
        /// Where the commit record starts.
        commit_lsn: Lsn,
        /// Where it ends.
        end_lsn: Lsn,
        /// When it committed.
        commit_time: PgMicros,
    },
    /// `Origin`: the transaction came from another server, by replication.
    Origin {
        /// Its commit there.
        commit_lsn: Lsn,
        /// Name of the origin.
        name: String,
    },
    /// `Relation`
    Relation(Relation),
    /// `Type`
    Type {
        /// OID of a type that is not built in.
        oid: u32,
        /// Its schema.
        schema: String,
        /// Its name.
        name: String,
    },
    /// `Insert`
    Insert {
        /// OID of the relation.
        relation: u32,
        /// The new row.
        new: Row,
    },
    /// `Update`
    Update {
        /// OID of the relation.
        relation: u32,
        /// The old row, if it was sent.
        old: Option<OldRow>,
        /// The new row.
        new: Row,
    },
    /// `Delete`
    Delete {
        /// OID of the relation.
        relation: u32,
        /// The old row.
        old: OldRow,
    },
    /// `Truncate`
    Truncate {
        /// OIDs of the relations.
        relations: Vec<u32>,
        /// Bit 0 of the options.
        cascade: bool,
        /// Bit 1 of the options.
        restart_identity: bool,
    },
    /// `Message` (`pg_logical_emit_message`)
    Logical {
        /// Whether it belongs to the transaction around it.
        transactional: bool,
        /// Where it was written.
        lsn: Lsn,
        /// Its prefix.
        prefix: String,
        /// Its content.
        content: Bytes,
    },
    /// `Stream Start` (protocol 2): until the next stop, messages carry the id of their (sub)transaction.
    StreamStart {
        /// The transaction.
        xid: u32,
        /// Whether this is the first piece of it.
        first: bool,
    },
    /// `Stream Stop` (protocol 2)
    StreamStop,
    /// `Stream Commit` (protocol 2)
    StreamCommit {
        /// The transaction.
        xid: u32,
        /// Where the commit record starts.
        commit_lsn: Lsn,
        /// Where it ends.
        end_lsn: Lsn,
        /// When it committed.
        commit_time: PgMicros,
    },
    /// `Stream Abort` (protocol 2)
    StreamAbort {
        /// The transaction.
        xid: u32,
        /// The subtransaction that is undone; the same as `xid` for all of it.
        subtransaction: u32,
    },
}

/// An old row: `K` or `O` of `Update` and `Delete`.
#[derive(Debug, Clone, PartialEq)]
pub struct OldRow {
    /// The row; with `key_only` the other columns are NULL.
    pub row: Row,
    /// `K`: only the replica identity's columns; `O`: the whole row (REPLICA IDENTITY FULL).
    pub key_only: bool,
}

/// `Relation`: sent before the first change of a table, and again when it has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    /// OID.
    pub id: u32,
    /// Schema; empty for `pg_catalog`.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `pg_class.relreplident`.
    pub replica_identity: u8,
    /// The published columns in order.
    pub columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub key: bool,
    /// Name.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
    /// Type modifier.
    pub modifier: i32,
}

/// Decodes the message that fills the first `length` bytes of `input`, and cuts exactly those off.
///
/// `streamed`: between a Stream Start and its stop, where messages carry a transaction id that is read over here.
pub fn decode(input: &mut Bytes, length: usize, streamed: bool) -> Result<Message> {
    if length > input.len() {
        return Err(malformed("its frame is cut short"));
    }
    let mut reader = Reader { left: length, input };
    let kind = reader.u8()?;
    // Only what belongs to a transaction's body carries the id.
    if streamed && matches!(kind, b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M') {
        reader.u32()?;
    }
    let message = reader.message(kind)?;
    match reader.left {
        0 => Ok(message),
        left => Err(malformed(&format!("message {:?} has {left} bytes too many", char::from(kind)))),
    }
}

fn malformed(why: &str) -> Error {
    Error::new(Kind::Protocol, format!("a message of the replication stream cannot be read: {why}"))
}

/// Reads from the front of `input`, never past `left` bytes.
struct Reader<'a> {
    input: &'a mut Bytes,
    left: usize,
}

impl Reader<'_> {
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
            b'A' => Message::StreamAbort { xid: self.u32()?, subtransaction: self.u32()? },
            other => return Err(malformed(&format!("its kind is {:?}", char::from(other)))),
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

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;

    use super::*;
    use crate::change::Datum;

    fn row(fields: &[Datum<'_>]) -> Row {
        fields.iter().copied().collect()
    }

    /// Every kind of message, by hand, with what it means.
    fn examples() -> Vec<(Vec<u8>, Message)> {
        let new = row(&[Datum::Text(b"1"), Datum::Unchanged, Datum::Null]);
        let key = row(&[Datum::Text(b"1"), Datum::Null, Datum::Null]);
        let mut out: Vec<(Vec<u8>, Message)> = Vec::new();
        let mut add = |build: &dyn Fn(&mut BytesMut), message| {
            let mut bytes = BytesMut::new();
            build(&mut bytes);
            out.push((bytes.to_vec(), message));
        };
        add(
            &|b| {
                b.put_slice(b"B");
                b.put_u64(7);
                b.put_i64(8);
                b.put_u32(9);
            },
            Message::Begin { final_lsn: Lsn(7), commit_time: 8, xid: 9 },
        );
        add(
            &|b| {
                b.put_slice(b"C\0");
                b.put_u64(7);
                b.put_u64(17);
                b.put_i64(8);
            },
            Message::Commit { commit_lsn: Lsn(7), end_lsn: Lsn(17), commit_time: 8 },
        );
        add(
            &|b| {
                b.put_slice(b"O");
                b.put_u64(7);
                b.put_slice(b"there\0");
            },
            Message::Origin { commit_lsn: Lsn(7), name: "there".into() },
        );
        add(
            &|b| {
                b.put_slice(b"R");
                b.put_u32(5);
                b.put_slice(b"public\0t\0d");
                b.put_u16(1);
                b.put_slice(b"\x01id\0");
                b.put_u32(23);
                b.put_i32(-1);
            },
            Message::Relation(Relation {
                id: 5,
                schema: "public".into(),
                name: "t".into(),
                replica_identity: b'd',
                columns: vec![RelationColumn { key: true, name: "id".into(), type_oid: 23, modifier: -1 }],
            }),
        );
        add(
            &|b| {
                b.put_slice(b"Y");
                b.put_u32(16400);
                b.put_slice(b"public\0mood\0");
            },
            Message::Type { oid: 16400, schema: "public".into(), name: "mood".into() },
        );
        add(
            &|b| {
                b.put_slice(b"I");
                b.put_u32(5);
                b.put_slice(b"N");
                b.put_slice(new.as_bytes());
            },
            Message::Insert { relation: 5, new: new.clone() },
        );
        add(
            &|b| {
                b.put_slice(b"U");
                b.put_u32(5);
                b.put_slice(b"N");
                b.put_slice(new.as_bytes());
            },
            Message::Update { relation: 5, old: None, new: new.clone() },
        );
        for (marker, key_only) in [(b"K", true), (b"O", false)] {
            let old = OldRow { row: key.clone(), key_only };
            add(
                &|b| {
                    b.put_slice(b"U");
                    b.put_u32(5);
                    b.put_slice(marker);
                    b.put_slice(key.as_bytes());
                    b.put_slice(b"N");
                    b.put_slice(new.as_bytes());
                },
                Message::Update { relation: 5, old: Some(old.clone()), new: new.clone() },
            );
            add(
                &|b| {
                    b.put_slice(b"D");
                    b.put_u32(5);
                    b.put_slice(marker);
                    b.put_slice(key.as_bytes());
                },
                Message::Delete { relation: 5, old },
            );
        }
        add(
            &|b| {
                b.put_slice(b"T");
                b.put_u32(2);
                b.put_u8(3);
                b.put_u32(5);
                b.put_u32(6);
            },
            Message::Truncate { relations: vec![5, 6], cascade: true, restart_identity: true },
        );
        add(
            &|b| {
                b.put_slice(b"M\x01");
                b.put_u64(7);
                b.put_slice(b"prefix\0");
                b.put_u32(3);
                b.put_slice(b"abc");
            },
            Message::Logical {
                transactional: true,
                lsn: Lsn(7),
                prefix: "prefix".into(),
                content: Bytes::from_static(b"abc"),
            },
        );
        add(
            &|b| {
                b.put_slice(b"S");
                b.put_u32(9);
                b.put_u8(1);
            },
            Message::StreamStart { xid: 9, first: true },
        );
        add(&|b| b.put_slice(b"E"), Message::StreamStop);
        add(
            &|b| {
                b.put_slice(b"c");
                b.put_u32(9);
                b.put_u8(0);
                b.put_u64(7);
                b.put_u64(17);
                b.put_i64(8);
            },
            Message::StreamCommit { xid: 9, commit_lsn: Lsn(7), end_lsn: Lsn(17), commit_time: 8 },
        );
        add(
            &|b| {
                b.put_slice(b"A");
                b.put_u32(9);
                b.put_u32(10);
            },
            Message::StreamAbort { xid: 9, subtransaction: 10 },
        );
        out
    }

    fn whole(bytes: &[u8]) -> Result<Message> {
        decode(&mut Bytes::copy_from_slice(bytes), bytes.len(), false)
    }

    #[test]
    fn every_message_of_protocol_1_and_2_is_read() {
        for (bytes, message) in examples() {
            assert_eq!(whole(&bytes).expect("well formed"), message);
        }
    }

    #[test]
    fn a_message_cut_short_or_too_long_is_an_error() {
        for (bytes, message) in examples() {
            for end in 0..bytes.len() {
                assert!(whole(&bytes[..end]).is_err(), "{message:?} cut at {end}");
            }
            assert!(whole(&[bytes.as_slice(), b"x"].concat()).is_err(), "{message:?} with a byte too many");
        }
    }

    #[test]
    fn a_message_never_reads_into_the_next() {
        for (bytes, message) in examples() {
            let mut two = Bytes::from([bytes.as_slice(), b"next"].concat());
            assert_eq!(decode(&mut two, bytes.len(), false).expect("well formed"), message);
            assert_eq!(&two[..], b"next");
            for end in 1..bytes.len() {
                let mut rest = Bytes::copy_from_slice(&bytes);
                assert!(decode(&mut rest, end, false).is_err(), "{message:?} with a frame of {end}");
            }
        }
    }

    #[test]
    fn inside_a_streamed_transaction_the_id_is_read_over() {
        let mut bytes = BytesMut::from(&b"I"[..]);
        bytes.put_u32(99);
        bytes.put_u32(5);
        bytes.put_slice(b"N\0\0");
        let length = bytes.len();
        let message = decode(&mut bytes.freeze(), length, true).expect("well formed");
        assert_eq!(message, Message::Insert { relation: 5, new: row(&[]) });
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), streamed: bool) {
            let _ = decode(&mut Bytes::from(bytes.clone()), bytes.len(), streamed);
        }

        #[test]
        fn a_spoiled_message_never_panics(which in 0usize..17, at in 0usize..60, byte: u8) {
            let mut examples = examples();
            let count = examples.len();
            let bytes = &mut examples[which % count].0;
            let length = bytes.len();
            bytes[at % length] = byte;
            let _ = whole(bytes);
        }
    }
}
