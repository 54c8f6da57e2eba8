//! The view on a terminal in memory.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Position;
use ratatui::style::{Color, Modifier};

use super::{Moment, Theme, View, Wish};
use crate::observation::{
    Anomaly, AnomalyKind, Event, Evidence, EvidenceKind, Greeting, InterceptedClient, Interception, Method, News,
    Observation, Timestamp, Upstream, Verdict,
};
use crate::sink::connection_table::ConnectionTable;
use crate::sink::samples::{self, Sample, TIME, endpoint};

/// A view, what it shows, and a terminal.
struct Show {
    view: View,
    table: ConnectionTable,
    terminal: Terminal<TestBackend>,
    now: Timestamp,
    lost: u64,
}

impl Show {
    fn new(width: u16, height: u16) -> Self {
        Self::with_theme(width, height, Theme { colour: true })
    }

    fn with_theme(width: u16, height: u16, theme: Theme) -> Self {
        Self {
            view: View::new("port 25, tracepoint hooks".into(), theme, TimeZone::UTC),
            table: ConnectionTable::with_transcripts(100),
            terminal: Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory"),
            now: Timestamp(TIME.0 + Duration::from_secs(12).as_nanos() as i64),
            lost: 0,
        }
    }

    fn take(&mut self, observations: impl IntoIterator<Item = Observation>) {
        observations.into_iter().for_each(|observation| self.table.take(observation));
    }

    fn moment<T>(&mut self, look: impl FnOnce(&mut View, &mut Terminal<TestBackend>, &Moment<'_>) -> T) -> T {
        let bytes = |_: &_| Some((311, 2290));
        let moment = Moment { time: self.now, table: &self.table, bytes: &bytes, lost: self.lost };
        look(&mut self.view, &mut self.terminal, &moment)
    }

    /// Draws; the lines of the screen.
    fn lines(&mut self) -> Vec<String> {
        self.moment(|view, terminal, moment| {
            terminal.draw(|frame| view.draw(moment, frame)).expect("drawn");
        });
        let buffer = self.buffer();
        let line =
            |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..buffer.area.height).map(line).collect()
    }

    fn buffer(&self) -> &Buffer {
        self.terminal.backend().buffer()
    }

    /// Draws and types, one key after the other.
    fn press(&mut self, keys: &[KeyCode]) -> Option<Wish> {
        let mut wish = None;
        for key in keys {
            self.lines();
            wish = self.moment(|view, _, moment| view.key(KeyEvent::from(*key), moment));
        }
        wish
    }

    fn type_text(&mut self, text: &str) -> Option<Wish> {
        text.chars().map(KeyCode::Char).fold(None, |_, key| self.press(&[key]))
    }

    /// The programs that are listed, from the top.
    fn programs(&mut self) -> Vec<String> {
        let lines = self.lines();
        let from = lines[3][..lines[3].find("PROGRAM").expect("a column")].chars().count();
        let rows = lines[4..lines.len() - 1].iter().filter(|line| !line.is_empty());
        rows.map(|line| line.chars().skip(from).take_while(|character| *character != ' ').collect()).collect()
    }

    /// The program in the selected line.
    fn selected(&mut self) -> Option<String> {
        let programs = self.programs();
        let buffer = self.buffer();
        let reversed = |y: u16| buffer[(0, y)].modifier.contains(Modifier::REVERSED);
        programs.into_iter().zip(4..).find(|(_, y)| reversed(*y)).map(|(program, _)| program)
    }

    /// The colour of this text's first character.
    fn colour_of(&mut self, text: &str) -> Color {
        let lines = self.lines();
        let (y, line) = lines.iter().enumerate().find(|(_, line)| line.contains(text)).expect("on the screen");
        let x = line[..line.find(text).expect("there")].chars().count();
        self.buffer()[(x as u16, y as u16)].fg
    }
}

