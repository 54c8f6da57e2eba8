//! Verbs that may cross, by a closed table.

use super::work::{Work, byte, word};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        $($(#[$doc])* pub const $name: u64 = $number;)*
    };
}

kinds! {
    /// Not in the table.
    UNKNOWN = 0,
    /// MAIL, and RFC 821's SEND, SOML and SAML: `FROM:` and a path follow.
    MAIL = 1,
    /// RCPT: `TO:` and a path follow.
    RCPT = 2,
    /// EHLO, HELO, LHLO: a domain follows.
    HELLO = 3,
    /// DATA.
    DATA = 4,
    /// BDAT: a number follows, and perhaps LAST.
    BDAT = 5,
    /// RSET.
    RSET = 6,
    /// QUIT.
    QUIT = 7,
    /// NOOP: what follows does not cross.
    NOOP = 8,
    /// STARTTLS, X-ANONYMOUSTLS.
    START_TLS = 9,
    /// AUTH, X-EXPS: a mechanism follows, and what does not cross.
    AUTH = 10,
    /// ETRN: a domain follows.
    DOMAIN = 11,
    /// XCLIENT, XFORWARD: attributes follow.
    ATTRIBUTES = 12,
    /// TURN, ATRN: roles are exchanged. What follows does not cross.
    TURN = 13,
    /// XEXCH50: numbers follow.
    BLOCK = 14,
    /// BURL: an address follows that may hold a credential, and perhaps LAST, which alone crosses.
    BURL = 20,
    /// Of the others what follows does not cross.
    OTHER = 15,
    /// The first word of another protocol.
    FOREIGN = 16,
    /// An empty line, which is answered as well.
    EMPTY = 17,
    /// Content has ended.
    END = 18,
    /// A chunk has ended.
    CHUNK = 19,
}

/// A kind with the length of its verb.
#[inline(always)]
const fn of(kind: u64, length: u64) -> u64 {
    kind | length << 8
}

/// The kind.
#[inline(always)]
pub fn kind(verb: u64) -> u64 {
    verb & 0xff
}

/// The length of the verb.
#[inline(always)]
pub fn length(verb: u64) -> u64 {
    verb >> 8 & 0xff
}

/// The verb is glued to something. It is none, but a server may overlook that, and read what follows as behind the verb.
pub const GLUED: u64 = 1 << 16;

/// The greeting of LMTP (RFC 2033).
pub const LMTP: u64 = 1 << 17;

const fn four(text: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*text)
}

const CASE: u32 = 0x20_20_20_20;

/// The length of the verbs that [`quick`] knows.
pub const SHORT: u64 = 4;

/// The kind of the verb that these bytes are, if it is one of those that nearly all calls begin with.
#[inline(always)]
pub fn quick(start: u32) -> u64 {
    const LETTERS: u32 = 0x40_40_40_40;
    const NO_LETTERS: u32 = 0xc0_c0_c0_c0;
    let is = |text: &[u8; 4]| start | CASE == four(text);
    if start & NO_LETTERS != LETTERS {
        UNKNOWN
    } else if is(b"mail") {
        MAIL
    } else if is(b"rcpt") {
        RCPT
    } else if is(b"data") {
        DATA
    } else if is(b"rset") {
        RSET
    } else if is(b"noop") {
        NOOP
    } else if is(b"quit") {
        QUIT
    } else {
        UNKNOWN
    }
}

