//! stdout carries results, stderr everything else.

use std::io::Write;
use std::process::ExitCode;
use std::sync::OnceLock;

use indicatif::MultiProgress;
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Kind, Result};

/// Bars that a command draws on stderr; log lines go above them.
static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// The screen's bars.
pub fn bars() -> &'static MultiProgress {
    BARS.get_or_init(MultiProgress::new)
}

/// Prints a result. A reader that has closed its end (`| head`) is no error of ours.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    let _ = write!(stdout, "{text}{newline}").and_then(|()| stdout.flush());
}

/// Prints a result as one line of JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
    print(&text);
    Ok(())
}

/// Prints an error: `error: …` and `fix: …` on stderr, or an object on stdout for those who read JSON.
pub fn failure(error: &Error, json: bool) {
    if json {
        let object = json!({
            "error": { "kind": error.kind().label(), "message": error.message(), "fix": error.suggestion() }
        });
        print(&object.to_string());
        return;
    }
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "error: {error}");
}

/// Prints what clap has to say: help on stdout with code 0, a mistake on stderr with code 2.
pub fn usage(error: &clap::Error) -> ExitCode {
    let wanted = matches!(error.kind(), clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion);
    if !wanted && std::env::args().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        failure(&Error::new(Kind::Config, message).fix("cutwater --help"), true);
    } else {
        let _ = error.print();
    }
    ExitCode::from(if wanted { 0 } else { Kind::Config.exit_code() })
}

/// Where the log goes: stderr, above the bars.
pub fn log_writer() -> Box<dyn Write + Send> {
    Box::new(AboveBars)
}

struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        match BARS.get() {
            Some(bars) => bars.suspend(|| std::io::stderr().write(line)),
            None => std::io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
