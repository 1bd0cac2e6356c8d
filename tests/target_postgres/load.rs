//! How rows get into the target's tables before the stream: whole or not at all, and the state knows which.

use super::*;

fn stream(chunks: Vec<Result<CopyChunk, Error>>) -> CopyStream {
    Box::pin(futures::stream::iter(chunks))
}

fn new_table(table: &TableSchema) -> NewTable {
    let (source, target) = (table.name.clone(), table.name.clone());
    NewTable { source, target, rows: 2, bytes: 100, rule: String::new() }
}

fn chunk(text: &'static str) -> Result<CopyChunk, Error> {
    Ok(CopyChunk { bytes: Bytes::from_static(text.as_bytes()), rows: text.matches('\n').count() as u64 })
}

#[tokio::test]
async fn a_table_is_loaded_whole_or_not_at_all() {
    let f = Fixture::new(USERS).await;
    let t = users();
    let columns = ["id", "name", "note"].map(String::from);
    f.target.state().add_tables(&f.lease, &[new_table(&t)]).await.unwrap();
    f.database.execute("INSERT INTO users VALUES (99, 'left over')").await;
    let load = |chunks| {
        f.target.load(&f.lease, &t.name, &t, &columns, CopyFormat::PgText, LoadMode::Whole, &POSITION, stream(chunks))
    };
    static POSITION: Position = Position::Postgres(Lsn(0x180));
    let cut = Error::new(Kind::Connection, "the source is gone");
    let error = load(vec![chunk("1\ta\t\\N\n"), Err(cut)]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connection);
    assert_eq!(f.rows("users").await, ["(99,\"left over\",)"]);
    let loaded = load(vec![chunk("1\ta\t\\N\n2\tb"), chunk("b\tx\n")]).await.unwrap();
    assert_eq!(loaded.rows, 2);
    assert_eq!(f.rows("users").await, ["(1,a,)", "(2,bb,x)"]);
    let state = &f.target.state().tables().await.unwrap()[0];
    assert_eq!((state.stage.as_str(), state.copied_at.clone(), state.rows_copied), ("copied", Some(at(0x180)), 2));
    // A count that does not agree is no success.
    let wrong = Ok(CopyChunk { bytes: Bytes::from_static(b"5\ta\t\\N\n"), rows: 2 });
    assert_eq!(load(vec![wrong]).await.unwrap_err().kind(), Kind::Protocol);
    assert_eq!(f.rows("users").await.len(), 2);
    // And a fenced instance loads nothing.
    take_lease(&f.target, "second").await;
    assert_eq!(load(vec![chunk("1\ta\t\\N\n")]).await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(f.rows("users").await.len(), 2);
}

#[tokio::test]
async fn rows_as_they_are_are_loaded_to_the_letter_and_one_cut_in_two_is_refused() {
    let f = Fixture::new(USERS).await;
    let t = users();
    let columns = ["id", "name", "note"].map(String::from);
    f.target.state().add_tables(&f.lease, &[new_table(&t)]).await.unwrap();
    let place = at(0x180);
    let load = |chunks: Vec<Bytes>, rows: u64| {
        let chunks = chunks.into_iter().enumerate();
        let chunks = chunks.map(|(index, bytes)| Ok(CopyChunk { bytes, rows: if index == 0 { rows } else { 0 } }));
        let chunks = stream(chunks.collect());
        f.target.load(&f.lease, &t.name, &t, &columns, CopyFormat::Rows, LoadMode::Whole, &place, chunks)
    };
    let awkward = "a\\b\tc\nd\re \\N \u{e9}";
    let rows: [Row; 3] = [
        [Datum::Text(b"1"), Datum::Text(awkward.as_bytes()), Datum::Null].into_iter().collect(),
        [Datum::Text(b"2"), Datum::Text(b""), Datum::Text(b"\\N")].into_iter().collect(),
        [Datum::Text(b"3"), Datum::Text(b"\\."), Datum::Null].into_iter().collect(),
    ];
    let [first, second, third] = rows.map(|row| row.as_bytes().clone());
    let both: Bytes = [first.clone(), second].concat().into();
    assert_eq!(load(vec![both, third], 3).await.unwrap().rows, 3);
    let client = f.database.connect().await;
    let there: Vec<(String, Option<String>)> = client
        .query("SELECT name, note FROM users ORDER BY id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let wanted = [(awkward, None), ("", Some("\\N")), ("\\.", None)];
    assert_eq!(there, wanted.map(|(name, note)| (name.to_owned(), note.map(str::to_owned))));
    let error = load(vec![first.slice(..7), first.slice(7..)], 1).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol, "{error}");
    let binary: Row = [Datum::Text(b"4"), Datum::Binary(b"raw"), Datum::Null].into_iter().collect();
    assert_eq!(load(vec![binary.as_bytes().clone()], 1).await.unwrap_err().kind(), Kind::Internal);
    assert_eq!(f.rows("users").await.len(), 3);
}

#[tokio::test]
async fn a_table_loaded_in_parts_is_copied_only_when_all_are_there() {
    let f = Fixture::new(&format!("{USERS}; CREATE TABLE pets (id int PRIMARY KEY, owner int REFERENCES users)")).await;
    let t = users();
    let columns = ["id", "name", "note"].map(String::from);
    f.target.state().add_tables(&f.lease, &[new_table(&t)]).await.unwrap();
    f.database.execute("INSERT INTO users VALUES (99, 'left over')").await;
    f.target.begin_table(&f.lease, &t.name, &t).await.unwrap();
    assert!(f.rows("users").await.is_empty());
    let place = at(0x180);
    let part = |text| {
        let chunks = stream(vec![chunk(text)]);
        f.target.load(&f.lease, &t.name, &t, &columns, CopyFormat::PgText, LoadMode::Append, &place, chunks)
    };
    let (a, b) = tokio::join!(part("1\ta\t\\N\n"), part("2\tb\t\\N\n"));
    assert_eq!(a.unwrap().rows + b.unwrap().rows, 2);
    assert_eq!(f.target.state().tables().await.unwrap()[0].stage.as_str(), "copying");
    f.target.finish_table(&f.lease, &t.name, &place, 2).await.unwrap();
    let state = &f.target.state().tables().await.unwrap()[0];
    assert_eq!((state.stage.as_str(), state.copied_at.clone()), ("copied", Some(place.clone())));
    assert_eq!(f.rows("users").await.len(), 2);
    take_lease(&f.target, "second").await;
    assert_eq!(part("3\tc\t\\N\n").await.unwrap_err().kind(), Kind::Fenced);
}

#[tokio::test]
async fn rows_in_a_target_table_stop_the_run_with_counts() {
    let f = Fixture::new(&format!("{USERS}; CREATE TABLE pets (id int PRIMARY KEY, owner int REFERENCES users)")).await;
    let names = [TableName::new("public", "users"), TableName::new("public", "pets")];
    f.target.make_room(&names, Existing::Stop).await.unwrap();
    f.database
        .execute("INSERT INTO users SELECT i, 'a' FROM generate_series(1, 1204) i; INSERT INTO pets VALUES (1, 1)")
        .await;
    let error = f.target.make_room(&names, Existing::Stop).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotEmpty);
    assert!(error.message().contains("public.users (1,204 rows), public.pets (1 row)"), "{error}");
    assert!(error.suggestion().unwrap().contains("[target] existing = \"truncate\""), "{error}");
    f.target.make_room(&names, Existing::Truncate).await.unwrap();
    assert!(f.rows("users").await.is_empty());
}

#[tokio::test]
async fn the_tables_of_a_migration_are_recorded_all_or_none() {
    let f = Fixture::new(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN IF NEW.source_table = 'b' THEN RAISE 'killed here'; END IF; RETURN NEW; END $$",
    )
    .await;
    let tables = ["a", "b", "c"].map(|name| NewTable {
        source: TableName::new("public", name),
        target: TableName::new("public", name),
        rows: 1,
        bytes: 2,
        rule: "as it is".into(),
    });
    f.database
        .execute("CREATE TRIGGER refuse BEFORE INSERT ON cutwater.table_state FOR EACH ROW EXECUTE FUNCTION refuse()")
        .await;
    f.target.state().add_tables(&f.lease, &tables).await.unwrap_err();
    assert!(f.target.state().tables().await.unwrap().is_empty(), "a successor would take a part for the whole");
    f.database.execute("DROP TRIGGER refuse ON cutwater.table_state").await;
    f.target.state().add_tables(&f.lease, &tables).await.unwrap();
    f.target.state().add_tables(&f.lease, &tables).await.unwrap();
    assert_eq!(f.target.state().tables().await.unwrap().len(), 3);
}
