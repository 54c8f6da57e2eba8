//! `cargo xtask`: what a builder does with this project, each command from a bare machine on.
//!
//! - [`toolchain`]: the pinned versions, and which compiler for eBPF this machine has or can get
//! - [`setup`]: brings the compiler and linker for eBPF into `.tools`
//! - [`packages`]: the system packages that set-up, demo, tests and benchmarks need
//! - [`apt`]: Debian's packages, without installing any
//! - [`senders`]: mail software that cannot be installed beside Postfix, for the tests
//! - [`agent`]: builds and runs the agent
//! - [`manual`]: man pages and shell completions
//! - [`image`]: an image for containers
//! - [`kubernetes`]: what the chart for Kubernetes is tested with
//! - [`package`]: packages for Debian and RPM distributions, and a tarball
//! - [`scenes`]: demo and benchmarks, which live in the `tests` package
//! - [`test`]: every test, with one count at the end
//! - [`kernels`]: the integration tests inside other kernels
//! - [`fuzz`]: any bytes at the core's doors
//! - [`pipelines`]: examples for log shippers, run by what is too large for the tests
//! - [`lint`]: formatting, clippy, licences
//! - [`tools`]: tools of pinned versions, into `.tools`
//! - [`process`]: other programs, run with a bound, or as root

mod agent;
mod apt;
#[cfg(test)]
mod dependencies;
mod fuzz;
mod image;
mod kernels;
mod kubernetes;
mod lint;
mod manual;
mod package;
mod packages;
mod pipelines;
mod process;
mod scenes;
mod senders;
mod setup;
mod test;
mod toolchain;
mod tools;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// Set up, build, run and check smtp-observer.
///
/// Every command first installs what it needs and finds missing, and says so.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Subcommand)]
enum Command {
    /// Find or install the compiler and linker for the eBPF programs
    Setup,
    /// Build the agent: one file, its eBPF programs inside
    Build {
        /// Without optimisation in the agent (the eBPF programs are always optimised)
        #[arg(long)]
        debug: bool,
    },
    /// Write man pages and shell completions, for packages: target/man, target/completions
    Man,
    /// Make an image for containers, without a daemon: target/image
    Image(image::Options),
    /// Make packages for Debian and RPM distributions and a static tarball: target/package/out
    Package(package::Options),
    /// Build the agent and run it, through sudo where it needs root
    Run {
        /// The agent's own arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Watch a mail client, an interceptor and a server in network namespaces, and print what the agent saw
    Demo {
        /// The demo's own arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run every test that this machine can run, and end with a count
    Test {
        /// Passed on to `cargo test`, such as a part of a test's name
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the integration tests inside Debian's kernels, with each hook family that the kernel has
    Kernels(kernels::Options),
    /// What `kernels` runs as the first program of a guest
    #[command(hide = true)]
    Guest(kernels::init::Options),
    /// Measure what the agent costs
    Bench {
        /// The benchmark's own arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Draw panels of the dashboard from a real run, into docs/images
    Plots {
        /// The plots' own arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the examples for Vector and ClickHouse on real events
    Pipelines(pipelines::Options),
    /// Fuzz the core, from the transcripts on
    Fuzz(fuzz::Options),
    /// Check formatting, clippy for agent and eBPF programs, and the dependencies with cargo-deny
    Lint,
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace has no root")?;
    match command {
        Command::Setup => setup::ensure(root)?,
        Command::Build { debug } => println!("{}", agent::build(root, !debug)?.display()),
        Command::Man => {
            let target = manual::write(root)?;
            println!("{}\n{}", target.join("man").display(), target.join("completions").display());
        }
        Command::Image(options) => image::run(root, &options)?,
        Command::Package(options) => package::run(root, &options)?,
        Command::Run { args } => agent::run(root, &args)?,
        Command::Demo { args } => scenes::demo(root, &args)?,
        Command::Test { args } => return test::run(root, &args),
        Command::Kernels(options) => return kernels::run(root, &options),
        Command::Guest(options) => kernels::init::run(&options)?,
        Command::Bench { args } => scenes::bench(root, &args)?,
        Command::Plots { args } => scenes::plots(root, &args)?,
        Command::Pipelines(options) => pipelines::run(root, &options)?,
        Command::Fuzz(options) => fuzz::run(root, &options)?,
        Command::Lint => lint::run(root)?,
    }
    Ok(ExitCode::SUCCESS)
}
