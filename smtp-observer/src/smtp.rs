//! The SMTP dialogue, seen from beside it: bytes and gaps in, [`Item`]s out. No sockets, no clock.
//!
//! [`Session`] follows both directions of one connection. `line` splits them, `command` and `reply` read the lines,
//! `pending_replies` pairs them in the order they were sent (RFC 5321, 4.2: one reply a command), and `session::unsettled` keeps
//! both readings where a reply is late or never comes. `body` finds the end of a
//! message among its `dots`, and `undecided_input` keeps what cannot be read before the server has said how. `preamble` and `tls`
//! tell what is no SMTP. `decoder_output` has the room for all that.
//!
//! Whatever the peers send ends as an item. Memory is bounded by a constant a connection: [`LONGEST_LINE`],
//! [`LONGEST_REPLY`], [`MAX_WAITING`], [`MAX_WAITING_BYTES`] and [`MAX_HELD`] are its parts. Of all connections together the
//! observer bounds it: [`Session::held_bytes`], [`Session::give_up`].

mod anomalies;
mod body;
mod command;
mod decoder_output;
#[cfg(test)]
mod dialogues;
mod dots;
mod escape;
mod extensions;
mod introduced;
mod item;
mod line;
mod mailbox_names;
mod masked;
mod parameter;
mod path;
mod pending_replies;
mod preamble;
#[cfg(test)]
mod properties;
mod reply;
mod session;
mod starts;
mod tls;
#[cfg(test)]
pub(crate) mod transcript;
mod undecided_input;
mod words;

pub use anomalies::MAX_OF_A_KIND;
pub(crate) use command::is_foreign;
pub use command::{Command, Verb};
pub use decoder_output::DecoderOutput;
pub(crate) use escape::cut;
pub use escape::{escape, write_escaped};
pub use item::{Anomaly, Exchange, GoAhead, Item, Lost, Message, Transfer};
pub use line::LONGEST_LINE;
pub use mailbox_names::Repeated;
pub(crate) use mailbox_names::{Names, parts_words};
pub use masked::is_greeting as is_masked_greeting;
pub(crate) use parameter::{attribute, domain_length, is_domain, names_host, plain_bytes};
pub(crate) use path::{Path, mailbox_length};
pub use pending_replies::{MAX_WAITING, MAX_WAITING_BYTES};
pub(crate) use reply::is_cut;
pub use reply::{EnhancedCode, LONGEST_REPLY, Reply};
pub use session::Session;
pub use tls::{Plaintext, Tls, TlsFailure, TlsSession};
pub use undecided_input::MAX_HELD;
pub(crate) use words::occurrences;

/// Who of the dialogue sent the bytes: a matter of SMTP, whichever socket it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It gives commands.
    Client,
    /// It answers them.
    Server,
}

impl Peer {
    /// The name used in texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}
