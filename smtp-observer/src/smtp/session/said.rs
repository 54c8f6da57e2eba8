//! What comes of a peer: the segments of its calls.

use super::super::Peer;
use super::super::decoder_output::DecoderOutput;
use super::super::line::Origin;
use super::super::tls::Part;
use super::super::undecided_input::Unread;
use super::{Mode, Session};
use crate::event::{CaptureMiss, LineEnd, Segment, Time, Uncaptured, Withheld};

/// Bytes of content that wait in the kernel at most: they may begin its end.
pub(super) const LONGEST_WAITING: u8 = 5;

/// Stands for bytes of a line that did not cross.
static STAND_INS: [u8; 1024] = [b'x'; 1024];

impl Session {
    /// The next call of a peer comes. `is_behind`: the other one has sent bytes before it of which nothing was told.
    pub fn set_behind(&mut self, is_behind: bool) {
        self.is_behind = is_behind;
    }

    /// A call of this peer begins: what follows of it came together.
    pub fn begin_call(&mut self, peer: Peer) {
        self.has_written |= self.acts_as(peer) == Peer::Client;
    }

    /// Takes a segment of a peer's call. Its first byte was sent then, where it was sent before this call.
    pub fn segment(
        &mut self,
        peer: Peer,
        time: Time,
        begun: Option<Time>,
        segment: Segment<'_>,
        items: &mut DecoderOutput,
    ) {
        let begun = begun.filter(|begun| *begun < time);
        match segment {
            Segment::Text(bytes) => {
                if let Mode::Body(body, _) = &mut self.mode
                    && bytes.starts_with(b".\r\n")
                {
                    // The kernel tells of a dot without what is before it where it begins a line.
                    body.begin_line();
                }
                let (first, rest) = bytes.split_at(usize::from(begun.is_some()).min(bytes.len()));
                self.said(peer, begun.unwrap_or(time), first, items);
                self.said(peer, time, rest, items);
            }
            Segment::Withheld(withheld) => {
                let (first, rest) = match begun {
                    Some(_) => withheld.split(1),
                    None => (Withheld { length: 0, ..withheld }, withheld),
                };
                self.withheld(peer, begun.unwrap_or(time), first, items);
                self.withheld(peer, time, rest, items);
            }
            Segment::Content(length) => self.content(peer, time, length, items),
            Segment::Uncaptured(Uncaptured { length, cause, .. }) => {
                let unread = if cause == CaptureMiss::Uncertain { Unread::Uncertain } else { Unread::Gap };
                self.unseen(peer, time, unread, length, items);
            }
            Segment::Ciphertext(length) => self.ciphertext(peer, time, length, items),
            Segment::Begun(_) => {}
        }
    }

    /// Takes bytes that a peer sent, as one call moved them.
    pub fn receive(&mut self, peer: Peer, time: Time, bytes: &[u8], items: &mut DecoderOutput) {
        self.begin_call(peer);
        self.said(peer, time, bytes, items);
    }

    /// Takes notice of `length` bytes of a peer that were not seen. Inside a message they are content.
    pub fn gap(&mut self, peer: Peer, time: Time, length: u64, items: &mut DecoderOutput) {
        if length > 0 {
            self.begin_call(peer);
            self.unseen(peer, time, Unread::Gap, length, items);
        }
    }

    /// Takes notice of `length` bytes of a peer that are content of a message: its end is not among them.
    pub fn content(&mut self, peer: Peer, time: Time, length: u64, items: &mut DecoderOutput) {
        match self.acts_as(peer) {
            Peer::Client => self.client_content(time, length, items),
            Peer::Server => self.server_gap(time, Unread::Content, length, items),
        }
    }

    /// Takes notice of `length` bytes of a peer that still wait in the kernel at the connection's end.
    pub fn waited(&mut self, peer: Peer, length: u64) {
        if self.acts_as(peer) == Peer::Client
            && length <= LONGEST_WAITING.into()
            && let Mode::Body(body, _) = &mut self.mode
        {
            body.leave_out(length);
        }
    }

