//! TLS in words.

use super::{Emphasis, Text};
use crate::observation::{Tls, TlsPhase};

impl Text {
    /// What is said of TLS; nothing where an exchange says it.
    pub(super) fn tls(tls: &Tls) -> Option<Self> {
        match tls.phase {
            TlsPhase::Offered | TlsPhase::Requested | TlsPhase::Refused => None,
            TlsPhase::NotUsed => Some(Self::sentence(Emphasis::Notice, "TLS was offered and not used".into())),
            TlsPhase::Started => {
                let visible = if tls.visible { "its plaintext is read" } else { "what follows is not visible" };
                let unread = unread(tls);
                let text = format!("{} started{}; {visible}{unread}", name(tls), terms(tls));
                Some(Self::sentence(Emphasis::Progress, text))
            }
            TlsPhase::Read => Some(Self::sentence(Emphasis::Progress, "TLS is read from here on".into())),
            TlsPhase::Failed => {
                Some(Self::sentence(Emphasis::Warning, format!("{} failed{}: {}", name(tls), terms(tls), reason(tls))))
            }
        }
    }
}

/// The protocol, with its version if that is known.
fn name(tls: &Tls) -> String {
    match tls.version.map(|version| version.as_str()) {
        None => "TLS".into(),
        Some(version) => match version.strip_prefix("ssl_") {
            Some(version) => format!("SSL {version}"),
            None => format!("TLS {version}"),
        },
    }
}

/// What the two agree on.
fn terms(tls: &Tls) -> String {
    let cipher = tls.cipher.as_ref().map(|cipher| format!(" with {cipher}"));
    let server_name = tls.server_name.as_ref().map(|name| format!(" for {name}"));
    [cipher, server_name].into_iter().flatten().collect()
}

/// Why the plaintext is not read, if that is known.
fn unread(tls: &Tls) -> &'static str {
    match tls.reason.as_deref() {
        Some("off") => ": TLS is not read",
        Some("not_searched") => ": its process was not searched for libraries yet",
        Some("no_library") => ": its process has no OpenSSL or GnuTLS",
        Some("outside_calls") => ": its process does not use the socket within its library's calls, or did so before",
        _ => "",
    }
}

fn reason(tls: &Tls) -> String {
    match (tls.alert_by, tls.reason.as_deref().unwrap_or_default()) {
        (Some(peer), "encrypted_alert") => format!("the {peer} ended it with an alert that is encrypted"),
        (Some(peer), alert) => format!("the {peer} sent the alert {alert}"),
        (None, "no_client_hello") => "closed before the client's hello".into(),
        (None, "no_server_hello") => "closed before the server's hello".into(),
        (None, "answered_in_clear") => "the server answered in clear".into(),
        (None, _) => "closed during the handshake".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::TlsVersion;

    #[test]
    fn how_far_it_got() {
        let of = |phase| Tls::new(phase);
        let started = Tls {
            version: Some(TlsVersion::Tls13),
            cipher: Some("TLS_AES_256_GCM_SHA384".into()),
            server_name: Some("mx.example".into()),
            ..of(TlsPhase::Started)
        };
        let failed =
            |reason: &'static str, alert_by| Tls { reason: Some(reason.into()), alert_by, ..of(TlsPhase::Failed) };
        for (tls, expected) in [
            (of(TlsPhase::Offered), None),
            (of(TlsPhase::Requested), None),
            (Tls { code: Some(454), ..of(TlsPhase::Refused) }, None),
            (of(TlsPhase::NotUsed), Some("TLS was offered and not used")),
            (of(TlsPhase::Started), Some("TLS started; what follows is not visible")),
            (
                Tls { reason: Some("off".into()), ..of(TlsPhase::Started) },
                Some("TLS started; what follows is not visible: TLS is not read"),
            ),
            (of(TlsPhase::Read), Some("TLS is read from here on")),
            (
                started.clone(),
                Some("TLS 1.3 started with TLS_AES_256_GCM_SHA384 for mx.example; what follows is not visible"),
            ),
            (
                Tls { visible: true, server_name: None, ..started },
                Some("TLS 1.3 started with TLS_AES_256_GCM_SHA384; its plaintext is read"),
            ),
            (
                Tls { version: Some(TlsVersion::Ssl3), ..failed("handshake_failure", Some("server")) },
                Some("SSL 3.0 failed: the server sent the alert handshake_failure"),
            ),
            (
                failed("encrypted_alert", Some("client")),
                Some("TLS failed: the client ended it with an alert that is encrypted"),
            ),
            (failed("no_client_hello", None), Some("TLS failed: closed before the client's hello")),
            (failed("no_server_hello", None), Some("TLS failed: closed before the server's hello")),
            (failed("answered_in_clear", None), Some("TLS failed: the server answered in clear")),
            (failed("closed_in_handshake", None), Some("TLS failed: closed during the handshake")),
        ] {
            assert_eq!(Text::tls(&tls).map(|text| text.text).as_deref(), expected, "{tls:?}");
        }
    }
}
