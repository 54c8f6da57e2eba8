//! Which program is at work. On one processor a program may be interrupted by another, but never by itself: what it works
//! with is its own.

use smtp_ebpf::event::Kind;

/// A program that makes records; its number is the place of what it works with.
#[derive(Clone, Copy)]
pub enum Program {
    /// It tells of sends, by IPv4 or by a system call.
    Send = 0,
    /// Of receives, likewise.
    Receive = 1,
    /// Of sends by IPv6.
    Send6 = 2,
    /// Of receives by IPv6.
    Receive6 = 3,
    /// Of pages that are sent.
    SendPages = 4,
    /// Of what is received into a pipe.
    Splice = 5,
    /// Of changes of state.
    State = 6,
    /// Of changes of state that interrupt the telling of another.
    StateInside = 7,
    /// Of plaintext that a TLS library moves.
    Tls = 8,
    /// Of plaintext, where another such call was interrupted.
    TlsInside = 9,
}

impl Program {
    /// How many there are.
    pub const COUNT: u32 = 10;

    /// What its records are.
    #[inline(always)]
    pub fn kind(self) -> Kind {
        match self {
            // Of a library's calls each says which it is.
            Self::Tls | Self::TlsInside | Self::Send | Self::Send6 | Self::SendPages => Kind::Send,
            Self::Receive | Self::Receive6 | Self::Splice => Kind::Receive,
            Self::State | Self::StateInside => Kind::State,
        }
    }
}
