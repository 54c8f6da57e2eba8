//! One direction of a handshake, record by record (RFC 8446, 5.1): from what crossed of it, and the lengths of the rest.

use super::hello;

/// Bytes of a record's head: its type, a version, its length.
const HEAD: usize = 5;

/// Types of records.
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Bytes of an alert in clear (RFC 8446, 6).
const ALERT_LENGTH: usize = 2;

/// The lengths of an encrypted one in TLS 1.3: an alert, a type, and one of the tags that its ciphers have.
const ENCRYPTED_ALERTS: [usize; 2] = [ALERT_LENGTH + 1 + 16, ALERT_LENGTH + 1 + 8];

/// The shortest record that has room for the message Finished, encrypted as TLS 1.3 does (RFC 8446, 4.4.4 and 5.2).
const FINISHED_LENGTH: usize = 4 + 32 + 1 + 8;

/// Most bytes of a hello that are kept: as many as cross, about.
const MAX_HELLO: usize = 2048;

/// Bytes of a direction, as they come.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Part<'a> {
    /// These were said.
    Said(&'a [u8]),
    /// So many did not cross.
    Unseen(u64),
}

impl Part<'_> {
    /// How many they are.
    pub(in super::super) fn length(self) -> u64 {
        match self {
            Self::Said(bytes) => bytes.len() as u64,
            Self::Unseen(length) => length,
        }
    }
}

/// What a direction has shown.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// The head of a record.
    Head,
    /// A hello, as far as it is there.
    Hello(Vec<u8>),
    /// An alert in clear.
    Alert { is_fatal: bool, description: u8 },
    /// What should be its first record is none.
    NoRecord,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The head of the record that is being read, or of the last one, and how many bytes of the next one there are.
    head: [u8; HEAD],
    read: usize,
    /// Bytes of its body that are to come.
    remaining: usize,
    /// The hello, or an alert, as far as it is there.
    message: Vec<u8>,
    /// The hello was told.
    has_hello: bool,
    /// A record has begun.
    pub(super) begun: bool,
    /// ChangeCipherSpec was said, and a message behind it.
    changes: bool,
    pub(super) changed: bool,
    /// A record came that has room for the message Finished.
    pub(super) protected: bool,
    /// The last record can be nothing but an alert.
    pub(super) ends_with_alert: bool,
    /// It is not known where its records are.
    pub(super) unfollowed: bool,
}

impl Records {
    /// Takes bytes up to what they show.
    pub(super) fn take(&mut self, part: &mut Part<'_>) -> Option<Found> {
        match part {
            Part::Said(bytes) => self.said(bytes),
            Part::Unseen(length) => self.unseen(std::mem::take(length)),
        }
    }

    /// The hello that has begun, where no more of it comes.
    pub(super) fn unfinished(&mut self) -> Option<Found> {
        let is_hello = self.kind() == HANDSHAKE && !self.has_hello && !self.message.is_empty();
        is_hello.then(|| self.hello())
    }

    /// It has done its part of a handshake before TLS 1.3, or it is not known.
    pub(super) fn is_settled(&self) -> bool {
        self.changed || self.protected || self.unfollowed
    }

    /// Bytes of memory that it takes.
    pub(super) fn cost(&self) -> usize {
        self.message.capacity()
    }

    fn kind(&self) -> u8 {
        self.head[0]
    }

    fn said(&mut self, bytes: &mut &[u8]) -> Option<Found> {
        while let Some((&next, rest)) = bytes.split_first()
            && !self.unfollowed
        {
            let found = if self.remaining > 0 {
                let (body, rest) = bytes.split_at(self.remaining.min(bytes.len()));
                *bytes = rest;
                self.remaining -= body.len();
                self.body(body)
            } else if self.may_be_next(next) {
                *bytes = rest;
                self.head_goes_on(next)
            } else {
                self.unfollowed = true;
                (!self.begun).then_some(Found::NoRecord)
            };
            if found.is_some() {
                return found;
            }
        }
        *bytes = &[];
        None
    }

    fn unseen(&mut self, length: u64) -> Option<Found> {
        if self.unfollowed || length == 0 {
            return None;
        }
        let taken = usize::try_from(length).unwrap_or(usize::MAX).min(self.remaining);
        self.remaining -= taken;
        let found = if taken > 0 { self.unfinished() } else { None };
        self.has_hello |= taken > 0 && self.kind() == HANDSHAKE;
        self.unfollowed = taken as u64 != length;
        found
    }

    /// Whether it is the next byte of a head.
    fn may_be_next(&self, byte: u8) -> bool {
        match self.read {
            0 => matches!(byte, CHANGE_CIPHER_SPEC..=APPLICATION_DATA),
            1 => byte == 3,
            2 => byte <= 4,
            _ => true,
        }
    }

    fn head_goes_on(&mut self, next: u8) -> Option<Found> {
        // Its type is that of the last record up to here.
        let found = if self.read == 0 && next != HANDSHAKE { self.unfinished() } else { None };
        self.begun = true;
        self.head[self.read] = next;
        self.read = (self.read + 1) % HEAD;
        if self.read != 0 {
            return found;
        }
        self.begin();
        Some(Found::Head)
    }

    /// A head is complete.
    fn begin(&mut self) {
        let [kind, _, _, length @ ..] = self.head;
        let length = usize::from(u16::from_be_bytes(length));
        self.remaining = length;
        self.ends_with_alert = false;
        match kind {
            CHANGE_CIPHER_SPEC => self.changes = true,
            HANDSHAKE => self.changed |= self.changes,
            ALERT => {
                self.message.clear();
                self.ends_with_alert = length != ALERT_LENGTH;
            }
            _ => {
                self.protected |= length >= FINISHED_LENGTH;
                self.ends_with_alert = ENCRYPTED_ALERTS.contains(&length);
            }
        }
    }

    fn body(&mut self, body: &[u8]) -> Option<Found> {
        let is_hello = self.kind() == HANDSHAKE && !self.has_hello;
        let is_alert = self.kind() == ALERT && !self.ends_with_alert;
        if !is_hello && !is_alert {
            return None;
        }
        let room = MAX_HELLO - self.message.len();
        self.message.extend_from_slice(&body[..body.len().min(room)]);
        match self.message[..] {
            [level, description] if is_alert => {
                self.message.clear();
                Some(Found::Alert { is_fatal: level != 1, description })
            }
            [_, a, b, c, ..] if is_hello => {
                let length = hello::HEAD + u32::from_be_bytes([0, a, b, c]) as usize;
                let is_whole = self.message.len() >= length || body.len() >= room;
                // What stands behind it is another message.
                self.message.truncate(length);
                is_whole.then(|| self.hello())
            }
            _ => None,
        }
    }

    fn hello(&mut self) -> Found {
        self.has_hello = true;
        Found::Hello(std::mem::take(&mut self.message))
    }
}
