//! Who is let in, as clients see it. TLS is tried with real clients: `tests/tests/prometheus/`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;

use super::super::tests::{LIMITS, content, request, start_with_access};
use super::*;
use crate::sink::samples::Sample;

fn config(folder: &TempDir, users: &[(&str, &str)]) -> PathBuf {
    let path = folder.path().join("web.yml");
    write(&path, users);
    path
}

/// As a careful editor does: another file takes the name.
fn write(path: &Path, users: &[(&str, &str)]) {
    let mut text = String::from("http_server_config:\n  headers:\n    X-Frame-Options: deny\nbasic_auth_users:\n");
    for (user, password) in users {
        text += &format!("  {user}: {}\n", bcrypt::hash(password, 4).expect("random numbers"));
    }
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, path).expect("renamed");
}

fn access(path: &Path) -> Access {
    match Access::new(Some(path), Vec::new()) {
        Ok(access) => access,
        Err(error) => panic!("{error}"),
    }
}

async fn ask(address: SocketAddr, path: &str, headers: &str) -> String {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n")).await
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn without_the_right_password_nothing_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = config(&folder, &[("alice", "right")]);
    let (address, _told) = start_with_access(LIMITS, access(&path)).await;
    for path in ["/", "/page/main.js", "/metrics", "/healthz", "/readyz", "/api/v1/observations", "/nothing"] {
        for headers in ["", "Authorization: Bearer x\r\n", &basic("alice", "wrong"), &basic("bob", "right")] {
            let answer = ask(address, path, headers).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
            assert!(answer.contains("\r\nwww-authenticate: Basic realm="), "{path}: {answer}");
            assert!(answer.contains("\r\nx-frame-options: deny\r\n"), "{path}: {answer}");
        }
    }
    for path in ["/", "/metrics", "/healthz"] {
        let answer = ask(address, path, &basic("alice", "right")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        assert!(answer.contains("\r\nx-frame-options: deny\r\n"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_changed_file_counts_at_once_and_a_broken_one_lets_nobody_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = config(&folder, &[("alice", "old")]);
    let (address, _told) = start_with_access(LIMITS, access(&path)).await;
    let status = async |password: &str| {
        let answer = ask(address, "/metrics", &basic("alice", password)).await;
        answer[9..12].to_owned()
    };
    assert_eq!(status("old").await, "200");
    write(&path, &[("alice", "new")]);
    assert_eq!((status("old").await, status("new").await), ("401".into(), "200".into()));
    // As it is for a moment when it is written in place, and without anybody to ask for a password.
    for broken in ["", "basic_auth_users:\n  ali", "basic_auth_users: {}\n"] {
        fs::write(&path, broken).expect("written");
        assert_eq!((status("old").await, status("new").await), ("401".into(), "200".into()), "{broken}");
    }
    fs::remove_file(&path).expect("it is there");
    assert_eq!((status("old").await, status("new").await), ("401".into(), "200".into()));
    write(&path, &[("alice", "newer")]);
    assert_eq!((status("new").await, status("newer").await), ("401".into(), "200".into()));
}

/// What is asked of clients is compared one by one: a password is no certificate.
#[test]
fn nothing_that_was_asked_for_is_taken_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = config(&folder, &[("alice", "right")]);
    let web = Web::read(&path).expect("a configuration");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let resolver = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
    let server = builder.expect("versions").with_no_client_auth().with_cert_resolver(resolver);
    let server = Arc::new(server);
    let with = |certified: Option<bool>, has_users: bool| {
        let users = WebConfig::read(&path).expect("a configuration").users;
        WebConfig {
            tls: certified.map(|certified| Tls { server: Arc::clone(&server), certificate: Arc::from([]), certified }),
            headers: Vec::new(),
            users: if has_users { users } else { Default::default() },
            files: Vec::new(),
        }
    };
    for (before, after, lost) in [
        ((Some(true), true), (Some(true), true), None),
        ((Some(true), true), (Some(false), true), Some("client_auth_type: RequireAndVerifyClientCert")),
        ((Some(true), false), (Some(false), true), Some("client_auth_type: RequireAndVerifyClientCert")),
        ((Some(true), true), (Some(true), false), Some("basic_auth_users")),
        ((Some(false), true), (None, true), Some("tls_server_config")),
        ((Some(false), true), (Some(true), true), None),
        ((None, false), (Some(true), true), None),
    ] {
        let config = Arc::new(with(after.0, after.1));
        let read = Read { config, files: Vec::new(), stamps: Vec::new(), failed: None };
        let news = Web { path: path.clone(), state: Mutex::new(read) };
        let told = match web.no_weaker(&with(before.0, before.1), news) {
            Ok(_) => None,
            Err(WebConfigError::Weaker { lost, .. }) => Some(lost),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(told, lost, "{before:?} {after:?}");
    }
}

#[tokio::test]
async fn arguments_are_for_those_who_are_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = config(&folder, &[("alice", "right")]);
    let (with, told) = start_with_access(LIMITS, access(&path)).await;
    let (without, told_too) = start_with_access(LIMITS, Access::new(None, Vec::new()).expect("nothing to read")).await;
    for told in [&told, &told_too] {
        let (client, upstream) = (Sample::client().with_id("found"), Sample::client().with_id("onward"));
        told.observe(client.opened());
        told.observe(crate::sink::samples::found(&client, &upstream));
    }
    // Nobody's word for it is taken that somebody else asks.
    let forwarded = ["Forwarded: for=192.0.2.1\r\n", "X-Forwarded-For: 192.0.2.1\r\n", "Via: 1.1 proxy\r\n"];
    for path in
        ["connections", "connections/found", "interceptions", "observations"].map(|last| format!("/api/v1/{last}"))
    {
        let shows = |answer: &str| content(answer).to_string().contains("\"command_line\":");
        // These tests are root's or of the agent's own user: they are its own tests.
        assert!(shows(&ask(without, &path, "").await), "{path}");
        for header in forwarded {
            assert!(!shows(&ask(without, &path, header).await), "{path}: {header}");
            assert!(
                shows(&ask(with, &path, &format!("{header}{}", basic("alice", "right"))).await),
                "{path}: {header}"
            );
        }
    }
}

#[test]
fn an_address_of_the_network_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let (open, closed) =
        (Access::new(None, Vec::new()).expect("nothing to read"), access(&config(&folder, &[("a", "b")])));
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    for local in ["127.0.0.1:9725", "127.9.9.9:9725", "[::1]:9725"] {
        assert_eq!(open.warning(address(local)), None);
    }
    for public in ["0.0.0.0:9725", "[::]:9725", "192.0.2.1:9725"] {
        let open = open.warning(address(public)).expect("a warning");
        assert!(open.contains(public) && open.contains("everybody who reaches it is let in, and all goes"), "{open}");
        let closed = closed.warning(address(public)).expect("a warning");
        assert!(closed.contains("passwords and answers go over the network in clear"), "{closed}");
    }
}
