//! smtp-observer: arguments in, exit status out.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use smtp_observer::agent;
use smtp_observer::cli::Cli;
use smtp_observer::log::Log;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The libraries' own chatter would bury what is asked for.
    let levels = Targets::new()
        .with_default(LevelFilter::WARN.min(cli.log_level()))
        .with_targets(["smtp_observer", "smtp_ebpf"].map(|own| (own, cli.log_level())));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(agent::colour(&io::stderr()))
        .with_target(false)
        // Standard error may be closed; that is no reason to end.
        .log_internal_errors(false)
        .with_writer(|| Log);
    tracing_subscriber::registry().with(lines).with(levels).init();
    match agent::execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "smtp-observer: {error}");
            error.exit_code()
        }
    }
}
