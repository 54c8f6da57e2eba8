//! Wires the kernel side, the observer and the faces; starts and stops them.

mod answer;
mod compare;
mod record;
mod replay;
mod top;

use std::io::{self, ErrorKind, IsTerminal, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use jiff::tz::TimeZone;
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::level_filters::LevelFilter;
use tracing::{debug, info, warn};

pub use self::compare::CompareError;
use self::record::{New, Record};
pub use self::replay::ReplayError;
use crate::cli::{Cli, Command, ConfigError, ConnectionsArgs, Destination, Observe, Ports, Run, Trace, reason};
use crate::event::{KernelEvent, Time};
use crate::face::board::Board;
use crate::face::filter::Filter;
use crate::face::http::{self, Ask, Limits, Viewers};
use crate::face::metrics::Metrics;
use crate::face::output::{Output, Target};
use crate::face::top::screen::Unusable;
use crate::face::{connections, events, trace};
use crate::kernel::host::{self, ScanError};
use crate::kernel::{self, Kernel};
use crate::loss::Losses;
use crate::observation::Observation;
use crate::observer::{Observer, SETTLING};
use crate::privilege;

/// How long the end waits for an output that does not take its last lines.
const LAST_LINES: Duration = Duration::from_secs(5);

/// How long after a look at the open sockets a second one decides what the first left in doubt: a descriptor on its way
/// from one process to another has arrived by then.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Questions of HTTP clients that may wait for the agent.
const ASKS: usize = 16;

/// Observations that the status page shows of each connection.
const TRANSCRIPT: usize = 32;

/// Why a command failed. Each is one or two plain sentences: the cause and the mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file is of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This user may not.
    #[error(transparent)]
    Privilege(#[from] privilege::Missing),
    /// The hooks cannot be attached.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// `check` found that nothing can be observed.
    #[error("this host or user cannot observe: the lines above say why.")]
    Unusable,
    /// The HTTP address cannot be had.
    #[error("cannot listen on {address}: {}. Give another with --listen ADDR:PORT.", reason(source))]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The events' file cannot be opened.
    #[error("cannot append events to {destination}: {}. Give another file with --events FILE.", reason(source))]
    Events {
        /// Which file.
        destination: Destination,
        /// Why.
        source: io::Error,
    },
    /// The recording's file cannot be made.
    #[error(
        "cannot record to {}: {}. Give another file with --record FILE; one that is there is not written to.",
        path.display(),
        reason(source)
    )]
    Record {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A recording cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Two hosts' events cannot be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// There is no terminal to draw on.
    #[error(transparent)]
    Terminal(#[from] Unusable),
    /// Privileges that are no longer needed could not be given up.
    #[error(transparent)]
    Relinquish(#[from] privilege::DropError),
    /// /proc is of no use.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The host refuses what any program may ask for.
    #[error("cannot {what}: {}.", reason(source))]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// 1: failed while running; 2: wrong usage; 3: this host or user cannot observe.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Replay(error) if error.is_usage() => ExitCode::from(2),
            Self::Compare(error) if error.is_usage() => ExitCode::from(2),
            Self::Listen { .. }
            | Self::Events { .. }
            | Self::Record { .. }
            | Self::Replay(_)
            | Self::Compare(_)
            | Self::Relinquish(_)
            | Self::Scan(_)
            | Self::System { .. } => ExitCode::from(1),
            Self::Config(_) | Self::Terminal(_) => ExitCode::from(2),
            Self::Privilege(_) | Self::Kernel(_) | Self::Unusable => ExitCode::from(3),
        }
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { what, source }
}

/// Does what the command line says.
pub fn execute(cli: Cli) -> Result<(), Error> {
    let diagnostics = cli.diagnostics();
    match cli.command {
        Command::Run(args) => run(args.resolve()?, diagnostics),
        Command::Trace(args) => trace(args.resolve()?, diagnostics),
        Command::Top(args) => top::top(args.resolve()?, diagnostics),
        Command::Replay(args) => replay::replay(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Connections(args) => connections(&args),
        Command::Check(args) => check(args.json),
    }
}

/// Whether to colour what goes to this stream: a terminal's reader can see it and has not asked for none.
pub fn colour(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

// The order in which an observing command starts, in `run`, `trace` and `top` alike:
//
// 1. ask whether this user may observe, so that nothing fails obscurely for want of it;
// 2. open what needs a name or a right: the HTTP address, the events' file, the recording;
// 3. load and attach the hooks;
// 4. give up privileges, on the main thread, while it is the only one;
// 5. start threads and tasks, look which connections are open, say that the hooks are in, serve.

fn run(config: Run, diagnostics: LevelFilter) -> Result<(), Error> {
    privilege::may_observe()?;
    let listener = listen(config.listen)?;
    let target = config.events.as_ref().map(open).transpose()?;
    let recording = config.observe.record.as_deref().map(create).transpose()?;
    runtime()?.block_on(async {
        let (kernel, mut signals, recording) = attach(&config.observe, diagnostics, recording)?;

        let address = listener.local_addr().map_err(system("read the HTTP address"))?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(system("wait for HTTP clients"))?;
        let (agent, questions, viewers) = http::channel(ASKS);
        tokio::spawn(http::serve(listener, agent, Limits::default()));
        let metrics = Metrics::new(kernel.family().as_str())
            .map_err(|error| Error::System { what: "set up the metrics", source: io::Error::other(error) })?;
        let output = target.map(Output::start).transpose().map_err(system("start a thread for the events"))?;
        let output =
            output.map(|output| Lines { output, format: Format::Json, filter: Filter::default(), face: "events" });

        let record = start_record(recording, &config.observe)?;
        let board = Some(Board::with_transcripts(TRANSCRIPT));
        let faces = Faces { metrics: Some(metrics), lines: output, board, viewers: Some(viewers) };
        let mut session = Session::new(kernel, &config.observe, faces, record);
        session.look_round();
        let more = format!("status page at http://{address}/, metrics at http://{address}/metrics");
        announce(&config.observe.ports, &session.kernel, &more);
        let hangup = signals.hangup.take();
        session.serve(questions, &mut signals, hangup, config.observe.duration).await
    })
}

fn trace(config: Trace, diagnostics: LevelFilter) -> Result<(), Error> {
    privilege::may_observe()?;
    let target = Target::standard_output().map_err(system("use standard output"))?;
    let recording = config.observe.record.as_deref().map(create).transpose()?;
    runtime()?.block_on(async {
        let (kernel, mut signals, recording) = attach(&config.observe, diagnostics, recording)?;

        let output = Output::start(target).map_err(system("start a thread for the output"))?;
        let format = if config.json {
            Format::Json
        } else {
            Format::Text(trace::Format { colour: colour(&io::stdout()), zone: TimeZone::system() })
        };
        let output = Lines { output, format, filter: config.filter, face: "trace" };

        let record = start_record(recording, &config.observe)?;
        let faces = Faces { lines: Some(output), ..Faces::default() };
        let mut session = Session::new(kernel, &config.observe, faces, record);
        session.look_round();
        announce(&config.observe.ports, &session.kernel, "ends with Ctrl-C");
        // Nobody asks: the channel is closed from the start.
        let (_, questions) = mpsc::channel(1);
        session.serve(questions, &mut signals, None, config.observe.duration).await
    })
}

fn connections(args: &ConnectionsArgs) -> Result<(), Error> {
    privilege::may_read_processes()?;
    let open = host::open_connections(args.port.as_slice())?;
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
    let _ = writeln!(io::stderr(), "{text}");
}

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| Error::Listen { address, source })
}

fn open(destination: &Destination) -> Result<Target, Error> {
    match destination {
        Destination::StandardOutput => Target::standard_output(),
        Destination::File(path) => Target::append(path),
    }
    .map_err(|source| Error::Events { destination: destination.clone(), source })
}

fn create(path: &Path) -> Result<New, Error> {
    New::create(path).map_err(|source| Error::Record { path: path.to_owned(), source })
}

fn start_record(new: Option<New>, observe: &Observe) -> Result<Option<Record>, Error> {
    new.map(|new| Record::start(new, observe.ports.as_slice(), observe.addresses))
        .transpose()
        .map_err(system("start a thread for the recording"))
}

fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("start"))
}

