//! Foreign keys, triggers and rules that may not exist while changes are applied.
//!
//! Where the role may set `session_replication_role`, they are switched off for our sessions and built after the copy.
//! Where it may not, nothing switches them off: a foreign key would carry out its CASCADE on top of the rows the stream
//! brings (TRAPS 14), a trigger would do its work a second time (TRAPS 15). So there they come last:
//!
//! | when | what happens |
//! |---|---|
//! | `run`, after the copy | they are written to `cutwater.late`, and not made |
//! | every session that writes | refuses to start while one exists on a migrated table ([`refuse_acting`]) |
//! | before the fence | a gate makes each in a transaction that is rolled back, and looks for rows a foreign key would refuse ([`trial`]) |
//! | past the point of no return, before the clients are moved | all are made, foreign keys `NOT VALID` ([`make`]): nothing is applied any more, nothing is written yet |
//! | while the target is live | the foreign keys are validated, one by one ([`validate`]); what is left is reported until it is done |
//!
//! Past the point of no return, and not before, because a cutover may be undone up to there: then the stream goes on, and
//! it must never meet one of them. A driver that dies in between goes forward from there, and what is there is skipped.
//!
//! In: the entries of the dump that wait. Out: a target that has them. What can go wrong: a lock that somebody holds
//! (tried again, then named), a row without its parent (the source has it too: reported, the key stays `NOT VALID`, which
//! holds for every new row).

mod foreign_key;
mod make;
mod trial;

use std::collections::HashSet;

pub use make::{Validated, make, unvalidated, validate};
pub use trial::{Trial, trial};

use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::schema::{Ident, TableName};
use crate::target::state::db::params;
use crate::target::state::{CutoverStep, State};

/// What kind of object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LateKind {
    /// A foreign key.
    ForeignKey,
    /// A trigger, a constraint trigger too.
    Trigger,
    /// A rule on a table.
    Rule,
    /// Row-level security that binds the table's owner, too.
    RowSecurity,
    /// A comment on one of these.
    Comment,
}

impl LateKind {
    const ALL: [LateKind; 5] =
        [LateKind::ForeignKey, LateKind::Trigger, LateKind::Rule, LateKind::RowSecurity, LateKind::Comment];

    /// The word of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            LateKind::ForeignKey => "foreign-key",
            LateKind::Trigger => "trigger",
            LateKind::Rule => "rule",
            LateKind::RowSecurity => "row-security",
            LateKind::Comment => "comment",
        }
    }

    fn parse(word: &str) -> Result<LateKind> {
        LateKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| Error::new(Kind::Internal, format!("the state holds an unknown late object {word:?}")))
    }
}

/// One object that waits for the cutover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// What it is.
    pub kind: LateKind,
    /// The table it is on.
    pub table: TableName,
    /// The table a foreign key refers to.
    pub refers: Option<TableName>,
    /// Its own name; empty where it has none.
    pub name: String,
    /// The statements that make it. Of a foreign key: `ADD CONSTRAINT …`, without `ALTER TABLE` and `NOT VALID`.
    pub sql: String,
    /// Of a foreign key: whether the source has validated it.
    pub validated: bool,
}

impl Late {
    /// `foreign key orders_customer_fkey of shop.orders`
    pub fn label(&self) -> String {
        let kind = match self.kind {
            LateKind::ForeignKey => "foreign key",
            LateKind::RowSecurity => "row-level security",
            LateKind::Comment => "comment",
            kind => kind.as_str(),
        };
        if self.name.is_empty() {
            return format!("{kind} of {}", self.table);
        }
        format!("{kind} {} of {}", self.name, self.table)
    }
}

/// `41 foreign keys and 6 triggers`; `None` if there is nothing.
pub fn count(late: &[Late]) -> Option<String> {
    let number = |kind| late.iter().filter(|late| late.kind == kind).count();
    counted(
        number(LateKind::ForeignKey),
        number(LateKind::Trigger),
        number(LateKind::Rule) + number(LateKind::RowSecurity),
    )
}

/// The same for numbers.
pub fn counted(keys: usize, triggers: usize, others: usize) -> Option<String> {
    let some = |number: usize, one: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        many => Some(format!("{many} {one}s")),
    };
    let words: Vec<String> =
        [some(keys, "foreign key"), some(triggers, "trigger"), some(others, "rule")].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(" and "))
}

/// Whether this role may switch foreign keys and triggers off for its sessions. Tried, not read from a catalogue.
pub async fn role_may_switch_off(client: &Client) -> Result<bool> {
    let tried = client.batch_execute("BEGIN; SET LOCAL session_replication_role = replica").await;
    client.batch_execute("ROLLBACK").await?;
    match tried.map_err(Error::from) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == Kind::Privilege => Ok(false),
        Err(error) => Err(error),
    }
}

/// Something at the target that would act on what is applied.
#[derive(Debug, Clone)]
pub struct Acting {
    /// `foreign key orders_customer_fkey of shop.orders`
    pub what: String,
    /// The statement that removes it.
    pub remove: String,
}

/// What would act on rows written to these tables, or to partitions of them, by a session that cannot switch it off.
pub async fn acting(client: &Client, tables: &[TableName]) -> Result<Vec<Acting>> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|name| (name.schema.as_str(), name.table.as_str())).unzip();
    let rows = client
        .query(concat!(include_str!("../../../postgres/tree.sql"), include_str!("acting.sql")), &[&schemas, &names])
        .await
        .context("looking for foreign keys and triggers at the target")?;
    Ok(rows
        .iter()
        .map(|row| {
            let (kind, table, name): (&str, TableName, &str) =
                (row.get(0), TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)), row.get(3));
            let remove = match kind {
                "foreign key" => format!("ALTER TABLE {} DROP CONSTRAINT {};", table.sql(), Ident(name)),
                "trigger" => format!("DROP TRIGGER {} ON {};", Ident(name), table.sql()),
                _ => format!("DROP RULE {} ON {};", Ident(name), table.sql()),
            };
            Acting { what: format!("{kind} {name} of {table}"), remove }
        })
        .collect())
}

