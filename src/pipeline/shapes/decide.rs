//! From one shape to the next: what follows by itself, and what has to be done by hand first. Pure.
//!
//! | seen in the stream | answer |
//! |---|---|
//! | a new column whose value in the existing rows is known | added at the target, with that value |
//! | … whose value is another in every row (volatile default, identity), or is no longer known | stop |
//! | a column is gone, has another name or another type or length; another key | stop, unless the target has changed so |
//! | the same, in a column that a rule leaves out | goes on |
//! | an older shape than the target's, of a column that is gone for good | its values are left out |
//! | an older shape, of a column that has another name by now at both ends | its values go there |
//! | another replica identity, the same columns | goes on |

use std::collections::BTreeMap;

use crate::schema::{Column, Fact, Facts, Ident, ReplicaIdentity, Shape, ShapeColumn, TableName, TableSchema};

/// What is known at the moment of the decision.
pub(super) struct Seen<'a> {
    /// The table as the stream describes it from here on.
    pub table: &'a TableSchema,
    /// The shape the target was brought to.
    pub shape: &'a Shape,
    /// The source's catalogue, now: possibly far ahead of the stream.
    pub facts: &'a Facts,
    /// The target's table.
    pub target: &'a TableSchema,
    /// What a column is called at the target; `None`: it does not travel.
    pub names: &'a dyn Fn(&str) -> Option<String>,
    /// `[apply] ddl = "follow"`.
    pub follow: bool,
    /// Whether the target holds rows of the table. Before its copy it does not matter what a new column holds in them.
    pub rows_exist: bool,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Columns whose values are not written, because they are gone at both ends.
    pub left_out: Vec<String>,
    /// Columns that have another name at the target than the rules say.
    pub renamed: BTreeMap<String, String>,
    /// Columns that the target gets.
    pub added: Vec<Column>,
    /// Statements that give them to it.
    pub statements: Vec<String>,
    /// Statements for once the rows that may be of the older shape are written.
    pub afterwards: Vec<String>,
    /// What the log should say.
    pub notes: Vec<String>,
    /// Why it cannot go on: what changed, each with what to do about it.
    pub stops: Vec<(String, String)>,
}