/// Steps 3 and 4 of the order above. Where they fail, no empty recording is left.
fn attach(
    observe: &Observe,
    diagnostics: LevelFilter,
    recording: Option<New>,
) -> Result<(Kernel, Signals, Option<New>), Error> {
    match attach_hooks(observe, diagnostics) {
        Ok((kernel, signals)) => Ok((kernel, signals, recording)),
        Err(error) => {
            if let Some(recording) = recording {
                recording.remove();
            }
            Err(error)
        }
    }
}

fn attach_hooks(observe: &Observe, diagnostics: LevelFilter) -> Result<(Kernel, Signals), Error> {
    // From here on a signal is an end like any other.
    let signals = Signals::new().map_err(system("wait for signals"))?;
    let settings = kernel::Settings {
        ports: observe.ports.as_slice().to_vec(),
        hooks: observe.hooks,
        ring_bytes: observe.ring_size.bytes(),
        diagnostics,
    };
    let kernel = Kernel::attach(&settings)?;
    let kept = privilege::relinquish(&privilege::to_read_counters())?;
    debug!("privileges given up, kept: {kept}");
    Ok((kernel, signals))
}

/// Tells the user and the service manager that the hooks are in.
fn announce(ports: &Ports, kernel: &Kernel, more: &str) {
    note(&format!("observing {} with {} hooks; {more}", named(ports), kernel.family().as_str()));
    tell_service_manager(NotifyState::Ready);
}

fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        debug!("cannot tell the service manager: {error}");
    }
}

fn named(ports: &Ports) -> String {
    format!("port{} {ports}", if ports.as_slice().len() == 1 { "" } else { "s" })
}

/// The signals that end the agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal is gone. Whoever takes this out is a daemon, and may be sent it for another reason.
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hangup: Some(hangup?) })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
            () = hung_up(self.hangup.as_mut()) => (),
        }
    }
}

/// Completes with the next SIGHUP.
async fn hung_up(hangup: Option<&mut Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// What a line is made of.
enum Format {
    Json,
    Text(trace::Format),
}

/// A face that writes lines.
struct Lines {
    output: Output,
    format: Format,
    filter: Filter,
    face: &'static str,
}

impl Format {
    fn write(&self, observation: &Observation, out: &mut Vec<u8>) {
        match self {
            Self::Json => events::write(observation, out),
            Self::Text(format) => format.write(observation, out),
        }
    }
}

impl Lines {
    fn observe(&mut self, observation: &Observation) {
        if self.filter.passes(observation) {
            self.output.line(|out| self.format.write(observation, out));
        }
    }
}

/// One run of the agent, from attached hooks to its end.
struct Session {
    kernel: Kernel,
    observer: Observer,
    faces: Faces,
    record: Option<Record>,
    losses: Losses,
    /// When to look again which connections are open.
    look: Option<Instant>,
}

/// Those to whom everything is told.
#[derive(Default)]
struct Faces {
    metrics: Option<Metrics>,
    lines: Option<Lines>,
    board: Option<Board>,
    /// Those who follow the board by the status page.
    viewers: Option<Viewers>,
}

impl Faces {
    fn observe(&mut self, observation: Observation) {
        if let Some(metrics) = &mut self.metrics {
            metrics.observe(&observation);
        }
        if let Some(lines) = &mut self.lines {
            lines.observe(&observation);
        }
        if let Some(board) = &mut self.board {
            board.take(observation);
        }
    }

    fn flush(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.output.flush();
        }
        if let (Some(board), Some(viewers)) = (&self.board, &self.viewers) {
            viewers.tell(board.taken());
        }
    }

    /// Has files opened again by their names.
    fn reopen(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.output.reopen();
        }
    }
}

impl Session {
    fn new(kernel: Kernel, observe: &Observe, faces: Faces, record: Option<Record>) -> Self {
        let (ports, addresses) = (observe.ports.as_slice(), observe.addresses);
        let observer = match record {
            Some(_) => Observer::recorded(ports, addresses, record::key()),
            None => Observer::new(ports, addresses),
        };
        let mut session = Self { kernel, observer, faces, record, losses: Losses::default(), look: None };
        let host = KernelEvent::Host(session.kernel.host());
        session.observer.event(host, &mut |_| ());
        session
    }

    /// Observes until a signal comes, the time is over or nobody reads the lines any more. With `hangup`, files are opened
    /// again.
    async fn serve(
        mut self,
        mut questions: mpsc::Receiver<Ask>,
        signals: &mut Signals,
        mut hangup: Option<Signal>,
        duration: Option<Duration>,
    ) -> Result<(), Error> {
        let end = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        let mut unread = false;
        let outcome = loop {
            tokio::select! {
                ready = self.kernel.ready() => match ready {
                    Ok(()) => self.take_in(),
                    Err(error) => break Err(system("read what the hooks deliver")(error)),
                },
                Some(question) = questions.recv() => self.answer(question),
                () = at(self.look) => self.look_round(),
                () = tokio::time::sleep(SETTLING), if self.observer.is_settling() => match kernel::now() {
                    Ok(now) => self.settle(now),
                    Err(error) => break Err(system("read the clock")(error)),
                },
                () = closed(self.faces.lines.as_ref()) => {
                    unread = true;
                    break Ok(());
                }
                () = signals.wait() => break Ok(()),
                () = hung_up(hangup.as_mut()) => self.faces.reopen(),
                () = &mut end => break Ok(()),
            }
        };
        tell_service_manager(NotifyState::Stopping);
        self.finish(unread).await;
        outcome
    }

