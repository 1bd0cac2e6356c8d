//! The decoder, fed by real servers with every message they can send.
//!
//! The slot is read through SQL, so that the options may be chosen which the engine never asks for.

use std::collections::BTreeSet;

use bytes::Bytes;
use cutwater::source::postgres::pgoutput::{Message, decode, decode_streamed};
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::support::{Server, on_every_version, rng};

/// One message of a slot, whether it was within a piece of a streamed transaction, and what it says.
struct Read {
    bytes: Bytes,
    streamed: bool,
    xid: Option<u32>,
    message: Message,
}

async fn read(client: &tokio_postgres::Client, slot: &str, options: &[(&str, &str)]) -> Vec<Read> {
    let options: String = options.iter().map(|(name, value)| format!(", '{name}', '{value}'")).collect();
    let sql = format!("SELECT data FROM pg_logical_slot_get_binary_changes('{slot}', NULL, NULL{options})");
    let mut streamed = false;
    let mut messages = Vec::new();
    for row in client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{error:?} in {sql}")) {
        let bytes = Bytes::from(row.get::<_, Vec<u8>>(0));
        let mut rest = bytes.clone();
        let length = bytes.len();
        if length == 0 {
            // Where an origin should be told that 13 could not name.
            continue;
        }
        let decoded = if streamed {
            decode_streamed(&mut rest, length)
        } else {
            decode(&mut rest, length).map(|message| (None, message))
        };
        let (xid, message) = decoded.unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
        assert!(rest.is_empty());
        match message {
            Message::StreamStart { .. } => streamed = true,
            Message::StreamStop => streamed = false,
            _ => {}
        }
        messages.push(Read { bytes, streamed: streamed && message != Message::StreamStop, xid, message });
    }
    messages
}

/// `Insert`, `Begin`, …: the variant's name.
fn kind(message: &Message) -> String {
    format!("{message:?}").split([' ', '(']).next().unwrap().to_owned()
}

const LARGE: &str = "INSERT INTO public.item SELECT i, repeat('large', 50), 'sad' FROM generate_series";

