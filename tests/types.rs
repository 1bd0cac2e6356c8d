//! Every type of the server, in snapshot and stream, in binary and in text form: what arrives is what was written.
//!
//! The list is the server's own: a type in `pg_type` for which `types/values.txt` has nothing fails the test. Each type is
//! tried as a column, as an array (of several dimensions, with other bounds, with NULL), as a key, in a table without key,
//! and inside domains and composites. Source and target differ in every setting that shapes a value's text. Between servers
//! of different versions one table has a column of every type.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use cutwater::config::Url;
use cutwater::postgres::{ConnInfo, catalog};
use support::{Cutwater, Site, assert_equal, pair, site_of};

const MINUTE: Duration = Duration::from_secs(60);

/// Settings under which the source's sessions start …
const SOURCE_SETTINGS: &[(&str, &str)] = &[
    ("DateStyle", "German, DMY"),
    ("IntervalStyle", "sql_standard"),
    ("TimeZone", "Asia/Kathmandu"),
    ("extra_float_digits", "-15"),
    ("bytea_output", "escape"),
    ("xmlbinary", "hex"),
    ("quote_all_identifiers", "on"),
    ("search_path", "m, plain, keyed, public"),
];

/// … and the target's.
const TARGET_SETTINGS: &[(&str, &str)] = &[
    ("DateStyle", "SQL, MDY"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "America/St_Johns"),
    ("extra_float_digits", "0"),
    ("bytea_output", "hex"),
    ("array_nulls", "off"),
    ("xmloption", "document"),
    ("default_text_search_config", "pg_catalog.french"),
    ("default_transaction_isolation", "serializable"),
    ("search_path", "\"$user\", keyless"),
];

/// What `values.txt` says about a type.
#[derive(Debug, Clone, PartialEq)]
enum Values {
    /// Expressions.
    Of(Vec<String>),
    /// Nobody can write one.
    Refused,
}

fn values(version: u32) -> BTreeMap<String, Values> {
    let mut found: BTreeMap<String, Values> = BTreeMap::new();
    let mut section = String::new();
    for line in include_str!("types/values.txt").lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = unquoted(name);
            found.insert(section.clone(), Values::Of(Vec::new()));
            continue;
        }
        if line == "refused" {
            found.insert(section.clone(), Values::Refused);
            continue;
        }
        let line = match line.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
            Some((from, _)) if version < from.parse().unwrap() => continue,
            Some((_, expression)) => expression,
            None => line,
        };
        let Some(Values::Of(list)) = found.get_mut(&section) else { panic!("{line} stands below no type") };
        list.push(line.to_owned());
    }
    found
}

/// A type of the catalogue that a column may have, with its values, each as an expression of the type.
#[derive(Debug, Clone)]
struct Type {
    /// As in `values.txt`, without quotes.
    name: String,
    /// Quoted.
    sql: String,
    /// The name of its tables, quoted.
    table: String,
    has_array: bool,
    values: Vec<String>,
}

impl Type {
    /// The value at this place of the endless row of values, with a NULL after each round.
    fn value(&self, index: usize) -> String {
        let index = index % (self.values.len() + 1);
        self.values.get(index).cloned().unwrap_or_else(|| "NULL".to_owned())
    }

    fn array(&self, index: usize) -> String {
        if !self.has_array {
            return "NULL".to_owned();
        }
        let (a, b) = (self.value(index), self.value(index + 1));
        let all = self.values.join(", ");
        let ty = &self.sql;
        match index % 5 {
            0 => format!("ARRAY[{all}, NULL]::{ty}[]"),
            1 => format!("'{{}}'::{ty}[]"),
            2 => format!("ARRAY[[{a}, NULL], [{b}, {a}]]::{ty}[]"),
            3 => format!("('[-2:0]=' || (ARRAY[{a}, NULL, {b}]::{ty}[])::text)::{ty}[]"),
            _ => "NULL".to_owned(),
        }
    }

    /// The type of the column of arrays.
    fn array_type(&self) -> String {
        if self.has_array { format!("{}[]", self.sql) } else { "int".into() }
    }
}

