//! Every type, with its smallest, largest and oddest values.

use cutwater::source::mysql::binlog::{Charset, ColumnHint, Fixed};

use crate::server::Engine;

/// How the server is asked for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As text.
    Text,
    /// A number widened to double first.
    Double,
    /// As its bytes.
    Bytes,
    /// As a number of so many bytes.
    Bits(usize),
}

/// One column.
pub struct Case {
    pub definition: &'static str,
    pub shown: Shown,
    /// Literals.
    pub values: Vec<String>,
    pub hint: ColumnHint,
}

impl Case {
    /// What the server is asked.
    pub fn oracle(&self) -> String {
        match self.shown {
            Shown::Text => "HEX(CONVERT(v USING utf8mb4))".to_owned(),
            // A conversion on the server would cut the last digits off.
            Shown::Double => "v + 0e0".to_owned(),
            Shown::Bytes => "HEX(v)".to_owned(),
            Shown::Bits(bytes) => format!("LPAD(HEX(v + 0), {}, '0')", bytes * 2),
        }
    }
}

fn case(definition: &'static str, shown: Shown, values: &[&str]) -> Case {
    let hint = ColumnHint {
        unsigned: Some(definition.contains("unsigned")),
        charset: Some(if shown == Shown::Bytes { Charset::Binary } else { Charset::Utf8mb4 }),
        ..ColumnHint::default()
    };
    Case { definition, shown, values: values.iter().map(|value| (*value).to_owned()).collect(), hint }
}

fn labelled(definition: &'static str, values: &[&str], labels: &[&str]) -> Case {
    let mut case = case(definition, Shown::Text, values);
    case.hint.labels = Some(labels.iter().map(|label| Box::from(label.as_bytes())).collect());
    case
}

fn in_set(definition: &'static str, charset: &str, values: &[&str]) -> Case {
    let mut case = case(definition, Shown::Text, values);
    case.hint.charset = Some(Charset::named(charset).unwrap());
    case
}

