//! Handshakes of OpenSSL and GnuTLS, as they went over a socket, and what is made of them. What is expected is what
//! `openssl s_client` and `gnutls-cli` have printed; `openssl ciphers -stdname` has IANA's names.

use proptest::prelude::*;

use super::*;
use crate::event::crossing::Filter;
use crate::smtp::{DecoderOutput, Item, Session};

fn look(pieces: &[&[u8]]) -> Vec<Look> {
    let mut opening = Opening::default();
    pieces.iter().enumerate().map(|(at, piece)| opening.look(Time(at as u64), &mut &**piece)).collect()
}

#[test]
fn records() {
    assert_eq!(look(&[&[0x16, 3, 1, 2]]), [Look::Tls(0x16, Time(0))]);
    assert_eq!(look(&[&[0x17], &[3, 3]]), [Look::Undecided, Look::Tls(0x17, Time(0))]);
}

#[test]
fn others() {
    assert_eq!(look(&[b"EHLO x\r\n"]), [Look::Plain(None)]);
    assert_eq!(look(&[&[0x16], b"x"]), [Look::Undecided, Look::Plain(Some((0x16, Time(0))))]);
}

#[test]
fn records_in_the_place_of_a_line() {
    let look = |pieces: &[&[u8]]| {
        let mut opening = Opening::Past;
        let (first, rest) = pieces.split_first().expect("a piece");
        let mut bytes = *first;
        let begins = opening.begin_line(Time(0), &mut bytes);
        let looks = [bytes].into_iter().chain(rest.iter().copied()).enumerate();
        let looks = looks.map(|(at, mut piece)| opening.look(Time(at as u64), &mut piece)).collect::<Vec<_>>();
        (begins, looks)
    };
    assert_eq!(look(&[&[0x16, 3, 1]]), (true, vec![Look::Tls(0x16, Time(0))]));
    assert_eq!(look(&[&[0x16], &[3]]), (true, vec![Look::Undecided, Look::Tls(0x16, Time(0))]));
    assert_eq!(look(&[b"\x16x"]), (true, vec![Look::Plain(Some((0x16, Time(0))))]));
    assert_eq!(look(&[b"NOOP"]), (false, vec![Look::Plain(None)]));
    // A byte that was taken is not forgotten for the next.
    let mut opening = Opening::Line(0x16, Time(0));
    assert!(!opening.begin_line(Time(1), &mut &[0x16, 3][..]) && opening.is_undecided());
}

/// What was said, by turns.
type Turns = Vec<(Peer, Vec<u8>)>;

/// The handshake in a file of lines: who speaks, and the bytes in hexadecimal digits.
fn captured(text: &str) -> Turns {
    let turn = |line: &str| {
        let (speaker, digits) = line.split_once(' ').expect("a speaker");
        let peer = if speaker == "C" { Peer::Client } else { Peer::Server };
        let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
        (peer, bytes.collect::<Result<_, _>>().expect("hexadecimal digits"))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(turn).collect()
}

/// Behind what TLS begins.
#[derive(Clone, Copy, Debug)]
enum Before {
    StartTls,
    Nothing,
}

/// What a session tells of TLS, where what is said crosses as it does in the kernel, in calls of so many bytes.
fn told(before: Before, turns: &Turns, mut size: impl FnMut() -> usize) -> Vec<Tls> {
    let starttls: [(Peer, Vec<u8>); 3] = [
        (Peer::Server, b"220 mx.example\r\n".into()),
        (Peer::Client, b"STARTTLS\r\n".into()),
        (Peer::Server, b"220 ready\r\n".into()),
    ];
    let starttls = if let Before::StartTls = before { &starttls[..] } else { &[] };
    let (mut filter, mut session, mut items) = (Filter::new(), Session::new(), DecoderOutput::default());
    let mut time = Time(0);
    for (peer, bytes) in starttls.iter().chain(turns) {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (call, behind) = rest.split_at(size().clamp(1, rest.len()));
            rest = behind;
            time.0 += 1;
            for (_, said) in filter.call(*peer, time, call) {
                session.begin_call(*peer);
                for segment in said.segments() {
                    session.segment(*peer, time, None, segment, &mut items);
                }
            }
        }
    }
    session.finish(time, &mut items);
    of_tls(&items)
}

