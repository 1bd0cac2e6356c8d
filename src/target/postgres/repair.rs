//! Writing the source's version of single rows, beside a run that applies the stream.
//!
//! In: keys, and what was read at the source. Out: one transaction that holds the checkpoint's row from its first
//! statement to its end, so that no batch is applied beside it (TRAPS 1); what is read inside it is the target as of the
//! checkpoint. [`crate::verify::repair`] decides what may be written: here is only how.
//!
//! What can go wrong: another instance has taken the migration over, or it is in another phase by now ([`Ready::No`]: look
//! again); a row that the target refuses.

use std::collections::HashMap;

use tokio_postgres::types::ToSql;

use super::{PgTarget, session};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, Equality};
use crate::schema::{Ident, TableName, TableSchema};
use crate::target::state::{LOCK_ALL, Phase, TableStage};

/// A row as text, and which version of it that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowVersion {
    /// The transaction that wrote it: another number is another version.
    pub xmin: String,
    /// The columns that travel, in their order.
    pub values: Vec<Option<String>>,
}

/// Rows by key.
pub type Rows = HashMap<Vec<String>, RowVersion>;

/// Reads rows of one table by key, at either end.
pub struct Reader {
    sql: String,
    width: usize,
}

impl Reader {
    /// `columns` are this end's names, in the order of `shape`, which knows key and types; `from` is `ONLY "a"."b"`;
    /// `equal`: how the columns compare at this end.
    pub fn new(columns: &[&str], shape: &TableSchema, from: &str, equal: &[Equality]) -> Reader {
        let key = key_of(shape);
        let texts: Vec<String> = columns.iter().map(|name| format!("t.{}::text", Ident(name))).collect();
        let join = join(columns, shape, equal);
        let (wanted, arrays) = wanted(key.len(), 1);
        let sql = format!(
            "SELECT ARRAY[{wanted}], t.xmin::text, ARRAY[{}]::text[] FROM unnest({arrays}) AS w({wanted}) JOIN {from} t ON {join}",
            texts.join(", "),
        );
        Reader { sql, width: key.len() }
    }

    /// The rows that are there.
    pub async fn read(&self, client: &Client, keys: &[Vec<String>]) -> Result<Rows> {
        let columns = columns(keys, self.width);
        let rows = client.query(&self.sql, &params(&columns)).await?;
        Ok(rows.iter().map(|row| (row.get(0), RowVersion { xmin: row.get(1), values: row.get(2) })).collect())
    }
}

fn key_of(shape: &TableSchema) -> &[usize] {
    shape.key.as_ref().map_or(&[], |key| &key.columns)
}

/// `t` is the table, `w` the wanted keys.
fn join(names: &[&str], shape: &TableSchema, equal: &[Equality]) -> String {
    let conditions = key_of(shape).iter().enumerate().map(|(n, &index)| {
        equal[index].condition(
            &format!("t.{}", Ident(names[index])),
            &format!("w.k{n}"),
            &shape.columns[index].ty.sql(),
        )
    });
    conditions.collect::<Vec<_>>().join(" AND ")
}

/// `k0, k1` and `$1::text[], $2::text[]`.
fn wanted(width: usize, first: usize) -> (String, String) {
    let names: Vec<String> = (0..width).map(|n| format!("k{n}")).collect();
    let arrays: Vec<String> = (first..first + width).map(|n| format!("${n}::text[]")).collect();
    (names.join(", "), arrays.join(", "))
}

fn columns(rows: &[Vec<String>], width: usize) -> Vec<Vec<&str>> {
    (0..width).map(|n| rows.iter().map(|row| row[n].as_str()).collect()).collect()
}

fn params<T: ToSql + Sync>(columns: &[T]) -> Vec<&(dyn ToSql + Sync)> {
    columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect()
}

/// What becomes of the rows of a piece.
#[derive(Debug, Default)]
pub struct Writes {
    /// Rows the target lacks: key and values.
    pub insert: Vec<(Vec<String>, Vec<Option<String>>)>,
    /// Rows with other values.
    pub update: Vec<(Vec<String>, Vec<Option<String>>)>,
    /// Rows the source does not have.
    pub delete: Vec<Vec<String>>,
}