    /// How many of `length` bytes of this peer, not seen, would be missed: not those of a message's content, nor of TLS, nor
    /// of what a SOCKS proxy is asked.
    pub fn missed(&self, peer: Peer, length: u64) -> u64 {
        match (&self.mode, self.acts_as(peer)) {
            (Mode::Opaque { .. } | Mode::Handshake(_) | Mode::StartTls { .. }, _)
            | (Mode::ClientTls(_), Peer::Client) => 0,
            // Behind a reply that came early, the message may be over.
            (Mode::Body(_, message), Peer::Client) if message.reply.is_none() => 0,
            // Where DATA was answered 2yz, what does not cross is read as content.
            (Mode::UndecidedForLine(..), Peer::Client) => 0,
            (Mode::Octets(remaining), Peer::Client) => length.saturating_sub(*remaining),
            _ if self.preamble.is_socks() => 0,
            _ => length,
        }
    }

    /// How many of `length` bytes of this peer that are content of a message would be missed: none where a message may be.
    pub fn missed_of_content(&self, peer: Peer, length: u64) -> u64 {
        match (&self.mode, self.acts_as(peer)) {
            (Mode::Undecided | Mode::Body(..), Peer::Client) => 0,
            // What waited for more, when the server had the message over.
            (Mode::Command, Peer::Client) if self.left_waiting > 0 => length.saturating_sub(self.left_waiting.into()),
            _ => self.missed(peer, length),
        }
    }

    fn said(&mut self, peer: Peer, time: Time, bytes: &[u8], items: &mut DecoderOutput) {
        self.ends[usize::from(peer == Peer::Server)] += bytes.len() as u64;
        match self.acts_as(peer) {
            _ if bytes.is_empty() => {}
            Peer::Client => {
                self.client.gap = None;
                self.client_bytes(time, bytes, items);
            }
            Peer::Server => {
                (self.client.gap, self.server.gap) = (None, None);
                self.server_bytes(time, bytes, items);
            }
        }
    }

    fn withheld(&mut self, peer: Peer, time: Time, withheld: Withheld, items: &mut DecoderOutput) {
        self.ends[usize::from(peer == Peer::Server)] += withheld.length;
        match self.acts_as(peer) {
            _ if withheld.length == 0 => {}
            Peer::Client => {
                self.client.gap = None;
                self.client_withheld(time, withheld, items);
            }
            Peer::Server => {
                (self.client.gap, self.server.gap) = (None, None);
                self.server_withheld(time, withheld, items);
            }
        }
    }

    fn unseen(&mut self, peer: Peer, time: Time, unread: Unread, length: u64, items: &mut DecoderOutput) {
        match self.acts_as(peer) {
            _ if length == 0 => {}
            Peer::Client => self.client_gap(time, unread, length, items),
            Peer::Server => self.server_gap(time, unread, length, items),
        }
    }

    fn ciphertext(&mut self, peer: Peer, time: Time, length: u64, items: &mut DecoderOutput) {
        match self.acts_as(peer) {
            _ if length == 0 => {}
            Peer::Client => self.client_unread(time, Unread::Ciphertext, length, items),
            Peer::Server => {
                if !self.is_opaque() {
                    self.server_speaks_tls(time, items);
                }
                self.tls_goes_on(Peer::Server, time, Part::Unseen(length), items);
            }
        }
    }

    /// Bytes of TLS of the client: it says nothing else from here on.
    fn client_ciphertext(&mut self, time: Time, length: u64, items: &mut DecoderOutput) {
        if !self.is_opaque() && !matches!(self.mode, Mode::ClientTls(_)) {
            self.client_speaks_tls(time, items);
        }
        self.tls_goes_on(Peer::Client, time, Part::Unseen(length), items);
    }

    /// Bytes of the client that are no lines.
    pub(super) fn client_unread(&mut self, time: Time, unread: Unread, length: u64, items: &mut DecoderOutput) {
        match unread {
            Unread::Gap | Unread::Uncertain => self.client_gap(time, unread, length, items),
            // Of a message that the server did not want: lines, in truth.
            Unread::Content if !matches!(self.mode, Mode::Body(..) | Mode::UndecidedForLine(..) | Mode::Undecided) => {
                self.client_gap(time, unread, length, items);
            }
            Unread::Content => self.client_content(time, length, items),
            Unread::Ciphertext if matches!(self.mode, Mode::Undecided | Mode::UndecidedForLine(..)) => {
                self.hold_unread(time, unread, length, items);
            }
            Unread::Ciphertext => self.client_ciphertext(time, length, items),
        }
    }

