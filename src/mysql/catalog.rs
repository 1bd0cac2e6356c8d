//! The tables of a MySQL or MariaDB server, read from `information_schema`.
//!
//! In: a session and the databases that are meant. Out: one [`TableDefinition`] a base table, in name order, with the
//! [`TableSchema`] that the other stages share in it, and by name what is in those databases besides. Left out: the
//! server's own databases, and Cutwater's. What can go wrong: a missing privilege shows as missing tables, because
//! `information_schema` only has what one may see.
//!
//! What each column of `information_schema` holds: <https://dev.mysql.com/doc/refman/8.4/en/information-schema.html>,
//! <https://mariadb.com/kb/en/information-schema-tables/>. The two differ in what a default looks like: MySQL has the bare
//! value and marks expressions with `DEFAULT_GENERATED`, MariaDB has an expression in which a text stands in quotes.

use std::collections::HashMap;
use std::sync::Arc;

use mysql_async::prelude::{FromRow, Queryable as _};

use super::{MyText, Session, my_table};
use crate::error::{Context, Error, Result};
use crate::schema::{
    CheckDefinition, Column, ColumnDefinition, ColumnType, DefaultValue, ForeignKey, IdentityColumn, IndexDefinition,
    IndexKind, IndexPart, Key, MySqlKind, MySqlType, OtherObject, Relkind, ReplicaIdentity, TableDefinition, TableName,
    TableSchema,
};

/// What is in some databases.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Base tables, in name order.
    pub tables: Vec<TableDefinition>,
    /// Everything else, by kind and name.
    pub others: Vec<OtherObject>,
}

type Map<T> = HashMap<TableName, Vec<T>>;

/// Reads these databases; all that are not the server's own or Cutwater's if none is given.
pub async fn read(session: &mut Session, databases: &[String]) -> Result<Catalog> {
    let mut reader = Reader::new(session, databases).await?;
    let srids = reader.srids().await?;
    let mut checks = reader.checks().await?;
    let mut columns = reader.columns(&srids, &checks).await?;
    let mut indexes = reader.indexes().await?;
    let mut foreign_keys = reader.foreign_keys().await?;
    let mut catalog = Catalog::default();
    for row in reader.rows::<TableRow>(include_str!("catalog_tables.sql")).await? {
        let (schema, table, kind, engine, rows, bytes, auto_increment, options, comment, transactional) = row;
        let name = TableName::new(schema, table);
        let versioned = kind == "SYSTEM VERSIONED";
        if kind != "BASE TABLE" && !versioned {
            continue;
        }
        let columns = columns.remove(&name).unwrap_or_default();
        let indexes = indexes.remove(&name).unwrap_or_default();
        let key = reader.key(&name, &columns, &indexes).await?;
        let travelling = columns.iter().filter(|column| column.generated.is_none());
        let schema = TableSchema {
            id: id(&name.schema, &name.table),
            columns: travelling.map(travels).collect(),
            // With a key the smaller row images have it whole; without one every image is whole.
            replica_identity: if key.is_some() { ReplicaIdentity::Default } else { ReplicaIdentity::Full },
            key,
            kind: Relkind::Plain,
            estimated_rows: rows.unwrap_or(0),
            bytes: bytes.unwrap_or(0),
            name: name.clone(),
        };
        let json = |clause: &str| columns.iter().any(|column| is_json_check(clause, &column.name));
        let checks =
            checks.remove(&name).unwrap_or_default().into_iter().filter(|check| !json(&check.clause)).collect();
        catalog.tables.push(TableDefinition {
            table: Arc::new(schema),
            engine: engine.unwrap_or_default(),
            transactional: transactional.unwrap_or(false),
            partitioned: options.unwrap_or_default().contains("partitioned"),
            versioned,
            comment: comment.unwrap_or_default(),
            auto_increment: auto_increment.filter(|_| columns.iter().any(|column| column.auto_increment)),
            columns,
            indexes,
            foreign_keys: foreign_keys.remove(&name).unwrap_or_default(),
            checks,
        });
    }
    catalog.tables.sort_by(|a, b| a.table.name.cmp(&b.table.name));
    for (kind, schema, name) in reader.rows::<(String, String, String)>(include_str!("catalog_others.sql")).await? {
        catalog.others.push(OtherObject { kind, name: TableName::new(schema, name) });
    }
    Ok(catalog)
}

