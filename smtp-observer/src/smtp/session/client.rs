//! The client's bytes.

use super::super::Peer;
use super::super::body::{Body, Found};
use super::super::command::{Command, Verb};
use super::super::decoder_output::DecoderOutput;
use super::super::escape::escape;
use super::super::item::{Item, Message, Transfer};
use super::super::line::{LONGEST_LINE, Line, Step};
use super::super::mailbox_names::Names;
use super::super::masked;
use super::super::pending_replies::{ExpectedReplies, PendingReply};
use super::super::preamble;
use super::super::tls::{Look, Part};
use super::smuggling::SmugglingState;
use super::{Chunks, LineStart, Mode, Session, message};
use crate::event::Time;
use crate::names::AnomalyKind;

impl Session {
    pub(super) fn client_bytes(&mut self, time: Time, bytes: &[u8], items: &mut DecoderOutput) {
        if self.client_goes_on(items) {
            self.server_bytes(time, bytes, items);
            return;
        }
        let taken = self.read_client(time, bytes, items);
        if let Some(rest @ [_, ..]) = bytes.get(taken..) {
            self.held.push(time, self.end(Peer::Client), rest);
            self.read_held_for_line(items);
            self.settle_by_next_line(time, items);
        }
    }

    /// The client sends more: for a client that does not pipeline, the server has said all that was due. True where that makes
    /// it a server: what it sends is none of a client.
    pub(super) fn client_goes_on(&mut self, items: &mut DecoderOutput) -> bool {
        let reversed = self.reversed;
        self.client_went_on();
        if std::mem::take(&mut self.garbled)
            && self.waiting.is_single()
            && self.client.lines.at_start()
            && self.held.is_empty()
            && matches!(self.mode, Mode::Command | Mode::Undecided | Mode::Answer)
        {
            self.settle_fork(items);
            match self.replies.take() {
                // How the client's next bytes are read does not depend on it: its last line may be late.
                Some(reply) if matches!(self.mode, Mode::Command) && self.is_last_owed() => {
                    self.suspect_last_line(reply)
                }
                Some(reply) => self.reply_without_end(reply, items),
                // What had no code was the reply.
                None => {
                    self.give_up_waiting(items);
                    self.mode = Mode::Command;
                }
            }
        }
        self.reversed != reversed
    }

    /// Reads up to where it is not known how to; how many bytes that are.
    pub(super) fn read_client(&mut self, time: Time, mut bytes: &[u8], items: &mut DecoderOutput) -> usize {
        let (length, reversed) = (bytes.len(), self.reversed);
        while !bytes.is_empty() {
            if self.reversed != reversed {
                self.server_bytes(time, bytes, items);
                return length;
            }
            if self.is_opaque() || matches!(self.mode, Mode::ClientTls(_)) {
                self.tls_goes_on(Peer::Client, time, Part::Said(bytes), items);
                return length;
            }
            if !self.preamble.is_past() {
                self.look_at_preamble(time, &mut bytes, items);
                continue;
            }
            if self.may_be_tls(time, &mut bytes) && !self.look_at_opening(time, &mut bytes, items) {
                continue;
            }
            match &mut self.mode {
                Mode::Command | Mode::Answer | Mode::Resync(_) => self.client_step(time, &mut bytes, items),
                Mode::Undecided | Mode::UndecidedForLine(..) => return length - bytes.len(),
                Mode::Body(..) if self.cut_short => self.content_goes_on(items),
                Mode::Body(body, message) => {
                    let scan = body.scan(bytes);
                    message.ended_at = Some(time);
                    let (content, rest) = bytes.split_at(scan.taken);
                    bytes = rest;
                    if let Some(fork) = &mut self.fork {
                        fork.follow(content);
                    }
                    match scan.found {
                        Found::Nothing => {}
                        Found::End => self.body_ended(time, items),
                        Found::Form(form) => {
                            let is_own = self.ended_by == [true, false] && form.behind == r"\n";
                            self.fork = Some(Box::new(SmugglingState::new(form, time, is_own)));
                            if !is_own {
                                self.report_attempt(items);
                            }
                        }
                    }
                }
                Mode::Octets(remaining) => {
                    let taken = usize::try_from(*remaining).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[taken..];
                    self.octets(time, taken as u64);
                }
                // Met at the top.
                Mode::StartTls { .. } | Mode::ClientTls(_) | Mode::Handshake(_) | Mode::Opaque { .. } => return length,
            }
        }
        length
    }

