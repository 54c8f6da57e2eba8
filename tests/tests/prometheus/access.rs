//! Who is let in by a web configuration: Prometheus with its own settings, and curl.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use smtp_observer_tests::agent::{Agent, http_address};
use smtp_observer_tests::certificate::Certificate;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::paths::wait_until;
use smtp_observer_tests::process::{Ended, Running};
use smtp_observer_tests::prometheus::{Prometheus, tool};
use tempfile::TempDir;

/// `correct horse`, by `htpasswd -nbBC 10`.
const HASH: &str = "$2y$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu";

const PASSWORD: &str = "scraper:correct horse";

/// A web configuration and the files that it names, in one folder.
struct Web {
    folder: TempDir,
    server: Certificate,
}

impl Web {
    fn new(text: &str) -> Result<Self> {
        let web = Self { folder: tempfile::tempdir()?, server: Certificate::new()? };
        web.show(&web.server)?;
        fs::write(web.config(), text)?;
        Ok(web)
    }

    /// Has the server show this certificate.
    fn show(&self, certificate: &Certificate) -> Result<()> {
        fs::copy(certificate.chain(), self.folder.path().join("server.pem"))?;
        fs::copy(certificate.key(), self.folder.path().join("server.key"))?;
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("web.yml")
    }

    fn start(&self) -> Result<Agent> {
        Agent::start_silent(&["--web-config-file", &self.config().display().to_string()])
    }
}

fn tls_and_password() -> String {
    format!(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  min_version: TLS13\n\
         basic_auth_users:\n  scraper: {HASH}\n"
    )
}

/// What curl says: the status, then the answer. 000 is the status of no answer.
fn curl(options: &[&str], address: &str) -> Result<(String, String)> {
    said(curl_command(options, address)?)
}

fn curl_command(options: &[&str], address: &str) -> Result<Command> {
    let mut curl = Command::new(machine::installed("curl")?);
    curl.args(["--silent", "--noproxy", "*", "--write-out", "\n%{http_code}", "--max-time", "20"]);
    curl.args(options).arg(address);
    Ok(curl)
}

fn said(curl: Command) -> Result<(String, String)> {
    let Ended { mut output, .. } = Running::start(curl)?.finish()?;
    let status = output.pop().context("curl tells no status")?;
    Ok((status, output.join("\n")))
}

/// The options by which curl finds the agent under the name of its certificate, and trusts that one alone.
fn trusting(authority: &Path, agent: SocketAddr) -> [String; 4] {
    let place = format!("server.example:{}:{}", agent.port(), agent.ip());
    ["--cacert".into(), authority.display().to_string(), "--resolve".into(), place]
}

#[test]
fn prometheus_scrapes_by_tls_with_its_password_and_nobody_else_does() -> Result<()> {
    let text = tls_and_password();
    let web = Web::new(&text)?;
    let pem = [fs::read_to_string(web.server.chain())?, fs::read_to_string(web.server.key())?];
    let files = [("tmp/web.yml", &*text), ("tmp/server.pem", &*pem[0]), ("tmp/server.key", &*pem[1])];
    let checked = tool("/usr/bin/promtool", &["check", "web-config", "/tmp/web.yml"], &files)?;
    assert!(checked.status.success(), "{:?} {:?}", checked.output, checked.log);

    let agent = web.start()?;
    let client = |password: &str, name: &str| {
        format!(
            "  scheme: https\n  basic_auth: {{username: scraper, password: {password}}}\n  \
             tls_config: {{ca_file: /etc/ca.pem, server_name: {name}}}\n"
        )
    };
    let jobs = [
        ("right", client("correct horse", "server.example")),
        ("wrong_password", client("battery staple", "server.example")),
        ("wrong_name", client("correct horse", "other.example")),
        ("plain", String::new()),
    ];
    let prometheus = Prometheus::start_with(agent.http, &jobs, &[("etc/ca.pem", &pem[0])])?;
    prometheus.wait_for("a scrape", "up{job=\"right\"} == 1", |series| !series.is_empty())?;
    let build = prometheus.query("smtp_observer_build_info")?;
    assert!(!build.is_empty() && build.iter().all(|series| series.label("job") == "right"), "{build:?}");
    for job in ["wrong_password", "wrong_name", "plain"] {
        let up = prometheus.wait_for(job, &format!("up{{job=\"{job}\"}}"), |series| !series.is_empty())?;
        assert_eq!(up[0].last(), Some(0.0), "{job}");
    }
    Ok(())
}

