//! Identifiers and texts, quoted by construction.

use std::fmt;

use crate::schema::TableName;

/// An identifier that prints itself in backticks, whatever `sql_mode` is; a backtick inside is doubled.
/// <https://dev.mysql.com/doc/refman/8.4/en/identifiers.html>
#[derive(Debug, Clone, Copy)]
pub struct MyIdent<'a>(pub &'a str);

impl fmt::Display for MyIdent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0.replace('`', "``"))
    }
}

/// A table's name for a statement: `` `shop`.`users` ``.
pub fn my_table(name: &TableName) -> String {
    format!("{}.{}", MyIdent(&name.schema), MyIdent(&name.table))
}

/// A text that prints itself as a literal. Right in a [`Session`](super::Session) alone, which has switched
/// `NO_BACKSLASH_ESCAPES` off and speaks utf8mb4.
#[derive(Debug, Clone, Copy)]
pub struct MyText<'a>(pub &'a str);

impl fmt::Display for MyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'")?;
        for c in self.0.chars() {
            match c {
                '\'' => f.write_str("\\'")?,
                '\\' => f.write_str("\\\\")?,
                '\0' => f.write_str("\\0")?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_name_or_a_text_does_not() {
        assert_eq!(my_table(&TableName::new("we`ird", "Ünï.cô\"de")), "`we``ird`.`Ünï.cô\"de`");
        assert_eq!(MyText("it's \\ \"x\"\0").to_string(), "'it\\'s \\\\ \"x\"\\0'");
    }
}