/// The verb of the line from one place on and before another, which is not a line's end.
#[inline(always)]
pub unsafe fn of_line(work: *mut Work, from: u64, to: u64, first: bool) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let start = word(work, from);
        let (low, high) = (start as u32, (start >> 32) as u32);
        let rest = high | CASE;
        const LETTERS: u32 = 0x40_40_40_40;
        const NO_LETTERS: u32 = 0xc0_c0_c0_c0;
        let is = |text: &[u8; 4]| low | CASE == four(text);
        let goes_on = |text: &[u8; 4], mask: u32| rest & mask == four(text);
        const ONE: u32 = 0xff;
        const TWO: u32 = 0xff_ff;
        const THREE: u32 = 0xff_ff_ff;
        let verb = if low & NO_LETTERS == LETTERS {
            if is(b"mail") || is(b"send") || is(b"soml") || is(b"saml") {
                of(MAIL, 4)
            } else if is(b"rcpt") {
                of(RCPT, 4)
            } else if is(b"ehlo") || is(b"helo") {
                of(HELLO, 4)
            } else if is(b"lhlo") {
                of(HELLO, 4) | LMTP
            } else if is(b"data") {
                of(DATA, 4)
            } else if is(b"bdat") {
                of(BDAT, 4)
            } else if is(b"rset") {
                of(RSET, 4)
            } else if is(b"quit") {
                of(QUIT, 4)
            } else if is(b"noop") {
                of(NOOP, 4)
            } else if is(b"auth") {
                of(AUTH, 4)
            } else if is(b"etrn") {
                of(DOMAIN, 4)
            } else if is(b"turn") || is(b"atrn") {
                of(TURN, 4)
            } else if is(b"vrfy") || is(b"expn") || is(b"help") {
                of(OTHER, 4)
            } else if is(b"xxxx") {
                // A firewall has written over a verb that it does not know.
                of(OTHER, if rest == four(b"xxxx") { 8 } else { 4 })
            } else if is(b"burl") {
                of(BURL, 4)
            } else if is(b"star") && rest == four(b"ttls") {
                of(START_TLS, 8)
            } else if is(b"xfor") && rest == four(b"ward") {
                of(ATTRIBUTES, 8)
            } else if is(b"xcli") && goes_on(b"ent\0", THREE) {
                of(ATTRIBUTES, 7)
            } else if is(b"xexc") && goes_on(b"h50\0", THREE) {
                of(BLOCK, 7)
            } else if first && (is(b"post") || is(b"head")) {
                of(FOREIGN, 4)
            } else if first && is(b"prox") && goes_on(b"y\0\0\0", ONE) {
                of(FOREIGN, 5)
            } else if first && (is(b"opti") && goes_on(b"ons\0", THREE) || is(b"conn") && goes_on(b"ect\0", THREE)) {
                of(FOREIGN, 7)
            } else {
                UNKNOWN
            }
        } else if is(b"x-ex") && goes_on(b"ps\0\0", TWO) {
            of(AUTH, 6)
        } else if is(b"x-an") && is_anonymous_tls(work, from, rest) {
            of(START_TLS, 14)
        } else if first && (is(b"get ") || is(b"put ") || is(b"pri ")) {
            of(FOREIGN, 3)
        } else if first && is(b"ssh-") {
            // No blank follows the word.
            return of(FOREIGN, 4);
        } else {
            UNKNOWN
        };
        let end = from + length(verb);
        if verb == UNKNOWN || end > to {
            return UNKNOWN;
        }
        let behind = byte(work, end);
        if end == to || matches!(behind, b' ' | b'\t' | b'\r') {
            return verb;
        }
        let matters = matches!(kind(verb), DATA | BDAT | AUTH | BLOCK);
        if matters && !behind.is_ascii_alphanumeric() { verb | GLUED } else { UNKNOWN }
    }
}

#[inline(always)]
unsafe fn is_anonymous_tls(work: *mut Work, from: u64, rest: u32) -> bool {
    const END: u64 = u64::from_le_bytes(*b"oustls\0\0");
    const CASES: u64 = 0x20_20_20_20_20_20;
    // SAFETY: the caller's promise.
    let end = unsafe { word(work, from + 8) };
    rest == four(b"onym") && (end & 0xff_ff_ff_ff_ff_ff | CASES) == END
}

/// Whether a reply's code agrees with the last thing that the client said.
#[inline(always)]
pub fn agrees(kind: u32, code: u32) -> bool {
    match u64::from(kind) {
        MAIL | RCPT | HELLO | RSET | NOOP | CHUNK => matches!(code, 250..=252),
        QUIT => code == 221,
        START_TLS => code == 220,
        // A refusal of a command is none of a message.
        END => matches!(code, 200..=299 | 400..=499 | 550..=559),
        _ => false,
    }
}