#[test]
fn curl_needs_the_password_the_certificate_and_a_name_that_is_the_agents() -> Result<()> {
    let web = Web::new(&tls_and_password())?;
    let agent = web.start()?;
    let address = agent.http;
    let by_name = format!("https://server.example:{}/metrics", address.port());
    let trusting_server = trusting(&web.server.chain(), address);
    let trusting_server: Vec<&str> = trusting_server.iter().map(String::as_str).collect();
    let ask = |options: &[&str]| curl(&[&trusting_server, options].concat(), &by_name);
    let (status, metrics) = ask(&["--user", PASSWORD])?;
    assert_eq!(status, "200", "{metrics}");
    assert!(metrics.contains("smtp_observer_build_info"), "{metrics}");
    for wrong in [&[][..], &["--user", "scraper:wrong"], &["--user", "root:correct horse"]] {
        let (status, answer) = ask(wrong)?;
        assert_eq!((&*status, answer.contains("smtp_")), ("401", false), "{wrong:?}: {answer}");
    }
    // A name that some site has turned to this host.
    for path in ["metrics", "api/v1/observations", "healthz", ""] {
        let options = ["--insecure", "--user", PASSWORD, "--header", "Host: rebind.example"];
        let (status, _) = curl(&options, &format!("https://{address}/{path}"))?;
        assert_eq!(status, "421", "{path}");
    }
    assert_eq!(ask(&["--user", PASSWORD, "--tls-max", "1.2"])?.0, "000", "min_version is 1.3");
    let (status, answer) = curl(&[], &format!("http://{address}/metrics"))?;
    assert_eq!((&*status, answer.trim()), ("400", "this address speaks TLS: ask by https"));
    Ok(())
}

#[test]
fn a_new_certificate_is_shown_from_the_next_connection_on() -> Result<()> {
    let web = Web::new(&tls_and_password())?;
    let agent = web.start()?;
    let ask = |authority: &Certificate| {
        let options = trusting(&authority.chain(), agent.http);
        let options: Vec<&str> = options.iter().map(String::as_str).chain(["--user", PASSWORD]).collect();
        curl(&options, &format!("https://server.example:{}/healthz", agent.http.port()))
    };
    assert_eq!(ask(&web.server)?.0, "200");
    let renewed = Certificate::new()?;
    assert_eq!(ask(&renewed)?.0, "000", "it is not shown yet");
    web.show(&renewed)?;
    assert_eq!((ask(&renewed)?.0, ask(&web.server)?.0), ("200".into(), "000".into()));
    // One that is of no use: the one before stays.
    fs::write(web.folder.path().join("server.key"), "not a key\n")?;
    assert_eq!(ask(&renewed)?.0, "200");
    agent.wait_logged("What was there before stays in force.", 1)?;
    Ok(())
}

#[test]
fn a_certificate_that_comes_behind_the_configuration_that_names_it_is_shown() -> Result<()> {
    let web = Web::new(&tls_and_password())?;
    let agent = web.start()?;
    let next = Certificate::new()?;
    let ask = |authority: &Certificate| {
        let options = trusting(&authority.chain(), agent.http);
        let options: Vec<&str> = options.iter().map(String::as_str).chain(["--user", PASSWORD]).collect();
        curl(&options, &format!("https://server.example:{}/healthz", agent.http.port()))
    };
    fs::write(web.config(), tls_and_password().replace("server.", "next."))?;
    assert_eq!(ask(&web.server)?.0, "200", "what was there before");
    agent.wait_logged("What was there before stays in force.", 1)?;
    fs::copy(next.chain(), web.folder.path().join("next.pem"))?;
    fs::copy(next.key(), web.folder.path().join("next.key"))?;
    wait_until("the certificate is not shown", || Ok(ask(&next)?.0 == "200"))
}

