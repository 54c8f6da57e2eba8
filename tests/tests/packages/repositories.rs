//! Repositories of the packages, as `docs/install.md` has them made: apt and dnf install from them, and refuse what is signed
//! by nobody or by another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::tree::Tree;
use crate::{NEXT_VERSION, PROGRAM, VERSION, next_packages, one, packages, rpm, run};

/// Where a repository is in a tree.
const SERVED: &str = "/srv/packages";

/// Where the files lie that the documentation speaks of.
fn described(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/package/repository").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// A key to sign with, of this test alone.
struct Key(TempDir);

impl Key {
    fn new() -> Result<Self> {
        // Its agent's socket lies in it, and a socket's path is short.
        let key = Self(tempfile::Builder::new().prefix("key-").tempdir_in("/tmp")?);
        let who = "smtp-observer packages <packages@example.org>";
        run(key.gpg().args(["--passphrase", "", "--quick-generate-key", who, "rsa3072", "sign", "1d"]))?;
        Ok(key)
    }

    fn gpg(&self) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.env("GNUPGHOME", self.0.path()).args(["--batch", "--quiet", "--pinentry-mode", "loopback"]);
        gpg
    }

    /// The public half, as it is given to hosts.
    fn public(&self) -> Result<String> {
        run(self.gpg().args(["--armor", "--export"]))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // Where it has ended already, there is nothing to end.
        let _ = run(Command::new("gpgconf").env("GNUPGHOME", self.0.path()).args(["--kill", "all"]));
    }
}

/// Adds packages to a repository of Debian's in `folder`.
fn reprepro(folder: &Path, key: &Key, packages: &[PathBuf]) -> Result<()> {
    fs::create_dir_all(folder.join("conf"))?;
    fs::write(folder.join("conf/distributions"), described("distributions")?)?;
    let mut reprepro = Command::new("reprepro");
    reprepro.env("GNUPGHOME", key.0.path()).arg("--basedir").arg(folder).args(["includedeb", "stable"]);
    run(reprepro.args(packages)).map(drop)
}

/// The Debian packages in a directory.
fn debs(directory: &Path) -> Result<Vec<PathBuf>> {
    ["smtp-observer_", "smtp-observer-dbgsym_"].iter().map(|name| one(directory, name, ".deb")).collect()
}

/// A tree that takes packages from a copy of `repository` alone, and believes this key.
fn tree_with(suite: &str, repository: &Path, key: &str) -> Result<Tree> {
    let tree = Tree::new(suite)?;
    copy(repository, &tree)?;
    let sources = described("smtp-observer.sources")?;
    let ours = sources.replace("https://packages.example.org/deb", &format!("file://{SERVED}"));
    ensure!(ours != sources, "no address to replace in:\n{sources}");
    tree.write("/etc/apt/sources.list.d/smtp-observer.sources", &ours)?;
    tree.write("/etc/apt/keyrings/smtp-observer.asc", key)?;
    Ok(tree)
}

/// Copies a repository to where the tree is served from.
fn copy(repository: &Path, tree: &Tree) -> Result<()> {
    let to = tree.path(SERVED);
    fs::create_dir_all(&to)?;
    run(Command::new("cp").arg("-r").arg(repository.join(".")).arg(&to)).map(drop)
}

fn apt_installs_and_upgrades(suite: &str) -> Result<()> {
    let (key, repository) = (Key::new()?, tempfile::tempdir()?);
    reprepro(repository.path(), &key, &debs(&packages()?)?)?;
    let tree = tree_with(suite, repository.path(), &key.public()?)?;
    let apt = |arguments: &[&str]| {
        tree.run(&[&["apt-get", "-q", "-y", "-o", "APT::Update::Error-Mode=any"], arguments].concat())
    };
    apt(&["update"])?;
    apt(&["install", "smtp-observer", "smtp-observer-dbgsym"])?;
    assert_eq!(tree.run(&[PROGRAM, "--version"])?, format!("smtp-observer {VERSION}\n"));

    reprepro(repository.path(), &key, &debs(&next_packages()?)?)?;
    copy(repository.path(), &tree)?;
    apt(&["update"])?;
    apt(&["upgrade"])?;
    let state = tree.run(&["dpkg-query", "--show", "--showformat=${Package} ${Version}\n", "smtp-observer*"])?;
    assert_eq!(state, format!("smtp-observer {NEXT_VERSION}-1\nsmtp-observer-dbgsym {NEXT_VERSION}-1\n"));
    apt(&["purge", "smtp-observer", "smtp-observer-dbgsym"])?;
    ensure!(!tree.has(PROGRAM));
    Ok(())
}

