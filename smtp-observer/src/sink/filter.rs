//! Which observations somebody wants to see: of some programs, of some commands, or only what is out of the ordinary.

use ipnet::IpNet;

use crate::observation::{Caller, Event, Observation, Outcome, TlsPhase, Verdict};
use crate::smtp::{Verb, is_foreign};

/// Bytes of the longest base name of a file (NAME_MAX), so of a program's name.
pub const LONGEST_NAME: usize = 255;

/// Whether an exchange can be shown with this verb, which is in upper case: other ones are shown as `other`.
pub fn is_shown_verb(verb: &str) -> bool {
    verb == "OTHER" || Verb::parse(verb.as_bytes()) != Verb::Other || is_foreign(verb.as_bytes())
}

/// Conditions, all of which have to hold. An empty list is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Base names of executables, as metrics and `trace` name programs.
    pub processes: Vec<String>,
    /// Process ids in the host's pid namespace.
    pub pids: Vec<u32>,
    /// Addresses of the connection's other end.
    pub peers: Vec<IpNet>,
    /// Verbs in upper case.
    pub verbs: Vec<String>,
    /// Only what [`is_anomalous`].
    pub only_anomalies: bool,
}

impl Filter {
    /// Whether this is to be seen.
    pub fn passes(&self, observation: &Observation) -> bool {
        self.is_by(observation)
            && self.is_with(observation)
            && self.is_about(&observation.event)
            && (!self.only_anomalies || is_anomalous(&observation.event))
    }

    /// It tells of a process that is wanted: the one that used the connection, or another that the event names.
    fn is_by(&self, observation: &Observation) -> bool {
        if self.processes.is_empty() && self.pids.is_empty() {
            return true;
        }
        let wanted = |caller: &Caller| {
            let process = &caller.process;
            (self.processes.is_empty() || self.processes.iter().any(|name| name == process.program()))
                && (self.pids.is_empty() || self.pids.contains(&process.pid))
        };
        let named = match &observation.event {
            Event::ConnectionOwnerChanged { previous_process } => [Some(previous_process), None],
            Event::Interception(interception) => {
                [interception.interceptor.as_ref(), interception.client.process.as_ref()]
            }
            _ => [None, None],
        };
        observation.process.iter().chain(named.into_iter().flatten()).any(wanted)
    }

    fn is_with(&self, observation: &Observation) -> bool {
        let peer = &observation.connection.remote.address;
        self.peers.is_empty() || self.peers.iter().any(|wanted| wanted.contains(peer))
    }

    /// It is an exchange with one of the verbs, or what is told of one beside it.
    fn is_about(&self, event: &Event) -> bool {
        let verb = match event {
            _ if self.verbs.is_empty() => return true,
            Event::Command(command) => &*command.verb,
            Event::Rset(_) => "RSET",
            Event::Noop(_) => "NOOP",
            Event::Data(data) => data.verb,
            Event::Tls(tls) if !matches!(tls.phase, TlsPhase::Offered | TlsPhase::NotUsed) => "STARTTLS",
            Event::ConnectionOpened { .. }
            | Event::ConnectionOwnerChanged { .. }
            | Event::ConnectionClosed { .. }
            | Event::ConnectionUnfollowed { .. }
            | Event::Greeting(_)
            | Event::Transaction(_)
            | Event::Tls(_)
            | Event::Anomaly(_)
            | Event::Interception(_) => return false,
        };
        self.verbs.iter().any(|wanted| wanted.eq_ignore_ascii_case(verb))
    }
}