    fn client_content(&mut self, time: Time, length: u64, items: &mut DecoderOutput) {
        match &mut self.mode {
            // What waited for more, when the server had the message over.
            Mode::Command if self.left_waiting > 0 => {
                let waited = length.min(self.left_waiting.into());
                self.left_waiting -= waited as u8;
                if length > waited {
                    self.client_gap(time, Unread::Content, length - waited, items);
                }
            }
            // It tells nothing of the lines before and behind it.
            Mode::Resync(_) => {}
            Mode::Body(body, message) => {
                body.leave_out(length);
                message.ended_at = Some(time);
                if let Some(fork) = &mut self.fork {
                    fork.miss();
                }
                self.content_goes_on(items);
            }
            Mode::Undecided | Mode::UndecidedForLine(..) => self.hold_unread(time, Unread::Content, length, items),
            _ => self.client_gap(time, Unread::Content, length, items),
        }
    }

    pub(super) fn hold_unread(&mut self, time: Time, unread: Unread, length: u64, items: &mut DecoderOutput) {
        self.held.unread(time, self.end(Peer::Client), unread, length);
        self.read_held_for_line(items);
    }

    fn client_withheld(&mut self, time: Time, withheld: Withheld, items: &mut DecoderOutput) {
        if self.client_goes_on(items) {
            self.server_withheld(time, withheld, items);
        } else if matches!(self.mode, Mode::Undecided | Mode::UndecidedForLine(..)) {
            self.held.withheld(time, self.end(Peer::Client), withheld);
            self.read_held_for_line(items);
        } else {
            self.read_withheld(time, withheld, items);
        }
    }

    /// Reads stand-ins, of which nothing can be left when it is not known how to read on: their line ends with them.
    pub(super) fn read_withheld(&mut self, time: Time, withheld: Withheld, items: &mut DecoderOutput) {
        self.stand_in(Peer::Client, withheld, |session, bytes| session.read_client(time, bytes, items) == bytes.len());
    }

    pub(super) fn server_withheld(&mut self, time: Time, withheld: Withheld, items: &mut DecoderOutput) {
        self.stand_in(Peer::Server, withheld, |session, bytes| {
            session.server_bytes(time, bytes, items);
            true
        });
    }

    fn stand_in(&mut self, acts_as: Peer, withheld: Withheld, mut read: impl FnMut(&mut Self, &[u8]) -> bool) {
        let end = self.end(acts_as);
        let origin = std::mem::replace(&mut self.origin, Origin::StandIn);
        let (mut rest, mut goes_on) = (withheld, true);
        while goes_on && rest.length > 0 {
            let bytes = rest.stand_ins();
            (_, rest) = rest.split(bytes.len() as u64);
            if bytes.len() == STAND_INS.len() && self.count(acts_as, rest.plain()) {
                (_, rest) = rest.split(rest.plain());
            }
            goes_on = self.up_to(end.saturating_sub(rest.length), acts_as, |session| read(session, bytes));
        }
        self.origin = origin;
    }

    /// Counts so many more bytes of a line of which nothing is kept any more; false where there is none.
    fn count(&mut self, acts_as: Peer, length: u64) -> bool {
        match acts_as {
            Peer::Client if matches!(self.mode, Mode::Command | Mode::Answer | Mode::Resync(_)) => {
                self.client.lines.count(length)
            }
            Peer::Client => false,
            Peer::Server => self.server.lines.count(length),
        }
    }
}

impl Withheld {
    /// Bytes of it before the line's end.
    fn text(self) -> u64 {
        self.length.saturating_sub(self.end.bytes().len() as u64)
    }

    /// Bytes before those that are wrong in a line. These stand neither at its start, where they would tell of another
    /// protocol, nor at its end, where a CR belongs to that; if there is room.
    fn plain(self) -> u64 {
        match u64::from(self.nul) + u64::from(self.bare_cr) {
            0 => self.text(),
            flaws => self.text().saturating_sub(flaws + 1),
        }
    }