/// Refuses a session that cannot switch off what it would set in motion.
pub(super) async fn refuse_acting(client: &Client, migration: &str) -> Result<()> {
    let sql = "SELECT target_schema, target_table FROM cutwater.table_state WHERE migration = $1";
    let rows = client.query(sql, &[&migration]).await.context("reading the tables' state")?;
    let tables: Vec<TableName> =
        rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect();
    let found = acting(client, &tables).await?;
    let Some(first) = found.first() else { return Ok(()) };
    // A cutover past its point of no return has made them: there is nothing left to apply, and soon nobody to apply it.
    let sql = "SELECT EXISTS (SELECT FROM cutwater.cutover WHERE migration = $1 AND step = $2)";
    let switching = client.query_one(sql, &[&migration, &CutoverStep::Switching.as_str()]).await?;
    if switching.get(0) {
        return Err(Error::new(
            Kind::Transient,
            "a cutover is past its point of no return: nothing is applied any more",
        ));
    }
    let more = if found.len() > 1 { format!(" and {} more", found.len() - 1) } else { String::new() };
    let statements: Vec<&str> = found.iter().map(|acting| acting.remove.as_str()).collect();
    let why = format!(
        "session_replication_role is not permitted at the target, and {}{more} would act on what is applied",
        first.what
    );
    Err(Error::new(Kind::Schema, why).fix(format!(
        "GRANT SET ON PARAMETER session_replication_role TO … (Postgres 15); or at the target, for what the source has too \
         the cutover makes it again:\n       {}",
        statements.join("\n       ")
    )))
}

/// Those of `late` that the target does not have yet, in their order; the comments with them.
pub async fn missing(client: &Client, late: &[Late]) -> Result<Vec<Late>> {
    let kinds: Vec<&str> = late.iter().map(|late| late.kind.as_str()).collect();
    let schemas: Vec<&str> = late.iter().map(|late| late.table.schema.as_str()).collect();
    let tables: Vec<&str> = late.iter().map(|late| late.table.table.as_str()).collect();
    let names: Vec<&str> = late.iter().map(|late| late.name.as_str()).collect();
    let rows = client
        .query(include_str!("there.sql"), &[&kinds, &schemas, &tables, &names])
        .await
        .context("looking for what is made at the cutover")?;
    let there: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let gone = |index: usize| !there.contains(&(index as i64 + 1));
    let any = late.iter().enumerate().any(|(index, late)| late.kind != LateKind::Comment && gone(index));
    Ok(late
        .iter()
        .enumerate()
        .filter(|(index, late)| if late.kind == LateKind::Comment { any } else { gone(*index) })
        .map(|(_, late)| late.clone())
        .collect())
}

impl State {
    /// Records what waits for the cutover, in the order in which it is made. What is known already stays.
    pub async fn record_late(&self, late: &[Late]) -> Result<()> {
        for late in late {
            let refers = late.refers.as_ref();
            self.execute(
                "recording what is made at the cutover",
                include_str!("record.sql"),
                params![
                    self.name(),
                    late.kind.as_str(),
                    &late.table.schema,
                    &late.table.table,
                    refers.map(|name| &name.schema),
                    refers.map(|name| &name.table),
                    &late.name,
                    &late.sql,
                    late.validated,
                ],
            )
            .await?;
        }
        Ok(())
    }

    /// What waits for the cutover, or has been made by it, of tables that are part of the migration.
    pub async fn late(&self) -> Result<Vec<Late>> {
        let rows = self
            .query("reading what is made at the cutover", include_str!("recorded.sql"), params![self.name()])
            .await?;
        rows.iter()
            .map(|row| {
                let refers: Option<String> = row.get(3)?;
                Ok(Late {
                    kind: LateKind::parse(&row.get::<String>(0)?)?,
                    table: row.name(1)?,
                    refers: refers.map(|_| row.name(3)).transpose()?,
                    name: row.get(5)?,
                    sql: row.get(6)?,
                    validated: row.get(7)?,
                })
            })
            .collect()
    }

    /// Records that a foreign key's rows were all found to have their parents.
    pub(super) async fn late_proved(&self, late: &Late) -> Result<()> {
        let sql = "UPDATE cutwater.late SET proved_at = clock_timestamp()
                   WHERE migration = $1 AND tbl_schema = $2 AND tbl = $3 AND name = $4 AND kind = 'foreign-key'";
        let TableName { schema, table } = &late.table;
        self.execute("recording a proof", sql, params![self.name(), schema, table, &late.name]).await.map(drop)
    }

    /// Names (`schema`, `table`, `constraint`) of the foreign keys proved within the last day.
    pub(super) async fn late_proofs(&self) -> Result<HashSet<(TableName, String)>> {
        let sql = "SELECT tbl_schema, tbl, name FROM cutwater.late
                   WHERE migration = $1 AND proved_at > clock_timestamp() - interval '24 hours'";
        let rows = self.query("reading the proofs", sql, params![self.name()]).await?;
        rows.iter().map(|row| Ok((row.name(0)?, row.get(2)?))).collect()
    }
}
