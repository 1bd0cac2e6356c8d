//! Values of every type are the same after the load and after changes, to the byte; rows without a key are found by them.

use cutwater::change::Row;
use cutwater::mysql::Flavour;
use cutwater::target::LoadMode;

use super::fixture::*;

const BOTH: &str = "id int, a tinyint, b smallint unsigned, c mediumint zerofill, d int, e bigint unsigned, e2 bigint,
    f decimal(65,30), g float, h double, i bit(1), j bit(64), k year, l date, m datetime(6), n timestamp(3) NULL,
    o time(6), p char(10), q varchar(40), r tinytext, s longtext,
    p1 char(10) CHARACTER SET latin1, q1 varchar(40) CHARACTER SET utf16, s1 text CHARACTER SET cp1251,
    u0 varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    t binary(8), u varbinary(40), v blob, w longblob, x enum('a','b''c','ü','1'), y set('x','y','ü'),
    x1 enum('é','n') CHARACTER SET latin1, z json, geo geometry, pt point";

const MARIADB: &str = ", uu uuid, i4 inet4, i6 inet6, jj longtext COLLATE utf8mb4_bin CHECK (json_valid(jj))";

/// Rows in the words of the servers: extremes, odd characters, zeros, NULLs.
fn rows(flavour: Flavour) -> Vec<String> {
    let more = |values: &str| if flavour == Flavour::MariaDb { format!(", {values}") } else { String::new() };
    let bytes: String = (0..=255).map(|byte| format!("{byte:02x}")).collect();
    let point = "ST_GeomFromText('POINT(1.5 -2.25)')";
    vec![
        format!(
            "1, -128, 65535, 16777215, -2147483648, 18446744073709551615, -9223372036854775808,
             '-99999999999999999999999999999999999.999999999999999999999999999999', -3.4028234e38, 2.2250738585072014e-308,
             b'1', x'ffffffffffffffff', '0000', '9999-12-31', '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07.999',
             '-838:59:59.000000', 'a\\tb', 'it''s \\\\ \"q\" \\n\\t\\r', 'r', '😀 \\\\N', 'größe', 'Ω 😀', 'Привет', 'trail ',
             x'0001ff5c27090a00', x'', x'{bytes}', x'{bytes}{bytes}', 'b''c', 'x,ü', 'é', '{{\"k\": [1, 1.5, \"ü\\\\\"\"]}}',
             {point}, {point}{}",
            more("'123e4567-e89b-12d3-a456-426655440000', '1.2.3.4', '2001:db8::ff00:42:8329', '{\"a\": 1.0 }'")
        ),
        format!(
            "2, 127, 0, 7, 2147483647, 0, 9223372036854775807, 0.000000000000000000000000000001, 0.1, 0.1, b'0', 5, 2155,
             '0000-00-00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '838:59:59', '', '', '', '', '', '', '', '',
             x'', 'a', '', '\\\\', '1', '', 'n', 'null', ST_GeomFromText('GEOMETRYCOLLECTION(POINT(0 0))'), {point}{}",
            more("'00000000-0000-0000-0000-000000000000', '0.0.0.0', '::', '[]'")
        ),
        format!(
            "3, 0, 1, 0, 0, 1, 0, 12345.678, 16777217, 1e300, b'1', 0, 1901, '2026-02-30', '2026-02-30 00:00:00.5',
             '1970-01-01 00:00:01', '00:00:00.000001', 'A', 'X', 'é', 'e', 'E', 'x', 'y', 'trail', x'00', x'00', x'00', x'0a',
             'ü', 'x', 'é', '[]', {point}, {point}{}",
            more("'ffffffff-ffff-ffff-ffff-ffffffffffff', '255.255.255.255', 'ffff::', '{}'")
        ),
        format!("4{}", ", NULL".repeat(if flavour == Flavour::MariaDb { 38 } else { 34 })),
    ]
}

async fn matrix(f: &Fixture) -> Vec<Row> {
    let flavour = f.server.flavour();
    let more = if flavour == Flavour::MariaDb { MARIADB } else { "" };
    let mut session = f.session().await;
    for (name, key) in
        [("source", ""), ("loaded", ", PRIMARY KEY (id)"), ("applied", ", PRIMARY KEY (id)"), ("bare", "")]
    {
        session.execute(format!("CREATE TABLE {name} ({BOTH}{more}{key})")).await.unwrap();
    }
    session.execute("SET sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'").await.unwrap();
    for row in rows(flavour) {
        session.execute(format!("INSERT INTO source VALUES ({row})")).await.unwrap_or_else(|e| panic!("{e}\n{row}"));
    }
    drop(session);
    let source = f.table("source").await;
    f.canonical(&source).await
}

