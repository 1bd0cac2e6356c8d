//! Every type of MySQL and MariaDB, with real values, into Postgres: what arrives is what docs/types.md says; and the DDL
//! of an awkward schema, made and described back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "in a test a panic is the report")]

#[path = "mapping/server.rs"]
mod server;
mod support;
#[path = "mapping/values.rs"]
mod values;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use cutwater::change::{Datum, Row};
use cutwater::config::{SchemaConfig, ValuesConfig};
use cutwater::mysql::{Flavour, Session, catalog};
use cutwater::schema::mapping::{MYSQL_TO_POSTGRES, Mapping, Naming, PgType, Rules, ddl, default_type};
use cutwater::schema::{IndexKind, MySqlKind, MySqlType, Statement, TableDefinition, TableName};
use cutwater::transform::convert::Converter;
use mysql_async::prelude::Queryable;
use server::{postgres, sites};
use tokio_postgres::SimpleQueryMessage;
use values::sections;

/// The types that information_schema shows for a type of the file.
fn parsed(from: &str) -> MySqlType {
    MySqlType::parse(from)
}

#[test]
fn every_row_of_the_documentation_has_values() {
    let sections = sections();
    let has = |from: &str, to: &PgType| {
        let from = parsed(from);
        sections.iter().any(|section| {
            let ty = parsed(&section.from);
            ty.kind == from.kind
                && ty.unsigned == from.unsigned
                && std::mem::discriminant(&section.to) == std::mem::discriminant(to)
        })
    };
    let mut missing = Vec::new();
    for row in MYSQL_TO_POSTGRES {
        for from in row.from {
            let ty = parsed(from);
            if !has(from, &default_type(&ty).expect("a type")) {
                missing.push(format!("{from} -> {}", row.to));
            }
        }
        // What may be chosen, for one of the types at least.
        for or in row.or {
            let to = PgType::parse(or).expect("a type");
            if to != PgType::Geometry && !row.from.iter().any(|from| has(from, &to)) {
                missing.push(format!("{:?} -> {or}", row.from));
            }
        }
    }
    assert!(missing.is_empty(), "tests/mapping/values.txt has nothing for {missing:#?}");
}

async fn run(session: &mut Session, sql: &str) {
    session.conn().query_drop(sql).await.unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
}

/// The rows of a table in the canonical form of a MySQL source.
async fn canonical(session: &mut Session, table: &TableDefinition) -> Vec<Row> {
    let quote = |name: &str| format!("`{}`", name.replace('`', "``"));
    let columns = table.table.columns.iter().map(|column| {
        let ty = column.ty.mysql.as_deref().unwrap();
        let name = quote(&column.name);
        match ty.kind {
            MySqlKind::Float | MySqlKind::Double => format!("{name} + 0e0"),
            _ if ty.zerofill => format!("{name} + 0"),
            _ => name,
        }
    });
    let columns: Vec<String> = columns.collect();
    let name = &table.table.name;
    let sql = format!("SELECT {} FROM {}.{} ORDER BY 1", columns.join(", "), quote(&name.schema), quote(&name.table));
    let rows: Vec<mysql_async::Row> = session.conn().query(sql).await.unwrap();
    let values = rows.into_iter().map(mysql_async::Row::unwrap);
    values
        .map(|values| {
            let datums = values.iter().zip(&table.table.columns).map(|(value, column)| match value {
                mysql_async::Value::NULL => Datum::Null,
                mysql_async::Value::Bytes(bytes) if column.ty.mysql.as_deref().unwrap().is_bytes() => {
                    Datum::Binary(bytes)
                }
                mysql_async::Value::Bytes(bytes) => Datum::Text(bytes),
                other => panic!("{other:?} in the text protocol"),
            });
            datums.collect()
        })
        .collect()
}

