//! Batches as sets of rows, in one transaction with the checkpoint.

use std::convert::Infallible;
use std::sync::Arc;

use crate::change::{Durable, Position};
use crate::error::Result;
use crate::schema::ShapeChange;
use crate::target::parallel::Worker;
use crate::target::{Applied, Applier, Batch};

/// Applies batches on one connection of its own.
pub struct MyApplier(Infallible);

impl Applier for MyApplier {
    fn checkpoint(&self) -> Durable<Position> {
        match self.0 {}
    }

    async fn apply(&mut self, _: Batch) -> Result<Applied> {
        match self.0 {}
    }

    async fn alter(&mut self, _: &[Arc<ShapeChange>]) -> Result<()> {
        match self.0 {}
    }

    async fn advance(&mut self, _: &Position) -> Result<Durable<Position>> {
        match self.0 {}
    }
}

impl Worker for MyApplier {
    async fn stay(&self) -> Result<()> {
        match self.0 {}
    }

    fn passed(&mut self, _: &str) {
        match self.0 {}
    }
}
