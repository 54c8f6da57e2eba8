//! A command with its reply, as it is kept.

use std::borrow::Cow;

use crate::timestamp::Timestamp;

/// Characters kept of a text.
const LONGEST_TEXT: usize = 512;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// When its last byte was there.
    pub time: Timestamp,
    /// Its code.
    pub code: u16,
    /// Its text, as far as it is kept.
    pub text: String,
}

/// A command with its reply.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its verb.
    pub verb: Cow<'static, str>,
    /// What EHLO and HELO name.
    pub name: Option<Box<str>>,
    /// A fingerprint of the mailbox that MAIL and RCPT name.
    pub mailbox: Option<u64>,
    /// When its last byte was sent.
    pub sent: Timestamp,
    /// The reply; absent where there was none.
    pub reply: Option<Said>,
    /// Of DATA, and of the last BDAT: the content that followed.
    pub content: Option<Content>,
    /// The mailbox that the last MAIL before it named.
    pub sender_before: Option<u64>,
    /// The first mailbox that was accepted behind that.
    pub recipient_before: Option<u64>,
}

/// A message's content.
#[derive(Clone, Debug)]
pub struct Content {
    /// When its end was sent.
    pub ended: Option<Timestamp>,
    /// Its bytes as transmitted.
    pub size: Option<u64>,
    /// The final reply.
    pub reply: Option<Said>,
    /// The server took it for one recipient at least.
    pub is_taken: bool,
}

impl Said {
    /// A reply; of its text as much as is kept.
    pub fn new(time: Timestamp, code: u16, mut text: String) -> Self {
        cut(&mut text);
        Self { time, code, text }
    }

    /// It has the same code and text, as far as that is known of both.
    pub fn says_what(&self, other: &Self) -> bool {
        let hides = |one: &Self, other: &Self| one.is_code_alone() && other.text.starts_with(&*one.text);
        self.code == other.code && (self.text == other.text || hides(self, other) || hides(other, self))
    }

    /// There is nothing in its text but an enhanced code: the rest may have stayed in the kernel.
    fn is_code_alone(&self) -> bool {
        self.text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    }
}

impl Step {
    /// Bytes of its texts.
    pub(super) fn texts(&self) -> usize {
        let text = self.reply.as_ref().map_or(0, |reply| reply.text.len());
        let name = self.name.as_ref().map_or(0, |name| name.len());
        text + name + self.content.as_ref().map_or(0, Content::texts)
    }

    /// A message goes over with it, or a part of one.
    pub fn is_message(&self) -> bool {
        matches!(&*self.verb, "DATA" | "BDAT")
    }

    /// It says the same: the verb, and for MAIL and RCPT the mailbox.
    pub fn says_what(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.mailbox == other.mailbox
    }

    pub(super) fn says_hello(&self) -> bool {
        matches!(&*self.verb, "EHLO" | "HELO" | "LHLO")
    }

    /// The verb; the ways to say hello are one.
    pub fn kind(&self) -> &str {
        match &*self.verb {
            "HELO" | "LHLO" => "EHLO",
            verb => verb,
        }
    }

    /// It was accepted: by 2yz or 3yz.
    pub fn is_accepted(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| matches!(reply.code, 200..=399))
    }

    /// The extensions that EHLO was answered with, each keyword in upper case.
    pub fn extensions(&self) -> Option<Vec<String>> {
        let reply = self.reply.as_ref().filter(|reply| reply.code == 250 && &*self.verb != "HELO")?;
        if reply.is_code_alone() {
            return None;
        }
        let keyword = |line: &str| line.split([' ', '=']).next().unwrap_or_default().to_ascii_uppercase();
        (self.kind() == "EHLO")
            .then(|| reply.text.lines().skip(1).map(keyword).filter(|word| !word.is_empty()).collect())
    }
}

impl Content {
    /// Bytes of its texts.
    pub(super) fn texts(&self) -> usize {
        self.reply.as_ref().map_or(0, |reply| reply.text.len())
    }

    /// When the server took the message.
    pub fn accepted(&self) -> Option<Timestamp> {
        self.reply.as_ref().filter(|_| self.is_taken).map(|reply| reply.time)
    }
}

pub(super) fn cut(text: &mut String) {
    if text.len() > LONGEST_TEXT
        && let Some((end, _)) = text.char_indices().nth(LONGEST_TEXT)
    {
        text.truncate(end);
    }
}

pub(super) fn kept(text: &str) -> Box<str> {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => text[..end].into(),
        None => text.into(),
    }
}