fn of_tls(items: &DecoderOutput) -> Vec<Tls> {
    let tls = |item: &Item| if let Item::Tls(_, tls) = item { Some(tls.clone()) } else { None };
    items.iter().filter_map(tls).filter(|tls| !matches!(tls, Tls::Requested)).collect()
}

/// In words: version, cipher, the server's name, and why it failed.
fn words(tls: &Tls) -> String {
    let session = tls.session().expect("a session");
    let version = session.version.map(|version| version.as_str().into());
    let failure = match tls {
        Tls::Failed(_, failure) => {
            let by = failure.alert_by().map(|peer| format!(" by the {}", peer.as_str())).unwrap_or_default();
            Some(format!("failed {}{by}", failure.name()).into())
        }
        _ => None,
    };
    let name = session.server_name.as_deref().map(Cow::Borrowed);
    [version, session.cipher_name(), name, failure].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

macro_rules! captures {
    ($($name:literal => $expected:literal,)*) => {
        &[$(($name, include_str!(concat!("captures/", $name, ".txt")), $expected),)*]
    };
}

const CAPTURES: &[(&str, &str, &str)] = captures! {
    "openssl_1_3" => "1.3 TLS_AES_256_GCM_SHA384 mx.example",
    "openssl_1_3_resumed" => "1.3 TLS_AES_256_GCM_SHA384 mx.example",
    "openssl_1_3_retried" => "1.3 TLS_AES_256_GCM_SHA384 mx.example",
    "openssl_1_3_unknown_ca" => "1.3 TLS_AES_256_GCM_SHA384 mx.example failed unknown_ca by the client",
    "openssl_1_2" => "1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 mx.example",
    "openssl_1_2_resumed" => "1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 mx.example",
    "openssl_1_2_unknown_ca" => "1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 mx.example failed unknown_ca by the client",
    "openssl_1_2_no_certificate" => "1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 mx.example failed handshake_failure by the server",
    "openssl_1_0_no_name" => "1.0 TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "openssl_no_shared_cipher" => "mx.example failed handshake_failure by the server",
    "openssl_protocol_version" => "mx.example failed protocol_version by the server",
    "gnutls_1_3" => "1.3 TLS_AES_256_GCM_SHA384 mx.example",
    "gnutls_1_2" => "1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 mx.example",
};

#[test]
fn captured_handshakes_in_calls_of_every_size() {
    for (name, text, expected) in CAPTURES {
        let turns = captured(text);
        for before in [Before::StartTls, Before::Nothing] {
            for size in (1..70).chain([100, 200, 300, 512, 1000, usize::MAX]) {
                let told: Vec<_> = told(before, &turns, || size).iter().map(words).collect();
                assert_eq!(told, [*expected], "{name} {before:?}, in calls of {size}");
            }
        }
    }
}

/// Of a hello that is shorter than its record only what it has itself is read.
#[test]
fn a_hello_in_a_longer_record() {
    // The low bytes of the lengths in the heads of a record and of a message.
    const LENGTHS: [usize; 2] = [4, 8];
    let mut turns = captured(CAPTURES[0].1);
    let server = &mut turns[1].1;
    assert_eq!(LENGTHS.map(|at| server[at]), [0x7a, 0x76]);
    // It ends in the middle of the session's id, before the cipher.
    server[LENGTHS[1]] = 0x36;
    for size in (1..200).chain([usize::MAX]) {
        let told: Vec<_> = told(Before::Nothing, &turns, || size).iter().map(words).collect();
        assert_eq!(told, ["mx.example"], "in calls of {size}");
    }
}

/// One call of a handshake was not seen. What the others show is told, and that the plaintext behind them is read.
#[test]
fn captured_handshakes_with_a_call_unseen() {
    for (name, text, _) in CAPTURES.iter().filter(|(.., expected)| !expected.contains("failed")) {
        let turns = captured(text);
        for unseen in 0..turns.len() {
            let (mut session, mut items) = (Session::new(), DecoderOutput::default());
            for (peer, line) in
                [(Peer::Server, "220 mx.example"), (Peer::Client, "STARTTLS"), (Peer::Server, "220 ready")]
            {
                session.receive(peer, Time(0), format!("{line}\r\n").as_bytes(), &mut items);
            }
            for (number, (peer, bytes)) in turns.iter().enumerate() {
                let time = Time(number as u64);
                match number == unseen {
                    true => session.gap(*peer, time, bytes.len() as u64, &mut items),
                    false => session.receive(*peer, time, bytes, &mut items),
                }
            }
            session.begin_plaintext(Time(100), TlsLibrary::OpenSsl, true, &mut items);
            let told = of_tls(&items);
            let [Tls::Started(started), rest @ ..] = &told[..] else { panic!("{name}: {told:?}") };
            let is_read = started.plaintext == Plaintext::Read(TlsLibrary::OpenSsl);
            assert_ne!(is_read, rest == [Tls::Read(TlsLibrary::OpenSsl)], "{name} without call {unseen}: {told:?}");
            // The first call is the client's hello, the second the server's.
            let has_name = *name != "openssl_1_0_no_name" && unseen != 0;
            assert_eq!(started.server_name.is_some(), has_name, "{name} without call {unseen}");
            assert_eq!(started.version.is_some(), unseen != 1, "{name} without call {unseen}");
        }
    }
}

/// A connection that is cut anywhere: there was no TLS up to a place, and there was from there on.
#[test]
fn captured_handshakes_that_are_cut_short() {
    for (name, text, expected) in CAPTURES.iter().filter(|(.., expected)| !expected.contains("failed")) {
        let turns = captured(text);
        let length = turns.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let mut has_started = false;
        for kept in 0..length {
            let mut left = kept;
            let cut = turns.iter().map(|(peer, bytes)| {
                let taken = left.min(bytes.len());
                left -= taken;
                (*peer, bytes[..taken].to_vec())
            });
            let told = told(Before::StartTls, &cut.collect(), || usize::MAX);
            let [tls] = &told[..] else { panic!("{name}, {kept} bytes: {told:?}") };
            match tls {
                Tls::Started(_) => {
                    has_started = true;
                    assert_eq!(words(tls), *expected, "{name}, {kept} bytes");
                }
                Tls::Failed(_, failure) => {
                    assert!(!has_started, "{name}, {kept} bytes: {failure:?}");
                    let is_early = matches!(failure, TlsFailure::NoClientHello | TlsFailure::NoServerHello);
                    assert!(is_early || *failure == TlsFailure::Closed, "{name}, {kept} bytes: {failure:?}");
                }
                other => panic!("{name}, {kept} bytes: {other:?}"),
            }
        }
        assert!(has_started, "{name}");
    }
}

proptest! {
    /// However calls part them.
    #[test]
    fn captured_handshakes_in_calls_of_any_size(
        which in 0..CAPTURES.len(),
        sizes in prop::collection::vec(1usize..400, 1..40),
    ) {
        let (_, text, expected) = CAPTURES[which];
        let mut sizes = sizes.iter().copied().cycle();
        let told = told(Before::StartTls, &captured(text), || sizes.next().unwrap_or(1));
        prop_assert_eq!(told.iter().map(words).collect::<Vec<_>>(), [expected]);
    }

    /// Whatever is wrong with them, TLS begins or fails once, a name is one of a host, and no cut changes what is told.
    #[test]
    fn handshakes_with_flaws(
        which in 0..CAPTURES.len(),
        flaws in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        size in 1usize..400,
    ) {
        let mut turns = captured(CAPTURES[which].1);
        for (place, byte) in flaws {
            let turn = place.index(turns.len());
            let bytes = &mut turns[turn].1;
            let at = place.index(bytes.len());
            // Who speaks TLS first keeps to it.
            if turn > 0 || at > 3 {
                bytes[at] = byte;
            }
        }
        let bytewise = told(Before::StartTls, &turns, || 1);
        let told = told(Before::StartTls, &turns, || size);
        prop_assert_eq!(&told, &bytewise);
        prop_assert_eq!(told.len(), 1, "{:?}", told);
        let name = told[0].session().and_then(|session| session.server_name.as_deref());
        prop_assert!(name.is_none_or(|name| name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic())));
    }

    /// Nothing panics, and what is kept is bounded, where nothing stays in the kernel.
    #[test]
    fn anything(bytes in prop::collection::vec(any::<(bool, Vec<u8>)>(), 0..40), first in 20u8..24) {
        let (mut session, mut items) = (Session::new(), DecoderOutput::default());
        session.receive(Peer::Client, Time(0), &[first, 3, 3], &mut items);
        session.receive(Peer::Server, Time(0), &[first, 3, 3], &mut items);
        for (is_server, bytes) in bytes {
            let peer = if is_server { Peer::Server } else { Peer::Client };
            session.receive(peer, Time(1), &bytes, &mut items);
            prop_assert!(session.held_bytes() < 8 << 10);
        }
        session.finish(Time(2), &mut items);
        prop_assert_eq!(of_tls(&items).len(), 1);
    }
}

