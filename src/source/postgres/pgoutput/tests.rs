//! Every kind of message, spoiled in every way.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::change::{Datum, Lsn, Row};
use crate::error::Result;

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
        Message::StreamAbort { xid: 9, subtransaction: 10, place: None },
    );
    let prepared = || Prepared { prepare_lsn: Lsn(7), end_lsn: Lsn(17), prepare_time: 8, xid: 9, gid: "a gid".into() };
    for (kind, message) in [
        (&b"b"[..], Message::BeginPrepare(prepared())),
        (b"P\0", Message::Prepare(prepared())),
        (b"p\0", Message::StreamPrepare(prepared())),
        (
            b"K\0",
            Message::CommitPrepared {
                commit_lsn: Lsn(7),
                end_lsn: Lsn(17),
                commit_time: 8,
                xid: 9,
                gid: "a gid".into(),
            },
        ),
    ] {
        add(
            &|b| {
                b.put_slice(kind);
                b.put_u64(7);
                b.put_u64(17);
                b.put_i64(8);
                b.put_u32(9);
                b.put_slice(b"a gid\0");
            },
            message,
        );
    }
    add(
        &|b| {
            b.put_slice(b"r\0");
            b.put_u64(7);
            b.put_u64(17);
            b.put_i64(8);
            b.put_i64(18);
            b.put_u32(9);
            b.put_slice(b"a gid\0");
        },
        Message::RollbackPrepared {
            prepare_end_lsn: Lsn(7),
            end_lsn: Lsn(17),
            prepare_time: 8,
            rollback_time: 18,
            xid: 9,
            gid: "a gid".into(),
        },
    );
    out
}

fn whole(bytes: &[u8]) -> Result<Message> {
    decode(&mut Bytes::copy_from_slice(bytes), bytes.len())
}

#[test]
fn every_message_of_protocols_1_to_4_is_read() {
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
        assert_eq!(decode(&mut two, bytes.len()).expect("well formed"), message);
        assert_eq!(&two[..], b"next");
        for end in 1..bytes.len() {
            let mut rest = Bytes::copy_from_slice(&bytes);
            assert!(decode(&mut rest, end).is_err(), "{message:?} with a frame of {end}");
        }
    }
}

/// The one message that has two lengths.
#[test]
fn an_abort_of_protocol_4_says_where_and_when() {
    let mut bytes = BytesMut::from(&b"A"[..]);
    bytes.put_u32(9);
    bytes.put_u32(10);
    bytes.put_u64(7);
    bytes.put_i64(8);
    let place = Some(AbortPlace { lsn: Lsn(7), time: 8 });
    assert_eq!(whole(&bytes).expect("well formed"), Message::StreamAbort { xid: 9, subtransaction: 10, place });
    for end in 0..bytes.len() {
        assert_eq!(whole(&bytes[..end]).is_ok(), end == 9, "cut at {end}");
    }
    bytes.put_u8(0);
    assert!(whole(&bytes).is_err());
}

#[test]
fn inside_a_streamed_transaction_the_id_of_each_change_is_read() {
    let mut bytes = BytesMut::from(&b"I"[..]);
    bytes.put_u32(99);
    bytes.put_u32(5);
    bytes.put_slice(b"N\0\0");
    let length = bytes.len();
    let read = decode_streamed(&mut bytes.freeze(), length).expect("well formed");
    assert_eq!(read, (Some(99), Message::Insert { relation: 5, new: row(&[]) }));
    let read = decode_streamed(&mut Bytes::from_static(b"E"), 1).expect("well formed");
    assert_eq!(read, (None, Message::StreamStop));
}

#[test]
fn the_protocol_version_is_the_highest_of_the_server() {
    let versions = [130_022, 140_019, 150_018, 160_000, 180_001].map(protocol_version);
    assert_eq!(versions, [1, 2, 3, 4, 4]);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), streamed: bool) {
        let length = bytes.len();
        let _ = if streamed {
            decode_streamed(&mut Bytes::from(bytes), length).map(drop)
        } else {
            decode(&mut Bytes::from(bytes), length).map(drop)
        };
    }

    #[test]
    fn a_spoiled_message_never_panics(which in 0usize..32, at in 0usize..60, byte: u8) {
        let mut examples = examples();
        let count = examples.len();
        let bytes = &mut examples[which % count].0;
        let length = bytes.len();
        bytes[at % length] = byte;
        let _ = whole(bytes);
    }
}
