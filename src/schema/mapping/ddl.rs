//! The Postgres DDL of MySQL and MariaDB tables.
//!
//! In: the definitions and their [`Mapping`]. Out: a [`Script`]: statements in the order in which they are to be run, by the
//! stages of a migration, and by name and reason what has no equivalent. Nothing is left out in silence.

use std::collections::{BTreeSet, HashSet};

use super::{LONGEST_NAME, MappedColumn, MappedTable, Mapping, PgType, translate};
use crate::schema::{
    ColumnDefinition, DefaultValue, Ident, IndexDefinition, IndexKind, MySqlKind, Object, OtherObject, Script,
    Statement, TableDefinition, TableName,
};

/// The DDL of the tables that the mapping has. `nullable_dates`: columns of dates and times lose their NOT NULL, because
/// `[values] zero_date = "null"` makes NULLs.
pub fn postgres(tables: &[TableDefinition], others: &[OtherObject], mapping: &Mapping, nullable_dates: bool) -> Script {
    let mut writer = Writer { ddl: Script::default(), mapping, relations: HashSet::new(), nullable_dates };
    let mapped = |table: &&TableDefinition| mapping.tables.contains_key(&table.table.name);
    let tables: Vec<&TableDefinition> = tables.iter().filter(mapped).collect();
    writer.surroundings(&tables);
    for table in &tables {
        writer.table(table, &mapping.tables[&table.table.name]);
    }
    let unique: HashSet<(TableName, BTreeSet<&str>)> = tables.iter().flat_map(|table| unique_columns(table)).collect();
    for table in &tables {
        writer.foreign_keys(table, &mapping.tables[&table.table.name], &unique);
    }
    let concerned: HashSet<&str> = tables.iter().map(|table| table.table.name.schema.as_str()).collect();
    for other in others.iter().filter(|other| concerned.contains(other.name.schema.as_str())) {
        writer.ddl.not_carried.push(format!("{} {}: to be written anew in Postgres' language", other.kind, other.name));
    }
    writer.ddl
}

/// The columns of the table that foreign keys can refer to.
fn unique_columns(table: &TableDefinition) -> Vec<(TableName, BTreeSet<&str>)> {
    let whole = |index: &&IndexDefinition| {
        matches!(index.kind, IndexKind::Primary | IndexKind::Unique)
            && index.parts.iter().all(|part| part.column.is_some() && part.prefix.is_none())
    };
    let columns = |index: &'_ IndexDefinition| -> Vec<String> {
        index.parts.iter().filter_map(|part| part.column.clone()).collect()
    };
    let found = table.indexes.iter().filter(whole);
    found
        .map(|index| {
            let names = columns(index);
            let set = table.columns.iter().map(|c| c.name.as_str()).filter(|name| names.iter().any(|n| n == name));
            (table.table.name.clone(), set.collect())
        })
        .collect()
}

struct Writer<'a> {
    ddl: Script,
    mapping: &'a Mapping,
    /// Names of tables and indexes by schema: they share one room.
    relations: HashSet<(String, String)>,
    nullable_dates: bool,
}

/// A text as a literal.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

fn list<'a>(columns: impl IntoIterator<Item = &'a str>) -> String {
    columns.into_iter().map(|name| Ident(name).to_string()).collect::<Vec<_>>().join(", ")
}

/// A name that fits: a long one is cut and ends with a number made from the whole.
fn fitting(name: String) -> String {
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let end = (0..=LONGEST_NAME - 9).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!("{}_{hash:08x}", &name[..end])
}

/// A statement of a table.
fn of(table: &TableDefinition, mapped: &MappedTable, object: Object, name: &str, sql: String) -> Statement {
    Statement {
        object,
        name: name.to_owned(),
        of: Some(table.table.name.clone()),
        on: Some(mapped.name.clone()),
        refers: None,
        typed: Vec::new(),
        sql,
    }
}

