//! Pauses before commands, and changes of owner in them.

use std::num::NonZero;
use std::time::Duration;

use crate::event::Time;
use crate::smtp::Command;

/// A client that is at work sends its next command sooner than this.
///
/// Postfix keeps a connection up to 2 s, Sendmail and JavaMail for minutes before they try whether it still lives; what
/// resets a session after each message (go-mail, PHPMailer) does so at once.
const IDLE: Duration = Duration::from_millis(300);

/// A [`Time`] that may be absent, in half the room: each idle connection has some.
pub(super) type Moment = Option<NonZero<u64>>;

pub(super) fn moment(time: Time) -> Moment {
    NonZero::new(time.0)
}

/// Follows when replies and commands come.
#[derive(Debug, Default)]
pub(super) struct Timing {
    last_reply: Moment,
    /// The last byte that the client sent before the command.
    last_sent: Moment,
    /// The shortest time from a reply to the next command: at a server it contains a round trip to the client.
    fastest: Option<Duration>,
    owner_changed: Moment,
}

/// What happened between the last reply and a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pause {
    /// Nothing was said for so long; absent if the client was at work.
    pub(super) idle: Option<Duration>,
    /// Another process had the connection when the last reply came.
    pub(super) owner_changed: bool,
    /// The client had sent the command before so long ago, and not got its reply: this one is of no group with it.
    pub(super) waited: Option<Duration>,
}

impl Timing {
    /// A reply is complete.
    pub(super) fn reply(&mut self, time: Time) {
        self.last_reply = moment(time);
    }

    /// Another process goes on with the client's socket.
    pub(super) fn owner_changed(&mut self, time: Time) {
        self.owner_changed = moment(time);
    }

    /// The client sent the end of a message.
    pub(super) fn sent(&mut self, time: Option<Time>) {
        self.last_sent = time.and_then(moment);
    }

    /// Something was not seen.
    pub(super) fn lost(&mut self) {
        self.last_reply = None;
    }

    /// A command comes.
    pub(super) fn command(&mut self, command: &Command) -> Pause {
        let limit = IDLE + self.fastest.unwrap_or_default();
        let last_sent = std::mem::replace(&mut self.last_sent, moment(command.last_byte));
        if command.pipelined {
            let waited = last_sent.map(|last_sent| command.first_byte.since(Time(last_sent.get())));
            return Pause { waited: waited.filter(|waited| *waited >= limit), ..Pause::default() };
        }
        let Some(last_reply) = self.last_reply.map(|time| Time(time.get())) else { return Pause::default() };
        let passed = command.first_byte.since(last_reply);
        self.fastest = Some(self.fastest.map_or(passed, |fastest| fastest.min(passed)));
        Pause {
            idle: (passed >= limit).then_some(passed),
            owner_changed: self
                .owner_changed
                .is_some_and(|changed| (last_reply.0..=command.first_byte.0).contains(&changed.get())),
            waited: None,
        }
    }
}

impl Pause {
    /// The client was not at work on the connection: it uses the connection again.
    pub(super) fn is_reuse(&self) -> bool {
        self.owner_changed || self.idle.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Time {
        Time((1000 + milliseconds) * 1_000_000)
    }

    fn command(milliseconds: u64) -> Command {
        Command::new(b"RSET", at(milliseconds), at(milliseconds))
    }

    #[test]
    fn the_way_to_a_far_client_is_no_pause() {
        let mut timing = Timing::default();
        timing.reply(at(0));
        assert_eq!(timing.command(&command(299)), Pause::default());
        timing.reply(at(1000));
        assert_eq!(timing.command(&command(1500)), Pause::default());
        timing.reply(at(2000));
        assert_eq!(timing.command(&command(2600)).idle, Some(Duration::from_millis(600)));
        assert_eq!(timing.fastest, Some(Duration::from_millis(299)));
    }

    #[test]
    fn another_process_between_reply_and_command() {
        let mut timing = Timing::default();
        timing.owner_changed(at(5));
        timing.reply(at(10));
        assert!(!timing.command(&command(11)).owner_changed);
        timing.owner_changed(at(20));
        assert!(timing.command(&command(20)).owner_changed);
        timing.lost();
        assert_eq!(timing.command(&command(9000)), Pause::default());
    }

    #[test]
    fn what_was_sent_early_had_no_pause() {
        let mut timing = Timing::default();
        timing.reply(at(0));
        let pipelined = Command { pipelined: true, ..command(5000) };
        assert_eq!(timing.command(&pipelined), Pause::default());
    }

    #[test]
    fn who_pauses_before_the_reply_has_stopped_waiting() {
        let mut timing = Timing::default();
        timing.reply(at(0));
        timing.command(&command(100));
        for (milliseconds, waited) in [(499, None), (898, None), (1298, Some(400))] {
            let pipelined = Command { pipelined: true, ..command(milliseconds) };
            assert_eq!(timing.command(&pipelined).waited, waited.map(Duration::from_millis), "{milliseconds}");
        }
        timing.sent(Some(at(2000)));
        assert_eq!(timing.command(&Command { pipelined: true, ..command(2001) }), Pause::default());
    }
}