/// Every type that a column may have, except arrays and the row types of the system's own tables.
async fn types(source: &Site) -> Vec<Type> {
    let sql = "SELECT n.nspname || '.' || t.typname, format('%I.%I', n.nspname, t.typname), format('%I', t.typname), t.typarray <> 0
                 FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
                 LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
                WHERE t.typtype <> 'p' AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)
                  AND (t.typtype <> 'c' OR c.relkind = 'c' OR n.nspname = 'm')
                ORDER BY t.oid";
    let rows = source.connect().await.query(sql, &[]).await.unwrap();
    let of = |row: &tokio_postgres::Row| Type {
        name: row.get(0),
        sql: row.get(1),
        table: row.get(2),
        has_array: row.get(3),
        values: Vec::new(),
    };
    rows.iter().map(of).collect()
}

fn settings(database: &Site, settings: &[(&str, &str)]) -> String {
    settings.iter().fold(String::new(), |sql, (name, value)| {
        // A list of schemas is written as it is.
        let value = if *name == "search_path" { (*value).to_owned() } else { format!("'{value}'") };
        sql + &format!("ALTER DATABASE {} SET {name} = {value};", database.name)
    })
}

/// The tables of one type, or of several together, filled with values.
struct Matrix {
    /// Quoted.
    table: String,
    types: Vec<Type>,
    /// There is a table whose key is of the type.
    keyed: bool,
    /// There is a table of domains and composites of the type.
    shaped: bool,
}

impl Matrix {
    fn of(ty: Type) -> Matrix {
        Matrix { table: ty.table.clone(), shaped: ty.has_array, types: vec![ty], keyed: false }
    }

    /// The columns' names: a value and an array of each type.
    fn columns(&self) -> String {
        let names: Vec<String> = (0..self.types.len()).map(|n| format!("v{n}, a{n}")).collect();
        names.join(", ")
    }

