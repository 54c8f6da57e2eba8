//! The file that says who is let in: the web configuration of Prometheus' exporters (exporter-toolkit,
//! docs/web-configuration.md).
//!
//! What that format knows and this server does not is refused with its name, and so is what neither knows: a
//! restriction that is not in force must not look as if it were.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use bcrypt::HashParts;
use rustls::ServerConfig;
use serde::Deserialize;

use super::tls::{self, TlsError, TlsSection};
use crate::sink::reason;

/// Who is let in, and with which headers answers go out.
pub(super) struct WebConfig {
    /// How TLS is spoken; without it there is none.
    pub(super) tls: Option<Tls>,
    /// Headers of every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Users and their passwords' hashes; without one, everybody is let in.
    pub(super) users: BTreeMap<String, Hash>,
    /// All files that it is made of, its own first.
    pub(super) files: Vec<PathBuf>,
}

/// How TLS is spoken.
#[derive(Clone)]
pub(in crate::sink::http) struct Tls {
    pub(in crate::sink::http) server: Arc<ServerConfig>,
    /// The server's own certificate, in DER.
    pub(in crate::sink::http) certificate: Arc<[u8]>,
    /// Only clients with a certificate are let in.
    pub(super) certified: bool,
}

/// Why a web configuration is of no use. Exit status 2.
#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    /// It cannot be read.
    #[error(
        "cannot read the web configuration {}: {}. Give another with --web-config-file FILE.",
        path.display(),
        reason(source)
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not YAML, or a key or a value is wrong.
    #[error("the web configuration {} is wrong{}: {message}.", path.display(), in_line(*line))]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        line: Option<u64>,
        /// What is wrong, naming the key.
        message: String,
    },
    /// What it says of TLS cannot be done.
    #[error("the web configuration {}: {source}", path.display())]
    Tls {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: TlsError,
    },
    /// Passwords cannot be looked at.
    #[error("the host has no random numbers to look at passwords with.")]
    Random(ring::error::Unspecified),
    /// After a change it would let in whom it did not let in before.
    #[error(
        "the web configuration {} no longer has {lost}, which is not taken away from a running agent: start it anew.",
        path.display()
    )]
    Weaker {
        /// Which file.
        path: PathBuf,
        /// What is gone.
        lost: &'static str,
    },
}

fn in_line(line: Option<u64>) -> String {
    line.map(|line| format!(" in line {line}")).unwrap_or_default()
}

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    tls_server_config: Option<TlsSection>,
    http_server_config: Option<HttpSection>,
    basic_auth_users: Option<BTreeMap<String, Hash>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpSection {
    /// HTTP/2 may be offered. It never is: clients then speak HTTP/1.1.
    #[serde(rename = "http2")]
    _http2: bool,
    headers: Option<Headers>,
}

/// The headers that the format knows.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Headers {
    #[serde(rename = "Content-Security-Policy")]
    content_security_policy: Option<Text>,
    #[serde(rename = "X-Frame-Options")]
    x_frame_options: Option<FrameOptions>,
    #[serde(rename = "X-Content-Type-Options")]
    x_content_type_options: Option<ContentTypeOptions>,
    #[serde(rename = "X-XSS-Protection")]
    x_xss_protection: Option<Text>,
    #[serde(rename = "Strict-Transport-Security")]
    strict_transport_security: Option<Text>,
}

/// The value of a header.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Text(HeaderValue);

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        HeaderValue::try_from(text).map(Self).map_err(|_| "a header has characters that headers cannot have")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FrameOptions {
    Deny,
    Sameorigin,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ContentTypeOptions {
    Nosniff,
}

impl Headers {
    /// Those that are given and not blank.
    fn given(self) -> Vec<(HeaderName, HeaderValue)> {
        let frames = self.x_frame_options.map(|value| match value {
            FrameOptions::Deny => "deny",
            FrameOptions::Sameorigin => "sameorigin",
        });
        let types = self.x_content_type_options.map(|ContentTypeOptions::Nosniff| "nosniff");
        let all = [
            ("content-security-policy", self.content_security_policy.map(|text| text.0)),
            ("x-frame-options", frames.map(HeaderValue::from_static)),
            ("x-content-type-options", types.map(HeaderValue::from_static)),
            ("x-xss-protection", self.x_xss_protection.map(|text| text.0)),
            ("strict-transport-security", self.strict_transport_security.map(|text| text.0)),
        ];
        let given = all.into_iter().filter_map(|(name, value)| Some((HeaderName::from_static(name), value?)));
        given.filter(|(_, value)| !value.is_empty()).collect()
    }
}

/// A password's hash by bcrypt.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub(super) struct Hash(pub(super) String);

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts = text.parse::<HashParts>();
        match parts {
            Ok(parts) if (4..=31).contains(&parts.get_cost()) => Ok(Self(text)),
            // Without what is there: it may be a password.
            _ => Err("a password under basic_auth_users is no bcrypt hash: `htpasswd -nBC 10 USER` makes one".into()),
        }
    }
}

