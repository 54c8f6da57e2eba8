//! Wires the kernel side, the observer and the sinks; starts and stops them.

mod answer;
mod compare;
mod error;
mod record;
mod reload;
mod replay;
mod runtime;
mod service_manager;
mod signals;
mod sinks;
mod top;

use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use jiff::Zoned;
use nix::sys::utsname::uname;
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;
use tracing::{debug, info, warn};

pub use self::compare::CompareError;
pub use self::error::Error;
use self::error::system;
use self::record::{New, Record};
use self::reload::Reload;
pub use self::replay::ReplayError;
use self::runtime::{Runtime, Service, if_any};
use self::signals::Signals;
use self::sinks::{Format, Lines, Sinks};
use crate::cli::{
    Cli, Command, ConnectionsArgs, DEFAULT_LISTEN, Destination, Observe, Ports, Run, RunArgs, Trace, Verbosity,
};
use crate::kernel::host;
use crate::kernel::{self, Kernel};
use crate::log;
use crate::privilege::{self, Calls, Confinement, Files, Unprivileged};
use crate::sink::connection_table::ConnectionTable;
use crate::sink::events;
use crate::sink::filter::Filter;
use crate::sink::http::{self, Access, Limits};
use crate::sink::metrics::Metrics;
use crate::sink::output::{Output, Target};
use crate::sink::{connections, trace};

/// Questions of HTTP clients that may wait for the agent.
const ASKS: usize = 16;

/// Observations that the status page shows of each connection.
const TRANSCRIPT: usize = 32;