type TableRow = (
    String,
    String,
    String,
    Option<String>,
    Option<u64>,
    Option<u64>,
    Option<u64>,
    Option<String>,
    Option<String>,
    Option<bool>,
);

type ColumnRow = (
    String,
    String,
    String,
    String,
    bool,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

struct Reader<'a> {
    session: &'a mut Session,
    databases: String,
}

impl<'a> Reader<'a> {
    async fn new(session: &'a mut Session, databases: &[String]) -> Result<Reader<'a>> {
        let databases = match databases {
            [] => "NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys', 'cutwater')".to_owned(),
            names => {
                format!("IN ({})", names.iter().map(|name| MyText(name).to_string()).collect::<Vec<_>>().join(", "))
            }
        };
        let reader = Reader { session, databases };
        if reader.is_mysql((8, 0, 0)) {
            // Otherwise row counts and AUTO_INCREMENT values may be a day old.
            reader.session.execute("SET SESSION information_schema_stats_expiry = 0").await?;
        }
        Ok(reader)
    }

    fn is_mysql(&self, least: (u16, u16, u16)) -> bool {
        let server = self.session.server();
        !server.is_mariadb() && server.version >= least
    }

    async fn rows<T: FromRow + Send + 'static>(&mut self, sql: &str) -> Result<Vec<T>> {
        let sql = sql.replace("/*databases*/", &self.databases);
        self.session.conn().query(sql).await.map_err(Error::from).context("reading information_schema")
    }

    async fn srids(&mut self) -> Result<HashMap<(TableName, String), u32>> {
        if !self.is_mysql((8, 0, 0)) {
            return Ok(HashMap::new());
        }
        let rows = self.rows::<(String, String, String, u32)>(include_str!("catalog_srid.sql")).await?;
        Ok(rows.into_iter().map(|(s, t, column, srid)| ((TableName::new(s, t), column), srid)).collect())
    }

    async fn checks(&mut self) -> Result<Map<CheckDefinition>> {
        let sql = match self.session.server().is_mariadb() {
            true => include_str!("catalog_checks_mariadb.sql"),
            false if self.is_mysql((8, 0, 16)) => include_str!("catalog_checks.sql"),
            // It reads CHECK and forgets it.
            false => return Ok(Map::new()),
        };
        let mut checks = Map::new();
        for (schema, table, name, clause) in self.rows::<(String, String, String, String)>(sql).await? {
            let check = CheckDefinition { name, clause: clause.replace("\\'", "'") };
            checks.entry(TableName::new(schema, table)).or_insert_with(Vec::new).push(check);
        }
        Ok(checks)
    }

    async fn columns(
        &mut self,
        srids: &HashMap<(TableName, String), u32>,
        checks: &Map<CheckDefinition>,
    ) -> Result<Map<ColumnDefinition>> {
        let mariadb = self.session.server().is_mariadb();
        let mut columns: Map<ColumnDefinition> = Map::new();
        for row in self.rows::<ColumnRow>(include_str!("catalog_columns.sql")).await? {
            let (schema, table, column, column_type, nullable, default, charset, collation, extra, generated, comment) =
                row;
            let name = TableName::new(schema, table);
            // MariaDB: varchar(100) /*M!100301 COMPRESSED*/
            let column_type = column_type.split(" /*").next().unwrap_or_default();
            let extra = extra.unwrap_or_default();
            let mut ty = MySqlType::parse(column_type);
            ty.charset = charset;
            ty.collation = collation;
            ty.invisible = extra.contains("INVISIBLE");
            ty.srid = srids.get(&(name.clone(), column.clone())).copied();
            ty.json_alias = mariadb
                && ty.kind == MySqlKind::LongText
                && checks.get(&name).is_some_and(|all| all.iter().any(|check| is_json_check(&check.clause, &column)));
            // DEFAULT_GENERATED marks an expression as default, and is no generated column.
            let is_generated = extra.contains("VIRTUAL GENERATED") || extra.contains("STORED GENERATED");
            let default = default.filter(|_| !is_generated);
            let definition = ColumnDefinition {
                default: if mariadb { default.and_then(mariadb_default) } else { mysql_default(default, &extra, &ty) },
                not_null: !nullable,
                on_update: extra.to_ascii_lowercase().contains("on update current_timestamp"),
                auto_increment: extra.contains("auto_increment"),
                generated: is_generated.then(|| generated.unwrap_or_default()),
                comment: comment.unwrap_or_default(),
                ty: ColumnType::mysql(column_type, ty),
                name: column,
            };
            columns.entry(name).or_default().push(definition);
        }
        Ok(columns)
    }

