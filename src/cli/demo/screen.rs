//! What the demo shows while it runs, on stderr: a moving line on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, news about what is under way comes no more often than this.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// The screen.
pub(super) struct Screen {
    start: Instant,
    bar: Option<ProgressBar>,
    last_plain: Mutex<Instant>,
}

impl Screen {
    pub(super) fn new() -> Screen {
        let start = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = crate::cli::output::bars().add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("         {spinner} {wide_msg}").expect("a constant template");
            bar.set_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Screen { start, bar, last_plain: Mutex::new(start) }
    }

    /// Since the demo began.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Something is done: a line that stays.
    pub(super) fn done(&self, what: &str, detail: &str) {
        let line = format!("{:>7.1} s  {what:<10} {detail}", self.start.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => plain(&line),
        }
    }

    /// A command of ours is run: a line that stays.
    pub(super) fn command(&self, command: &str) {
        let line = format!("{:>7.1} s  $ cutwater {command}", self.start.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => plain(&line),
        }
    }

    /// Something is under way: replaces what was said about it before.
    pub(super) fn now(&self, what: &str, detail: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{what:<10} {detail}")),
            None => {
                let mut last = self.last_plain.lock().expect("no holder panics");
                if last.elapsed() >= PLAIN_EVERY {
                    *last = Instant::now();
                    drop(last);
                    self.done(what, detail);
                }
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A remark beside the results.
pub(super) fn note(text: &str) {
    plain(text);
}

fn plain(line: &str) {
    // Nobody reads it any more: no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}