    fn definitions(&self) -> String {
        let columns = self.types.iter().enumerate().map(|(n, ty)| format!("v{n} {}, a{n} {}", ty.sql, ty.array_type()));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// A row of `plain`: id, u, a value and an array of each type.
    fn plain_row(&self, id: usize, index: usize) -> String {
        let cells = self.types.iter().map(|ty| format!("{}, {}", ty.value(index), ty.array(index)));
        format!("({id}, {id}, {})", cells.collect::<Vec<_>>().join(", "))
    }

    /// How many rows the snapshot finds in `plain`: every value and every form of array.
    fn rows(&self) -> usize {
        let values = self.types.iter().map(|ty| ty.values.len() + 1).max();
        values.unwrap_or_default().max(6)
    }

    fn tables_sql(&self) -> String {
        let (table, columns) = (&self.table, self.definitions());
        let mut sql = format!(
            "CREATE TABLE plain.{table} (id int PRIMARY KEY, u int UNIQUE, {columns});
             CREATE TABLE keyless.{table} (n int, {columns});
             ALTER TABLE keyless.{table} REPLICA IDENTITY FULL;",
        );
        if self.shaped {
            let (ty, plain) = (&self.types[0].sql, plain(table));
            write!(
                sql,
                "CREATE DOMAIN shaped.d_{plain} AS {ty};
                 CREATE TYPE shaped.c_{plain} AS (x {ty}, y {ty}[], z shaped.d_{plain});
                 CREATE TABLE shaped.{table} (id int PRIMARY KEY, d shaped.d_{plain}, da shaped.d_{plain}[],
                                              c shaped.c_{plain}, ca shaped.c_{plain}[]);"
            )
            .unwrap();
        }
        sql
    }

    fn rows_sql(&self) -> String {
        let (table, columns) = (&self.table, self.columns());
        let rows: Vec<String> = (0..self.rows()).map(|n| self.plain_row(n + 1, n)).collect();
        let mut sql = format!(
            "INSERT INTO plain.{table} VALUES {};
             INSERT INTO keyless.{table} SELECT id, {columns} FROM plain.{table};
             INSERT INTO keyless.{table} SELECT id, {columns} FROM plain.{table};",
            rows.join(", ")
        );
        if self.shaped {
            write!(
                sql,
                "INSERT INTO shaped.{table}
                     SELECT id, v0, ARRAY[v0, NULL]::shaped.d_{plain}[], ROW(v0, a0, v0)::shaped.c_{plain},
                            ARRAY[ROW(v0, a0, NULL), NULL]::shaped.c_{plain}[]
                       FROM plain.{table} WHERE v0 IS NOT NULL;",
                plain = plain(table),
            )
            .unwrap();
        }
        sql
    }

    /// A table whose key is of the type; an error if the type has no order.
    fn keyed(&self) -> String {
        let (table, ty) = (&self.table, &self.types[0]);
        let mut sql = format!("CREATE TABLE keyed.{table} (v {} PRIMARY KEY, n int);", ty.sql);
        for (n, value) in ty.values.iter().enumerate().skip(1) {
            // Values that differ in their text and are equal as keys (1.0 and 1.00) come once. The largest do not fit into
            // an index, hence the limit.
            write!(
                sql,
                "INSERT INTO keyed.{table} SELECT v, {n} FROM (SELECT {value} AS v) s WHERE length(ROW(v)::text) < 1000
                 ON CONFLICT DO NOTHING;"
            )
            .unwrap();
        }
        sql
    }

    /// Many rows at once, and every kind of change.
    fn first_changes(&self) -> String {
        let (table, columns) = (&self.table, self.columns());
        let rows = self.rows();
        let copies = 70usize.div_ceil(rows);
        let mut sql = format!(
            "INSERT INTO plain.{table} SELECT id + 100 * g, id + 100 * g, {columns} FROM plain.{table}, generate_series(1, {copies}) g;
             UPDATE plain.{table} t SET ({columns}) = (SELECT {columns} FROM plain.{table} s WHERE s.id = 1 + t.id % {rows})
              WHERE t.id < 50;
             DELETE FROM plain.{table} WHERE id % 5 = 2 AND id > 100;
             UPDATE plain.{table} SET id = -id WHERE id % 5 = 3 AND id > 100;
             INSERT INTO keyless.{table} SELECT n + 1000 * g, {columns} FROM keyless.{table}, generate_series(1, {copies}) g;
             UPDATE keyless.{table} SET n = n + 500 WHERE n % 3 = 0;
             DELETE FROM keyless.{table} WHERE ctid IN (SELECT min(ctid) FROM keyless.{table} WHERE n % 4 = 1 GROUP BY n);
             UPDATE keyless.{table} t SET ({columns}) = (SELECT {columns} FROM plain.{table} s WHERE s.id = 1 + t.n % {rows})
              WHERE n < 50;"
        );
        if self.keyed {
            let values = &self.types[0].values;
            let first = &values[0];
            write!(
                sql,
                "UPDATE keyed.{table} SET n = n + 1000 WHERE n % 2 = 0;
                 DELETE FROM keyed.{table} WHERE n = 1;
                 DO $x$ BEGIN
                    UPDATE keyed.{table} SET v = {first} WHERE n = (SELECT max(n) FROM keyed.{table});
                 EXCEPTION WHEN unique_violation THEN NULL; END $x$;
                 INSERT INTO keyed.{table} VALUES ({}, -1) ON CONFLICT DO NOTHING;",
                values.get(1).filter(|value| !value.contains("repeat")).unwrap_or(first),
            )
            .unwrap();
        }
        if self.shaped {
            write!(
                sql,
                "UPDATE shaped.{table} t SET d = s.d, ca = s.ca FROM shaped.{table} s WHERE s.id = t.id + 1;
                 INSERT INTO shaped.{table} SELECT id + 100, d, da, c, ca FROM shaped.{table};
                 DELETE FROM shaped.{table} WHERE id = 2; UPDATE shaped.{table} SET id = -id WHERE id = 1;"
            )
            .unwrap();
        }
        sql
    }

    /// Few rows, and numbers that pass through each other's, which a set-based statement cannot do.
    fn second_changes(&self) -> String {
        let (table, columns) = (&self.table, self.columns());
        let rows: Vec<String> = (0..self.rows()).map(|n| self.plain_row(n + 5000, n)).collect();
        format!(
            "INSERT INTO plain.{table} VALUES {};
             UPDATE plain.{table} SET u = -u WHERE id BETWEEN 1 AND 60;
             UPDATE plain.{table} t SET u = 1 - u, ({columns}) = (SELECT {columns} FROM plain.{table} s WHERE s.id = 5000 + t.id % 4)
              WHERE id BETWEEN 1 AND 60;
             UPDATE plain.{table} SET v0 = NULL WHERE id = 5001; DELETE FROM plain.{table} WHERE id = 5003;
             UPDATE plain.{table} SET id = 6000 WHERE id = 5002;
             UPDATE keyless.{table} SET a0 = NULL WHERE n = 1; DELETE FROM keyless.{table} WHERE n = 2;",
            rows.join(", ")
        )
    }

    fn tables(&self) -> Vec<String> {
        let table = &self.table;
        let mut tables = vec![format!("plain.{table}"), format!("keyless.{table}")];
        if self.keyed {
            tables.push(format!("keyed.{table}"));
        }
        if self.shaped {
            tables.push(format!("shaped.{table}"));
        }
        tables
    }
}

/// A quoted name without what needs quotes.
fn plain(quoted: &str) -> String {
    quoted.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

async fn version(site: &Site) -> u32 {
    site.value::<i32>("SELECT current_setting('server_version_num')::int / 10000").await as u32
}

/// The source's types with their values; both ends get their settings, and the source what the types need.
async fn prepare(source: &Site, target: &Site) -> Vec<Type> {
    source.execute(include_str!("types/setup.sql")).await;
    let types = types(source).await;
    source.execute(&settings(source, SOURCE_SETTINGS)).await;
    // Other OIDs for everything that comes after.
    target
        .execute("CREATE TABLE junk (a int); CREATE TYPE junk_type AS (b int); CREATE TYPE junk_enum AS ENUM ('x')")
        .await;
    target.execute("DROP TABLE junk; DROP TYPE junk_type, junk_enum").await;
    target.execute(&settings(target, TARGET_SETTINGS)).await;
    let values = values(version(source).await);
    let (mut with_values, mut forgotten) = (Vec::new(), Vec::new());
    let client = writer(source).await;
    for ty in types {
        match values.get(&ty.name) {
            None => forgotten.push(ty.name),
            Some(Values::Refused) => {
                let made = client.batch_execute(&format!("SELECT ''::{}", ty.sql)).await;
                assert!(made.is_err(), "{} takes values, so it is to be tried", ty.sql);
            }
            Some(Values::Of(list)) => {
                let values = list.iter().map(|value| format!("({value})::{}", ty.sql)).collect();
                with_values.push(Type { values, ..ty });
            }
        }
    }
    assert!(forgotten.is_empty(), "tests/types/values.txt has no values of {forgotten:?}");
    with_values
}

/// Makes and fills the tables.
async fn fill(source: &Site, matrices: &mut [Matrix]) {
    let mut client = writer(source).await;
    let work = client.transaction().await.unwrap();
    for matrix in &*matrices {
        let sql = matrix.tables_sql() + &matrix.rows_sql();
        work.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"));
    }
    work.commit().await.unwrap();
    for matrix in matrices.iter_mut().filter(|matrix| matrix.types.len() == 1) {
        let sql = matrix.keyed();
        match client.batch_execute(&sql).await {
            Ok(()) => matrix.keyed = true,
            Err(error) if error.code().is_some_and(|code| code.code() == "42704") => {}
            Err(error) => panic!("{error:?}\nin: {sql}"),
        }
    }
}

/// A session whose own texts can be read again: arrays with other bounds are made from text.
async fn writer(source: &Site) -> tokio_postgres::Client {
    let client = source.connect().await;
    let settings =
        "SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 3";
    client.batch_execute(settings).await.unwrap();
    client
}

/// Changes in one transaction a type.
async fn change(source: &Site, matrices: &[Matrix], changes: impl Fn(&Matrix) -> String) {
    let client = writer(source).await;
    for matrix in matrices {
        let sql = changes(matrix);
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"));
    }
}

async fn assert_all_equal(source: &Site, target: &Site, matrices: &[Matrix]) {
    let tables: Vec<String> = matrices.iter().flat_map(Matrix::tables).collect();
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    assert_equal(&source.url(), &target.url(), &names).await;
}

/// Snapshot, many changes, few changes; equal after each. Returns what the stream's runs logged.
async fn migrate(source: &Site, target: &Site, matrices: &[Matrix]) -> String {
    let cutwater = Cutwater::new(&source.url(), &target.url()).env("RUST_LOG", "cutwater=debug");
    cutwater.run(&["run", "--until", "caught-up"], 2 * MINUTE).await.assert_code(0);
    assert_all_equal(source, target, matrices).await;
    change(source, matrices, Matrix::first_changes).await;
    let first = cutwater.run(&["run", "--until", "caught-up"], 2 * MINUTE).await.assert_code(0);
    assert_all_equal(source, target, matrices).await;
    change(source, matrices, Matrix::second_changes).await;
    let second = cutwater.run(&["run", "--until", "caught-up"], 2 * MINUTE).await.assert_code(0);
    assert_all_equal(source, target, matrices).await;
    assert!(second.stderr.contains("replayed row by row"), "the rows should have been replayed\n{}", second.stderr);
    cutwater.run(&["verify"], 2 * MINUTE).await.assert_code(0);
    first.stderr + &second.stderr
}

/// The types that may travel in binary form, as the engine sees it: alone, and with their arrays.
async fn binary_types(source: &Site, types: &[Type]) -> (BTreeSet<String>, BTreeSet<String>) {
    let probe = Matrix { table: "probe".into(), types: types.to_vec(), keyed: false, shaped: false };
    source.execute(&format!("CREATE TABLE plain.probe ({})", probe.definitions())).await;
    let info = ConnInfo::parse(&Url::new(source.url())).unwrap();
    let client = cutwater::postgres::connect(&info, "test").await.unwrap();
    let tables = catalog::tables(&client).await.unwrap();
    let table = tables.iter().find(|table| table.name.table == "probe").unwrap();
    source.execute("DROP TABLE plain.probe").await;
    let of = |columns: &[&str]| {
        let binary = |n: usize| columns.iter().all(|c| table.column(&format!("{c}{n}")).unwrap().ty.portable_binary);
        types.iter().enumerate().filter(|&(n, _)| binary(n)).map(|(_, ty)| ty.name.clone()).collect()
    };
    (of(&["v"]), of(&["v", "a"]))
}

/// The form that `docs/types.md` gives for each type that is not of one's own, between two Postgres servers.
fn documented() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (postgres, _) = include_str!("../docs/types.md").split_once("\n## From ").unwrap();
    for line in postgres.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, _, types, form, ..] = cells[..] else { continue };
        for name in types.split('`').skip(1).step_by(2) {
            let before = found.insert(name.trim_matches('"').to_owned(), form.to_owned());
            assert!(before.is_none(), "docs/types.md has {name} twice");
        }
    }
    found
}

