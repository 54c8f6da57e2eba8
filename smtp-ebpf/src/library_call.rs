//! Functions of TLS libraries that are probed: what a probe is told of the function that it stands on.

/// Most sessions whose plaintext is followed at a time.
pub const MAX_SESSIONS: u32 = 16_384;

/// The first bytes of a record of TLS, by which it is known again: its head, and what differs from record to record. A shorter
/// one is not known again.
pub const RECORD_HEAD: usize = 24;

/// Calls of a processor that are counted until the time is looked at, where no watched socket carries their sessions.
pub const UNWATCHED_COUNTED: u64 = 256;

/// Most such calls a second, of a processor, that are worth their probes: where a call's probes take 3 µs, these take less than
/// a hundredth of the processor's time.
pub const MAX_UNWATCHED: u64 = 2_000;

/// What whoever attaches probes is told of a process: it uses a watched socket, and may have loaded a library of TLS; or it
/// calls a library, on sessions that no watched socket carries, more often than [`MAX_UNWATCHED`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The process.
    pub pid: u64,
    /// When it was seen, on the kernel's boot clock, that it speaks TLS on that socket, and that no library's call is around
    /// that; zero: it was not seen.
    pub speaks_tls: u64,
    /// Not zero: it calls a library too often.
    pub is_unwatched: u64,
}

impl Notice {
    /// A record of the ring buffer; none where it is too short.
    pub fn read(record: &[u8]) -> Option<Self> {
        let (numbers, _) = record.as_chunks();
        let [pid, speaks_tls, is_unwatched] = *numbers.first_chunk()?;
        let [pid, speaks_tls, is_unwatched] = [pid, speaks_tls, is_unwatched].map(u64::from_ne_bytes);
        Some(Self { pid, speaks_tls, is_unwatched })
    }
}

/// A library that encrypts what a process says.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// OpenSSL, and what has its functions.
    OpenSsl = 1,
    /// GnuTLS.
    GnuTls = 2,
}

impl Library {
    /// The library with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::OpenSsl, Self::GnuTls].into_iter().find(|library| *library as u32 == number)
    }
}

/// A function that is called with a session, a buffer and its length, as a probe's cookie (`bpf_get_attach_cookie`, Linux
/// 5.15) tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibraryCall {
    /// [`Self::HANDSHAKE`], [`Self::SEND`], [`Self::RECEIVE`] or [`Self::FLUSH`].
    pub direction: u32,
    /// Which argument, counted from 1, points to where the function leaves the number of bytes that it moved; zero: it
    /// returns that number.
    pub count_at: u32,
    /// A [`Library`].
    pub library: u32,
}

impl LibraryCall {
    /// It moves no bytes of the process.
    pub const HANDSHAKE: u32 = 0;
    /// It encrypts what is in the buffer.
    pub const SEND: u32 = 1;
    /// It decrypts into the buffer.
    pub const RECEIVE: u32 = 2;
    /// It sends what earlier calls have left with the library (`gnutls_record_cork`), by calls of the one that sends: these
    /// move nothing that was not told of.
    pub const FLUSH: u32 = 3;

    /// The cookie that tells of it.
    pub const fn to_cookie(self) -> u64 {
        self.direction as u64 | (self.count_at as u64) << 8 | (self.library as u64) << 16
    }

    /// What a cookie tells of.
    #[inline(always)]
    pub const fn from_cookie(cookie: u64) -> Self {
        Self {
            direction: (cookie & 0xff) as u32,
            count_at: (cookie >> 8 & 0xff) as u32,
            library: (cookie >> 16 & 0xff) as u32,
        }
    }
}
