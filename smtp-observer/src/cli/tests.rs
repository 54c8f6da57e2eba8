use clap::CommandFactory as _;
use tracing::level_filters::LevelFilter;

use super::*;

fn parse(arguments: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["smtp-observer"].into_iter().chain(arguments.split_whitespace()))
}

fn run(arguments: &str) -> Result<Run, ConfigError> {
    match parse(arguments).expect("valid arguments").command {
        Command::Run(args) => args.resolve(),
        other => panic!("not run: {other:?}"),
    }
}

fn config(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("writable");
    file
}

fn config_error(text: &str) -> String {
    let file = config(text);
    let error = run(&format!("run --config {}", file.path().display())).expect_err("invalid");
    let text = error.to_string();
    assert!(text.contains(&file.path().display().to_string()), "names the file: {text}");
    text
}

#[test]
fn service_addresses_are_blocks_or_single_addresses() {
    let run = run("run --service-address 10.96.0.0/12,192.0.2.7 --service-address 2001:db8::/32").expect("usable");
    let blocks: Vec<String> = run.observe.service_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(blocks, ["10.96.0.0/12", "192.0.2.7/32", "2001:db8::/32"]);
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn defaults() {
    let run = run("run").expect("valid");
    assert_eq!(run.observe.ports.as_slice(), [25]);
    assert_eq!(run.observe.hooks, Hooks::Auto);
    assert_eq!(run.observe.addresses, Addresses::Domain);
    assert_eq!(run.observe.ring_size.bytes(), 4 << 20);
    assert_eq!(run.observe.duration, None);
    assert_eq!(run.events, None);
    assert_eq!(run.listen.to_string(), "127.0.0.1:9725");
    assert_eq!((run.web_config_file, run.allowed_hosts), (None, Vec::new()));
}

#[test]
fn the_file_fills_what_the_command_line_leaves() {
    let file = config(
        "port = [25, 587]\nhooks = \"tracepoint\"\naddresses = \"none\"\nevents = \"/var/log/events\"\n\
         listen = \"[::1]:9000\"\nduration = \"2m\"\nring-size = \"16MiB\"\n\
         web-config-file = \"/etc/web.yml\"\nallowed-host = [\"a.example\", \"b.example\"]\n",
    );
    let path = file.path().display();
    let from_file = run(&format!("run --config {path}")).expect("valid");
    assert_eq!(from_file.observe.ports.as_slice(), [25, 587]);
    assert_eq!(from_file.observe.hooks, Hooks::Tracepoint);
    assert_eq!(from_file.observe.addresses, Addresses::None);
    assert_eq!(from_file.observe.duration, Some(Duration::from_secs(120)));
    assert_eq!(from_file.observe.ring_size.bytes(), 16 << 20);
    assert_eq!(from_file.events, Some(Destination::File("/var/log/events".into())));
    assert_eq!(from_file.listen.to_string(), "[::1]:9000");
    assert_eq!(from_file.web_config_file.as_deref(), Some(Path::new("/etc/web.yml")));
    assert_eq!(from_file.allowed_hosts, ["a.example", "b.example"]);

    let both = run(&format!(
        "run --config {path} --port 2525 --hooks fentry --addresses full --events - --listen 127.0.0.1:1 \
         --duration 500ms --ring-size 512KiB --web-config-file /web.yml --allowed-host c.example"
    ))
    .expect("valid");
    assert_eq!(both.observe.ports.as_slice(), [2525]);
    assert_eq!(both.observe.hooks, Hooks::Fentry);
    assert_eq!(both.observe.addresses, Addresses::Full);
    assert_eq!(both.observe.duration, Some(Duration::from_millis(500)));
    assert_eq!(both.observe.ring_size.bytes(), 512 << 10);
    assert_eq!(both.events, Some(Destination::StandardOutput));
    assert_eq!(both.listen.to_string(), "127.0.0.1:1");
    assert_eq!(both.web_config_file.as_deref(), Some(Path::new("/web.yml")));
    assert_eq!(both.allowed_hosts, ["c.example"]);
}

#[test]
fn the_file_takes_what_the_command_line_takes() {
    for (networks, hosts, user) in [
        ("\"10.0.0.0/8, 192.0.2.7\"", "\"a.example, b.example\"", "4242"),
        ("[\"10.0.0.0/8\", \"192.0.2.7\"]", "[\"a.example\", \"b.example\"]", "\"4242\""),
    ] {
        let file = config(&format!("service-address = {networks}\nallowed-host = {hosts}\nuser = {user}\n"));
        let run = run(&format!("run --config {}", file.path().display())).expect("valid");
        let blocks: Vec<String> = run.observe.service_addresses.iter().map(ToString::to_string).collect();
        assert_eq!(blocks, ["10.0.0.0/8", "192.0.2.7/32"]);
        assert_eq!(run.allowed_hosts, ["a.example", "b.example"]);
        assert_eq!(run.observe.user.as_deref(), Some("4242"));
    }
    assert!(config_error("service-address = 5\n").contains("`5` is neither an address nor"));
    assert!(config_error("allowed-host = \"http://a\"\n").contains("`http://a`"));
    assert!(config_error("user = true\n").contains("`user`: a text is needed here, and not a TOML boolean"));
}

#[test]
fn one_file_serves_every_command() {
    let file = config("port = \"25,2525\"\nlisten = \"127.0.0.1:1\"\n");
    match parse(&format!("trace --json --config {}", file.path().display())).expect("valid").command {
        Command::Trace(args) => {
            let trace = args.resolve().expect("valid");
            assert_eq!(trace.observe.ports.as_slice(), [25, 2525]);
            assert!(trace.json);
        }
        other => panic!("not trace: {other:?}"),
    }
}

#[test]
fn top_observes_as_the_others_do() {
    let file = config("port = 2525\nrecord = \"/var/tmp/from-file\"\n");
    let arguments = format!("top --hooks tracepoint --duration 5s --config {}", file.path().display());
    match parse(&arguments).expect("valid").command {
        Command::Top(args) => {
            let observe = args.resolve().expect("valid");
            assert_eq!((observe.ports.as_slice(), observe.hooks), (&[2525][..], Hooks::Tracepoint));
            assert_eq!((observe.record, observe.duration), (None, Some(Duration::from_secs(5))));
        }
        other => panic!("not top: {other:?}"),
    }
}

#[test]
fn the_recording_of_a_file_is_that_of_run() {
    let file = config("record = \"/var/tmp/from-file\"\n");
    let file = file.path().display();
    let record = |run: Result<Run, ConfigError>| run.expect("valid").observe.record;
    assert_eq!(record(run(&format!("run --config {file}"))), Some("/var/tmp/from-file".into()));
    assert_eq!(record(run(&format!("run --config {file} --record other"))), Some("other".into()));
    let traced = |arguments: &str| match parse(arguments).expect("valid").command {
        Command::Trace(args) => args.resolve().expect("valid").observe.record,
        other => panic!("not trace: {other:?}"),
    };
    assert_eq!(traced(&format!("trace --config {file}")), None);
    assert_eq!(traced(&format!("trace --config {file} --record other")), Some("other".into()));
}

#[test]
fn a_replay_takes_a_file_or_standard_input() {
    let source = |arguments: &str| match parse(arguments).expect("valid").command {
        Command::Replay(args) => args.file,
        other => panic!("not replay: {other:?}"),
    };
    assert_eq!(source("replay -"), Source::StandardInput);
    assert_eq!(source("replay ./-"), Source::File("./-".into()));
    match parse("compare - server.jsonl").expect("valid").command {
        Command::Compare(args) => {
            assert_eq!((args.client, args.server), (Source::StandardInput, Source::File("server.jsonl".into())));
        }
        other => panic!("not compare: {other:?}"),
    }
}

#[test]
fn a_wrong_file_is_named_with_the_line_and_the_key() {
    let unknown = config_error("port = 25\nprot = 26\n");
    assert!(unknown.contains("line 2") && unknown.contains("`prot`"), "{unknown}");
    for (text, words) in [
        ("port = 0", "`port`: port 0"),
        ("port = 70000", "`port`: `70000`"),
        ("port = -1", "`port`: `-1` is not a port"),
        ("port = [25, 25]", "`port`: port 25 is given twice"),
        ("port = [25, \"x\"]", "`port`: `x` is not a port"),
        ("port = []", "`port`: at least one port is needed"),
        ("hooks = \"kprobe\"", "`hooks`: `kprobe` is none of auto, fentry, tracepoint"),
        ("hooks = true", "`hooks`: a text is needed here, and not a TOML boolean"),
        ("tls = \"yes\"", "`tls`: `yes` is none of auto, all, off"),
        ("addresses = \"all\"", "`addresses`: `all` is none of full, domain, none"),
        ("duration = \"soon\"", "`duration`: `soon` is not a time"),
        ("duration = 5", "`duration`: `5` is not a time"),
        ("ring-size = \"5MiB\"", "`ring-size`: a ring buffer of 5MiB cannot be: its size is a power of two"),
        ("verbose = true", "`verbose`: a text is needed here, and not a TOML boolean"),
        ("verbose = 300", "`verbose`: `300` is not how often"),
        ("listen = \"localhost:9725\"", "`listen`: `localhost:9725` is not an address with a port"),
        ("record = \"-\"", "`record`: a recording goes to a new file, and not to standard output"),
        ("record = \"\"", "`record`: no file has an empty name"),
        ("events = \"\"", "`events`: no file has an empty name"),
        ("events = 3", "`events`: a file's name is needed here, in quotes, and not a TOML integer"),
        ("[run]\nport = 25", "`run`: no option of the file has this name"),
        ("port = ", "line 1"),
    ] {
        let error = config_error(&format!("{text}\n"));
        assert!(error.contains("line 1") && error.contains(words), "{text}: {error}");
    }
    let first = config_error("tls = \"no\"\nport = 0\n");
    assert!(first.contains("line 1: `tls`"), "{first}");
}

#[test]
fn an_unreadable_file_is_one_sentence_and_the_mend() {
    let error = run("run --config /nonexistent/observer.toml").expect_err("unreadable");
    assert_eq!(
        error.to_string(),
        "cannot read the configuration /nonexistent/observer.toml: no such file or directory. \
         Give another with --config FILE."
    );
}

#[test]
fn durations() {
    assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
    assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
    assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
    for text in ["", "10", "-10s", "0s", "ten seconds", "10 parsecs"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn host_names_are_taken_and_nothing_else() {
    for name in ["observer", "observer.example", "mx_1.mail-server.example", "192.0.2.1"] {
        assert_eq!(parse_host_name(name).as_deref(), Ok(name));
    }
    for text in ["", "bad host", "a..b", ".a", "http://a", "a:9725", "[::1]", "bücher.example", &"a".repeat(64)] {
        assert!(parse_host_name(text).is_err_and(|error| error.starts_with(&format!("`{text}` is no host's name"))));
    }
}

#[test]
fn wrong_usage_is_refused() {
    for arguments in [
        "",
        "observe",
        "run --nonsense",
        "run --port 0",
        "run --port 25,25",
        "run --hooks kprobe",
        "run --addresses some",
        "run --listen 9725",
        "run --duration 10",
        "run --ring-size 4MB",
        "run --json",
        "trace --listen 127.0.0.1:1",
        "run --tls some",
        "run --events=",
        "run --record",
        "run --record -",
        "trace --record -",
        "connections --record file",
        "replay",
        "replay file --events -",
        "replay file --pid 0",
        "trace --process /usr/bin/perl",
        "trace --verb RCPT:",
        "run --verb RCPT",
        "compare client.jsonl",
        "compare client.jsonl server.jsonl other.jsonl",
        "top --json",
        "top --listen 127.0.0.1:1",
    ] {
        assert!(parse(arguments).is_err(), "{arguments}");
    }
}

#[test]
fn verbosity() {
    let level = |arguments| {
        parse(arguments).map(|cli| (cli.verbosity().log_level(), cli.verbosity().diagnostics())).expect("valid")
    };
    assert_eq!(level("run"), (LevelFilter::INFO, LevelFilter::OFF));
    assert_eq!(level("run -v"), (LevelFilter::DEBUG, LevelFilter::DEBUG));
    assert_eq!(level("-vv run"), (LevelFilter::TRACE, LevelFilter::TRACE));
}
