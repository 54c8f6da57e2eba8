//! What is done where bytes were not seen, or cannot be waited for.

use super::super::Peer;
use super::super::decoder_output::DecoderOutput;
use super::super::item::{Item, Lost};
use super::super::preamble::Preamble;
use super::super::tls::{Opening, Part};
use super::super::undecided_input::{UndecidedInput, Unread};
use super::resync::Resync;
use super::{Direction, Mode, Session};
use crate::event::Time;
use crate::names::AnomalyKind;

impl Session {
    pub(super) fn client_gap(&mut self, time: Time, unread: Unread, length: u64, items: &mut DecoderOutput) {
        if self.preamble.is_socks() {
            return;
        }
        self.give_up_preamble(items);
        if self.withholds() {
            self.settle_fork(items);
        }
        self.end_answered_message(unread, items);
        match &mut self.mode {
            Mode::Opaque { .. } | Mode::Handshake(_) | Mode::ClientTls(_) => {
                self.tls_goes_on(Peer::Client, time, Part::Unseen(length), items);
            }
            Mode::StartTls { .. } => self.handshake_unseen(Peer::Client, time, length, items),
            Mode::Body(body, message) => {
                body.hole(length);
                message.ended_at = Some(time);
                self.fork = None;
                if let Some(reply) = message.reply.take() {
                    // It came out of turn because the end of data was not seen to come.
                    self.cut_short = false;
                    message.ended_at = None;
                    self.reply_behind_a_hole(reply, items);
                }
            }
            Mode::Octets(remaining) if length <= *remaining => self.octets(time, length),
            Mode::Undecided | Mode::UndecidedForLine(..) => self.hold_unread(time, unread, length, items),
            Mode::Resync(lost) => {
                // What the kernel withholds comes in as many pieces as the client has made.
                if unread != Unread::Uncertain || self.client.gap != Some(unread) {
                    lost.unsure();
                }
                self.client.lines.reset();
                self.client.gap = Some(unread);
            }
            Mode::Command | Mode::Answer | Mode::Octets(_) => {
                self.client = Direction { gap: Some(unread), ..Direction::default() };
                self.lose(time, || missing(unread, length, "client"), items);
            }
        }
    }

    pub(super) fn server_gap(&mut self, time: Time, unread: Unread, length: u64, items: &mut DecoderOutput) {
        if self.preamble.is_socks() {
            self.preamble.answer_unseen();
            return;
        }
        match self.mode {
            Mode::Opaque { .. } | Mode::Handshake(_) => {
                return self.tls_goes_on(Peer::Server, time, Part::Unseen(length), items);
            }
            Mode::StartTls { .. } => return self.handshake_unseen(Peer::Server, time, length, items),
            Mode::ClientTls(ref client) if !client.is_refused() => {
                return self.handshake_unseen(Peer::Server, time, length, items);
            }
            _ => self.give_up_preamble(items),
        }
        // The greeting may have been among them.
        self.early = None;
        let before = self.server.gap;
        self.server = Direction { gap: Some(unread), ..Direction::default() };
        self.replies.reset();
        self.garbled = false;
        if self.withholds() {
            self.settle_fork(items);
        }
        if let Some(last_word) = self.last_word.take() {
            self.reply_in_turn(last_word, items);
        }
        let detail = || missing(unread, length, "server");
        match &mut self.mode {
            Mode::Body(..) if before.is_some() => {}
            // Nothing was due: the content of the message goes on.
            Mode::Body(..) => {
                items.push(Item::Lost(Lost::Bytes));
                self.anomalies.report(time, AnomalyKind::Gap, items, detail);
            }
            Mode::Resync(lost) => {
                // What the kernel withholds comes in as many pieces as the server has made.
                if unread != Unread::Uncertain || before != Some(unread) || lost.has_line() {
                    lost.unsure();
                }
                self.give_up_waiting(items);
            }
            Mode::ClientTls(_) => self.give_up_waiting(items),
            _ => {
                self.give_up_waiting(items);
                self.lose(time, detail, items);
            }
        }
    }

    /// It is not certain any more what the client's next bytes are. What waits for a reply still gets it, unless
    /// replies were lost.
    pub(super) fn lose(&mut self, time: Time, detail: impl FnOnce() -> String, items: &mut DecoderOutput) {
        self.give_up_pairing(time, items);
        items.push(Item::Lost(Lost::Bytes));
        self.anomalies.report(time, AnomalyKind::Gap, items, detail);
        self.forget(Resync::after_gap());
    }

    pub(super) fn forget(&mut self, lost: Resync) {
        self.mode = Mode::Resync(lost);
        self.offer.forget();
        self.held = UndecidedInput::default();
        self.chunks = None;
        self.shelved = None;
        self.in_chunk = false;
        self.had_content = false;
        self.recipients = None;
        self.preamble = Preamble::default();
        self.spoken = true;
        self.client.opening = Opening::default();
        self.server.opening = Opening::default();
    }

    /// Gives up what waits for the server: there is no room for all that all sessions wait for.
    pub fn give_up(&mut self, time: Time, items: &mut DecoderOutput) {
        match &mut self.mode {
            Mode::Resync(lost) => {
                lost.unsure();
                self.give_up_waiting(items);
            }
            Mode::Command | Mode::Answer | Mode::Undecided | Mode::UndecidedForLine(..) | Mode::Octets(_) => {
                self.give_up_waiting(items);
                self.lose(time, || "too much waits for replies, on all connections".to_owned(), items);
            }
            Mode::ClientTls(_) if !self.waiting.for_greeting() => self.give_up_waiting(items),
            Mode::Body(..) | Mode::StartTls { .. } | Mode::ClientTls(_) | Mode::Handshake(_) | Mode::Opaque { .. } => {}
        }
    }

    pub(super) fn give_up_waiting(&mut self, items: &mut DecoderOutput) {
        self.unsettled = None;
        while let Some(waits) = self.waiting.pop(items) {
            self.unanswered(waits, items);
        }
    }
}

/// What was not seen of a peer.
fn missing(unread: Unread, length: u64, peer: &str) -> String {
    match unread {
        // How much of these there is, is not told: they come in as many pieces as their sender has made.
        Unread::Content => "content of a message that nobody has asked for".to_owned(),
        Unread::Uncertain => format!("bytes of the {peer} whose meaning is not certain"),
        Unread::Gap | Unread::Ciphertext => format!("{length} bytes of the {peer}"),
    }
}
