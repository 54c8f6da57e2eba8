//! What is observed, and the lines that a scrape has of it.

use std::sync::LazyLock;
use std::time::Duration;

use super::life::{GONE, LOOK};
use super::series::{LASTING, MAX_PROGRAMS, Standing};
use super::*;
use crate::fact::samples as facts;
use crate::observation::{
    AnomalyKind, InterceptedClient, Interception, Method, News, NoopReason, Outcome, RsetReason, TlsVersion, Verdict,
};
use crate::sink::samples::{self, Sample};
use crate::smtp::{TlsFailure, TlsSession, Verb};

fn metrics(facts: impl IntoIterator<Item = Fact<'static>>) -> Metrics {
    let mut metrics = Metrics::new("tracepoint").expect("valid definitions");
    facts.into_iter().for_each(|fact| metrics.observe(&fact));
    metrics
}

fn greeting() -> What<'static> {
    facts::greeting("mail.example ESMTP Postfix")
}

fn command(line: &str, code: u16) -> What<'static> {
    facts::command(line, code, "mail.example")
}

fn tls_started() -> What<'static> {
    static STARTED: LazyLock<Tls> = LazyLock::new(|| {
        Tls::Started(Box::new(TlsSession { version: Some(TlsVersion::Tls13), ..TlsSession::default() }))
    });
    What::Tls(&STARTED)
}

/// One whose handshake was not seen, and one that did not come to be.
fn other_tls() -> [What<'static>; 2] {
    static OTHERS: LazyLock<[Tls; 2]> =
        LazyLock::new(|| [Tls::Started(Box::default()), Tls::Failed(Box::default(), TlsFailure::Closed)]);
    OTHERS.each_ref().map(What::Tls)
}

fn data() -> What<'static> {
    facts::message(2048, 250, "2.0.0 Ok: queued as 4X1", Duration::from_millis(500))
}

/// What a scrape has now.
fn text(metrics: &mut Metrics) -> String {
    metrics.text(Format::Text, samples::TIME).expect("encodes")
}

#[track_caller]
fn assert_lines(metrics: &mut Metrics, expected: &[&str]) {
    let text = text(metrics);
    for line in expected {
        assert!(text.lines().any(|have| have == *line), "{line} is not in\n{text}");
    }
}