    /// Passes all that waits through the observer to the faces.
    fn take_in(&mut self) {
        let Self { kernel, observer, faces, record, .. } = self;
        kernel.drain(&mut |event| {
            observer.event(event, &mut |observation| faces.observe(observation));
            if let Some(record) = record {
                record.take(observer);
            }
        });
        self.flush();
        let now = Instant::now();
        if self.losses.note(self.kernel.losses(), now.into_std()) {
            self.look = Some(now);
        }
    }

    /// Passes on what the observer has waited with, after all that waits in the kernel.
    fn settle(&mut self, now: Time) {
        self.take_in();
        let Self { observer, faces, .. } = self;
        observer.settle(now, &mut |observation| faces.observe(observation));
        self.flush();
    }

    /// Hands over what the outputs have gathered.
    fn flush(&mut self) {
        self.faces.flush();
        if let Some(record) = &mut self.record {
            record.take(&mut self.observer);
            record.output.flush();
        }
    }

    /// Tells the observer which sockets are open now, after all that waits.
    fn look_round(&mut self) {
        self.take_in();
        self.look = None;
        if self.kernel.is_behind() {
            // What is known is not from now.
            self.look = Some(Instant::now());
            return;
        }
        match self.kernel.snapshot() {
            Ok(snapshot) => {
                let event = KernelEvent::Snapshot(snapshot);
                self.observer.event(event, &mut |observation| self.faces.observe(observation));
                self.flush();
                if self.observer.doubts() {
                    self.look = Some(Instant::now() + SECOND_LOOK);
                }
            }
            Err(error) => warn!("what is open now cannot be listed: {error}"),
        }
    }

    /// Takes in and writes out the rest, and says what was lost: loss is never silent, but for lines that a user who
    /// looked on does not want any more.
    async fn finish(mut self, unread: bool) {
        self.settle(Time(u64::MAX));
        self.observer.finish_recording();
        self.flush();
        for (kind, count) in self.kernel.losses().iter().filter(|(_, count)| *count > 0) {
            warn!("{count} records of the hooks were lost: {kind}");
        }
        if let Some(lines) = self.faces.lines {
            let dropped = lines.output.finish(LAST_LINES).await;
            let unwanted = unread && self.faces.metrics.is_none();
            if dropped > 0 && !unwanted {
                info!("{dropped} observations were not written: {}", lines.face);
            }
        }
        if let Some(record) = self.record {
            let dropped = record.output.finish(LAST_LINES).await;
            if dropped > 0 {
                info!("{dropped} events were not written: {}", record::FACE);
            }
        }
    }
}

/// Completes at this time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Completes when the reader of the lines has left.
async fn closed(lines: Option<&Lines>) {
    match lines {
        Some(lines) => lines.output.closed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_a_sentence_with_the_mend() {
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
    fn an_events_file_that_cannot_be_is_a_sentence_with_the_mend() {
        let error = open(&Destination::File("/nonexistent/events".into())).expect_err("no such directory");
        assert_eq!(
            error.to_string(),
            "cannot append events to /nonexistent/events: no such file or directory. Give another file with --events \
             FILE."
        );
        assert_eq!(error.exit_code(), ExitCode::from(1));
    }

    #[test]
    fn exit_statuses() {
        assert_eq!(Error::from(privilege::Missing::Observe).exit_code(), ExitCode::from(3));
        assert_eq!(Error::Unusable.exit_code(), ExitCode::from(3));
        assert_eq!(Error::from(Unusable::Output).exit_code(), ExitCode::from(2));
        let unreadable = ConfigError::Unreadable { path: "x".into(), source: ErrorKind::NotFound.into() };
        assert_eq!(Error::from(unreadable).exit_code(), ExitCode::from(2));
    }

    #[test]
    fn ports_are_named() {
        assert_eq!(named(&Ports::default()), "port 25");
        assert_eq!(named(&"25,587".parse().expect("ports")), "ports 25,587");
    }
}
