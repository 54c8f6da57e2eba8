//! What the hooks write into the ring buffer: `ring read PORT TLS` prints each record as a line of JSON, its bytes first and
//! then the event that it is, until it is ended. As the agent does, it starts itself again to attach probes.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use smtp_observer::kernel::{self, Assignment, Kernel, Reader, Settings, Tls};
use smtp_observer_tests::machine;
use smtp_observer_tests::ring::Record;
use tracing::level_filters::LevelFilter;

#[derive(Parser)]
enum Task {
    Read { port: u16, tls: String },
    ProbeTls(Assignment),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::ProbeTls(assignment) => Ok(kernel::probe_tls(&assignment)?),
        Task::Read { port, tls } => read(port, Tls::from_str(&tls, false).ok().context("no such value of --tls")?),
    }
}

fn read(port: u16, tls: Tls) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let hooks = machine::hooks()?;
        let settings =
            Settings { ports: vec![port], hooks, ring_bytes: 16 << 20, tls, user: None, diagnostics: LevelFilter::OFF };
        let mut kernel = Kernel::attach(&settings)?;
        let mut reader = Reader::default();
        let mut output = io::stdout().lock();
        writeln!(output, "{}", Record::ATTACHED)?;
        loop {
            kernel.ready().await?;
            let mut lines = String::new();
            kernel.records(&mut |record| {
                let event = reader.read(record).ok().and_then(|(_, event)| event);
                lines.push_str(&Record::line(record, event.as_ref()));
            });
            output.write_all(lines.as_bytes())?;
        }
    })
}
