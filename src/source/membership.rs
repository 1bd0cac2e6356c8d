//! By what a table's changes get into the stream.

/// By what a table's changes get into the stream (Postgres: the rows of the catalogue that make it published). Written to
/// the state as text, and only ever compared: another one says that the stream may have lacked some in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The publication's own row: options, owner and name are in it.
    pub(super) publication: String,
    /// What of it names the table: its row, its schema's row, `all`.
    pub(super) listed: String,
}

impl Membership {
    /// Reads what [`Membership::to_string`] wrote.
    pub fn parse(text: &str) -> Membership {
        let (publication, listed) = text.split_once(' ').unwrap_or((text, ""));
        Membership { publication: publication.to_owned(), listed: listed.to_owned() }
    }

    /// Whether it is the same publication's, unchanged.
    pub fn same_publication(&self, other: &Membership) -> bool {
        self.publication == other.publication
    }
}

impl std::fmt::Display for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.publication, self.listed)
    }
}