#[test]
fn debian_12s_apt_installs_and_upgrades() -> Result<()> {
    apt_installs_and_upgrades("bookworm")
}

#[test]
fn debian_13s_apt_installs_and_upgrades() -> Result<()> {
    apt_installs_and_upgrades("trixie")
}

#[test]
fn apt_refuses_what_another_has_signed() -> Result<()> {
    let (key, other, repository) = (Key::new()?, Key::new()?, tempfile::tempdir()?);
    reprepro(repository.path(), &key, &debs(&packages()?)?)?;
    for suite in ["bookworm", "trixie"] {
        let tree = tree_with(suite, repository.path(), &other.public()?)?;
        let update = ["apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"];
        let refusal = tree.run(&update).err().with_context(|| format!("{suite} has believed it"))?;
        ensure!(format!("{refusal:#}").contains("signature"), "{refusal:#}");
    }
    Ok(())
}

/// Signs packages and their list, as the documentation has it.
fn createrepo(folder: &Path, key: &Key, packages: &[PathBuf]) -> Result<()> {
    for package in packages {
        let copy = folder.join(package.file_name().context("a package has a name")?);
        fs::copy(package, &copy)?;
        let mut sign = Command::new("rpmsign");
        sign.env("GNUPGHOME", key.0.path()).args([
            "--define",
            "__gpg /usr/bin/gpg",
            "--define",
            "_gpg_name packages@example.org",
        ]);
        run(sign.arg("--addsign").arg(&copy))?;
    }
    run(Command::new("createrepo_c").arg(folder))?;
    let list = folder.join("repodata/repomd.xml");
    run(key.gpg().args(["--yes", "--detach-sign", "--armor"]).arg(list)).map(drop)
}

/// This machine's dnf, at work in a root, with no repository but ours.
fn dnf(root: &Tree, repository: &Path, key: &str, arguments: &[&str]) -> Result<String> {
    let settings = tempfile::tempdir()?;
    let (public, repositories) = (settings.path().join("key.asc"), settings.path().join("repositories"));
    fs::create_dir(&repositories)?;
    fs::write(&public, key)?;
    let file = described("smtp-observer.repo")?;
    let file = file.replace("https://packages.example.org/smtp-observer.asc", &format!("file://{}", public.display()));
    let file = file.replace("https://packages.example.org/rpm", &format!("file://{}", repository.display()));
    ensure!(!file.contains("example.org"), "an address is left in:\n{file}");
    fs::write(repositories.join("smtp-observer.repo"), file)?;
    let mut dnf = Command::new("dnf");
    dnf.arg("--installroot").arg(root.path("/"));
    dnf.arg(format!("--setopt=reposdir={}", repositories.display()));
    dnf.arg(format!("--setopt=cachedir={}", settings.path().join("cache").display()));
    dnf.args(["--releasever=9", "--assumeyes", "--refresh"]).args(arguments);
    run(&mut dnf)
}

#[test]
fn dnf_installs_and_upgrades() -> Result<()> {
    let (key, repository, root) = (Key::new()?, tempfile::tempdir()?, rpm::root()?);
    createrepo(repository.path(), &key, &[rpm::package(&packages()?, VERSION)])?;
    dnf(&root, repository.path(), &key.public()?, &["install", "smtp-observer"])?;
    assert_eq!(root.run(&[PROGRAM, "--version"])?, format!("smtp-observer {VERSION}\n"));
    createrepo(repository.path(), &key, &[rpm::package(&next_packages()?, NEXT_VERSION)])?;
    dnf(&root, repository.path(), &key.public()?, &["upgrade"])?;
    let query = run(Command::new("rpm").arg("--root").arg(root.path("/")).args(["--query", "smtp-observer"]))?;
    ensure!(query.starts_with(&format!("smtp-observer-{NEXT_VERSION}-1.")), "{query}");
    Ok(())
}

#[test]
fn dnf_refuses_what_another_has_signed() -> Result<()> {
    let (key, other, repository, root) = (Key::new()?, Key::new()?, tempfile::tempdir()?, rpm::root()?);
    createrepo(repository.path(), &key, &[rpm::package(&packages()?, VERSION)])?;
    let refused = dnf(&root, repository.path(), &other.public()?, &["install", "smtp-observer"]);
    let refusal = refused.err().context("dnf has believed it")?;
    ensure!(!root.has(PROGRAM), "it is installed");
    ensure!(format!("{refusal:#}").contains("GPG"), "{refusal:#}");
    Ok(())
}
