//! The binlog decoder against real servers: what it makes of the server's own files is what the server itself answers when
//! it is asked for the rows.

#[path = "binlog/matrix.rs"]
mod matrix;
#[path = "binlog/server.rs"]
mod server;

use std::collections::HashMap;

use bytes::Bytes;
use cutwater::change::{Datum, Row};
use cutwater::source::mysql::binlog::{
    Checksum, ColumnHint, Event, EventHeader, FormatDescription, RowReader, RowsKind, TableMap, refuse_invalid,
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
}

impl Log {
    fn read(server: &Server, hints: impl Fn(&str) -> Vec<ColumnHint>) -> Log {
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
                log.event(file.slice(at..at + size), &mut format, &mut tables, &mut reader, &hints);
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
    ) {
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
                        .unwrap_or_else(|e| panic!("{table}: {e}"))
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
                    self.event(event.unwrap(), &mut inner, tables, reader, hints);
                }
            }
            _ => {}
        }
        self.events.push((header, event));
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
    let options = ["--binlog-row-metadata=MINIMAL", "--binlog-checksum=NONE"];
    let Some(log) = matrix(Engine::MySql, &options, "SET binlog_row_image = MINIMAL") else { return };
    let update = log.changes.iter().find(|change| change.kind == RowsKind::Update).unwrap();
    assert_eq!(update.before.as_ref().unwrap().get(1), Some(Datum::Unchanged));
    assert_eq!(update.after.as_ref().unwrap().get(0), Some(Datum::Unchanged));
    assert!(log.events.iter().any(|(_, event)| matches!(event, Event::Format(f) if f.checksum == Checksum::None)));
}

#[test]
fn mariadb_rows_are_what_the_server_answers_with_everything_logged() {
    let options = ["--binlog-row-metadata=FULL", "--binlog-annotate-row-events=ON", "--gtid-domain-id=3"];
    let Some(log) = matrix(Engine::MariaDb, &options, "SET binlog_row_image = FULL") else { return };
    let has = |wanted: fn(&Event) -> bool| log.events.iter().any(|(_, event)| wanted(event));
    assert!(has(|event| matches!(event, Event::MariaGtid(gtid) if gtid.domain == 3 && gtid.transactional)));
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
