//! The Debian packages in trees of Debian 12 and 13.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tree::Tree;
use crate::{CONFIGURATION, FILES, NEXT_VERSION, PROGRAM, VERSION, build_id, next_packages, one, packages, run};

/// What `systemctl enable` makes; the socket starts with the service.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/smtp-observer.service";

/// What stays of a purged package: the user, and what making one leaves.
const OF_THE_USER: [&str; 4] = ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"];

/// Installs the package of this version.
fn installed(suite: &str) -> Result<Tree> {
    let tree = Tree::new(suite)?;
    tree.take(&one(&packages()?, "smtp-observer_", ".deb")?, "/srv/this.deb")?;
    tree.take(&one(&next_packages()?, "smtp-observer_", ".deb")?, "/srv/next.deb")?;
    tree.run(&["dpkg", "--install", "/srv/this.deb"])?;
    Ok(tree)
}

/// dpkg's word on the package's state.
fn state(tree: &Tree) -> Result<String> {
    tree.run(&["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Version}", "smtp-observer"])
}

fn installs(suite: &str) -> Result<()> {
    let tree = installed(suite)?;
    assert_eq!(state(&tree)?, format!("ii {VERSION}-1"));
    for file in FILES {
        ensure!(tree.has(file), "{file} is missing");
    }
    for file in ["/usr/share/doc/smtp-observer/copyright", "/usr/share/zsh/vendor-completions/_smtp-observer"] {
        ensure!(tree.has(file), "{file} is missing");
    }
    ensure!(tree.has(ENABLED), "the service is not enabled");

    let user = tree.user("smtp-observer")?.context("there is no user")?;
    let [_, _, uid, _, _, _, shell] = &user[..] else { anyhow::bail!("{user:?}") };
    ensure!((1..1000).contains(&uid.parse::<u32>()?), "{user:?} is no system user");
    ensure!(shell.ends_with("/nologin"), "{user:?} can log in");

    assert_eq!(tree.run(&[PROGRAM, "--version"])?, format!("smtp-observer {VERSION}\n"));
    let check = tree.run(&[PROGRAM, "check"])?;
    ensure!(check.contains("BTF"), "`check` says nothing of BTF:\n{check}");
    // The configuration is what the agent takes: it gets as far as the address to serve at, which is none of this host's.
    let line = [PROGRAM, "run", "--config", CONFIGURATION, "--listen", "192.0.2.1:1"];
    let refused = tree.command(&line).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1) && said.contains("192.0.2.1:1"), "{}: {said}", refused.status);
    Ok(())
}

#[test]
fn debian_12_installs() -> Result<()> {
    installs("bookworm")
}

#[test]
fn debian_13_installs() -> Result<()> {
    installs("trixie")
}

/// The units name programs, users and pages that the package brings: systemd's own check of both.
#[test]
fn units_hold_for_systemd() -> Result<()> {
    let tree = installed("trixie")?;
    for unit in ["smtp-observer.service", "smtp-observer.socket"] {
        let said = tree.run(&["systemd-analyze", "verify", "--man=no", &format!("/usr/lib/systemd/system/{unit}")])?;
        ensure!(!said.contains("smtp-observer"), "{unit}: {said}");
    }
    Ok(())
}

fn keeps_what_is_edited(suite: &str) -> Result<()> {
    let tree = installed(suite)?;
    let edited = "# Ours.\ntls = \"off\"\n";
    tree.write(CONFIGURATION, edited)?;
    tree.run(&["dpkg", "--force-confdef", "--force-confold", "--install", "/srv/next.deb"])?;
    assert_eq!(state(&tree)?, format!("ii {NEXT_VERSION}-1"));
    assert_eq!(tree.read(CONFIGURATION)?, edited);
    ensure!(
        tree.read(&format!("{CONFIGURATION}.dpkg-dist"))?.contains("next version"),
        "the new file is not beside it"
    );
    Ok(())
}

#[test]
fn debian_12_keeps_an_edited_configuration() -> Result<()> {
    keeps_what_is_edited("bookworm")
}

#[test]
fn debian_13_keeps_an_edited_configuration() -> Result<()> {
    keeps_what_is_edited("trixie")
}

#[test]
fn an_untouched_configuration_is_upgraded() -> Result<()> {
    let tree = installed("trixie")?;
    tree.run(&["dpkg", "--install", "/srv/next.deb"])?;
    ensure!(tree.read(CONFIGURATION)?.contains("next version"), "the configuration is the old one");
    Ok(())
}

#[test]
fn a_disabled_service_stays_disabled() -> Result<()> {
    let tree = installed("trixie")?;
    tree.run(&["systemctl", "disable", "smtp-observer.service"])?;
    ensure!(!tree.has(ENABLED), "it is still enabled");
    tree.run(&["dpkg", "--install", "/srv/next.deb"])?;
    ensure!(!tree.has(ENABLED), "the upgrade has enabled the service");
    Ok(())
}

fn removes_and_purges(suite: &str) -> Result<()> {
    let tree = Tree::new(suite)?;
    tree.take(&one(&packages()?, "smtp-observer_", ".deb")?, "/srv/this.deb")?;
    let before = tree.paths()?;
    tree.run(&["dpkg", "--install", "/srv/this.deb"])?;
    // As if the service had run.
    tree.write("/var/log/smtp-observer/events.jsonl", "{}\n")?;

    tree.run(&["dpkg", "--remove", "smtp-observer"])?;
    ensure!(state(&tree)?.starts_with("rc"), "{}", state(&tree)?);
    ensure!(tree.has(CONFIGURATION) && tree.has("/var/log/smtp-observer/events.jsonl"), "too much is removed");
    ensure!(!tree.has(PROGRAM), "the program is still there");

    tree.run(&["dpkg", "--purge", "smtp-observer"])?;
    let after = tree.paths()?;
    let left: Vec<_> = after.difference(&before).filter(|path| !OF_THE_USER.contains(&path.as_str())).collect();
    let gone: Vec<_> = before.difference(&after).collect();
    ensure!(left.is_empty() && gone.is_empty(), "left behind: {left:?}; taken away: {gone:?}");
    ensure!(tree.user("smtp-observer")?.is_some(), "the user is gone, and its number free for another");
    Ok(())
}

#[test]
fn debian_12_removes_and_purges() -> Result<()> {
    removes_and_purges("bookworm")
}

#[test]
fn debian_13_removes_and_purges() -> Result<()> {
    removes_and_purges("trixie")
}

/// The debug package has what was split from the very program that is installed.
#[test]
fn debug_information_is_found_by_the_build_id() -> Result<()> {
    let tree = installed("trixie")?;
    tree.take(&one(&packages()?, "smtp-observer-dbgsym_", ".deb")?, "/srv/debug.deb")?;
    tree.run(&["dpkg", "--install", "/srv/debug.deb"])?;
    let id = build_id(&tree.path(PROGRAM))?;
    let debug = format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
    assert_eq!(build_id(&tree.path(&debug))?, id);
    let sections = |file: &str| run(Command::new("readelf").args(["--sections", "--wide"]).arg(tree.path(file)));
    ensure!(sections(&debug)?.contains(".debug_line"), "{debug} has no line numbers");
    let program = sections(PROGRAM)?;
    ensure!(
        !program.contains(".debug_line") && !program.contains(".symtab"),
        "the program is not stripped:\n{program}"
    );
    let size = |file: &str| fs::metadata(tree.path(file)).map(|file| file.len());
    ensure!(size(PROGRAM)? < size(&debug)?, "most of what was built is not debug information");
    Ok(())
}