#[tokio::test]
async fn values_of_every_type_are_loaded_and_applied_to_the_byte() {
    on_both("", async |f| {
        let rows = matrix(&f).await;
        assert_eq!(rows.len(), 4);
        let [loaded, applied, bare] = [f.table("loaded").await, f.table("applied").await, f.table("bare").await];
        f.known(&[&loaded]).await;
        f.load(&loaded, LoadMode::Whole, &rows).await.unwrap();
        assert_eq!(f.canonical(&loaded).await, rows, "loaded");

        let mut applier = f.applier().await;
        let all = |of: fn(&_, Row) -> _, table| rows.iter().map(|row| of(table, row.clone())).collect::<Vec<_>>();
        f.apply_as_sets(&mut applier, all(insert, &applied)).await;
        assert_eq!(f.canonical(&applied).await, rows, "inserted");
        f.execute("UPDATE applied SET a = 5, s = 'other', v = 'other', z = NULL, l = NULL, f = 1, j = 1, x = 'a'")
            .await;
        f.apply_as_sets(&mut applier, all(update, &applied)).await;
        assert_eq!(f.canonical(&applied).await, rows, "updated");

        // Without a key each row is found by all its values, among those that only look like it.
        f.apply_as_sets(&mut applier, all(insert, &bare)).await;
        let mut with_more = rows.clone();
        for row in &rows {
            let new = rows[0].clone();
            f.apply_as_sets(&mut applier, vec![rekey(&bare, row.clone(), new.clone())]).await;
            with_more.retain(|other| other != row);
            with_more.push(new);
            with_more.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        }
        assert_eq!(f.canonical(&bare).await, vec![rows[0].clone(); 4], "found by their values");
        for left in (0..4).rev() {
            f.apply_as_sets(&mut applier, vec![delete(&bare, rows[0].clone())]).await;
            assert_eq!(f.canonical(&bare).await.len(), left);
        }
    })
    .await;
}

/// Keys of several columns, of every type by which rows are joined, and of some that are looked up one by one.
#[tokio::test]
async fn keys_of_many_types_find_their_rows_in_sets() {
    let types = [
        "bigint unsigned",
        "decimal(20,4)",
        "varchar(20)",
        "varchar(20) CHARACTER SET latin1 COLLATE latin1_german1_ci",
        "varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        "char(20) CHARACTER SET utf16",
        "varbinary(20)",
        "binary(4)",
        "date",
        "datetime(3)",
        "timestamp(6)",
        "time(2)",
        "double",
        "float",
        "enum('a','b','c','d')",
        "bit(20)",
        "year",
    ];
    let samples: [&[&str]; 17] = [
        &["0", "18446744073709551615", "5"],
        &["0.0000", "-12345.6789", "9999999999999999.9999"],
        &["a", "größe", "😀"],
        &["a", "ö", "é"],
        &["a", "A", "a''\\\\"],
        &["a", "ö", "Ω"],
        &["", "a''", "\\\\0"],
        &["abcd", "\\0\\0\\0\\0", "ab"],
        &["2026-01-01", "0000-00-00", "1000-01-01"],
        &["2026-01-01 00:00:00.123", "0000-00-00 00:00:00", "1999-12-31 23:59:59.999"],
        &["2026-01-01 00:00:00.123456", "1999-12-31 23:59:59", "2000-01-01 00:00:00"],
        &["-10:00:00.50", "00:00:00", "838:59:59"],
        &["0.1", "1e300", "-0.5"],
        &["0.1", "1e30", "-0.5"],
        &["a", "b", "d"],
        &["5", "7", "1"],
        &["1901", "0000", "2155"],
    ];
    on_both("", async |f| {
        let mut applier = f.applier().await;
        let mut session = f.session().await;
        for (n, (ty, samples)) in types.iter().zip(samples).enumerate() {
            for key in ["k", "n, k"] {
                let name = format!("t{n}_{}", key.len());
                let sql = format!("CREATE TABLE {name} (n int, k {ty} NOT NULL, v varchar(10), PRIMARY KEY ({key}))");
                session.execute(sql).await.unwrap();
                for (number, sample) in samples.iter().enumerate() {
                    let sample = if ty.starts_with("bit") { (*sample).to_owned() } else { format!("'{sample}'") };
                    let sql = format!("INSERT INTO {name} VALUES ({number}, {sample}, 'old')");
                    session.execute(&sql).await.unwrap_or_else(|error| panic!("{error}\nin {sql}"));
                }
                let t = f.table(&name).await;
                let before = f.canonical(&t).await;
                session.execute(format!("UPDATE {name} SET v = 'wrong'")).await.unwrap();
                f.apply_as_sets(&mut applier, before.iter().map(|row| update(&t, row.clone())).collect()).await;
                assert_eq!(f.canonical(&t).await, before, "{ty} updated");
                f.apply_as_sets(&mut applier, before.iter().map(|row| delete(&t, row.clone())).collect()).await;
                assert!(f.canonical(&t).await.is_empty(), "{ty} deleted");
            }
        }
    })
    .await;
}