/// A client's hello (RFC 8446, 4.1.2) with these extensions, in records of so many bytes.
fn client_hello(extensions: &[(u16, &[u8])], size: usize) -> Vec<u8> {
    let extensions: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &(content.len() as u16).to_be_bytes(), content].concat())
        .collect();
    let body = [
        &b"\x03\x03"[..],
        &[7; 32],
        b"\0\0\x04\x13\x02\x0a\x0a\x01\0",
        &(extensions.len() as u16).to_be_bytes(),
        &extensions,
    ]
    .concat();
    let message = [&[1, 0], &(body.len() as u16).to_be_bytes()[..], &body].concat();
    let record = |part: &[u8]| [&b"\x16\x03\x01"[..], &(part.len() as u16).to_be_bytes(), part].concat();
    message.chunks(size).flat_map(record).collect()
}

/// The extension that names a server (RFC 6066, 3).
fn server_name(name: &[u8]) -> Vec<u8> {
    let length = name.len() as u16;
    [&(length + 3).to_be_bytes()[..], &[0], &length.to_be_bytes(), name].concat()
}

fn name_of(hello: Vec<u8>) -> Option<Box<str>> {
    let told = [usize::MAX, 1, 50].map(|size| told(Before::StartTls, &vec![(Peer::Client, hello.clone())], || size));
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
    let [Tls::Failed(session, TlsFailure::NoServerHello)] = &told[0][..] else { panic!("{told:?}") };
    session.server_name.clone()
}

