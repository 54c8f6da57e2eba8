//! What is known of a dialogue between two calls.

use super::Call;
use super::work::{HOLD, Work, get, set};

/// Who speaks.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Who connected; who sends commands.
    Client = 0,
    /// Who accepted; who replies.
    Server = 1,
}

/// A dialogue. All zero, it is one that was under way when it was first seen.
///
/// Each part has one writer: calls of the client write [`Client`], calls of the server [`Server`], so that two processors
/// may work on both. What one tells the other are counters.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Dialogue {
    pub(super) client: Client,
    pub(super) server: Server,
    /// By who connected and who accepted: the sequence number behind the last byte that was taken, and whether it is known.
    next: [u32; 2],
    known: [u32; 2],
    /// Not zero: who connected serves (RFC 821, TURN).
    pub(super) reversed: u32,
    padding: u32,
}

/// What the client's next bytes are: [`Client::mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode;

impl Mode {
    /// It is not certain.
    pub(super) const UNCERTAIN: u32 = 0;
    /// Command lines.
    pub(super) const COMMANDS: u32 = 1;
    /// Answers of an authentication, up to its last reply.
    pub(super) const ANSWERS: u32 = 2;
    /// DATA was said and not answered.
    pub(super) const ASKED: u32 = 3;
    /// Content behind a 354.
    pub(super) const CONTENT: u32 = 4;
    /// Octets of a chunk.
    pub(super) const CHUNK: u32 = 5;
    /// Ciphertext.
    pub(super) const CIPHERTEXT: u32 = 6;
    /// Octets of a header before the session, which do not cross.
    pub(super) const PREAMBLE: u32 = 7;
    /// TLS whose handshake is not over.
    pub(super) const HANDSHAKE: u32 = 8;
    /// Another protocol's, up to the server's greeting.
    pub(super) const FOREIGN: u32 = 9;
}

/// Where in a line a peer is: `line` of [`Client`] and [`Server`].
pub(super) struct Line;

impl Line {
    /// At its start, or what there is of it waits.
    pub(super) const START: u32 = 0;
    /// Inside of one that crosses.
    pub(super) const CROSSES: u32 = 1;
    /// Inside of one that does not.
    pub(super) const WITHHELD: u32 = 2;
    /// Inside of one of which it is not known what it is.
    pub(super) const UNKNOWN: u32 = 3;
    /// At the end of one that crosses, behind a CR.
    pub(super) const ENDS: u32 = 4;
}

/// How far a direction's handshake is: [`Record::progress`].
pub(super) struct Progress;

impl Progress {
    /// No message of it has begun.
    pub(super) const NOTHING: u32 = 0;
    /// The hello has.
    pub(super) const HELLO: u32 = 1;
    /// ChangeCipherSpec was said.
    pub(super) const CHANGE_CIPHER_SPEC: u32 = 2;
    /// And a message behind it.
    pub(super) const BEHIND: u32 = 3;
}

