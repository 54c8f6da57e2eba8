//! smtp-observer: arguments in, exit status out.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use smtp_observer::agent;
use smtp_observer::cli::Cli;
use smtp_observer::log;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.set_color();
    log::start(cli.verbosity().log_level(), agent::colour(&io::stderr()));
    match agent::execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if log::is_in_journal() {
                tracing::error!("{error}");
            } else {
                let _ = writeln!(io::stderr(), "smtp-observer: {error}");
            }
            error.exit_code()
        }
    }
}
