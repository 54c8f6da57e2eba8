//! TLS as the web configuration's `tls_server_config` has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ProtocolVersion, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version};
use serde::Deserialize;

use super::config::Tls;
use crate::sink::reason;

/// Why TLS cannot be spoken as it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key is missing.
    #[error("tls_server_config needs {0}_file or {0}.")]
    Missing(&'static str),
    /// A file and its content are both given.
    #[error("tls_server_config has both {0}_file and {0}: leave one out.")]
    Both(&'static str),
    /// A file that it names cannot be read.
    #[error("cannot read its {key} {}: {}. The agent's user must be able to read it.", file.display(), reason(source))]
    Unreadable {
        /// The key that names it.
        key: String,
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in PEM that it should have.
    #[error("{0} has {1}.")]
    Pem(String, &'static str),
    /// Certificate and key do not fit, or are of an unknown kind.
    #[error("cert and key are of no use together: {0}.")]
    Pair(rustls::Error),
    /// The authorities' certificates are of no use.
    #[error("client_ca is of no use: {0}.")]
    Authorities(String),
    /// Certificates are wanted of clients, and no authority is named; or the reverse.
    #[error("{0}")]
    Clients(&'static str),
    /// The range of versions is empty.
    #[error("min_version is above max_version.")]
    Versions,
    /// No cipher suite is left of the versions.
    #[error("cipher_suites leaves none for TLS 1.2, the only version.")]
    Suites,
}

/// The section as it is written. Its defaults are those of the format.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsSection {
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_ca_file: Option<PathBuf>,
    client_auth_type: Option<ClientAuth>,
    min_version: Option<Version>,
    max_version: Option<Version>,
    cipher_suites: Option<Vec<Suite>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Vec<Curve>>,
}

/// What is asked of clients. The format's other values take any certificate, without looking who signed it.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
enum ClientAuth {
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

/// A cipher suite, by the name that IANA has for it.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Suite(SupportedCipherSuite);

impl TryFrom<String> for Suite {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let known = ring::ALL_CIPHER_SUITES.iter().find(|suite| iana(suite) == name);
        known.copied().map(Self).ok_or_else(|| {
            let names: Vec<_> = ring::ALL_CIPHER_SUITES.iter().map(iana).collect();
            format!("the cipher suite {name} is not supported, but these are: {}", names.join(", "))
        })
    }
}

/// The name without what tells the versions apart: of TLS 1.3 it begins like those before.
fn iana(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

/// A group for the exchange of keys, by the name that Go has for it.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Curve(&'static dyn SupportedKxGroup);

impl TryFrom<String> for Curve {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "X25519" => Ok(Self(ring::kx_group::X25519)),
            "CurveP256" => Ok(Self(ring::kx_group::SECP256R1)),
            "CurveP384" => Ok(Self(ring::kx_group::SECP384R1)),
            _ => Err(format!("the curve {name} is not supported, but these are: X25519, CurveP256, CurveP384")),
        }
    }
}

impl TlsSection {
    /// Whether it asks for TLS at all.
    pub(super) fn is_given(&self) -> bool {
        let texts = [&self.cert, &self.key, &self.client_ca];
        let files = [&self.cert_file, &self.key_file, &self.client_ca_file];
        texts.iter().any(|text| text.is_some()) || files.iter().any(|file| file.is_some()) || {
            self.client_auth_type.is_some()
        }
    }
}

/// What it asks for, with the files that it names; they are added to `files`.
pub(super) fn load(section: &TlsSection, folder: &Path, files: &mut Vec<PathBuf>) -> Result<Tls, TlsError> {
    let mut pem = |key: &'static str, text: &Option<String>, file: &Option<PathBuf>| match (text, file) {
        (Some(_), Some(_)) => Err(TlsError::Both(key)),
        (Some(text), None) => Ok(Some((key.to_owned(), text.clone().into_bytes()))),
        (None, Some(file)) => {
            let file = folder.join(file);
            let key = format!("{key}_file");
            files.push(file.clone());
            match fs::read(&file) {
                Ok(bytes) => Ok(Some((format!("its {key} {}", file.display()), bytes))),
                Err(source) => Err(TlsError::Unreadable { key, file, source }),
            }
        }
        (None, None) => Ok(None),
    };
    let chain = pem("cert", &section.cert, &section.cert_file)?.ok_or(TlsError::Missing("cert"))?;
    let key = pem("key", &section.key, &section.key_file)?.ok_or(TlsError::Missing("key"))?;
    let authorities = pem("client_ca", &section.client_ca, &section.client_ca_file)?;

    let (place, bytes) = chain;
    let chain = certificates(place, &bytes)?;
    let (place, bytes) = key;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| TlsError::Pem(place, "no private key in PEM"))?;
    let certificate = Arc::from(chain.first().map(|first| first.as_ref()).unwrap_or_default());

    let (provider, versions) = choices(section)?;
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(TlsError::Pair)?;
    let auth = section.client_auth_type.unwrap_or_default();
    let builder = match (auth, authorities) {
        (ClientAuth::NoClientCert, None) => builder.with_no_client_auth(),
        (ClientAuth::NoClientCert, Some(_)) => {
            return Err(TlsError::Clients(
                "client_ca is of no effect without client_auth_type: set that to RequireAndVerifyClientCert.",
            ));
        }
        (_, None) => return Err(TlsError::Clients("client_auth_type needs client_ca_file or client_ca.")),
        (auth, Some((place, bytes))) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(place, &bytes)? {
                roots.add(authority).map_err(|error| TlsError::Authorities(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match auth {
                ClientAuth::RequireAndVerifyClientCert => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            builder
                .with_client_cert_verifier(verifier.build().map_err(|error| TlsError::Authorities(error.to_string()))?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.ignore_client_order = section.prefer_server_cipher_suites.unwrap_or(true);
    Ok(Tls { server: Arc::new(server), certificate, certified: auth == ClientAuth::RequireAndVerifyClientCert })
}

fn certificates(place: String, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(TlsError::Pem(place, "no certificate in PEM")),
    }
}

/// Cipher suites, groups and versions.
fn choices(section: &TlsSection) -> Result<(CryptoProvider, Vec<&'static SupportedProtocolVersion>), TlsError> {
    let least = section.min_version.unwrap_or(Version::Tls12);
    let most = section.max_version.unwrap_or(Version::Tls13);
    let versions = [(Version::Tls13, &version::TLS13), (Version::Tls12, &version::TLS12)];
    let versions: Vec<_> = versions
        .into_iter()
        .filter(|(version, _)| (least..=most).contains(version))
        .map(|(_, version)| version)
        .collect();
    if versions.is_empty() {
        return Err(TlsError::Versions);
    }
    let mut provider = ring::default_provider();
    // As in the format: those of TLS 1.3 are not chosen.
    let is_new = |suite: &SupportedCipherSuite| suite.version().version == ProtocolVersion::TLSv1_3;
    if let Some(chosen) = section.cipher_suites.as_ref().filter(|chosen| !chosen.is_empty()) {
        provider.cipher_suites.retain(is_new);
        provider.cipher_suites.extend(chosen.iter().map(|suite| suite.0).filter(|suite| !is_new(suite)));
        if most == Version::Tls12 && provider.cipher_suites.iter().all(is_new) {
            return Err(TlsError::Suites);
        }
    }
    if let Some(chosen) = section.curve_preferences.as_ref().filter(|chosen| !chosen.is_empty()) {
        provider.kx_groups = chosen.iter().map(|curve| curve.0).collect();
    }
    Ok((provider, versions))
}