impl WebConfig {
    /// Reads the file and those that it names.
    pub(super) fn read(path: &Path) -> Result<Self, WebConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| WebConfigError::Unreadable { path: path.to_owned(), source })?;
        let file = parse(&text).map_err(|error| {
            let error = error.without_snippet();
            WebConfigError::Invalid {
                path: path.to_owned(),
                line: error.location().map(|location| location.line()),
                message: message(error),
            }
        })?;
        let mut files = vec![path.to_owned()];
        let folder = path.parent().unwrap_or(Path::new(""));
        let tls = file.tls_server_config.filter(TlsSection::is_given);
        let tls = tls.map(|section| tls::load(&section, folder, &mut files));
        let tls = tls.transpose().map_err(|source| WebConfigError::Tls { path: path.to_owned(), source })?;
        let headers = file.http_server_config.and_then(|section| section.headers).map(Headers::given);
        let users = file.basic_auth_users.unwrap_or_default();
        Ok(Self { tls, headers: headers.unwrap_or_default(), users, files })
    }

    /// Whether nobody is let in without a password or a certificate.
    pub(super) fn authenticates(&self) -> bool {
        !self.users.is_empty() || self.certifies()
    }

    /// Whether nobody is let in without a certificate.
    pub(super) fn certifies(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.certified)
    }
}

fn parse(text: &str) -> Result<File, serde_saphyr::Error> {
    // An empty file is one without a restriction, as it is for exporters.
    Ok(serde_saphyr::from_str::<Option<File>>(text)?.unwrap_or_default())
}

/// What is wrong, in one line, without its end and its place.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let text = text.lines().next().unwrap_or_default();
    let place = error.location().map(|place| format!(" at line {}, column {}", place.line(), place.column()));
    let text = place.and_then(|place| text.strip_suffix(&*place)).unwrap_or(text);
    text.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$04$......................LAtw7/ohmmBAhnXqmkuIz83Rl5Qdjhm";

    fn error(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("web.yml");
        fs::write(&path, text).expect("written");
        let error = WebConfig::read(&path).err().expect("wrong");
        error.to_string().replace(&path.display().to_string(), "web.yml")
    }

    fn config(text: &str) -> WebConfig {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("web.yml");
        fs::write(&path, text).expect("written");
        match WebConfig::read(&path) {
            Ok(config) => config,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn an_empty_file_restricts_nothing() {
        for text in ["", "# nothing\n", "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\n", "{}"] {
            let config = config(text);
            assert!(config.tls.is_none() && config.users.is_empty() && config.headers.is_empty(), "{text}");
            assert!(!config.authenticates());
        }
    }

    #[test]
    fn users_and_headers_are_taken() {
        let config = config(&format!(
            "basic_auth_users:\n  alice: {HASH}\n  \"bob\": '{HASH}'\nhttp_server_config:\n  http2: false\n  headers:\n    \
             Strict-Transport-Security: max-age=31536000\n    X-Frame-Options: deny\n    X-XSS-Protection: \"\"\n"
        ));
        assert_eq!(config.users.keys().collect::<Vec<_>>(), ["alice", "bob"]);
        let headers: Vec<_> = config.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let expected: [(&str, &[u8]); 2] =
            [("x-frame-options", b"deny"), ("strict-transport-security", b"max-age=31536000")];
        assert_eq!(headers, expected);
        assert!(config.authenticates());
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_name_and_line() {
        for (text, line, name) in [
            ("basic_auth_user:\n  alice: x\n", 1, "basic_auth_user"),
            ("tls_server_config:\n  cert_file: a\n  key_fil: b\n", 3, "key_fil"),
            ("http_server_config:\n  headers:\n    X-Powered-By: y\n", 3, "X-Powered-By"),
            ("http_server_config:\n  headers:\n    X-Frame-Options: allow\n", 3, "allow"),
            ("tls_server_config:\n  min_version: TLS10\n", 2, "TLS10"),
            (
                "tls_server_config:\n  cipher_suites:\n  - TLS_RSA_WITH_AES_128_CBC_SHA\n",
                3,
                "TLS_RSA_WITH_AES_128_CBC_SHA",
            ),
            ("tls_server_config:\n  curve_preferences: [CurveP521]\n", 2, "CurveP521"),
            ("tls_server_config:\n  client_auth_type: RequestClientCert\n", 2, "RequestClientCert"),
            ("rate_limit:\n  burst: 3\n", 1, "rate_limit"),
        ] {
            let error = error(text);
            assert!(error.starts_with(&format!("the web configuration web.yml is wrong in line {line}: ")), "{error}");
            assert!(error.contains(name) && !error.contains('\n') && error.ends_with('.'), "{error}");
        }
    }

    #[test]
    fn a_hash_that_is_none_is_refused_and_not_repeated() {
        for hash in ["secret", &HASH[..59], &HASH.replace("$04$", "$03$")] {
            assert_eq!(
                error(&format!("basic_auth_users:\n  alice: {hash}\n")),
                "the web configuration web.yml is wrong in line 2: a password under basic_auth_users is no bcrypt hash: \
                 `htpasswd -nBC 10 USER` makes one."
            );
        }
    }

    #[test]
    fn a_file_that_is_missing_suggests_the_option() {
        let error = WebConfig::read(Path::new("/nonexistent/web.yml")).err().expect("missing");
        assert_eq!(
            error.to_string(),
            "cannot read the web configuration /nonexistent/web.yml: no such file or directory. Give another with \
             --web-config-file FILE."
        );
    }
}
