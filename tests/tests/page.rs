//! The status page, in a real browser, beside real traffic; and those who want to hurt the agent by it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::browser::Browser;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::http;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::postfix::Postfix;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::scene::{SERVER, Scene};

/// What a server and a client say who want to get into the page.
const HOSTILE: [&str; 3] = ["<img src=x onerror=alert(1)>", "\"><script>alert(2)</script>", "{{7*7}}${7*7}</style>"];

/// Bytes by which the agent may grow for all that clients do, wherever the kernel puts them.
const MAX_GROWTH: u64 = 96 << 20;

fn page(agent: &Agent, width: u32) -> Result<Browser> {
    let mut browser = Browser::start(width)?;
    browser.prefer("light")?;
    browser.open(&format!("http://{}/", agent.http))?;
    browser.wait_for("document.querySelector('#status').dataset.state === 'live'")?;
    // Gone with a reload.
    browser.evaluate("window.stays = true")?;
    Ok(browser)
}

/// Where pictures go: where the variable says, as for the documentation, or where nobody looks.
fn pictures(folder: &Path) -> PathBuf {
    std::env::var_os("SMTP_OBSERVER_SCREENSHOTS").map_or_else(|| folder.to_owned(), PathBuf::from)
}

fn swaks(host: &Host) -> Result<()> {
    let mut swaks: Command = host.command(machine::installed("swaks")?);
    swaks.args(["--server", "127.0.0.1", "--to", "ok@test.example", "--from", "alice@client.example"]);
    process::run(swaks).map(drop)
}

#[test]
fn who_is_in_the_middle() -> Result<()> {
    let (scene, mail_host) = (Scene::new()?, Host::new()?);
    let _postfix = Postfix::start(&mail_host)?;
    let agent = Agent::start_silent(&["--addresses", "full"])?;
    let mut browser = page(&agent, 1280)?;
    // A real client and a real server, with nobody between them.
    swaks(&mail_host)?;
    browser
        .wait_for("[...document.querySelectorAll('#log li')].some((line) => line.textContent.includes('queued as'))")?;
    browser.wait_for("document.querySelectorAll('#charts .bar').length >= 6")?;
    assert_eq!(browser.text("document.querySelector('h1').textContent")?, "No proxy found");

    let folder = tempfile::tempdir()?;
    let mut client = scene.client_host.command(machine::sibling("mail-client")?);
    client.arg(SERVER);
    let client = Running::start(client)?;
    browser.wait_for("document.querySelector('h1').textContent === 'antivirus-proxy is in the middle'")?;
    browser.wait_for("document.querySelectorAll('.evidence tbody tr').length >= 6")?;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme)?;
        check_contrast(&mut browser).with_context(|| scheme.to_owned())?;
        let file = pictures(folder.path()).join(format!("page-{scheme}.png"));
        browser.screenshot(598, &file)?;
        let size = std::fs::metadata(&file)?.len();
        ensure!((10_000..200_000).contains(&size), "{} has {size} bytes", file.display());
    }

    let card = browser.text("document.querySelector('.card[data-weight=hidden]').innerText")?;
    let pid = format!("pid {}", scene.interceptor.pid());
    for fact in ["antivirus-proxy", &pid, "nobody", "transparent_interceptor", "redirect", "%", SERVER, "mail-client"] {
        ensure!(card.contains(fact), "`{fact}` is missing:\n{card}");
    }
    ensure!(!card.contains("go_ahead_not_from_upstream"), "the evidence is open before anybody asks:\n{card}");
    browser.click(".card summary")?;
    browser.wait_for("document.querySelector('.card').innerText.includes('go_ahead_not_from_upstream')")?;
    // It stays open when more is found: the whole evidence comes with the end.
    process::succeeded("the client", client)?;
    process::succeeded("the interceptor", scene.interceptor)?;
    browser.wait_for("document.querySelector('.card').innerText.includes('coupled_close')")?;
    browser.wait_for("document.querySelector('h1').textContent === 'antivirus-proxy was in the middle'")?;

    let boxes =
        browser.text("[...document.querySelectorAll('.box-hidden .box-title')].map((t) => t.textContent).join()")?;
    assert_eq!(boxes, "antivirus-proxy");
    let drawn = browser.text("document.querySelector('#drawing ul').textContent")?;
    for line in [
        "mail-client talked to antivirus-proxy, of which the client knows nothing",
        "antivirus-proxy talked to mail-server, of which the client knows nothing",
        "mail-client talked to mail-server, as it was asked for",
    ] {
        ensure!(drawn.contains(line), "`{line}` is missing: {drawn}");
    }
    browser.wait_for("document.querySelectorAll('#charts .bar').length >= 12")?;
    assert_eq!(browser.text("document.querySelector('#charts .axis').textContent")?, "seconds since DATA");

    browser.resize(390, 844)?;
    browser.wait_for("document.querySelector('#drawing svg').clientWidth < 390")?;
    assert_eq!(browser.evaluate("document.documentElement.scrollWidth")?, 390, "it does not fit on a phone");
    browser.screenshot(4000, &pictures(folder.path()).join("page-phone.png"))?;
    assert_eq!(browser.evaluate("window.stays")?, true);
    assert_eq!(browser.complaints()?, [""; 0]);
    browser.close()
}