impl Writes {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.insert.len() + self.update.len() + self.delete.len()
    }

    /// The same with rows taken out and put in again instead of updated.
    fn replacing(&self) -> Writes {
        let updated = self.update.iter().map(|(key, _)| key);
        Writes {
            insert: self.insert.iter().chain(&self.update).cloned().collect(),
            update: Vec::new(),
            delete: self.delete.iter().chain(updated).cloned().collect(),
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether the transaction may go on.
pub enum Ready {
    /// The checkpoint is locked, and the table is followed.
    Yes,
    /// Not now; why.
    No(String),
}

/// The session that repairs.
pub struct Repairer {
    client: Client,
    migration: String,
}

impl PgTarget {
    /// Opens a session that may write to migrated tables, in transactions that begin with [`Repairer::begin`] only.
    pub async fn repairer(&self) -> Result<Repairer> {
        let migration = self.state.name().to_owned();
        let client = session::open(&self.info, &format!("cutwater_{migration}_repair")).await?;
        Ok(Repairer { client, migration })
    }
}

impl Repairer {
    /// For reading between two transactions.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Begins a transaction by locking the checkpoint under the epoch that is the current one: no batch is applied until
    /// it ends.
    pub async fn begin(&self, epoch: i64, source: &TableName) -> Result<Ready> {
        let doing = "locking the checkpoint for a repair";
        self.client.batch_execute("BEGIN; SET LOCAL statement_timeout = '60s'").await.context(doing)?;
        let rows = self.client.query(LOCK_ALL, &[&self.migration]).await.context(doing)?;
        if rows.first().is_none_or(|row| row.get::<_, i64>(1) != epoch) {
            return Ok(Ready::No("another run has taken the migration over".into()));
        }
        let sql = include_str!("repair_ready.sql");
        let row = self.client.query_opt(sql, &[&self.migration, &source.schema, &source.table]).await.context(doing)?;
        let Some(row) = row else { return Ok(Ready::No(format!("{source} is not part of the migration"))) };
        let (phase, stage): (Phase, &str) = (row.get::<_, &str>(0).parse()?, row.get(1));
        if !matches!(phase, Phase::CatchingUp | Phase::Streaming) {
            return Err(Error::new(
                Kind::Refused,
                format!("the migration is in phase {phase}: rows are not repaired in it"),
            ));
        }
        if stage != TableStage::Copied.as_str() {
            return Ok(Ready::No(format!("{source} is being copied")));
        }
        Ok(Ready::Yes)
    }

    /// Writes, inside the transaction. An error leaves it to [`Repairer::rollback`].
    pub async fn write(&self, table: &TableSchema, selection: &str, writes: &Writes) -> Result<()> {
        self.client.batch_execute("SAVEPOINT repair").await?;
        match self.put(table, selection, writes).await {
            // Rows that hold each other's unique values cannot be updated one after the other: out with all, in with all.
            Err(error) if error.kind() == Kind::BadRow && !writes.update.is_empty() => {
                self.client.batch_execute("ROLLBACK TO SAVEPOINT repair").await?;
                self.put(table, selection, &writes.replacing()).await
            }
            done => done,
        }
    }

    async fn put(&self, table: &TableSchema, selection: &str, writes: &Writes) -> Result<()> {
        self.client.batch_execute("SET CONSTRAINTS ALL DEFERRED").await?;
        let key = key_of(table);
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let equal = Equality::of(&self.client, &table.name, &names).await?;
        let join = join(&names, table, &equal);
        if !writes.delete.is_empty() {
            let (wanted, arrays) = wanted(key.len(), 1);
            let sql = format!("DELETE FROM {selection} t USING unnest({arrays}) AS w({wanted}) WHERE {join}");
            let columns = columns(&writes.delete, key.len());
            self.counted(&sql, &params(&columns), writes.delete.len()).await?;
        }
        if !writes.update.is_empty() {
            let (wanted, arrays) = wanted(key.len(), 1);
            let (others, set) = self.assignments(table, key);
            let values: Vec<String> = (0..others.len()).map(|n| format!("${}::text[]", key.len() + 1 + n)).collect();
            let named: Vec<String> = (0..others.len()).map(|n| format!("v{n}")).collect();
            let sql = format!(
                "UPDATE {selection} t SET {set} FROM unnest({arrays}, {}) AS w({wanted}, {}) WHERE {join}",
                values.join(", "),
                named.join(", ")
            );
            let keys: Vec<Vec<String>> = writes.update.iter().map(|(key, _)| key.clone()).collect();
            let keys = columns(&keys, key.len());
            let values = value_columns(&writes.update, &others);
            let params: Vec<_> = params(&keys).into_iter().chain(params(&values)).collect();
            self.counted(&sql, &params, writes.update.len()).await?;
        }
        if !writes.insert.is_empty() {
            let columns: Vec<String> = names.iter().map(|name| Ident(name).to_string()).collect();
            let named: Vec<String> = (0..names.len()).map(|n| format!("v{n}")).collect();
            let arrays: Vec<String> = (1..=names.len()).map(|n| format!("${n}::text[]")).collect();
            let cast = table.columns.iter().enumerate().map(|(n, column)| format!("w.v{n}::{}", column.ty.sql()));
            let sql = format!(
                "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM unnest({}) AS w({})",
                table.name.sql(),
                columns.join(", "),
                cast.collect::<Vec<_>>().join(", "),
                arrays.join(", "),
                named.join(", ")
            );
            let values = value_columns(&writes.insert, &(0..names.len()).collect::<Vec<_>>());
            self.counted(&sql, &params(&values), writes.insert.len()).await?;
        }
        self.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.map_err(Error::from)
    }

    /// The columns an update sets, and how.
    fn assignments(&self, table: &TableSchema, key: &[usize]) -> (Vec<usize>, String) {
        let others: Vec<usize> = (0..table.columns.len()).filter(|index| !key.contains(index)).collect();
        let set = others.iter().enumerate().map(|(n, &index)| {
            let column = &table.columns[index];
            format!("{} = w.v{n}::{}", Ident(&column.name), column.ty.sql())
        });
        let set = set.collect::<Vec<_>>().join(", ");
        (others, set)
    }

    async fn counted(&self, sql: &str, params: &[&(dyn ToSql + Sync)], expected: usize) -> Result<()> {
        let affected = self.client.execute(sql, params).await?;
        if affected == expected as u64 {
            return Ok(());
        }
        Err(Error::new(Kind::Divergence, format!("{affected} rows were changed instead of {expected}")))
    }

    /// Makes it durable.
    pub async fn commit(&self) -> Result<()> {
        self.client.batch_execute("COMMIT").await.context("committing a repair")
    }

    /// Takes it back, and lets the run go on.
    pub async fn rollback(&self) -> Result<()> {
        self.client.batch_execute("ROLLBACK").await.context("taking a repair back")
    }
}

fn value_columns<'a>(rows: &'a [(Vec<String>, Vec<Option<String>>)], of: &[usize]) -> Vec<Vec<Option<&'a str>>> {
    of.iter().map(|&index| rows.iter().map(|(_, values)| values[index].as_deref()).collect()).collect()
}
