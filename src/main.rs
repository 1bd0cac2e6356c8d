//! Parse, set up logging, run one command, map errors to exit codes.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
