//! Which hosts the agent is asked for as, and what browsers may do with the page.
//!
//! A web site that somebody on this host visits must not read what the agent knows. Browsers keep one site from reading
//! another by their names; a site whose name is turned to this host's address (DNS rebinding) would be the agent's own.
//! So only hosts are answered that no other site can turn: an address, `localhost`, a name that the agent was given, and
//! over TLS the names of its certificate.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use rustls::pki_types::{CertificateDer, ServerName};
use webpki::EndEntityCert;

use super::plain;

/// Nothing but what this very server has; no script or markup made from text; in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Where a request comes from, as browsers say.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is said to who asks for another host.
pub(super) const OTHER_HOST: &str = "the agent answers at an IP address, at localhost, at its host's name, at the names of its \
    certificate, and at names given with --allowed-host NAME: any other could be turned to this host by a web site. Behind a reverse proxy, \
    have it send `Host: localhost`.\n";
const OTHER_SITE: &str = "another web site has asked for this\n";

/// The same routes, guarded.
pub(super) fn guarded<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes.route_layer(middleware::from_fn(guard))
}

async fn guard(request: Request, next: Next) -> Response {
    if request.uri().path().starts_with("/api/") && is_of_other_site(request.headers()) {
        return refused(StatusCode::FORBIDDEN, OTHER_SITE);
    }
    restricted(next.run(request).await)
}

/// A refusal, which a browser shows as little as it would the page to others.
pub(super) fn refused(status: StatusCode, text: &'static str) -> Response {
    restricted(plain(status, text))
}

fn restricted(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The host that a request is for, without its port.
pub(super) struct Host<'a>(&'a str);

impl<'a> Host<'a> {
    /// None if a request names no host, or several.
    pub(super) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
        let host = host.to_str().ok()?;
        let authority = Authority::try_from(host).ok()?;
        // A port may follow the name, and a user may not come before it.
        let name = host.get(..authority.host().len()).filter(|name| *name == authority.host())?;
        // A dot at its end says that it is complete (RFC 1034, 3.1).
        let name = name.strip_suffix('.').unwrap_or(name);
        Some(Self(name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)))
    }

    pub(super) fn name(&self) -> &str {
        self.0
    }

    pub(super) fn is_address_or_local(&self) -> bool {
        self.0.eq_ignore_ascii_case("localhost") || self.0.parse::<IpAddr>().is_ok()
    }

    /// Whether a certificate, in DER, is valid for it.
    pub(super) fn is_named_by(&self, certificate: &[u8]) -> bool {
        let certificate = CertificateDer::from(certificate);
        let Ok(certificate) = EndEntityCert::try_from(&certificate) else { return false };
        let Ok(name) = ServerName::try_from(self.0) else { return false };
        certificate.verify_is_valid_for_subject_name(&name).is_ok()
    }
}

fn is_of_other_site(headers: &HeaderMap) -> bool {
    headers.get(SITE).is_some_and(|site| site != "same-origin" && site != "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_names_that_nobody_can_turn() {
        let is_own =
            |values: &[&'static str]| Host::of(&headers(&HOST, values)).is_some_and(|host| host.is_address_or_local());
        for host in [
            "127.0.0.1:9725",
            "127.0.0.1",
            "[::1]:9725",
            "[::1]",
            "192.0.2.1:80",
            "localhost",
            "LocalHost:1",
            "localhost.:1",
        ] {
            assert!(is_own(&[host]), "{host}");
        }
        for host in [
            "",
            ".",
            "localhost..",
            "rebind.example:9725",
            "localhost.rebind.example",
            "127.0.0.1.rebind.example",
            "localhost@rebind.example",
            "rebind.example@localhost",
            "@",
            "a b",
            "[x]",
        ] {
            assert!(!is_own(&[host]), "{host}");
        }
        assert!(!is_own(&[]));
        assert!(!is_own(&["127.0.0.1", "rebind.example"]));
    }

    #[test]
    fn a_host_has_a_name_without_a_port() {
        for (host, name) in
            [("mail.example:9725", "mail.example"), ("mail.example.", "mail.example"), ("[::1]:1", "::1")]
        {
            assert_eq!(Host::of(&headers(&HOST, &[host])).expect("a host").name(), name);
        }
    }

    #[test]
    fn other_sites_have_no_business_here() {
        for (site, other) in [("same-origin", false), ("none", false), ("same-site", true), ("cross-site", true)] {
            assert_eq!(is_of_other_site(&headers(&SITE, &[site])), other, "{site}");
        }
        assert!(!is_of_other_site(&headers(&SITE, &[])), "not a browser");
    }
}
