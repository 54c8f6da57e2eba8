//! An agent that panics as soon as its hooks are in: `panicking-agent PORT`.

use std::io::{self, BufRead};

use anyhow::{Context, Result};
use smtp_observer::kernel::{Kernel, Settings, Tls};
use smtp_observer_tests::machine;
use tracing::level_filters::LevelFilter;

fn main() -> Result<()> {
    let port = std::env::args().nth(1).context("no port")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let settings = Settings {
        ports: vec![port],
        hooks: machine::hooks()?,
        ring_bytes: 1 << 20,
        tls: Tls::Off,
        user: None,
        diagnostics: LevelFilter::OFF,
    };
    let _kernel = Kernel::attach(&settings)?;
    println!("attached");
    // Until whoever started it has looked.
    io::stdin().lock().lines().next();
    panic!("as asked");
}
