//! What a transaction names, so that it can be known again: hashes alone, no address is kept.

use std::hash::{DefaultHasher, Hasher as _};

use crate::redact::{mailbox, probe_mark};
use crate::smtp::Command;

/// The sender and the recipients that a transaction named, accepted or not. Hashes are compared within one session only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Envelope {
    sender: u64,
    sends_nothing: bool,
    /// Its recipients are such as programs name that test addresses.
    tests: bool,
    /// NOOPs stood between them.
    has_noops: bool,
    /// The sum of their hashes: their order does not matter.
    recipients: u64,
    named: u32,
}

impl Envelope {
    /// MAIL opens it.
    pub(super) fn mail(command: &Command) -> Self {
        let sender = mailbox(command.argument());
        let sends_nothing = sends_nothing(sender, announces_message(command.argument()));
        Self { sender: hash(sender), sends_nothing, ..Self::default() }
    }

    /// RCPT adds to it.
    pub(super) fn rcpt(&mut self, command: &Command) {
        let recipient = mailbox(command.argument());
        self.tests |= recipient.is_some_and(is_probe);
        self.recipients = self.recipients.wrapping_add(hash(recipient));
        self.named = self.named.saturating_add(1);
    }

    /// How many recipients it names.
    pub(super) fn named(&self) -> u32 {
        self.named
    }

    /// Its sender is one in whose name addresses are tested: nobody (Exim's callout), or Postfix's `double-bounce`.
    pub(super) fn sends_nothing(&self) -> bool {
        self.sends_nothing
    }

    /// A NOOP stood before a recipient, as between the addresses that a program tests.
    pub(super) fn note_noop(&mut self) {
        self.has_noops = true;
    }

    /// It did.
    pub(super) fn has_noops(&self) -> bool {
        self.has_noops
    }

    /// Something shows that addresses are tested, and nothing is to be sent.
    pub(super) fn is_test(&self) -> bool {
        self.sends_nothing || self.tests || self.has_noops
    }

    /// Both name the same sender.
    pub(super) fn has_sender_of(&self, other: &Self) -> bool {
        self.sender == other.sender
    }

    /// Both name the same recipients.
    pub(super) fn has_recipients_of(&self, other: &Self) -> bool {
        (self.named, self.recipients) == (other.named, other.recipients)
    }
}

/// A bounce comes from nobody, too, and is announced with its size. Postfix's tests are known by their sender, whatever size
/// they announce.
fn sends_nothing(sender: Option<&[u8]>, announces_message: bool) -> bool {
    const POSTFIX: &[u8] = b"double-bounce@";
    let Some(sender) = sender else { return false };
    sender.is_empty() && !announces_message
        || sender.get(..POSTFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(POSTFIX))
}

/// MAIL says how long the message is (RFC 1870, 3).
fn announces_message(argument: &[u8]) -> bool {
    const SIZE: &[u8] = b"SIZE=";
    argument.split(u8::is_ascii_whitespace).any(|word| {
        let (name, value) = word.split_at(word.len().min(SIZE.len()));
        name.eq_ignore_ascii_case(SIZE) && value.iter().any(|digit| (b'1'..=b'9').contains(digit))
    })
}

/// A mailbox that nobody has.
fn is_probe(mailbox: &[u8]) -> bool {
    mailbox.split(|byte| *byte == b'@').next().is_some_and(|name| probe_mark(name).is_some())
}

/// The same in every run, so that a recording is judged as the connection was.
pub(super) fn hash(mailbox: Option<&[u8]>) -> u64 {
    mailbox.map_or(0, |mailbox| {
        let mut hasher = DefaultHasher::new();
        hasher.write(mailbox);
        hasher.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Time;

    fn envelope(lines: &[&str]) -> Envelope {
        let command = |line: &str| Command::new(line.as_bytes(), Time(0), Time(0));
        let mut envelope = Envelope::mail(&command(lines[0]));
        lines[1..].iter().for_each(|line| envelope.rcpt(&command(line)));
        envelope
    }

    #[test]
    fn the_same_again() {
        let one = envelope(&["MAIL FROM:<a@x.example> SIZE=5", "RCPT TO:<b@y.example>", "RCPT TO:<c@y.example>"]);
        let two = envelope(&["mail from: a@x.example", "rcpt to:<c@y.example> NOTIFY=NEVER", "RCPT TO:<b@y.example>"]);
        assert!(one.has_sender_of(&two) && one.has_recipients_of(&two));
        let three = envelope(&["MAIL FROM:<A@x.example>", "RCPT TO:<b@y.example>"]);
        assert!(!one.has_sender_of(&three) && !one.has_recipients_of(&three));
        assert_eq!((one.named(), three.named()), (2, 1));
    }

    #[test]
    fn recipients_of_tests() {
        for (line, expected) in [
            ("RCPT TO:<catch-all-test-1700000000@y.example>", true),
            ("RCPT TO:<mx.x.example-1700000000-testing@y.example>", true),
            ("RCPT TO:<load-testing@y.example>", false),
            ("RCPT TO:<catch-all@y.example>", false),
            ("RCPT TO:<b@y.example>", false),
        ] {
            assert_eq!(envelope(&["MAIL FROM:<a@x.example>", line]).is_test(), expected, "{line}");
        }
    }

    #[test]
    fn senders_of_tests() {
        for (line, expected) in [
            ("MAIL FROM:<>", true),
            ("MAIL FROM:<> SIZE=0 BODY=8BITMIME", true),
            ("MAIL FROM:<> BODY=8BITMIME size=2048", false),
            ("MAIL FROM:<double-bounce@x.example> SIZE=233", true),
            ("MAIL FROM:<double-bounce@x.example> SIZE=0", true),
            ("MAIL FROM:<Double-Bounce@x.example>", true),
            ("MAIL FROM:<double-bounces@x.example>", false),
            ("MAIL FROM:<a@x.example>", false),
        ] {
            assert_eq!(envelope(&[line]).sends_nothing(), expected, "{line}");
        }
        // A line that names nobody is no null sender.
        assert!(!envelope(&["MAIL"]).sends_nothing());
    }
}
