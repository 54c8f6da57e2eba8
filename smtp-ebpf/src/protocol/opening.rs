//! What stands before a session: headers of proxies, and who connected greets.

use super::state::{Dialogue, Line, Mode};
use super::told;
use super::work::{HOLD, Work, byte, copy_words, get, load, set, word};

/// Nothing of that kind.
pub const NONE: u64 = 0;
/// The header was taken, and more may follow.
pub const TAKEN: u64 = 1;
/// It waits for more of it.
pub const WAITS: u64 = 2;

/// The headers that some proxies have before a session. Their first bytes name them; no more of them crosses.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "opening_preamble"))]
pub unsafe extern "C" fn preamble(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    const PROXY: u64 = u64::from_le_bytes(*b"PROXY \0\0");
    const SIGNATURE: u64 = u64::from_le_bytes(*b"\r\n\r\n\0\r\nQ");
    const SIGNATURE_END: u64 = u64::from_le_bytes(*b"UIT\n\0\0\0\0");
    const HEAD: u64 = 16;
    // SAFETY: the caller's promise.
    unsafe {
        // A server that greets at once waits for no header: then it is a line like another.
        if get!(dialogue.server.spoken) != 0 {
            return NONE;
        }
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let (start, there) = (word(work, cursor), end - cursor);
        let begins = |text: u64, length: u64| {
            let there = if there < length { there } else { length };
            let mask = if there < 8 { (1 << (8 * there)) - 1 } else { u64::MAX };
            (start ^ text) & mask == 0
        };
        if begins(PROXY, 6) {
            if there < 6 {
                return WAITS;
            }
            // One line (version 1), which earns no reply.
            told::text(work, cursor, cursor + 6);
            set!(work.cursor, cursor + 6);
            set!(dialogue.client.line, Line::WITHHELD);
            set!(dialogue.client.cr, 0);
            set!(dialogue.client.first, 0);
            return TAKEN;
        }
        if begins(SIGNATURE, 8) {
            if there < HEAD {
                return WAITS;
            }
            if word(work, cursor + 8) & 0xffff_ffff == SIGNATURE_END {
                let length = u64::from(byte(work, cursor + 14)) << 8 | u64::from(byte(work, cursor + 15));
                told::text(work, cursor, cursor + HEAD);
                set!(work.cursor, cursor + HEAD);
                if length != 0 {
                    set!(dialogue.client.remaining, length);
                    set!(dialogue.client.mode, Mode::PREAMBLE);
                }
                set!(dialogue.client.first, 0);
                return TAKEN;
            }
        }
        let is_socks_5 = start as u8 == 5;
        let is_socks_4 = start as u8 == 4;
        if is_socks_4 && there == 1 {
            return WAITS;
        }
        if is_socks_5 || is_socks_4 && (start >> 8) as u8 == 1 {
            let named = cursor + if is_socks_4 { 2 } else { 1 };
            told::text(work, cursor, named);
            set!(work.cursor, named);
            set!(dialogue.client.mode, Mode::FOREIGN);
            set!(dialogue.client.replies, get!(dialogue.server.replies));
            set!(dialogue.client.first, 0);
            return TAKEN;
        }
        NONE
    }
}

/// How many octets of a SOCKS proxy's answer (RFC 1928, 3 and 6) begin at the cursor; `u64::MAX`: too few are there to tell.
#[inline(always)]
pub unsafe fn socks_answer(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let (start, there) = (word(work, cursor), end - cursor);
        match start as u8 {
            // Version 4.
            0 => 8,
            // A user's name was taken, or not (RFC 1929).
            1 => 2,
            // A method was chosen.
            5 if get!(dialogue.server.socks) == 0 => 2,
            5 if there < 5 => u64::MAX,
            5 => match (start >> 24) as u8 {
                3 => 7 + (start >> 32 & 0xff),
                4 => 22,
                _ => 10,
            },
            _ => 0,
        }
    }
}

/// Who connected says a greeting before the other has said anything: roles are exchanged from the start. What of it waited
/// waits as the server's.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "opening_greeting"))]
pub unsafe extern "C" fn greeting(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    const LENGTH: u64 = 4;
    const CODE: u64 = u64::from_le_bytes(*b"220\0\0\0\0\0");
    // SAFETY: the caller's promise.
    unsafe {
        let held = u64::from(get!(dialogue.client.held));
        let nobody_spoke = get!(dialogue.server.spoken) == 0 && get!(dialogue.server.held) == 0;
        let is_first = get!(dialogue.client.first) != 0 && get!(dialogue.client.mode) == Mode::COMMANDS;
        if !is_first || !nobody_spoke || held >= LENGTH {
            return 0;
        }
        let there = held + get!(work.end) - get!(work.cursor);
        let kept = (&raw const (*dialogue).client.hold).cast::<u8>().add(HOLD - size_of::<u64>());
        let kept = load(kept);
        let said = word(work, get!(work.cursor));
        let start = match held {
            0 => said,
            1 => kept >> 56 | said << 8,
            2 => kept >> 48 | said << 16,
            _ => kept >> 40 | said << 24,
        };
        let is_greeting = start & 0xff_ffff == CODE && matches!((start >> 24) as u8, b' ' | b'-');
        if there < LENGTH || !is_greeting {
            return 0;
        }
        set!(dialogue.reversed, u32::from(get!(dialogue.reversed) == 0));
        hand_over_held(dialogue);
        0
    }
}

/// What of a line has waited as the client's waits as the server's: it is the server now.
#[inline(always)]
unsafe fn hand_over_held(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        set!(dialogue.server.held, get!(dialogue.client.held));
        set!(dialogue.server.since, get!(dialogue.client.since));
        set!(dialogue.client.held, 0);
        let held = (&raw const (*dialogue).client.hold).cast::<u64>();
        copy_words((&raw mut (*dialogue).server.hold).cast(), held);
    }
}

/// TURN or ATRN was accepted: roles are exchanged, if the client waited for that. What is left of the call is the new
/// client's.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "opening_turn"))]
pub unsafe extern "C" fn turn(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let is_last = get!(dialogue.client.asked) == get!(dialogue.client.turn_reply)
            && get!(dialogue.client.losses) == get!(dialogue.server.losses)
            && get!(dialogue.client.doubts) == get!(dialogue.server.doubts)
            && get!(dialogue.client.go_aheads) == get!(dialogue.server.go_aheads)
            && get!(dialogue.client.challenges) == get!(dialogue.server.challenges);
        if !is_last || get!(dialogue.client.mode) != Mode::COMMANDS || get!(dialogue.client.line) != Line::START {
            // It is not known who reads what was said since.
            set!(dialogue.server.doubts, get!(dialogue.server.doubts).wrapping_add(1));
            return 0;
        }
        set!(dialogue.reversed, u32::from(get!(dialogue.reversed) == 0));
        set!(work.turned, 1);
        hand_over_held(dialogue);
        set!(dialogue.client.turn_reply, 0);
        let answered = get!(dialogue.server.answered);
        set!(dialogue.client.hide_until, answered);
        // The new server greets.
        set!(dialogue.client.asked, answered.wrapping_add(1));
        0
    }
}