pub fn cases(engine: Engine) -> Vec<Case> {
    use Shown::{Bits, Bytes, Double, Text};
    let mut cases = vec![
        case("tinyint", Text, &["-128", "127", "0", "-1"]),
        case("tinyint unsigned", Text, &["255", "0", "128"]),
        case("tinyint(1)", Text, &["1", "0", "-5"]),
        case("smallint", Text, &["-32768", "32767", "-1"]),
        case("smallint unsigned", Text, &["65535", "32768"]),
        case("mediumint", Text, &["-8388608", "8388607", "-1"]),
        case("mediumint unsigned", Text, &["16777215", "8388608"]),
        case("int", Text, &["-2147483648", "2147483647", "-1"]),
        case("int unsigned", Text, &["4294967295", "2147483648"]),
        case("bigint", Text, &["-9223372036854775808", "9223372036854775807", "-1"]),
        case("bigint unsigned", Text, &["18446744073709551615", "9223372036854775808", "0"]),
        case(
            "decimal(65,30)",
            Text,
            &[
                "99999999999999999999999999999999999.999999999999999999999999999999",
                "-99999999999999999999999999999999999.999999999999999999999999999999",
                "0",
                "-0.000000000000000000000000000001",
                "1000000000",
                "-1000000000.5",
            ],
        ),
        case("decimal(10,0)", Text, &["9999999999", "-9999999999", "0", "7"]),
        case("decimal(5,5)", Text, &["0.99999", "-0.00001", "0"]),
        case("decimal(9,2) unsigned", Text, &["9999999.99", "0.01"]),
        case("decimal(18,9)", Text, &["123456789.123456789", "-000000001.000000001"]),
        case("float", Double, &["1.1", "-3.402823466e38", "1.175494351e-38", "0", "16777216", "1e10", "0.00001"]),
        case("float unsigned", Double, &["1.5"]),
        case(
            "double",
            Double,
            &[
                "1.1",
                "-1.7976931348623157e308",
                "2.2250738585072014e-308",
                "1e15",
                "1e14",
                "123456789012345680",
                "1e-15",
                "1e-16",
                "1234567890123456.8",
                "0.1",
                "-0.00001",
                "5e-324",
                "1e22",
                "100",
            ],
        ),
        case("double(10,2)", Double, &["1.25", "-99999999.99"]),
        case("bit(1)", Bits(1), &["b'0'", "b'1'"]),
        case("bit(7)", Bits(1), &["b'1010101'"]),
        case("bit(8)", Bits(1), &["b'11111111'"]),
        case("bit(9)", Bits(2), &["b'100000001'"]),
        case("bit(33)", Bits(5), &["b'100000000000000000000000000000011'"]),
        case("bit(64)", Bits(8), &["18446744073709551615", "0", "1"]),
        case(
            "date",
            Text,
            &["'1000-01-01'", "'9999-12-31'", "'0000-00-00'", "'2024-00-00'", "'2024-02-29'", "'2024-05-00'"],
        ),
        case("year", Text, &["1901", "2155", "0", "2024"]),
        case("varchar(20)", Text, &["''", "'plain'", "'naïve 😀'", "' spaces '", "'line\\nbreak\\t\\\\'"]),
        case("varchar(400)", Text, &["REPEAT('é', 400)", "'x'"]),
        case("char(10)", Text, &["''", "'abc'", "'é 😀'"]),
        case("char(255)", Text, &["REPEAT('😀', 255)", "'x'"]),
        case("tinytext", Text, &["REPEAT('a', 255)", "''"]),
        case("text", Text, &["REPEAT('text', 5000)", "'a'"]),
        case("mediumtext", Text, &["REPEAT('m', 70000)", "'a'"]),
        case("longtext", Text, &["REPEAT('é', 40000)", "'a'"]),
        case("binary(4)", Bytes, &["X'00000000'", "X'01'", "X'01020304'", "X'20202020'", "X'01002000'"]),
        case("binary(255)", Bytes, &["X'FF'", "REPEAT(X'00FF', 127)"]),
        case("varbinary(10)", Bytes, &["X''", "X'00'", "X'0102FF00'", "X'2020'"]),
        case("varbinary(300)", Bytes, &["REPEAT(X'80', 300)"]),
        case("tinyblob", Bytes, &["X'00FF'", "X''"]),
        case("blob", Bytes, &["REPEAT(X'00FF', 1000)"]),
        case("mediumblob", Bytes, &["REPEAT(X'FE', 70000)"]),
        case("longblob", Bytes, &["X'DEADBEEF'"]),
        labelled("enum('a','b''c','é,')", &["'a'", "'b''c'", "'é,'", "''"], &["a", "b'c", "é,"]),
        labelled(
            "set('a','b','c','d','e','f','g','h','i')",
            &["''", "'a'", "'a,c,i'", "'a,b,c,d,e,f,g,h,i'"],
            &["a", "b", "c", "d", "e", "f", "g", "h", "i"],
        ),
        case("point", Bytes, &["ST_GeomFromText('POINT(1 2)')"]),
        case(
            "geometry",
            Bytes,
            &["ST_GeomFromText('LINESTRING(0 0, 1 1, 2 5)', 4326)", "ST_GeomFromText('POINT(1 2)')"],
        ),
        in_set("char(5) character set latin1", "latin1", &["'é€'", "''"]),
        in_set("varchar(30) character set latin1", "latin1", &["'café €'", "CONVERT(X'818D8F909D' USING latin1)"]),
        in_set("varchar(30) character set latin2", "latin2", &["'žluťoučký'"]),
        in_set("text character set cp1251", "cp1251", &["'Привет'"]),
        in_set("varchar(30) character set koi8r", "koi8r", &["'Привет'"]),
        in_set("varchar(30) character set greek", "greek", &["'γειά'"]),
        in_set("varchar(30) character set swe7", "swe7", &["'ÄÖÅäöå'"]),
        in_set("varchar(30) character set tis620", "tis620", &["'ไทย'"]),
        in_set("varchar(30) character set ascii", "ascii", &["'plain'"]),
        in_set("varchar(30) character set ucs2", "ucs2", &["'a€é'", "''"]),
        in_set("char(30) character set ucs2", "ucs2", &["'a€é'", "' x '"]),
        in_set("varchar(30) character set utf16", "utf16", &["'a€😀'"]),
        in_set("char(6) character set utf16le", "utf16le", &["'a€😀'"]),
        in_set("char(70) character set utf32", "utf32", &["'a€😀'", "''"]),
        in_set("varchar(30) character set gbk", "gbk", &["'你好，世界'"]),
        in_set("varchar(30) character set gb2312", "gb2312", &["'你好'"]),
        in_set("varchar(30) character set big5", "big5", &["'你好世界'"]),
        in_set("varchar(30) character set sjis", "sjis", &["'日本語ｱ'", "'ソ\\\\'"]),
        in_set("varchar(30) character set cp932", "cp932", &["'日本語①～'"]),
        in_set("varchar(30) character set ujis", "ujis", &["'日本語ｱ'"]),
        in_set("varchar(30) character set eucjpms", "eucjpms", &["'日本語①'"]),
        in_set("varchar(30) character set euckr", "euckr", &["'한국어'"]),
        in_set("varchar(30) character set utf8mb3", "utf8mb3", &["'a€é'"]),
    ];
    let mut latin_labels = labelled("enum('é','ß') character set latin1", &["'é'", "'ß'"], &["é", "ß"]);
    latin_labels.hint.charset = Charset::named("latin1");
    cases.push(latin_labels);
    for (definition, digits) in
        [("time", 0), ("time(1)", 1), ("time(2)", 2), ("time(3)", 3), ("time(4)", 4), ("time(5)", 5), ("time(6)", 6)]
    {
        let mut case = case(
            definition,
            Text,
            &[
                "'-838:59:59'",
                "'838:59:59'",
                "'00:00:00'",
                "'-00:00:01'",
                "'-00:00:00.9'",
                "'-100:00:00.123456'",
                "'23:59:59.999999'",
                "'99:00:00.5'",
            ],
        );
        case.hint.fsp = Some(digits);
        cases.push(case);
    }
    for (definition, digits) in [
        ("datetime", 0),
        ("datetime(1)", 1),
        ("datetime(2)", 2),
        ("datetime(3)", 3),
        ("datetime(4)", 4),
        ("datetime(5)", 5),
        ("datetime(6)", 6),
    ] {
        let mut case = case(
            definition,
            Text,
            &[
                "'1000-01-01 00:00:00'",
                "'9999-12-31 23:59:59'",
                "'0000-00-00 00:00:00'",
                "'2024-02-00 10:11:12'",
                "'2024-02-29 10:11:12.000001'",
                "'2024-02-29 10:11:12.987654'",
            ],
        );
        case.hint.fsp = Some(digits);
        cases.push(case);
    }
    for (definition, digits) in [
        ("timestamp null", 0),
        ("timestamp(1) null", 1),
        ("timestamp(3) null", 3),
        ("timestamp(4) null", 4),
        ("timestamp(6) null", 6),
    ] {
        let mut case = case(
            definition,
            Text,
            &[
                "'1970-01-01 00:00:01'",
                "'2038-01-19 03:14:07'",
                "'0000-00-00 00:00:00'",
                "'2024-02-29 10:11:12.5'",
                "'2024-02-29 10:11:12.000001'",
            ],
        );
        case.hint.fsp = Some(digits);
        cases.push(case);
    }
    match engine {
        Engine::MySql => {
            cases.push(in_set("varchar(30) character set gb18030", "gb18030", &["'你好😀é'"]));
            cases.push(case("vector(3)", Bytes, &["STRING_TO_VECTOR('[1,2,3.5]')"]));
            cases.push(case("json", Text, &[
                "'{}'", "'[]'", "'null'", "'\"text\"'", "'{\"bb\": 1, \"a\": [1, 2.5, null, true, \"é😀\"], \"ccc\": {\"d\": -5}}'",
                "'[0, -1, 32767, 32768, 65535, 65536, -32769, 2147483648, 4294967296, 9223372036854775807, 18446744073709551615, -9223372036854775808]'",
                "'[1.0, 1e100, 1.5e-10, 0.1, 100.0, 1e15, 123456789012345680.0, -0.0]'",
                "'\"q\\\\\" b\\\\\\\\ n\\\\n t\\\\t u\\\\u0001 \\\\u001f / é\"'",
                "JSON_OBJECT('d', CAST('2024-02-29' AS DATE), 'dt', CAST('2024-02-29 10:11:12.123456' AS DATETIME(6)), 't', CAST('-100:11:12.5' AS TIME(3)), 'dec', CAST('-123.4500' AS DECIMAL(10,4)), 'big', CAST(REPEAT('9', 60) AS DECIMAL(65,5)))",
                "JSON_ARRAY(CAST(X'00FF10' AS BINARY), CAST(REPEAT('x', 100) AS BINARY), b'101')",
                "JSON_OBJECT('long', REPEAT('é', 40000), 'x', JSON_ARRAY(1, 70000))",
                "JSON_ARRAY(CAST('0000-00-00' AS DATE), CAST('838:59:59' AS TIME), TIMESTAMP('2001-01-01 00:00:00'))",
                "(SELECT JSON_OBJECTAGG(CONCAT('k', n), n * 1000) FROM (WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT n FROM s) x)",
            ]));
        }
        Engine::MariaDb => {
            cases.push(case("json", Text, &["'{\"b\": 1, \"a\":  [1.0, null]}'", "'[]'"]));
            for (definition, kind, values) in [
                ("inet4", Fixed::Inet4, &["'0.0.0.0'", "'255.255.255.255'", "'192.168.0.0'", "'10.0.32.32'"][..]),
                (
                    "inet6",
                    Fixed::Inet6,
                    &[
                        "'::'",
                        "'::1'",
                        "'2001:db8::ff00:42:8329'",
                        "'::ffff:192.0.2.1'",
                        "'::192.0.2.1'",
                        "'fe80::'",
                        "'1:0:0:2:0:0:0:3'",
                        "'1:2:3:4:5:6:7:8'",
                        "'1:0:2:3:4:5:6:7'",
                        "'::1:0:0'",
                        "'0:0:1:0:0:1:0:0'",
                        "'::ffff'",
                    ],
                ),
                (
                    "uuid",
                    Fixed::Uuid,
                    &[
                        "'00000000-0000-0000-0000-000000000000'",
                        "'123e4567-e89b-12d3-a456-426655440000'",
                        "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
                        "'01890a5d-ac96-774b-bcce-b302099a8057'",
                        "'6ccd780c-baba-1026-9564-5b8c65602000'",
                    ],
                ),
            ] {
                let mut case = case(definition, Text, values);
                case.hint.fixed = Some(kind);
                case.hint.charset = Some(Charset::Binary);
                cases.push(case);
            }
            cases.push(case("varchar(2000) compressed", Text, &["REPEAT('é', 2000)", "''", "'a'", "'short text'"]));
            cases.push(case("text compressed", Text, &["REPEAT('text', 10000)", "''", "'a'"]));
            cases.push(case("blob compressed", Bytes, &["REPEAT(X'00FF', 10000)", "X''", "X'00'"]));
            cases.push(case("varbinary(300) compressed", Bytes, &["REPEAT(X'00', 300)", "X'00'"]));
            cases.push(in_set("varchar(200) compressed character set latin1", "latin1", &["REPEAT('é', 200)", "'é'"]));
        }
    }
    cases
}
