//! `synchronous_standby_names`: would our walsender be one of them (TRAPS 26)?

/// Whether the setting names `application`, or everybody.
pub(super) fn matches(setting: &str, application: &str) -> bool {
    let setting = setting.trim();
    // `FIRST 1 (a, b)`, `ANY 2 (a, b)`, `1 (a, b)` or `a, b`
    let list = match (setting.find('('), setting.rfind(')')) {
        (Some(open), Some(close)) if open < close => &setting[open + 1..close],
        _ => setting,
    };
    list.split(',').map(str::trim).any(|name| {
        let bare = name.trim_matches('"').replace("\"\"", "\"");
        bare == "*" || bare.eq_ignore_ascii_case(application)
    })
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn everybody_and_our_own_name_match() {
        for setting in ["*", "FIRST 1 (*)", "ANY 2 (a, \"CUTWATER_shop\")", "a, cutwater_shop", "1 (\"*\")"] {
            assert!(matches(setting, "cutwater_shop"), "{setting}");
        }
        for setting in ["", "a, b", "FIRST 1 (standby_1)", "cutwater_shop2"] {
            assert!(!matches(setting, "cutwater_shop"), "{setting}");
        }
    }
}
