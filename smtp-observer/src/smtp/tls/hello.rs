//! What hellos say (RFC 8446, 4.1), of which the end may be missing.

use tls_parser::{
    SNIType, TlsExtension, parse_tls_extension_sni_content, parse_tls_handshake_client_hello,
    parse_tls_handshake_server_hello,
};

use super::TlsSession;
use crate::names::TlsVersion;

/// Bytes of a message's head: its type and length.
pub(super) const HEAD: usize = 4;

/// Extensions (RFC 6066, 3; RFC 8446, 4.2.1).
const SERVER_NAME: u16 = 0;
const SUPPORTED_VERSIONS: u16 = 43;

/// The longest name of a host (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 255;

/// Reads what a client says.
pub(super) fn of_client(message: &[u8], session: &mut TlsSession) {
    let Some(body) = message.get(HEAD..) else { return };
    let Ok((rest, hello)) = parse_tls_handshake_client_hello(body) else { return };
    session.client_random = hello.random.last_chunk().copied().map(u64::from_be_bytes);
    session.server_name =
        extensions(hello.ext, rest).find(|(kind, _)| *kind == SERVER_NAME).and_then(|(_, content)| {
            let Ok((_, TlsExtension::SNI(names))) = parse_tls_extension_sni_content(content) else { return None };
            names.iter().find(|(kind, _)| *kind == SNIType::HostName).and_then(|(_, name)| host_name(name))
        });
}

/// Reads what a server says; a HelloRetryRequest says the same (RFC 8446, 4.1.4).
pub(super) fn of_server(message: &[u8], session: &mut TlsSession) {
    let Some(body) = message.get(HEAD..) else { return };
    let Ok((rest, hello)) = parse_tls_handshake_server_hello(body) else { return };
    let selected = extensions(hello.ext, rest)
        .find(|(kind, _)| *kind == SUPPORTED_VERSIONS)
        .and_then(|(_, content)| <[u8; 2]>::try_from(content).ok());
    session.version = version(selected.map_or(hello.version.0, u16::from_be_bytes));
    session.cipher = Some(hello.cipher.0);
}

/// Extensions, as far as they are there: of a hello that is whole, or of what is left of one that was cut.
fn extensions<'a>(whole: Option<&'a [u8]>, rest: &'a [u8]) -> impl Iterator<Item = (u16, &'a [u8])> {
    let mut bytes = whole.or_else(|| rest.get(2..)).unwrap_or_default();
    std::iter::from_fn(move || {
        let ([kind @ .., a, b], behind) = bytes.split_first_chunk::<4>()?;
        let (content, behind) = behind.split_at_checked(u16::from_be_bytes([*a, *b]).into())?;
        bytes = behind;
        Some((u16::from_be_bytes(*kind), content))
    })
}

/// The name of a host; none where it is something else.
fn host_name(name: &[u8]) -> Option<Box<str>> {
    let is_of_host = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let name = str::from_utf8(name).ok()?;
    ((1..=LONGEST_NAME).contains(&name.len()) && name.as_bytes().iter().all(is_of_host)).then(|| name.into())
}

fn version(number: u16) -> Option<TlsVersion> {
    Some(match number {
        0x300 => TlsVersion::Ssl3,
        0x301 => TlsVersion::Tls10,
        0x302 => TlsVersion::Tls11,
        0x303 => TlsVersion::Tls12,
        0x304 => TlsVersion::Tls13,
        _ => return None,
    })
}
