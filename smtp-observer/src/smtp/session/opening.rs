//! What the first bytes make of a session, and the first behind STARTTLS: TLS, a proxy's header, or no SMTP at all.

use memchr::memchr;

use super::super::Peer;
use super::super::decoder_output::DecoderOutput;
use super::super::item::{Item, Lost};
use super::super::preamble::{self, Answer, Preamble};
use super::super::tls::{Handshake, Opening, Outcome, Part, Plaintext, Tls, TlsFailure};
use super::{Mode, Session};
use crate::event::{Time, TlsLibrary};
use crate::names::AnomalyKind;

/// Lines of the client before the greeting.
#[derive(Debug)]
pub(super) struct Early {
    time: Time,
    first: String,
    more: u32,
}

/// The client speaks TLS, and the server has yet to do so.
#[derive(Debug)]
pub(super) struct ClientTls {
    since: Time,
    refused: bool,
    pub(super) handshake: Handshake,
}

impl ClientTls {
    /// The server has answered in clear.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }
}

/// Replies to no command before it is plain that the commands go by unseen.
const UNASKED: u8 = 2;

impl Session {
    /// A command came before the greeting. Whether that is so is known when the greeting comes: it may go unseen.
    pub(super) fn spoke_early(&mut self, time: Time, line: impl FnOnce() -> String) {
        match &mut self.early {
            Some(early) => early.more = early.more.saturating_add(1),
            None => self.early = Some(Box::new(Early { time, first: line(), more: 0 })),
        }
    }

    /// The greeting is there, or none came.
    pub(super) fn report_early(&mut self, items: &mut DecoderOutput) {
        let Some(early) = self.early.take() else { return };
        self.anomalies.report(early.time, AnomalyKind::EarlyTalker, items, || match early.more {
            0 => early.first,
            more => format!("{}, and {more} more", early.first),
        });
    }

    /// A reply came, and nothing was seen of the client so far. Whether its bytes go by another way.
    pub(super) fn is_one_sided(&mut self) -> bool {
        self.unasked = self.unasked.saturating_add(1);
        self.unasked > UNASKED
    }

    /// A peer speaks another protocol: nothing of it is read.
    pub(super) fn not_smtp(&mut self, time: Time, detail: String, items: &mut DecoderOutput) {
        self.anomalies.report(time, AnomalyKind::NotSmtp, items, || detail);
        self.settle_fork(items);
        self.give_up_waiting(items);
        self.become_opaque();
    }

    /// TLS was begun, and its handshake is not seen.
    pub(super) fn start_tls(&mut self, time: Time, items: &mut DecoderOutput) {
        self.become_opaque_for_tls(items);
        items.push(Item::Tls(time, Tls::Started(Box::default())));
    }

    fn become_opaque_for_tls(&mut self, items: &mut DecoderOutput) {
        self.offer.settle();
        self.settle_fork(items);
        self.give_up_waiting(items);
        self.become_opaque();
    }

    /// A handshake is under way.
    pub fn is_in_handshake(&self) -> bool {
        matches!(self.mode, Mode::Handshake(_) | Mode::ClientTls(_))
    }

    /// Whether the plaintext will be read of the session that is being agreed on.
    pub fn know_plaintext(&mut self, plaintext: Plaintext) {
        match &mut self.mode {
            Mode::Handshake(handshake) => handshake.set_plaintext(plaintext),
            Mode::ClientTls(client) => client.handshake.set_plaintext(plaintext),
            _ => {}
        }
    }

    /// A handshake begins, or goes on with the server.
    pub(super) fn begin_handshake(&mut self, handshake: Box<Handshake>, items: &mut DecoderOutput) {
        self.become_opaque_for_tls(items);
        self.mode = Mode::Handshake(handshake);
    }

    /// Bytes of a handshake, or such as are not read any more.
    pub(super) fn tls_goes_on(&mut self, peer: Peer, time: Time, part: Part<'_>, items: &mut DecoderOutput) {
        match &mut self.mode {
            Mode::ClientTls(client) => {
                client.handshake.take(peer, part);
            }
            Mode::Handshake(handshake) => {
                if let Some(outcome) = handshake.take(peer, part) {
                    self.end_handshake(time, outcome, items);
                }
            }
            _ => {}
        }
    }

    fn end_handshake(&mut self, time: Time, outcome: Outcome, items: &mut DecoderOutput) {
        let handshake = match std::mem::replace(&mut self.mode, Mode::Opaque { is_read: false }) {
            Mode::Handshake(handshake) => *handshake,
            Mode::ClientTls(client) => client.handshake,
            _ => Handshake::default(),
        };
        let session = Box::new(handshake.into_session());
        self.mode = Mode::Opaque { is_read: outcome.is_ok() && matches!(session.plaintext, Plaintext::Read(_)) };
        let tls = match outcome {
            Ok(()) => Tls::Started(session),
            Err(failure) => Tls::Failed(session, failure),
        };
        items.push(Item::Tls(time, tls));
    }

