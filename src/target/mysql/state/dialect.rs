//! Statements in the words of Postgres, made into MySQL's: what is the same in both but for a word need not be written twice.
//!
//! | Postgres | MySQL and MariaDB, all versions |
//! |---|---|
//! | `$2` | `?`, and the place of its value |
//! | `clock_timestamp()` | `SYSDATE(6)`: when the row is reached, not when the statement began |
//! | `FOR SHARE` | `LOCK IN SHARE MODE` |
//! | `ON CONFLICT DO NOTHING` | `ON DUPLICATE KEY UPDATE` of the first column to what it is; `INSERT IGNORE` would take other errors for warnings |
//! | `ON CONFLICT (…) DO UPDATE SET` | `ON DUPLICATE KEY UPDATE` |
//!
//! Statements are constants of ours: nothing in them is quoted that could be taken for one of these words. Every one is
//! run on every engine by `tests/state.rs`.

/// The statement, and for each question mark the number of its parameter, from 0 on.
pub(super) fn translate(sql: &str) -> (String, Vec<usize>) {
    let code: Vec<&str> = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let sql = code.join("\n").replace("clock_timestamp()", "SYSDATE(6)").replace(" FOR SHARE", " LOCK IN SHARE MODE");
    numbered(&on_duplicate(sql))
}

fn on_duplicate(sql: String) -> String {
    const CONFLICT: &str = "ON CONFLICT";
    let Some((before, after)) = sql.split_once(CONFLICT) else { return sql };
    let after = match after.split_once("DO UPDATE SET") {
        Some((_, set)) => set.to_owned(),
        None => {
            let columns = before.split_once('(').map_or("", |(_, columns)| columns);
            let first = columns.split([',', ')']).next().unwrap_or_default().trim();
            format!(" {first} = {first}")
        }
    };
    format!("{before}ON DUPLICATE KEY UPDATE{after}")
}

fn numbered(sql: &str) -> (String, Vec<usize>) {
    let mut parts = sql.split('$');
    let mut made = parts.next().unwrap_or_default().to_owned();
    let mut places = Vec::new();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        places.push(number.parse().unwrap_or(0_usize).saturating_sub(1));
        made.push('?');
        made.push_str(rest);
    }
    (made, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_named_twice_is_sent_twice() {
        let sql = "-- $9 is said here\nINSERT INTO t (a, b) VALUES ($1, $2)\nON CONFLICT (a) DO UPDATE SET b = $2, at = clock_timestamp()";
        let made = "INSERT INTO t (a, b) VALUES (?, ?)\nON DUPLICATE KEY UPDATE b = ?, at = SYSDATE(6)";
        assert_eq!(translate(sql), (made.to_owned(), vec![0, 1, 1]));
    }

    #[test]
    fn what_is_there_already_stays_as_it_is() {
        let (made, _) = translate("INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT DO NOTHING");
        assert_eq!(made, "INSERT INTO t (a, b) VALUES (?, ?) ON DUPLICATE KEY UPDATE a = a");
        assert_eq!(
            translate("SELECT 1 FROM t WHERE a = $1 FOR SHARE").0,
            "SELECT 1 FROM t WHERE a = ? LOCK IN SHARE MODE"
        );
    }
}
