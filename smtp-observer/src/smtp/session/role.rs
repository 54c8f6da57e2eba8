//! Who gives the commands: it may change within a connection.

use super::super::Peer;
use super::super::decoder_output::DecoderOutput;
use super::super::item::Item;
use super::super::pending_replies::PendingReply;
use super::super::preamble::Preamble;
use super::super::undecided_input::Content;
use super::{Direction, Session};
use crate::event::Time;
use crate::names::AnomalyKind;

impl Session {
    /// What a peer is now: with the roles reversed, the one that connected serves.
    pub(crate) fn acts_as(&self, peer: Peer) -> Peer {
        match (self.reversed, peer) {
            (false, peer) => peer,
            (true, Peer::Client) => Peer::Server,
            (true, Peer::Server) => Peer::Client,
        }
    }

    /// The one that connected serves.
    pub(crate) fn is_reversed(&self) -> bool {
        self.reversed
    }

    /// ATRN or TURN was accepted (RFC 2645, 5.2; RFC 821, 3.8): who asked for it greets, the other gives the commands.
    pub(super) fn turn(&mut self, time: Time, verb: &str, items: &mut DecoderOutput) {
        self.reverse(time, || format!("{verb} was accepted"), items);
        self.waiting.push(PendingReply::Greeting, items);
        let mut held = std::mem::take(&mut self.held);
        while let Some(part) = held.pop() {
            match part.content {
                Content::Bytes(_) => self.up_to(part.end, Peer::Server, |session| {
                    session.server_bytes(part.time, part.bytes(), items);
                }),
                Content::Withheld(withheld) => self.up_to(part.end, Peer::Server, |session| {
                    session.server_withheld(part.time, withheld, items);
                }),
                Content::Unread(unread, length) => self.server_gap(part.time, unread, length, items),
            }
        }
    }

    /// The client's first line is a greeting, and the server has not greeted: that line, which begins there, with its end,
    /// and all that follows it are a server's.
    pub(super) fn greeted_by_client(
        &mut self,
        at: u64,
        first_byte: Time,
        time: Time,
        line: &[u8],
        items: &mut DecoderOutput,
    ) {
        self.reverse(time, || "the client greets".into(), items);
        let (text, end) = line.split_at(line.len().saturating_sub(1));
        let behind = at + line.len() as u64;
        self.up_to(behind - 1, Peer::Server, |session| session.server_bytes(first_byte, text, items));
        self.up_to(behind, Peer::Server, |session| session.server_bytes(time, end, items));
    }

    /// Nothing of what was said before counts.
    fn reverse(&mut self, time: Time, detail: impl FnOnce() -> String, items: &mut DecoderOutput) {
        self.anomalies.report(time, AnomalyKind::RoleReversed, items, detail);
        items.push(Item::Reversed);
        self.reversed = !self.reversed;
        self.mode = super::Mode::Command;
        self.begin_anew();
        self.spoken = false;
        self.preamble = Preamble::default();
        self.client = Direction::default();
        self.server = Direction::default();
        self.replies.reset();
    }
}
