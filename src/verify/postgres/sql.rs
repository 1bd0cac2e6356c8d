//! The statements of a comparison, built so that both servers compute exactly the same thing.
//!
//! A row's hash is `hashtextextended(ROW(…)::text COLLATE "C", seed)`. The text of a record quotes its fields and writes
//! NULL as nothing and an empty string as `""`, so that no two different rows have one text; every setting that shapes
//! it is pinned by the session. The hash is 64 bits wide (Postgres 11 and later; the hash of hash partitions, the same
//! in every version and on every machine of one byte order) and seeded anew for each comparison, so that two rows collide with a
//! chance of 2⁻⁶⁴ and never twice in a row. It is no cryptographic hash: it finds mistakes, not forgers. A bucket is the
//! count and the sum of its rows' hashes as `numeric`, which does not wrap: never XOR (TRAPS 24).
//!
//! Between two Postgres servers equal values have equal texts for every built-in type. The exception is floating point
//! between a server before 12 and one after it; such rows would be reported as different.

use crate::postgres::Equality;
use crate::schema::{Ident, TableSchema};

/// Rows of a bucket, about.
const BUCKET_ROWS: u64 = 10_000;
const MAX_BUCKETS: u64 = 4_096;

/// The statements for one table at one end.
pub(super) struct Statements {
    /// → bucket, count, sum of hashes as text.
    pub(super) buckets: String,
    /// `$1` buckets → order hash, key, count, row hash; in the order of the first.
    pub(super) detail: String,
    /// With a key: `$1…` one text array a key column. Without: `$1` row hashes. → key, count, row hash, and the transaction that wrote the row (0 without a key).
    pub(super) again: String,
}

/// How many buckets: a power of two.
pub(super) fn bucket_count(rows: u64) -> u64 {
    (rows / BUCKET_ROWS).next_power_of_two().clamp(1, MAX_BUCKETS)
}

impl Statements {
    /// `columns` are this end's names, in the plan's order, and how they compare here; `shape` knows key and types; `from` is `ONLY "a"."b"`.
    pub(super) fn new(
        (columns, equal): (&[&str], &[Equality]),
        shape: &TableSchema,
        from: &str,
        buckets: u64,
        seed: i64,
        recode: bool,
    ) -> Self {
        let column = |index: usize| format!("t.{}", Ident(columns[index]));
        let text = |columns: &[String]| format!("ROW({})::text", columns.join(", "));
        let hash = |text: &str| {
            let text = if recode { format!("encode(convert_to({text}, 'UTF8'), 'hex')") } else { text.to_owned() };
            format!("hashtextextended({text} COLLATE \"C\", ({seed})::bigint)")
        };
        let mask = buckets - 1;
        let all: Vec<String> = (0..columns.len()).map(column).collect();
        let row_hash = hash(&text(&all));
        let Some(key) = &shape.key else {
            let rows = format!("SELECT left({}, 200) COLLATE \"C\" AS k, {row_hash} AS h FROM {from} t", text(&all));
            let grouped = |filter: &str| {
                format!("SELECT h, ARRAY[min(k)], count(*), h FROM ({rows}) r WHERE {filter} GROUP BY h ORDER BY h")
            };
            return Statements {
                buckets: format!("SELECT h & {mask}, count(*), sum(h)::text FROM ({rows}) r GROUP BY 1"),
                detail: grouped(&format!("(h & {mask}) = ANY($1::bigint[])")),
                again: grouped("h = ANY($1::bigint[])").replacen(", h FROM", ", h, 0::bigint FROM", 1),
            };
        };
        let keys: Vec<String> = key.columns.iter().map(|&index| column(index)).collect();
        let key_hash = hash(&text(&keys));
        let key_texts = keys.iter().map(|key| format!("{key}::text")).collect::<Vec<_>>().join(", ");
        let wanted = (0..keys.len()).map(|n| format!("k{n}")).collect::<Vec<_>>().join(", ");
        let arrays = (1..=keys.len()).map(|n| format!("${n}::text[]")).collect::<Vec<_>>().join(", ");
        let join = key.columns.iter().enumerate().map(|(n, &index)| {
            equal[index].condition(&column(index), &format!("w.k{n}"), &shape.columns[index].ty.sql())
        });
        Statements {
            buckets: format!(
                "SELECT b, count(*), sum(h)::text FROM (SELECT {key_hash} & {mask} AS b, {row_hash} AS h FROM {from} t) r
                  GROUP BY b"
            ),
            detail: format!(
                "SELECT o, k, 1::bigint, h
                   FROM (SELECT {key_hash} AS o, ARRAY[{key_texts}] AS k, {row_hash} AS h FROM {from} t) r
                  WHERE (o & {mask}) = ANY($1::bigint[]) ORDER BY o"
            ),
            again: format!(
                "SELECT {key_hash}, ARRAY[{key_texts}], 1::bigint, {row_hash}, t.xmin::text::bigint
                   FROM unnest({arrays}) AS w({wanted}) JOIN {from} t ON {}",
                join.collect::<Vec<_>>().join(" AND ")
            ),
        }
    }
}
