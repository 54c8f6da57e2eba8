//! The scene once more, through STARTTLS: the interceptor ends the client's TLS, and speaks its own to the server.
//!
//! Its actors are scripts: Python's `ssl` is OpenSSL, as mail software uses it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{INTERCEPTOR_USER, SERVER};
use crate::machine;
use crate::netns::Host;
use crate::process;

/// The scripts, by their names.
const SCRIPTS: [(&str, &str); 6] = [
    ("lines.py", include_str!("tls/lines.py")),
    ("mail-client.py", include_str!("tls/mail-client.py")),
    ("antivirus-proxy.py", include_str!("tls/antivirus-proxy.py")),
    ("mail-server.py", include_str!("tls/mail-server.py")),
    ("pass-through.py", include_str!("tls/pass-through.py")),
    ("redirected.py", include_str!("tls/redirected.py")),
];

/// The actors, with certificates of their own.
#[derive(Debug)]
pub struct Actors {
    folder: TempDir,
    interceptor: &'static str,
}

impl Actors {
    /// Writes the scripts down, and makes a certificate each for the server and the interceptor.
    pub fn new() -> Result<Self> {
        Self::with("antivirus-proxy.py")
    }

    /// The same with a program in between that passes every byte as it comes.
    pub fn with_bytes_passed() -> Result<Self> {
        Self::with("pass-through.py")
    }

    fn with(interceptor: &'static str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("smtp-observer-scene-").tempdir()?;
        for (name, script) in SCRIPTS {
            std::fs::write(folder.path().join(name), script)?;
        }
        for name in ["mail.server.example", "antivirus.example"] {
            certificate(folder.path(), name)?;
        }
        Ok(Self { folder, interceptor })
    }

    /// The client.
    pub fn client(&self, host: &Host) -> Result<Command> {
        let mut client = self.script(host, "mail-client.py")?;
        client.arg(address());
        Ok(client)
    }

    /// The interceptor.
    pub fn interceptor(&self, host: &Host) -> Result<Command> {
        let mut interceptor = self.script(host, self.interceptor)?;
        interceptor.args(self.certificate("antivirus.example")).arg(INTERCEPTOR_USER.to_string());
        Ok(interceptor)
    }

    /// The server.
    pub fn server(&self, host: &Host) -> Result<Command> {
        let mut server = self.script(host, "mail-server.py")?;
        server.arg(address()).args(self.certificate("mail.server.example"));
        Ok(server)
    }

    fn script(&self, host: &Host, name: &str) -> Result<Command> {
        let mut python = host.command(machine::installed("python3")?);
        // Without traces of itself beside the scripts.
        python.arg("-B").arg(self.folder.path().join(name));
        Ok(python)
    }

    fn certificate(&self, name: &str) -> [std::path::PathBuf; 2] {
        ["pem", "key"].map(|end| self.folder.path().join(format!("{name}.{end}")))
    }
}

fn address() -> &'static str {
    SERVER.split(':').next().unwrap_or(SERVER)
}

/// Makes a certificate that vouches for itself: `NAME.pem` and `NAME.key`.
pub fn certificate(folder: &Path, name: &str) -> Result<()> {
    let mut openssl = Command::new(machine::installed("openssl")?);
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", &format!("/CN={name}"), "-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
    process::run({
        openssl.current_dir(folder);
        openssl
    })
    .map(drop)
    .context("making a certificate")
}
