//! Parse, set up logging, run one command, map errors to exit codes: all of it in [`cutwater::cli`].

fn main() -> std::process::ExitCode {
    cutwater::cli::main()
}
