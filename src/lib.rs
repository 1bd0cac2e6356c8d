//! Cutwater moves a live database to another server while it is being written to.
//!
//! Data flows down this list, and a module uses only what stands below it:
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | what a person types |
//! | [`cutover`], [`verify`] | the guarded switch; the comparison of both ends |
//! | [`pipeline`] | reader → transform → batcher → applier, and who restarts it |
//! | [`telemetry`] | lag, metrics, the HTTP status |
//! | [`transform`] | rules, compiled once a table |
//! | [`target`], [`source`] | the two ends |
//! | [`postgres`], [`mysql`] | what both ends share when they are Postgres, or MySQL or MariaDB |
//! | [`endpoint`] | what the URLs and connections of all engines have in common |
//! | [`config`] | what was asked for |
//! | [`change`], [`schema`], [`error`] | the model; what tables look like; what goes wrong |
//!
//! `docs/architecture.md` is the map with the reasons.

pub mod change;
pub mod cli;
pub mod config;
pub mod cutover;
pub mod endpoint;
pub mod error;
pub mod mysql;
pub mod pipeline;
pub mod postgres;
pub mod schema;
pub mod source;
pub mod target;
pub mod telemetry;
pub mod transform;
pub mod verify;
