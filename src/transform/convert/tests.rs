#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::config::{InvalidText, NulByte, OutOfRange, ZeroDate};
use crate::schema::mapping::default_type;
use crate::schema::{Column as SchemaColumn, ColumnType, MySqlType, TableName};

fn table(types: &[&str]) -> Arc<TableSchema> {
    let mut columns = vec![SchemaColumn::new("id", ColumnType::mysql("int(11)", MySqlType::parse("int(11)")))];
    columns.extend(types.iter().map(|ty| SchemaColumn::new("v", ColumnType::mysql(ty, MySqlType::parse(ty)))));
    Arc::new(TableSchema::new(TableName::new("shop", "t"), columns, Some(vec![0])))
}

fn convert(from: &str, to: &str, value: Datum<'_>, values: ValuesConfig) -> Result<Option<String>> {
    let to = match to {
        "" => default_type(&MySqlType::parse(from)).unwrap(),
        to => PgType::parse(to).unwrap(),
    };
    let converter = Converter::compile(&table(&[from]), &[PgType::Integer, to], values)?;
    let row: Row = [Datum::Text(b"7"), value].into_iter().collect();
    let row = converter.row(&row)?;
    Ok(row.get(1).unwrap().bytes().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()))
}

fn text(from: &str, to: &str, value: &str) -> String {
    convert(from, to, Datum::Text(value.as_bytes()), ValuesConfig::default()).unwrap().unwrap()
}

fn bytes(from: &str, to: &str, value: &[u8]) -> String {
    convert(from, to, Datum::Binary(value), ValuesConfig::default()).unwrap().unwrap()
}

#[test]
fn what_comes_out_is_what_postgres_prints() {
    assert_eq!(text("tinyint(1)", "", "1"), "t");
    assert_eq!(text("datetime(6)", "", "2024-02-29 23:59:59.500000"), "2024-02-29 23:59:59.5");
    assert_eq!(text("timestamp(3)", "", "2024-02-29 23:59:59.000"), "2024-02-29 23:59:59+00");
    assert_eq!(text("time(2)", "interval", "-838:59:59.00"), "-838:59:59");
    assert_eq!(text("float", "", "1.100000023841858"), "1.1");
    assert_eq!(text("double", "", "1e20"), "1e+20");
    assert_eq!(text("double", "", "0.00001"), "1e-05");
    assert_eq!(text("double", "", "123456789012345"), "123456789012345");
    assert_eq!(text("year(4)", "", "0000"), "0");
    assert_eq!(text("set('a','b c','NULL')", "", "a,b c,NULL"), "{a,\"b c\",\"NULL\"}");
    assert_eq!(text("set('a')", "", ""), "{}");
    assert_eq!(bytes("blob", "", &[0, 255]), "\\x00ff");
    assert_eq!(bytes("bit(10)", "", &[2, 5]), "1000000101");
    assert_eq!(bytes("bit(64)", "numeric(20)", &[255; 8]), "18446744073709551615");
    assert_eq!(bytes("binary(16)", "uuid", &[0x11; 16]), "11111111-1111-1111-1111-111111111111");
    assert_eq!(bytes("vector(2)", "", &[0, 0, 128, 63, 205, 204, 204, 61]), "{1,0.1}");
    let point = [&[0xe6, 0x10, 0, 0, 1, 1, 0, 0, 0][..], &[0; 16]].concat();
    assert_eq!(bytes("point", "", &point), format!("\\x0101000020e6100000{}", "00".repeat(16)));
}

#[test]
fn null_and_what_was_not_sent_pass() {
    for datum in [Datum::Null, Datum::Unchanged] {
        let converter =
            Converter::compile(&table(&["date"]), &[PgType::Integer, PgType::Date], ValuesConfig::default());
        let row: Row = [Datum::Text(b"7"), datum].into_iter().collect();
        assert_eq!(converter.unwrap().row(&row).unwrap(), row);
    }
}

#[test]
fn a_value_that_cannot_be_carried_is_named_with_the_setting() {
    let error = convert("date", "", Datum::Text(b"0000-00-00"), ValuesConfig::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::BadRow);
    let said = error.to_string();
    for part in ["shop.t", "id = \"7\"", "\"v\"", "0000-00-00", "zero_date", "shop.t.v"] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
    for (from, to, value, setting) in [
        ("tinyint(1)", "", &b"2"[..], "out_of_range"),
        ("bigint unsigned", "bigint", b"9223372036854775808", "out_of_range"),
        ("time", "", b"25:00:00", "out_of_range"),
        ("varchar(9)", "varchar(2)", "äöü".as_bytes(), "out_of_range"),
        ("enum('a')", "", b"", "out_of_range"),
        ("text", "", b"a\0b", "nul_byte"),
        ("text", "", b"\xff", "invalid_text"),
        ("json", "", b"\"\\u0000\"", "nul_byte"),
    ] {
        let error = convert(from, to, Datum::Text(value), ValuesConfig::default()).unwrap_err();
        assert!(error.to_string().contains(setting), "{from}: {error}");
    }
}

