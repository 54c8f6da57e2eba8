//! Mail software that sends, unpacked and never installed: as packages, these and Postfix shut each other out, or are not
//! of this machine's suite.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::apt::Apt;
use crate::process::say;

/// Whose versions these are.
const SUITE: &str = "trixie";

/// Where each is unpacked, and Debian's packages that make it.
const SENDERS: [(&str, &[&str]); 3] =
    [("exim", &["exim4-daemon-light"]), ("opensmtpd", &["opensmtpd"]), ("nodemailer", &["node-nodemailer", "nodejs"])];

/// Unpacks those that are missing in `.tools/senders`.
pub(crate) fn ensure_unpacked(root: &Path) -> Result<()> {
    let directory = root.join(".tools/senders");
    let missing = SENDERS.iter().map(|(name, packages)| (directory.join(name), packages));
    let missing: Vec<_> = missing.filter(|(place, _)| !place.exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(&directory)?;
    let apt = Apt::new(&directory.join("apt"), SUITE).context("there are no senders to unpack")?;
    for (place, packages) in missing {
        say(&format!("downloading {}, to be unpacked and not installed: a sender for the tests", packages.join(", ")));
        apt.unpack_whole(packages, &place)?;
    }
    Ok(())
}