impl Seen<'_> {
    pub(super) fn decide(&self) -> Decision {
        let mut decision = Decision::default();
        for column in &self.table.columns {
            if let Some(there) = (self.names)(&column.name) {
                self.present(column, &there, &mut decision);
            }
        }
        for (index, old) in self.shape.columns.iter().enumerate() {
            let Some(there) = (self.names)(&old.name) else { continue };
            if self.table.column(&old.name).is_none() && self.target.column(&there).is_some() {
                self.gone(index, old, &there, &mut decision);
            }
        }
        self.key(&mut decision);
        decision
    }

    fn on_target(&self) -> String {
        self.target.name.sql()
    }

    fn present(&self, column: &Column, there: &str, decision: &mut Decision) {
        let name = &column.name;
        match (self.shape.column(name), self.target.column(there)) {
            (Some(old), Some(held)) => {
                let numbered = column.ty.oid != 0;
                let same = (old.type_oid, old.modifier) == (column.ty.oid, column.ty.modifier)
                    && (numbered || old.display == column.ty.display);
                // A type that somebody chose for the target alone is not ours to judge.
                if same || fits(column, held) || (numbered && held.ty.display != old.display) {
                    return;
                }
                let retype = format!("ALTER COLUMN {} TYPE {};", Ident(there), column.ty.display);
                let what = format!("column {name:?} was {}, is {}", old.display, column.ty.display);
                decision.stops.push((what, self.by_hand(column.ty.oid, &retype)));
            }
            (Some(old), None) => match self.facts.numbered(old.number) {
                Some(now) if now.dropped => decision.left_out.push(name.clone()),
                Some(now) if now.name != *name && self.held_as(&now.name).is_some() => {
                    let there = self.held_as(&now.name).unwrap_or_default();
                    decision.renamed.insert(name.clone(), there);
                }
                _ => decision.stops.push((
                    format!("the target has no column {there:?}"),
                    self.by_hand(column.ty.oid, &format!("ADD COLUMN {} {};", Ident(there), column.ty.display)),
                )),
            },
            (None, Some(held)) if fits(column, held) => {}
            (None, Some(held)) => decision.stops.push((
                format!("column {name:?} is new ({}), and is {} at the target", column.ty.display, held.ty.display),
                self.by_hand(column.ty.oid, &format!("ALTER COLUMN {} TYPE {};", Ident(there), column.ty.display)),
            )),
            (None, None) => self.came(column, there, decision),
        }
    }

    /// What has to be done at the target. Types without a number are another engine's: its statements are not.
    fn by_hand(&self, type_oid: u32, alter: &str) -> String {
        match type_oid {
            0 => format!("change {} likewise", self.target.name),
            _ => format!("ALTER TABLE {} {alter}", self.on_target()),
        }
    }

    /// What the column that the source calls `name` now is called at the target, if it is there.
    fn held_as(&self, name: &str) -> Option<String> {
        (self.names)(name).filter(|there| self.target.column(there).is_some())
    }

    fn came(&self, column: &Column, there: &str, decision: &mut Decision) {
        let (name, ty, table) = (&column.name, &column.ty.display, self.on_target());
        let what = format!("column {name:?} is new ({ty})");
        let by_hand = self.by_hand(column.ty.oid, &format!("ADD COLUMN {} {ty};", Ident(there)));
        if column.ty.oid == 0 {
            // A catalogue without numbers does not tell what became of it since.
            decision.stops.push((what, by_hand));
            return;
        }
        let known = |number: i16| self.shape.columns.iter().find(|old| old.number == Some(number));
        let now =
            self.facts.live(name).filter(|now| (now.type_oid, now.modifier) == (column.ty.oid, column.ty.modifier));
        let Some(now) = now else {
            // Gone again: every column that lives is one we know, so it has no successor.
            if self.facts.columns.iter().all(|now| now.dropped || now.generated || known(now.number).is_some()) {
                decision.left_out.push(name.clone());
            } else {
                let what = format!("{what}, and was altered again since: what existing rows have in it is not known");
                decision.stops.push((what, by_hand));
            }
            return;
        };
        if known(now.number).is_some() {
            // Its old name is found gone, which says more.
            return;
        }
        if !self.follow {
            decision.stops.push((format!("{what}, and [apply] ddl = \"stop\""), by_hand));
            return;
        }
        let unwritten =
            self.shape.files.iter().all(|(leaf, file)| self.facts.files.get(leaf).is_none_or(|now| now == file));
        let known_value = !now.mixed && (now.missing.is_some() || unwritten);
        if now.generated || (self.rows_exist && !known_value) {
            let why = if now.generated { "it takes values of its own" } else { "the table was rewritten" };
            decision.stops.push((
                format!("{what}: what existing rows have in it is not in the stream ({why})"),
                format!("{by_hand}  and, once it runs, cutwater verify --repair for the values of the existing rows,"),
            ));
            return;
        }
        let (statement, default) = add_column(&table, there, column, now, self.rows_exist);
        decision.statements.push(statement);
        decision.afterwards.extend(default);
        let mut added = column.clone();
        there.clone_into(&mut added.name);
        decision.added.push(added);
        if now.not_null && now.missing.is_none() && self.rows_exist {
            decision.notes.push(format!(
                "column {there:?} is NOT NULL at the source; at the target it may be NULL until you run  \
                 ALTER TABLE {table} ALTER COLUMN {} SET NOT NULL;",
                Ident(there)
            ));
        }
    }

    fn gone(&self, index: usize, old: &ShapeColumn, there: &str, decision: &mut Decision) {
        let name = &old.name;
        let now = self.facts.numbered(old.number).filter(|now| !now.dropped);
        if now.is_some_and(|now| now.name == *name) {
            decision.stops.push((
                format!("column {name:?} is no longer sent, although it is still there: the publication has a column list"),
                "publish the whole table again and run cutwater tables resync; nothing needs to be changed at the target,".into(),
            ));
            return;
        }
        // Its name now; or what stands in its place in the stream, of the same type.
        let in_place = self.table.columns.get(index).filter(|column| column.ty.oid == old.type_oid);
        let successor = now
            .and_then(|now| self.table.column(&now.name))
            .or(in_place.filter(|_| self.table.columns.len() >= self.shape.columns.len()))
            .filter(|column| self.shape.column(&column.name).is_none() && (now.is_some() || old.number.is_none()));
        match successor.and_then(|column| Some((column, (self.names)(&column.name)?))) {
            Some((column, new)) if self.target.column(&new).is_none() => decision.stops.push((
                format!("column {name:?} is called {:?} now", column.name),
                self.by_hand(old.type_oid, &format!("RENAME COLUMN {} TO {};", Ident(there), Ident(&new))),
            )),
            _ => decision.stops.push((
                format!("column {name:?} ({}) is gone", old.display),
                self.by_hand(old.type_oid, &format!("DROP COLUMN {};", Ident(there))),
            )),
        }
    }

    /// Another key matters where it is the target's key too. What is only another way to log rows does not.
    fn key(&self, decision: &mut Decision) {
        let new: Vec<&String> = self.table.key_columns().map(|column| &column.name).collect();
        if self.table.replica_identity != ReplicaIdentity::Default || self.shape.key.iter().eq(new.iter().copied()) {
            return;
        }
        let mut wanted: Vec<String> = new.iter().filter_map(|name| (self.names)(name)).collect();
        let mut held: Vec<String> = self.target.key_columns().map(|column| column.name.clone()).collect();
        wanted.sort();
        held.sort();
        if wanted == held {
            return;
        }
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let columns = || wanted.iter().map(|name| Ident(name).to_string()).collect::<Vec<_>>().join(", ");
        let add = if wanted.is_empty() { String::new() } else { format!(", ADD PRIMARY KEY ({})", columns()) };
        let drop = "DROP CONSTRAINT <its primary key>";
        decision.stops.push((
            format!("its primary key was ({}), is ({})", list(&self.shape.key), list(&wanted)),
            format!("ALTER TABLE {} {drop}{add};", self.on_target()),
        ));
    }
}

