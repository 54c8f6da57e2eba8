//! `smtp-observer top` on a real terminal, with real traffic.

use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::scene::{Played, SERVER, Scene};
use smtp_observer_tests::terminal::Terminal;

/// What is on the screen as soon as it is drawn.
const TITLE: &str = "smtp-observer top, port 25, ";

/// The command line.
fn top(options: &str) -> Result<String> {
    let hooks = machine::hooks()?.to_possible_value().context("a hook family without a name")?;
    Ok(format!("{} top --hooks {} {options}", machine::agent()?.display(), hooks.get_name()))
}

/// How the terminal is set.
fn settings(terminal: &Terminal) -> Result<String> {
    terminal.ask("stty -a")
}

/// The program has ended with this status, and the terminal is as it was before.
fn check_restored(terminal: &Terminal, status: i32, before: &str) -> Result<()> {
    terminal.wait_text(&format!("status {status}."))?;
    assert_eq!(terminal.property("#{alternate_on} #{cursor_flag}")?, "0 1", "the screen and the cursor of before");
    let after = settings(terminal)?;
    assert_eq!(after, before);
    ensure!(after.contains(" echo ") && after.contains(" icanon "), "what is typed is not shown: {after}");
    Ok(())
}

/// Starts it, so that the shell says its status when it ends, and waits until it draws.
fn start(terminal: &Terminal, options: &str) -> Result<()> {
    terminal.run(&format!("{}; echo \"status $?.\"", top(options)?))?;
    terminal.wait_text(TITLE).map(drop)
}

/// The lines of the table.
fn rows(screen: &str) -> Vec<&str> {
    screen.lines().skip(4).filter(|line| line.contains('→') || line.contains('←')).collect()
}

/// The pids in the table, from the top.
fn pids(screen: &str) -> Vec<u32> {
    rows(screen).iter().filter_map(|row| row.split_whitespace().next()?.parse().ok()).collect()
}

#[test]
fn an_interceptor_is_named_and_looked_into() -> Result<()> {
    let terminal = Terminal::open(80, 24)?;
    let before = settings(&terminal)?;
    start(&terminal, "")?;
    let scene = Scene::new()?;
    let played = thread::spawn(move || scene.play());

    // Stopped while it can be seen, it stays as it is.
    let screen = terminal.wait_for("the client's last word, and the verdict", |screen| {
        rows(screen)
            .iter()
            .any(|row| ["mail-client", "QUIT 221", "transparent_interceptor"].iter().all(|word| row.contains(word)))
    })?;
    terminal.press("Space")?;
    terminal.wait_text("PAUSED")?;
    let Played { pids: who, .. } = played.join().map_err(|_| anyhow!("the scene broke off"))??;
    let named = format!("antivirus-proxy[{}]", who.interceptor);
    ensure!(screen.lines().nth(1).is_some_and(|line| line.contains(&named)), "{named} is not named:\n{screen}");
    let coloured = terminal.coloured_screen()?;
    let line = coloured.lines().nth(1).context("no second line")?;
    let red = line.find("\u{1b}[38;5;1m").is_some_and(|red| line.find(&named).is_some_and(|name| red < name));
    ensure!(red, "it is not red: {coloured:?}");

    // A filter, as it is typed.
    terminal.press("/")?;
    let filter = "antivirus-proxy";
    terminal.type_text(filter)?;
    let shown = |pids_shown: &[u32]| [who.client, who.interceptor].iter().all(|pid| pids_shown.contains(pid));
    terminal.wait_for("client and interceptor", |screen| {
        screen.contains(&format!("Filter: {filter}")) && shown(&pids(screen)) && !screen.contains("mail-server ")
    })?;
    terminal.press("Enter")?;

    // Sorted by pid, both ways.
    terminal.type_text("N")?;
    let sorted = terminal.wait_for("sorted by pid", |screen| screen.contains("PID▼"))?;
    ensure!(shown(&pids(&sorted)) && pids(&sorted).is_sorted(), "{sorted}");
    terminal.type_text("r")?;
    let sorted = terminal.wait_for("the other way round", |screen| screen.contains("PID▲"))?;
    ensure!(shown(&pids(&sorted)) && pids(&sorted).is_sorted_by(|one, other| one >= other), "{sorted}");

    // What is known of the client's connection.
    terminal.press("/")?;
    for _ in filter.chars() {
        terminal.press("BSpace")?;
    }
    terminal.type_text(&who.client.to_string())?;
    terminal.wait_for("the client alone", |screen| pids(screen) == [who.client])?;
    terminal.press("Enter")?;
    terminal.press("Enter")?;
    let chain = format!("mail-client[{}] → {named} → {SERVER}", who.client);
    let detail = terminal.wait_text(&chain)?;
    ensure!(detail.contains("transparent_interceptor (") && detail.contains("by redirect"), "{detail}");
    ensure!(detail.contains("  local_peer: "), "{detail}");
    terminal.press("End")?;
    terminal.wait_text("250 Mail queued for delivery.")?;
    terminal.press("Escape")?;
    terminal.wait_for("the table", |screen| pids(screen) == [who.client])?;

    // Other sizes.
    terminal.resize(132, 40)?;
    terminal.wait_for("more columns", |screen| screen.contains("STATE") && screen.lines().count() == 40)?;
    terminal.resize(30, 6)?;
    terminal.wait_text("This terminal is too small")?;
    terminal.resize(80, 24)?;
    terminal.wait_for("the table again", |screen| pids(screen) == [who.client])?;

    // It goes on where the others are.
    terminal.press("Space")?;
    terminal.wait_for("no pause", |screen| screen.contains(TITLE) && !screen.contains("PAUSED"))?;
    terminal.type_text("?")?;
    terminal.wait_text("Columns, each with the letter that sorts by it")?;
    terminal.type_text("q")?;
    terminal.wait_text("WHY")?;
    terminal.type_text("q")?;
    check_restored(&terminal, 0, &before)
}

