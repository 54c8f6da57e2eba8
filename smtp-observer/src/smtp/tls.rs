//! TLS: told from SMTP by the first two bytes, and followed until its handshake is over.

mod alert;
mod handshake;
mod hello;
mod records;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use tls_parser::TlsCipherSuite;

pub(super) use self::handshake::{Handshake, Outcome};
pub(super) use self::records::Part;
use super::Peer;
use crate::event::{Time, TlsLibrary};
use crate::names::{TlsPhase, TlsUnread, TlsVersion};

/// How far TLS got.
#[derive(Clone, Debug, PartialEq)]
pub enum Tls {
    /// The server offers it.
    Offered,
    /// It was offered, and the client goes on in clear.
    NotUsed,
    /// The client asked for it, and the server agreed.
    Requested,
    /// The server refused with this code.
    Refused(u16),
    /// The handshake is over, as far as it could be followed.
    Started(Box<TlsSession>),
    /// The plaintext of this library is read from here on.
    Read(TlsLibrary),
    /// There was a handshake, or it was agreed on, and this ended it.
    Failed(Box<TlsSession>, TlsFailure),
}

impl Tls {
    /// Its name.
    pub fn phase(&self) -> TlsPhase {
        match self {
            Self::Offered => TlsPhase::Offered,
            Self::NotUsed => TlsPhase::NotUsed,
            Self::Requested => TlsPhase::Requested,
            Self::Refused(_) => TlsPhase::Refused,
            Self::Started(_) => TlsPhase::Started,
            Self::Read(_) => TlsPhase::Read,
            Self::Failed(..) => TlsPhase::Failed,
        }
    }

    /// What hellos have shown.
    pub fn session(&self) -> Option<&TlsSession> {
        match self {
            Self::Started(session) | Self::Failed(session, _) => Some(session),
            _ => None,
        }
    }
}

/// What hellos show of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsSession {
    /// The version that the server has chosen.
    pub version: Option<TlsVersion>,
    /// The cipher suite that it has chosen: its number.
    pub cipher: Option<u16>,
    /// The name of the server that the client wants (RFC 6066, 3), if that can be the name of a host.
    pub server_name: Option<Box<str>>,
    /// A part of the client's random bytes, by which its hello is known again.
    pub client_random: Option<u64>,
    /// Whether its plaintext is read.
    pub plaintext: Plaintext,
}

/// Whether the plaintext of a session is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// That is not known.
    #[default]
    Unknown,
    /// From its start on, in this library.
    Read(TlsLibrary),
    /// It is not, for this reason.
    Unread(TlsUnread),
}

impl TlsSession {
    /// The cipher suite's name, as IANA has it; where it has none, its number.
    pub fn cipher_name(&self) -> Option<Cow<'static, str>> {
        let name = |number| match TlsCipherSuite::from_id(number) {
            Some(suite) => suite.name.into(),
            None => format!("{number:#06x}").into(),
        };
        self.cipher.map(name)
    }
}

/// Why there was no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// This peer said so, in an alert with this number.
    Alert(Peer, u8),
    /// The last record of this peer can be nothing but an alert, and is encrypted.
    EncryptedAlert(Peer),
    /// The client said no hello: the connection was closed, or it went on in clear.
    NoClientHello,
    /// It was closed before the server said anything.
    NoServerHello,
    /// It was closed before the handshake was over.
    Closed,
    /// The server answered the client's hello in clear.
    AnsweredInClear,
}

impl TlsFailure {
    /// Its name: that of the alert, if there is one.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Alert(_, description) => alert::name(description),
            Self::EncryptedAlert(_) => "encrypted_alert".into(),
            Self::NoClientHello => "no_client_hello".into(),
            Self::NoServerHello => "no_server_hello".into(),
            Self::Closed => "closed_in_handshake".into(),
            Self::AnsweredInClear => "answered_in_clear".into(),
        }
    }

    /// Who sent the alert.
    pub fn alert_by(self) -> Option<Peer> {
        match self {
            Self::Alert(peer, _) | Self::EncryptedAlert(peer) => Some(peer),
            _ => None,
        }
    }
}

/// What became of a server's offer of TLS (RFC 3207): whether it was used is told once a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Offer {
    /// None was seen.
    #[default]
    None,
    /// It stands.
    Stands,
    /// That is settled: the client has asked for TLS, or it was told that it has not.
    Settled,
}

impl Offer {
    pub(super) fn made(&mut self) {
        if let Self::None = self {
            *self = Self::Stands;
        }
    }

    pub(super) fn settle(&mut self) {
        *self = Self::Settled;
    }

    /// Something was not seen: the client may have asked for it.
    pub(super) fn forget(&mut self) {
        if let Self::Stands = self {
            *self = Self::None;
        }
    }

    /// Whether that is to be told now.
    pub(super) fn leave_unused(&mut self) -> bool {
        let stands = matches!(self, Self::Stands);
        if stands {
            self.settle();
        }
        stands
    }
}

/// Looks at the first bytes of a direction, or of a line, for the head of a TLS record (RFC 8446, 5.1): a content type from 20
/// to 23, then the major version 3. No SMTP line begins like that.
#[derive(Debug, Default)]
pub(super) enum Opening {
    #[default]
    Start,
    /// This byte may be the first of a record.
    Record(u8, Time),
    Past,
    /// So may this one, which begins a line behind the direction's first bytes.
    Line(u8, Time),
}

/// What the first bytes are.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    /// One byte is not enough to tell; it was taken.
    Undecided,
    /// TLS, since then. The first byte of its record was taken.
    Tls(u8, Time),
    /// Something else. A byte that was taken comes back with its time.
    Plain(Option<(u8, Time)>),
}

impl Opening {
    pub(super) fn is_past(&self) -> bool {
        matches!(self, Self::Past)
    }

    /// A byte was taken that may come back.
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self, Self::Record(..) | Self::Line(..))
    }

    /// The byte that was taken begins a line behind the first bytes.
    pub(super) fn is_of_line(&self) -> bool {
        matches!(self, Self::Line(..))
    }

    /// A line begins behind the first bytes. True where its first byte may be that of a record: then it was taken.
    pub(super) fn begin_line(&mut self, time: Time, bytes: &mut &[u8]) -> bool {
        let (Self::Past, Some((&first @ 20..=23, rest))) = (&*self, bytes.split_first()) else { return false };
        *self = Self::Line(first, time);
        *bytes = rest;
        true
    }

    /// Looks at `bytes`, which are not empty, or what is left where a byte was taken.
    pub(super) fn look(&mut self, time: Time, bytes: &mut &[u8]) -> Look {
        if let (Self::Start, Some((&first @ 20..=23, rest))) = (&*self, bytes.split_first()) {
            *self = Self::Record(first, time);
            *bytes = rest;
        }
        let (Self::Record(first, since) | Self::Line(first, since)) = *self else {
            *self = Self::Past;
            return Look::Plain(None);
        };
        match bytes.first() {
            None => Look::Undecided,
            Some(3) => {
                *self = Self::Past;
                Look::Tls(first, since)
            }
            Some(_) => {
                *self = Self::Past;
                Look::Plain(Some((first, since)))
            }
        }
    }
}
