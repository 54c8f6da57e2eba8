//! smtp-observer: arguments in, exit status out.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use smtp_observer::agent;
use smtp_observer::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_max_level(cli.log_level())
        .with_ansi(agent::colour(&io::stderr()))
        .with_target(false)
        // Standard error may be closed; that is no reason to end.
        .log_internal_errors(false)
        .with_writer(io::stderr)
        .init();
    match agent::execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "smtp-observer: {error}");
            error.exit_code()
        }
    }
}
