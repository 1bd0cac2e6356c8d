//! The binlog decoder against real servers: what it makes of the server's own files is what the server itself answers when
//! it is asked for the rows.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "binlog/matrix.rs"]
mod matrix;
#[path = "binlog/server.rs"]
mod server;
mod support;

use std::collections::HashMap;

use bytes::Bytes;
use cutwater::change::{Datum, Row};
use cutwater::source::mysql::binlog::{
    Charset, Checksum, ColumnHint, Event, EventHeader, FormatDescription, MariaXa, RowReader, RowsKind, TableMap,
    refuse_invalid,
};
use matrix::{Case, Shown, cases};
use server::{Engine, Server};

/// One row change as it was read.
struct Change {
    table: String,
    kind: RowsKind,
    before: Option<Row>,
    after: Option<Row>,
}

/// Everything in the server's binlogs.
#[derive(Default)]
struct Log {
    changes: Vec<Change>,
    events: Vec<(EventHeader, Event)>,
    payloads: usize,
    /// Reading ended at an error that was expected.
    ended: bool,
}

impl Log {
    fn read(server: &Server, hints: impl Fn(&str) -> Vec<ColumnHint>) -> Log {
        Log::read_until(server, hints, |_| false)
    }

    /// Reads up to the end, or to an error of the rows that is `expected`.
    fn read_until(
        server: &Server,
        hints: impl Fn(&str) -> Vec<ColumnHint>,
        expected: impl Fn(&cutwater::error::Error) -> bool,
    ) -> Log {
        let mut log = Log::default();
        let mut reader = RowReader::new();
        for file in server.binlogs() {
            let file = Bytes::from(file);
            assert_eq!(&file[..4], b"\xFEbin");
            let mut format = FormatDescription::before_the_first();
            let mut tables = HashMap::new();
            let mut at = 4;
            while at < file.len() {
                let size = EventHeader::parse(&file[at..]).unwrap().size as usize;
                let event = file.slice(at..at + size);
                if let Err(error) = log.event(event, &mut format, &mut tables, &mut reader, &hints) {
                    assert!(expected(&error), "{error}");
                    log.ended = true;
                    return log;
                }
                at += size;
            }
        }
        log
    }

    fn event(
        &mut self,
        bytes: Bytes,
        format: &mut FormatDescription,
        tables: &mut HashMap<u64, TableMap>,
        reader: &mut RowReader,
        hints: &impl Fn(&str) -> Vec<ColumnHint>,
    ) -> Result<(), cutwater::error::Error> {
        let (header, event) = Event::decode(bytes, format).unwrap_or_else(|error| panic!("{error}"));
        match &event {
            Event::Format(new) => *format = new.clone(),
            Event::TableMap(map) => drop(tables.insert(map.table_id, map.clone())),
            Event::Rows(rows) => {
                let map = &tables[&rows.table_id];
                let table = String::from_utf8(map.table.to_vec()).unwrap();
                if map.schema == "test" {
                    let columns = map.layout(&hints(&table)).unwrap_or_else(|error| panic!("{error}"));
                    let mut images = rows.images();
                    while let Some(row) = reader
                        .next(&mut images, &columns, &mut refuse_invalid)
                        .map_err(|error| error.context(table.as_str()))?
                    {
                        let (kind, table) = (rows.kind, table.clone());
                        self.changes.push(Change { table, kind, before: row.before, after: row.after });
                    }
                }
            }
            Event::Payload(payload) => {
                self.payloads += 1;
                let mut inner = format.without_checksum();
                for event in payload.events().unwrap() {
                    self.event(event.unwrap(), &mut inner, tables, reader, hints)?;
                }
            }
            _ => {}
        }
        self.events.push((header, event));
        Ok(())
    }
}

/// A field as the oracle shows it.
fn shown(datum: Datum<'_>) -> String {
    match datum {
        Datum::Null => "NULL".to_owned(),
        Datum::Unchanged => "-".to_owned(),
        Datum::Text(bytes) | Datum::Binary(bytes) => bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
    }
}