fn numbered(number: u32) -> Sample {
    let [_, high, middle, low] = number.to_be_bytes();
    let local = endpoint(&format!("10.{high}.{middle}.{low}"), 40_000);
    Sample::client()
        .with_id(&format!("b-{number}"))
        .with_program(1000 + number, &format!("/usr/bin/program-{number}"))
        .between(local, endpoint("192.0.2.25", 25))
}

fn program(name: &str, pid: u32) -> Sample {
    numbered(pid).with_program(pid, &format!("/usr/bin/{name}"))
}

fn verdict(client: &Sample, verdict: Verdict, upstream: &Sample) -> Observation {
    let evidence = [
        (EvidenceKind::LocalPeer, "it ends on this host at 127.0.0.1:10025"),
        (EvidenceKind::DataHeldBack, "the server got DATA 2.5 s after the client's"),
    ];
    client.at(Event::Interception(Box::new(Interception {
        verdict,
        method: Method::Redirect,
        interceptor: Some(upstream.caller()),
        product: None,
        client: InterceptedClient {
            process: Some(client.caller()),
            connection_id: client.opened().connection.id.clone(),
            requested: endpoint("192.0.2.25", 25),
        },
        upstream: Some(Upstream {
            connection_id: upstream.opened().connection.id.clone(),
            remote: endpoint("192.0.2.25", 25),
            source_preserved: false,
        }),
        confidence: 0.99,
        evidence: evidence.map(|(kind, detail)| Evidence { kind, detail: detail.into() }).into(),
        hold: Some(Duration::from_millis(2500)),
        news: News::default(),
    })))
}

/// A client, the program in its middle, and a bystander.
fn intercepted(width: u16, height: u16) -> Show {
    let mut show = Show::new(width, height);
    let (client, proxy, other) = (program("mail-client", 7), program("antivirus-proxy", 8), program("swaks", 9));
    show.take([client.opened(), proxy.opened(), other.opened()]);
    show.take([client.at(samples::greeting()), client.at(samples::command("DATA", 354))]);
    show.take([proxy.at(samples::command("RSET", 250)), other.at(samples::command("RCPT", 550))]);
    show.take([verdict(&client, Verdict::TransparentInterceptor, &proxy), other.at(samples::rset())]);
    show.take([other.at(samples::ambiguous())]);
    show
}

#[test]
fn the_table_at_80_by_24() {
    let mut show = intercepted(80, 24);
    show.lost = 3;
    let lines = show.lines();
    assert_eq!(lines.len(), 24);
    for (line, expected) in [
        (0, "smtp-observer top, port 25, tracepoint hooks: 3 open                    17:04:17"),
        (1, "Interceptors: 1  antivirus-proxy[8]"),
        (2, "Events lost: 3   RSETs: 2, unusual: recipients_rejected 1, ambiguous 1"),
        (3, "    PID PROGRAM         PEER              LAST       AGE WHY▼"),
        (4, "      7 mail-client     → 192.0.2.25:25   DATA 354   12s transparent_interceptor"),
        (5, "      8 antivirus-proxy → 192.0.2.25:25   RSET 250   12s interceptor"),
        (6, "      9 swaks           → 192.0.2.25:25   RCPT 550   12s ambiguous"),
        (7, ""),
    ] {
        assert_eq!(lines[line], expected);
    }
    assert_eq!(lines[23], " ? Help  q Quit  Enter Details  / Filter  <> Sort  r Reverse  Space Pause");
}