impl Writer<'_> {
    fn skip(&mut self, what: String) {
        self.ddl.not_carried.push(what);
    }

    /// What the tables need around them.
    fn surroundings(&mut self, tables: &[&TableDefinition]) {
        let mapped: Vec<&MappedTable> = tables.iter().map(|table| &self.mapping.tables[&table.table.name]).collect();
        let schemas: BTreeSet<&str> = mapped.iter().map(|table| table.name.schema.as_str()).collect();
        let made = schemas.into_iter().filter(|schema| *schema != "public");
        let shared = |object, name: &str, sql| Statement {
            object,
            name: name.to_owned(),
            of: None,
            on: None,
            refers: None,
            typed: Vec::new(),
            sql,
        };
        self.ddl.before.extend(
            made.map(|name| shared(Object::Schema, name, format!("CREATE SCHEMA IF NOT EXISTS {};", Ident(name)))),
        );
        let has = |wanted: PgType| mapped.iter().any(|table| table.columns.iter().any(|column| column.ty == wanted));
        for (ty, extension) in [(PgType::CiText, "citext"), (PgType::Geometry, "postgis")] {
            if has(ty) {
                let sql = format!("CREATE EXTENSION IF NOT EXISTS {extension};");
                self.ddl.before.push(shared(Object::Extension, extension, sql));
            }
        }
        for table in mapped {
            self.relations.insert((table.name.schema.clone(), table.name.table.clone()));
        }
    }

    fn table(&mut self, table: &TableDefinition, mapped: &MappedTable) {
        let source = &table.table.name;
        let name = mapped.name.sql();
        let mut lines = Vec::new();
        let mut comments = Vec::new();
        for column in &table.columns {
            if let Some(expression) = &column.generated {
                self.skip(format!("column {source}.{}: generated as {expression}", column.name));
                continue;
            }
            let Some(to) = mapped.column(&column.name) else { continue };
            lines.push(format!("    {}", self.column(table, mapped, column, to)));
            if !column.comment.is_empty() {
                let comment = literal(&column.comment);
                let sql = format!("COMMENT ON COLUMN {name}.{} IS {comment};", Ident(&to.name));
                comments.push(of(table, mapped, Object::Comment, &to.name, sql));
            }
        }
        let sql = format!("CREATE TABLE {name} (\n{}\n);", lines.join(",\n"));
        self.ddl.before.push(of(table, mapped, Object::Table, &mapped.name.table, sql));
        if !table.comment.is_empty() {
            let sql = format!("COMMENT ON TABLE {name} IS {};", literal(&table.comment));
            self.ddl.before.push(of(table, mapped, Object::Comment, &mapped.name.table, sql));
        }
        self.ddl.before.append(&mut comments);
        if table.partitioned {
            self.skip(format!("partitions of {source}: all rows go into one table"));
        }
        if table.versioned {
            self.skip(format!("system versioning of {source}: only the present rows go over, without their history"));
        }
        for index in &table.indexes {
            self.index(table, mapped, index);
        }
        for check in &table.checks {
            match translate::condition(&check.clause, table, mapped) {
                Some(clause) => {
                    let check = fitting(check.name.clone());
                    let sql = format!("ALTER TABLE {name} ADD CONSTRAINT {} CHECK ({clause});", Ident(&check));
                    let mut statement = of(table, mapped, Object::Check, &check, sql);
                    statement.typed = mapped.columns.iter().map(|column| column.name.clone()).collect();
                    self.ddl.after.push(statement);
                }
                None => self.skip(format!("check {} of {source}: {}", check.name, check.clause)),
            }
        }
    }

    fn column(
        &mut self,
        table: &TableDefinition,
        mapped: &MappedTable,
        column: &ColumnDefinition,
        to: &MappedColumn,
    ) -> String {
        let source = &table.table.name;
        let called = format!("{source}.{}", column.name);
        let labels: &[String] = column.ty.mysql.as_deref().map_or(&[], |ty| &ty.labels);
        let kind = column.ty.mysql.as_deref().map_or(MySqlKind::Other, |ty| ty.kind);
        let mut ty = to.ty.to_string();
        let list: Vec<String> = labels.iter().map(|label| literal(label)).collect();
        let list = list.join(", ");
        let check = fitting(format!("{}_{}_check", mapped.name.table, to.name));
        let add_check = |condition: String| {
            let on = mapped.name.sql();
            let sql = format!("ALTER TABLE {on} ADD CONSTRAINT {} CHECK ({condition});", Ident(&check));
            Statement { typed: vec![to.name.clone()], ..of(table, mapped, Object::Check, &check, sql) }
        };
        match (kind, &to.ty) {
            (MySqlKind::Enum, PgType::Enum) => {
                let name = fitting(format!("{}_{}", mapped.name.table, to.name));
                ty = TableName::new(mapped.name.schema.as_str(), name.as_str()).sql();
                let sql = format!("CREATE TYPE {ty} AS ENUM ({list});");
                self.ddl.before.push(of(table, mapped, Object::Type, &name, sql));
            }
            (MySqlKind::Enum, _) => self.ddl.after.push(add_check(format!("{} IN ({list})", Ident(&to.name)))),
            (MySqlKind::Set, PgType::TextArray) => {
                self.ddl.after.push(add_check(format!("{} <@ ARRAY[{list}]::text[]", Ident(&to.name))));
            }
            _ => {}
        }
        let mut line = format!("{} {ty}", Ident(&to.name));
        if column.auto_increment {
            if matches!(to.ty, PgType::SmallInt | PgType::Integer | PgType::BigInt) {
                line.push_str(" GENERATED BY DEFAULT AS IDENTITY");
                if let Some(next) = table.auto_increment.filter(|next| *next > 1) {
                    line.push_str(&format!(" (START WITH {next})"));
                }
            } else {
                self.skip(format!("auto_increment of {called}: {} cannot be an identity", to.ty));
            }
        } else if let Some(default) = &column.default {
            match default_of(default, column, &to.ty) {
                Some(default) => line.push_str(&format!(" DEFAULT {default}")),
                None => self.skip(format!("default of {called}: {}", said(default))),
            }
        }
        let of_time = matches!(to.ty, PgType::Date | PgType::Timestamp(_) | PgType::TimestampTz(_));
        let in_key = table.table.key_columns().any(|key| key.name == column.name);
        if column.not_null && !(self.nullable_dates && of_time && !in_key) {
            line.push_str(" NOT NULL");
        }
        if column.on_update {
            self.skip(format!("on update current_timestamp of {called}: Postgres needs a trigger for it"));
        }
        line
    }

    fn index(&mut self, table: &TableDefinition, mapped: &MappedTable, index: &IndexDefinition) {
        let source = &table.table.name;
        let what = |why: &str| format!("index {} of {source}: {why}", index.name);
        match index.kind {
            IndexKind::FullText => return self.skip(what("full text; Postgres has GIN over to_tsvector for it")),
            IndexKind::Spatial => return self.skip(what("spatial; PostGIS has GiST for it")),
            _ => {}
        }
        let (mut parts, mut typed) = (Vec::new(), Vec::new());
        for part in &index.parts {
            let Some(name) = &part.column else { return self.skip(what("it is over an expression")) };
            let Some(column) = mapped.column(name) else { return self.skip(what("a column of it does not travel")) };
            if part.prefix.is_some() {
                typed.push(column.name.clone());
            }
            let ident = Ident(&column.name);
            let order = if part.descending { " DESC" } else { "" };
            parts.push(match (part.prefix, &column.ty) {
                (None, _) => format!("{ident}{order}"),
                (Some(length), PgType::Bytea) => format!("substring({ident} FROM 1 FOR {length}){order}"),
                (Some(length), _) => format!("left({ident}, {length}){order}"),
            });
            let folds =
                table.column(name).and_then(|column| column.ty.mysql.as_deref()).is_some_and(|ty| ty.folds_case());
            if folds && index.kind != IndexKind::Plain && column.ty != PgType::CiText {
                self.skip(what(&format!(
                    "it finds {name:?} equal regardless of case, the one at the target does not; [[schema.type]] type = \
                     \"citext\" does"
                )));
            }
            if matches!(column.ty, PgType::Json) {
                return self.skip(what("json has no order at the target"));
            }
        }
        let parts = parts.join(", ");
        if index.kind == IndexKind::Primary {
            // Constraints take no expressions, and a prefix in a primary key no constraint.
            if index.parts.iter().all(|part| part.prefix.is_none()) {
                let columns = index.parts.iter().filter_map(|part| mapped.column(part.column.as_deref()?));
                let columns = list(columns.map(|column| column.name.as_str()));
                let name = self.free(mapped, &format!("{}_pkey", mapped.name.table));
                let on = mapped.name.sql();
                let sql = format!("ALTER TABLE {on} ADD CONSTRAINT {} PRIMARY KEY ({columns});", Ident(&name));
                self.ddl.keys.push(of(table, mapped, Object::PrimaryKey, &name, sql));
                return;
            }
        }
        let name = self.free(mapped, &format!("{}_{}", mapped.name.table, index.name.to_lowercase()));
        let unique = index.kind != IndexKind::Plain;
        let statement = format!(
            "CREATE {}INDEX {} ON {} ({parts});",
            if unique { "UNIQUE " } else { "" },
            Ident(&name),
            mapped.name.sql()
        );
        let object = if unique { Object::UniqueIndex } else { Object::Index };
        let statement = Statement { typed, ..of(table, mapped, object, &name, statement) };
        if unique { self.ddl.keys.push(statement) } else { self.ddl.indexes.push(statement) }
    }

    /// A name that no other relation of the schema has: an index's name is its table's own only at the source.
    fn free(&mut self, table: &MappedTable, name: &str) -> String {
        let mut candidate = fitting(name.to_owned());
        let mut number = 1;
        while !self.relations.insert((table.name.schema.clone(), candidate.clone())) {
            number += 1;
            candidate = fitting(format!("{name}_{number}"));
        }
        candidate
    }

    fn foreign_keys(
        &mut self,
        table: &TableDefinition,
        mapped: &MappedTable,
        unique: &HashSet<(TableName, BTreeSet<&str>)>,
    ) {
        let source = &table.table.name;
        for key in &table.foreign_keys {
            let what = |why: &str| format!("foreign key {} of {source}: {why}", key.name);
            let Some(parent) = self.mapping.tables.get(&key.referenced) else {
                self.skip(what(&format!("{} is not part of the migration", key.referenced)));
                continue;
            };
            let there: BTreeSet<&str> = key.referenced_columns.iter().map(String::as_str).collect();
            if !unique.contains(&(key.referenced.clone(), there)) {
                self.skip(what(&format!("the columns of {} it refers to are not unique", key.referenced)));
                continue;
            }
            let names = |table: &MappedTable, columns: &[String]| -> Option<Vec<(String, PgType)>> {
                columns.iter().map(|name| table.column(name).map(|c| (c.name.clone(), c.ty.clone()))).collect()
            };
            let (Some(here), Some(there)) = (names(mapped, &key.columns), names(parent, &key.referenced_columns))
            else {
                self.skip(what("a column of it does not travel"));
                continue;
            };
            if let Some(((name, a), (_, b))) = here.iter().zip(&there).find(|((_, a), (_, b))| !comparable(a, b)) {
                self.skip(what(&format!(
                    "{name:?} becomes {a}, what it refers to {b}; give both one with [[schema.type]]"
                )));
                continue;
            }
            let columns = |columns: &[(String, PgType)]| list(columns.iter().map(|(name, _)| name.as_str()));
            let name = fitting(key.name.clone());
            let mut statement = format!(
                "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({})",
                mapped.name.sql(),
                Ident(&name),
                columns(&here),
                parent.name.sql(),
                columns(&there)
            );
            for (event, action) in [("UPDATE", &key.on_update), ("DELETE", &key.on_delete)] {
                if !matches!(action.as_str(), "NO ACTION" | "RESTRICT") {
                    statement.push_str(&format!(" ON {event} {action}"));
                }
            }
            let mut statement = of(table, mapped, Object::ForeignKey, &name, statement + ";");
            statement.refers = Some((key.referenced.clone(), parent.name.clone()));
            statement.typed = here.into_iter().map(|(name, _)| name).collect();
            self.ddl.after.push(statement);
        }
    }
}

