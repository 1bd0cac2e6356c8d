//! What random MySQL and MariaDB tables are made of.

use rand::Rng;
use rand::rngs::StdRng;

use super::random::{Dialect, Key, Type, key, one};

/// Every kind of type and of key that a migration treats differently, of those that both servers have.
pub static MYSQL: Dialect = Dialect {
    types: &[
        Type { ddl: "int", values: |rng| rng.random_range(i32::MIN..i32::MAX).to_string() },
        Type { ddl: "tinyint unsigned", values: |rng| rng.random_range(0..256).to_string() },
        Type { ddl: "bigint unsigned", values: |rng| one(rng, &["18446744073709551615", "0", "9223372036854775808"]) },
        Type { ddl: "decimal(40,9)", values: |rng| one(rng, &["0", "-1e30", "12345678901234567890.123456789"]) },
        Type { ddl: "double", values: |rng| one(rng, &["0.1", "-0.0", "1e-300", "-1.7976931348623157e308"]) },
        Type { ddl: "float", values: |rng| rng.random::<f32>().to_string() },
        Type { ddl: "bit(11)", values: |rng| rng.random_range(0..2048).to_string() },
        Type {
            ddl: "varchar(40) CHARACTER SET utf8mb4",
            values: |rng| one(rng, &["''", "'NULL'", "'\\t\\\\N\\n'", "'ü\"{}'", "'plain '", "'a, b'", "'🦀'"]),
        },
        Type { ddl: "varchar(40) CHARACTER SET latin1", values: |rng| one(rng, &["''", "'ü'", "'plain'"]) },
        Type { ddl: "longtext CHARACTER SET utf8mb4", values: long },
        Type { ddl: "longtext CHARACTER SET utf8mb4", values: long },
        Type { ddl: "blob", values: |rng| format!("x'{:08x}00'", rng.random::<u32>()) },
        Type { ddl: "binary(6)", values: |rng| one(rng, &["x'00'", "x'61620000'", "x''"]) },
        Type { ddl: "char(5) CHARACTER SET utf8mb4", values: |rng| one(rng, &["'a'", "'a    '", "''"]) },
        Type { ddl: "date", values: |rng| one(rng, &["'9999-12-31'", "'1000-01-01'", "'2026-02-28'"]) },
        Type { ddl: "datetime(6)", values: |rng| one(rng, &["'1000-01-01 00:00:00'", "now(6)", "'2026-03-29 02:30'"]) },
        Type { ddl: "timestamp(3) NULL", values: |rng| one(rng, &["'2026-03-29 01:30:00.123'", "now(3)"]) },
        Type { ddl: "time(2)", values: |rng| one(rng, &["'-838:59:59'", "'00:00:00.01'", "'25:00'"]) },
        Type { ddl: "year", values: |rng| one(rng, &["1901", "2155", "0"]) },
        Type { ddl: "json", values: |rng| one(rng, &["'{\"a\": [1, null]}'", "'null'", "'\"\"'"]) },
        Type { ddl: "enum('a','b,c','')", values: |rng| one(rng, &["'a'", "'b,c'", "''"]) },
        Type { ddl: "set('x','y','z')", values: |rng| one(rng, &["''", "'x,z'", "'y'"]) },
    ],
    keys: &[
        key(", PRIMARY KEY (id)", "", true),
        key(", PRIMARY KEY (id)", "", true),
        key(", PRIMARY KEY (id), UNIQUE (u)", "", false),
        key(", UNIQUE (id)", "", false),
        Key { none: true, ..key("", "", false) },
    ],
    partitions: &[
        (
            " PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (60), PARTITION b VALUES LESS THAN (10020),
               PARTITION rest VALUES LESS THAN MAXVALUE)",
            "",
        ),
        (" PARTITION BY HASH (id) PARTITIONS 2", ""),
    ],
    truncate_is_transactional: false,
};

fn long(rng: &mut StdRng) -> String {
    format!("repeat('{:016x}', {})", rng.random::<u64>(), rng.random_range(1..300))
}