#[test]
fn everything_of_one_conversation() {
    let sample = Sample::server();
    let mut metrics = metrics([
        sample.fact(facts::opened()),
        sample.fact(greeting()),
        sample.fact(command("EHLO", 250)),
        sample.fact(command("MAIL", 250)),
        sample.fact(command("RCPT", 550)),
        sample.fact(facts::unanswered("RCPT")),
        sample.fact(command("X-\u{1b}[31m", 500)),
        sample.fact(command("DATA", 354)),
        sample.fact(data()),
        sample.fact(facts::transaction(Outcome::Delivered)),
        sample.fact(facts::rset(RsetReason::RecipientsRejected)),
        sample.fact(facts::noop(NoopReason::IdleKeepalive)),
        sample.fact(What::Tls(&Tls::Offered)),
        sample.fact(other_tls()[0]),
        sample.fact(other_tls()[1]),
        sample.fact(tls_started()),
        sample.fact(facts::anomaly(AnomalyKind::BareLf)),
    ]);
    assert_lines(
        &mut metrics,
        &[
            r#"smtp_connections_total{process="smtpd",role="server"} 1"#,
            r#"smtp_connections_open{process="smtpd",role="server"} 1"#,
            r#"smtp_commands_total{code_class="2xx",process="smtpd",role="server",verb="EHLO"} 1"#,
            r#"smtp_commands_total{code_class="5xx",process="smtpd",role="server",verb="RCPT"} 1"#,
            r#"smtp_commands_total{code_class="none",process="smtpd",role="server",verb="RCPT"} 1"#,
            r#"smtp_commands_total{code_class="3xx",process="smtpd",role="server",verb="DATA"} 1"#,
            r#"smtp_commands_total{code_class="5xx",process="smtpd",role="server",verb="other"} 1"#,
            r#"smtp_command_duration_seconds_count{process="smtpd",role="server",verb="RCPT"} 1"#,
            r#"smtp_command_duration_seconds_bucket{process="smtpd",role="server",verb="EHLO",le="0.001"} 0"#,
            r#"smtp_command_duration_seconds_bucket{process="smtpd",role="server",verb="EHLO",le="0.003"} 1"#,
            r#"smtp_rset_total{process="smtpd",reason="recipients_rejected",role="server"} 1"#,
            r#"smtp_rset_duration_seconds_sum{process="smtpd",role="server"} 0.002"#,
            r#"smtp_noop_total{process="smtpd",reason="idle_keepalive",role="server"} 1"#,
            r#"smtp_noop_duration_seconds_count{process="smtpd",role="server"} 1"#,
            r#"smtp_data_go_ahead_seconds_sum{process="smtpd",role="server"} 0.25"#,
            r#"smtp_data_transfer_seconds_sum{process="smtpd",role="server"} 4"#,
            r#"smtp_data_final_reply_seconds_sum{process="smtpd",role="server"} 0.5"#,
            r#"smtp_data_bytes_total{process="smtpd",role="server"} 2048"#,
            r#"smtp_transactions_total{outcome="delivered",process="smtpd",role="server"} 1"#,
            r#"smtp_transactions_total{outcome="reset",process="smtpd",role="server"} 0"#,
            r#"smtp_anomalies_total{kind="bare_lf",process="smtpd",role="server"} 1"#,
            r#"smtp_tls_sessions_total{process="smtpd",role="server",version="1.0",visible="false"} 0"#,
            r#"smtp_tls_sessions_total{process="smtpd",role="server",version="1.3",visible="false"} 1"#,
            r#"smtp_tls_sessions_total{process="smtpd",role="server",version="unknown",visible="false"} 1"#,
            r#"smtp_observer_hooks_info{family="tracepoint"} 1"#,
        ],
    );
    let text = text(&mut metrics);
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    assert!(text.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")), "{text}");
}

#[test]
fn open_connections_follow_their_owner_and_go_down_at_the_end() {
    let screen = Sample::server().with_program(7, "/usr/lib/postfix/sbin/postscreen");
    let daemon = Sample::server();
    let mut metrics = metrics([screen.fact(facts::opened()), screen.fact(greeting())]);
    assert_lines(&mut metrics, &[r#"smtp_connections_open{process="postscreen",role="server"} 1"#]);

    metrics.observe(&daemon.fact(What::ConnectionOwnerChanged { previous: Box::leak(Box::new(screen.caller())) }));
    assert_lines(
        &mut metrics,
        &[
            r#"smtp_connections_open{process="postscreen",role="server"} 0"#,
            r#"smtp_connections_open{process="smtpd",role="server"} 1"#,
            r#"smtp_connections_total{process="postscreen",role="server"} 1"#,
        ],
    );

    metrics.observe(&daemon.fact(facts::closed()));
    metrics.observe(&daemon.fact(facts::closed()));
    assert_lines(&mut metrics, &[r#"smtp_connections_open{process="smtpd",role="server"} 0"#]);
    assert!(metrics.open.is_empty());
}

#[test]
fn a_connection_is_its_first_known_users() {
    let sample = Sample::server();
    let mut metrics = metrics([sample.clone().without_process().fact(facts::opened())]);
    assert_lines(&mut metrics, &[r#"smtp_connections_open{process="unknown",role="server"} 1"#]);
    metrics.observe(&sample.fact(greeting()));
    assert_lines(
        &mut metrics,
        &[
            r#"smtp_connections_open{process="unknown",role="server"} 0"#,
            r#"smtp_connections_open{process="smtpd",role="server"} 1"#,
            r#"smtp_connections_total{process="smtpd",role="server"} 1"#,
        ],
    );
    metrics.observe(&sample.fact(facts::closed()));
    assert!(!text(&mut metrics).contains(r#"smtp_connections_total{process="unknown""#));

    // One that nobody ever used still counts.
    let nobody = Sample::server().without_process();
    metrics.observe(&nobody.fact(facts::opened()));
    metrics.observe(&nobody.fact(facts::closed()));
    assert_lines(
        &mut metrics,
        &[
            r#"smtp_connections_open{process="unknown",role="server"} 0"#,
            r#"smtp_connections_total{process="unknown",role="server"} 1"#,
        ],
    );
}

#[test]
fn a_hostile_load_does_not_grow_the_scrape() {
    let mut metrics = metrics([]);
    for number in 0..10_000_u32 {
        let name = format!("/tmp/{number}-{}", "x\"\\\n".repeat(50));
        for sample in [Sample::server(), Sample::client()] {
            let sample = sample.with_program(number, &name);
            let pick = number as usize;
            metrics.observe(&sample.fact(facts::opened()));
            // Every verb until all is full, then one that nobody knows.
            let verbs = if pick < MAX_SERIES { Verb::ALL } else { &[Verb::Other] };
            for verb in verbs {
                let line = if *verb == Verb::Other { &*number.to_string() } else { verb.as_str() };
                metrics.observe(&sample.fact(command(line, 200 + 100 * (number as u16 % 4))));
            }
            metrics.observe(&sample.fact(data()));
            metrics.observe(&sample.fact(facts::rset(RsetReason::ALL[pick % RsetReason::ALL.len()])));
            metrics.observe(&sample.fact(facts::noop(NoopReason::ALL[pick % NoopReason::ALL.len()])));
            metrics.observe(&sample.fact(facts::anomaly(AnomalyKind::ALL[pick % AnomalyKind::ALL.len()])));
            metrics.observe(&sample.fact(tls_started()));
            metrics.observe(&sample.fact(facts::transaction(Outcome::Delivered)));
            // Each program is in the middle of each other's connections, in every way.
            let method = Method::ALL[pick % Method::ALL.len()];
            let verdict = Interception { method, ..verdict(&sample, &sample) };
            let other = Sample::client().with_program(1, "/tmp/a");
            metrics.observe(&other.fact(facts::interception(verdict)));
            metrics.observe(&sample.fact(facts::closed()));
        }
    }
    // A megabyte is the aim; the counts of a long life have some ten digits more.
    let open_metrics = metrics.text(Format::OpenMetrics, samples::TIME).expect("encodes");
    let text = text(&mut metrics);
    for text in [&open_metrics, &text] {
        assert!(text.len() + 10 * text.lines().count() < 1_000_000, "{} bytes", text.len());
    }
    // What is of each program is there: the bounds are what keeps it so small.
    assert!(text.len() > 500_000, "{} bytes", text.len());
    assert_eq!(metrics.programs.len(), MAX_PROGRAMS);
    let total: u64 = text
        .lines()
        .filter(|line| line.starts_with("smtp_commands_total{"))
        .map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a number"))
        .sum();
    let known = Verb::ALL.len() - 1;
    assert_eq!(total, 20_000 + (2 * MAX_SERIES * known) as u64, "nothing is left out of the count");
}

/// All that is counted of a session.
fn session(metrics: &mut Metrics, wait: Duration, sample: &Sample) {
    for what in [
        facts::opened(),
        greeting(),
        command("EHLO", 250),
        command("MAIL", 250),
        command("RCPT", 550),
        command("RSET", 250),
        data(),
        facts::rset(RsetReason::RecipientsRejected),
        facts::transaction(Outcome::Delivered),
        command("QUIT", 221),
        facts::closed(),
    ] {
        metrics.observe(&after(wait, sample.fact(what)));
    }
}

/// How many series of a program there are, and whether its durations are among them.
fn shown(metrics: &mut Metrics, wait: Duration, program: &str) -> (usize, bool) {
    let lines = lines_about(metrics, wait, &format!("process=\"{program}\""));
    let timed = lines.iter().any(|line| line.starts_with("smtp_data_final_reply_seconds_count{"));
    (lines.iter().filter(|line| line.starts_with("smtp_commands_total{") && !line.ends_with(" 0")).count(), timed)
}

#[test]
fn one_users_many_programs_do_not_take_the_labels_of_the_hosts_own() {
    const ALL: (usize, bool) = (5, true);
    let mut metrics = metrics([]);
    let flood = |metrics: &mut Metrics, wait: Duration, numbers: std::ops::Range<u32>| {
        for number in numbers {
            let program = Sample::client().with_program(number, &format!("/home/user/{number}")).of_user(1000);
            session(metrics, wait, &program);
        }
    };
    flood(&mut metrics, Duration::ZERO, 0..20_000);
    assert_eq!(metrics.programs.len(), Standing::Passing.room(MAX_PROGRAMS));

    // The host's own come after it all: root's, a system user's, one that systemd has made.
    let own = [("smtpd", 0), ("submit", 999), ("bridge", 61_184)];
    for (name, uid) in own {
        let program = Sample::server().with_program(1, &format!("/usr/bin/{name}")).of_user(uid);
        session(&mut metrics, Duration::ZERO, &program);
        assert_eq!(shown(&mut metrics, Duration::ZERO, name), ALL, "{name}");
    }
    // A daemon of some user, while that one goes on.
    let daemon = Sample::server().with_program(1, "/opt/app/mailer").of_user(1001);
    session(&mut metrics, Duration::ZERO, &daemon);
    assert_eq!(shown(&mut metrics, Duration::ZERO, "mailer"), (0, false), "it may be one of many");
    flood(&mut metrics, LASTING / 2, 20_000..20_500);
    session(&mut metrics, LASTING / 2, &daemon);
    assert_eq!(shown(&mut metrics, LASTING / 2, "mailer"), (0, false));
    flood(&mut metrics, LASTING, 20_500..21_000);
    session(&mut metrics, LASTING, &daemon);
    assert_eq!(shown(&mut metrics, LASTING, "mailer"), ALL, "it is there for long");
    for (name, _) in own {
        assert_eq!(shown(&mut metrics, LASTING, name), ALL, "{name}");
    }
}

/// Also where a user's lasting programs have taken all that is kept for such.
#[test]
fn lasting_programs_leave_room_for_the_systems_own() {
    let mut metrics = metrics([]);
    for wait in [Duration::ZERO, LASTING] {
        for number in 0..2 * MAX_PROGRAMS as u32 {
            let program = Sample::client().with_program(number, &format!("/home/user/{number}")).of_user(1000);
            session(&mut metrics, wait, &program);
        }
    }
    assert_eq!(metrics.programs.len(), Standing::Lasting.room(MAX_PROGRAMS));
    session(&mut metrics, LASTING, &Sample::server().with_program(1, "/usr/sbin/smtpd").of_user(0));
    assert_eq!(shown(&mut metrics, LASTING, "smtpd"), (5, true));
}

#[test]
fn the_kernels_counts_are_cumulative() {
    let mut metrics = metrics([]);
    metrics.set_kernel([("state", 5)], [("ring_full", 0)], [("sock_send_length", 0)], [("long", 7)]);
    metrics.set_kernel([("state", 8)], [("ring_full", 2)], [("sock_send_length", 4)], [("long", 7)]);
    metrics.set_dropped("events", 3);
    assert_lines(
        &mut metrics,
        &[
            r#"smtp_observer_kernel_events_total{kind="state"} 8"#,
            r#"smtp_observer_kernel_events_lost_total{kind="ring_full"} 2"#,
            r#"smtp_observer_recursion_misses_total{program="sock_send_length"} 4"#,
            r#"smtp_observer_uncaptured_bytes_total{cause="long"} 7"#,
            r#"smtp_observer_sink_dropped_total{sink="events"} 3"#,
        ],
    );
}

#[test]
fn classes_of_codes() {
    let classes = [Some(220), Some(354), Some(421), Some(550), Some(150), Some(999), None].map(code_class);
    assert_eq!(classes.map(|class| CLASSES[class]), ["2xx", "3xx", "4xx", "5xx", "other", "other", "none"]);
    assert_eq!(Duration::from_secs_f64(BUCKETS[0]), Duration::from_micros(100));
}

/// What is seen so long after the first.
fn after(wait: Duration, fact: Fact<'static>) -> Fact<'static> {
    Fact { time: fact.time.after(wait), ..fact }
}

/// The verdict that `program` is in the middle of `client`'s connection.
fn interception(client: &Sample, program: &Sample) -> Fact<'static> {
    client.fact(facts::interception(verdict(client, program)))
}

fn verdict(client: &Sample, program: &Sample) -> Interception {
    Interception {
        verdict: Verdict::TransparentInterceptor,
        method: Method::Redirect,
        interceptor: Some(program.caller()),
        product: None,
        client: InterceptedClient {
            process: Some(client.caller()),
            connection_id: "b-1".into(),
            requested: samples::endpoint("192.0.2.25", 25),
        },
        upstream: None,
        confidence: 0.99,
        evidence: Vec::new(),
        hold: Some(Duration::from_secs(2)),
        news: News { hidden: true, appears: true, hold: true, ..News::default() },
    }
}

fn lines_about(metrics: &mut Metrics, wait: Duration, what: &str) -> Vec<String> {
    let text = metrics.text(Format::Text, samples::TIME.after(wait)).expect("encodes");
    text.lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
}

/// Each kind of series, histograms among them.
#[test]
fn a_program_that_is_gone_takes_its_series_along() {
    let sample = Sample::server();
    let everything = || {
        [
            sample.fact(facts::opened()),
            sample.fact(greeting()),
            sample.fact(command("EHLO", 250)),
            sample.fact(data()),
            sample.fact(facts::transaction(Outcome::Delivered)),
            sample.fact(facts::rset(RsetReason::RecipientsRejected)),
            sample.fact(facts::noop(NoopReason::IdleKeepalive)),
            sample.fact(tls_started()),
            sample.fact(facts::anomaly(AnomalyKind::BareLf)),
        ]
    };
    let mut metrics = metrics(everything());
    assert!(lines_about(&mut metrics, 3 * GONE, "smtpd").len() > 100, "its connection is open");

    let over = 3 * GONE;
    metrics.observe(&after(over, sample.fact(facts::closed())));
    let left = over + GONE;
    assert!(lines_about(&mut metrics, left, "smtpd").len() > 100, "it was seen an hour ago, and not longer");
    assert_eq!(lines_about(&mut metrics, left + 2 * LOOK, "smtpd"), [""; 0]);
    assert_eq!(metrics.programs.len(), 0);

    // It comes back, and counts from zero on.
    for fact in everything() {
        metrics.observe(&after(5 * GONE, fact));
    }
    let counted = r#"smtp_commands_total{code_class="2xx",process="smtpd",role="server",verb="EHLO"} 1"#;
    assert_eq!(lines_about(&mut metrics, 5 * GONE, r#"2xx",process="smtpd",role="server",verb="EHLO"}"#), [counted]);
    let timed = r#"smtp_data_final_reply_seconds_count{process="smtpd",role="server"} 1"#;
    assert_eq!(lines_about(&mut metrics, 5 * GONE, "final_reply_seconds_count"), [timed]);
}

/// With `--addresses full`, events show it.
#[test]
fn a_mailbox_is_no_label() {
    let program = Sample::server().with_program(7, "/srv/bob@x.example/bob@x.example.pl");
    let client = Sample::client().with_program(8, "/bin/swaks");
    let mut metrics = metrics([program.fact(facts::opened()), interception(&client, &program)]);
    let text = text(&mut metrics);
    assert!(!text.contains("bob"), "{text}");
    for label in [r#"process="*@x.example.pl""#, r#"executable="/srv/*@x.example/*@x.example.pl""#] {
        assert!(text.contains(label), "{label} is not in {text}");
    }
}

#[test]
fn a_clock_that_was_set_ends_nothing_early_or_late() {
    const SET: Duration = Duration::from_secs(5 * 3600);
    let by = SET.as_nanos() as i64;
    let sample = Sample::server();
    for (before, by, behind) in [(Duration::ZERO, by, SET), (SET, -by, Duration::ZERO)] {
        let mut metrics = metrics([facts::opened(), facts::closed()].map(|fact| after(before, sample.fact(fact))));
        metrics.set_clock(by);
        assert!(lines_about(&mut metrics, behind + GONE, "smtpd").len() > 100, "it was seen an hour ago");
        assert_eq!(lines_about(&mut metrics, behind + GONE + 2 * LOOK, "smtpd"), [""; 0]);
    }
}

#[test]
fn programs_that_are_gone_make_room() {
    let program = |number: usize| Sample::server().with_program(7, &format!("/tmp/{number}"));
    let mut metrics = metrics(
        (0..=MAX_PROGRAMS)
            .flat_map(|number| [program(number).fact(facts::opened()), program(number).fact(facts::closed())]),
    );
    assert_lines(&mut metrics, &[r#"smtp_connections_total{process="other",role="server"} 1"#]);
    let late = program(MAX_PROGRAMS + 1);
    metrics.observe(&after(GONE + 2 * LOOK, late.fact(facts::opened())));
    assert_eq!(metrics.programs.len(), 1);
    assert_eq!(
        lines_about(&mut metrics, Duration::ZERO, "smtp_connections_total{"),
        [
            format!(r#"smtp_connections_total{{process="{}",role="server"}} 1"#, MAX_PROGRAMS + 1),
            r#"smtp_connections_total{process="other",role="server"} 1"#.to_owned(),
        ],
        "what was counted as other stays"
    );
}

/// No program can have the series of those that are not told apart end.
#[test]
fn a_program_may_call_itself_other() {
    let others = ["/tmp/other", "/tmp/unknown"].map(|path| Sample::server().with_program(7, path));
    let mut metrics =
        metrics(others.iter().flat_map(|sample| [sample.fact(facts::opened()), sample.fact(facts::closed())]));
    assert_eq!(metrics.programs.len(), 0);
    assert_eq!(lines_about(&mut metrics, 2 * GONE, "smtp_connections_total{").len(), 2);
}

#[test]
fn an_interceptor_is_described_until_it_is_gone() {
    let (client, program) = (Sample::client(), Sample::server().with_program(99, "/opt/antivirus/proxy"));
    let mut metrics = metrics([interception(&client, &program)]);
    assert_lines(
        &mut metrics,
        &[
            concat!(
                r#"smtp_interceptor_info{executable="/opt/antivirus/proxy",interceptor="proxy",method="redirect","#,
                r#"pid="99",uid="101"} 1"#
            ),
            r#"smtp_intercepted_connections_total{client="perl",interceptor="proxy",method="redirect"} 1"#,
            r#"smtp_interception_data_delay_seconds_count{interceptor="proxy"} 1"#,
        ],
    );
    // Whatever it does, it is there.
    metrics.observe(&after(GONE, program.fact(facts::noop(NoopReason::IdleKeepalive))));
    metrics.observe(&after(GONE, client.fact(facts::noop(NoopReason::IdleKeepalive))));
    let described = |metrics: &mut Metrics, wait| lines_about(metrics, wait, "smtp_interceptor_info{").len();
    assert_eq!(described(&mut metrics, 2 * GONE), 1);
    // The same program as another process.
    metrics
        .observe(&after(2 * GONE, interception(&client, &program.clone().with_program(100, "/opt/antivirus/proxy"))));
    assert_eq!(described(&mut metrics, 2 * GONE + 2 * LOOK), 1, "that process is gone");
    assert_eq!(
        lines_about(&mut metrics, 2 * GONE + 2 * LOOK, "proxy\",method=\"redirect\"} 2").len(),
        1,
        "not the program"
    );
    assert_eq!(lines_about(&mut metrics, 3 * GONE + 3 * LOOK, "proxy"), [""; 0]);
}

/// A process is in the middle as long as one of its conversations says so: what is withdrawn is not there.
#[test]
fn an_interceptor_is_described_until_no_conversation_says_so() {
    let (client, program) = (Sample::client(), Sample::server().with_program(99, "/opt/antivirus/proxy"));
    let withdrawn = |program: &Sample| {
        let news = News { withdrawn: true, ..News::default() };
        let interception = Interception { verdict: Verdict::Direct, hold: None, news, ..verdict(&client, program) };
        client.fact(facts::interception(interception))
    };
    let mut metrics = metrics([interception(&client, &program), interception(&client, &program)]);
    let described = |metrics: &mut Metrics| lines_about(metrics, Duration::ZERO, "smtp_interceptor_info{").len();
    // Another program has its number by now.
    metrics.observe(&withdrawn(&Sample::server().with_program(99, "/usr/sbin/smtpd")));
    metrics.observe(&withdrawn(&program));
    assert_eq!(described(&mut metrics), 1);
    metrics.observe(&withdrawn(&program));
    assert_eq!(described(&mut metrics), 0);
    metrics.observe(&withdrawn(&program));
    metrics.observe(&interception(&client, &program));
    assert_eq!(described(&mut metrics), 1);
    // A program that gets its number does not keep it there.
    metrics.observe(&after(GONE, Sample::server().with_program(99, "/usr/sbin/smtpd").fact(facts::opened())));
    assert_eq!(lines_about(&mut metrics, GONE + LOOK, "smtp_interceptor_info{"), [""; 0]);
}

/// Who reads the metrics on a terminal reads text, whatever a program calls itself.
#[test]
fn names_are_shown_as_text() {
    let program = Sample::server().with_program(7, "/tmp/\u{1b}[31m/a\"\\\u{202e}b\n");
    let mut metrics = metrics([program.fact(facts::opened()), interception(&Sample::client(), &program)]);
    assert_lines(
        &mut metrics,
        &[
            r#"smtp_connections_open{process="a___b_",role="server"} 1"#,
            concat!(
                r#"smtp_interceptor_info{executable="/tmp/_[31m/a___b_",interceptor="a___b_",method="redirect","#,
                r#"pid="7",uid="101"} 1"#
            ),
        ],
    );
}

#[test]
fn interceptors_are_described_in_a_bounded_number() {
    let client = Sample::client();
    let mut metrics =
        metrics((0..100).map(|pid| interception(&client, &Sample::server().with_program(pid, "/bin/proxy"))));
    let described = lines_about(&mut metrics, Duration::ZERO, "smtp_interceptor_info{");
    assert!(described.len() <= 64 && described.iter().any(|line| line.contains(r#"pid="99""#)), "{described:#?}");
}

/// The library takes label values for the same that do not differ when they are written in a row.
#[test]
fn pairs_of_programs_are_told_apart() {
    let pair = |client: &str, program: &str| {
        interception(&Sample::client().with_program(1, client), &Sample::server().with_program(2, program))
    };
    let mut metrics = metrics([pair("/bin/c", "/bin/ab"), pair("/bin/bc", "/bin/a")]);
    assert_lines(
        &mut metrics,
        &[
            r#"smtp_intercepted_connections_total{client="c",interceptor="ab",method="redirect"} 1"#,
            r#"smtp_intercepted_connections_total{client="other",interceptor="other",method="other"} 1"#,
        ],
    );
}

#[test]
fn what_may_be_counted_begins_at_zero() {
    let mut metrics = metrics([Sample::client().fact(facts::opened())]);
    assert_lines(
        &mut metrics,
        &[
            r#"smtp_commands_total{code_class="5xx",process="perl",role="client",verb="RCPT"} 0"#,
            r#"smtp_rset_total{process="perl",reason="interceptor_replay",role="client"} 0"#,
            r#"smtp_noop_total{process="perl",reason="interceptor_keepalive",role="client"} 0"#,
            r#"smtp_transactions_total{outcome="rejected",process="perl",role="client"} 0"#,
            r#"smtp_tls_sessions_total{process="perl",role="client",version="1.3",visible="false"} 0"#,
            r#"smtp_data_bytes_total{process="perl",role="client"} 0"#,
            r#"smtp_data_final_reply_seconds_count{process="perl",role="client"} 0"#,
            r#"smtp_rset_duration_seconds_count{process="perl",role="client"} 0"#,
        ],
    );
}

#[test]
fn kinds_of_anomalies_that_never_happened_are_not_listed() {
    let kind = AnomalyKind::BareLf;
    let mut metrics = metrics([Sample::client().fact(facts::opened()), Sample::client().fact(facts::anomaly(kind))]);
    let text = text(&mut metrics);
    let listed: Vec<_> = text.lines().filter(|line| line.starts_with("smtp_anomalies_total{")).collect();
    assert_eq!(listed, [r#"smtp_anomalies_total{kind="bare_lf",process="perl",role="client"} 1"#]);
}