    /// The first bytes may be a proxy's header.
    fn look_at_preamble(&mut self, time: Time, bytes: &mut &[u8], items: &mut DecoderOutput) {
        if let preamble::Look::Plain(taken, since) = self.preamble.look(time, bytes) {
            let end = self.end(Peer::Client) - bytes.len() as u64;
            self.up_to(end, Peer::Client, |session| session.client_bytes(since, taken, items));
        }
    }

    /// Whether bytes may be TLS: the first of all, and those in a command's place.
    fn may_be_tls(&mut self, time: Time, bytes: &mut &[u8]) -> bool {
        let opening = &mut self.client.opening;
        match self.mode {
            Mode::Command if opening.is_past() => {
                !self.client.skip && self.client.lines.at_start() && opening.begin_line(time, bytes)
            }
            Mode::Command | Mode::StartTls { .. } | Mode::Resync(_) => !opening.is_past(),
            // The server went on before the second of them.
            Mode::Answer => opening.is_of_line(),
            _ => false,
        }
    }

    /// The bytes may be TLS. True when they are not, and can be read.
    fn look_at_opening(&mut self, time: Time, bytes: &mut &[u8], items: &mut DecoderOutput) -> bool {
        let is_first = !self.client.opening.is_of_line();
        let withheld = match self.client.opening.look(time, bytes) {
            Look::Undecided => return false,
            Look::Tls(first, since) => {
                self.client_speaks_tls(since, items);
                self.tls_goes_on(Peer::Client, since, Part::Said(&[first]), items);
                return false;
            }
            Look::Plain(withheld) => withheld,
        };
        let first = withheld.map_or_else(|| bytes.first().copied(), |(byte, _)| Some(byte));
        let is_text = |first: &u8| matches!(first, b'\t' | b'\r' | b'\n' | b' '..=b'~');
        if matches!(self.mode, Mode::StartTls { .. }) && !self.stays_plain(time, first, items) {
            return false;
        }
        if let (Mode::Command, Some(first)) = (&self.mode, first)
            && is_first
            && !is_text(&first)
        {
            let detail = || format!("the client's first byte is {first:#04x}");
            self.anomalies.report(time, AnomalyKind::NotSmtp, items, detail);
        }
        if let Some((byte, since)) = withheld {
            let end = self.end(Peer::Client) - bytes.len() as u64;
            self.up_to(end, Peer::Client, |session| session.client_step(since, &mut &[byte][..], items));
        }
        true
    }

    /// Reads up to the end of a line.
    fn client_step(&mut self, time: Time, bytes: &mut &[u8], items: &mut DecoderOutput) {
        if self.client.lines.at_start() {
            self.line = LineStart {
                time,
                at: self.end(Peer::Client) - bytes.len() as u64,
                pipelined: self.sent_early
                    || time < self.answered_at
                    || self.waiting.for_command() && !self.has_withheld_all(),
                early: self.waiting.for_greeting(),
            };
            self.client.skip |= std::mem::take(&mut self.answer_waits) && time < self.answered_at;
        }
        let answers = self.client.skip || matches!(self.mode, Mode::Answer);
        let lost = matches!(self.mode, Mode::Resync(_));
        let line = match self.client.lines.step(bytes, self.origin) {
            Step::More => return,
            Step::TooLong(kept) => {
                // The initial response and the answers of AUTH may be longer (RFC 4954, 4).
                if !answers && !lost && !Verb::of_line(kept).authenticates() {
                    let detail = || format!("a line of the client is longer than {LONGEST_LINE} bytes");
                    self.anomalies.report(time, AnomalyKind::LineTooLong, items, detail);
                }
                return;
            }
            Step::Line(line) => line,
        };
        self.ended_by[usize::from(!line.bare_lf)] = true;
        if self.client.skip {
            self.client.skip = false;
            return;
        }
        if answers {
            self.mode = Mode::Undecided;
            return;
        }
        if self.line.early && !self.spoken && !lost && greets(line.said()) {
            let line = [line.bytes, if line.bare_lf { b"\n" } else { b"\r\n" }].concat();
            self.greeted_by_client(self.line.at, self.line.time, time, &line, items);
            return;
        }
        let mut command = items.command();
        command.read(&line, self.line.time, time);
        if let Mode::Resync(lost) = &mut self.mode {
            // If it is one, replies may repeat its names.
            Names::note(&mut self.names, &command);
            let before = lost.line(command);
            before.into_iter().for_each(|before| items.take_command(before));
            return;
        }
        if std::mem::take(&mut self.left_waiting) > 0 && command.line == b"." {
            items.take_command(command);
            self.lose(time, || "the end of a message that was answered before".into(), items);
            if let Mode::Resync(lost) = &mut self.mode {
                lost.expect(0);
            }
            return;
        }
        command.pipelined = self.line.pipelined;
        if !std::mem::replace(&mut self.spoken, true) && speaks_another_protocol(&command) {
            // It is followed all the same: commands may stand behind it, and the server decides what it takes for one.
            let detail = || format!("the client's first line begins with {}", shown_word(&command));
            self.anomalies.report(time, AnomalyKind::NotSmtp, items, detail);
        }
        let flaws = Flaws::of(&line);
        let length = line.length;
        flaws.report(
            Peer::Client,
            || of_client(&command, length),
            |kind, detail| {
                self.anomalies.report(time, kind, items, || detail);
            },
        );
        self.suspect(&command);
        self.report_command(&command, length, items);
        self.command(command, items);
    }