fn readable(hex: &str) -> String {
    let bytes: Vec<u8> =
        (0..hex.len() / 2).filter_map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).ok()).collect();
    format!("{hex:.120} ({:.200})", String::from_utf8_lossy(&bytes))
}

/// Writes the matrix, reads the log, compares. Gives back the log for more questions.
fn run_matrix(server: &Server, engine: Engine, session: &str) -> Log {
    let cases = cases(engine);
    let preamble =
        format!("SET NAMES utf8mb4; SET sql_mode = 'NO_ENGINE_SUBSTITUTION'; SET time_zone = '+00:00'; {session};");
    let mut script = format!("{preamble} CREATE DATABASE IF NOT EXISTS test; USE test;\n");
    let ask = |script: &mut String, at: usize, case: &Case| {
        *script += &format!("SELECT 'rows', {at}, id, {} FROM t{at} ORDER BY id;\n", case.oracle());
    };
    for (at, case) in cases.iter().enumerate() {
        script +=
            &format!("CREATE TABLE t{at} (id int NOT NULL PRIMARY KEY, other varchar(10), v {});\n", case.definition);
        script += "BEGIN;\n";
        let rows = case.values.len() + 1;
        for id in 0..rows {
            let value = case.values.get(id).map_or("NULL", String::as_str);
            script += &format!("INSERT INTO t{at} VALUES ({id}, 'x', {value});\n");
        }
        ask(&mut script, at, case);
        for id in 0..rows {
            let value = case.values.get((id + 1) % rows).map_or("NULL", String::as_str);
            script += &format!("UPDATE t{at} SET v = {value} WHERE id = {id};\n");
        }
        ask(&mut script, at, case);
        script += &format!("DELETE FROM t{at} ORDER BY id;\nCOMMIT;\n");
    }
    let mut answers: HashMap<usize, Vec<String>> = HashMap::new();
    for line in server.sql(&script) {
        let fields: Vec<&str> = line.split('\t').collect();
        let at: usize = fields[1].parse().unwrap();
        let answer = match (cases[at].shown, fields[3]) {
            (Shown::Double, number) if number != "NULL" => shown(Datum::Text(number.as_bytes())),
            (_, hex) => hex.to_owned(),
        };
        answers.entry(at).or_default().push(answer);
    }

    let log = Log::read(server, |table| {
        let at: usize = table[1..].parse().unwrap();
        let id = ColumnHint { unsigned: Some(false), ..ColumnHint::default() };
        let other =
            ColumnHint { charset: cutwater::source::mysql::binlog::Charset::named("utf8mb4"), ..ColumnHint::default() };
        vec![id, other, cases[at].hint.clone()]
    });
    let mut found: HashMap<usize, Vec<&Change>> = HashMap::new();
    for change in &log.changes {
        found.entry(change.table[1..].parse().unwrap()).or_default().push(change);
    }
    let mut wrong = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let (answer, changes) = (&answers[&at], found.get(&at).map(Vec::as_slice).unwrap_or_default());
        let rows = case.values.len() + 1;
        let (first, second) = answer.split_at(rows);
        let mut check = |what: &str, row: usize, image: Option<&Row>, expected: &str| {
            let datum = image.and_then(|row| row.get(2)).unwrap_or(Datum::Unchanged);
            let is_bytes = matches!(datum, Datum::Binary(_));
            let got = shown(datum);
            if got != expected && got != "-" {
                wrong.push(format!(
                    "{} {what} {row}: {}\n   the server: {}",
                    case.definition,
                    readable(&got),
                    readable(expected)
                ));
            } else if !matches!(got.as_str(), "NULL" | "-")
                && is_bytes != matches!(case.shown, Shown::Bytes | Shown::Bits(_))
            {
                wrong.push(format!("{} {what} {row}: text and bytes mistaken", case.definition));
            }
        };
        let (mut inserts, mut updates, mut deletes) = (0, 0, 0);
        for change in changes {
            match change.kind {
                RowsKind::Insert => {
                    check("insert", inserts, change.after.as_ref(), &first[inserts]);
                    inserts += 1;
                }
                RowsKind::Update | RowsKind::PartialUpdate => {
                    // An update to the same value is not logged.
                    while first[updates] == second[updates] {
                        updates += 1;
                    }
                    check("update before", updates, change.before.as_ref(), &first[updates]);
                    check("update after", updates, change.after.as_ref(), &second[updates]);
                    updates += 1;
                }
                RowsKind::Delete => {
                    check("delete", deletes, change.before.as_ref(), &second[deletes]);
                    deletes += 1;
                }
            }
        }
        if inserts != rows || deletes != rows || updates == 0 {
            wrong.push(format!(
                "{}: {inserts} inserts, {updates} updates, {deletes} deletes of {rows}",
                case.definition
            ));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    log
}

fn matrix(engine: Engine, options: &[&str], session: &str) -> Option<Log> {
    let server = Server::start(engine, options)?;
    Some(run_matrix(&server, engine, session))
}

#[test]
fn mysql_rows_are_what_the_server_answers_with_everything_logged_and_compressed() {
    let options = [
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--binlog-row-metadata=FULL",
        "--binlog-transaction-compression=ON",
        "--binlog-row-value-options=PARTIAL_JSON",
        "--binlog-rows-query-log-events=ON",
    ];
    let Some(log) = matrix(Engine::MySql, &options, "SELECT 1 FROM dual WHERE FALSE") else { return };
    assert!(log.payloads > 50, "{} payloads", log.payloads);
    let has = |wanted: fn(&Event) -> bool| log.events.iter().any(|(_, event)| wanted(event));
    assert!(has(|event| matches!(event, Event::Gtid(gtid) if gtid.gtid.is_some() && gtid.immediate_commit.is_some())));
    assert!(has(|event| matches!(event, Event::RowsQuery(sql) if sql.starts_with(b"INSERT"))));
    assert!(has(|event| matches!(event, Event::Xid(_))));
    assert!(has(|event| matches!(event, Event::Query(query) if query.sql == "BEGIN" && query.schema == "test")));
    assert!(has(
        |event| matches!(event, Event::Format(format) if format.checksum == Checksum::Crc32 && !format.mariadb)
    ));
}

#[test]
fn mysql_rows_are_what_the_server_answers_with_minimal_images_and_metadata() {
    let options = [
        "--binlog-row-metadata=MINIMAL",
        "--binlog-checksum=NONE",
        "--gtid-mode=OFF",
        "--enforce-gtid-consistency=OFF",
    ];
    let Some(log) = matrix(Engine::MySql, &options, "SET binlog_row_image = MINIMAL") else { return };
    let update = log.changes.iter().find(|change| change.kind == RowsKind::Update).unwrap();
    assert_eq!(update.before.as_ref().unwrap().get(1), Some(Datum::Unchanged));
    assert_eq!(update.after.as_ref().unwrap().get(0), Some(Datum::Unchanged));
    assert!(log.events.iter().any(|(_, event)| matches!(event, Event::Format(f) if f.checksum == Checksum::None)));
    assert!(log.events.iter().any(|(_, event)| matches!(event, Event::Gtid(gtid) if gtid.gtid.is_none())));
}

#[test]
fn mariadb_rows_are_what_the_server_answers_with_everything_logged() {
    let options = ["--binlog-row-metadata=FULL", "--binlog-annotate-row-events=ON", "--gtid-domain-id=3"];
    let Some(log) = matrix(Engine::MariaDb, &options, "SET binlog_row_image = FULL") else { return };
    let has = |wanted: fn(&Event) -> bool| log.events.iter().any(|(_, event)| wanted(event));
    assert!(has(|event| matches!(event, Event::MariaGtid(gtid) if gtid.gtid.domain == 3 && gtid.transactional)));
    assert!(has(|event| matches!(event, Event::MariaGtid(gtid) if gtid.ddl && gtid.standalone)));
    assert!(has(|event| matches!(event, Event::RowsQuery(sql) if sql.starts_with(b"INSERT"))));
    assert!(has(|event| matches!(event, Event::Format(format) if format.mariadb)));
}

#[test]
fn mariadb_rows_are_what_the_server_answers_without_metadata_and_compressed() {
    let options = ["--binlog-row-metadata=NO_LOG", "--log-bin-compress=ON", "--log-bin-compress-min-len=10"];
    let Some(log) = matrix(Engine::MariaDb, &options, "SET binlog_row_image = NOBLOB") else { return };
    assert!(log.events.iter().any(|(header, _)| header.kind == 166), "no compressed rows");
    assert!(log.events.iter().any(|(header, _)| header.kind == 165), "no compressed statement");
}

#[test]
fn mariadb_rows_are_what_the_server_answers_in_its_own_old_form_of_times() {
    let options = ["--binlog-row-metadata=MINIMAL", "--mysql56-temporal-format=OFF"];
    matrix(Engine::MariaDb, &options, "SET binlog_row_image = MINIMAL");
}

/// Compares the rows of `table` with what the log has of them, column by column; the hints are for what no log tells.
fn check_table(server: &Server, log: &Log, table: &str, columns: &[&str]) {
    let asked: Vec<String> = columns.iter().map(|column| format!("HEX({column})")).collect();
    let answers = server.sql(&format!("SET NAMES utf8mb4; SELECT {} FROM test.{table} ORDER BY id", asked.join(", ")));
    let rows: Vec<Vec<String>> = log
        .changes
        .iter()
        .filter(|change| change.table == table && change.kind == RowsKind::Insert)
        .map(|change| change.after.as_ref().unwrap().fields().map(shown).collect())
        .collect();
    assert_eq!(rows.len(), answers.len());
    for (row, answer) in rows.iter().zip(answers) {
        for ((got, expected), column) in row.iter().zip(answer.split('\t')).zip(columns) {
            assert_eq!(readable(got), readable(expected), "{column}");
        }
    }
}

/// Columns of all kinds one after the other, so that what the metadata tells of one would be taken for another's if the
/// two sides counted differently.
const MIXED: &str = "id int NOT NULL PRIMARY KEY, y year, n smallint, u int unsigned, b bit(12), d decimal(8,2) unsigned, g geometry, \
    c char(5) character set latin1, e enum('a','é') character set latin1, ss set('x','ü') character set cp1250, \
    t text character set cp1251, f float unsigned, vb varbinary(9), i smallint, dt datetime(3), lb longblob, \
    v varchar(30) character set utf8mb4, u2 bigint unsigned, bi binary(3), e2 enum('z') character set utf8mb4, w char(3) character set ucs2";

const MIXED_ROW: &str = "1, 2024, -3, 4000000000, b'101010101010', 123456.78, ST_GeomFromText('POINT(1 2)'), 'é€', 'é', 'x,ü', \
    'Привет', 1.5, X'00FF', -5, '2024-02-29 10:11:12.123', X'DEAD', 'naïve 😀', 18446744073709551615, X'01', 'z', 'a€'";

const MIXED_SHOWN: [&str; 21] = [
    "CONVERT(id USING utf8mb4)",
    "CONVERT(y USING utf8mb4)",
    "CONVERT(n USING utf8mb4)",
    "CONVERT(u USING utf8mb4)",
    "CONVERT(LPAD(UNHEX(LPAD(HEX(b + 0), 4, '0')), 2, ' ') USING binary)",
    "CONVERT(d USING utf8mb4)",
    "g",
    "CONVERT(c USING utf8mb4)",
    "CONVERT(e USING utf8mb4)",
    "CONVERT(ss USING utf8mb4)",
    "CONVERT(t USING utf8mb4)",
    "CONVERT(f USING utf8mb4)",
    "vb",
    "CONVERT(i USING utf8mb4)",
    "CONVERT(dt USING utf8mb4)",
    "lb",
    "CONVERT(v USING utf8mb4)",
    "CONVERT(u2 USING utf8mb4)",
    "bi",
    "CONVERT(e2 USING utf8mb4)",
    "CONVERT(w USING utf8mb4)",
];

#[test]
fn mysql_tells_all_that_is_needed_with_full_metadata_also_of_xa_tags_and_json_differences() {
    let options = [
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--binlog-row-metadata=FULL",
        "--binlog-row-value-options=PARTIAL_JSON",
    ];
    let Some(server) = Server::start(Engine::MySql, &options) else { return };
    let changes = [
        "JSON_SET(j, '$.name', 'x')",
        "JSON_REPLACE(j, '$.list[1]', 'two', '$.deep.\"a b\"', JSON_ARRAY(1))",
        "JSON_REMOVE(j, '$.list[0]', '$.n')",
        "JSON_ARRAY_INSERT(j, '$.list[0]', CAST(1.5 AS DECIMAL(5,2)))",
        "JSON_ARRAY_APPEND(j, '$.list', CAST('2024-02-29' AS DATE))",
        "JSON_SET(j, '$.a', 1, '$.zz', 2, '$.b', 3, '$.deep.\"q\\\\\"x\"', NULL)",
    ];
    let mut script = format!(
        "SET NAMES utf8mb4; CREATE DATABASE test; USE test; CREATE TABLE mixed ({MIXED}, vec vector(2), hid int unsigned invisible);
         INSERT INTO mixed VALUES ({MIXED_ROW}, STRING_TO_VECTOR('[1,2]'));
         CREATE TABLE docs (id int PRIMARY KEY, other json, j json, last json);
         INSERT INTO docs VALUES (1, '{{}}', '{{\"name\": \"a longer name\", \"list\": [1, \"zwei\", null], \"n\": 5, \"deep\": {{\"a b\": \"replaced later\"}}}}', '[1]');
         SELECT 'doc', HEX(CONVERT(j USING utf8mb4)), HEX(CONVERT(last USING utf8mb4)) FROM docs;"
    );
    for change in changes {
        script += &format!(
            "UPDATE docs SET j = {change}, last = JSON_SET(last, '$[0]', 7);
             SELECT 'doc', HEX(CONVERT(j USING utf8mb4)), HEX(CONVERT(last USING utf8mb4)) FROM docs;\n"
        );
    }
    script += "XA START 'g', 'b', 7; INSERT INTO docs (id) VALUES (2); XA END 'g', 'b', 7; XA PREPARE 'g', 'b', 7;
        XA COMMIT 'g', 'b', 7;
        SET gtid_next = 'AUTOMATIC:tagged'; INSERT INTO docs (id) VALUES (3); SET gtid_next = 'AUTOMATIC';
        FLUSH BINARY LOGS; SELECT 'uuid', @@server_uuid, '';
        SET binlog_row_image = MINIMAL; UPDATE docs SET j = JSON_SET(j, '$.name', 'y') WHERE id = 1;";
    let answers = server.sql(&script);
    let log = Log::read_until(&server, |_| Vec::new(), |error| error.why().contains("difference to a JSON document"));
    assert!(log.ended, "a difference without the document before it was read");
    let shown_columns = [&MIXED_SHOWN[..], &["vec", "hid"]].concat();
    check_table(&server, &log, "mixed", &shown_columns);

    // Each document after each update, and the one before it, is what the server answered then.
    let documents: Vec<Vec<&str>> =
        answers.iter().filter_map(|line| line.strip_prefix("doc\t")).map(|line| line.split('\t').collect()).collect();
    let updates: Vec<&Change> =
        log.changes.iter().filter(|change| change.table == "docs" && change.before.is_some()).collect();
    assert!(updates.iter().any(|change| change.kind == RowsKind::PartialUpdate), "no differences were logged");
    assert_eq!(updates.len(), changes.len());
    for (change, pair) in updates.iter().zip(documents.windows(2)) {
        for (image, expected) in [(&change.before, &pair[0]), (&change.after, &pair[1])] {
            let image = image.as_ref().unwrap();
            assert_eq!(readable(&shown(image.get(2).unwrap())), readable(expected[0]));
            assert_eq!(readable(&shown(image.get(3).unwrap())), readable(expected[1]));
        }
    }

    let prepared = log.events.iter().find_map(|(_, event)| match event {
        Event::XaPrepare(prepare) => Some(prepare),
        _ => None,
    });
    assert_eq!(prepared.unwrap().id.to_sql(), "X'67',X'62',7");
    let uuid = answers.iter().find_map(|line| line.strip_prefix("uuid\t")).unwrap().trim().replace('-', "");
    let hex = |bytes: &[u8; 16]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let tagged = log.events.iter().find_map(|(_, event)| match event {
        Event::Gtid(gtid) => gtid.gtid.as_ref().filter(|gtid| !gtid.tsid.tag.is_empty()).map(|named| (gtid, named)),
        _ => None,
    });
    let (event, gtid) = tagged.expect("no tagged GTID");
    assert_eq!((hex(&gtid.tsid.uuid), &*gtid.tsid.tag, gtid.number), (uuid.clone(), "tagged", 1));
    assert!(event.immediate_commit.unwrap() > 1_700_000_000_000_000 && event.transaction_length.unwrap() > 100);
    // The second file begins with everything before it, the tagged one too.
    let sets = log.events.iter().filter_map(|(_, event)| match event {
        Event::PreviousGtids(set) if !set.is_empty() => Some(set),
        _ => None,
    });
    let set = sets.last().unwrap();
    assert!(set.iter().all(|interval| hex(&interval.tsid.uuid) == uuid));
    assert!(set.iter().any(|interval| (&*interval.tsid.tag, interval.first, interval.last) == ("tagged", 1, 1)));
    assert!(set.iter().any(|interval| interval.tsid.tag.is_empty() && interval.first == 1 && interval.last > 10));
}

#[test]
fn mariadb_tells_all_that_is_needed_with_full_metadata_also_of_xa() {
    let options = ["--binlog-row-metadata=FULL"];
    let Some(server) = Server::start(Engine::MariaDb, &options) else { return };
    server.sql(&format!(
        "SET NAMES utf8mb4; CREATE DATABASE test; USE test;
         CREATE TABLE mixed ({MIXED}, i6 inet6, after_it varchar(9) character set latin2, z text compressed character set cp1251, last tinyint unsigned);
         INSERT INTO mixed VALUES ({MIXED_ROW}, '::1', 'ž', REPEAT('Я', 200), 200);
         XA START 'g', 'b', 7; DELETE FROM mixed WHERE id = 5; INSERT INTO mixed (id) VALUES (2); XA END 'g', 'b', 7;
         XA PREPARE 'g', 'b', 7; XA COMMIT 'g', 'b', 7; FLUSH BINARY LOGS;"
    ));
    let hints = |_: &str| {
        let mut hints = vec![ColumnHint::default(); 25];
        hints[21].fixed = Some(cutwater::source::mysql::binlog::Fixed::Inet6);
        hints
    };
    let log = Log::read(&server, hints);
    let more = ["i6", "after_it", "z", "last"].map(|column| format!("CONVERT({column} USING utf8mb4)"));
    let shown_columns: Vec<&str> = MIXED_SHOWN.into_iter().chain(more.iter().map(String::as_str)).collect();
    check_table(&server, &log, "mixed", &shown_columns);
    let xa: Vec<_> = log
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::MariaGtid(gtid) => gtid.xa.clone(),
            _ => None,
        })
        .collect();
    assert!(
        matches!(&xa[..], [MariaXa::Prepared(a), MariaXa::Completed(b)] if a == b && a.to_sql() == "X'67',X'62',7"),
        "{xa:?}"
    );
    let list = log.events.iter().rev().find_map(|(_, event)| match event {
        Event::MariaGtidList(list) => Some(list),
        _ => None,
    });
    assert!(matches!(list.unwrap()[..], [entry] if entry.server == 1 && entry.sequence >= 4));
    assert!(
        log.events
            .iter()
            .any(|(_, event)| matches!(event, Event::BinlogCheckpoint(file) if file.starts_with("binlog.")))
    );
    assert!(log.events.iter().any(|(_, event)| matches!(event, Event::Rotate(rotate) if rotate.position == 4)));
}

