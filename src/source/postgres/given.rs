//! A slot and a publication that an administrator made (`[source] slot`, `publication`): looked at, used, never dropped.
//!
//! A slot made by hand exports no snapshot. None is needed of it: the copy is of the snapshot of a temporary slot, which is
//! made later, so its position is not before the slot's; the stream then starts at that position, and the server passes
//! over what the slot holds from before it. So it does not matter how long ago the slot was made, or whether it was read
//! from. A slot that has moved on past a migration's checkpoint is refused like our own ([`super::stream`]).
//!
//! In: the names. Out: what is wrong with them, each with the statement that sets it right. Nothing is changed.

use super::PgSource;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::schema::{Ident, TableName};

/// What is wrong, and the statement that sets it right.
#[derive(Debug, Clone)]
pub struct Objection {
    /// What is the case.
    pub why: String,
    /// Statements for the source.
    pub fix: Vec<String>,
    /// The kind of error it is.
    pub kind: Kind,
}

impl Objection {
    fn new(kind: Kind, why: impl Into<String>, fix: impl Into<String>) -> Objection {
        Objection { why: why.into(), fix: vec![fix.into()], kind }
    }
}

impl From<Objection> for Error {
    fn from(objection: Objection) -> Error {
        Error::new(objection.kind, objection.why).fix(objection.fix.join("\n       "))
    }
}

/// Why the slot cannot be used; `None` if it can.
pub async fn object_to_slot(client: &Client, slot: &str) -> Result<Option<Objection>> {
    let row = client
        .query_opt(include_str!("given_slot.sql"), &[&slot])
        .await
        .with_context(|| format!("looking at the slot {slot:?}"))?;
    let literal = slot.replace('\'', "''");
    let create = format!("SELECT pg_create_logical_replication_slot('{literal}', 'pgoutput');");
    let again = format!("SELECT pg_drop_replication_slot('{literal}');   then   {create}");
    let Some(row) = row else {
        let why = format!("[source] slot: there is no slot {slot:?}");
        return Ok(Some(Objection::new(Kind::Config, why, create)));
    };
    let (plugin, database, here): (Option<&str>, Option<&str>, &str) = (row.get(0), row.get(1), row.get(2));
    Ok(if plugin != Some("pgoutput") {
        let what = plugin.map_or("physical".to_owned(), |plugin| format!("of plugin {plugin}"));
        Some(Objection::new(Kind::Config, format!("slot {slot:?} is {what}, not of pgoutput"), again))
    } else if database != Some(here) {
        let why = format!("slot {slot:?} is of database {:?}, not of {here:?}", database.unwrap_or_default());
        Some(Objection::new(Kind::Config, why, "name a slot of this database in [source] slot"))
    } else if row.get(3) {
        Some(Objection::new(Kind::SlotLost, format!("slot {slot:?} is lost: log it needed is gone"), again))
    } else {
        let pid: Option<i32> = row.get(4);
        pid.map(|pid| {
            let why = format!("slot {slot:?} is read by pid {pid}");
            Objection::new(Kind::SlotInUse, why, "a slot has one reader: stop that one, or name another slot")
        })
    })
}

/// Why the publication cannot be used: each reason. `tables` are those of the migration.
pub async fn object_to_publication(client: &Client, publication: &str, tables: &[TableName]) -> Result<Vec<Objection>> {
    let name = Ident(publication);
    let doing = || format!("looking at the publication {publication:?}");
    let row = client
        .query_opt("SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot FROM pg_publication WHERE pubname = $1", &[&publication])
        .await
        .with_context(doing)?;
    let Some(row) = row else {
        let why = format!("[source] publication: there is no publication {publication:?}");
        return Ok(vec![Objection::new(
            Kind::Config,
            why,
            "cutwater check --grants   prints the statements that make it",
        )]);
    };
    let mut objections = Vec::new();
    if !row.get::<_, bool>(0) {
        let why = format!("publication {publication:?} does not publish all four of insert, update, delete, truncate");
        let fix = format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');");
        objections.push(Objection::new(Kind::Schema, why, fix));
    }
    if !row.get::<_, bool>(1) {
        let why = format!("publication {publication:?} publishes partitions under their own names");
        let fix = format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = true);");
        objections.push(Objection::new(Kind::Schema, why, fix));
    }
    let marker = TableName::new("cutwater", "fence");
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().chain([&marker]).map(|name| (name.schema.as_str(), name.table.as_str())).unzip();
    let rows = client
        .query(include_str!("given_publication.sql"), &[&publication, &schemas, &names])
        .await
        .with_context(doing)?;
    let mut absent = Vec::new();
    for row in rows {
        let (table, problem): (&str, &str) = (row.get(0), row.get(1));
        match problem {
            "absent" => absent.push(table.to_owned()),
            _ => {
                let why = format!("publication {publication:?} leaves out {problem} of {table}");
                let fix = format!("ALTER PUBLICATION {name} DROP TABLE {table}, ADD TABLE {table};   each by itself");
                objections.push(Objection::new(Kind::Schema, why, fix));
            }
        }
    }
    if !absent.is_empty() {
        let list = absent.join(", ");
        let why = format!("publication {publication:?} does not contain {list}");
        let mut objection = Objection::new(Kind::Schema, why, format!("ALTER PUBLICATION {name} ADD TABLE {list};"));
        if absent.iter().any(|table| table == "cutwater.fence") {
            objection.fix.push("or all at once, the table cutwater.fence too: cutwater check --grants".into());
        }
        objections.push(objection);
    }
    Ok(objections)
}

impl PgSource {
    /// Whether the publication is an administrator's.
    pub fn publication_is_given(&self) -> bool {
        self.inner.publication_given
    }
}