    /// It is one byte behind a CR, which is bare by that and stands before it.
    fn is_behind_cr(self) -> bool {
        self.text() == 1 && matches!(self.end, LineEnd::None | LineEnd::Lf)
    }

    /// Its first stand-ins: as many as are alike.
    fn stand_ins(self) -> &'static [u8] {
        let end = self.end.bytes();
        match (self.text(), self.plain()) {
            (0, _) => &end[end.len() - end.len().min(usize::try_from(self.length).unwrap_or(usize::MAX))..],
            (_, 0) if self.bare_cr && !self.is_behind_cr() => b"\r",
            (_, 0) if !self.nul => &STAND_INS[..1],
            (_, 0) => b"\0",
            (_, plain) => &STAND_INS[..STAND_INS.len().min(usize::try_from(plain).unwrap_or(usize::MAX))],
        }
    }

    /// Its first bytes, and those behind them.
    fn split(self, at: u64) -> (Self, Self) {
        let at = at.min(self.length);
        let end = match self.length - at {
            0 => LineEnd::None,
            // Of CR LF.
            1 if at > self.text() => LineEnd::Lf,
            _ => self.end,
        };
        let bare_cr = self.bare_cr && at <= self.plain();
        let nul = self.nul && at <= self.plain() + u64::from(self.bare_cr);
        let rest = Self { length: self.length - at, end, nul, bare_cr };
        // Of a line's end the CR.
        let splits_end = at > self.text() && at < self.length;
        let has_bare_cr = self.bare_cr && !bare_cr;
        let is_cr = splits_end || at == 1 && has_bare_cr && !self.is_behind_cr();
        let end = match is_cr {
            _ if at == self.length => self.end,
            true => LineEnd::Cr,
            false => LineEnd::None,
        };
        let first = Self { length: at, end, nul: self.nul && !nul, bare_cr: has_bare_cr && !is_cr };
        (first, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand_ins(mut rest: Withheld) -> Vec<u8> {
        let mut bytes = Vec::new();
        while rest.length > 0 {
            let part = rest.stand_ins();
            bytes.extend_from_slice(part);
            (_, rest) = rest.split(part.len() as u64);
        }
        bytes
    }

    #[test]
    fn a_line_that_did_not_cross_is_as_long_and_ends_alike() {
        for (length, end, nul, bare_cr, expected) in [
            (4, LineEnd::None, false, false, &b"xxxx"[..]),
            (4, LineEnd::Lf, false, false, b"xxx\n"),
            (4, LineEnd::Crlf, false, false, b"xx\r\n"),
            (2, LineEnd::Crlf, false, false, b"\r\n"),
            (1, LineEnd::Lf, false, false, b"\n"),
            (5, LineEnd::Crlf, true, true, b"\r\0x\r\n"),
            (3, LineEnd::Lf, true, true, b"\r\0\n"),
            (3, LineEnd::Crlf, true, false, b"\0\r\n"),
            (3, LineEnd::None, false, true, b"x\rx"),
            (3, LineEnd::Cr, false, false, b"xx\r"),
            (7, LineEnd::Lf, true, true, b"xxx\r\0x\n"),
            (3, LineEnd::Lf, false, true, b"\rx\n"),
            // Behind a CR, which is bare.
            (1, LineEnd::None, false, true, b"x"),
            (2, LineEnd::Lf, false, true, b"x\n"),
            (1, LineEnd::None, true, true, b"\0"),
            // What no kernel says.
            (1, LineEnd::Crlf, false, false, b"\n"),
            (2, LineEnd::Crlf, true, true, b"\r\n"),
            (0, LineEnd::Crlf, true, true, b""),
        ] {
            let withheld = Withheld { length, end, nul, bare_cr };
            assert_eq!(stand_ins(withheld), expected, "{withheld:?}");
            if length > 1 {
                let (first, rest) = withheld.split(1);
                let parts = [stand_ins(first), stand_ins(rest)].concat();
                assert_eq!((first.length, parts.as_slice()), (1, expected), "{withheld:?}, split");
            }
        }
        let long = stand_ins(Withheld { length: 5000, end: LineEnd::Crlf, nul: false, bare_cr: false });
        assert!(long.len() == 5000 && long.ends_with(b"x\r\n"));
    }
}