#[test]
fn every_code_of_every_character_set_is_what_the_server_makes_of_it() {
    let Some(server) = Server::start(Engine::MariaDb, &[]) else { return };
    let single = [
        "armscii8", "ascii", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866", "dec8", "geostd8",
        "greek", "hebrew", "hp8", "keybcs2", "koi8r", "koi8u", "latin1", "latin2", "latin5", "latin7", "macce",
        "macroman", "swe7", "tis620",
    ];
    let multi = ["big5", "cp932", "eucjpms", "euckr", "gb2312", "gbk", "sjis", "ujis"];
    let mut script = String::from(
        "SET sql_mode = ''; CREATE DATABASE test; USE test; CREATE TABLE codes (code varbinary(3));
         INSERT INTO codes SELECT CHAR(seq) FROM seq_0_to_255; CREATE TABLE wide (code varbinary(3));
         INSERT INTO wide SELECT CONCAT(CHAR(a.seq), CHAR(b.seq)) FROM seq_129_to_254 a, seq_64_to_254 b;
         CREATE TABLE wider (code varbinary(3));
         INSERT INTO wider SELECT CONCAT(X'8F', CHAR(a.seq), CHAR(b.seq)) FROM seq_161_to_254 a, seq_161_to_254 b;\n",
    );
    let asked = |set: &str, table: &str| {
        format!(
            "SELECT '{set}', HEX(code), IFNULL(HEX(CONVERT(CONVERT(code USING {set}) USING utf8mb4)), '') FROM {table};\n"
        )
    };
    script.extend(single.iter().map(|set| asked(set, "codes")));
    script.extend(multi.iter().map(|set| asked(set, "wide")));
    script.extend(["eucjpms", "ujis"].iter().map(|set| asked(set, "wider")));
    let (mut compared, mut wrong) = (0, Vec::new());
    for line in server.sql(&script) {
        let fields: Vec<&str> = line.split('\t').collect();
        let code: Vec<u8> = (0..fields[1].len() / 2)
            .map(|at| u8::from_str_radix(&fields[1][at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        let mut out = bytes::BytesMut::new();
        let ours = Charset::named(fields[0]).unwrap().decode(&code, &mut out).ok().map(|()| shown(Datum::Text(&out)));
        // What it does not know it prints as a question mark, or as U+FFFD.
        let known = |hex: &str| {
            hex != "EFBFBD" && (fields[1] == "3F" || !(0..hex.len()).step_by(2).any(|at| &hex[at..at + 2] == "3F"))
        };
        let theirs = Some(fields[2]).filter(|hex| known(hex) && (!hex.is_empty() || code.is_empty()));
        compared += 1;
        if ours.as_deref() != theirs {
            wrong.push(format!("{} {}: {ours:?}, the server {theirs:?}", fields[0], fields[1]));
        }
    }
    assert!(compared > 200_000, "{compared}");
    assert!(wrong.is_empty(), "{} of {compared} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
}
