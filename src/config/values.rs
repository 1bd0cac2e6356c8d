//! `[values]`: what becomes of a value that the target's type does not have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[values]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ValuesConfig {
    /// A date that is none: `0000-00-00`, a day or month 00, the year 0000, 31 February. With `"null"` the columns that
    /// could hold one are made without NOT NULL.
    pub zero_date: ZeroDate,
    /// A number, a time or a text that the target's type has no room for, an enum's empty value.
    pub out_of_range: OutOfRange,
    /// A text that is not UTF-8.
    pub invalid_text: InvalidText,
    /// A NUL character in a text, or `\u0000` in a JSON text, which Postgres cannot hold.
    pub nul_byte: NulByte,
}

/// `[values] zero_date`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ZeroDate {
    /// Stop the run and name the row.
    #[default]
    Stop,
    /// Write NULL.
    Null,
    /// 1970-01-01.
    Epoch,
    /// The nearest date there is: `2024-00-00` is 2024-01-01, `0000-00-00` is 0001-01-01, 31 February the 28th or 29th.
    Clamp,
}

/// `[values] out_of_range`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutOfRange {
    /// Stop the run and name the row.
    #[default]
    Stop,
    /// Write NULL.
    Null,
    /// The nearest value that the type has; NULL for what has none (a text that is no UUID).
    Clamp,
}

/// `[values] invalid_text`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InvalidText {
    /// Stop the run and name the row.
    #[default]
    Stop,
    /// Write NULL.
    Null,
    /// Put U+FFFD for what cannot be read.
    Replace,
}

/// `[values] nul_byte`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NulByte {
    /// Stop the run and name the row.
    #[default]
    Stop,
    /// Write NULL.
    Null,
    /// The text without it.
    Remove,
}