/// Whether the target's column is of the new type, and at least as wide.
fn fits(column: &Column, held: &Column) -> bool {
    let same_type = (&column.ty.schema, &column.ty.name) == (&held.ty.schema, &held.ty.name);
    same_type && (held.ty.modifier == column.ty.modifier || held.ty.modifier == -1)
        || held.ty.display == column.ty.display
}

/// The statement that gives the target a column as the source has it, with what its existing rows have in it; and the one
/// that gives it the default for rows to come. Rows of the older shape that are still to be written take the first.
fn add_column(table: &str, there: &str, column: &Column, now: &Fact, rows_exist: bool) -> (String, Option<String>) {
    let ty = &column.ty.display;
    let collate = now.collation.as_ref().map_or_else(String::new, |name| format!(" COLLATE {name}"));
    let value = now.missing.as_ref().filter(|_| rows_exist);
    let with = value.map_or_else(String::new, |value| format!(" DEFAULT '{}'::{ty}", value.replace('\'', "''")));
    let not_null = if now.not_null && (now.missing.is_some() || !rows_exist) { " NOT NULL" } else { "" };
    // IF NOT EXISTS: a parent's ALTER has given it to the children that inherit from it.
    let name = Ident(there);
    let add = format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {ty}{collate}{with}{not_null}");
    let default = match now.default.as_ref().filter(|expression| !expression.contains("nextval(")) {
        Some(expression) => Some(format!("ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT {expression}")),
        None => value.map(|_| format!("ALTER TABLE {table} ALTER COLUMN {name} DROP DEFAULT")),
    };
    (add, default)
}

/// The error text's two halves.
pub(super) fn tell(stops: &[(String, String)]) -> (String, String) {
    let what: Vec<&str> = stops.iter().map(|(what, _)| what.as_str()).collect();
    let fix: Vec<&str> = stops.iter().map(|(_, fix)| fix.as_str()).collect();
    (what.join("; "), format!("{}  at the target, then run again", fix.join("  ")))
}

