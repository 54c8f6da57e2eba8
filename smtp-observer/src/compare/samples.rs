//! Conversations as two agents tell of them, by two clocks, for tests.

use serde_json::{Value, json};

use super::{End, Report, compare};
use crate::observation::{Role, Timestamp};

pub(crate) const SERVER: (&str, u16) = ("192.0.2.25", 25);
pub(crate) const CLIENT: (&str, u16) = ("198.51.100.4", 40001);
pub(crate) const PROXY: (&str, u16) = ("198.51.100.4", 40002);
pub(crate) const ELSEWHERE: (&str, u16) = ("203.0.113.77", 50000);

/// How long a packet is on its way, in milliseconds.
pub(crate) const WAY: i64 = 4;

/// Both ends, and how many milliseconds the server's clock is ahead.
pub(crate) struct Path {
    pub(crate) client: End,
    pub(crate) server: End,
    pub(crate) ahead: f64,
}

/// A socket at one end.
#[derive(Clone, Copy)]
pub(crate) struct Socket {
    pub(crate) id: &'static str,
    pub(crate) role: Role,
    pub(crate) local: (&'static str, u16),
    pub(crate) remote: (&'static str, u16),
}

pub(crate) const fn client(id: &'static str, local: (&'static str, u16)) -> Socket {
    Socket { id, role: Role::Client, local, remote: SERVER }
}

pub(crate) const fn server(id: &'static str, remote: (&'static str, u16)) -> Socket {
    Socket { id, role: Role::Server, local: SERVER, remote }
}

/// A command with its reply.
#[derive(Clone, Copy)]
pub(crate) struct Line(pub(crate) &'static str, pub(crate) u16, pub(crate) &'static str);

pub(crate) const EHLO: Line = Line("EHLO c.example", 250, "mx.example\nPIPELINING\nSTARTTLS");
pub(crate) const MAIL: Line = Line("MAIL FROM:<*@c.example>", 250, "2.1.0 Ok");
pub(crate) const RCPT: Line = Line("RCPT TO:<*@s.example>", 250, "2.1.5 Ok");
pub(crate) const DATA: Line = Line("DATA", 354, "Go ahead");
pub(crate) const NOOP: Line = Line("NOOP", 250, "Ok");
pub(crate) const RSET: Line = Line("RSET", 250, "Flushed");
pub(crate) const QUIT: Line = Line("QUIT", 221, "Bye");
pub(crate) const QUEUED: &str = "2.0.0 Ok: queued as 4F1C0A77";

impl Path {
    pub(crate) fn ahead(milliseconds: i64) -> Self {
        Self { client: End::new(Role::Client), server: End::new(Role::Server), ahead: milliseconds as f64 }
    }

    /// Something happens at a socket, so many milliseconds after the beginning.
    pub(crate) fn tell(&mut self, at: i64, socket: Socket, event: Value) {
        let ahead = if socket.role == Role::Server { self.ahead } else { 0.0 };
        let end = |(address, port): (&str, u16)| json!({"address": address, "port": port});
        let mut line = json!({
            "time": Timestamp(1_795_453_445_000_000_000 + ((at as f64 + ahead) * 1e6) as i64),
            "connection": {"id": socket.id, "role": socket.role, "local": end(socket.local), "remote": end(socket.remote),
                           "netns": 1},
            "process": {"pid": 7, "tid": 7, "name": socket.id, "uid": 0},
        });
        let fields = event.as_object().cloned().unwrap_or_default();
        line.as_object_mut().expect("an object").extend(fields);
        let end = if socket.role == Role::Server { &mut self.server } else { &mut self.client };
        end.take(line.to_string().as_bytes()).expect("an event");
    }

    pub(crate) fn greet(&mut self, at: i64, socket: Socket) {
        self.tell(at - 3 * WAY, socket, json!({"event": "connection.opened"}));
        self.tell(at, socket, json!({"event": "smtp.greeting", "code": 220, "text": "mx.example ESMTP"}));
    }

    /// A command that was sent, or arrived, at this time, and its reply so many milliseconds later.
    pub(crate) fn say(&mut self, at: i64, socket: Socket, Line(command, code, reply): Line, latency: i64) {
        let (verb, argument) = command.split_once(' ').unwrap_or((command, ""));
        let mut event = json!({"event": "smtp.command", "verb": verb, "code": code, "reply": reply,
                               "latency_seconds": latency as f64 / 1e3, "pipelined": false});
        if !argument.is_empty() {
            event["argument"] = argument.into();
        }
        self.tell(at + latency, socket, event);
    }

    /// The end of a message, and its reply.
    pub(crate) fn message(&mut self, at: i64, socket: Socket, size: u64, reply: &str, latency: i64) {
        let event = json!({"event": "smtp.data", "verb": "DATA", "final_reply_seconds": latency as f64 / 1e3,
                           "size_bytes": size, "code": 250, "reply": reply});
        self.tell(at + latency, socket, event);
    }

    pub(crate) fn close(&mut self, at: i64, socket: Socket) {
        self.tell(
            at,
            socket,
            json!({"event": "connection.closed", "bytes_sent": 1, "bytes_received": 1,
                                     "duration_seconds": 1.0, "lost_bytes": 0}),
        );
    }

    /// Said by the one, and passed on to the other.
    pub(crate) fn pass(&mut self, at: i64, from: Socket, to: Socket, line: Line) {
        self.say(at, from, line, 2 * WAY + 1);
        self.say(at + WAY, to, line, 1);
    }

    /// A mail on a connection of its own, without anything in between; it takes a second.
    pub(crate) fn mail(&mut self, at: i64, from: Socket, to: Socket) {
        self.mail_at(at, from);
        self.mail_at(at, to);
    }

    /// One end of it.
    pub(crate) fn mail_at(&mut self, at: i64, end: Socket) {
        // A command is sent when the client says so, and arrives later; the server answers within milliseconds.
        let (later, more) = if end.role == Role::Client { (0, 2 * WAY) } else { (WAY, 0) };
        self.greet(at + WAY - later, end);
        for (step, line) in [EHLO, MAIL, RCPT, DATA].into_iter().enumerate() {
            self.say(at + 100 * (step as i64 + 1) + later, end, line, more + 1);
        }
        self.message(at + 500 + later, end, 131, QUEUED, more + 20);
        self.say(at + 600 + later, end, QUIT, more + 1);
        self.close(at + 700, end);
    }

    /// The antivirus: takes the message itself, and sends it on, from an address of its own, when it has it.
    pub(crate) fn antivirus(&mut self, from: Socket, to: Socket) {
        self.greet(0, to);
        self.greet(WAY, from);
        for (step, line) in [EHLO, MAIL, RCPT].into_iter().enumerate() {
            self.pass(100 * (step as i64 + 1), from, to, line);
        }
        self.say(400, from, Line("DATA", 354, "Please start mail input."), 1);
        for time in [800, 1200] {
            self.say(time, to, NOOP, 1);
        }
        self.message(2000, from, 131, "Mail queued for delivery.", 1);
        self.say(2010, from, Line("QUIT", 221, "Closing connection."), 1);
        self.close(2012, from);
        for (step, line) in [RSET, MAIL, RCPT, DATA].into_iter().enumerate() {
            self.say(2020 + 10 * step as i64, to, line, 1);
        }
        self.message(2070, to, 131, QUEUED, 1);
        self.say(2080, to, QUIT, 1);
        self.close(2090, to);
    }

    pub(crate) fn report(&self) -> Report<'_> {
        compare(&self.client, &self.server)
    }
}