#[test]
fn names_of_servers() {
    let padding = [0; 3000];
    let of = |name: &[u8]| name_of(client_hello(&[(0, &server_name(name))], 1 << 14));
    assert_eq!(of(b"MX_1.example-a.org").as_deref(), Some("MX_1.example-a.org"));
    // None that can be a host's.
    for name in [&b""[..], b"mx\x1b[31m", b"mx example", b"bob@mx.example", "m\u{fc}".as_bytes(), &[b'x'; 300]] {
        assert_eq!(of(name), None, "{}", name.escape_ascii());
    }
    assert_eq!(name_of(client_hello(&[], 1 << 14)), None);
    // The list is longer than what it stands in, and so is the name.
    assert_eq!(name_of(client_hello(&[(0, b"\0\x09\0\0\x06mx")], 1 << 14)), None);
    assert_eq!(name_of(client_hello(&[(0, b"\0\x05\0\0\x06mx")], 1 << 14)), None);
    let name = &server_name(b"mx.example")[..];
    // Behind extensions that mean nothing (RFC 8701), and before what does not cross.
    assert_eq!(name_of(client_hello(&[(0x0a0a, b"x"), (0, name)], 1 << 14)).as_deref(), Some("mx.example"));
    assert_eq!(name_of(client_hello(&[(0, name), (21, &padding)], 1 << 14)).as_deref(), Some("mx.example"));
    assert_eq!(name_of(client_hello(&[(21, &padding), (0, name)], 1 << 14)), None);
    // Of a hello in several records the first crosses.
    assert_eq!(name_of(client_hello(&[(0, name), (21, &padding)], 100)).as_deref(), Some("mx.example"));
    assert_eq!(name_of(client_hello(&[(0, name)], 30)), None);
}