/// `m."Odd ""Enum"`, without what quotes it.
fn unquoted(name: &str) -> String {
    let (schema, name) = name.split_once('.').unwrap();
    let inner = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    format!("{schema}.{}", inner.unwrap_or(name).replace("\"\"", "\""))
}

async fn installed() -> (Site, Site) {
    let (source, target) = pair().await;
    (source.into(), target.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_it_was_written() {
    let (source, target) = installed().await;
    let types = prepare(&source, &target).await;
    let mut matrices: Vec<Matrix> = types.iter().cloned().map(Matrix::of).collect();
    fill(&source, &mut matrices).await;
    let log = migrate(&source, &target, &matrices).await;
    assert!(log.contains("\"binary\":false"), "composites cannot travel in binary form\n{log}");

    // And the documentation says of each what the engine does.
    let documented = documented();
    let (binary, _) = binary_types(&source, &types).await;
    for (full_name, values) in values(version(&source).await).iter().filter(|(name, _)| !name.starts_with("m.")) {
        let name = full_name.split_once('.').unwrap().1;
        let form = documented.get(name).unwrap_or_else(|| panic!("docs/types.md says nothing of {full_name}"));
        let here = types.iter().any(|ty| ty.name == *full_name);
        let expected = match values {
            Values::Refused => "refused",
            Values::Of(_) if binary.contains(full_name) => "binary",
            Values::Of(_) => "text",
        };
        assert!(
            form == expected || !here && expected == "text",
            "docs/types.md says {form} of {full_name}: it is {expected}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_with_a_binary_form_arrives_in_it() {
    let (source, target) = installed().await;
    let types = prepare(&source, &target).await;
    let (_, binary) = binary_types(&source, &types).await;
    assert!(binary.len() > 60, "{binary:?}");
    let of = |ty: Type| Matrix { shaped: false, ..Matrix::of(ty) };
    let mut matrices: Vec<Matrix> = types.into_iter().filter(|ty| binary.contains(&ty.name)).map(of).collect();
    fill(&source, &mut matrices).await;
    let log = migrate(&source, &target, &matrices).await;
    assert!(log.contains("\"binary\":true"), "the stream should have been binary\n{log}");
}

/// One table with a column, and one of arrays, of every type that the source has; and one of those that have a binary
/// form. Nothing when a version is not to be had, which is said.
async fn between(source: u32, target: u32) {
    let test = format!("every_type_arrives_on_a_later_server ({source} to {target})");
    let both = async |what: &'static str| {
        let (old, new) = (site_of(source, &test).await?, site_of(target, &test).await?);
        let mut types = prepare(&old, &new).await;
        if what == "binary" {
            let (_, binary) = binary_types(&old, &types).await;
            types.retain(|ty| binary.contains(&ty.name));
        }
        // Large values are as large in every version.
        types.iter_mut().for_each(|ty| ty.values.retain(|value| !value.contains("repeat")));
        assert!(types.len() > 50, "{} types of Postgres {source}", types.len());
        let mut matrices = [Matrix { table: what.into(), types, keyed: false, shaped: false }];
        fill(&old, &mut matrices).await;
        if source > version(&installed().await.0).await {
            // The installed pg_dump does not read that server.
            let setup = include_str!("types/setup.sql");
            new.execute(&format!("SET search_path = public; {setup} {}", matrices[0].tables_sql())).await;
        }
        let log = migrate(&old, &new, &matrices).await;
        // 13 streams text only.
        let form = format!("\"binary\":{}", what == "binary" && source > 13);
        assert!(log.contains(&form), "{what}: the stream should have had {form}\n{log}");
        Some(())
    };
    tokio::join!(both("everything"), both("binary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_on_a_later_server() {
    for (source, target) in [(13, 15), (15, 17), (15, 18), (18, 18)] {
        between(source, target).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_the_target_does_not_have_is_named_before_anything_is_made() {
    let test = "a_type_that_the_target_does_not_have_is_named_before_anything_is_made";
    let (Some(source), Some(target)) = (site_of(15, test).await, site_of(13, test).await) else { return };
    source
        .execute(
            "CREATE DOMAIN days AS datemultirange; CREATE TYPE stay AS (guest text, days days[]);
             CREATE TABLE elsewhere (id int PRIMARY KEY);
             CREATE TABLE booking (id int PRIMARY KEY, stays stay[], other elsewhere, free int4multirange)",
        )
        .await;
    let config = format!(
        "[migration]\nname = \"{}\"\n[source]\nurl = \"{}\"\ntables = [\"public.booking\"]\n[target]\nurl = \"{}\"\n",
        source.name,
        source.url(),
        target.url()
    );
    let cutwater = Cutwater::with_config(&config);
    let check = cutwater.run(&["check"], MINUTE).await.assert_code(3);
    for said in [
        "the target has no type pg_catalog.datemultirange: public.booking.\"stays\"",
        "the target has no type public.elsewhere: public.booking.\"other\"",
        "the target has no type pg_catalog.int4multirange: public.booking.\"free\"",
        "[[transform]] match = \"public.booking\", columns = [\"*\", \"!free\"]",
    ] {
        assert!(check.stdout.contains(said), "{said}\n{}", check.stdout);
    }
    // Where the table is there, its own types count.
    target.execute("CREATE TABLE booking (id int PRIMARY KEY, stays text, other text, free text)").await;
    source.execute("INSERT INTO booking VALUES (1, NULL, ROW(7), '{[1,3)}')").await;
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    assert_eq!(target.value::<String>("SELECT concat(other, free) FROM booking").await, "(7){[1,3)}");
}