    /// The connection is over: so is a handshake.
    pub(super) fn end_of_handshake(&mut self, time: Time, items: &mut DecoderOutput) {
        let failure = match &mut self.mode {
            Mode::StartTls { .. } => TlsFailure::NoClientHello,
            Mode::Handshake(handshake) => handshake.closed(),
            Mode::ClientTls(client) if !client.refused && self.waiting.for_greeting() => client.handshake.closed(),
            _ => return,
        };
        self.end_handshake(time, Err(failure), items);
    }

    /// The client goes on in clear: it has not used the TLS that it was offered.
    pub(super) fn goes_on_in_clear(&mut self, time: Time, items: &mut DecoderOutput) {
        if self.offer.leave_unused() {
            items.push(Item::Tls(time, Tls::NotUsed));
        }
    }

    /// It is not known how the connection goes on: nothing is told of what did not happen on it.
    pub fn goes_unseen(&mut self) {
        self.offer.settle();
        match self.mode {
            Mode::StartTls { .. } | Mode::Handshake(_) => self.mode = Mode::Opaque { is_read: false },
            Mode::ClientTls(_) if self.waiting.for_greeting() => self.mode = Mode::Opaque { is_read: false },
            _ => {}
        }
    }

    /// The client's bytes are TLS: as was agreed, or the server has yet to agree.
    pub(super) fn client_speaks_tls(&mut self, since: Time, items: &mut DecoderOutput) {
        match self.mode {
            Mode::StartTls { .. } => self.begin_handshake(Box::default(), items),
            Mode::Command => {
                let handshake = Handshake::default();
                // It wants TLS, be it offered or not.
                self.offer.settle();
                self.mode = Mode::ClientTls(Box::new(ClientTls { since, refused: false, handshake }));
                self.preamble = Preamble::default();
                self.server.opening = Opening::default();
            }
            _ => self.start_tls(since, items),
        }
    }

    /// The server's bytes are TLS.
    pub(super) fn server_speaks_tls(&mut self, time: Time, items: &mut DecoderOutput) {
        match &mut self.mode {
            Mode::ClientTls(client) => {
                let handshake = std::mem::take(&mut client.handshake);
                self.begin_handshake(Box::new(handshake), items);
            }
            Mode::StartTls { .. } => self.begin_handshake(Box::default(), items),
            Mode::Command if self.waiting.for_greeting() && !self.spoken => {
                self.begin_handshake(Box::default(), items);
            }
            Mode::Command | Mode::Undecided if self.waiting.for_greeting() && self.spoken => {
                let detail = || "the client speaks in clear, and the server answers with TLS".into();
                self.anomalies.report(time, AnomalyKind::PlaintextToTlsPort, items, detail);
                self.give_up_waiting(items);
                self.become_opaque();
            }
            _ => self.start_tls(time, items),
        }
    }

    /// Whether the server's next bytes may be TLS.
    pub(super) fn server_may_be_tls(&mut self) -> bool {
        match &self.mode {
            // Replies to commands before the hello stand before the answer to that.
            Mode::ClientTls(client) if !client.refused => {
                if self.server.opening.is_past() {
                    self.server.opening = Opening::default();
                }
                self.server.lines.at_start()
            }
            Mode::Resync(_) => !self.server.opening.is_past(),
            _ => self.waiting.for_greeting() && !self.server.opening.is_past(),
        }
    }

    /// The server's bytes are none of TLS: they answer a hello of the client's, unless a command before it waits for them.
    pub(super) fn server_speaks_plainly(&mut self, time: Time, items: &mut DecoderOutput) {
        let is_reply = self.waiting.for_command() && !self.waiting.for_greeting();
        if let Mode::ClientTls(client) = &mut self.mode
            && !is_reply
            && !std::mem::replace(&mut client.refused, true)
        {
            let detail = || "the client speaks TLS, and the server answers in clear".into();
            self.anomalies.report(time, AnomalyKind::TlsToPlainPort, items, detail);
        }
    }

    /// The connection is over: a server that had greeted in clear speaks no TLS before it is asked to.
    pub(super) fn end_of_client_tls(&mut self, items: &mut DecoderOutput) {
        if let Mode::ClientTls(client) = &self.mode
            && !client.refused
            && !self.waiting.for_greeting()
        {
            let detail = || "the client speaks TLS, and the server has greeted in clear".into();
            self.anomalies.report(client.since, AnomalyKind::TlsToPlainPort, items, detail);
        }
    }

