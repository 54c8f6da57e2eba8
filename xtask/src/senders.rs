//! Mail software that sends or stands in between, Prometheus and rsyslog, unpacked and never installed: as packages, some of
//! these and Postfix shut each other out, some would start a daemon at once, and some are not of this machine's suite.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt::{Apt, run};
use crate::packages;
use crate::process::say;

/// Whose versions these are.
const SUITE: &str = "trixie";

/// Where each is unpacked, and Debian's packages that make it.
const SENDERS: [(&str, &[&str]); 16] = [
    ("exim", &["exim4-daemon-light"]),
    ("opensmtpd", &["opensmtpd"]),
    ("nodemailer", &["node-nodemailer", "nodejs"]),
    ("dovecot", &["dovecot-submissiond"]),
    // Its module for TLS is of the same suite as its Perl.
    ("swaks", &["swaks", "libnet-ssleay-perl"]),
    ("nullmailer", &["nullmailer"]),
    ("ssmtp", &["ssmtp"]),
    // It starts its filter with a shell.
    ("proxsmtp", &["proxsmtp", "dash", "coreutils"]),
    ("clamsmtp", &["clamsmtp", "clamav-daemon"]),
    ("haproxy", &["haproxy"]),
    ("socat", &["socat"]),
    ("stunnel", &["stunnel4"]),
    ("nginx", &["nginx", "libnginx-mod-mail"]),
    ("opendkim", &["opendkim"]),
    // What scrapes the agent, with promtool; the library for Python has a strict reader of OpenMetrics.
    ("prometheus", &["prometheus", "python3-prometheus-client"]),
    // What ships events, to Elasticsearch and to Kafka; kcat plays the broker, and reads what it was given.
    ("rsyslog", &["rsyslog", "rsyslog-elasticsearch", "rsyslog-kafka", "kcat"]),
];

/// What keeps the metrics of many hosts; it is unpacked for the benchmark of a fleet, not for the tests.
const STORE: (&str, &[&str]) = ("victoria-metrics", &["victoria-metrics"]);

/// What draws plots; it is unpacked where they are wanted, not for the tests.
const PLOTTER: (&str, &[&str]) = ("matplotlib", &["python3-matplotlib"]);

/// nodemailer as it is today: its pool resets after failures, while Debian's older one closes.
const NODEMAILER: &str = "nodemailer@10.6.1";

/// Where it lies in Node.js's root.
const MODULES: &str = "nodemailer/usr/local/lib";

/// Unpacks those that are missing in `.tools/senders`.
pub(crate) fn ensure_unpacked(root: &Path) -> Result<()> {
    unpack(root, &SENDERS)?;
    let modules = root.join(".tools/senders").join(MODULES);
    if !modules.join("node_modules/nodemailer").exists() {
        packages::ensure_installed(&[&packages::NPM])?;
        say(&format!("fetching {NODEMAILER} with npm: a sender for the tests"));
        let options = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
        run(Command::new("npm").arg("install").args(options).arg("--prefix").arg(&modules).arg(NODEMAILER))?;
    }
    Ok(())
}

/// Unpacks Prometheus and what it writes to.
pub(crate) fn ensure_stores(root: &Path) -> Result<()> {
    let prometheus = SENDERS.into_iter().filter(|(name, _)| *name == "prometheus");
    unpack(root, &prometheus.chain([STORE]).collect::<Vec<_>>())
}

/// Unpacks what draws plots.
pub(crate) fn ensure_plotter(root: &Path) -> Result<()> {
    unpack(root, &[PLOTTER])
}

fn unpack(root: &Path, senders: &[(&str, &[&str])]) -> Result<()> {
    let directory = root.join(".tools/senders");
    let missing = senders.iter().map(|(name, packages)| (directory.join(name), packages));
    let missing: Vec<_> = missing.filter(|(place, _)| !place.exists()).collect();
    if !missing.is_empty() {
        fs::create_dir_all(&directory)?;
        let apt = Apt::new(&directory.join("apt"), SUITE).context("there are no senders to unpack")?;
        for (place, packages) in missing {
            let packages_said = packages.join(", ");
            say(&format!("downloading {packages_said}, to be unpacked and not installed"));
            apt.unpack_whole(packages, &place)?;
        }
    }
    Ok(())
}