#[test]
fn every_policy_does_what_it_says() {
    let values = |change: fn(&mut ValuesConfig)| {
        let mut values = ValuesConfig::default();
        change(&mut values);
        values
    };
    let of = |from: &str, to: &str, value: &[u8], policy| convert(from, to, Datum::Text(value), policy).unwrap();
    let null = values(|v| {
        (v.zero_date, v.out_of_range) = (ZeroDate::Null, OutOfRange::Null);
        (v.invalid_text, v.nul_byte) = (InvalidText::Null, NulByte::Null);
    });
    let near = values(|v| {
        (v.zero_date, v.out_of_range) = (ZeroDate::Clamp, OutOfRange::Clamp);
        (v.invalid_text, v.nul_byte) = (InvalidText::Replace, NulByte::Remove);
    });
    for (from, to, value, nearest) in [
        ("date", "", &b"2024-00-00"[..], Some("2024-01-01")),
        ("datetime(3)", "timestamptz", b"0000-00-00 00:00:00.000", Some("0001-01-01 00:00:00+00")),
        ("tinyint(1)", "", b"-3", Some("t")),
        ("bigint unsigned", "bigint", b"18446744073709551615", Some("9223372036854775807")),
        ("int", "smallint", b"-40000", Some("-32768")),
        ("time(3)", "", b"838:59:59.000", Some("23:59:59.999")),
        ("time", "", b"-00:00:01", Some("00:00:00")),
        ("varchar(9)", "varchar(2)", "äöü".as_bytes(), Some("äö")),
        ("enum('a')", "", b"", None),
        ("char(36)", "uuid", b"x", None),
        ("text", "", b"a\0b", Some("ab")),
        ("text", "", b"a\xffb\0", Some("a\u{fffd}b")),
        ("json", "", b"\"\\\\u0000 \\u0000\"", Some("\"\\\\u0000 \"")),
    ] {
        assert_eq!(of(from, to, value, null), None, "{from}");
        assert_eq!(of(from, to, value, near).as_deref(), nearest, "{from}");
    }
    let epoch = values(|v| v.zero_date = ZeroDate::Epoch);
    assert_eq!(of("date", "", b"0000-00-00", epoch).as_deref(), Some("1970-01-01"));
    assert_eq!(of("datetime", "", b"0000-00-00 00:00:00", epoch).as_deref(), Some("1970-01-01 00:00:00"));
}

#[test]
fn no_policy_makes_a_key_null() {
    let mut table = (*table(&["date"])).clone();
    table.key = Some(crate::schema::Key { columns: vec![1] });
    let values = ValuesConfig { zero_date: ZeroDate::Null, ..ValuesConfig::default() };
    let converter = Converter::compile(&Arc::new(table), &[PgType::Integer, PgType::Date], values).unwrap();
    let row: Row = [Datum::Text(b"7"), Datum::Text(b"0000-00-00")].into_iter().collect();
    assert!(converter.row(&row).unwrap_err().to_string().contains("key"));
}

#[test]
fn columns_are_found_by_their_names_at_the_target_and_errors_have_those_of_the_source() {
    let mut source = (*table(&["enum('a')", "tinyint(1)"])).clone();
    source.columns[1].name = "State".into();
    let mut shaped = source.clone();
    shaped.columns.remove(0);
    shaped.key = None;
    shaped.columns[0].name = "state".into();
    shaped.columns[1].name = "flag".into();
    let at_target = |name: &str, ty: &str| SchemaColumn::new(name, ColumnType::built_in(0, ty));
    let mut there = source.clone();
    there.columns = vec![at_target("flag", "boolean"), at_target("more", "xml"), at_target("state", "public.t_state")];
    let converter = Converter::into_table(&source, &[1, 2], &shaped, &there, ValuesConfig::default()).unwrap();
    let row = |values: [&'static [u8]; 2]| -> Row { values.into_iter().map(Datum::Text).collect() };
    assert_eq!(converter.row(&row([b"a", b"1"])).unwrap(), row([b"a", b"t"]));
    let said = converter.row(&row([b"", b"1"])).unwrap_err().to_string();
    assert!(said.contains("\"shop.t.State\""), "{said}");
    there.columns.remove(0);
    let said =
        Converter::into_table(&source, &[1, 2], &shaped, &there, ValuesConfig::default()).unwrap_err().to_string();
    assert!(said.contains("\"flag\""), "{said}");
}
