//! `values.txt`, read.

use cutwater::mysql::{Flavour, Server};
use cutwater::schema::mapping::PgType;

/// A section of `values.txt`.
#[derive(Debug)]
pub struct Section {
    pub only: Option<Flavour>,
    pub from: String,
    pub to: PgType,
    /// A literal at the source, and the text at the target.
    pub values: Vec<(String, String)>,
}

impl Section {
    /// Whether this server has such a type.
    pub fn is_for(&self, server: &Server) -> bool {
        let version = server.version;
        let absent = self.from.starts_with("vector") && version.0 < 9
            || self.from.starts_with("uuid") && (version.0, version.1) < (10, 7)
            || self.from.starts_with("inet4") && (version.0, version.1) < (10, 10);
        self.only.is_none_or(|only| only == server.flavour) && !absent
    }
}

pub fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in include_str!("values.txt").lines().filter(|line| !line.starts_with('#')) {
        if let Some((from, to)) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.split_once(" -> ")) {
            let (only, from) = match from.split_once(':') {
                Some(("my", from)) => (Some(Flavour::MySql), from),
                Some(("maria", from)) => (Some(Flavour::MariaDb), from),
                _ => (None, from),
            };
            let to = PgType::parse(to).unwrap_or_else(|| panic!("{line}"));
            sections.push(Section { only, from: from.to_owned(), to, values: Vec::new() });
        } else if let Some((literal, text)) = line.split_once(" => ") {
            sections.last_mut().expect("a section").values.push((literal.to_owned(), text.to_owned()));
        } else if let Some((_, text)) = sections.last_mut().and_then(|section| section.values.last_mut()) {
            // A line feed in a value.
            text.push('\n');
            text.push_str(line);
        }
    }
    sections
}