/// The record that is being read, while a direction shakes hands.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct Record {
    /// Bytes of its head that were read, and one more inside of its body.
    pub(super) stage: u32,
    /// Its type.
    pub(super) kind: u32,
    /// Bytes of it that are to come, and how many of them cross, at most.
    pub(super) remaining: u32,
    pub(super) crossing: u32,
    /// How many records have begun; zero: it does not shake hands.
    pub(super) count: u32,
    /// A [`Progress`].
    pub(super) progress: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct Client {
    /// A [`Mode`].
    pub(super) mode: u32,
    /// A [`Line`].
    pub(super) line: u32,
    /// Bytes of the line that have crossed, where it was cut.
    pub(super) crossed: u32,
    /// How it goes on: a [`Form`](super::line::Form), and a state of [`words`](super::scan::words).
    pub(super) form: u32,
    pub(super) state: u32,
    /// What was withheld of it ends with CR.
    pub(super) cr: u32,
    /// Bytes that wait, at the end of `hold`. Of content, what may begin its end.
    pub(super) held: u32,
    /// Replies that the client's lines earn, the greeting included.
    pub(super) asked: u32,
    /// When the first of the bytes that wait came.
    pub(super) since: u64,
    /// Octets of the chunk, or of the header, that are to come.
    pub(super) remaining: u64,
    /// Up to this reply the text may repeat what was withheld.
    pub(super) hide_until: u32,
    /// Something was withheld on this connection.
    pub(super) wary: u32,
    /// Not zero: all that the client said was taken, or has been answered since, so replies answer what is known.
    pub(super) sure: u32,
    /// The reply that DATA earns.
    pub(super) data_reply: u32,
    /// The end of data came before the reply to DATA.
    pub(super) data_done: u32,
    /// The same, and another DATA since.
    pub(super) data_again: u32,
    /// The content so far ends with the end of data, or with a form that some servers take for it.
    pub(super) ended: u32,
    /// A disputed form of this content was told.
    pub(super) disputed: u32,
    /// The last thing said, where it is not certain what the client says: a reply may agree with it.
    pub(super) candidate: u32,
    /// How many replies the server had given then; of content: with the go-ahead; of a chunk: with its reply.
    pub(super) replies: u32,
    /// It is not certain only because a message has just ended: chunks may follow each other.
    pub(super) behind_message: u32,
    /// Octets of the chunk were said; replies that the server had given when it refused them.
    pub(super) said: u32,
    pub(super) refused: u32,
    /// The chunk is the message's last.
    pub(super) is_last: u32,
    /// The replies, from one to another, whose commands have brought content that no go-ahead asked for.
    pub(super) unasked_from: u32,
    pub(super) unasked_to: u32,
    /// The reply that XEXCH50 earns, or zero: so many octets follow it if it is a go-ahead.
    pub(super) block_reply: u32,
    /// LHLO was said (RFC 2033): each recipient earns a reply at the end of data.
    pub(super) lmtp: u32,
    pub(super) block: u64,
    /// The replies, from one to another, that recipients earn, and how many the server had accepted at MAIL.
    pub(super) recipients_from: u32,
    pub(super) recipients_to: u32,
    pub(super) recipients: u32,
    /// No line was said before.
    pub(super) first: u32,
    /// What of the server's counters was taken notice of.
    pub(super) go_aheads: u32,
    pub(super) challenges: u32,
    pub(super) losses: u32,
    pub(super) doubts: u32,
    /// The reply that TURN or ATRN earns, or zero.
    pub(super) turn_reply: u32,
    /// Where it is not [`sure`](Self::sure): how many replies the server has given when all that was said is answered; and
    /// not zero: that is known, because nothing was missed.
    pub(super) due: u32,
    pub(super) counted: u32,
    pub(super) record: Record,
    pub(super) hold: [u8; HOLD],
}

#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct Server {
    /// Of the replies that were asked for, those that are complete.
    pub(super) answered: u32,
    /// All replies that are complete.
    pub(super) replies: u32,
    /// The code of the last.
    pub(super) code: u32,
    /// Replies with 354; which reply the last of them was, and how many there were with it.
    pub(super) go_aheads: u32,
    pub(super) go_ahead_reply: u32,
    pub(super) go_ahead_replies: u32,
    /// Of the reply that is being read, notice was given that it is one.
    pub(super) is_go_ahead: u32,
    /// Replies with 334.
    pub(super) challenges: u32,
    /// Bytes of the server went unseen, so often.
    pub(super) losses: u32,
    /// So often it showed that it does not read what the client says as that was taken.
    pub(super) doubts: u32,
    /// Octets of a SOCKS proxy's answer that are to come, and how many answers there were.
    pub(super) octets: u32,
    pub(super) socks: u32,
    /// Recipients that it has accepted.
    pub(super) recipients: u32,
    /// A [`Line`].
    pub(super) line: u32,
    pub(super) crossed: u32,
    /// What was withheld of it ends with CR.
    pub(super) cr: u32,
    /// The code of the line that is being read, and whether it is the reply's last.
    pub(super) line_code: u32,
    pub(super) line_is_last: u32,
    pub(super) held: u32,
    /// Not zero: the direction is ciphertext.
    pub(super) ciphertext: u32,
    /// A line was said.
    pub(super) spoken: u32,
    pub(super) record: Record,
    pub(super) since: u64,
    pub(super) hold: [u8; HOLD],
}

