//! Whether a table is still what it was.
//!
//! In: the ids of migrated tables. Out: a fingerprint of their columns and keys, and a place in the log after which the
//! stream knows them like that: the end of the log when the answer was there, so that whatever made them so is before it.

use sha2::{Digest, Sha256};

use super::{MySource, log};
use crate::change::Position;
use crate::error::Result;
use crate::mysql::{MyText, catalog};
use crate::schema::{Fact, Facts, TableDefinition};

/// What decides how the rows of a table are read and written. Asked a table at a time: only then does a MariaDB server open
/// no others for the answer.
const ASKED: [&str; 2] = [
    "SELECT ordinal_position, column_name, column_type, is_nullable, character_set_name, collation_name, extra \
     FROM information_schema.columns WHERE ",
    "SELECT index_name, seq_in_index, column_name, sub_part FROM information_schema.statistics WHERE non_unique = 0 AND ",
];

pub(super) async fn look(source: &MySource, ids: &[u32]) -> Result<(String, Position)> {
    let mut kept = source.kept().await?;
    let session = kept.session();
    let names = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type <> 'VIEW'";
    let names = match source.inner.info.database.as_deref().filter(|_| !source.inner.everywhere) {
        Some(database) => format!("{names} AND table_schema = {}", MyText(database)),
        None => names.to_owned(),
    };
    let mut names: Vec<(String, String)> = session
        .rows(names)
        .await?
        .into_iter()
        .filter_map(|row| Some((row.first()?.clone()?, row.get(1)?.clone()?)))
        .filter(|(schema, table)| ids.contains(&catalog::id(schema, table)))
        .collect();
    names.sort();
    let mut digest = Sha256::new();
    for (schema, table) in names {
        let of = format!("table_schema = {} AND table_name = {}", MyText(&schema), MyText(&table));
        for asked in ASKED {
            let mut rows = session.rows(format!("{asked}{of}")).await?;
            rows.sort();
            for field in rows.into_iter().flatten() {
                let field = field.unwrap_or_else(|| "\u{1}".to_owned());
                digest.update((field.len() as u64).to_be_bytes());
                digest.update(field);
            }
        }
        digest.update([0]);
    }
    let at = log::now(session).await?;
    kept.keep();
    let fingerprint = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok((fingerprint, at))
}

/// What the catalogue says of the columns. They have no numbers that survive renaming, and nobody knows what was in a column
/// before it was there: as facts of no type they say that a column is there now, and nothing may be concluded from them.
pub(super) fn facts(table: &TableDefinition) -> Facts {
    let fact = |(number, column): (i16, &crate::schema::ColumnDefinition)| Fact {
        number,
        name: column.name.clone(),
        dropped: false,
        type_oid: u32::MAX,
        modifier: -1,
        not_null: column.not_null,
        generated: column.generated.is_some(),
        missing: None,
        mixed: true,
        default: None,
        collation: None,
    };
    Facts { columns: (1..).zip(&table.columns).map(fact).collect(), ..Facts::default() }
}
