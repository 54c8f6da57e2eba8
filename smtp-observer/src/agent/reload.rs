//! The configuration, read again as the agent runs.

use tracing::{error, info, warn};

use crate::cli::{ConfigError, Observe, Run, RunArgs, Verbosity};
use crate::log;
use crate::observer::Observer;
use crate::sink::reason;

/// What the agent runs with, and where that comes from.
pub(super) struct Reload {
    args: RunArgs,
    /// Of the command line.
    verbosity: Verbosity,
    running: Run,
}

/// What a configuration has that the running one has not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// In force from now on.
    at_once: Vec<&'static str>,
    /// In force when the agent is started again.
    with_a_restart: Vec<&'static str>,
}

impl Reload {
    pub(super) fn new(args: RunArgs, verbosity: Verbosity, running: Run) -> Self {
        Self { args, verbosity, running }
    }

    /// Reads the configuration again. What can change does, and the log says what cannot. What the service manager is to show
    /// of it, where something is wrong.
    pub(super) fn read(&mut self, observer: &mut Observer) -> Option<String> {
        let path = self.args.config()?.display().to_string();
        let new = match self.args.clone().resolve() {
            Ok(new) => new,
            Err(error) => {
                error!(setting = "config", "{error} The configuration of before stays in force.");
                return Some(refusal(&error));
            }
        };
        let Changes { at_once, with_a_restart } = Changes::between(&self.running, &new);
        for setting in &at_once {
            match *setting {
                "service-address" => {
                    self.running.observe.service_addresses.clone_from(&new.observe.service_addresses);
                    observer.set_service_addresses(new.observe.service_addresses.clone());
                    info!(setting, "{setting} of {path} is in force from now on.");
                }
                _ => {
                    self.running.observe.verbose = new.observe.verbose;
                    log::set_level(self.verbosity.or(new.observe.verbose).log_level());
                    info!(setting, "{setting} of {path} is in force; for the eBPF programs it takes a restart.");
                }
            }
        }
        for setting in &with_a_restart {
            warn!(setting, "{setting} of {path} has changed: it takes a restart, and stays as it was until then.");
        }
        if at_once.is_empty() && with_a_restart.is_empty() {
            info!("{path} was read again: nothing in it has changed.");
        }
        (!with_a_restart.is_empty()).then(|| format!("a restart is needed for {}", with_a_restart.join(", ")))
    }
}

/// One line, without the path: `systemctl status` has little room.
fn refusal(error: &ConfigError) -> String {
    match error {
        ConfigError::Unreadable { source, .. } => format!("the configuration cannot be read: {}", reason(source)),
        ConfigError::Invalid { line, .. } => {
            format!("the configuration is wrong in line {line}, that of before is in force")
        }
    }
}

impl Changes {
    fn between(old: &Run, new: &Run) -> Self {
        // Each setting is named: a new one has to be decided on.
        let Run { observe, events, listen, web_config_file, allowed_hosts } = new;
        let Observe { ports, hooks, tls, addresses, service_addresses, ring_size, record, user, duration, verbose } =
            observe;
        let was = &old.observe;
        let mut changes = Self::default();
        // A recording says at its beginning which they are.
        let is_recorded = was.record.is_some();
        for (setting, has_changed, at_once) in [
            ("service-address", *service_addresses != was.service_addresses, !is_recorded),
            ("verbose", *verbose != was.verbose, true),
            // They are constants of the eBPF programs.
            ("port", *ports != was.ports, false),
            ("hooks", *hooks != was.hooks, false),
            ("tls", *tls != was.tls, false),
            ("ring-size", *ring_size != was.ring_size, false),
            // What is remembered was shown by the old one, and a recording has no more.
            ("addresses", *addresses != was.addresses, false),
            // The agent may not open them any more.
            ("record", *record != was.record, false),
            ("events", *events != old.events, false),
            ("listen", *listen != old.listen, false),
            // What is in the file is read again by itself.
            ("web-config-file", *web_config_file != old.web_config_file, false),
            ("allowed-host", *allowed_hosts != old.allowed_hosts, false),
            ("user", *user != was.user, false),
            ("duration", *duration != was.duration, false),
        ] {
            match (has_changed, at_once) {
                (false, _) => {}
                (true, true) => changes.at_once.push(setting),
                (true, false) => changes.with_a_restart.push(setting),
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::redact::{Addresses, RedactionPolicy};

    fn args<'a>(arguments: impl IntoIterator<Item = &'a str>) -> RunArgs {
        match Cli::try_parse_from(["smtp-observer", "run"].into_iter().chain(arguments)).expect("valid").command {
            Command::Run(args) => args,
            other => panic!("not run: {other:?}"),
        }
    }

    fn run(arguments: &str) -> Run {
        args(arguments.split_whitespace()).resolve().expect("no file")
    }

    fn changes(old: &str, new: &str) -> (Vec<&'static str>, Vec<&'static str>) {
        let Changes { at_once, with_a_restart } = Changes::between(&run(old), &run(new));
        (at_once, with_a_restart)
    }

    #[test]
    fn what_can_change_at_run_time() {
        assert_eq!(changes("", ""), (vec![], vec![]));
        assert_eq!(changes("", "--service-address 10.0.0.0/8"), (vec!["service-address"], vec![]));
        let verbose = Run { observe: Observe { verbose: 1, ..run("").observe }, ..run("") };
        assert_eq!(Changes::between(&run(""), &verbose).at_once, ["verbose"]);
    }

    #[test]
    fn a_recording_keeps_its_service_addresses() {
        let recorded = "--record x --service-address";
        let (old, new) = (format!("{recorded} 10.0.0.0/8"), format!("{recorded} 10.0.0.0/9"));
        assert_eq!(changes(&old, &new), (vec![], vec!["service-address"]));
    }

    #[test]
    fn what_takes_a_restart_is_named() {
        let all = "--port 26 --hooks fentry --tls off --ring-size 8MiB --addresses full --record x --events y --listen \
                   127.0.0.1:1 --user z --duration 1s";
        let named =
            ["port", "hooks", "tls", "ring-size", "addresses", "record", "events", "listen", "user", "duration"];
        assert_eq!(changes("", all), (vec![], named.to_vec()));
    }

    #[test]
    fn what_cannot_be_read_leaves_the_running_one() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let write = |text: &str| std::fs::write(file.path(), text).expect("writable");
        write("service-address = [\"10.0.0.0/8\"]\n");
        let args = args(["--config", file.path().to_str().expect("text")]);
        let running = args.clone().resolve().expect("valid");
        let mut reload = Reload::new(args, Verbosity(0), running.clone());
        let mut observer = Observer::new(&[25], RedactionPolicy::new(Addresses::Domain));
        assert_eq!(reload.read(&mut observer), None);

        write("service-address = 1\n");
        let said = reload.read(&mut observer).expect("something is wrong");
        assert_eq!(said, "the configuration is wrong in line 1, that of before is in force");
        assert_eq!(reload.running, running);

        write("service-address = [\"10.0.0.0/9\"]\ntls = \"off\"\n");
        assert_eq!(reload.read(&mut observer).as_deref(), Some("a restart is needed for tls"));
        let expected =
            Observe { service_addresses: vec!["10.0.0.0/9".parse().expect("valid")], ..running.observe.clone() };
        assert_eq!(reload.running, Run { observe: expected, ..running });
        // What takes a restart is said each time.
        assert_eq!(reload.read(&mut observer).as_deref(), Some("a restart is needed for tls"));
    }
}
