//! A handshake (RFC 8446, 2; RFC 5246, 7.3): what it agrees on, and whether it succeeds.

use super::records::{Found, Part, Records};
use super::{Plaintext, TlsFailure, TlsSession, hello};
use crate::names::TlsVersion;
use crate::smtp::Peer;

/// Follows both directions of a handshake.
#[derive(Debug, Default)]
pub(in super::super) struct Handshake {
    client: Records,
    server: Records,
    session: TlsSession,
    /// An alert that need not end it.
    warning: Option<(Peer, u8)>,
}

/// How a handshake ended.
pub(in super::super) type Outcome = Result<(), TlsFailure>;

impl Handshake {
    /// Takes bytes of a peer: how it ended, if it did.
    pub(in super::super) fn take(&mut self, peer: Peer, mut part: Part<'_>) -> Option<Outcome> {
        loop {
            let records = match peer {
                Peer::Client => &mut self.client,
                Peer::Server => &mut self.server,
            };
            match (peer, records.take(&mut part)) {
                (_, Some(Found::Hello(message))) => self.hello(peer, &message),
                (_, Some(Found::Alert { is_fatal: true, description })) => {
                    return Some(Err(TlsFailure::Alert(peer, description)));
                }
                (_, Some(Found::Alert { description, .. })) => self.warning = Some((peer, description)),
                (Peer::Server, Some(Found::NoRecord)) => return Some(Err(TlsFailure::AnsweredInClear)),
                (_, Some(Found::NoRecord | Found::Head) | None) => {}
            }
            if self.is_complete() {
                return Some(Ok(()));
            }
            if part.length() == 0 {
                return None;
            }
        }
    }

    /// The connection is over, and the handshake was not: why, as far as is known.
    pub(in super::super) fn closed(&mut self) -> TlsFailure {
        for peer in [Peer::Client, Peer::Server] {
            let records = if peer == Peer::Client { &mut self.client } else { &mut self.server };
            if let Some(Found::Hello(message)) = records.unfinished() {
                self.hello(peer, &message);
            }
        }
        let Self { client, server, warning, .. } = self;
        let has_said = |records: &Records| records.begun || records.unfollowed;
        match *warning {
            Some((peer, description)) => TlsFailure::Alert(peer, description),
            None if client.ends_with_alert => TlsFailure::EncryptedAlert(Peer::Client),
            None if server.ends_with_alert => TlsFailure::EncryptedAlert(Peer::Server),
            None if !has_said(client) => TlsFailure::NoClientHello,
            None if !has_said(server) => TlsFailure::NoServerHello,
            None => TlsFailure::Closed,
        }
    }

    /// Whether its plaintext is read.
    pub(in super::super) fn set_plaintext(&mut self, plaintext: Plaintext) {
        self.session.plaintext = plaintext;
    }

    /// What is known of it.
    pub(in super::super) fn into_session(self) -> TlsSession {
        self.session
    }

    /// Bytes of memory that it takes.
    pub(in super::super) fn cost(&self) -> usize {
        size_of::<Self>() + self.client.cost() + self.server.cost()
    }

    fn hello(&mut self, peer: Peer, message: &[u8]) {
        match peer {
            Peer::Client => hello::of_client(message, &mut self.session),
            Peer::Server => {
                hello::of_server(message, &mut self.session);
                // What the client has encrypted before is early data (RFC 8446, 2.3).
                self.client.protected = false;
            }
        }
    }

    /// Both have said Finished, as far as they can be followed. In TLS 1.3 the client is the last to say it.
    fn is_complete(&self) -> bool {
        match self.session.version {
            Some(TlsVersion::Tls13) => self.client.protected || self.client.unfollowed,
            _ => self.client.is_settled() && self.server.is_settled(),
        }
    }
}