impl Dialogue {
    /// A dialogue that was under way when it was first seen.
    // SAFETY: all of it is numbers.
    pub const UNDER_WAY: Self = unsafe { core::mem::zeroed() };

    /// A dialogue that begins: the server greets.
    pub const fn beginning() -> Self {
        let mut dialogue = Self::UNDER_WAY;
        dialogue.client.mode = Mode::COMMANDS;
        dialogue.client.asked = 1;
        dialogue.client.sure = 1;
        dialogue.client.first = 1;
        dialogue
    }

    /// Makes a dialogue that was just created, all zero, one that begins.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub unsafe fn begin(this: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            set!(this.client.mode, Mode::COMMANDS);
            set!(this.client.asked, 1);
            set!(this.client.sure, 1);
            set!(this.client.first, 1);
        }
    }

    /// Makes any dialogue one that begins: a socket may be used again.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub unsafe fn begin_again(this: *mut Self) {
        let words = this.cast::<u64>();
        let mut at = 0;
        while at < size_of::<Self>() / size_of::<u64>() {
            // SAFETY: the caller's promise.
            unsafe { words.add(at).write_volatile(0) };
            at += 1;
        }
        // SAFETY: the caller's promise.
        unsafe { Self::begin(this) };
    }

    /// The same as [`Self::begin`] for one of which nothing was told yet.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub unsafe fn begin_new(this: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            if get!(this.client.asked) == 0 && get!(this.known[0]) == 0 && get!(this.known[1]) == 0 {
                Self::begin(this);
            }
        }
    }

    /// The client sends nothing but ciphertext, or octets of a chunk that is longer than this: its bytes need not be copied.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub unsafe fn skips(this: *mut Self, speaker: Speaker, length: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            match Self::role(this, speaker) {
                Speaker::Client => {
                    let mode = get!(this.client.mode);
                    mode == Mode::CIPHERTEXT || mode == Mode::CHUNK && get!(this.client.remaining) >= u64::from(length)
                }
                Speaker::Server => get!(this.server.ciphertext) != 0,
            }
        }
    }

    /// What this speaker sends is ciphertext.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub unsafe fn is_ciphertext(this: *mut Self, speaker: Speaker) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            match Self::role(this, speaker) {
                Speaker::Client => get!(this.client.mode) == Mode::CIPHERTEXT,
                Speaker::Server => get!(this.server.ciphertext) != 0,
            }
        }
    }

    /// One of the peers speaks TLS.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub unsafe fn has_tls(this: *mut Self) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            matches!(get!(this.client.mode), Mode::CIPHERTEXT | Mode::HANDSHAKE) || get!(this.server.ciphertext) != 0
        }
    }

    /// Makes a dialogue that was just created, all zero, one that begins inside of the TLS of another. Behind STARTTLS the
    /// client speaks first (RFC 3207, 4.2).
    ///
    /// # Safety
    /// Both are valid.
    #[inline(always)]
    pub unsafe fn begin_inside(this: *mut Self, outside: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            Self::begin(this);
            if get!(outside.server.spoken) != 0 {
                set!(this.client.asked, 0);
            }
        }
    }

    /// What this speaker sends is content of DATA: the end of a long call is of interest, not its middle.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub unsafe fn is_in_content(this: *mut Self, speaker: Speaker) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let mode = get!(this.client.mode);
            matches!(Self::role(this, speaker), Speaker::Client) && (mode == Mode::CONTENT || mode == Mode::ASKED)
        }
    }

    /// The role of who speaks.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub(super) unsafe fn role(this: *mut Self, speaker: Speaker) -> Speaker {
        // SAFETY: the caller's promise.
        match (unsafe { get!(this.reversed) } != 0, speaker) {
            (false, Speaker::Client) | (true, Speaker::Server) => Speaker::Client,
            _ => Speaker::Server,
        }
    }

    /// How many bytes wait that this speaker has said, by who connected.
    #[cfg(not(target_arch = "bpf"))]
    pub fn waits(&self, speaker: Speaker) -> u32 {
        match (self.reversed != 0, speaker) {
            (false, Speaker::Client) | (true, Speaker::Server) => self.client.held,
            _ => self.server.held,
        }
    }

    /// Whether a speaker, by who connected, has sent bytes up to `position` of which the filter has not been told.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub unsafe fn is_behind(this: *mut Self, speaker: Speaker, position: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            match speaker {
                Speaker::Client => get!(this.known[0]) != 0 && get!(this.next[0]) != position,
                Speaker::Server => get!(this.known[1]) != 0 && get!(this.next[1]) != position,
            }
        }
    }

    /// A call begins where the one before has ended.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub(super) unsafe fn is_next(this: *mut Self, call: &Call) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            match call.speaker {
                Speaker::Client => get!(this.known[0]) != 0 && get!(this.next[0]) == call.start,
                Speaker::Server => get!(this.known[1]) != 0 && get!(this.next[1]) == call.start,
            }
        }
    }

    /// Goes on to the end of a call.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub unsafe fn go_on(this: *mut Self, call: &Call) {
        // SAFETY: the caller's promise.
        unsafe {
            let (next, known) = Self::position(this, call);
            if call.positions {
                next.write_volatile(call.start.wrapping_add(call.length));
            }
            known.write_volatile(u32::from(call.positions));
        }
    }

    /// Keeps where a call ends, for [`Self::tell_position`]: the stack has no room for it.
    ///
    /// # Safety
    /// `work` is valid.
    #[inline(always)]
    pub(super) unsafe fn keep_position(work: *mut Work, call: &Call) {
        // SAFETY: the caller's promise.
        unsafe {
            set!(work.speaker, call.speaker as u64);
            set!(work.next, u64::from(call.start.wrapping_add(call.length)));
            set!(work.known, u64::from(call.positions));
        }
    }

    /// Goes on to the end of the call that was kept.
    ///
    /// # Safety
    /// Both are valid.
    #[inline(always)]
    pub(super) unsafe fn tell_position(this: *mut Self, work: *mut Work) {
        // SAFETY: the caller's promise.
        unsafe {
            let (next, known) = (get!(work.next) as u32, get!(work.known) as u32);
            if get!(work.speaker) == Speaker::Client as u64 {
                set!(this.next[0], next);
                set!(this.known[0], known);
            } else {
                set!(this.next[1], next);
                set!(this.known[1], known);
            }
        }
    }

    /// How many bytes before a call went unseen, if any: zero where that is not known.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub(super) unsafe fn hole(this: *mut Self, call: &Call) -> Option<u64> {
        // SAFETY: the caller's promise.
        unsafe {
            let (next, known) = Self::position(this, call);
            let since = known.read_volatile();
            if !call.positions || since == 0 {
                return None;
            }
            let hole = call.start.wrapping_sub(next.read_volatile()) as i32;
            match hole {
                0 => None,
                // TCP Fast Open (RFC 7413): the connection was there before the call that brought its first bytes returned.
                ..0 if since == FROM_START => None,
                // Bytes of two calls came in another order.
                ..0 => Some(0),
                _ => Some(hole as u64),
            }
        }
    }

    /// The position of who speaks in a call, and whether it is known.
    #[inline(always)]
    unsafe fn position(this: *mut Self, call: &Call) -> (*mut u32, *mut u32) {
        // SAFETY: the caller's promise.
        unsafe {
            match call.speaker {
                Speaker::Client => (&raw mut (*this).next[0], &raw mut (*this).known[0]),
                Speaker::Server => (&raw mut (*this).next[1], &raw mut (*this).known[1]),
            }
        }
    }

    /// The positions from which on all bytes are told of.
    ///
    /// # Safety
    /// `this` is valid.
    #[inline(always)]
    pub unsafe fn start_at(this: *mut Self, client: u32, server: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            // TCP Fast Open (RFC 7413) has brought bytes before.
            if get!(this.known[0]) == 0 {
                set!(this.next[0], client);
                set!(this.known[0], FROM_START);
            }
            if get!(this.known[1]) == 0 {
                set!(this.next[1], server);
                set!(this.known[1], FROM_START);
            }
        }
    }
}

/// A position is known since the connection is there, and no call has moved bytes since.
const FROM_START: u32 = 2;

/// Whether a counter has reached a number; both wrap.
#[inline(always)]
pub(super) fn reached(counter: u32, number: u32) -> bool {
    counter.wrapping_sub(number) as i32 >= 0
}