#[test]
fn colours_say_what_asks_for_a_look_and_can_be_left_out() {
    let mut show = intercepted(80, 24);
    assert_eq!(show.colour_of("antivirus-proxy[8]"), Color::Red);
    assert_eq!(show.colour_of("antivirus-proxy →"), Color::Red);
    assert_eq!(show.colour_of("transparent_inter"), Color::Red);
    assert_eq!(show.colour_of("ambiguous 1"), Color::Yellow);
    assert_eq!(show.colour_of("RSET 250"), Color::Green);
    assert_eq!(show.colour_of("RCPT 550"), Color::Red);
    assert_eq!(show.colour_of("mail-client"), Color::Reset);

    let coloured = show.lines();
    show.view = View::new("port 25, tracepoint hooks".into(), Theme { colour: false }, TimeZone::UTC);
    assert_eq!(show.lines(), coloured);
    for keys in [&[][..], &[KeyCode::Enter], &[KeyCode::Esc, KeyCode::Char('?')]] {
        show.press(keys);
        show.lines();
        assert!(show.buffer().content.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
    }
}

#[test]
fn a_wide_terminal_has_more() {
    let lines = intercepted(160, 12).lines();
    assert_eq!(
        lines[3],
        "    PID USER     PROGRAM         ROLE   LOCAL                 PEER                    STATE     LAST       SENT   \
         RCVD   AGE WHY▼"
    );
    assert_eq!(
        lines[4],
        "      7 postfix  mail-client     client 10.0.0.7:40000        → 192.0.2.25:25         content   DATA 354    311   \
         2290   12s transparent_interceptor"
    );
}

#[test]
fn a_terminal_that_is_too_small_says_so() {
    for (width, height) in [(39, 24), (80, 7), (10, 10), (1, 1)] {
        let lines = intercepted(width, height).lines();
        let text = lines.join(" ");
        assert!(text.starts_with("This terminal is too small"[..usize::from(width).min(4)].trim_end()), "{text}");
        assert!(!text.contains("mail-client"), "{text}");
    }
    assert_eq!(intercepted(40, 8).programs(), ["mail-client", "antivirus-proxy", "swaks"]);
}

#[test]
fn it_follows_the_terminals_size() {
    let mut show = intercepted(80, 24);
    show.lines();
    show.terminal.backend_mut().resize(120, 40);
    assert!(show.lines()[3].contains("STATE"));
    show.terminal.backend_mut().resize(50, 10);
    let lines = show.lines();
    assert!(lines[4].starts_with("mail-client") && lines.len() == 10, "{lines:#?}");
}

#[test]
fn it_sorts_by_every_column_both_ways() {
    let mut show = Show::new(160, 24);
    // By program and pid in one order, by all else in the other.
    let first = program("aaa", 1).between(endpoint("10.0.0.9", 2), endpoint("192.0.2.26", 25));
    let second = program("bbb", 2).between(endpoint("10.0.0.1", 1), endpoint("192.0.2.25", 25));
    show.take([first.opened(), first.at(samples::command("RCPT", 250))]);
    show.take([second.later(samples::greeting(), Duration::from_secs(1))]);
    let opened = second.later(Event::ConnectionOpened { requested: None }, Duration::from_secs(1));
    show.take([opened, second.at(samples::command("MAIL", 250)), second.at(samples::rset())]);
    for (key, expected) in [
        ('N', ["aaa", "bbb"]),
        ('P', ["aaa", "bbb"]),
        ('L', ["bbb", "aaa"]),
        ('E', ["bbb", "aaa"]),
        ('S', ["aaa", "bbb"]),
        ('V', ["bbb", "aaa"]),
        ('T', ["aaa", "bbb"]),
        ('W', ["bbb", "aaa"]),
    ] {
        show.press(&[KeyCode::Char(key)]);
        if key == 'W' {
            // It is what the table is sorted by from the start.
            assert_eq!(show.view.sort.column, super::columns::Column::Why);
        }
        assert_eq!(show.programs(), expected, "{key}");
        show.press(&[KeyCode::Char(key)]);
        assert_eq!(show.programs(), [expected[1], expected[0]], "{key} the other way round");
        show.press(&[KeyCode::Char('r')]);
        assert_eq!(show.programs(), expected, "{key}, r");
    }
    let headings = |show: &mut Show| show.lines()[3].clone();
    assert!(headings(&mut show).contains("WHY▼"));
    show.press(&[KeyCode::Char('>')]);
    assert!(headings(&mut show).contains("PID▼"), "behind the last comes the first");
    show.press(&[KeyCode::Char('<'), KeyCode::Char('<')]);
    assert!(headings(&mut show).contains("AGE▼"));
    show.press(&[KeyCode::F(6)]);
    assert!(headings(&mut show).contains("WHY▼"));
}

#[test]
fn a_filter_takes_effect_as_it_is_typed() {
    let mut show = intercepted(80, 24);
    for (words, expected) in [
        ("swaks", &["swaks"][..]),
        ("SWAKS", &["swaks"]),
        ("7", &["mail-client"]),
        ("10.0.0.9", &["swaks"]),
        ("rcpt", &["swaks"]),
        ("550", &["swaks"]),
        ("transparent_inter", &["mail-client"]),
        ("ambig", &["swaks"]),
        ("interceptor", &["mail-client", "antivirus-proxy"]),
        ("192.0.2.25 rset", &["antivirus-proxy"]),
        ("192.0.2.25 nobody", &[]),
        (" ", &["mail-client", "antivirus-proxy", "swaks"]),
    ] {
        show.press(&[KeyCode::Char('/')]);
        show.type_text(words);
        let lines = show.lines();
        assert_eq!(lines[23], format!("Filter: {words}").trim_end());
        let cursor = Position::new((8 + words.len()) as u16, 23);
        show.terminal.backend_mut().assert_cursor_position(cursor);
        if expected.is_empty() {
            assert_eq!(lines[4], "No connection matches the filter.");
        } else {
            assert_eq!(show.programs(), expected, "{words}");
        }
        // Keys are text here, even those that end.
        assert_eq!(show.press(&[KeyCode::Esc]), None);
        assert_eq!(show.programs().len(), 3, "Esc drops it");
    }
    show.press(&[KeyCode::Char('/')]);
    assert_eq!(show.type_text("swaksq"), None);
    show.press(&[KeyCode::Backspace, KeyCode::Enter]);
    let lines = show.lines();
    assert!(lines[0].contains("3 open, 1 match swaks "), "{lines:#?}");
    assert_eq!(show.type_text("q"), Some(Wish::Quit));
}

#[test]
fn the_selection_follows_its_connection() {
    let mut show = Show::new(80, 12);
    show.take((0..5).map(|number| numbered(number).opened()));
    show.press(&[KeyCode::Char('N')]);
    assert_eq!(show.selected(), None, "nothing is selected by itself");
    show.press(&[KeyCode::Down, KeyCode::Down]);
    assert_eq!(show.selected().as_deref(), Some("program-1"));
    show.press(&[KeyCode::Char('N')]);
    assert_eq!(show.programs()[3], "program-1");
    assert_eq!(show.selected().as_deref(), Some("program-1"));
    // It is gone: what has come to its place is next.
    show.take([numbered(1).closed()]);
    show.now = Timestamp(TIME.0 + Duration::from_secs(60).as_nanos() as i64);
    show.table.forget(show.now);
    assert_eq!(show.selected().as_deref(), Some("program-0"));
    show.press(&[KeyCode::Char('g')]);
    assert_eq!(show.selected().as_deref(), Some("program-4"));
}

#[test]
fn a_long_list_scrolls_with_the_selection() {
    let mut show = Show::new(80, 12);
    show.take((0..100).map(|number| numbered(number).opened()));
    show.press(&[KeyCode::Char('N')]);
    // Three lines of header, the headings and the footer leave seven.
    assert_eq!(show.programs(), (0..7).map(|number| format!("program-{number}")).collect::<Vec<_>>());
    show.press(&[KeyCode::Down; 8]);
    assert_eq!(show.programs()[0], "program-1");
    assert_eq!(show.selected().as_deref(), Some("program-7"));
    show.press(&[KeyCode::PageDown]);
    assert_eq!(show.selected().as_deref(), Some("program-14"));
    show.press(&[KeyCode::End]);
    assert_eq!(show.programs(), (93..100).map(|number| format!("program-{number}")).collect::<Vec<_>>());
    show.press(&[KeyCode::Down, KeyCode::Up, KeyCode::PageUp]);
    assert_eq!(show.selected().as_deref(), Some("program-91"));
    show.press(&[KeyCode::Home]);
    assert_eq!(show.programs()[0], "program-0");
    // Fewer than before: the lines are filled again.
    show.press(&[KeyCode::End, KeyCode::Char('/')]);
    show.type_text("program-9");
    assert_eq!(show.programs().len(), 7);
}

#[test]
fn a_stopped_display_stands_and_misses_nothing() {
    let mut show = intercepted(80, 24);
    show.press(&[KeyCode::Char(' ')]);
    let stopped = show.lines();
    assert!(stopped[0].contains("PAUSED"), "{}", stopped[0]);
    show.take([numbered(50).opened(), program("swaks", 9).closed()]);
    show.now = Timestamp(show.now.0 + 1_000_000_000);
    show.lost = 9;
    assert_eq!(show.lines(), stopped);
    // It can still be sorted and looked into.
    show.press(&[KeyCode::Char('P')]);
    assert_eq!(show.programs(), ["antivirus-proxy", "mail-client", "swaks"]);
    show.press(&[KeyCode::Char(' ')]);
    assert_eq!(show.programs(), ["antivirus-proxy", "mail-client", "program-50", "swaks"]);
    let lines = show.lines();
    assert!(lines[0].contains("3 open") && lines[2].contains("lost: 9"), "{lines:#?}");
}

#[test]
fn the_detail_has_chain_evidence_and_dialogue() {
    let mut show = intercepted(80, 24);
    show.press(&[KeyCode::Enter]);
    let lines = show.lines();
    let text = lines.join("\n");
    for expected in [
        "mail-client[7], user postfix (101), client",
        "  executable /usr/bin/mail-client",
        "  10.0.0.7:40000 → 192.0.2.25:25, content, open for 12.0 s, 311 bytes sent, 2290\n    received",
        "mail-client[7] → antivirus-proxy[8] → 192.0.2.25:25",
        "transparent_interceptor (99 % sure), by redirect, DATA held for 2.50 s",
        "  local_peer: it ends on this host at 127.0.0.1:10025",
        &format!("17:04:05.123 {:22} {:34} {:>9}", "(greeting)", "220 mail.example ESMTP Postfix", "20.0 ms"),
        &format!("17:04:05.123 {:22} {:34} {:>9}", "DATA client.example", "354 mail.example (+2 lines)", "2.00 ms"),
    ] {
        assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
    }
    assert_eq!(show.colour_of("mail-client[7] → "), Color::Red);
    show.press(&[KeyCode::Esc]);
    assert_eq!(show.programs()[0], "mail-client");
    // The interceptor's own connection tells of it, too.
    show.press(&[KeyCode::Down, KeyCode::Enter]);
    let text = show.lines().join("\n");
    assert!(text.contains("antivirus-proxy[8], user") && text.contains("part of another's conversation"), "{text}");
    assert!(text.contains("mail-client[7] → antivirus-proxy[8] → "), "{text}");
}

#[test]
fn a_dialogue_is_followed_until_it_is_scrolled() {
    let mut show = Show::new(80, 12);
    let sample = numbered(1);
    show.take([sample.opened()]);
    show.take((0..40).map(|number| sample.at(samples::command(&format!("VERB{number}"), 250))));
    show.press(&[KeyCode::Enter]);
    let last = |show: &mut Show| show.lines()[10].clone();
    assert!(last(&mut show).contains("VERB39"));
    show.take([sample.at(samples::command("VERB40", 250))]);
    assert!(last(&mut show).contains("VERB40"), "the end is followed");
    show.press(&[KeyCode::Up]);
    assert!(last(&mut show).contains("VERB39"));
    show.take([sample.at(samples::command("VERB41", 250))]);
    assert!(last(&mut show).contains("VERB39"), "what is read stays");
    show.press(&[KeyCode::End]);
    assert!(last(&mut show).contains("VERB41"));
    show.press(&[KeyCode::Home]);
    assert!(show.lines()[3].starts_with("program-1[1001]"));
    // A connection that is forgotten meanwhile is still shown.
    show.take([sample.closed()]);
    show.press(&[KeyCode::End]);
    show.table.forget(Timestamp(i64::MAX));
    assert!(last(&mut show).contains("closed after 5.50 s"));
    show.press(&[KeyCode::Esc]);
    assert_eq!(show.lines()[4], "No connection yet.");
    assert_eq!(show.press(&[KeyCode::Enter, KeyCode::Down, KeyCode::End]), None, "with nothing there");
}

#[test]
fn the_help_names_keys_and_columns() {
    let mut show = intercepted(80, 24);
    show.press(&[KeyCode::F(1)]);
    let mut text = show.lines().join("\n");
    show.press(&[KeyCode::PageDown]);
    text += &show.lines().join("\n");
    show.press(&[KeyCode::End]);
    text += &show.lines().join("\n");
    for word in ["Space", "Enter", "N  PID", "W  WHY", "interceptor"] {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
    assert_eq!(show.press(&[KeyCode::Char('q')]), None);
    assert_eq!(show.programs().len(), 3, "back at the table");
}

#[test]
fn keys_that_end() {
    for (key, modifiers, wish) in [
        (KeyCode::Char('q'), KeyModifiers::NONE, Wish::Quit),
        (KeyCode::Esc, KeyModifiers::NONE, Wish::Quit),
        (KeyCode::F(10), KeyModifiers::NONE, Wish::Quit),
        (KeyCode::Char('c'), KeyModifiers::CONTROL, Wish::Quit),
        (KeyCode::Char('z'), KeyModifiers::CONTROL, Wish::Suspend),
        (KeyCode::Char('l'), KeyModifiers::CONTROL, Wish::Redraw),
    ] {
        let mut show = intercepted(80, 24);
        let pressed = |show: &mut Show| show.moment(|view, _, moment| view.key(KeyEvent::new(key, modifiers), moment));
        assert_eq!(pressed(&mut show), Some(wish));
        if modifiers == KeyModifiers::CONTROL {
            for before in [KeyCode::Enter, KeyCode::Char('/'), KeyCode::Char('?')] {
                let mut show = intercepted(80, 24);
                show.press(&[before]);
                assert_eq!(pressed(&mut show), Some(wish), "behind {before:?}");
            }
        }
    }
}

#[test]
fn hostile_text_steers_nothing() {
    let hostile = "\u{1b}[2J\u{1b}]0;x\u{7}\r\n\u{9b}31m\u{202e}\u{200b}\t".repeat(20);
    let sample = Sample::client().with_program(1, &format!("/tmp/{hostile}"));
    let Event::Command(mut command) = samples::command(&hostile, 250) else { panic!("a command") };
    command.argument = Some(hostile.clone());
    command.reply = Some(hostile.clone());
    for (width, height) in [(40, 8), (80, 24), (300, 60)] {
        let mut show = Show::new(width, height);
        let greeting = Greeting { code: 220, text: hostile.clone(), software: None, latency: None };
        show.take([sample.opened(), sample.at(Event::Greeting(greeting)), sample.at(Event::Command(command.clone()))]);
        show.take([sample.at(Event::Anomaly(Anomaly { kind: AnomalyKind::NotSmtp, detail: hostile.clone() }))]);
        show.take([verdict(&sample, Verdict::LikelyInterceptor, &sample)]);
        for keys in [&[][..], &[KeyCode::Enter], &[KeyCode::End]] {
            show.press(keys);
            show.lines();
            for cell in &show.buffer().content {
                let steers = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{200b}');
                assert!(!cell.symbol().chars().any(steers), "{:?}", cell.symbol());
            }
        }
        assert!(show.lines().iter().any(|line| line.contains("\\x1b")), "it is shown, escaped");
    }
}