/// Text must be told from what is behind it, whatever the scheme (WCAG 2.2, 1.4.3).
fn check_contrast(browser: &mut Browser) -> Result<()> {
    let found = browser.evaluate(
        r##"(() => {
            const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
            const light = (colour) => {
                const [r, g, b] = channels(colour).map((value) => {
                    const part = value / 255;
                    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const behind = (element) => {
                for (let at = element; at; at = at.parentElement) {
                    const colour = getComputedStyle(at).backgroundColor;
                    if (channels(colour)[3] !== 0) return colour;
                }
            };
            return [".brand", "h1", ".lead", "h2", ".status", ".card p", ".card dt", ".tag", "summary", "figcaption .key",
                "#count", "#table th button", "#table td", ".open", ".log li", ".log time", "#pause", "footer p", "footer a"]
                .map((selector) => {
                    const element = document.querySelector(selector);
                    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
                    return [selector, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
                });
        })()"##,
    )?;
    for pair in found.as_array().context("no list")? {
        ensure!(pair[1].as_f64().is_some_and(|ratio| ratio >= 4.5), "too little contrast: {pair}");
    }
    Ok(())
}

#[test]
fn connections_are_sorted_filtered_and_opened() -> Result<()> {
    const PORT: u16 = 2631;
    let (client, server) = Host::pair()?;
    let agent = Agent::start_silent(&["--port", &PORT.to_string()])?;
    let mut browser = page(&agent, 1280)?;
    let mut dialogues = (0..3)
        .map(|_| {
            let mut dialogue = Dialogue::open(&client, &server, &format!("10.77.0.2:{PORT}"))?;
            dialogue.play("S: 220 server.example ESMTP")?;
            Ok(dialogue)
        })
        .collect::<Result<Vec<_>>>()?;
    browser.wait_for("document.querySelectorAll('#rows tr').length === 6")?;
    let mut ports = dialogues.iter().map(Dialogue::port).collect::<Result<Vec<_>>>()?;
    ports.sort_unstable();
    // Each connection has two ends here.
    let both: Vec<u16> = ports.iter().flat_map(|port| [*port, *port]).collect();

    browser.click("#headings th:nth-child(1) button")?;
    assert_eq!(sorting(&mut browser)?, json!(["Client", "ascending"]));
    assert_eq!(listed(&mut browser)?, both);
    // From the keyboard, as it has the focus now.
    browser.press("Enter", 13, "\r")?;
    assert_eq!(sorting(&mut browser)?, json!(["Client", "descending"]));
    assert_eq!(listed(&mut browser)?, both.iter().rev().copied().collect::<Vec<_>>());

    browser.click("#filter")?;
    browser.enter("CLIENT greeting")?;
    browser.wait_for("document.querySelectorAll('#rows tr').length === 3")?;
    assert_eq!(listed(&mut browser)?, ports.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(browser.text("document.querySelector('#count').textContent")?, "3 of 6 connections");
    browser.enter(" nothing-has-this")?;
    browser.wait_for("document.querySelectorAll('#rows tr').length === 0")?;
    assert_eq!(browser.text("document.querySelector('#none').textContent")?, "No connection has these words.");
    browser.evaluate("document.querySelector('#filter').select()")?;
    browser.enter(&ports[1].to_string())?;
    browser.wait_for("document.querySelectorAll('#rows tr').length === 2")?;

    // What is said is shown without a reload, in the list of all and under the connection that is opened.
    browser.click("#rows tr:first-child .open")?;
    browser.wait_for("document.querySelector('.detail')?.innerText.includes('220 server.example ESMTP')")?;
    let spoken = dialogues.iter().position(|dialogue| dialogue.port().is_ok_and(|port| port == ports[1]));
    dialogues[spoken.context("no such dialogue")?].play("C: NOOP\nS: 250 Ok, I am here")?;
    browser.wait_for("document.querySelector('#log').innerText.includes('NOOP → 250 Ok, I am here')")?;
    browser.wait_for("document.querySelector('.detail').innerText.includes('NOOP → 250 Ok, I am here')")?;
    browser.wait_for("document.querySelector('#rows tr').innerText.includes('NOOP → 250 Ok, I am here')")?;
    browser.click("#rows tr:first-child .open")?;
    browser.wait_for("document.querySelector('.detail') === null")?;

    assert_eq!(browser.evaluate("window.stays")?, true);
    assert_eq!(browser.complaints()?, [""; 0]);
    browser.close()
}

fn sorting(browser: &mut Browser) -> Result<Value> {
    browser.evaluate(
        "(() => { const heading = document.querySelector('#headings [aria-sort]');
            return [heading.textContent, heading.getAttribute('aria-sort')]; })()",
    )
}

/// The clients' ports, as the table has them.
fn listed(browser: &mut Browser) -> Result<Vec<u16>> {
    let cells = browser.evaluate("[...document.querySelectorAll('.open')].map((open) => open.textContent)")?;
    let cells = cells.as_array().context("no list")?.iter().filter_map(Value::as_str);
    cells.map(|end| Ok(end.parse::<SocketAddr>().with_context(|| end.to_owned())?.port())).collect()
}

#[test]
fn hostile_text_is_text_and_the_policy_bites() -> Result<()> {
    const PORT: u16 = 2632;
    let (client, server) = Host::pair()?;
    let agent = Agent::start_silent(&["--addresses", "full", "--port", &PORT.to_string()])?;
    let mut browser = page(&agent, 1280)?;
    let mut dialogue = Dialogue::open(&client, &server, &format!("10.77.0.2:{PORT}"))?;
    dialogue.play(&format!("S: 220 {}", HOSTILE[0]))?;
    for hostile in HOSTILE {
        dialogue.play(&format!("C: NOOP\nS: 250 {hostile}"))?;
    }
    dialogue.play(&format!("C: RSET\nS: 250 {}", "\u{202e}turned\u{1b}[31m"))?;
    browser.wait_for("document.querySelector('#log').innerText.includes('turned')")?;
    browser.wait_for("document.querySelector('#rows').innerText.includes('turned')")?;
    browser.click("#rows .open")?;
    browser.wait_for("document.querySelector('.detail')?.innerText.includes('220 <img')")?;
    let log = browser.text("document.querySelector('#log').textContent")?;
    for hostile in HOSTILE {
        ensure!(log.contains(&format!("NOOP → 250 {hostile}")), "`{hostile}` is not shown as it is:\n{log}");
    }
    ensure!(log.contains("\\u{202e}turned"), "what turns text is not named:\n{log}");
    let level =
        "[...document.querySelectorAll('#log li')].find((line) => line.textContent.includes('turned')).dataset.level";
    assert_eq!(browser.text(level)?, "notice", "an RSET asks for a look");
    let foreign = "document.querySelectorAll('img, script:not([src=\"page/main.js\"]), iframe, style').length";
    assert_eq!(browser.evaluate(foreign)?, 0, "text became markup");
    assert_eq!(browser.complaints()?, [""; 0]);

    // Were it markup after all, it would do nothing.
    for (attempt, forbidden) in [
        ("document.body.innerHTML = '<img src=x onerror=\"window.harmed = 1\">'", "TrustedHTML"),
        (
            "(() => { const script = document.createElement('script');
                script.append('window.harmed = 1'); document.body.append(script); })()",
            "TrustedScript",
        ),
        ("document.body.setAttribute('onclick', 'window.harmed = 1')", "TrustedScript"),
        ("document.body.setAttribute('style', 'display: none')", "style-src"),
        ("import('http://127.0.0.1:9/x.js').catch(() => 0)", "script-src"),
        ("fetch('http://127.0.0.1:9/').catch(() => 0)", "connect-src"),
        (
            "new Promise((done) => {
                const image = new Image(); image.onerror = () => done(0); image.src = 'http://127.0.0.1:9/x.png'; })",
            "img-src",
        ),
    ] {
        // What is thrown is a refusal, too.
        let refused = browser.evaluate(attempt).err().map(|error| error.to_string()).unwrap_or_default();
        let complaints = browser.complaints()?.join("\n");
        let said = format!("{refused}\n{complaints}");
        ensure!(said.contains(forbidden), "{attempt} was not refused by {forbidden}: {said}");
    }
    browser.evaluate("document.body.click()")?;
    assert_eq!(browser.evaluate("window.harmed ?? null")?, Value::Null);
    browser.close()
}