    async fn indexes(&mut self) -> Result<Map<IndexDefinition>> {
        type Row = (String, String, String, u8, String, Option<String>, Option<u32>, Option<bool>);
        let mut indexes: Map<IndexDefinition> = Map::new();
        for row in self.rows::<Row>(include_str!("catalog_indexes.sql")).await? {
            let (schema, table, name, non_unique, ty, column, prefix, descending) = row;
            let kind = match ty.as_str() {
                _ if name == "PRIMARY" => IndexKind::Primary,
                "FULLTEXT" => IndexKind::FullText,
                "SPATIAL" => IndexKind::Spatial,
                _ if non_unique == 0 => IndexKind::Unique,
                _ => IndexKind::Plain,
            };
            // The length that is told for a spatial index is no prefix.
            let prefix = prefix.filter(|_| kind != IndexKind::Spatial);
            let part = IndexPart { column, prefix, descending: descending.unwrap_or(false) };
            let all = indexes.entry(TableName::new(schema, table)).or_default();
            match all.last_mut().filter(|index| index.name == name) {
                Some(index) => index.parts.push(part),
                None => all.push(IndexDefinition { name, kind, parts: vec![part] }),
            }
        }
        Ok(indexes)
    }

    async fn foreign_keys(&mut self) -> Result<Map<ForeignKey>> {
        type Row = (String, String, String, String, String, String, String, String, String);
        let mut keys: Map<ForeignKey> = Map::new();
        for row in self.rows::<Row>(include_str!("catalog_foreign_keys.sql")).await? {
            let (schema, table, name, column, to_schema, to_table, to_column, on_update, on_delete) = row;
            let all = keys.entry(TableName::new(schema, table)).or_default();
            match all.last_mut().filter(|key| key.name == name) {
                Some(key) => {
                    key.columns.push(column);
                    key.referenced_columns.push(to_column);
                }
                None => all.push(ForeignKey {
                    name,
                    columns: vec![column],
                    referenced: TableName::new(to_schema, to_table),
                    referenced_columns: vec![to_column],
                    on_update,
                    on_delete,
                }),
            }
        }
        Ok(keys)
    }

    /// The key by which rows may be folded: the primary key, or else a unique key of whole columns that are NOT NULL and
    /// travel. Of several the one that the server itself takes for a primary key, which is the first that SHOW INDEX
    /// names: the smaller row images hold its columns and no others.
    async fn key(
        &mut self,
        name: &TableName,
        columns: &[ColumnDefinition],
        indexes: &[IndexDefinition],
    ) -> Result<Option<Key>> {
        let travelling: Vec<&ColumnDefinition> = columns.iter().filter(|column| column.generated.is_none()).collect();
        let places = |index: &IndexDefinition| -> Option<Vec<usize>> {
            let place = |part: &IndexPart| {
                let name = part.column.as_ref().filter(|_| part.prefix.is_none())?;
                travelling.iter().position(|column| column.name == *name && column.not_null)
            };
            let mut places: Vec<usize> = index.parts.iter().map(place).collect::<Option<_>>()?;
            places.sort_unstable();
            Some(places)
        };
        let candidates: Vec<&IndexDefinition> = indexes
            .iter()
            .filter(|index| matches!(index.kind, IndexKind::Primary | IndexKind::Unique) && places(index).is_some())
            .collect();
        let chosen = match candidates[..] {
            [] => None,
            [first] => Some(first),
            [first, ..] if first.kind == IndexKind::Primary => Some(first),
            _ => {
                let rows = self.rows::<mysql_async::Row>(&format!("SHOW INDEX FROM {}", my_table(name))).await?;
                let order = rows.iter().filter_map(|row| row.get::<String, _>(2));
                order.into_iter().find_map(|name| candidates.iter().find(|index| index.name == name)).copied()
            }
        };
        Ok(chosen.and_then(places).map(|columns| Key { columns }))
    }
}

