//! cli
pub mod demo;
