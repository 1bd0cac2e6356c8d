//! A table's rows in one form, and what is kept of each: two hashes.
//!
//! In: a row as one of the ends gives it. Out: its [`Digest`]. A hash is eight bytes of SHA-256 over the fields, each
//! with a mark that tells NULL from a value and its length before it (TRAPS 24), begun anew for each comparison.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::canon::Canon;
use crate::change::{Datum, Row};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::is_binary;
use crate::schema::TableSchema;
use crate::transform::{Convert, TablePlan};
use crate::verify::judge::Entry;

/// Characters that stand for a row without key.
const SHOWN: usize = 200;

/// How the rows of a table are brought into one form.
#[derive(Debug)]
pub(super) struct Form {
    canons: Vec<Canon>,
    /// Which values are bytes at the target, and shown as hex.
    binary: Vec<bool>,
    /// The places of the key's columns.
    key: Option<Vec<usize>>,
    convert: Option<Arc<dyn Convert>>,
    seed: i64,
}

/// What is kept of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest {
    /// The hash of its key; of all of it without one.
    pub(super) order: i64,
    /// The hash of all of it.
    pub(super) hash: i64,
}

impl Form {
    /// `plan` is fitted to the target's table `there`.
    pub(super) fn new(plan: &TablePlan, there: &TableSchema, seed: i64) -> Result<Form> {
        let (mut canons, mut binary) = (Vec::with_capacity(plan.columns.len()), Vec::new());
        for (column, &index) in plan.shaped.columns.iter().zip(&plan.columns) {
            let at_target = there.column(&column.name).ok_or_else(|| {
                Error::new(Kind::Schema, format!("{} has no column {:?} at the target", there.name, column.name))
            })?;
            canons.push(Canon::of(&plan.source.columns[index].ty, &at_target.ty));
            binary.push(is_binary(at_target));
        }
        let key = plan.shaped.key.as_ref().map(|key| key.columns.clone());
        Ok(Form { canons, binary, key, convert: plan.convert.clone(), seed })
    }

    /// Whether values become others at the target.
    pub(super) fn converts(&self) -> bool {
        self.convert.is_some()
    }

    /// The hash of a key by the texts that the target's applier keeps of it.
    pub(super) fn order(&self, texts: &[String]) -> i64 {
        let mut hasher = Sha256::new_with_prefix(self.seed.to_be_bytes());
        let mut scratch = Vec::new();
        for (&place, text) in self.key.iter().flatten().zip(texts) {
            let bytes;
            let value = if self.binary[place] {
                bytes = unhex(text.strip_prefix("\\x").unwrap_or(text));
                bytes.as_slice()
            } else {
                text.as_bytes()
            };
            field(&mut hasher, Some(self.canons[place].form(value, &mut scratch)));
        }
        first_eight(hasher)
    }

    pub(super) fn keyed(&self) -> bool {
        self.key.is_some()
    }

    /// A row of the source as it is to be at the target.
    pub(super) fn converted(&self, row: Row) -> Result<Row> {
        match &self.convert {
            Some(convert) => convert.row(&row).context("as it would be written at the target"),
            None => Ok(row),
        }
    }

    /// What is kept of a row that looks as it does at the target.
    pub(super) fn digest(&self, row: &Row, scratch: &mut Vec<u8>) -> Digest {
        let begin = || Sha256::new_with_prefix(self.seed.to_be_bytes());
        let (mut all, mut key) = (begin(), begin());
        for (place, (datum, canon)) in row.fields().zip(&self.canons).enumerate() {
            let in_key = self.key.as_ref().is_some_and(|key| key.contains(&place));
            let value = datum.bytes().map(|value| canon.form(value, scratch));
            field(&mut all, value);
            if in_key {
                field(&mut key, value);
            }
        }
        let hash = first_eight(all);
        Digest { order: if self.keyed() { first_eight(key) } else { hash }, hash }
    }

    /// A row with the text by which it is named: its key, or its beginning.
    pub(super) fn entry(&self, row: &Row, digest: Digest) -> Entry {
        let texts = |places: &[usize]| {
            let fields: Vec<Datum<'_>> = row.fields().collect();
            places.iter().map(|&place| text(fields[place])).collect()
        };
        let key = match &self.key {
            Some(places) => texts(places),
            None => {
                let all: Vec<String> = row.fields().map(text).collect();
                vec![format!("({})", all.join(",")).chars().take(SHOWN).collect()]
            }
        };
        Entry { order: digest.order, key, count: 1, hash: digest.hash }
    }
}

/// A mark that tells NULL from a value, the value's length, the value.
fn field(hasher: &mut Sha256, value: Option<&[u8]>) {
    let mut head = [u8::from(value.is_some()); 9];
    head[1..].copy_from_slice(&(value.map_or(0, <[u8]>::len) as u64).to_be_bytes());
    hasher.update(head);
    hasher.update(value.unwrap_or_default());
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

fn first_eight(hasher: Sha256) -> i64 {
    let hash = hasher.finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(bytes)
}

/// A value for people, and for asking for it again: bytes as hex.
fn text(datum: Datum<'_>) -> String {
    match datum {
        Datum::Null | Datum::Unchanged => String::new(),
        Datum::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Datum::Binary(bytes) => bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, ColumnType, TableName};
    use crate::transform::Plan;

    fn form(key: Option<Vec<usize>>) -> Form {
        let columns = ["a", "b"].map(|name| Column::new(name, ColumnType::built_in(25, "text")));
        let table = Arc::new(TableSchema::new(TableName::new("public", "t"), columns.to_vec(), key));
        let plan = Plan::compile(&[], &[Arc::clone(&table)]).expect("no rules");
        Form::new(plan.get(&table.name).expect("one"), &table, 7).expect("its own columns")
    }

    fn digest(form: &Form, a: Option<&str>, b: Option<&str>) -> Digest {
        let datum =
            |value: Option<&str>| value.map_or(Datum::Null, |value| Datum::Text(value.as_bytes().to_vec().leak()));
        form.digest(&[datum(a), datum(b)].into_iter().collect(), &mut Vec::new())
    }

    #[test]
    fn null_the_empty_text_and_where_a_field_ends_are_told_apart() {
        let form = form(None);
        let rows = [
            (None, Some("")),
            (Some(""), None),
            (Some(""), Some("")),
            (None, None),
            (Some("ab"), Some("c")),
            (Some("a"), Some("bc")),
            (Some("a"), None),
        ];
        for (n, (a, b)) in rows.iter().enumerate() {
            for (m, (c, d)) in rows.iter().enumerate() {
                assert_eq!(digest(&form, *a, *b) == digest(&form, *c, *d), n == m, "{:?} {:?}", rows[n], rows[m]);
            }
        }
    }

    #[test]
    fn the_order_is_of_the_key_alone() {
        let form = form(Some(vec![1]));
        let (one, two) = (digest(&form, Some("x"), Some("k")), digest(&form, Some("y"), Some("k")));
        assert!(one.order == two.order && one.hash != two.hash);
        assert_ne!(one.order, digest(&form, Some("x"), Some("l")).order);
    }
}
