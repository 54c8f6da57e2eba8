//! Conversations of which a part is encrypted.

use super::kinds;
use super::stage::Stage;
use crate::fact::What;
use crate::names::{EvidenceKind, Verdict};
use crate::smtp::{Tls, TlsFailure, TlsSession};

/// A conversation that goes to TLS at both sides of a process that the client knows nothing of.
fn encrypted(at_the_client: (u64, u64), at_the_server: (u64, u64)) -> Stage {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.pass_on(1, 3, "EHLO c", 250, "mx\nSTARTTLS");
    stage.pass_on(1, 3, "STARTTLS", 220, "Ready");
    for cookie in [3, 1] {
        stage.happens(cookie, What::Tls(&Tls::Started(Box::default())));
    }
    stage.close_with(3, at_the_server.0, at_the_server.1);
    stage.close_with(1, at_the_client.0, at_the_client.1);
    stage
}

#[test]
fn tls_that_passes_has_as_many_bytes_at_either_side() {
    let stage = encrypted((900, 2400), (900, 2400));
    let verdicts = stage.verdicts_of(1);
    assert!(!verdicts.is_empty() && verdicts.iter().all(|verdict| verdict.verdict == Verdict::TransparentL4));
}

#[test]
fn who_makes_handshakes_of_its_own_terminates_tls() {
    for at_the_server in [(876, 2400), (900, 2399), (0, 0)] {
        let stage = encrypted((900, 2400), at_the_server);
        assert_eq!(stage.verdict(1).verdict, Verdict::TransparentInterceptor);
        assert!(kinds(stage.verdict(1)).contains(&EvidenceKind::TlsTerminated));
    }
}

/// A hello is known by the client's random bytes (RFC 8446, 4.1.2): that it is another is known before the end.
#[test]
fn a_hello_that_is_another_shows_who_terminates_tls() {
    let with = |random| Box::new(TlsSession { client_random: random, ..TlsSession::default() });
    for (at_the_client, at_the_server, is_terminated) in [
        (Tls::Started(with(Some(7))), Tls::Started(with(Some(8))), true),
        // The client does not trust the certificate that it is shown.
        (
            Tls::Failed(with(Some(7)), TlsFailure::Alert(crate::smtp::Peer::Client, 48)),
            Tls::Started(with(Some(8))),
            true,
        ),
        (Tls::Started(with(Some(7))), Tls::Started(with(Some(7))), false),
        (Tls::Started(with(None)), Tls::Started(with(Some(8))), false),
    ] {
        let mut stage = Stage::redirected(1, 2, 3);
        stage.pass_on(1, 3, "EHLO c", 250, "mx\nSTARTTLS");
        stage.pass_on(1, 3, "STARTTLS", 220, "Ready");
        stage.happens(3, What::Tls(&at_the_server));
        stage.happens(1, What::Tls(&at_the_client));
        let verdicts = stage.verdicts_of(1);
        let shows = verdicts.iter().any(|verdict| kinds(verdict).contains(&EvidenceKind::TlsTerminated));
        assert_eq!(shows, is_terminated, "{at_the_client:?} {at_the_server:?}");
    }
}

#[test]
fn tls_with_the_server_alone_is_not_passed() {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.happens(3, What::Tls(&Tls::Started(Box::default())));
    stage.say(1, "MAIL FROM:<a@c>", 250, "Ok");
    stage.close_with(3, 900, 2400);
    stage.close_with(1, 300, 400);
    assert!(kinds(stage.verdict(1)).contains(&EvidenceKind::TlsTerminated));
    assert_eq!(stage.verdict(1).verdict, Verdict::TransparentInterceptor);
}