on_every_version!(every_message_that_a_server_sends_is_read);
async fn every_message_that_a_server_sends_is_read(server: Server) {
    let name = server.database().await;
    let version = server.version;
    server
        .execute(
            &name,
            "CREATE TYPE public.mood AS ENUM ('sad', 'ok');
             CREATE TABLE public.item (id int PRIMARY KEY, v text, m public.mood);
             CREATE TABLE public.whole (a int, b text); ALTER TABLE public.whole REPLICA IDENTITY FULL;
             CREATE PUBLICATION everything FOR ALL TABLES",
        )
        .await;
    let (ordinary, special) = (format!("{name}_ordinary"), format!("{name}_special"));
    let client = server.connect(&name).await;
    let run = async |sql: &str| client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    run("SET search_path = pg_catalog; SET logical_decoding_work_mem = '64kB'").await;
    run(&format!("SELECT pg_create_logical_replication_slot('{ordinary}', 'pgoutput')")).await;
    let two_phase = if version >= 15 { ", false, true" } else { "" };
    run(&format!("SELECT pg_create_logical_replication_slot('{special}', 'pgoutput'{two_phase})")).await;

    // Every kind of change, in transactions of an origin.
    run(&format!("SELECT pg_replication_origin_create('{name}'), pg_replication_origin_session_setup('{name}')")).await;
    run("BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', now()); INSERT INTO public.item VALUES (1, 'é', 'ok');
         COMMIT; SELECT pg_replication_origin_session_reset()")
    .await;
    run("UPDATE public.item SET v = NULL").await;
    run("UPDATE public.item SET id = 2").await;
    run("DELETE FROM public.item").await;
    run("INSERT INTO public.whole VALUES (1, 'b'); UPDATE public.whole SET b = 'c'; DELETE FROM public.whole").await;
    run("TRUNCATE public.item, public.whole RESTART IDENTITY CASCADE").await;
    run("BEGIN; SELECT pg_logical_emit_message(true, 'within', 'a transaction'); COMMIT").await;
    run("SELECT pg_logical_emit_message(false, 'outside', 'any')").await;
    // Large transactions: committed with a part rolled back, rolled back as a whole, prepared.
    let from_to = |from: u32, to: u32| format!("{LARGE}({from}, {to}) AS i");
    run(&format!(
        "BEGIN; {}; SAVEPOINT s; {}; ROLLBACK TO SAVEPOINT s; {}; COMMIT",
        from_to(1000, 2000),
        from_to(3000, 4000),
        from_to(5000, 6000)
    ))
    .await;
    run(&format!("BEGIN; {}; ROLLBACK", from_to(10_000, 11_000))).await;
    for (gid, rows, end) in
        [("small", (1, 3), "COMMIT"), ("large", (20_000, 21_000), "COMMIT"), ("undone", (4, 5), "ROLLBACK")]
    {
        run(&format!("BEGIN; {}; PREPARE TRANSACTION '{name}_{gid}'", from_to(rows.0, rows.1))).await;
        run(&format!("{end} PREPARED '{name}_{gid}'")).await;
    }

    let protocol = cutwater::source::postgres::pgoutput::protocol_version(version as i32 * 10_000).to_string();
    let mut options = vec![("proto_version", protocol.as_str()), ("publication_names", "everything")];
    let plain = read(&client, &ordinary, &options).await;
    if version >= 14 {
        options.push(("messages", "true"));
        options.push(("streaming", if version >= 16 { "parallel" } else { "true" }));
    }
    if version >= 15 {
        options.push(("two_phase", "true"));
    }
    let all = read(&client, &special, &options).await;
    run(&format!("SELECT pg_replication_origin_drop('{name}')")).await;
    run(&format!("SELECT pg_drop_replication_slot('{ordinary}'), pg_drop_replication_slot('{special}')")).await;

    // As the engine asks for it: whole transactions, in commit order, without what was rolled back.
    let basic = ["Begin", "Commit", "Delete", "Insert", "Origin", "Relation", "Truncate", "Type", "Update"];
    let kinds = |read: &[Read]| read.iter().map(|read| kind(&read.message)).collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(kinds(&plain), set(&basic), "of protocol {protocol}");
    let inserts = |read: &[Read]| read.iter().filter(|read| kind(&read.message) == "Insert").count();
    assert_eq!(inserts(&plain), 1 + 1 + 2002 + 3 + 1001, "what was rolled back is not among them");

    // With everything there is.
    let mut expected = set(&basic);
    if version >= 14 {
        expected.extend(set(&["Logical", "StreamStart", "StreamStop", "StreamCommit", "StreamAbort"]));
    }
    if version >= 15 {
        expected.extend(set(&["BeginPrepare", "Prepare", "CommitPrepared", "RollbackPrepared", "StreamPrepare"]));
    }
    assert_eq!(kinds(&all), expected, "of protocol {protocol}, everything on");
    if version >= 14 {
        // The subtransaction's rows carry its own id, by which the abort cuts them out.
        let aborted: BTreeSet<u32> = all
            .iter()
            .filter_map(|read| match read.message {
                Message::StreamAbort { xid, subtransaction, place } => {
                    assert_eq!(place.is_some(), version >= 16, "place and time of an abort");
                    (xid != subtransaction).then_some(subtransaction)
                }
                _ => None,
            })
            .collect();
        assert_eq!(aborted.len(), 1);
        let streamed = |undone: bool| {
            all.iter()
                .filter(|read| kind(&read.message) == "Insert" && read.streamed)
                .filter(|read| aborted.contains(&read.xid.unwrap()) == undone)
                .count()
        };
        assert!(streamed(true) <= 1001 && streamed(false) >= 2002, "{} {}", streamed(true), streamed(false));
        let outside = all.iter().find_map(|read| match &read.message {
            Message::Logical { transactional: false, prefix, content, .. } => Some((prefix.as_str(), &content[..])),
            _ => None,
        });
        assert_eq!(outside, Some(("outside", &b"any"[..])));
    }
    spoil(plain.iter().chain(&all));
}

/// One message of each kind, cut at every place and changed at random ones: an error, or another message; never a panic.
fn spoil<'a>(messages: impl Iterator<Item = &'a Read>) {
    let mut random = rng();
    let mut seen = BTreeSet::new();
    for Read { bytes, streamed, .. } in messages {
        if !seen.insert((bytes[0], *streamed)) {
            continue;
        }
        let again = |bytes: &[u8]| {
            let (mut input, length) = (Bytes::copy_from_slice(bytes), bytes.len());
            if *streamed { decode_streamed(&mut input, length).map(drop) } else { decode(&mut input, length).map(drop) }
        };
        assert!(again(bytes).is_ok());
        for end in 0..bytes.len() {
            // An abort of protocol 4 without its second half is one of protocol 2.
            assert!(again(&bytes[..end]).is_err() || (bytes[0] == b'A' && end == 9), "{bytes:?} cut at {end}");
        }
        for _ in 0..2000 {
            let mut spoiled = bytes.to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..spoiled.len());
                spoiled[at] = *[0, 1, 0x7f, 0x80, 0xff, random.random()].choose(&mut random).unwrap();
            }
            let _ = again(&spoiled);
        }
    }
}
