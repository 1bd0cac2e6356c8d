//! The existing rows.

use std::convert::Infallible;
use std::sync::Arc;

use super::MyStream;
use crate::change::{Budget, Chunk, Position};
use crate::error::Result;
use crate::schema::TableSchema;
use crate::source::{CopyFormat, CopyStream, Part, Snapshot};

/// The existing rows, consistent at one position.
pub struct MySnapshot(Infallible);

impl Snapshot for MySnapshot {
    type Stream = MyStream;

    fn position(&self) -> &Position {
        match self.0 {}
    }

    async fn parts(&self, _: &Arc<TableSchema>, _: u64) -> Result<Vec<Part>> {
        match self.0 {}
    }

    async fn key_bounds(&self, _: &Arc<TableSchema>, _: u64) -> Result<Option<(String, Vec<i64>)>> {
        match self.0 {}
    }

    fn key_range(&self, _: &Arc<TableSchema>, _: &str, _: &Chunk) -> Part {
        match self.0 {}
    }

    fn copy_formats(&self) -> &'static [CopyFormat] {
        match self.0 {}
    }

    async fn copy(&self, _: &Part, _: &[usize], _: CopyFormat) -> Result<CopyStream> {
        match self.0 {}
    }

    async fn follow(&self, _: &[Arc<TableSchema>], _: &Budget, _: bool) -> Result<MyStream> {
        match self.0 {}
    }
}
