//! Tables and transactions at random, from a seed.

use std::fmt::Write as _;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// What an engine's tables may be made of.
pub struct Dialect {
    /// Types, each with its values as SQL.
    pub types: &'static [Type],
    /// How a row can be told from another, as what follows the columns and what follows the table's creation (`{t}`).
    pub keys: &'static [Key],
    /// What follows `CREATE TABLE (…)` to divide it, and the statements that make the partitions (`{t}`); the key must
    /// be `id`.
    pub partitions: &'static [(&'static str, &'static str)],
    /// Has `SAVEPOINT`s that undo a TRUNCATE too.
    pub truncate_is_transactional: bool,
}

/// A column's type.
pub struct Type {
    pub ddl: &'static str,
    pub values: fn(&mut StdRng) -> String,
}

/// A way of telling rows apart.
pub struct Key {
    /// In the table's definition.
    pub constraint: &'static str,
    /// Afterwards.
    pub after: &'static str,
    /// Whether it is checked at the end of the transaction.
    pub deferrable: bool,
    /// Whether two equal rows may be there.
    pub none: bool,
    /// Whether a partitioned table may have it.
    pub partitionable: bool,
}

/// A way of telling rows apart that has nothing special.
pub const fn key(constraint: &'static str, after: &'static str, partitionable: bool) -> Key {
    Key { constraint, after, deferrable: false, none: false, partitionable }
}

/// One of these.
pub fn one(rng: &mut StdRng, values: &[&str]) -> String {
    values[rng.random_range(0..values.len())].to_owned()
}

/// A random table.
pub struct Table {
    pub name: String,
    pub ddl: String,
    columns: Vec<&'static Type>,
    key: &'static Key,
}

/// A whole random database.
pub struct Schema {
    pub tables: Vec<Table>,
}

impl Schema {
    /// One to four tables.
    pub fn new(rng: &mut StdRng, dialect: &Dialect) -> Schema {
        let tables = (0..rng.random_range(1..=4)).map(|number| Table::new(rng, dialect, number)).collect();
        Schema { tables }
    }

    /// The statements that make it, with some rows.
    pub fn script(&self, rng: &mut StdRng) -> String {
        let mut sql = String::new();
        for (number, table) in self.tables.iter().enumerate() {
            sql += &table.ddl;
            let rows = *[0, 3, 40, 150].choose(rng).unwrap();
            for id in 0..rows {
                let _ = writeln!(sql, "{};", table.insert(rng, 1 + id + 1000 * i64::try_from(number).unwrap()));
            }
        }
        sql
    }
}

impl Table {
    fn new(rng: &mut StdRng, dialect: &Dialect, number: usize) -> Table {
        let key = dialect.keys.choose(rng).unwrap();
        let name = format!("t{number}");
        let columns: Vec<&Type> = (0..rng.random_range(1..=6)).map(|_| dialect.types.choose(rng).unwrap()).collect();
        let mut ddl = format!("CREATE TABLE {name} (id bigint NOT NULL, u bigint");
        for (index, column) in columns.iter().enumerate() {
            let _ = write!(ddl, ", c{index} {}", column.ddl);
        }
        let divided = key.partitionable && rng.random_range(0..4) == 0;
        ddl += key.constraint;
        ddl += ")";
        let mut after = key.after.to_owned();
        if divided && let Some((by, make)) = dialect.partitions.choose(rng) {
            ddl += by;
            after = format!("{make}{after}");
        }
        let ddl = format!("{ddl};\n{after}").replace("{t}", &name);
        Table { name, ddl, columns, key }
    }

    fn insert(&self, rng: &mut StdRng, id: i64) -> String {
        let mut sql = format!("INSERT INTO {} VALUES ({id}, {}", self.name, 7 * id);
        for column in &self.columns {
            let _ = write!(sql, ", {}", value(column, rng));
        }
        sql + ")"
    }