#[test]
fn whatever_ends_it_the_terminal_is_as_before() -> Result<()> {
    let terminal = Terminal::open(80, 24)?;
    let before = settings(&terminal)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        start(&terminal, "")?;
        let pid = terminal.program()?.context("there is no program")?;
        kill(Pid::from_raw(pid.cast_signed()), signal)?;
        check_restored(&terminal, 0, &before)?;
    }
    for key in ["C-c", "Escape"] {
        start(&terminal, "")?;
        terminal.press(key)?;
        check_restored(&terminal, 0, &before)?;
    }
    start(&terminal, "--duration 1s")?;
    check_restored(&terminal, 0, &before)?;

    // A panic can be read afterwards. Where it came from would fill the screen.
    terminal.run(&format!("RUST_BACKTRACE=0 {}; echo \"status $?.\"", machine::sibling("panicking-top")?.display()))?;
    terminal.wait_for("a screen of its own", |screen| screen.trim().is_empty())?;
    assert_eq!(terminal.property("#{alternate_on}")?, "1");
    terminal.press("x")?;
    let screen = terminal.wait_text("status 101.")?;
    ensure!(screen.contains("panicked") && screen.contains("as asked"), "{screen}");
    check_restored(&terminal, 101, &before)
}

#[test]
fn it_stops_and_goes_on_as_the_shell_says() -> Result<()> {
    let terminal = Terminal::open(80, 24)?;
    let before = settings(&terminal)?;
    start(&terminal, "")?;
    terminal.press("C-z")?;
    let screen = terminal.wait_text("Stopped")?;
    ensure!(!screen.contains("Interceptors:"), "{screen}");
    assert_eq!(settings(&terminal)?, before);
    terminal.run("fg; echo \"status $?.\"")?;
    terminal.wait_for("it draws again", |screen| screen.starts_with(TITLE))?;
    terminal.type_text("q")?;
    check_restored(&terminal, 0, &before)
}

#[test]
fn where_there_is_no_terminal_it_says_what_to_do() -> Result<()> {
    let terminal = Terminal::open(200, 24)?;
    let agent = machine::agent()?.display().to_string();
    for (command, mend) in [
        (format!("{agent} top | cat; echo \"status ${{PIPESTATUS[0]}}.\""), "smtp-observer trace"),
        (format!("{agent} top > /dev/null; echo \"status $?.\""), "smtp-observer trace"),
        (format!("{agent} top >&-; echo \"status $?.\""), "smtp-observer trace"),
        (format!("{agent} top < /dev/null; echo \"status $?.\""), "leave it to the terminal"),
        (format!("{agent} top <&-; echo \"status $?.\""), "leave it to the terminal"),
        (format!("TERM=dumb {agent} top; echo \"status $?.\""), "set TERM"),
        (format!("env -u TERM {agent} top; echo \"status $?.\""), "set TERM"),
    ] {
        let answer = terminal.ask(&command)?;
        ensure!(answer.contains(mend) && answer.ends_with("status 2."), "{command}: {answer}");
        ensure!(answer.lines().count() == 2, "that is not one sentence: {answer}");
    }
    Ok(())
}

#[test]
fn a_banner_does_not_steer_the_terminal() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    let terminal = Terminal::open(120, 24)?;
    let (before, name) = (settings(&terminal)?, terminal.property("#{pane_title}")?);
    start(&terminal, "")?;
    let mut dialogue = Dialogue::open(&client_host, &server_host, SERVER)?;
    dialogue.server_says(b"220 \x1b[2J\x1b[?1049l\x1b]2;owned\x07\x1b[31m hello\r\n")?;
    dialogue.play("C: NOOP\nS: 250 \u{1b}c ok")?;
    terminal.press("/")?;
    terminal.type_text(&format!("10.77.0.1:{} client", dialogue.port()?))?;
    terminal.wait_for("the connection", |screen| rows(screen).len() == 1 && screen.contains("NOOP 250"))?;
    terminal.press("Enter")?;
    terminal.press("Enter")?;
    let screen = terminal.wait_for("the dialogue", |screen| screen.contains("\\u{1b}c ok"))?;
    ensure!(screen.starts_with(TITLE) && screen.contains("220 \\u{1b}[2J"), "{screen}");
    assert_eq!(terminal.property("#{alternate_on} #{pane_title}")?, format!("1 {name}"));
    dialogue.close()?;
    terminal.wait_text("closed after")?;
    terminal.press("C-c")?;
    check_restored(&terminal, 0, &before)
}