#[test]
fn an_agent_that_goes_is_missed_and_one_that_comes_is_found() -> Result<()> {
    const PORT: u16 = 2633;
    let (client, server) = Host::pair()?;
    let options = ["--port", &PORT.to_string()];
    let agent = Agent::start_silent(&options)?;
    let mut browser = page(&agent, 900)?;
    let mut dialogue = Dialogue::open(&client, &server, &format!("10.77.0.2:{PORT}"))?;
    dialogue.play("S: 220 first.example")?;
    browser.wait_for("document.querySelector('#log').innerText.includes('220 first.example')")?;
    let address = agent.http;
    agent.stop()?;
    browser.wait_for("document.querySelector('#status').textContent.startsWith('the agent does not answer since ')")?;

    let _agent = Agent::start_at(address, &options)?;
    browser.wait_for("document.querySelector('#status').textContent === 'live'")?;
    dialogue.play("C: NOOP\nS: 250 second.example")?;
    browser.wait_for("document.querySelector('#log').innerText.includes('second.example')")?;
    ensure!(
        !browser.text("document.querySelector('#log').innerText")?.contains("220 first.example"),
        "what another agent saw is shown as this one's"
    );
    assert_eq!(browser.evaluate("window.stays")?, true);
    browser.close()
}

/// The page does not say that there is nothing before it knows, and says what it waits for.
#[test]
fn answers_that_fail_or_are_late_are_told_and_are_no_answer() -> Result<()> {
    const PORT: u16 = 2635;
    const FAILED: &[&str] = &["the agent did not answer a question; asking again"];
    let (client, server) = Host::pair()?;
    let agent = Agent::start_silent(&["--port", &PORT.to_string()])?;
    let mut dialogue = Dialogue::open(&client, &server, &format!("10.77.0.2:{PORT}"))?;
    dialogue.play("S: 220 server.example ESMTP")?;
    for question in ["connections", "interceptions"] {
        let mut browser = Browser::start(900)?;
        browser.hold(&format!("*/api/v1/{question}"))?;
        browser.open(&format!("http://{}/", agent.http))?;
        check_unanswered(&mut browser, &["asking the agent", "the agent takes long to answer"])?;
        browser.fail_held()?;
        check_unanswered(&mut browser, FAILED)?;
        browser.answer_held(503)?;
        // It asks again, and has not been answered: what it says of that stays until it is.
        check_unanswered(&mut browser, FAILED)?;
        browser.release_held()?;
        browser.wait_for("document.querySelector('#status').textContent === 'live'")?;
        assert_eq!(browser.text("document.querySelector('h1').textContent")?, "No proxy found");
        browser.wait_for("document.querySelectorAll('#rows tr').length === 2")?;
        // What is known stays while the next answer is late.
        dialogue.play("C: NOOP\nS: 250 Ok")?;
        browser.wait_for("document.querySelector('#status').textContent === 'the agent takes long to answer'")?;
        assert_eq!(browser.text("document.querySelector('h1').textContent")?, "No proxy found");
        browser.release_held()?;
        browser.wait_for("document.querySelector('#status').textContent === 'live'")?;
        browser.close()?;
    }
    Ok(())
}

