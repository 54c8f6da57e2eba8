//! What of an SMTP dialogue may cross from the kernel to user space: a step function over bytes as calls moved them.
//!
//! Commands and replies cross. Credentials, the content of messages, unknown lines and ciphertext do not: of these cross
//! lengths. The filter closes by default: where it is not certain what bytes are, they stay, and only lines in the full
//! form of a command cross, until a reply agrees with one.
//!
//! The same source is compiled into the eBPF programs and for the host. So it is written as the verifier needs it: state
//! and working memory stand in map values, variables that a loop changes go through memory, loops are calls of
//! [`repeat`](work::repeat), and every index is cut to the size of what it indexes.

mod classes;
mod client;
mod command;
mod command_line;
mod content;
mod line;
mod mechanisms;
mod opening;
mod quick;
mod reply;
mod scan;
mod server;
mod state;
mod tls;
mod told;
mod verb;
mod work;

pub use mechanisms::NAMES as MECHANISMS;
pub use quick::pass as pass_quickly;
pub use state::{Dialogue, Speaker};
pub use work::{HOLD, OUT_LENGTH, Work};

/// A call, or a part of one, whose bytes are in [`Work`].
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Whose bytes they are, by who connected: roles may have been exchanged since (RFC 821, TURN).
    pub speaker: Speaker,
    /// When it was made, in nanoseconds.
    pub time: u64,
    /// The sequence number of its first byte, where [`Self::positions`].
    pub start: u32,
    /// Bytes that it moved, at most [`WINDOW_LENGTH`](crate::event::WINDOW_LENGTH).
    pub length: u32,
    /// Positions tell of all bytes of the stream. Not so under kTLS and MPTCP.
    pub positions: bool,
    /// The other peer has sent bytes that the filter has not been told of: a reply may answer them.
    pub behind: bool,
}

/// What crosses of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// All of its bytes, as they are: one segment of text.
    Whole,
    /// So many bytes of segments, in [`Work::out`].
    Segments(u32),
}

/// Takes a call's bytes, which stand in the working memory from [`HOLD`] on, and tells what of them crosses.
///
/// # Safety
/// Both are valid, and in the kernel map values. Nobody else uses the working memory meanwhile. Another processor may work
/// on the other speaker's part of the dialogue.
#[inline(always)]
pub unsafe fn step(dialogue: *mut Dialogue, work: *mut Work, call: Call) -> Crossing {
    // SAFETY: the caller's promise.
    unsafe {
        told::begin(work, call.length);
        Dialogue::keep_position(work, &call);
        if let Some(hole) = Dialogue::hole(dialogue, &call) {
            match Dialogue::role(dialogue, call.speaker) {
                Speaker::Client => {
                    // The replies so far tell whether it was content.
                    reply::catch_up(dialogue, work);
                    client::lose(dialogue, work, hole);
                }
                Speaker::Server => server::lose(dialogue, work),
            }
        }
        if Dialogue::role(dialogue, call.speaker) == Speaker::Client {
            opening::greeting(dialogue, work);
        }
        if Dialogue::role(dialogue, call.speaker) == Speaker::Server {
            server::step(dialogue, work, call.time, call.behind);
        }
        // Roles may have been exchanged.
        if Dialogue::role(dialogue, call.speaker) == Speaker::Client {
            client::step(dialogue, work, call.time);
        }
        // Whoever finds the position may rely on what was said before it.
        Dialogue::tell_position(dialogue, work);
        told::end(work)
    }
}

/// Takes notice of bytes of a call that could not be read, or were not looked at.
///
/// # Safety
/// As of [`step`].
#[inline(always)]
pub unsafe fn miss(dialogue: *mut Dialogue, work: *mut Work, call: Call, cause: crate::event::CaptureMiss) -> Crossing {
    // SAFETY: the caller's promise.
    unsafe {
        told::begin(work, 0);
        Dialogue::keep_position(work, &call);
        let speaker = Dialogue::role(dialogue, call.speaker);
        let hole = Dialogue::hole(dialogue, &call).unwrap_or(0);
        let length = u64::from(call.length);
        match speaker {
            Speaker::Client => client::miss(dialogue, work, hole, length, cause),
            Speaker::Server => server::miss(dialogue, work, length, cause),
        }
        Dialogue::tell_position(dialogue, work);
        told::end(work)
    }
}

/// The same on the host, for the bytes of a call.
///
/// # Panics
/// Where there are more of them than fit into a window.
#[cfg(not(target_arch = "bpf"))]
pub fn pass<'a>(dialogue: &mut Dialogue, work: &'a mut Work, call: Call, bytes: &[u8]) -> &'a [u8] {
    work.load(bytes);
    let call = Call { length: bytes.len() as u32, ..call };
    // SAFETY: both are references of their own.
    let crossing =
        unsafe { if pass_quickly(dialogue, work, &call) { Crossing::Whole } else { step(dialogue, work, call) } };
    work.segments(crossing, bytes.len())
}

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests;