fn travels(column: &ColumnDefinition) -> Column {
    let identity = column.auto_increment.then_some(IdentityColumn::ByDefault);
    Column { not_null: column.not_null, identity, ..Column::new(&column.name, column.ty.clone()) }
}

/// The id of the table called so: a number made from the name (FNV-1a), the same in every run.
pub fn id(schema: &str, table: &str) -> u32 {
    let bytes = schema.bytes().chain([0]).chain(table.bytes());
    bytes.fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)).max(1)
}

/// Whether a check only says that the column is JSON, as MariaDB's `json` type does.
fn is_json_check(clause: &str, column: &str) -> bool {
    let clause = clause.trim().trim_start_matches('(').trim_end_matches(')');
    let Some(inside) = clause.strip_prefix("json_valid(") else { return false };
    inside.trim_end_matches(')') == format!("`{}`", column.replace('`', "``"))
}

fn is_now(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["current_timestamp", "now()", "localtimestamp", "localtime"].iter().any(|word| text.starts_with(word))
}

fn mysql_default(default: Option<String>, extra: &str, ty: &MySqlType) -> Option<DefaultValue> {
    let default = default?;
    let of_time = matches!(ty.kind, MySqlKind::DateTime | MySqlKind::Timestamp);
    Some(match () {
        () if of_time && is_now(&default) => DefaultValue::CurrentTimestamp,
        () if extra.contains("DEFAULT_GENERATED") => DefaultValue::Expression(default.replace("\\'", "'")),
        () => DefaultValue::Literal(default),
    })
}

fn mariadb_default(default: String) -> Option<DefaultValue> {
    let quoted = default.len() >= 2 && default.starts_with('\'') && default.ends_with('\'');
    let number = default.parse::<f64>().is_ok() || default.starts_with("b'");
    match () {
        () if default == "NULL" => None,
        () if is_now(&default) => Some(DefaultValue::CurrentTimestamp),
        () if quoted => Some(DefaultValue::Literal(unquoted(&default[1..default.len() - 1]))),
        () if number => Some(DefaultValue::Literal(default)),
        () => Some(DefaultValue::Expression(default)),
    }
}

/// The text between the quotes of a literal: `''` and backslashes.
fn unquoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => out.extend(chars.next()),
            '\\' => out.push(match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('0') => '\0',
                Some(other) => other,
                None => '\\',
            }),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_both_servers_are_told_apart() {
        let literal = |text: &str| Some(DefaultValue::Literal(text.into()));
        let text = MySqlType::parse("varchar(20)");
        assert_eq!(mysql_default(Some("it's".into()), "", &text), literal("it's"));
        assert_eq!(mysql_default(Some("CURRENT_TIMESTAMP".into()), "", &text), literal("CURRENT_TIMESTAMP"));
        let time = MySqlType::parse("datetime(3)");
        assert_eq!(
            mysql_default(Some("CURRENT_TIMESTAMP(3)".into()), "DEFAULT_GENERATED", &time),
            Some(DefaultValue::CurrentTimestamp)
        );
        assert_eq!(mariadb_default("'it''s\\n'".into()), literal("it's\n"));
        assert_eq!(mariadb_default("NULL".into()), None);
        assert_eq!(mariadb_default("1.50".into()), literal("1.50"));
        assert_eq!(mariadb_default("uuid()".into()), Some(DefaultValue::Expression("uuid()".into())));
    }

    #[test]
    fn a_check_that_is_only_json_is_known() {
        assert!(is_json_check("json_valid(`j`)", "j"));
        assert!(!is_json_check("json_valid(`k`)", "j"));
        assert!(!is_json_check("json_length(`j`) > 0", "j"));
    }
}
