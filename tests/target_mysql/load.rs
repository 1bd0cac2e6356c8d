//! How rows get into the target's tables before the stream: whole or not at all, and the state knows which.

use std::sync::Arc;

use bytes::Bytes;
use cutwater::change::Datum;
use cutwater::config::Existing;
use cutwater::error::{Error, Kind};
use cutwater::mysql::Flavour;
use cutwater::schema::TableName;
use cutwater::source::CopyChunk;
use cutwater::target::{LoadMode, Target};

use super::fixture::*;
use super::{USERS, user};
use crate::support::{MyOptions, my_server};

#[tokio::test]
async fn a_table_is_loaded_whole_or_not_at_all() {
    on_both(USERS, async |f| {
        let t = f.table("users").await;
        f.known(&[&t]).await;
        f.execute("INSERT INTO users VALUES (99, 'left over', NULL)").await;
        let chunk = |id: i32, rows| {
            let row = user(id, "a\tb\nc\\d'\0", None);
            Ok(CopyChunk { bytes: row.as_bytes().clone(), rows })
        };
        let load = |chunks: Vec<_>| f.load_stream(&t, LoadMode::Whole, Box::pin(futures::stream::iter(chunks)));
        let cut = Error::new(Kind::Connection, "the source is gone");
        let error = load(vec![chunk(1, 1), Err(cut)]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Connection);
        assert_eq!(f.rows("users").await, ["99,left over,"]);
        let loaded = load(vec![chunk(1, 1), chunk(2, 1)]).await.unwrap();
        assert_eq!(loaded.rows, 2);
        assert_eq!(f.rows("users").await, ["1,a\tb\nc\\d'\0,", "2,a\tb\nc\\d'\0,"]);
        let state = &f.target.state().tables().await.unwrap()[0];
        assert_eq!((state.stage.as_str(), state.copied_at.clone(), state.rows_copied), ("copied", Some(at(0x180)), 2));
        // A count that does not agree is no success, nor a row that is cut in two, nor a key that comes twice.
        assert_eq!(load(vec![chunk(5, 2)]).await.unwrap_err().kind(), Kind::Protocol);
        let half = CopyChunk { bytes: user(1, "a", None).as_bytes().slice(..4), rows: 1 };
        assert_eq!(load(vec![Ok(half)]).await.unwrap_err().kind(), Kind::Protocol);
        assert_eq!(load(vec![chunk(5, 1), chunk(5, 1)]).await.unwrap_err().kind(), Kind::BadRow);
        assert_eq!(f.rows("users").await.len(), 2);
        // And a fenced instance loads nothing.
        take_lease(&f.target, "second").await;
        assert_eq!(load(vec![chunk(1, 1)]).await.unwrap_err().kind(), Kind::Fenced);
        assert_eq!(f.rows("users").await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_table_loaded_in_parts_is_copied_only_when_all_are_there() {
    on_both(USERS, async |f| {
        let t = f.table("users").await;
        f.known(&[&t]).await;
        f.execute("INSERT INTO users VALUES (99, 'left over', NULL)").await;
        f.target.begin_table(&f.lease, &t.name, &t).await.unwrap();
        assert!(f.rows("users").await.is_empty());
        let parts = [[user(1, "a", None)], [user(2, "b", None)]];
        let (one, two) = tokio::join!(f.load(&t, LoadMode::Append, &parts[0]), f.load(&t, LoadMode::Append, &parts[1]));
        assert_eq!((one.unwrap().rows, two.unwrap().rows), (1, 1));
        assert_eq!(f.target.state().tables().await.unwrap()[0].stage.as_str(), "copying");
        f.target.finish_table(&f.lease, &t.name, &at(0x180), 2).await.unwrap();
        let state = &f.target.state().tables().await.unwrap()[0];
        assert_eq!((state.stage.as_str(), state.copied_at.clone()), ("copied", Some(at(0x180))));
        take_lease(&f.target, "second").await;
        assert_eq!(f.load(&t, LoadMode::Append, &[user(3, "c", None)]).await.unwrap_err().kind(), Kind::Fenced);
        assert_eq!(f.target.begin_table(&f.lease, &t.name, &t).await.unwrap_err().kind(), Kind::Fenced);
        assert_eq!(f.rows("users").await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn rows_in_a_target_table_stop_the_run_with_counts() {
    let ddl = "CREATE TABLE users (id int PRIMARY KEY, name varchar(40), note text);
               CREATE TABLE pets (id int PRIMARY KEY, owner int, FOREIGN KEY (owner) REFERENCES users (id))";
    on_both(ddl, async |f| {
        let names = ["users", "pets"].map(|name| TableName::new(&f.database, name));
        f.target.make_room(&names, Existing::Stop).await.unwrap();
        let rows: Vec<String> = (1..=1204).map(|id| format!("({id}, 'a', NULL)")).collect();
        f.execute(&format!("INSERT INTO users VALUES {}", rows.join(", "))).await;
        f.execute("INSERT INTO pets VALUES (1, 1)").await;
        let error = f.target.make_room(&names, Existing::Stop).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotEmpty);
        assert!(error.message().contains(".users (1,204 rows)"), "{error}");
        assert!(error.message().contains(".pets (1 row)"), "{error}");
        f.target.make_room(&names, Existing::Truncate).await.unwrap();
        assert!(f.rows("users").await.is_empty());
    })
    .await;
}

/// Managed services have `local_infile = OFF`.
#[tokio::test]
async fn where_files_may_not_be_loaded_rows_are_inserted() {
    for flavour in [Flavour::MySql, Flavour::MariaDb] {
        let options = MyOptions::new().setting("local-infile", "OFF").setting("max-allowed-packet", "1M");
        let Some(server) = my_server(flavour, options, "loading without files").await else { continue };
        let ddl = "CREATE TABLE files (id int PRIMARY KEY, name varchar(40) CHARACTER SET latin1, content longblob)";
        let f = Fixture::of(Arc::new(server), ddl, "postgres", "15").await;
        let t = f.table("files").await;
        f.known(&[&t]).await;
        let content: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let rows: Vec<_> = (0..1000)
            .map(|id: i32| {
                let id = id.to_string();
                [Datum::Text(id.as_bytes()), Datum::Text("größe\t\\N".as_bytes()), Datum::Binary(&content)]
                    .into_iter()
                    .collect()
            })
            .collect();
        assert_eq!(f.load(&t, LoadMode::Whole, &rows).await.unwrap().rows, 1000);
        let mut expected = rows.clone();
        expected.sort_by(|a: &cutwater::change::Row, b| a.as_bytes().cmp(b.as_bytes()));
        assert_eq!(f.canonical(&t).await, expected);
        let chunk = CopyChunk { bytes: Bytes::from(rows[0].as_bytes().to_vec()), rows: 1 };
        let again = f.load_stream(&t, LoadMode::Append, Box::pin(futures::stream::iter([Ok(chunk)]))).await;
        assert_eq!(again.unwrap_err().kind(), Kind::BadRow);
    }
}