#[test]
fn a_certificate_of_the_client_is_required() -> Result<()> {
    let authority = Certificate::new()?;
    let web = Web::new(&format!(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_auth_type: \
         RequireAndVerifyClientCert\n  client_ca_file: {}\n",
        authority.chain().display()
    ))?;
    let agent = web.start()?;
    let ask = |identity: Option<&Certificate>| {
        let mut options = trusting(&web.server.chain(), agent.http).to_vec();
        if let Some(identity) = identity {
            let paths = [identity.chain(), identity.key()].map(|path| path.display().to_string());
            options.extend(["--cert".into(), paths[0].clone(), "--key".into(), paths[1].clone()]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        curl(&options, &format!("https://server.example:{}/healthz", agent.http.port()))
    };
    assert_eq!(ask(None)?.0, "000");
    assert_eq!(ask(Some(&authority.sign("scraper")?))?.0, "200");
    assert_eq!(ask(Some(&Certificate::new()?.sign("scraper")?))?.0, "000", "another authority's");
    Ok(())
}

#[test]
fn arguments_are_shown_to_root_and_to_who_has_a_password() -> Result<()> {
    const NOBODY: u32 = 65534;
    let (client, server) = Host::pair()?;
    let web = Web::new(&format!("basic_auth_users:\n  scraper: {HASH}\n"))?;
    let (open, closed) = (Agent::start_silent(&[])?, web.start()?);
    let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:25")?;
    dialogue.play("S: 220 server.example ESMTP\n")?;
    let shown = |agent: &Agent, user: Option<u32>, options: &[&str]| -> Result<(bool, bool)> {
        let mut curl = curl_command(options, &format!("http://{}/api/v1/connections", agent.http))?;
        user.map(|user| curl.uid(user).gid(user).current_dir("/"));
        let (status, answer) = said(curl)?;
        assert_eq!(status, "200", "{answer}");
        let answer: Value = serde_json::from_str(&answer)?;
        let processes: Vec<_> = answer.as_array().context("no list")?.iter().map(|row| &row["process"]).collect();
        let has = |field: &str| processes.iter().any(|process| process.get(field).is_some());
        Ok((has("pid"), has("command_line")))
    };
    assert_eq!(shown(&open, None, &[])?, (true, true), "root");
    assert_eq!(shown(&open, Some(NOBODY), &[])?, (true, false), "some user of this host");
    assert_eq!(shown(&open, None, &["--header", "X-Forwarded-For: 192.0.2.1"])?, (true, false), "for somebody else");
    assert_eq!(shown(&closed, Some(NOBODY), &["--user", PASSWORD])?, (true, true), "who has a password");
    Ok(())
}

#[test]
fn a_web_configuration_that_is_of_no_use_is_told_at_the_start() -> Result<()> {
    let web = Web::new("")?;
    let path = web.config().display().to_string();
    let refused = |text: &str| -> Result<String> {
        fs::write(web.config(), text)?;
        let mut command = Command::new(machine::agent()?);
        command.args(["run", "--listen", &http_address().to_string(), "--web-config-file", &path]);
        let ended = Running::start(command)?.finish()?;
        assert_eq!(ended.status.code(), Some(2), "{:?}", ended.log);
        let sentence = ended.log.last().with_context(|| "nothing was said")?;
        Ok(sentence.replace(&web.folder.path().display().to_string(), "FOLDER"))
    };
    let pair = "tls_server_config:\n  cert_file: server.pem\n  key_file: ";
    for (text, sentence) in [
        (
            format!("{pair}missing.key\n"),
            "the web configuration FOLDER/web.yml: cannot read its key_file FOLDER/missing.key: no such file or directory. \
             The agent's user must be able to read it.",
        ),
        (
            format!("{pair}web.yml\n"),
            "the web configuration FOLDER/web.yml: its key_file FOLDER/web.yml has no private key in PEM.",
        ),
        (
            "basic_auth_users:\n  scraper: correct horse\n".into(),
            "the web configuration FOLDER/web.yml is wrong in line 2: a password under basic_auth_users is no bcrypt hash: \
             `htpasswd -nBC 10 USER` makes one.",
        ),
    ] {
        let said = refused(&text)?;
        assert!(said.ends_with(sentence), "{said}");
    }
    Ok(())
}

#[test]
fn who_serves_the_network_without_a_password_is_warned() -> Result<()> {
    let mut command = Command::new(machine::agent()?);
    command.args(["run", "--duration", "1ms", "--listen", "0.0.0.0:0"]);
    let ended = Running::start(command)?.finish()?;
    let warned = ended.log.iter().any(|line| line.contains("everybody who reaches it is let in"));
    assert!(ended.status.success() && warned, "{:#?}", ended.log);
    Ok(())
}