    /// What a command line shows at once.
    fn report_command(&mut self, command: &Command, length: u64, items: &mut DecoderOutput) {
        if self.line.early {
            self.spoke_early(command.last_byte, || of_client(command, length));
        }
        let mut report = |kind, detail: &dyn Fn() -> String| {
            self.anomalies.report(command.last_byte, kind, items, detail);
        };
        // While a reply may be missing, it is not certain that the command was sent early.
        let is_early = command.pipelined && self.unsettled.is_none();
        if is_early && self.extensions.is_some_and(|offered| !offered.pipelining) {
            report(AnomalyKind::PipeliningNotOffered, &|| of_client(command, length));
        }
        if command.verb == Verb::Other && masked::is_verb(command.word()) {
            report(AnomalyKind::MaskedCommand, &|| shown_word(command));
        }
    }

    /// A command line is complete.
    pub(super) fn command(&mut self, command: Box<Command>, items: &mut DecoderOutput) {
        let (verb, time) = (command.verb, command.last_byte);
        Names::note(&mut self.names, &command);
        self.command_at = time;
        self.left_waiting = 0;
        if matches!(verb, Verb::Ehlo | Verb::Helo | Verb::Lhlo | Verb::Mail | Verb::Rset) {
            self.shelved = self.chunks.take().or(self.shelved.take());
        }
        let chunk = match verb {
            Verb::Bdat => command.chunk(),
            _ => None,
        };
        let last = match (verb, chunk) {
            (Verb::Burl, _) => self.burl(&command),
            (_, Some((_, last))) => self.chunk(time, last),
            _ => None,
        };
        self.waiting.push(PendingReply::Command(command, last), items);
        if self.waiting.is_full() {
            self.lose(time, || "too many commands wait for a reply".into(), items);
        } else if verb.decides_what_follows() {
            self.mode = Mode::Undecided;
        } else if let Some((size, _)) = chunk {
            self.mode = Mode::Octets(size);
            self.in_chunk = true;
            self.octets(time, 0);
        }
    }

    /// A chunk was announced; the last one makes the message.
    fn chunk(&mut self, time: Time, last: bool) -> Option<Box<Message>> {
        self.chunks.get_or_insert_with(|| Box::new(Chunks { requested_at: time, size: Some(0) }));
        if !last {
            return None;
        }
        let chunks = self.chunks.take()?;
        let mut message = message(Transfer::Bdat, Some(chunks.requested_at), None);
        message.size = chunks.size;
        Some(message)
    }

    /// The server is to fetch a part of the message, which may be the last (RFC 4468, 3): how long it is, is not seen.
    fn burl(&mut self, command: &Command) -> Option<Box<Message>> {
        let time = command.last_byte;
        let last = command.argument().rsplit(u8::is_ascii_whitespace).next();
        self.chunks.get_or_insert_with(|| Box::new(Chunks { requested_at: time, size: None })).size = None;
        if !last.is_some_and(|word| word.eq_ignore_ascii_case(b"LAST")) {
            return None;
        }
        let chunks = self.chunks.take()?;
        let mut message = message(Transfer::Burl, Some(chunks.requested_at), None);
        message.size = None;
        message.ended_at = Some(time);
        Some(message)
    }

    /// So many of the octets that were announced have come.
    pub(super) fn octets(&mut self, time: Time, length: u64) {
        let Mode::Octets(remaining) = &mut self.mode else { return };
        *remaining -= length;
        self.cut_short &= length == 0;
        let ended = *remaining == 0;
        if self.in_chunk {
            match &mut self.chunks {
                Some(chunks) => chunks.size = chunks.size.map(|size| size.saturating_add(length)),
                None => self.waiting.chunk_grew(length),
            }
        }
        if ended {
            self.waiting.chunk_ended(time);
            self.command_at = time;
            self.in_chunk = false;
            self.mode = Mode::Command;
        }
    }

