//! What a `run` shows on stderr: bars at a terminal while it copies, a line a few times a minute otherwise.
//!
//! In: [`Progress`], polled. Out: nothing the run waits for.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{human, output, status};
use crate::config::Config;
use crate::pipeline::progress::{Progress, View};
use crate::target::state::{Phase, TableStage};

const REDRAW: Duration = Duration::from_millis(200);
/// Between two lines of text.
const SAY: Duration = Duration::from_secs(15);
/// Bars of tables side by side; the others are in the overall bar.
const TABLES: usize = 8;

/// Draws until it is aborted.
pub(super) async fn draw(progress: Arc<Progress>, config: Config) {
    let terminal = std::io::stderr().is_terminal();
    let mut bars = terminal.then(Bars::new);
    let mut said: Option<Instant> = None;
    let mut tick = tokio::time::interval(REDRAW);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let view = progress.view();
        let copying = matches!(view.phase, Some(Phase::Snapshot | Phase::Indexing));
        if let Some(bars) = &mut bars {
            if copying { bars.show(&view) } else { bars.clear() }
        }
        if said.is_some_and(|at| at.elapsed() < SAY) || (copying && bars.is_some()) {
            continue;
        }
        // The first line comes after the first interval: nothing is known at the start.
        if said.replace(Instant::now()).is_some() {
            say(&view, copying, &config).await;
        }
    }
}

/// Takes the bars off the screen.
pub(super) fn clear() {
    let _ = output::bars().clear();
}

async fn say(view: &View, copying: bool, config: &Config) {
    if copying {
        let left =
            view.left.map(|left| format!(", about {} left", human::seconds(left.as_secs_f64()))).unwrap_or_default();
        tracing::info!(
            "copied {:.0} %, {} of {} tables, {} rows/s, indexes {} of {}{left}",
            view.fraction() * 100.0,
            view.count(TableStage::Copied),
            view.tables.len(),
            human::about(view.rows_per_second),
            view.indexes_done,
            view.indexes_total,
        );
        return;
    }
    let Ok(facts) = status::gather(config).await else { return };
    if let (Some(lag), Some(bytes)) = (facts.lag_seconds, facts.lag_bytes) {
        let changes = human::count(facts.changes_per_second as u64);
        tracing::info!("lag {}, {}; {changes} changes/s", human::seconds(lag), human::bytes(bytes));
    }
}

/// `  1.9 M rows/s, 28 m left`; nothing while nothing moves.
fn pace(rate: f64, missing: u64) -> String {
    if rate < 1.0 {
        return String::new();
    }
    format!("  {} rows/s, {} left", human::about(rate), human::seconds(missing as f64 / rate))
}

struct Bars {
    whole: ProgressBar,
    /// With the rows each had when its bar appeared: the rate is since then.
    tables: HashMap<String, (ProgressBar, u64)>,
    indexes: ProgressBar,
}

fn bar(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(1000).with_style(style.progress_chars("━╸ "))
}

impl Bars {
    fn new() -> Bars {
        let screen = output::bars();
        screen.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        let whole = bar("copy     {bar:30} {percent:>3} %  {msg}");
        let indexes = bar("indexes  {bar:30} {msg}");
        Bars { whole, tables: HashMap::new(), indexes }
    }

    fn show(&mut self, view: &View) {
        let screen = output::bars();
        if self.whole.is_hidden() {
            self.whole = screen.add(self.whole.clone());
        }
        self.whole.set_position((view.fraction() * 1000.0) as u64);
        let left = view.left.map(|left| format!(", {} left", human::seconds(left.as_secs_f64()))).unwrap_or_default();
        self.whole.set_message(format!(
            "{} rows/s  {}/s{left}",
            human::about(view.rows_per_second),
            human::bytes(view.bytes_per_second as u64)
        ));
        for table in &view.tables {
            let name = table.name.to_string();
            if table.stage != TableStage::Copying {
                if let Some((done, _)) = self.tables.remove(&name) {
                    done.finish_and_clear();
                    screen.remove(&done);
                }
                continue;
            }
            if !self.tables.contains_key(&name) && self.tables.len() >= TABLES {
                continue;
            }
            let (drawn, before) = self
                .tables
                .entry(name.clone())
                .or_insert_with(|| (screen.add(bar("         {bar:30} {percent:>3} %  {msg}")), table.rows));
            drawn.set_position((table.fraction() * 1000.0) as u64);
            let rate = table.rows.saturating_sub(*before) as f64 / drawn.elapsed().as_secs_f64().max(0.1);
            drawn.set_message(format!("{name}{}", pace(rate, table.rows_estimate.saturating_sub(table.rows))));
        }
        if view.indexes_total > 0 {
            if self.indexes.is_hidden() {
                self.indexes = screen.add(self.indexes.clone());
            }
            self.indexes.set_length(view.indexes_total);
            self.indexes.set_position(view.indexes_done);
            let building = view.building.join(", ");
            self.indexes.set_message(format!("{} of {}  {building}", view.indexes_done, view.indexes_total));
        }
    }

    fn clear(&mut self) {
        for drawn in self.tables.drain().map(|(_, (bar, _))| bar).chain([self.whole.clone(), self.indexes.clone()]) {
            drawn.finish_and_clear();
        }
        clear();
    }
}