    /// One statement, or several that belong together.
    fn statement(&self, rng: &mut StdRng, ids: &mut Ids) -> String {
        let t = &self.name;
        let (a, b) = (ids.known(rng), ids.known(rng));
        match rng.random_range(0..100) {
            0..22 => {
                let rows = if rng.random_range(0..8) == 0 { 30 } else { rng.random_range(1..4) };
                let rows: Vec<String> = (0..rows).map(|_| self.insert(rng, ids.fresh())).collect();
                rows.join("; ")
            }
            // Often refused, and the transaction with it.
            22..24 => self.insert(rng, a),
            24..28 if self.key.none => {
                let row = self.insert(rng, ids.fresh());
                format!("{row}; {row}")
            }
            24..55 => {
                let column = rng.random_range(0..self.columns.len());
                let value = value(self.columns[column], rng);
                format!("UPDATE {t} SET c{column} = {value} WHERE id BETWEEN {a} AND {}", a + rng.random_range(0..20))
            }
            55..65 => format!("DELETE FROM {t} WHERE id BETWEEN {a} AND {}", a + rng.random_range(0..4)),
            65..75 => format!("UPDATE {t} SET id = {} WHERE id = {a}", ids.fresh()),
            75..80 => {
                // A chain of keys, with another change on the way.
                let (first, second) = (ids.fresh(), ids.fresh());
                let value = value(self.columns[0], rng);
                format!(
                    "UPDATE {t} SET id = {first} WHERE id = {a}; UPDATE {t} SET c0 = {value} WHERE id = {first}; \
                     UPDATE {t} SET id = {second} WHERE id = {first}; UPDATE {t} SET id = {first} WHERE id = {b}"
                )
            }
            80..88 if self.key.deferrable => format!(
                "UPDATE {t} SET id = CASE id WHEN {a} THEN {b} ELSE {a} END WHERE id IN ({a}, {b}); \
                 UPDATE {t} SET u = u + 7 WHERE id IN ({a}, {b})"
            ),
            80..88 => {
                let spare = ids.fresh();
                format!(
                    "UPDATE {t} SET id = {spare} WHERE id = {a}; UPDATE {t} SET id = {a} WHERE id = {b}; \
                     UPDATE {t} SET id = {b} WHERE id = {spare}"
                )
            }
            88..93 => format!("DELETE FROM {t} WHERE id = {a}; {}", self.insert(rng, a)),
            93..95 => format!("TRUNCATE {t}"),
            95..97 => format!("TRUNCATE {t}; {}", self.insert(rng, ids.fresh())),
            _ => format!("UPDATE {t} SET u = u + 1 WHERE id > {a}"),
        }
    }
}

fn value(of: &Type, rng: &mut StdRng) -> String {
    if rng.random_range(0..6) == 0 { "NULL".to_owned() } else { (of.values)(rng) }
}

/// Ids that were given out, and those that may be.
pub struct Ids {
    next: i64,
}

impl Ids {
    /// Ids of a session's own.
    pub fn of(session: i64) -> Ids {
        Ids { next: 10_000 * (session + 1) }
    }

    fn fresh(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    /// One that may be there.
    fn known(&self, rng: &mut StdRng) -> i64 {
        let first = self.next - self.next % 10_000;
        if rng.random() && self.next > first {
            // Mostly a recent one.
            rng.random_range((self.next - 30).max(first)..=self.next)
        } else {
            rng.random_range(1..150) + 1000 * rng.random_range(0..4)
        }
    }
}

/// A transaction, as the statements a client would send one by one.
pub fn transaction(rng: &mut StdRng, schema: &Schema, dialect: &Dialect, ids: &mut Ids) -> Vec<String> {
    let mut statements = vec!["BEGIN".to_owned()];
    for _ in 0..rng.random_range(1..=6) {
        let table = schema.tables.choose(rng).unwrap();
        let statement = table.statement(rng, ids);
        let undone = rng.random_range(0..8) == 0;
        if undone && (dialect.truncate_is_transactional || !statement.contains("TRUNCATE")) {
            statements.push("SAVEPOINT s".to_owned());
            statements.push(statement);
            statements.push("ROLLBACK TO SAVEPOINT s".to_owned());
        } else {
            statements.push(statement);
        }
    }
    let end = if rng.random_range(0..12) == 0 { "ROLLBACK" } else { "COMMIT" };
    statements.push(end.to_owned());
    statements
}
