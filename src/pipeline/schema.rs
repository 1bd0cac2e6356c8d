//! The target's schema, by the way that the two engines have between them.
//!
//! In: a job and its plan. Out: what `run` asks for at the right moments, in the words of [`SchemaWork`], whose table says
//! what each step makes and what an interruption leaves. Between two servers of one engine everything is carried that the
//! source has.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Job;
use super::build::{Alike, SchemaWork, Translated};
use super::progress::Progress;
use crate::error::Result;
use crate::schema::TableName;
use crate::source::AnySource;
use crate::target::AnyTarget;
use crate::transform::Plan;

/// The schema work of one run.
pub enum Schema<'a> {
    /// Through `pg_dump`; tables that the rules reshape by DDL of our own.
    Postgres(SchemaWork<'a>),
    /// From MySQL or MariaDB to Postgres: of the tables' definitions.
    Translated(Translated<'a>),
    /// Between two MySQL or MariaDB servers: the source's own definitions.
    Alike(Alike<'a>),
}

/// Asks whoever does it.
macro_rules! ask {
    ($any:ident, $work:ident => $answer:expr) => {
        match $any {
            Self::Postgres($work) => $answer,
            Self::Translated($work) => $answer,
            Self::Alike($work) => $answer,
        }
    };
}

impl<'a> Schema<'a> {
    /// The work for `plan`. Connects to nothing yet.
    pub fn of(job: &'a Job, plan: &'a Plan, progress: &'a Arc<Progress>) -> Schema<'a> {
        match (&job.source, &job.target) {
            (AnySource::Postgres(_), AnyTarget::Postgres(_)) => {
                Schema::Postgres(SchemaWork::new(&job.config, plan, progress))
            }
            (AnySource::MySql(_), AnyTarget::Postgres(_)) => {
                Schema::Translated(Translated::new(&job.config, plan, progress))
            }
            (AnySource::MySql(_), AnyTarget::MySql(_)) => Schema::Alike(Alike::new(&job.config, plan, progress)),
            (AnySource::Postgres(_), AnyTarget::MySql(_)) => unreachable!("a plan between them is refused"),
        }
    }

    /// Makes the tables and all they need, unless every table exists.
    pub async fn create_tables(&self, halt: &CancellationToken) -> Result<()> {
        ask!(self, work => work.create_tables(halt).await)
    }

    /// Makes those of these tables that are missing, and what they need.
    pub async fn create_some(&self, tables: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        ask!(self, work => work.create_some(tables, halt).await)
    }

    /// Builds what is missing: keys first, then the other indexes, then the statistics.
    pub async fn build_keys_and_indexes(&self, halt: &CancellationToken) -> Result<()> {
        ask!(self, work => work.build_keys_and_indexes(halt).await)
    }

    /// The same for these tables, which nobody writes to but us.
    pub async fn index_some(&self, tables: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        ask!(self, work => work.index_some(tables, halt).await)
    }

    /// Makes foreign keys, triggers and the rest, without what has to do with a table of `absent`.
    pub async fn finish_constraints(&self, absent: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        ask!(self, work => work.finish_constraints(absent, halt).await)
    }

    /// The same for these tables, while others are written to.
    pub async fn finish_some(
        &self,
        tables: &HashSet<TableName>,
        absent: &HashSet<TableName>,
        halt: &CancellationToken,
    ) -> Result<()> {
        ask!(self, work => work.finish_some(tables, absent, halt).await)
    }

    /// Fills the materialized views that hold rows at the source.
    pub async fn fill_views(&self, halt: &CancellationToken) -> Result<()> {
        match self {
            Schema::Postgres(work) => work.fill_views(halt).await,
            // Views of another engine's SQL are not carried.
            Schema::Translated(_) | Schema::Alike(_) => Ok(()),
        }
    }

    /// What the target will not have, in words.
    pub async fn not_carried(&self) -> Result<Vec<String>> {
        ask!(self, work => work.not_carried().await)
    }

    /// Everything that would be run at the target, as one script.
    pub async fn ddl_text(&self) -> Result<String> {
        ask!(self, work => work.ddl_text().await)
    }
}
