//! The command line and the configuration file, as one set of values.
//!
//! The command line wins over the file, the file over the defaults. A value is checked where it enters, so that what
//! leaves this module is valid.

mod config_file;
mod file_name;
mod filter;
mod ports;
mod ring_size;
#[cfg(test)]
mod tests;
mod verbosity;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use self::config_file::File;
use self::file_name::new_recording;
use crate::kernel::{self, Hooks, Tls};
use crate::redact::Addresses;
use crate::sink::filter::Filter;

pub use config_file::ConfigError;
pub use file_name::{Destination, NoName, Source};
pub use filter::FilterArgs;
pub use ports::{Ports, PortsError};
pub use ring_size::{RingSize, RingSizeError};
pub use verbosity::Verbosity;

/// Where `run` serves HTTP unless told otherwise: on this host alone.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9725);

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold())
    .literal(AnsiColor::Green.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

/// Names the process behind every SMTP connection of this host, and follows what the two ends say.
#[derive(Debug, Parser)]
#[command(
    name = "smtp-observer",
    version,
    styles = STYLES,
    max_term_width = 100,
    after_help = "Exit status: 0 done; 1 failed while running; 2 wrong usage; 3 this host or user cannot observe."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Log more: once for what the agent and its eBPF programs do, twice for every detail.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Whether to colour what is written; `auto` does so on a terminal, unless `NO_COLOR`, and with `CLICOLOR_FORCE` always.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    color: clap::ColorChoice,
}

impl Cli {
    /// Has all that is written coloured as it is wanted.
    pub fn set_color(&self) {
        let choice = match self.color {
            clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
            clap::ColorChoice::Always => anstream::ColorChoice::Always,
            clap::ColorChoice::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }

    /// How much is to be logged.
    pub fn verbosity(&self) -> Verbosity {
        Verbosity(self.verbose)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The agent: observe and serve metrics until SIGTERM or SIGINT.
    Run(RunArgs),
    /// Print every SMTP exchange as it happens, one line each.
    Trace(TraceArgs),
    /// Show the connections of now, who uses them and who is in their middle: a table that fills the terminal.
    Top(ObserveArgs),
    /// Print what was observed when a recording was made, without root.
    Replay(ReplayArgs),
    /// Print what differs between the two ends of the same conversations, by the events of two hosts, without root.
    Compare(CompareArgs),
    /// Print who owns each SMTP connection now, and what is in the middle of it, then exit.
    Connections(ConnectionsArgs),
    /// Say what this host allows, and which hooks `run` would use.
    Check {
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Attach probes to TLS libraries: what the other commands start by themselves.
    #[command(hide = true)]
    ProbeTls(kernel::Assignment),
}

/// Options that every observing command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct ObserveArgs {
    /// A connection is SMTP when either end has one of these ports [default: 25].
    #[arg(long, value_name = "N[,N…]")]
    port: Option<Ports>,

    /// Hook family; `auto` takes fentry where the kernel allows it [default: auto].
    #[arg(long, value_enum, hide_possible_values = false)]
    hooks: Option<Hooks>,

    /// Read what is said behind STARTTLS from the OpenSSL and GnuTLS of the processes on this host [default: auto].
    #[arg(long, value_enum)]
    tls: Option<Tls>,

    /// How much of a mailbox address is shown [default: domain].
    #[arg(long, value_enum)]
    addresses: Option<Addresses>,

    /// Addresses that lead to servers of one's own on this host, such as published ports and virtual addresses: who asks for
    /// them is not redirected.
    #[arg(long, value_name = "CIDR[,CIDR…]", value_delimiter = ',', value_parser = parse_network)]
    service_address: Vec<IpNet>,

    /// Room for what the hooks deliver until the agent takes it, a power of two: `512KiB`, `16MiB` [default: 4MiB].
    #[arg(long, value_name = "SIZE")]
    ring_size: Option<RingSize>,

    /// Keep the kernel's events in this new file, for `replay`: without bodies and credentials, and with no more of
    /// mailboxes than is shown.
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(new_recording))]
    record: Option<PathBuf>,

    /// Where root starts it, the user that it becomes as soon as the hooks are in, by name or number [default: smtp-observer,
    /// or nobody where there is no such user].
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// Stop by itself after this time: `500ms`, `10s`, `2m`, `1h 30m`.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Read options from a TOML file with the same names; the command line wins.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `run`'s options.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    #[command(flatten)]
    observe: ObserveArgs,

    /// Append observations to this file, one JSON object a line; SIGHUP opens it again, and `-` is standard output. Ends with
    /// status 1 when the reader of a pipe has gone.
    #[arg(long, value_name = "FILE")]
    events: Option<Destination>,

    /// Where to serve the status page, /metrics, /healthz and /readyz [default: 127.0.0.1:9725].
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    listen: Option<SocketAddr>,

    /// Serve by TLS and ask for passwords as this YAML file says, which has the form of Prometheus' web configuration; it
    /// is read again when it, the certificate or the key changes.
    #[arg(long, value_name = "FILE")]
    web_config_file: Option<PathBuf>,

    /// Names by which the agent is asked for, beside addresses, `localhost`, this host's name and those of its certificate:
    /// who asks for another name is refused.
    #[arg(long, value_name = "NAME[,NAME…]", value_delimiter = ',', value_parser = parse_host_name)]
    allowed_host: Vec<String>,
}

/// `trace`'s options.
#[derive(Debug, Default, Args)]
pub struct TraceArgs {
    #[command(flatten)]
    observe: ObserveArgs,

    #[command(flatten)]
    filter: FilterArgs,

    /// One JSON object a line, as `run --events` writes.
    #[arg(long)]
    json: bool,
}