/// Does what the command line says.
pub fn execute(cli: Cli) -> Result<(), Error> {
    let verbosity = cli.verbosity();
    match cli.command {
        Command::Run(args) => run(args, verbosity),
        Command::Trace(args) => {
            let config = args.resolve()?;
            let diagnostics = log_as_configured(verbosity, &config.observe);
            trace(config, diagnostics)
        }
        Command::Top(args) => {
            let config = args.resolve()?;
            let diagnostics = log_as_configured(verbosity, &config);
            top::top(config, diagnostics)
        }
        Command::Replay(args) => replay::replay(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Connections(args) => connections(&args),
        Command::Check { json } => check(json),
        Command::ProbeTls(assignment) => Ok(kernel::probe_tls(&assignment)?),
    }
}

/// Whether to colour what goes to this stream, as `--color` has it, or else the stream and the environment.
pub fn colour(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

// The order in which an observing command starts, in `run`, `trace` and `top` alike:
//
// 1. ask whether this user may observe, so that nothing fails obscurely for want of it;
// 2. open what needs a name or a right: the HTTP address, the events' file, the recording;
// 3. load and attach the hooks;
// 4. give up root, capabilities, files and system calls, on the main thread, while it is the only one;
// 5. start threads and tasks, look which connections are open, say that the hooks are in, serve.

fn run(args: RunArgs, verbosity: Verbosity) -> Result<(), Error> {
    let config = args.clone().resolve()?;
    let diagnostics = log_as_configured(verbosity, &config.observe);
    privilege::may_observe()?;
    let user = Unprivileged::choose(config.observe.user.as_deref())?;
    let is_nobody = config.observe.user.is_none() && user.as_ref().is_some_and(Unprivileged::is_shared);
    let listener = listener(&config)?;
    let access = access(&config)?;
    let target = config.events.as_ref().map(|events| open(events, user.as_ref())).transpose()?;
    let recording = config.observe.record.as_deref().map(create).transpose()?;
    let files = Files {
        read: args.config().map(Path::to_owned).into_iter().chain(access.files()).collect(),
        append: config.events.iter().filter_map(Destination::path).map(Path::to_owned).collect(),
    };
    tokio_runtime()?.block_on(async {
        let (kernel, mut signals) = attach(&config.observe, diagnostics, recording.as_ref(), user, files)?;

        if is_nobody {
            let own = privilege::OWN_USER;
            warn!(
                "there is no user {own}: the agent has become nobody, who is other services' user, too. `useradd --system \
                 {own}` makes it one of its own."
            );
        }
        let address = listener.local_addr().map_err(system("read the HTTP address"))?;
        if let Some(warning) = access.warning(address) {
            warn!("{warning}.");
        }
        access.warn_of_unreadable_files();
        let scheme = access.scheme();
        let (agent, questions, viewers) = http::channel(ASKS);
        http::start(listener, agent, Limits::default(), access).map_err(system("start a thread for HTTP"))?;
        let metrics = Metrics::new(kernel.family().as_str())
            .map_err(|error| Error::System { what: "set up the metrics", source: io::Error::other(error) })?;
        if let Some(target) = &target {
            target.warn_of_rotation();
        }
        let start = |target| Output::start(target, events::mark_loss);
        let output = target.map(start).transpose().map_err(system("start a thread for the events"))?;
        let output =
            output.map(|output| Lines { output, format: Format::Json, filter: Filter::default(), sink: "events" });

        let record = start_record(recording, &config.observe)?;
        let table = Some(ConnectionTable::with_transcripts(TRANSCRIPT));
        let addresses = config.observe.addresses;
        let sinks = Sinks { addresses, metrics: Some(metrics), lines: output, table, viewers: Some(viewers) };
        let mut runtime = Runtime::new(kernel, &config.observe, sinks, record);
        runtime.resnapshot();
        let more = format!("status page at {scheme}://{address}/, metrics at {scheme}://{address}/metrics");
        let status = announce(&config.observe.ports, &runtime.kernel, &more);
        let duration = config.observe.duration;
        let reload = Reload::new(args, verbosity, config);
        let hangup = signals.take_hangup().map_err(system("wait for signals"))?;
        let service = Service { hangup, reload, status };
        runtime.serve(questions, &mut signals, Some(service), duration).await
    })
}

fn trace(config: Trace, diagnostics: LevelFilter) -> Result<(), Error> {
    privilege::may_observe()?;
    let user = Unprivileged::choose(config.observe.user.as_deref())?;
    let target = Target::standard_output().map_err(system("use standard output"))?;
    let recording = config.observe.record.as_deref().map(create).transpose()?;
    tokio_runtime()?.block_on(async {
        let (kernel, mut signals) = attach(&config.observe, diagnostics, recording.as_ref(), user, Files::default())?;

        let mark_loss = if config.json { events::mark_loss } else { trace::mark_loss };
        let output = Output::start(target, mark_loss).map_err(system("start a thread for the output"))?;
        let format = if config.json {
            Format::Json
        } else {
            let now = Zoned::now();
            Format::Text(trace::Format {
                colour: colour(&io::stdout()),
                day: Some(now.date()),
                zone: now.time_zone().clone(),
            })
        };
        let output = Lines { output, format, filter: config.filter, sink: "trace" };

        let record = start_record(recording, &config.observe)?;
        let addresses = config.observe.addresses;
        let sinks = Sinks { addresses, metrics: None, lines: Some(output), table: None, viewers: None };
        let mut runtime = Runtime::new(kernel, &config.observe, sinks, record);
        runtime.resnapshot();
        announce(&config.observe.ports, &runtime.kernel, "ends with Ctrl-C");
        // Nobody asks: the channel is closed from the start.
        let (_, questions) = mpsc::channel(1);
        runtime.serve(questions, &mut signals, None, config.observe.duration).await
    })
}

fn connections(args: &ConnectionsArgs) -> Result<(), Error> {
    privilege::may_read_processes()?;
    let open = host::open_connections(args.port.as_slice())?;
    if let Some(why) = kernel::hidden_owners() {
        warn!("{why}");
    }
    if open.is_empty() && !args.json {
        note(&format!("no connection on {} now", named(&args.port)));
        return Ok(());
    }
    print(|out| if args.json { connections::json(&open, out) } else { connections::table(&open, out) })
}

fn check(json: bool) -> Result<(), Error> {
    let check = kernel::check();
    print(|mut out| {
        if json {
            serde_json::to_writer_pretty(&mut out, &check)?;
            return writeln!(out);
        }
        let text = check.to_string();
        writeln!(out, "{}", text.trim_end())
    })?;
    if check.usable() { Ok(()) } else { Err(Error::Unusable) }
}

/// Prints a result. That nobody reads it to its end is no failure.
fn print(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<(), Error> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(system("write to standard output")(error)),
        _ => Ok(()),
    }
}

/// Says something to the user, who may have closed standard error.
fn note(text: &str) {
    if log::is_in_journal() {
        info!("{text}");
    } else {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Has the log as the command line or else the configuration wants it; how much the eBPF programs are to say.
fn log_as_configured(verbosity: Verbosity, observe: &Observe) -> LevelFilter {
    let verbosity = verbosity.or(observe.verbose);
    log::set_level(verbosity.log_level());
    verbosity.diagnostics()
}

/// The service manager's socket for HTTP clients, or else one at the address that is wanted.
fn listener(config: &Run) -> Result<TcpListener, Error> {
    let Some(passed) = service_manager::listener().map_err(Error::Passed)? else { return listen(config.listen) };
    let address = passed.local_addr().map_err(Error::Passed)?;
    if config.listen != DEFAULT_LISTEN && config.listen != address {
        warn!(
            "HTTP is served at {address}, on the socket that the service manager has passed, and not at {}: change \
             ListenStream= of that socket's unit.",
            config.listen
        );
    }
    Ok(passed)
}

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| Error::Listen { address, source })
}

/// Who is let in by HTTP. This host's own name is one to ask for it by.
fn access(config: &Run) -> Result<Access, Error> {
    let own = uname().ok().and_then(|uname| uname.nodename().to_str().map(str::to_owned));
    let names = config.allowed_hosts.iter().cloned().chain(own).collect();
    Ok(Access::new(config.web_config_file.as_deref(), names)?)
}

/// Opens what events are appended to. A file that root makes here is for the user that the agent becomes.
fn open(destination: &Destination, user: Option<&Unprivileged>) -> Result<Target, Error> {
    let open = || match destination {
        Destination::StandardOutput => Target::standard_output(),
        Destination::File(path) => {
            let target = Target::append(path)?;
            if let Some(user) = user {
                target.give_if_made(user.uid().as_raw(), user.gid().as_raw())?;
            }
            Ok(target)
        }
    };
    open().map_err(|source| Error::Events { destination: destination.clone(), source })
}

fn create(path: &Path) -> Result<New, Error> {
    New::create(path).map_err(|source| Error::Record { path: path.to_owned(), source })
}

fn start_record(new: Option<New>, observe: &Observe) -> Result<Option<Record>, Error> {
    new.map(|new| Record::start(new, observe)).transpose().map_err(system("start a thread for the recording"))
}

fn tokio_runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("start"))
}

