//! Who may have the page and what it asks for, and what browsers may do with it.
//!
//! A web site that somebody on this host visits must not read what the agent knows. Browsers keep one site from reading
//! another by their names; a site whose name is turned to this host's address (DNS rebinding) would be the page's own.
//! So only hosts are answered that nobody can turn: an address, or `localhost`.

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

const OTHER_HOST: &str = "this page is answered at an IP address or at localhost only, since any other name could be \
    turned to this host by a web site. Behind a reverse proxy, have it send `Host: localhost`.\n";
const OTHER_SITE: &str = "another web site has asked for this\n";

/// The same routes, guarded.
pub(super) fn guarded<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes.route_layer(middleware::from_fn(guard))
}

async fn guard(request: Request, next: Next) -> Response {
    let mut response = if !is_own_host(request.headers()) {
        plain(StatusCode::MISDIRECTED_REQUEST, OTHER_HOST)
    } else if request.uri().path().starts_with("/api/") && is_of_other_site(request.headers()) {
        plain(StatusCode::FORBIDDEN, OTHER_SITE)
    } else {
        next.run(request).await
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn is_own_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = Authority::try_from(host.as_bytes()) else { return false };
    let name = host.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
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
        for host in ["127.0.0.1:9725", "127.0.0.1", "[::1]:9725", "[::1]", "192.0.2.1:80", "localhost", "LocalHost:1"] {
            assert!(is_own_host(&headers(&HOST, &[host])), "{host}");
        }
        for host in
            ["", "rebind.example:9725", "localhost.rebind.example", "127.0.0.1.rebind.example", "@", "a b", "[x]"]
        {
            assert!(!is_own_host(&headers(&HOST, &[host])), "{host}");
        }
        assert!(!is_own_host(&headers(&HOST, &[])));
        assert!(!is_own_host(&headers(&HOST, &["127.0.0.1", "rebind.example"])));
    }

    #[test]
    fn other_sites_have_no_business_here() {
        for (site, other) in [("same-origin", false), ("none", false), ("same-site", true), ("cross-site", true)] {
            assert_eq!(is_of_other_site(&headers(&SITE, &[site])), other, "{site}");
        }
        assert!(!is_of_other_site(&headers(&SITE, &[])), "not a browser");
    }
}
