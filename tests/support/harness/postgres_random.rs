//! What random Postgres tables are made of.

use rand::Rng;
use rand::rngs::StdRng;

use super::random::{Dialect, Key, Type, key, one};

/// Every kind of type and of key that a migration treats differently.
pub static POSTGRES: Dialect = Dialect {
    types: &[
        Type { ddl: "int", values: |rng| rng.random_range(i32::MIN..i32::MAX).to_string() },
        Type { ddl: "smallint", values: |rng| rng.random_range(-9..9).to_string() },
        Type { ddl: "numeric", values: |rng| one(rng, &["'NaN'", "0.00", "-1e40", "12345678901234567890.123456789"]) },
        Type { ddl: "double precision", values: |rng| one(rng, &["'NaN'", "'-Infinity'", "0.1", "-0.0", "1e-300"]) },
        Type { ddl: "real", values: |rng| (rng.random::<f32>()).to_string() },
        Type { ddl: "boolean", values: |rng| rng.random::<bool>().to_string() },
        Type {
            ddl: "text",
            values: |rng| one(rng, &["''", "'NULL'", "E'\\t\\\\N\\n'", "'ü\"{}'", "'plain'", "'a, b'"]),
        },
        // Mostly stored out of line: an update of another column does not send it.
        Type { ddl: "text", values: long },
        Type { ddl: "text", values: long },
        Type { ddl: "bytea", values: |rng| format!("'\\x{:08x}00'", rng.random::<u32>()) },
        Type { ddl: "char(5)", values: |rng| one(rng, &["'a'", "'a    '", "''"]) },
        Type { ddl: "date", values: |rng| one(rng, &["'infinity'", "'0044-03-15 BC'", "'2026-02-28'"]) },
        Type { ddl: "timestamptz", values: |rng| one(rng, &["'-infinity'", "now()", "'2026-03-29 02:30+01'"]) },
        Type { ddl: "interval", values: |rng| one(rng, &["'1 mon -3 days'", "'25:00:00.000001'", "'0'"]) },
        Type { ddl: "uuid", values: |_| "gen_random_uuid()".to_owned() },
        Type { ddl: "jsonb", values: |rng| one(rng, &["'{\"a\": [1, null]}'", "'null'", "'\"\"'"]) },
        Type { ddl: "json", values: |rng| one(rng, &["'{\"a\":  1, \"a\": 2}'", "'[]'"]) },
        Type { ddl: "int[]", values: |rng| one(rng, &["'{}'", "'{1,NULL}'", "'[2:3]={4,5}'", "'{{1},{2}}'"]) },
        Type { ddl: "text[]", values: |rng| one(rng, &["ARRAY['', NULL, 'NULL', '\"\\']", "'{}'"]) },
        Type { ddl: "point", values: |rng| format!("'({},1)'", rng.random_range(0..9)) },
        Type { ddl: "inet", values: |rng| one(rng, &["'::1'", "'10.0.0.0/8'"]) },
        Type { ddl: "bit varying(9)", values: |rng| one(rng, &["B'101'", "B''"]) },
        Type { ddl: "tstzrange", values: |rng| one(rng, &["'empty'", "'[2026-01-01,)'", "'(,2026-01-01]'"]) },
    ],
    keys: &[
        key(", PRIMARY KEY (id)", "", true),
        key(", PRIMARY KEY (id)", "", true),
        key(", PRIMARY KEY (id)", "ALTER TABLE {t} REPLICA IDENTITY FULL;\n", false),
        key(", PRIMARY KEY (id), UNIQUE (u)", "", false),
        key(", PRIMARY KEY (id), UNIQUE (u) DEFERRABLE INITIALLY DEFERRED", "", false),
        key(
            "",
            "CREATE UNIQUE INDEX {t}_id ON {t} (id);\nALTER TABLE {t} REPLICA IDENTITY USING INDEX {t}_id;\n",
            false,
        ),
        Key {
            deferrable: true,
            ..key(", PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED", "ALTER TABLE {t} REPLICA IDENTITY FULL;\n", false)
        },
        Key { deferrable: true, ..key(", UNIQUE (id) DEFERRABLE", "ALTER TABLE {t} REPLICA IDENTITY FULL;\n", false) },
        Key { none: true, ..key("", "ALTER TABLE {t} REPLICA IDENTITY FULL;\n", false) },
    ],
    partitions: &[
        (
            " PARTITION BY RANGE (id)",
            "CREATE TABLE {t}_a PARTITION OF {t} FOR VALUES FROM (MINVALUE) TO (60);\n\
             CREATE TABLE {t}_b PARTITION OF {t} FOR VALUES FROM (60) TO (10020);\n\
             CREATE TABLE {t}_rest PARTITION OF {t} DEFAULT;\n",
        ),
        (
            " PARTITION BY HASH (id)",
            "CREATE TABLE {t}_0 PARTITION OF {t} FOR VALUES WITH (MODULUS 2, REMAINDER 0);\n\
             CREATE TABLE {t}_1 PARTITION OF {t} FOR VALUES WITH (MODULUS 2, REMAINDER 1);\n",
        ),
    ],
    truncate_is_transactional: true,
};

fn long(rng: &mut StdRng) -> String {
    let n: u16 = rng.random();
    format!("(SELECT string_agg(md5({n} || ':' || p), '') FROM generate_series(1, {}) p)", rng.random_range(1..150))
}
