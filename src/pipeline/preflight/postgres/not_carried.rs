//! What a migration of tables leaves behind: said by `check` before it begins, and again by `cutover`.

use super::{End, Report};
use crate::error::{Context, Error, Result};
use crate::postgres::Client;

/// So many names are spelled out.
const NAMED: usize = 5;

pub(super) async fn list(client: &Client, slot: &str, report: &mut Report) -> Result<()> {
    let left = not_carried(client, slot).await?;
    if left.is_empty() {
        report.pass(End::Source, "not-carried", "nothing is left behind");
    } else {
        report.note(End::Source, "not-carried", format!("not carried: {}", left.join(", ")));
    }
    Ok(())
}

/// What stays behind on the source, with counts and names: `2 unlogged tables (public.cache, public.session)`.
pub(super) async fn not_carried(client: &Client, slot: &str) -> Result<Vec<String>> {
    let doing = "looking for what is not carried";
    let mut left: Vec<String> = client
        .query(include_str!("not_carried.sql"), &[&slot])
        .await
        .context(doing)?
        .iter()
        .filter_map(|row| words(row.get(0), row.get(1), &row.get::<_, Option<Vec<String>>>(2).unwrap_or_default()))
        .collect();
    if client.query_one("SELECT to_regclass('cron.job') IS NOT NULL", &[]).await.context(doing)?.get(0) {
        match client
            .query("SELECT coalesce(to_jsonb(j) ->> 'jobname', jobid::text) FROM cron.job j ORDER BY 1", &[])
            .await
        {
            Ok(rows) => {
                left.extend(words(
                    "pg_cron job",
                    rows.len() as i64,
                    &rows.iter().map(|row| row.get(0)).collect::<Vec<_>>(),
                ));
            }
            Err(error) => left.push(format!("pg_cron jobs ({})", Error::from(error).why())),
        }
    }
    Ok(left)
}

fn words(kind: &str, count: i64, names: &[String]) -> Option<String> {
    let kinds = match (count, kind.split_once(' ')) {
        (0, _) => return None,
        (1, _) => kind.to_owned(),
        (_, Some((first @ ("slot" | "role" | "setting"), rest))) => format!("{first}s {rest}"),
        _ => format!("{kind}s"),
    };
    let named = if names.is_empty() { String::new() } else { format!(" ({})", few(names)) };
    Some(format!("{count} {kinds}{named}"))
}

/// The first few, and how many more.
pub(super) fn few(names: &[String]) -> String {
    let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
    format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn what_stays_behind_is_counted_and_named() {
        let names = |count: usize| (1..=count).map(|n| format!("n{n}")).collect::<Vec<_>>();
        assert_eq!(words("large object", 112, &[]).as_deref(), Some("112 large objects"));
        assert_eq!(words("slot of others", 2, &names(2)).as_deref(), Some("2 slots of others (n1, n2)"));
        assert_eq!(
            words("event trigger", 7, &names(7)).as_deref(),
            Some("7 event triggers (n1, n2, n3, n4, n5 and 2 more)")
        );
        assert_eq!(words("subscription", 0, &[]), None);
    }
}