/// `replay`'s options.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The recording; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub file: Source,

    /// One JSON object a line, as `run --events` writes.
    #[arg(long)]
    pub json: bool,

    /// How much of a mailbox address is shown, of what the recording has [default: all that it has].
    #[arg(long, value_enum)]
    pub addresses: Option<Addresses>,

    /// Only connections with one of these ports at either end [default: all].
    #[arg(long, value_name = "N[,N…]")]
    pub port: Option<Ports>,

    /// What is shown of the rest.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `compare`'s options.
#[derive(Debug, Args)]
#[command(
    after_help = "A difference is no failure, and the exit status is 0: scripts read `differs` in what --json prints."
)]
pub struct CompareArgs {
    /// What `run --events FILE` wrote on the clients' host; `-` is standard input.
    #[arg(value_name = "CLIENT")]
    pub client: Source,

    /// What it wrote on the servers' host; `-` is standard input.
    #[arg(value_name = "SERVER")]
    pub server: Source,

    /// One JSON object for each conversation, for scripts.
    #[arg(long)]
    pub json: bool,
}

/// `connections`' options.
#[derive(Debug, Default, Args)]
pub struct ConnectionsArgs {
    /// A connection is SMTP when either end has one of these ports.
    #[arg(long, value_name = "N[,N…]", default_value_t)]
    pub port: Ports,

    /// One JSON array.
    #[arg(long)]
    pub json: bool,
}

/// What every observing command is to do: command line, file and defaults together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Ports of SMTP.
    pub ports: Ports,
    /// Hook family.
    pub hooks: Hooks,
    /// Whose plaintext of TLS is read.
    pub tls: Tls,
    /// How much of a mailbox address is shown.
    pub addresses: Addresses,
    /// Addresses that lead to servers of one's own on this host.
    pub service_addresses: Vec<IpNet>,
    /// Room for what the hooks deliver.
    pub ring_size: RingSize,
    /// Where the kernel's events are kept.
    pub record: Option<PathBuf>,
    /// The user that it becomes where root starts it.
    pub user: Option<String>,
    /// When to stop; never, without one.
    pub duration: Option<Duration>,
    /// How much the configuration file wants to be logged: as often as `--verbose` would be given.
    pub verbose: u8,
}

/// What `run` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What to observe, and how.
    pub observe: Observe,
    /// Where observations go as JSON lines.
    pub events: Option<Destination>,
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Who is let in there; everybody, without one.
    pub web_config_file: Option<PathBuf>,
    /// Names by which it may be asked for there.
    pub allowed_hosts: Vec<String>,
}

/// What `trace` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What to observe, and how.
    pub observe: Observe,
    /// What is shown.
    pub filter: Filter,
    /// JSON lines in place of text.
    pub json: bool,
}

impl RunArgs {
    /// The configuration file.
    pub fn config(&self) -> Option<&Path> {
        self.observe.config.as_deref()
    }

    /// With the configuration file and the defaults.
    pub fn resolve(self) -> Result<Run, ConfigError> {
        let file = File::of(&self.observe)?;
        let (events, listen) = (file.events.clone(), file.listen);
        let web_config_file = file.web_config_file.clone();
        let allowed_hosts = if self.allowed_host.is_empty() { file.allowed_host.clone() } else { self.allowed_host };
        Ok(Run {
            observe: self.observe.with(file),
            events: self.events.or(events),
            listen: self.listen.or(listen).unwrap_or(DEFAULT_LISTEN),
            web_config_file: self.web_config_file.or(web_config_file),
            allowed_hosts,
        })
    }
}

impl TraceArgs {
    /// With the configuration file and the defaults.
    pub fn resolve(self) -> Result<Trace, ConfigError> {
        Ok(Trace { observe: self.observe.resolve()?, filter: self.filter.into(), json: self.json })
    }
}

impl ObserveArgs {
    /// With the configuration file and the defaults. What the file says of `run` alone is checked and left.
    pub fn resolve(self) -> Result<Observe, ConfigError> {
        // One recording a file: that which `run` makes.
        let file = File { record: None, ..File::of(&self)? };
        Ok(self.with(file))
    }

    fn with(self, file: File) -> Observe {
        Observe {
            ports: self.port.or(file.port).unwrap_or_default(),
            hooks: self.hooks.or(file.hooks).unwrap_or(Hooks::Auto),
            tls: self.tls.or(file.tls).unwrap_or_default(),
            addresses: self.addresses.or(file.addresses).unwrap_or(Addresses::Domain),
            service_addresses: match self.service_address.is_empty() {
                true => file.service_address,
                false => self.service_address,
            },
            ring_size: self.ring_size.or(file.ring_size).unwrap_or_default(),
            record: self.record.or(file.record),
            user: self.user.or(file.user),
            duration: self.duration.or(file.duration),
            verbose: file.verbose.unwrap_or_default(),
        }
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an address with a port: write it like `127.0.0.1:9725` or `[::1]:9725`"))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: write it like `500ms`, `10s` or `2m`");
    let duration = text.trim().parse::<jiff::SignedDuration>().map_err(|_| wrong())?;
    let duration = Duration::try_from(duration).map_err(|_| wrong())?;
    if duration.is_zero() { Err("the time must be longer than nothing".into()) } else { Ok(duration) }
}

/// `192.0.2.0/24`, or one address.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| format!("`{text}` is neither an address nor a block of addresses such as 192.0.2.0/24"))
}

/// A host's name (RFC 1123, 2.1): labels of letters, digits and hyphens, and of underscores, which some networks use.
fn parse_host_name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let takes = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        (1..=63).contains(&label.len()) && label.chars().all(takes)
    };
    match text.len() <= 253 && text.split('.').all(is_label) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is no host's name: write it without scheme and port, like `observer.example`")),
    }
}