/// What to say of a table that is no longer the one that was copied.
pub(super) fn no_longer_there(name: &TableName, now: Option<&TableName>) -> (String, String) {
    match now {
        Some(now) if now != name => (
            format!("{name} is called {now} at the source now"),
            format!(
                "ALTER TABLE {} {} at the source, then run again; or take it out with cutwater tables remove",
                now.sql(),
                if now.schema == name.schema {
                    format!("RENAME TO {};", Ident(&name.table))
                } else {
                    format!("SET SCHEMA {};", Ident(&name.schema))
                }
            ),
        ),
        _ => (
            format!("{name} was dropped at the source"),
            "take it out with cutwater tables remove; if it was created again, cutwater tables resync copies it anew"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ColumnType, Key};

    fn column(name: &str, oid: u32, modifier: i32) -> Column {
        let ty = ColumnType::built_in(oid, &format!("t{oid}"));
        let display = if modifier < 0 { ty.display.clone() } else { format!("t{oid}({modifier})") };
        Column::new(name, ColumnType { modifier, display, ..ty })
    }

    fn table(columns: Vec<Column>) -> TableSchema {
        TableSchema { id: 5, ..TableSchema::new(TableName::new("public", "t"), columns, Some(vec![0])) }
    }

    fn fact(number: i16, name: &str, oid: u32) -> Fact {
        Fact {
            number,
            name: name.into(),
            dropped: false,
            type_oid: oid,
            modifier: -1,
            not_null: false,
            generated: false,
            missing: None,
            mixed: false,
            default: None,
            collation: None,
        }
    }

    fn facts(columns: Vec<Fact>) -> Facts {
        Facts { columns, files: BTreeMap::from([(5, 50)]) }
    }

    /// The table `t (id, a)`, which the target has, and what the stream shows next.
    fn decide(next: Vec<Column>, now: Vec<Fact>, target: Vec<Column>) -> Decision {
        let before = facts(vec![fact(1, "id", 20), fact(2, "a", 25)]);
        let shape = Shape::of(&table(vec![column("id", 20, -1), column("a", 25, -1)]), &before);
        let (table, target, facts) = (table(next), table(target), facts(now));
        let names = |name: &str| Some(name.to_owned());
        Seen {
            table: &table,
            shape: &shape,
            facts: &facts,
            target: &target,
            names: &names,
            follow: true,
            rows_exist: true,
        }
        .decide()
    }

    fn old() -> Vec<Column> {
        vec![column("id", 20, -1), column("a", 25, -1)]
    }

    fn and(name: &str, oid: u32) -> Vec<Column> {
        let mut columns = old();
        columns.push(column(name, oid, -1));
        columns
    }

    #[test]
    fn a_new_column_is_added_with_what_the_existing_rows_have_in_it() {
        let mut b = fact(3, "b", 23);
        let now = || vec![fact(1, "id", 20), fact(2, "a", 25)];
        let none = decide(and("b", 23), [now(), vec![b.clone()]].concat(), old());
        assert_eq!(none.statements, ["ALTER TABLE \"public\".\"t\" ADD COLUMN IF NOT EXISTS \"b\" t23"]);
        b.missing = Some("it's".into());
        b.default = Some("now()".into());
        b.not_null = true;
        let five = decide(and("b", 23), [now(), vec![b]].concat(), old());
        assert_eq!(
            five.statements,
            ["ALTER TABLE \"public\".\"t\" ADD COLUMN IF NOT EXISTS \"b\" t23 DEFAULT 'it''s'::t23 NOT NULL"]
        );
        assert_eq!(five.afterwards, ["ALTER TABLE \"public\".\"t\" ALTER COLUMN \"b\" SET DEFAULT now()"]);
    }

    #[test]
    fn a_column_with_a_value_of_its_own_in_every_row_stops() {
        let before = facts(vec![fact(1, "id", 20), fact(2, "a", 25)]);
        let shape = Shape::of(&table(old()), &before);
        let mut now = facts(vec![fact(1, "id", 20), fact(2, "a", 25), fact(3, "b", 23)]);
        now.files.insert(5, 51);
        let (next, target, names) = (table(and("b", 23)), table(old()), |name: &str| Some(name.to_owned()));
        let mut seen = Seen {
            table: &next,
            shape: &shape,
            facts: &now,
            target: &target,
            names: &names,
            follow: true,
            rows_exist: true,
        };
        assert!(seen.decide().stops[0].0.contains("the table was rewritten"));
        seen.rows_exist = false;
        assert_eq!(seen.decide().stops, [], "before the copy it does not matter");
        seen.follow = false;
        assert!(seen.decide().stops[0].0.contains("ddl = \"stop\""));
    }

    #[test]
    fn a_column_that_came_and_went_is_left_out_and_one_that_came_and_was_renamed_stops() {
        let mut gone = fact(3, "........pg.dropped.3........", 0);
        gone.dropped = true;
        let now = || vec![fact(1, "id", 20), fact(2, "a", 25)];
        assert_eq!(decide(and("b", 23), [now(), vec![gone]].concat(), old()).left_out, ["b"]);
        assert_eq!(decide(and("b", 23), [now(), vec![fact(3, "c", 23)]].concat(), old()).stops.len(), 1);
    }

    #[test]
    fn what_is_dropped_renamed_or_retyped_stops_with_its_statement_until_the_target_has_changed_too() {
        let only_id = || vec![column("id", 20, -1)];
        let mut dropped = fact(2, "........pg.dropped.2........", 0);
        dropped.dropped = true;
        let now = vec![fact(1, "id", 20), dropped];
        let told = decide(only_id(), now.clone(), old());
        assert!(told.stops[0].1.ends_with("DROP COLUMN \"a\";"), "{told:?}");
        assert_eq!(decide(only_id(), now.clone(), only_id()).stops, []);
        // The same transaction had rows of the older shape before: they are still to be applied.
        assert_eq!(decide(old(), now, only_id()).left_out, ["a"]);

        let renamed = vec![fact(1, "id", 20), fact(2, "b", 25)];
        let as_b = || vec![column("id", 20, -1), column("b", 25, -1)];
        let told = decide(as_b(), renamed.clone(), old());
        assert!(told.stops[0].1.ends_with("RENAME COLUMN \"a\" TO \"b\";") && told.stops.len() == 1, "{told:?}");
        assert_eq!(decide(as_b(), renamed.clone(), as_b()).stops, []);
        assert_eq!(decide(old(), renamed, as_b()).renamed, BTreeMap::from([("a".to_owned(), "b".to_owned())]));

        let wider = || vec![column("id", 20, -1), column("a", 25, 20)];
        let now = vec![fact(1, "id", 20), Fact { modifier: 20, ..fact(2, "a", 25) }];
        let told = decide(wider(), now.clone(), vec![column("id", 20, -1), column("a", 25, -1)]);
        assert_eq!(told.stops, [], "the target's is wider than both");
        assert_eq!(decide(wider(), now, wider()).stops, []);
        let retyped = || vec![column("id", 20, -1), column("a", 20, -1)];
        let told = decide(retyped(), vec![fact(1, "id", 20), fact(2, "a", 20)], old());
        assert!(told.stops[0].1.ends_with("ALTER COLUMN \"a\" TYPE t20;"), "{told:?}");
        assert_eq!(decide(retyped(), vec![fact(1, "id", 20), fact(2, "a", 20)], retyped()).stops, []);
    }

    #[test]
    fn of_types_without_numbers_every_change_stops_and_is_to_be_made_likewise() {
        let of = |name: &str, display: &str| {
            let ty = ColumnType { display: display.into(), ..ColumnType::built_in(0, display) };
            Column::new(name, ty)
        };
        let there = |name: &str, display: &str| Column::new(name, ColumnType::built_in(25, display));
        let shape = Shape::of(&table(vec![of("id", "int"), of("a", "varchar(9)")]), &Facts::default());
        let target = table(vec![there("id", "integer"), there("a", "character varying(9)")]);
        let names = |name: &str| Some(name.to_owned());
        let decide = |next: Vec<Column>| {
            let (table, facts) = (table(next), Facts::default());
            Seen {
                table: &table,
                shape: &shape,
                facts: &facts,
                target: &target,
                names: &names,
                follow: false,
                rows_exist: true,
            }
            .decide()
        };
        assert_eq!(decide(vec![of("id", "int"), of("a", "varchar(9)")]), Decision::default());
        for (next, what) in [
            (vec![of("id", "bigint"), of("a", "varchar(9)")], "column \"id\" was int, is bigint"),
            (vec![of("id", "int"), of("a", "varchar(9)"), of("b", "int")], "column \"b\" is new (int)"),
            (vec![of("id", "int")], "column \"a\" (varchar(9)) is gone"),
        ] {
            let told = decide(next);
            assert_eq!(told.left_out, [] as [String; 0], "{told:?}");
            assert_eq!(told.stops, [(what.to_owned(), "change public.t likewise".to_owned())], "{told:?}");
        }
    }

    #[test]
    fn dropped_and_made_anew_is_not_renamed() {
        let mut dropped = fact(2, "........pg.dropped.2........", 0);
        dropped.dropped = true;
        let next = vec![column("id", 20, -1), column("b", 25, -1)];
        let told = decide(next, vec![fact(1, "id", 20), dropped, fact(3, "b", 25)], old());
        assert!(told.stops.len() == 1 && told.stops[0].1.ends_with("DROP COLUMN \"a\";"), "{told:?}");
    }

    #[test]
    fn another_primary_key_stops_until_the_target_has_it_and_another_identity_does_not() {
        let now = || vec![fact(1, "id", 20), fact(2, "a", 25)];
        let before = facts(now());
        let shape = Shape::of(&table(old()), &before);
        let (mut next, mut target, names) = (table(old()), table(old()), |name: &str| Some(name.to_owned()));
        next.key = Some(Key { columns: vec![1] });
        let decide = |next: &TableSchema, target: &TableSchema| {
            let facts = facts(now());
            Seen { table: next, shape: &shape, facts: &facts, target, names: &names, follow: true, rows_exist: true }
                .decide()
        };
        assert!(decide(&next, &target).stops[0].0.contains("primary key was (id), is (a)"));
        target.key = Some(Key { columns: vec![1] });
        assert_eq!(decide(&next, &target).stops, []);
        target.key = Some(Key { columns: vec![0] });
        next.replica_identity = ReplicaIdentity::Index;
        assert_eq!(decide(&next, &target).stops, []);
    }
}
