//! The proof, as people and as programs read it.

use serde::Serialize;

use super::checksum::TableSum;
use super::lag::sparkline;
use super::workload::Proof;
use crate::cli::human;

/// Everything the demo found out.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub source: String,
    pub target: String,
    pub total_seconds: f64,
    pub rows_preloaded: i64,
    pub snapshot_seconds: f64,
    pub tables: Vec<TableSum>,
    pub writes: Proof,
    pub failed_attempts: u64,
    pub looked_up: u64,
    /// Without an acknowledged write, as the writer saw it.
    pub write_downtime_ms: f64,
    /// As `cutwater cutover` reports it.
    pub cutover_downtime_ms: Option<f64>,
    pub lag_seconds: Vec<f64>,
}

impl Outcome {
    /// Whether everything arrived, once.
    pub(super) fn holds(&self) -> bool {
        self.writes.holds() && self.tables.iter().all(|table| table.equal)
    }

    /// As people read it.
    pub(super) fn text(&self) -> String {
        let differing: Vec<&str> = self.tables.iter().filter(|table| !table.equal).map(|table| table.table).collect();
        let rows: u64 = self.tables.iter().map(|table| table.rows).sum();
        let worst = self.lag_seconds.iter().copied().fold(0.0, f64::max);
        let verdict = if self.holds() { "MOVED, nothing lost, nothing doubled" } else { "MOVED WITH DIFFERENCES" };

        let mut lines = vec![
            format!("demo       {}  ->  {}", self.source, self.target),
            format!("{verdict}, in {}", human::seconds(self.total_seconds)),
            String::new(),
            if differing.is_empty() {
                format!(
                    "checksums  equal on both sides at the moment of the switch: {}, {} rows",
                    human::plural(self.tables.len() as u64, "table"),
                    human::count(rows)
                )
            } else {
                format!("checksums  DIFFER: {}", differing.join(", "))
            },
            format!(
                "writes     {} acknowledged, {} lost, {} doubled ({} rows looked at one by one)",
                human::count(self.writes.acknowledged),
                human::count(self.writes.lost),
                human::count(self.writes.doubled),
                human::count(self.writes.rows_checked)
            ),
        ];
        lines.extend(self.writes.findings.iter().map(|finding| format!("           {finding}")));
        let reported =
            self.cutover_downtime_ms.map_or(String::new(), |ms| format!("; {ms:.0} ms as cutover reports it"));
        lines.push(format!(
            "downtime   {:.0} ms without a write, as the writer saw it{reported}",
            self.write_downtime_ms
        ));
        lines.push(format!("lag        {}  worst {}", sparkline(&self.lag_seconds, 60), human::seconds(worst)));
        lines.push(format!(
            "copy       {} rows in {}, while the writer went on",
            human::count(self.rows_preloaded.unsigned_abs()),
            human::seconds(self.snapshot_seconds)
        ));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        Outcome {
            source: "postgres 127.0.0.1:1/shop".into(),
            target: "postgres 127.0.0.1:2/shop".into(),
            total_seconds: 31.0,
            rows_preloaded: 300_000,
            snapshot_seconds: 2.0,
            tables: vec![TableSum { table: "orders", rows: 17, equal: true }],
            writes: Proof { acknowledged: 12_400, rows_checked: 99, ..Proof::default() },
            failed_attempts: 4,
            looked_up: 1,
            write_downtime_ms: 412.4,
            cutover_downtime_ms: Some(391.0),
            lag_seconds: vec![0.0, 1.2, 0.1],
        }
    }

    #[test]
    fn a_single_differing_table_is_the_verdict() {
        assert!(outcome().holds());
        assert!(outcome().text().contains("nothing lost, nothing doubled"));
        let mut bad = outcome();
        bad.tables[0].equal = false;
        assert!(!bad.holds());
        assert!(bad.text().contains("DIFFER: orders"));
    }

    #[test]
    fn a_lost_write_is_the_verdict_and_is_named() {
        let mut bad = outcome();
        bad.writes.lost = 1;
        bad.writes.findings.push("write 7 of writer 1 is not there".into());
        assert!(!bad.holds());
        assert!(bad.text().contains("WITH DIFFERENCES"));
        assert!(bad.text().contains("write 7 of writer 1"));
    }
}