/// Steps 3 and 4 of the order above. Where they fail, no empty recording is left.
fn attach(
    observe: &Observe,
    diagnostics: LevelFilter,
    recording: Option<&New>,
    user: Option<Unprivileged>,
    files: Files,
) -> Result<(Kernel, Signals), Error> {
    let attach = || {
        // From here on a signal is an end like any other.
        let signals = Signals::new().map_err(system("wait for signals"))?;
        let settings = kernel::Settings {
            ports: observe.ports.as_slice().to_vec(),
            hooks: observe.hooks,
            ring_bytes: observe.ring_size.bytes(),
            tls: observe.tls,
            user: observe.user.clone(),
            diagnostics,
        };
        let kernel = Kernel::attach(&settings)?;
        let kept = privilege::confine(&Confinement {
            user: user.as_ref(),
            capabilities: &privilege::to_read_counters(),
            files: Some(&files),
            calls: Calls::Agent(kernel.child().as_slice()),
        })?;
        debug!("privileges given up, kept: {kept}");
        Ok((kernel, signals))
    };
    attach().inspect_err(|_| recording.into_iter().for_each(New::remove))
}

/// Tells the user and the service manager that the hooks are in, and what is observed.
fn announce(ports: &Ports, kernel: &Kernel, more: &str) -> String {
    let status = format!("observing {} with {} hooks", named(ports), kernel.family().as_str());
    note(&format!("{status}; {more}"));
    service_manager::ready(&status);
    status
}

fn named(ports: &Ports) -> String {
    format!("port{} {ports}", if ports.as_slice().len() == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::*;

    #[test]
    fn port_in_use_suggests_listen_option() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        let error = listen(address).expect_err("in use");
        assert_eq!(
            error.to_string(),
            format!("cannot listen on {address}: address already in use. Give another with --listen ADDR:PORT.")
        );
        assert_eq!(error.exit_code(), ExitCode::from(1));
    }

    #[test]
    fn unusable_events_file_suggests_events_option() {
        let error = open(&Destination::File("/nonexistent/events".into()), None).expect_err("no such directory");
        assert_eq!(
            error.to_string(),
            "cannot append events to /nonexistent/events: no such file or directory. Give another file with --events \
             FILE."
        );
        assert_eq!(error.exit_code(), ExitCode::from(1));
    }

    #[test]
    fn ports_are_named() {
        assert_eq!(named(&Ports::default()), "port 25");
        assert_eq!(named(&"25,587".parse().expect("ports")), "ports 25,587");
    }
}