/// Whether a foreign key can join columns of these two types.
pub fn comparable(a: &PgType, b: &PgType) -> bool {
    a == b
        || (a.is_text() && b.is_text())
        || matches!(
            (a, b),
            (PgType::SmallInt | PgType::Integer | PgType::BigInt, PgType::SmallInt | PgType::Integer | PgType::BigInt)
                | (PgType::Numeric(_), PgType::Numeric(_))
                | (PgType::Timestamp(_), PgType::Timestamp(_))
                | (PgType::TimestampTz(_), PgType::TimestampTz(_))
        )
}

fn said(default: &DefaultValue) -> String {
    match default {
        DefaultValue::Literal(text) => literal(text),
        DefaultValue::CurrentTimestamp => "current_timestamp".into(),
        DefaultValue::Expression(text) => text.clone(),
    }
}

/// A default in Postgres' words; `None` for what has none.
fn default_of(default: &DefaultValue, column: &ColumnDefinition, to: &PgType) -> Option<String> {
    let text = match default {
        DefaultValue::CurrentTimestamp => {
            return match to {
                PgType::Timestamp(digits) => Some(format!("LOCALTIMESTAMP({digits})")),
                PgType::TimestampTz(digits) => Some(format!("CURRENT_TIMESTAMP({digits})")),
                _ => None,
            };
        }
        DefaultValue::Expression(text) => {
            let text = text.trim_matches(['(', ')']).to_ascii_lowercase();
            return match (text.as_str(), to) {
                ("uuid", PgType::Uuid) => Some("gen_random_uuid()".into()),
                ("uuid", ty) if ty.is_text() => Some("gen_random_uuid()::text".into()),
                ("curdate" | "current_date", PgType::Date) => Some("CURRENT_DATE".into()),
                _ => None,
            };
        }
        DefaultValue::Literal(text) => text.as_str(),
    };
    let bits = text.strip_prefix("b'").and_then(|rest| rest.strip_suffix('\''));
    let day =
        || text.get(..10).is_some_and(|day| day[5..].split('-').all(|part| part != "00") && !day.starts_with("0000"));
    match to {
        PgType::Boolean => match bits.unwrap_or(text) {
            "0" => Some("false".into()),
            "1" => Some("true".into()),
            _ => None,
        },
        ty if ty.is_number() => match bits {
            Some(bits) => u64::from_str_radix(bits, 2).ok().map(|number| number.to_string()),
            None => text.parse::<f64>().ok().map(|_| text.to_owned()),
        },
        PgType::Bit(length) => bits.map(|bits| format!("B'{bits:0>width$}'", width = *length as usize)),
        PgType::Date | PgType::Timestamp(_) => day().then(|| literal(text)),
        // The catalogue is read in a session of UTC.
        PgType::TimestampTz(_) => day().then(|| literal(&format!("{text}+00"))),
        PgType::Time(_) => {
            let hours = text.split(':').next().and_then(|hours| hours.parse::<u32>().ok());
            hours.filter(|hours| *hours < 24 && !text.starts_with('-')).map(|_| literal(text))
        }
        PgType::Interval(_) | PgType::Inet => Some(literal(text)),
        PgType::Uuid if !column.ty.mysql.as_deref().is_some_and(|ty| ty.is_bytes()) => Some(literal(text)),
        PgType::TextArray => {
            let labels: Vec<String> = text.split(',').filter(|label| !label.is_empty()).map(literal).collect();
            Some(format!("ARRAY[{}]::text[]", labels.join(", ")))
        }
        PgType::Enum => Some(literal(text)),
        // information_schema cuts the default of a binary column at its first NUL.
        ty if ty.is_text() && !column.ty.mysql.as_deref().is_some_and(|ty| ty.is_bytes()) => Some(literal(text)),
        _ => None,
    }
}
