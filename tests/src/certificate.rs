//! A certificate for servers that speak TLS, which nobody but the test has reason to trust.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::{machine, process};

/// A certificate and its key, in files that every user may read.
#[derive(Debug)]
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    /// Has openssl(1) make one.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("smtp-observer-certificate-").tempdir()?;
        let certificate = Self { folder };
        let mut openssl = Command::new(machine::installed("openssl")?);
        // Not this machine's configuration, which is missing where the tests run in another kernel.
        openssl.args([
            "req",
            "-config",
            "/dev/null",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-noenc",
        ]);
        openssl.args(["-days", "2", "-subj", "/CN=server.example", "-addext", "subjectAltName=DNS:server.example"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
        certificate.make(openssl)
    }

    /// One of a client, signed by this one.
    pub fn sign(&self, name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("smtp-observer-certificate-").tempdir()?;
        let certificate = Self { folder };
        let mut openssl = Command::new(machine::installed("openssl")?);
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]);
        openssl.args(["-days", "2", "-subj", &format!("/CN={name}"), "-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.args(["-addext", "extendedKeyUsage=clientAuth"]);
        openssl.arg("-CA").arg(self.chain()).arg("-CAkey").arg(self.key());
        certificate.make(openssl)
    }

    fn make(self, mut openssl: Command) -> Result<Self> {
        let certificate = self;
        openssl.arg("-keyout").arg(certificate.key()).arg("-out").arg(certificate.chain());
        process::run(openssl)?;
        let both = [fs::read(certificate.key())?, fs::read(certificate.chain())?].concat();
        fs::write(certificate.both(), both)?;
        fs::set_permissions(certificate.folder.path(), Permissions::from_mode(0o755))?;
        for file in [certificate.key(), certificate.chain(), certificate.both()] {
            fs::set_permissions(file, Permissions::from_mode(0o644))?;
        }
        Ok(certificate)
    }

    /// The certificate, in PEM.
    pub fn chain(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// Its key, in PEM.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// The key and the certificate in one file, in PEM.
    pub fn both(&self) -> PathBuf {
        self.folder.path().join("both.pem")
    }
}