    /// From here on what is said inside of TLS is told: all of it, or what is left of it. Nothing from before it holds there
    /// (RFC 3207, 4.2).
    pub fn begin_plaintext(&mut self, time: Time, library: TlsLibrary, from_start: bool, items: &mut DecoderOutput) {
        if from_start {
            self.know_plaintext(Plaintext::Read(library));
        }
        match self.mode {
            Mode::Handshake(_) | Mode::ClientTls(_) => self.end_handshake(time, Ok(()), items),
            Mode::Opaque { .. } => {}
            _ => self.start_tls(time, items),
        }
        // A handshake that was not seen whole was over before it was known to be read.
        if !from_start || !matches!(self.mode, Mode::Opaque { is_read: true }) {
            items.push(Item::Tls(time, Tls::Read(library)));
        }
        let session = match (from_start, self.spoken) {
            (true, true) => Self { spoken: true, ..Self::begun() },
            // TLS came before all else: the server greets inside of it.
            (true, false) => Self::new(),
            (false, _) => {
                items.push(Item::Lost(Lost::Bytes));
                Self::midstream()
            }
        };
        *self = Self { anomalies: std::mem::take(&mut self.anomalies), offer: self.offer, ..session };
    }

    /// What was not seen behind STARTTLS, or behind the client's hello, is a part of the handshake.
    pub(super) fn handshake_unseen(&mut self, peer: Peer, time: Time, length: u64, items: &mut DecoderOutput) {
        let handshake = match &mut self.mode {
            Mode::ClientTls(client) => std::mem::take(&mut client.handshake),
            _ => Handshake::default(),
        };
        self.begin_handshake(Box::new(handshake), items);
        self.tls_goes_on(peer, time, Part::Unseen(length), items);
    }

    /// STARTTLS was accepted, and the client's next bytes are no TLS record. True where it goes on in clear, as where
    /// something else has taken the TLS away.
    pub(super) fn stays_plain(&mut self, time: Time, first: Option<u8>, items: &mut DecoderOutput) -> bool {
        if self.sent_early {
            let detail = || "the client sent more behind STARTTLS".into();
            self.anomalies.report(time, AnomalyKind::StarttlsInjection, items, detail);
        } else if first.is_some_and(|byte| byte.is_ascii()) {
            self.mode = Mode::Command;
            items.push(Item::Tls(time, Tls::Failed(Box::default(), TlsFailure::NoClientHello)));
            self.begin_anew();
            return true;
        }
        // Behind injected commands TLS follows; and the first message may have SSL 2.0's form (RFC 5246, E.2).
        self.begin_handshake(Box::default(), items);
        false
    }

    /// The server goes on in clear behind the 220 that starts TLS, where the client speaks first: up to the end of a line.
    pub(super) fn inject(&mut self, time: Time, bytes: &mut &[u8], items: &mut DecoderOutput) {
        let Mode::StartTls { injected, in_line } = &mut self.mode else { return };
        let end = memchr(b'\n', bytes);
        *in_line = end.is_none();
        *bytes = &bytes[end.map_or(bytes.len(), |end| end + 1)..];
        if !std::mem::replace(injected, true) {
            let detail = || "the server sent more behind its 220".into();
            self.anomalies.report(time, AnomalyKind::StarttlsInjection, items, detail);
        }
    }

    /// No proxy's header comes any more: what may have begun one is the client's.
    pub(super) fn give_up_preamble(&mut self, items: &mut DecoderOutput) {
        if let Some((taken, since)) = self.preamble.give_up() {
            self.client_bytes(since, taken, items);
        }
    }

    /// The client has asked a SOCKS proxy for the connection: reads up to the server's greeting.
    pub(super) fn read_answer(&mut self, time: Time, bytes: &mut &[u8], items: &mut DecoderOutput) {
        let Answer::Replies { code, since, answered } = self.preamble.answered(time, bytes) else { return };
        if !answered {
            let detail = "the client asks a SOCKS proxy, and the server is none";
            self.anomalies.report(time, AnomalyKind::NotSmtp, items, || detail.into());
            // What it has asked may be lines to the server.
            self.lose(time, || "how the server reads that".into(), items);
        } else if !preamble::greets(code) {
            self.give_up_waiting(items);
            self.lose(time, || "the greeting behind a SOCKS proxy".into(), items);
        }
        let end = self.end(Peer::Server).saturating_sub(bytes.len() as u64);
        self.up_to(end, Peer::Server, |session| session.server_bytes(since, &code, items));
    }
}