/// Rows into Postgres, each value by its type's input function; errors are returned.
async fn write(client: &tokio_postgres::Client, table: &str, rows: &[Row]) {
    for row in rows {
        let mut sql = format!("INSERT INTO {table} VALUES (");
        for (at, datum) in row.fields().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            match datum.bytes() {
                None => write!(sql, "{comma}NULL").unwrap(),
                Some(bytes) => {
                    let text = std::str::from_utf8(bytes).expect("Postgres takes UTF-8");
                    write!(sql, "{comma}'{}'", text.replace('\'', "''")).unwrap();
                }
            }
        }
        sql.push(')');
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"));
    }
}

/// What Postgres prints, row by row.
async fn printed(client: &tokio_postgres::Client, sql: String) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(&sql).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"));
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    });
    rows.collect()
}

async fn apply(client: &tokio_postgres::Client, statements: &[Statement]) {
    for Statement { sql: statement, .. } in statements {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{error:?}\nin: {statement}"));
    }
}

fn naming() -> Naming {
    SchemaConfig::default().naming("types")
}

#[tokio::test]
async fn every_type_arrives_as_the_documentation_says() {
    let postgres = postgres().await;
    for (number, mut session) in sites("types").await.into_iter().enumerate() {
        let mut rules: Vec<(String, String)> = Vec::new();
        let mut used = Vec::new();
        for section in sections() {
            if !section.is_for(session.server()) {
                continue;
            }
            let table = format!("t{}", used.len());
            run(&mut session, &format!("CREATE TABLE {table} (id int PRIMARY KEY, v {} NULL)", section.from)).await;
            let mut rows = vec!["(0, NULL)".to_owned()];
            rows.extend(section.values.iter().enumerate().map(|(at, (literal, _))| format!("({}, {literal})", at + 1)));
            run(&mut session, &format!("INSERT INTO {table} VALUES {}", rows.join(", "))).await;
            used.push((table, section));
        }
        let found = catalog::read(&mut session, &["types".to_owned()]).await.unwrap();
        for (table, section) in &used {
            let definition = found.tables.iter().find(|found| found.table.name.table == *table).unwrap();
            let ty = definition.table.columns[1].ty.mysql.as_deref().unwrap();
            assert_eq!(ty.json_alias, section.only == Some(Flavour::MariaDb) && section.from == "json", "{section:?}");
            if default_type(ty).as_ref() != Some(&section.to) {
                rules.push((format!("types.{table}.v"), section.to.to_string()));
            }
        }
        let rules = Rules::parse(rules.iter().map(|(of, ty)| (of.as_str(), ty.as_str()))).unwrap();
        let schema = format!("m{number}");
        let naming = Naming { namespace: schema.clone(), ..naming() };
        let mapping = Mapping::compile(&found.tables, &rules, &naming).unwrap();
        let ddl = ddl::postgres(&found.tables, &found.others, &mapping, false);
        apply(&postgres, &ddl.before).await;
        for (table, section) in &used {
            let definition = found.tables.iter().find(|found| found.table.name.table == *table).unwrap();
            let mapped = &mapping.tables[&definition.table.name];
            assert_eq!(mapped.columns[1].ty, section.to, "{}", section.from);
            let rows = canonical(&mut session, definition).await;
            let converter = Converter::compile(&definition.table, &mapped.types(), ValuesConfig::default()).unwrap();
            let rows: Vec<Row> = rows
                .iter()
                .map(|row| converter.row(row).unwrap_or_else(|error| panic!("{section:?}: {error}")))
                .collect();
            write(&postgres, &mapped.name.sql(), &rows).await;
            let there = printed(&postgres, format!("SELECT id, v FROM {} ORDER BY id", mapped.name.sql())).await;
            let expected = std::iter::once(None).chain(section.values.iter().map(|(_, text)| Some(text.clone())));
            let arrived: Vec<Option<String>> = there.into_iter().map(|row| row[1].clone()).collect();
            assert_eq!(arrived, expected.collect::<Vec<_>>(), "{} -> {}", section.from, section.to);
            if section.to != PgType::JsonB {
                let text = |row: &Row| row.get(1).unwrap().bytes().map(|b| String::from_utf8(b.to_vec()).unwrap());
                assert_eq!(
                    rows.iter().map(text).collect::<Vec<_>>(),
                    arrived,
                    "{}: not as Postgres prints it",
                    section.from
                );
            }
        }
        for stage in [&ddl.keys, &ddl.indexes, &ddl.after] {
            apply(&postgres, stage).await;
        }
        session.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_awkward_schema_is_made_and_what_has_no_equivalent_is_listed() {
    let postgres = postgres().await;
    for (number, mut session) in sites("awkward").await.into_iter().enumerate() {
        for statement in include_str!("mapping/awkward.sql").split(";\n").filter(|sql| !sql.trim().is_empty()) {
            run(&mut session, statement).await;
        }
        let found = catalog::read(&mut session, &["awkward".to_owned()]).await.unwrap();
        let table = |name: &str| found.tables.iter().find(|t| t.table.name.table == name).unwrap();

        // What the reader goes by.
        let orders = table("Orders");
        assert!(orders.transactional && !table("by_isam").transactional && table("parts").partitioned);
        assert_eq!(orders.table.key_columns().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["Id"]);
        assert!(orders.table.column("twice").is_none(), "a generated column does not travel");
        assert!(orders.table.column("hidden").unwrap().ty.mysql.as_deref().unwrap().invisible);
        assert_eq!(orders.places().len() + 2, orders.columns.len());
        assert!(table("no_key").table.key.is_none(), "neither a nullable nor a prefix index is a key");
        assert_eq!(table("by_unique").table.key_columns().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(orders.indexes[0].kind, IndexKind::Primary);

        let schema = format!("a{number}");
        let naming = Naming { database: "awkward".into(), namespace: schema.clone(), lower: true };
        let mapping = Mapping::compile(&found.tables, &Rules::default(), &naming).unwrap();
        let mapped = |name: &str| &mapping.tables[&TableName::new("awkward", name)];
        assert_eq!(mapped("Orders").name, TableName::new(schema.as_str(), "orders"));
        assert_eq!(mapped("items").column("order_id").unwrap().ty, PgType::BigInt, "it refers to an identity");
        let ddl = ddl::postgres(&found.tables, &found.others, &mapping, false);
        for stage in [&ddl.before, &ddl.keys, &ddl.indexes, &ddl.after] {
            apply(&postgres, stage).await;
        }

        let constraints = printed(
            &postgres,
            format!(
                "SELECT conrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint \
                 WHERE connamespace = '{schema}'::regnamespace AND contype <> 'n' ORDER BY 1::text, 2"
            ),
        );
        let constraints: BTreeSet<String> =
            constraints.await.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
        for wanted in [
            "orders PRIMARY KEY (id)",
            "orders CHECK ((price > (0)::numeric))",
            "items FOREIGN KEY (order_id) REFERENCES a.orders(id) ON DELETE CASCADE",
        ] {
            let wanted = wanted.replace("a.orders", &format!("{schema}.orders"));
            let has = constraints.iter().any(|line| line == &format!("{schema}.{wanted}"));
            assert!(has, "{wanted} is not in {constraints:#?}");
        }
        let indexes =
            printed(&postgres, format!("SELECT indexdef FROM pg_indexes WHERE schemaname = '{schema}' ORDER BY 1"));
        let indexes: Vec<String> = indexes.await.into_iter().flatten().flatten().collect();
        for wanted in ["(price DESC, state)", "(\"left\"((note)::text, 5))", "UNIQUE INDEX orders_code"] {
            assert!(indexes.iter().any(|line| line.contains(wanted)), "{wanted} is not in {indexes:#?}");
        }
        // A row of defaults alone says what the defaults are.
        let sql = format!("INSERT INTO {schema}.orders (code) VALUES ('x') RETURNING *");
        let row = printed(&postgres, sql).await.remove(0);
        let columns = printed(
            &postgres,
            format!(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = '{schema}' \
                 AND table_name = 'orders' ORDER BY ordinal_position"
            ),
        );
        let names: Vec<String> = columns.await.into_iter().flatten().flatten().collect();
        let value = |name: &str| row[names.iter().position(|column| column == name).expect(name)].as_deref();
        for (name, wanted) in [
            ("id", "1000"),
            ("flag", "t"),
            ("mask", "0000101"),
            ("price", "1.50"),
            ("state", "it's"),
            ("tags", "{a,b}"),
            ("day", "2020-02-29"),
            ("moment", "2020-01-01 12:00:00+00"),
            ("note", "x'y\\z"),
            ("hidden", "3"),
        ] {
            assert_eq!(value(name), Some(wanted), "{name}");
        }
        assert_eq!(value("nothing"), None);
        assert!(value("made").is_some_and(|made| made.starts_with("20")));
        let comments = printed(
            &postgres,
            format!(
                "SELECT obj_description('{schema}.orders'::regclass), col_description('{schema}.orders'::regclass, 1)"
            ),
        );
        assert_eq!(comments.await[0], [Some("Bob's orders".to_owned()), Some("the \"id\"".to_owned())]);

        for wanted in [
            "column awkward.Orders.twice: generated",
            "column awkward.Orders.kept: generated",
            "index words of awkward.Orders: full text",
            "on update current_timestamp of awkward.Orders.changed",
            "default of awkward.Orders.zero: '0000-00-00'",
            "default of awkward.Orders.raw",
            "index code of awkward.Orders: it finds \"code\" equal regardless of case",
            "check strange of awkward.Orders",
            "partitions of awkward.parts",
            "view awkward.seen",
            "trigger awkward.fires",
            "procedure awkward.does",
            "event awkward.happens",
        ] {
            let listed = ddl.not_carried.iter().any(|line| line.starts_with(wanted));
            assert!(listed, "{wanted} is not in {:#?}", ddl.not_carried);
        }
        session.close().await.unwrap();
    }
}

/// What a policy makes of a value that the target's type does not have, with `"clamp"` and the like, and with `"null"`.
const BEYOND: [(&str, &str, &str, &str, Option<&str>); 13] = [
    ("zero", "date NOT NULL", "'0000-00-00'", "zero_date", Some("0001-01-01")),
    ("part", "date NOT NULL", "'2024-00-00'", "zero_date", Some("2024-01-01")),
    ("invalid", "datetime(3) NOT NULL", "'2023-02-31 10:00:00.5'", "zero_date", Some("2023-02-28 10:00:00.5")),
    ("never", "timestamp NOT NULL", "'0000-00-00 00:00:00'", "zero_date", Some("0001-01-01 00:00:00+00")),
    ("truth", "tinyint(1)", "2", "out_of_range", Some("t")),
    ("wide", "bigint unsigned", "18446744073709551615", "out_of_range", Some("9223372036854775807")),
    ("narrow", "int", "-40000", "out_of_range", Some("-32768")),
    ("late", "time(3)", "'838:59:59'", "out_of_range", Some("23:59:59.999")),
    ("early", "time", "'-00:00:01'", "out_of_range", Some("00:00:00")),
    ("words", "varchar(9)", "'äöü'", "out_of_range", Some("äö")),
    ("ident", "varbinary(16)", "'short'", "out_of_range", None),
    ("nul", "text", "x'610062'", "nul_byte", Some("ab")),
    ("bytes", "varbinary(9)", "x'61ff62'", "invalid_text", Some("a\u{fffd}b")),
];

/// The types that are chosen for them.
const CHOSEN: [(&str, &str); 5] = [
    ("beyond.t.wide", "bigint"),
    ("beyond.t.narrow", "smallint"),
    ("beyond.t.words", "varchar(2)"),
    ("beyond.t.ident", "uuid"),
    ("beyond.t.bytes", "text"),
];

#[tokio::test]
async fn each_policy_makes_what_it_says_and_the_default_names_the_value() {
    let postgres = postgres().await;
    let policies = |text: &str| -> ValuesConfig { toml::from_str(text).unwrap() };
    let nearest = policies(
        "zero_date = \"clamp\"\nout_of_range = \"clamp\"\nnul_byte = \"remove\"\ninvalid_text = \"replace\"\n",
    );
    let null =
        policies("zero_date = \"null\"\nout_of_range = \"null\"\nnul_byte = \"null\"\ninvalid_text = \"null\"\n");
    for (number, mut session) in sites("beyond").await.into_iter().enumerate() {
        let columns: String = BEYOND.iter().map(|(name, ty, ..)| format!(", {name} {ty}")).collect();
        let values: String = BEYOND.iter().map(|(_, _, literal, ..)| format!(", {literal}")).collect();
        run(&mut session, &format!("CREATE TABLE t (id int PRIMARY KEY{columns})")).await;
        run(&mut session, "SET time_zone = '+00:00'").await;
        run(&mut session, &format!("INSERT INTO t VALUES (7{values})")).await;
        let found = catalog::read(&mut session, &["beyond".to_owned()]).await.unwrap();
        let definition = &found.tables[0];
        let rows = canonical(&mut session, definition).await;
        let rules = Rules::parse(CHOSEN).unwrap();
        for (policy, values) in [("near", nearest), ("null", null)] {
            let namespace = format!("p{number}_{policy}");
            let naming = Naming { database: "beyond".into(), namespace, lower: true };
            let mapping = Mapping::compile(&found.tables, &rules, &naming).unwrap();
            let ddl = ddl::postgres(&found.tables, &found.others, &mapping, policy == "null");
            apply(&postgres, &ddl.before).await;
            let mapped = &mapping.tables[&definition.table.name];
            let converter = Converter::compile(&definition.table, &mapped.types(), values).unwrap();
            let converted = converter.row(&rows[0]).unwrap_or_else(|error| panic!("{error}"));
            write(&postgres, &mapped.name.sql(), &[converted]).await;
            let there = printed(&postgres, format!("SELECT * FROM {}", mapped.name.sql())).await.remove(0);
            for ((name, .., near), arrived) in BEYOND.iter().zip(&there[1..]) {
                let wanted = if policy == "near" { *near } else { None };
                assert_eq!(arrived.as_deref(), wanted, "{name} with {policy}");
            }
        }
        // By default each stops, named with table, key, column and the setting.
        let mapping = Mapping::compile(&found.tables, &rules, &naming()).unwrap();
        let types = mapping.tables[&definition.table.name].types();
        for (place, (name, _, _, setting, _)) in BEYOND.iter().enumerate() {
            let alone: Row = std::iter::once(rows[0].get(0).unwrap())
                .chain((0..BEYOND.len()).map(|at| if at == place { rows[0].get(at + 1).unwrap() } else { Datum::Null }))
                .collect();
            let converter = Converter::compile(&definition.table, &types, ValuesConfig::default()).unwrap();
            let said = converter.row(&alone).unwrap_err().to_string();
            for part in ["beyond.t", "id = \"7\"", name, setting, "[values]"] {
                assert!(said.contains(part), "{part} is not in: {said}");
            }
        }
        session.close().await.unwrap();
    }
}

#[tokio::test]
async fn names_that_become_one_and_types_that_cannot_be_are_refused() {
    for mut session in sites("names").await {
        run(&mut session, "CREATE TABLE one (a int PRIMARY KEY, d decimal(10,2), t datetime(6))").await;
        let found = catalog::read(&mut session, &["names".to_owned()]).await.unwrap();
        let mut twins = found.tables.clone();
        let mut twin = (*twins[0].table).clone();
        twin.name.table = "ONE".into();
        twins.push(TableDefinition { table: std::sync::Arc::new(twin), ..twins[0].clone() });
        let said = Mapping::compile(&twins, &Rules::default(), &naming()).unwrap_err().to_string();
        assert!(said.contains("names.ONE") && said.contains("would both become"), "{said}");
        assert!(Mapping::compile(&twins, &Rules::default(), &Naming { lower: false, ..naming() }).is_ok());
        for (column, ty) in [("a", "uuid"), ("d", "numeric(10,1)"), ("t", "timestamp(3)")] {
            let of = format!("names.one.{column}");
            let rules = Rules::parse([(of.as_str(), ty)]).unwrap();
            let said = Mapping::compile(&found.tables, &rules, &naming()).unwrap_err().to_string();
            assert!(said.contains(&of) && said.contains(ty), "{said}");
        }
        session.close().await.unwrap();
    }
}