/// What a server's hello says (RFC 8446, 4.1.3).
#[test]
fn versions_and_ciphers() {
    let hello = |version: u16, cipher: u16, extensions: &[u8]| {
        let extensions = [&(extensions.len() as u16).to_be_bytes()[..], extensions].concat();
        let body = [&version.to_be_bytes()[..], &[8; 32], b"\0", &cipher.to_be_bytes(), b"\0", &extensions].concat();
        [&[2, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat()
    };
    for (message, expected) in [
        (hello(0x300, 0x2f, b""), "ssl_3.0 TLS_RSA_WITH_AES_128_CBC_SHA"),
        (hello(0x302, 0x2f, b""), "1.1 TLS_RSA_WITH_AES_128_CBC_SHA"),
        (hello(0x303, 0xcafe, b"\0\x2b\0\x02\x03\x04"), "1.3 0xcafe"),
        (hello(0x303, 0x1301, b"\x0a\x0a\0\x01x\0\x2b\0\x02\x03\x04"), "1.3 TLS_AES_128_GCM_SHA256"),
        // A draft, and a version that there is none of.
        (hello(0x303, 0x1301, b"\0\x2b\0\x02\x7f\x1c"), "TLS_AES_128_GCM_SHA256"),
        (hello(0x305, 0x1301, b""), ""),
        (hello(0x303, 0x1301, b"\0\x2b\0\x09\x03"), "1.2 TLS_AES_128_GCM_SHA256"),
    ] {
        let mut session = TlsSession::default();
        hello::of_server(&message, &mut session);
        assert_eq!(words(&Tls::Started(Box::new(session))), expected);
    }
    for length in 0..45 {
        hello::of_server(&hello(0x303, 0x1301, b"\0\x2b\0\x02\x03\x04")[..length], &mut TlsSession::default());
    }
}

/// What ends a handshake.
#[test]
fn failures() {
    let hello = client_hello(&[], 1 << 14);
    let [(_, client_1_3), (_, server_1_3), ..] = &captured(include_str!("captures/openssl_1_3.txt"))[..] else {
        panic!()
    };
    for (turns, expected) in [
        (vec![], "failed no_client_hello"),
        (vec![(Peer::Client, hello.clone())], "failed no_server_hello"),
        (vec![(Peer::Client, hello.clone()), (Peer::Server, b"454 no\r\n".to_vec())], "failed answered_in_clear"),
        // It said that it gives up, which need not end it (RFC 8446, 6.1), and went.
        (
            vec![(Peer::Client, [&hello[..], b"\x15\x03\x01\0\x02\x01\x5a"].concat())],
            "failed user_canceled by the client",
        ),
        (
            vec![(Peer::Client, hello.clone()), (Peer::Server, b"\x15\x03\x01\0\x02\x02\xc8".to_vec())],
            "failed alert_200 by the server",
        ),
        // An alert as long as it is when it is encrypted, where Finished is due.
        (
            vec![
                (Peer::Client, client_1_3.clone()),
                (Peer::Server, server_1_3.clone()),
                (Peer::Client, [&b"\x14\x03\x03\0\x01\x01\x17\x03\x03\0\x13"[..], &[9; 19]].concat()),
            ],
            "1.3 TLS_AES_256_GCM_SHA384 mx.example failed encrypted_alert by the client",
        ),
    ] {
        for size in [1, 3, usize::MAX] {
            let told: Vec<_> = told(Before::StartTls, &turns, || size).iter().map(words).collect();
            assert_eq!(told, [expected]);
        }
    }
}

/// The hello that SSL 2.0 understands does not cross: the server's part alone tells.
#[test]
fn a_hello_of_ssl_2() {
    let turns = captured(include_str!("captures/openssl_1_0_no_name.txt"));
    let old = [b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10".to_vec(), vec![7; 37]].concat();
    let turns: Turns =
        turns.into_iter().enumerate().map(|(at, turn)| if at == 0 { (turn.0, old.clone()) } else { turn }).collect();
    let told: Vec<_> = told(Before::StartTls, &turns, || usize::MAX).iter().map(words).collect();
    assert_eq!(told, ["1.0 TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"]);
}
