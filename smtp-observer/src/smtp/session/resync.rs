//! Finding the way back after a gap.

use super::super::body::Body;
use super::super::command::{Command, Verb};
use super::super::decoder_output::DecoderOutput;
use super::super::item::{GoAhead, Item, Lost, Transfer};
use super::super::pending_replies::PendingReply;
use super::super::reply::Reply;
use super::super::tls::Opening;
use super::unsettled::earned_by_few;
use super::{Mode, Session, message};
use crate::names::AnomalyKind;

/// Replies to what was sent before that are waited for at most.
const MAX_OLDER: usize = 64;

/// What was seen since the state became uncertain. Certain points are a 354, which only DATA earns, and
/// a reply to a command that was sent alone: then neither peer owes the other anything.
#[derive(Debug)]
pub(super) struct Resync {
    /// Something was lost, as opposed to never seen.
    after_gap: bool,
    /// Bytes were not seen, as opposed to not being understood: DATA may be among them.
    missed: bool,
    /// A reply is missing: the next one may be that to the line before the last.
    unpaired: bool,
    /// Replies that are still to come for what was sent before.
    older: usize,
    /// Nothing was seen of either peer.
    untouched: bool,
    /// The client's lines since the last reply.
    lines: u32,
    /// The client's last line.
    last: Option<Box<Command>>,
}

impl Resync {
    /// The session was under way when it was first seen.
    pub(super) fn unseen() -> Self {
        Self { after_gap: false, untouched: true, ..Self::after_gap() }
    }

    pub(super) fn after_gap() -> Self {
        Self { after_gap: true, missed: true, unpaired: false, older: 0, untouched: false, lines: 0, last: None }
    }

    /// It is not certain which commands the replies answer.
    pub(super) fn unpaired() -> Self {
        Self { after_gap: false, unpaired: true, ..Self::after_gap() }
    }

    /// A line of the client: a command, an answer to AUTH, or content. The one before it comes back.
    pub(super) fn line(&mut self, command: Box<Command>) -> Option<Box<Command>> {
        self.untouched = false;
        self.lines = self.lines.saturating_add(1);
        self.last.replace(command)
    }

    /// A reply to what was sent before the loss: the lines since are not alone.
    pub(super) fn reply_to_older(&mut self) {
        if self.lines > 0 {
            self.not_alone();
        }
    }

    /// All was seen, and so many replies are still to come for it.
    pub(super) fn expect(&mut self, replies: usize) {
        self.missed = false;
        self.older = replies.min(MAX_OLDER);
    }

    /// More bytes were not seen.
    pub(super) fn unsure(&mut self) {
        self.missed = true;
        self.unpaired = false;
        self.older = 0;
        self.not_alone();
    }

    /// No line has come since the last reply, nor anything that was not seen.
    pub(super) fn has_nothing_outstanding(&self) -> bool {
        self.lines == 0 && self.older == 0
    }

    /// The client has sent a line that a reply may answer.
    pub(super) fn has_line(&self) -> bool {
        self.last.is_some()
    }

    fn not_alone(&mut self) {
        self.untouched = false;
        self.lines = self.lines.saturating_add(2);
        self.last = None;
    }
}

impl Session {
    pub(super) fn reply_while_lost(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        let Mode::Resync(lost) = &mut self.mode else { return };
        if lost.older > 0 {
            lost.older -= 1;
            lost.reply_to_older();
            return;
        }
        let missed = lost.missed;
        let complete = self.client.lines.at_start();
        let untouched = std::mem::replace(&mut lost.untouched, false) && complete;
        let lines = std::mem::replace(&mut lost.lines, 0);
        let alone = lines == 1 && complete;
        let after_gap = lost.after_gap;
        let unpaired = lost.unpaired;
        let pairs = |code| match missed {
            // It may be the reply to a line that was not read, such as content behind a refused DATA: more may follow.
            true if matches!(code, 500..=504) => false,
            _ => !unpaired || earned_by_few(code),
        };
        let time = reply.last_byte;

        if untouched && reply.code == 220 {
            // The connection was first seen before the server greeted.
            self.mode = Mode::Command;
            items.push(Item::Greeting(reply));
            return;
        }
        let is_data = |command: &Command| command.verb == Verb::Data && reply.code == 354 && complete;
        let found = match &mut lost.last {
            Some(last)
                if alone
                    && !unpaired
                    && pairs(reply.code)
                    && last.line == b"."
                    && matches!(reply.code / 100, 2 | 4 | 5) =>
            {
                Found::End
            }
            Some(last) if alone && pairs(reply.code) && is_answered_by(last, reply.code) || is_data(last) => {
                match lost.last.take() {
                    Some(command) => Found::Command(command),
                    None => return,
                }
            }
            _ if reply.code == 354 && (missed || lines > 0) => Found::Content { complete: lines == 0 && complete },
            _ => return,
        };
        if after_gap {
            items.push(Item::Lost(Lost::Bytes));
            let detail = || format!("a reply with {} shows the state", reply.code);
            self.anomalies.report(time, AnomalyKind::Resynchronised, items, detail);
        }
        match found {
            Found::Command(command) => {
                self.mode = match command.verb.decides_what_follows() {
                    true => Mode::Undecided,
                    false => Mode::Command,
                };
                self.waiting.push(PendingReply::Command(command, None), items);
                self.reply(reply, items);
            }
            // The reply to a message that was not followed.
            Found::End => self.mode = Mode::Command,
            Found::Content { complete } => {
                let body = match complete {
                    true => Body::new(),
                    // Some of it was sent before.
                    false => Body::joined(),
                };
                let go_ahead = GoAhead { time, text: reply.text, repeated: reply.repeated };
                self.mode = Mode::Body(Box::new(body), message(Transfer::Data, None, Some(go_ahead)));
                // What was seen of them is content, too.
                self.client.lines.reset();
                self.client.opening = Opening::Past;
            }
        }
    }
}

/// A certain point.
enum Found {
    Command(Box<Command>),
    End,
    /// The server wants content; all of it is still to come, or not.
    Content {
        complete: bool,
    },
}

/// The code can be a reply to the command, and the command alone decides what follows.
fn is_answered_by(command: &Command, code: u16) -> bool {
    let refused = matches!(code / 100, 4 | 5);
    match command.verb {
        Verb::Other | Verb::Bdat | Verb::Xexch50 => false,
        Verb::Data => refused || code == 354,
        Verb::Auth | Verb::XExps => refused || matches!(code, 235 | 334),
        Verb::StartTls | Verb::XAnonymousTls | Verb::XClient => refused || code == 220,
        Verb::Quit => refused || code == 221,
        _ => refused || matches!(code, 211 | 214 | 250..=253),
    }
}