/// The page comes to one of these; it says nothing of what it does not know.
fn check_unanswered(browser: &mut Browser, statuses: &[&str]) -> Result<()> {
    browser.wait_for(&format!("{}.includes(document.querySelector('#status').textContent)", json!(statuses)))?;
    assert_eq!(browser.text("document.querySelector('h1').textContent")?, "Who is in the middle?");
    let page = browser.text("document.body.innerText")?;
    for unknown in ["Nobody", "No SMTP", "No connection"] {
        ensure!(!page.contains(unknown), "the page says `{unknown}` before it can know:\n{page}");
    }
    Ok(())
}

/// Says so much on a connection that no stream keeps pace with it.
fn chatter(dialogue: &mut Dialogue, rounds: usize) -> Result<()> {
    const PIPELINED: usize = 100;
    let (commands, replies) = ("NOOP\r\n".repeat(PIPELINED), "250 2.0.0 Ok\r\n".repeat(PIPELINED));
    for _ in 0..rounds {
        dialogue.client_says(commands.as_bytes())?;
        dialogue.server_says(replies.as_bytes())?;
    }
    Ok(())
}

fn ask(agent: &Agent, request: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(agent.http)?;
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

#[test]
fn hostile_clients_neither_block_a_scrape_nor_take_memory() -> Result<()> {
    const PORT: u16 = 2634;
    let (client, server) = Host::pair()?;
    let agent = Agent::start_silent(&["--port", &PORT.to_string()])?;
    let mut dialogue = Dialogue::open(&client, &server, &format!("10.77.0.2:{PORT}"))?;
    dialogue.play("S: 220 server.example ESMTP")?;
    chatter(&mut dialogue, 50)?;
    agent.metrics()?;
    let before = agent.memory("VmRSS")?;

    // Streams that nobody reads, more than there are seats.
    let follow =
        format!("GET /api/v1/observations HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", agent.http);
    let streams = (0..64).map(|_| ask(&agent, &follow)).collect::<Result<Vec<_>>>()?;
    chatter(&mut dialogue, 300)?;
    agent.metrics().context("behind 64 streams that nobody reads")?;

    // Long answers that nobody reads.
    let pages = ["/", "/metrics", "/api/v1/connections", "/api/v1/observations"].into_iter().cycle().take(64);
    let unread = pages
        .map(|path| ask(&agent, &format!("GET {path} HTTP/1.1\r\nHost: {0}\r\n\r\n", agent.http).repeat(50)))
        .collect::<Result<Vec<_>>>()?;
    agent.metrics().context("behind 64 clients that do not read")?;

    // Heads that have no end, and paths that have none.
    let slow = (0..100)
        .map(|_| ask(&agent, "GET /api/v1/connections HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..100 {
        let mut stream = TcpStream::connect(agent.http)?;
        let written = stream.write_all(format!("GET /{} HTTP/1.1\r\n", "x".repeat(1 << 20)).as_bytes());
        let mut answer = Vec::new();
        // It hangs up before it has read it all.
        if written.is_ok() && stream.read_to_end(&mut answer).is_ok() {
            ensure!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
        }
    }
    let idle = (0..1000).map(|_| TcpStream::connect(agent.http)).collect::<Result<Vec<_>, _>>()?;
    agent.metrics().context("behind 1000 idle connections")?;
    chatter(&mut dialogue, 300)?;

    let (status, list) = http::get(agent.http, "/api/v1/connections")?;
    ensure!(status == 200 && list.contains("10.77.0.2"), "{status}: {list}");
    let grown = agent.memory("VmRSS")?.saturating_sub(before);
    ensure!(grown < MAX_GROWTH, "the agent has grown by {grown} bytes");

    // What those missed who did not read is counted when they go, at the latest.
    drop((streams, unread, slow, idle));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let dropped = agent.metrics()?.sum("smtp_observer_sink_dropped_total", &["sink=\"page\""]);
        if dropped.context("no such metric")? > 0.0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "nothing is counted of what those missed who did not read");
        thread::yield_now();
    }
}
