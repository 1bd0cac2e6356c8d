//! A document as a tree, for applying differences; scalars stay the bytes that they are.

use std::borrow::Cow;

use super::super::cursor::malformed;
use super::super::number::Out;
use super::{Budget, Container, DEEPEST, Value, tag, write_quoted, write_scalar};
use crate::error::Result;

/// One value.
#[derive(Debug, Clone)]
pub(super) enum Node<'a> {
    /// Members in the order in which the server keeps them.
    Object(Vec<(Cow<'a, [u8]>, Node<'a>)>),
    Array(Vec<Node<'a>>),
    Scalar(u8, &'a [u8]),
}

impl<'a> Node<'a> {
    pub(super) fn parse(document: &'a [u8]) -> Result<Self> {
        match document.split_first() {
            None => Ok(Node::Scalar(tag::LITERAL, &[0])),
            Some((tag, bytes)) => {
                let mut budget = Budget(document.len() + 1);
                Self::build(Value { tag: *tag, bytes }, &mut budget, 0)
            }
        }
    }

    fn build(value: Value<'a>, budget: &mut Budget, depth: usize) -> Result<Self> {
        let Some(container) = Container::open(value)? else { return Ok(Node::Scalar(value.tag, value.bytes)) };
        if depth > DEEPEST {
            return Err(malformed("a JSON document is deeper than 100 levels"));
        }
        let mut members = Vec::new();
        let mut elements = Vec::new();
        for at in 0..container.count {
            budget.spend(1)?;
            let node = Self::build(container.value(at)?, budget, depth + 1)?;
            if container.is_object {
                members.push((Cow::Borrowed(container.key(at)?), node));
            } else {
                elements.push(node);
            }
        }
        Ok(if container.is_object { Node::Object(members) } else { Node::Array(elements) })
    }

    pub(super) fn write(&self, out: &mut Out) -> Result<()> {
        match self {
            Node::Scalar(tag, bytes) => write_scalar(Value { tag: *tag, bytes }, &mut Budget(bytes.len() + 1), out),
            Node::Object(members) => {
                out.extend_from_slice(b"{");
                for (at, (key, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.extend_from_slice(b", ");
                    }
                    write_quoted(key, out)?;
                    out.extend_from_slice(b": ");
                    value.write(out)?;
                }
                out.extend_from_slice(b"}");
                Ok(())
            }
            Node::Array(elements) => {
                out.extend_from_slice(b"[");
                for (at, value) in elements.iter().enumerate() {
                    if at > 0 {
                        out.extend_from_slice(b", ");
                    }
                    value.write(out)?;
                }
                out.extend_from_slice(b"]");
                Ok(())
            }
        }
    }
}
