//! Both ends, compared as text: the judge that knows nothing of Cutwater.

use bytes::{Buf, BytesMut};
use futures::{Stream, StreamExt};
use std::pin::{Pin, pin};
use tokio_postgres::{Client, NoTls};

/// Panics at the first difference between the rows of these tables (`schema.table`, quoted where needed) at both ends.
/// Every row is compared as `COPY` text; the order is that of the whole row's text.
pub async fn assert_equal(source_url: &str, target_url: &str, tables: &[&str]) {
    for table in tables {
        compare(table, dump(source_url, table).await, dump(target_url, table).await).await;
    }
}

/// The rows of a table as `COPY` text.
pub async fn dump(url: &str, table: &str) -> Pin<Box<dyn Stream<Item = bytes::Bytes> + Send>> {
    let client = session(url).await;
    let query = format!("COPY (SELECT * FROM {table} AS whole_row ORDER BY whole_row::text COLLATE \"C\") TO STDOUT");
    let rows = copy(&client, &query).await;
    // The session has to live as long as its rows are read.
    Box::pin(rows.map(move |chunk| {
        let _ = &client;
        chunk
    }))
}

/// The names of a table's columns, in order.
pub async fn columns_of(url: &str, table: &str) -> Vec<String> {
    let rows = session(url)
        .await
        .query(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
             ORDER BY attnum",
            &[&table],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(
            "SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3;
             SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET quote_all_identifiers = off; SET search_path = public;
             SET work_mem = '128MB'; SET row_security = off",
        )
        .await
        .unwrap();
    client
}

async fn copy(client: &Client, query: &str) -> impl Stream<Item = bytes::Bytes> + use<> {
    let stream = client.copy_out(query).await.unwrap_or_else(|error| panic!("{error:?} in {query}"));
    stream.map(|chunk| chunk.unwrap())
}

/// Panics at the first line that differs.
pub async fn compare(table: &str, source: impl Stream<Item = bytes::Bytes>, target: impl Stream<Item = bytes::Bytes>) {
    let (mut source, mut target) = (pin!(source), pin!(target));
    let (mut left, mut right) = (BytesMut::new(), BytesMut::new());
    let mut rows = 0usize;
    loop {
        let source_open = fill(&mut left, &mut source).await;
        let target_open = fill(&mut right, &mut target).await;
        while let (Some(a), Some(b)) = (line(&left), line(&right)) {
            assert!(
                left[..a] == right[..b],
                "{table} differs at row {rows} (in text order)\nsource: {}\ntarget: {}",
                String::from_utf8_lossy(&left[..a]),
                String::from_utf8_lossy(&right[..b])
            );
            left.advance(a);
            right.advance(b);
            rows += 1;
        }
        if !source_open && !target_open {
            let rest = |buffer: &BytesMut| String::from_utf8_lossy(buffer).chars().take(500).collect::<String>();
            assert!(left.is_empty(), "{table}: after {rows} equal rows, only the source has\n{}", rest(&left));
            assert!(right.is_empty(), "{table}: after {rows} equal rows, only the target has\n{}", rest(&right));
            return;
        }
    }
}

/// Reads on until the buffer holds a whole line; false at the end of the stream.
async fn fill(buffer: &mut BytesMut, stream: &mut (impl Stream<Item = bytes::Bytes> + Unpin)) -> bool {
    while line(buffer).is_none() {
        match stream.next().await {
            Some(chunk) => buffer.extend_from_slice(&chunk),
            None => return false,
        }
    }
    true
}

fn line(buffer: &[u8]) -> Option<usize> {
    buffer.iter().position(|&byte| byte == b'\n').map(|end| end + 1)
}

/// Panics at the first difference between these lines, whose order does not matter.
pub fn compare_lines(table: &str, mut source: Vec<String>, mut target: Vec<String>) {
    source.sort_unstable();
    target.sort_unstable();
    if let Some((row, (a, b))) = source.iter().zip(&target).enumerate().find(|(_, (a, b))| a != b) {
        panic!("{table} differs at row {row} (in text order)\nsource: {a}\ntarget: {b}");
    }
    assert_eq!(source.len(), target.len(), "{table}: rows at the source, and at the target");
}
