//! Where in the streams of the two sockets things are, for those who keep the bytes.

use super::super::Peer;
use super::super::mailbox_names::Names;
use super::{Mode, Session};

impl Session {
    /// Up to where the bytes of a peer's socket are concluded: each reply among them is in an item that has come out, or
    /// will be in none.
    pub fn concluded(&self, peer: Peer) -> u64 {
        let acts_as = self.acts_as(peer);
        let end = self.end(acts_as);
        match acts_as {
            Peer::Client => end,
            Peer::Server => self.undecided_of_server(end).unwrap_or(end),
        }
    }

    /// What the client has said that the server may repeat.
    pub(crate) fn names(&self) -> &Names {
        Names::of(&self.names)
    }

    /// Nothing is read any more, but for what a handshake says.
    pub fn is_opaque(&self) -> bool {
        matches!(self.mode, Mode::Opaque { .. } | Mode::Handshake(_))
    }

    fn undecided_of_server(&self, end: u64) -> Option<u64> {
        if self.is_opaque() {
            return None;
        }
        let opening = self.server.opening.is_undecided().then(|| end.saturating_sub(1));
        let withheld = self.fork.as_ref().and_then(|fork| fork.first_withheld());
        let last_word = self.last_word.as_deref();
        let unsettled = self.unsettled.as_ref().and_then(|unsettled| unsettled.first());
        let replies = [withheld, last_word, unsettled].map(|reply| reply.map(|reply| reply.span.start));
        let line = (!self.server.lines.at_start()).then_some(self.reply_line_at);
        replies.into_iter().chain([opening, self.replies.start(), line]).flatten().min()
    }

    /// The end of the bytes that are being read of the one who acts as this peer.
    pub(super) fn end(&self, acts_as: Peer) -> u64 {
        self.ends[self.socket(acts_as)]
    }

    /// Reads bytes that end there, of the one who acts as this peer now.
    pub(super) fn up_to<R>(&mut self, end: u64, acts_as: Peer, read: impl FnOnce(&mut Self) -> R) -> R {
        let socket = self.socket(acts_as);
        let last = std::mem::replace(&mut self.ends[socket], end);
        let result = read(self);
        self.ends[socket] = last;
        result
    }

    pub(super) fn socket(&self, acts_as: Peer) -> usize {
        usize::from(self.acts_as(acts_as) == Peer::Server)
    }
}
