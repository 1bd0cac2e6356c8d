//! "Did you mean …": the known key closest to what was written.

/// The names in backquotes after "expected" in serde's message.
pub(super) fn listed(message: &str) -> Vec<&str> {
    let expected = message.split_once("expected").map_or("", |(_, rest)| rest);
    expected.split('`').skip(1).step_by(2).collect()
}

/// The candidate that needs the fewest changes, if it is close enough to be meant.
pub fn nearest<'a>(written: &str, candidates: Vec<&'a str>) -> Option<&'a str> {
    let best = candidates.into_iter().map(|known| (distance(written, known), known)).min()?;
    (best.0 <= 1 + written.len() / 4).then_some(best.1)
}

/// Where a key of this name, or nearly, stands in another section.
pub(super) fn elsewhere(written: &str) -> Option<String> {
    let keys = super::reference::keys();
    let name = |path: &str| path.rsplit('.').next().map(str::to_owned);
    let names: Vec<String> = keys.iter().filter_map(|key| name(&key.path)).collect();
    let meant = nearest(written, names.iter().map(String::as_str).collect())?;
    let key = keys.iter().find(|key| name(&key.path).as_deref() == Some(meant))?;
    let (section, rest) = key.path.split_once('.')?;
    let section = match section.strip_suffix("[]") {
        Some(list) => format!("[[{list}]]"),
        None => format!("[{section}]"),
    };
    Some(format!("it belongs to {section}: {rest}"))
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_offered_only_when_it_is_near() {
        let known = vec!["url", "tables", "max_retained"];
        assert_eq!(nearest("tabels", known.clone()), Some("tables"));
        assert_eq!(nearest("max_retain", known.clone()), Some("max_retained"));
        assert_eq!(nearest("password", known), None);
    }
}
