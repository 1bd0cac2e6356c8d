//! The decoder of row events beside `mysql_common`'s rows iterator, on the same events: `cargo bench --bench binlog`.
//!
//! A row is (bigint, int, varchar, timestamp(6), decimal(12,2)). Timed from the bytes of the event to the last row: ours to
//! rows in the pipeline's layout, with every value as text; theirs, whose events were read beforehand, to its own values.
//! Rounds alternate; printed is the ratio of the medians. The absolute figures are good for nothing but this run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench reports to a terminal and dies of errors"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cutwater::source::mysql::binlog::{ColumnLayout, Event, FormatDescription, RowReader, kind, refuse_invalid};
use mysql_async::binlog::BinlogVersion;
use mysql_async::binlog::events::{EventData, FormatDescriptionEvent, RowsEventData, TableMapEvent};

const ROWS: usize = 200_000;

fn event(kind: u8, body: &[u8]) -> Bytes {
    let mut event = vec![0; 19];
    event[4] = kind;
    event[9..13].copy_from_slice(&((19 + body.len()) as u32).to_le_bytes());
    event.extend_from_slice(body);
    event.into()
}

fn table_map() -> Bytes {
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
    body.extend_from_slice(b"\x04shop\0\x06orders\0");
    body.extend_from_slice(&[5, 8, 3, 15, 17, 246, 5, 160, 0, 6, 12, 2, 0]);
    // Signs of the three numbers, one character set for the one text.
    body.extend_from_slice(&[1, 1, 0, 2, 1, 45]);
    event(kind::TABLE_MAP, &body)
}

fn rows(per_event: usize) -> Vec<Bytes> {
    (0..ROWS / per_event)
        .map(|number| {
            let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 5, 0x1F];
            for row in 0..per_event {
                let id = (number * per_event + row) as u64;
                body.push(0);
                body.extend_from_slice(&(id * 7919).to_le_bytes());
                body.extend_from_slice(&(id as u32).to_le_bytes());
                body.push(40);
                body.extend_from_slice(&[b'a' + (id % 26) as u8; 40]);
                body.extend_from_slice(&(1_700_000_000 + id as u32).to_be_bytes());
                body.extend_from_slice(&[0, 1, 2]);
                // Ten digits before the point and two behind it.
                body.extend_from_slice(&[0x80, 0, 1, 0xE2, 0x40, 34]);
            }
            event(kind::WRITE_ROWS, &body)
        })
        .collect()
}

fn ours(events: &[Bytes], format: &FormatDescription, columns: &[ColumnLayout]) -> Duration {
    let began = Instant::now();
    let (mut reader, mut count) = (RowReader::new(), 0);
    for event in events {
        let Event::Rows(rows) = Event::decode(event.clone(), format).unwrap().1 else { unreachable!() };
        let mut images = rows.images();
        while let Some(row) = reader.next(&mut images, columns, &mut refuse_invalid).unwrap() {
            black_box(&row);
            count += 1;
        }
    }
    assert_eq!(count, ROWS);
    began.elapsed()
}

fn theirs(events: &[mysql_async::binlog::events::Event], map: &TableMapEvent<'_>) -> Duration {
    let began = Instant::now();
    let mut count = 0;
    for event in events {
        let Some(EventData::RowsEvent(RowsEventData::WriteRowsEvent(rows))) = event.read_data().unwrap() else {
            unreachable!()
        };
        for row in rows.rows(map) {
            black_box(row.unwrap());
            count += 1;
        }
    }
    assert_eq!(count, ROWS);
    began.elapsed()
}

fn main() {
    let format = FormatDescription::before_the_first().without_checksum();
    let Event::TableMap(map) = Event::decode(table_map(), &format).unwrap().1 else { unreachable!() };
    let columns = map.layout(&[]).unwrap();
    let their_format = FormatDescriptionEvent::new(BinlogVersion::Version4);
    let read = |bytes: &Bytes| mysql_async::binlog::events::Event::read(&their_format, &bytes[..]).unwrap();
    let their_map = read(&table_map());
    let their_map: TableMapEvent<'_> = their_map.read_event().unwrap();
    for per_event in [1, 100] {
        let events = rows(per_event);
        let their_events: Vec<_> = events.iter().map(read).collect();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..9 {
            a.push(ours(&events, &format, &columns));
            b.push(theirs(&their_events, &their_map));
        }
        a.sort();
        b.sort();
        let rate = |time: Duration| ROWS as f64 / time.as_secs_f64() / 1e6;
        println!(
            "{per_event:>3} rows an event: {:.1}x mysql_common's rows iterator ({:.2} and {:.2} million rows/s)",
            b[4].as_secs_f64() / a[4].as_secs_f64(),
            rate(a[4]),
            rate(b[4])
        );
    }
}