/// Something that a mail system does not do when all is well.
pub fn is_anomalous(event: &Event) -> bool {
    let accepts = |code: u16| matches!(code / 100, 2 | 3);
    match event {
        Event::ConnectionOpened { .. }
        | Event::ConnectionOwnerChanged { .. }
        | Event::ConnectionClosed { .. }
        | Event::ConnectionUnfollowed { .. } => false,
        Event::Tls(tls) => tls.phase == TlsPhase::Failed,
        Event::Greeting(greeting) => !accepts(greeting.code),
        // Many a client is gone before its QUIT is answered.
        Event::Command(command) => command.code.map_or(command.verb != "QUIT", |code| !accepts(code)),
        Event::Rset(reasoned) => !reasoned.reason.is_usual(),
        Event::Noop(reasoned) => !reasoned.reason.is_usual(),
        Event::Data(data) => !data.code.is_some_and(accepts),
        Event::Transaction(transaction) => transaction.outcome != Outcome::Delivered,
        Event::Anomaly(_) => true,
        // That nobody is in the middle after all is news of an anomaly.
        Event::Interception(interception) => !matches!(interception.verdict, Verdict::InlineProxy | Verdict::Relay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{
        Anomaly, AnomalyKind, InterceptedClient, Interception, Method, News, NoopReason, RsetReason, Tls,
    };
    use crate::sink::samples::{self, Sample, endpoint};

    fn of(processes: &[&str], pids: &[u32], verbs: &[&str]) -> Filter {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Filter { processes: texts(processes), pids: pids.to_vec(), verbs: texts(verbs), ..Filter::default() }
    }

    fn interception(verdict: Verdict) -> Event {
        Event::Interception(Box::new(Interception {
            verdict,
            method: Method::Redirect,
            interceptor: Some(Sample::client().with_program(77, "/opt/av/proxy").caller()),
            product: None,
            client: InterceptedClient {
                process: Some(Sample::client().caller()),
                connection_id: "b-1".into(),
                requested: endpoint("192.0.2.25", 25),
            },
            upstream: None,
            confidence: 0.9,
            evidence: Vec::new(),
            hold: None,
            news: News::default(),
        }))
    }

    fn anomaly() -> Event {
        Event::Anomaly(Anomaly { kind: AnomalyKind::BareLf, detail: String::new() })
    }

    #[test]
    fn without_conditions_all_passes() {
        let filter = Filter::default();
        assert!(filter.passes(&Sample::client().without_process().opened()));
        assert!(filter.passes(&Sample::server().at(anomaly())));
    }

    #[test]
    fn programs_by_base_name_and_pid() {
        let (perl, smtpd) = (Sample::client().opened(), Sample::server().opened());
        let seen = |filter: Filter| [filter.passes(&perl), filter.passes(&smtpd)];
        assert_eq!(seen(of(&["perl"], &[], &[])), [true, false]);
        assert_eq!(seen(of(&["smtpd", "perl"], &[], &[])), [true, true]);
        // The whole base name, in its case.
        assert_eq!(seen(of(&["per", "Perl", "/usr/bin/perl"], &[], &[])), [false, false]);
        assert_eq!(seen(of(&[], &[825], &[])), [false, true]);
        // Of one process, not of two.
        assert_eq!(seen(of(&["perl"], &[825], &[])), [false, false]);
        assert!(!of(&["perl"], &[], &[]).passes(&Sample::client().without_process().opened()));
    }

    #[test]
    fn whoever_an_event_names_counts() {
        let between = Sample::server().at(interception(Verdict::TransparentInterceptor));
        let handed_over = Sample::server().at(Event::ConnectionOwnerChanged {
            previous_process: Sample::client().with_program(700, "/usr/lib/master").caller(),
        });
        for (name, expected) in [
            ("smtpd", [true, true]),
            ("proxy", [true, false]),
            ("perl", [true, false]),
            ("master", [false, true]),
            ("swaks", [false, false]),
        ] {
            let filter = of(&[name], &[], &[]);
            assert_eq!([filter.passes(&between), filter.passes(&handed_over)], expected, "{name}");
        }
    }

    #[test]
    fn a_verb_shows_its_exchanges_and_what_is_told_of_them() {
        let started = Event::Tls(Tls::new(TlsPhase::Started));
        let offered = Event::Tls(Tls::new(TlsPhase::Offered));
        for (verb, event) in [
            ("EHLO", samples::command("EHLO", 250)),
            ("QUIT", samples::unanswered("QUIT")),
            ("RSET", samples::rset()),
            ("NOOP", samples::noop()),
            ("DATA", samples::data()),
            ("STARTTLS", started),
        ] {
            assert!(of(&[], &[], &["XYZ", verb]).passes(&Sample::client().at(event.clone())), "{verb}");
            assert!(!of(&[], &[], &["MAIL"]).passes(&Sample::client().at(event)), "{verb}");
        }
        for event in [
            Event::ConnectionOpened { requested: None },
            Sample::client().closed().event,
            samples::greeting(),
            samples::delivered(),
            offered,
            anomaly(),
            interception(Verdict::TransparentL4),
        ] {
            let all = ["EHLO", "RSET", "NOOP", "DATA", "STARTTLS"];
            assert!(!of(&[], &[], &all).passes(&Sample::client().at(event.clone())), "{event:?}");
        }
    }

    #[test]
    fn the_other_ends_address_or_a_block_that_it_is_in() {
        let sample = Sample::client();
        let peer = sample.opened().connection.remote.address;
        let with = |peers: &[IpNet]| Filter { peers: peers.to_vec(), ..Filter::default() }.passes(&sample.opened());
        let block = IpNet::new(peer, 24).expect("a block");
        let other: IpNet = "203.0.113.0/24".parse().expect("a block");
        assert!(!block.contains(&other), "{block}");
        for (peers, expected) in [
            (&[][..], true),
            (&[IpNet::from(peer)], true),
            (&[block], true),
            (&[other], false),
            (&[other, block], true),
        ] {
            assert_eq!(with(peers), expected, "{peers:?}");
        }
    }

    #[test]
    fn what_is_out_of_the_ordinary() {
        let reset = |reason| match samples::rset() {
            Event::Rset(reasoned) => Event::Rset(Box::new(crate::observation::Reasoned { reason, ..*reasoned })),
            other => panic!("{other:?}"),
        };
        let nothing = |reason| match samples::noop() {
            Event::Noop(reasoned) => Event::Noop(Box::new(crate::observation::Reasoned { reason, ..*reasoned })),
            other => panic!("{other:?}"),
        };
        let ended = |outcome| match samples::delivered() {
            Event::Transaction(transaction) => {
                Event::Transaction(crate::observation::Transaction { outcome, ..transaction })
            }
            other => panic!("{other:?}"),
        };
        let data = |code| match samples::data() {
            Event::Data(data) => Event::Data(crate::observation::Data { code, ..data }),
            other => panic!("{other:?}"),
        };
        for (event, expected) in [
            (samples::command("RCPT", 250), false),
            (samples::command("DATA", 354), false),
            (samples::command("RCPT", 450), true),
            (samples::command("RCPT", 550), true),
            (samples::command("RCPT", 150), true),
            (samples::unanswered("QUIT"), false),
            (samples::unanswered("RCPT"), true),
            (samples::greeting(), false),
            (reset(RsetReason::BetweenMessages), false),
            (reset(RsetReason::InterceptorReplay), true),
            (reset(RsetReason::Ambiguous), true),
            (nothing(NoopReason::LeaseCheck), false),
            (nothing(NoopReason::InterceptorKeepalive), true),
            (data(Some(250)), false),
            (data(Some(554)), true),
            (data(None), true),
            (ended(Outcome::Delivered), false),
            (ended(Outcome::Reset), true),
            (ended(Outcome::Abandoned), true),
            (anomaly(), true),
            (interception(Verdict::TransparentInterceptor), true),
            (interception(Verdict::Direct), true),
            (interception(Verdict::Relay), false),
            (interception(Verdict::InlineProxy), false),
            (Sample::client().closed().event, false),
        ] {
            let filter = Filter { only_anomalies: true, ..Filter::default() };
            assert_eq!(filter.passes(&Sample::client().at(event.clone())), expected, "{event:?}");
        }
        // Both conditions hold: a refused command of this verb.
        let both = Filter { only_anomalies: true, ..of(&[], &[], &["RCPT"]) };
        assert!(both.passes(&Sample::client().at(samples::command("RCPT", 550))));
        assert!(!both.passes(&Sample::client().at(samples::command("MAIL", 550))));
        assert!(!both.passes(&Sample::client().at(samples::command("RCPT", 250))));
    }
}
