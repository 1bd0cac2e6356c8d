//! Differences to a document (`binlog_row_value_options = PARTIAL_JSON`), applied to the document before.
//!
//! Format: `Json_diff::write_binary` in `sql/json_diff.cc`: u8 operation, the path as text with its length, and for all
//! but removals the value as a binary document with its length. The path is that of `JSON_REPLACE` and its like, without
//! wildcards. INSERT into an array makes room as `JSON_ARRAY_INSERT` does, beyond its end it appends.

use std::borrow::Cow;

use super::super::cursor::{Cursor, malformed};
use super::super::number::Out;
use super::dom::Node;
use crate::error::{Error, Kind, Result};

/// Appends the text of `before` with `differences` applied.
pub(in super::super) fn write_changed(before: &[u8], differences: &[u8], out: &mut Out) -> Result<()> {
    let mut document = Node::parse(before)?;
    let mut cursor = Cursor::new(differences);
    while !cursor.is_empty() {
        let operation = cursor.u8()?;
        let path = parse_path(cursor.lenenc_bytes()?)?;
        match operation {
            0 | 1 => {
                let value = Node::parse(cursor.lenenc_bytes()?)?;
                if operation == 0 {
                    replace(&mut document, &path, value)?;
                } else {
                    insert(&mut document, &path, value)?;
                }
            }
            2 => remove(&mut document, &path)?,
            other => return Err(malformed(format!("a JSON difference has operation {other}"))),
        }
    }
    document.write(out)
}

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Leg<'a> {
    Member(Cow<'a, [u8]>),
    Element(usize),
}

/// `$`, then `.name`, `."quoted name"` or `[3]` for each leg (`Json_path::to_string` in `sql-common/json_path.cc`).
fn parse_path(path: &[u8]) -> Result<Vec<Leg<'_>>> {
    let bad = || malformed(format!("a JSON difference has the path {}", String::from_utf8_lossy(path)));
    let mut rest = path.strip_prefix(b"$").ok_or_else(bad)?;
    let mut legs = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        match first {
            b'[' => {
                let end = after.iter().position(|byte| *byte == b']').ok_or_else(bad)?;
                let index = std::str::from_utf8(&after[..end]).ok().and_then(|text| text.trim().parse().ok());
                legs.push(Leg::Element(index.ok_or_else(bad)?));
                rest = &after[end + 1..];
            }
            b'.' if after.first() == Some(&b'"') => {
                let mut end = 1;
                while *after.get(end).ok_or_else(bad)? != b'"' {
                    end += if after[end] == b'\\' { 2 } else { 1 };
                }
                let name: String = serde_json::from_slice(&after[..=end]).map_err(|_| bad())?;
                legs.push(Leg::Member(Cow::Owned(name.into_bytes())));
                rest = &after[end + 1..];
            }
            b'.' => {
                let end = after.iter().position(|byte| matches!(byte, b'.' | b'[')).unwrap_or(after.len());
                legs.push(Leg::Member(Cow::Borrowed(&after[..end])));
                rest = &after[end..];
            }
            _ => return Err(bad()),
        }
    }
    Ok(legs)
}

#[cold]
fn nowhere() -> Error {
    Error::new(Kind::Protocol, "a JSON difference does not fit the document before it")
        .fix("SET GLOBAL binlog_row_value_options = '';  on the source, and begin anew")
}

fn find<'n, 'a>(mut node: &'n mut Node<'a>, path: &[Leg<'_>]) -> Result<&'n mut Node<'a>> {
    for leg in path {
        node = match (node, leg) {
            (Node::Object(members), Leg::Member(name)) => {
                members.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value).ok_or_else(nowhere)?
            }
            (Node::Array(elements), Leg::Element(index)) => elements.get_mut(*index).ok_or_else(nowhere)?,
            // A value that is no array is the first element of itself.
            (node, Leg::Element(0)) => node,
            _ => return Err(nowhere()),
        };
    }
    Ok(node)
}

fn replace<'a>(document: &mut Node<'a>, path: &[Leg<'a>], value: Node<'a>) -> Result<()> {
    *find(document, path)? = value;
    Ok(())
}

fn insert<'a>(document: &mut Node<'a>, path: &[Leg<'a>], value: Node<'a>) -> Result<()> {
    let (last, parents) = path.split_last().ok_or_else(nowhere)?;
    match (find(document, parents)?, last) {
        (Node::Object(members), Leg::Member(name)) => {
            // The server keeps members by the length of the key, then by its bytes.
            let place = members.binary_search_by(|(key, _)| (key.len(), &**key).cmp(&(name.len(), &**name)));
            match place {
                Ok(_) => return Err(nowhere()),
                Err(at) => members.insert(at, (name.clone(), value)),
            }
        }
        (Node::Array(elements), Leg::Element(index)) => elements.insert((*index).min(elements.len()), value),
        _ => return Err(nowhere()),
    }
    Ok(())
}

fn remove<'a>(document: &mut Node<'a>, path: &[Leg<'a>]) -> Result<()> {
    let (last, parents) = path.split_last().ok_or_else(nowhere)?;
    match (find(document, parents)?, last) {
        (Node::Object(members), Leg::Member(name)) => {
            let at = members.iter().position(|(key, _)| key == name).ok_or_else(nowhere)?;
            members.remove(at);
        }
        (Node::Array(elements), Leg::Element(index)) if *index < elements.len() => {
            elements.remove(*index);
        }
        _ => return Err(nowhere()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::tests::DOCUMENT;
    use super::*;

    fn changed(differences: &[&[u8]]) -> Result<String> {
        let mut out = Out::new();
        write_changed(DOCUMENT, &differences.concat(), &mut out)?;
        Ok(String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn differences_are_applied_one_after_the_other() {
        let text = changed(&[
            b"\x00\x06$.b[0]\x03\x05\x07\x00",
            b"\x01\x06$.b[9]\x02\x04\x01",
            b"\x01\x06$.\"aa\"\x02\x04\x02",
            b"\x01\x03$.A\x02\x04\x00",
            b"\x02\x03$.a",
        ]);
        assert_eq!(text.unwrap(), "{\"A\": null, \"b\": [7, null, true], \"aa\": false}");
        assert_eq!(changed(&[]).unwrap(), "{\"a\": \"x\\n\", \"b\": [1, null]}");
        assert_eq!(changed(&[b"\x00\x01$\x02\x04\x01"]).unwrap(), "true");
    }

    #[test]
    fn a_difference_that_fits_nowhere_is_an_error() {
        for difference in [
            &b"\x00\x03$.z\x02\x04\x00"[..],
            b"\x01\x03$.a\x02\x04\x00",
            b"\x02\x06$.b[7]",
            b"\x02\x01$",
            b"\x02\x03$.a\x07",
            b"\x03\x03$.a",
            b"\x02\x04$.\"a",
            b"\x02\x01a",
            b"\x00\x03$.a",
        ] {
            assert!(changed(&[difference]).is_err(), "{difference:?}");
        }
    }

    #[test]
    fn quoted_names_in_paths_are_unquoted() {
        let legs = parse_path(b"$.\"a.\\\"b\"[3].c").unwrap();
        assert_eq!(
            legs,
            [Leg::Member(b"a.\"b".as_slice().into()), Leg::Element(3), Leg::Member(b"c".as_slice().into())]
        );
    }
}