    /// The end of data was seen.
    fn body_ended(&mut self, time: Time, items: &mut DecoderOutput) {
        let Mode::Body(body, mut message) = std::mem::replace(&mut self.mode, Mode::Command) else { return };
        self.ended_by[1] = true;
        if self.fork.as_ref().is_some_and(|fork| fork.is_own()) {
            // It ends its message otherwise.
            self.report_attempt(items);
        }
        message.size = body.size_at_end();
        self.command_at = time;
        self.had_content = true;
        match &message.reply {
            // It was refused before its end, which may earn a second reply or none.
            Some(reply) if reply.refuses() => {
                items.push(Item::Message(message));
                self.fork = None;
                self.lose(time, || "the end of a message that was refused before".into(), items);
                if let Mode::Resync(lost) = &mut self.mode {
                    lost.expect(0);
                }
            }
            _ => {
                message.reply = None;
                self.waiting.push(PendingReply::Message(message, ExpectedReplies::Unknown), items);
            }
        }
    }

    /// DATA was answered 2yz: a known verb, and nothing was accepted; anything else is content.
    pub(super) fn read_held_for_line(&mut self, items: &mut DecoderOutput) {
        if !matches!(self.mode, Mode::UndecidedForLine(..)) {
            return;
        }
        let Some(line) = self.held.first_line() else { return };
        let is_command = Verb::of_line(&line) != Verb::Other;
        if let Mode::UndecidedForLine(go_ahead, requested_at) = std::mem::replace(&mut self.mode, Mode::Command) {
            if !is_command {
                let message = message(Transfer::Data, Some(requested_at), Some(*go_ahead));
                self.mode = Mode::Body(Box::new(Body::new()), message);
            }
            self.read_held(None, items);
        }
    }
}

/// What is wrong with the bytes of a line.
pub(super) struct Flaws {
    bare_lf: bool,
    bare_cr: bool,
    nul: bool,
}

impl Flaws {
    pub(super) fn of(line: &Line<'_>) -> Self {
        let Line { bare_lf, skipped, .. } = *line;
        // Nearly no line has one: all bytes are looked at alike.
        let has = |wanted| line.bytes.iter().fold(false, |found, byte| found | (*byte == wanted));
        Self { bare_lf, bare_cr: has(b'\r') || skipped.bare_cr, nul: has(b'\0') || skipped.nul }
    }

    pub(super) fn report(&self, peer: Peer, line: impl Fn() -> String, mut report: impl FnMut(AnomalyKind, String)) {
        for (is_so, kind) in
            [(self.bare_lf, AnomalyKind::BareLf), (self.bare_cr, AnomalyKind::BareCr), (self.nul, AnomalyKind::NulByte)]
        {
            if is_so {
                report(kind, format!("{}: {}", peer.as_str(), line()));
            }
        }
    }
}

/// A client's line in a detail: its verb where that is known, and its length. The rest may be a credential.
pub(super) fn of_client(command: &Command, length: u64) -> String {
    match command.verb {
        Verb::Other => format!("an unknown command of {length} bytes"),
        verb => format!("{} in a line of {length} bytes", verb.as_str()),
    }
}

fn shown_word(command: &Command) -> String {
    escape(command.word())
}

/// The line is a server's first (RFC 5321, 4.3.1).
fn greets(line: &[u8]) -> bool {
    line.strip_prefix(b"220").is_some_and(|rest| rest.first().is_none_or(|byte| b" -".contains(byte)))
}

const HTTP_MARK: &[u8] = b"HTTP/";

/// HTTP and SSH by their words, others by a header (`Name: value`).
fn speaks_another_protocol(command: &Command) -> bool {
    // Postfix takes no session that begins with one of these.
    const FORBIDDEN: &[&[u8]] = &[b"GET", b"POST", b"CONNECT"];
    const HTTP: &[&[u8]] = &[b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PRI"];
    let (word, argument) = (command.word(), command.argument());
    let is_name = |name: &[u8]| name.len() > 1 && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    word.starts_with(b"SSH-")
        || FORBIDDEN.contains(&word)
        // The kernel lets none of these words cross but where it knows the protocol by it.
        || HTTP.contains(&word) && (command.withheld || argument.windows(HTTP_MARK.len()).any(|part| part == HTTP_MARK))
        || word.strip_suffix(b":").is_some_and(is_name)
}
