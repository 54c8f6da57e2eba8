//! What the server's replies mean for what the client says next.

use super::state::{Dialogue, Line, Mode, reached};
use super::work::{HOLD, Work, get, set};
use super::{command, content, told, verb};

/// Takes notice of what the server has said.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_catch_up"))]
pub unsafe extern "C" fn catch_up(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let is_doubtful = get!(dialogue.server.doubts) != get!(dialogue.client.doubts);
        if is_doubtful || get!(dialogue.server.losses) != get!(dialogue.client.losses) {
            set!(dialogue.client.doubts, get!(dialogue.server.doubts));
            set!(dialogue.client.losses, get!(dialogue.server.losses));
            let mode = get!(dialogue.client.mode);
            if mode == Mode::COMMANDS || mode == Mode::ANSWERS {
                set!(dialogue.client.mode, Mode::UNCERTAIN);
            }
            command::doubt(dialogue);
            set!(dialogue.client.counted, 0);
            if is_doubtful {
                set!(dialogue.client.wary, 1);
            } else {
                // What is due may have been among what is lost.
                set!(dialogue.client.due, get!(dialogue.server.replies));
            }
        }
        if get!(dialogue.server.challenges) != get!(dialogue.client.challenges) {
            set!(dialogue.client.challenges, get!(dialogue.server.challenges));
            let mode = get!(dialogue.client.mode);
            if mode == Mode::COMMANDS || mode == Mode::UNCERTAIN {
                set!(dialogue.client.mode, Mode::ANSWERS);
                set!(dialogue.client.replies, get!(dialogue.server.replies));
            }
        }
        if get!(dialogue.server.go_aheads) != get!(dialogue.client.go_aheads) {
            set!(dialogue.client.go_aheads, get!(dialogue.server.go_aheads));
            go_ahead(dialogue, work);
        }
        let (answered, data_reply) = (get!(dialogue.server.answered), get!(dialogue.client.data_reply));
        if get!(dialogue.client.data_done) != 0 && reached(answered, data_reply) {
            // DATA was refused: what came behind it was no content.
            set!(dialogue.client.data_done, 0);
            command::doubt(dialogue);
            set!(dialogue.client.wary, 1);
        }
        read(dialogue, work);
    }
    0
}

/// What the last reply means.
#[inline(always)]
unsafe fn read(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let (answered, asked) = (get!(dialogue.server.answered), get!(dialogue.client.asked));
        let (replies, noted) = (get!(dialogue.server.replies), get!(dialogue.client.replies));
        let code = get!(dialogue.server.code);
        // Where replies were lost, any is the one to what was said last.
        let is_answered = reached(answered, asked) || get!(dialogue.client.sure) == 0 && replies != noted;
        match get!(dialogue.client.mode) {
            Mode::CONTENT if reached(replies, noted.wrapping_add(1)) => {
                let ended = get!(dialogue.client.ended) != 0;
                if ended {
                    command::asks(dialogue);
                }
                leave(dialogue, work, if ended { Mode::COMMANDS } else { Mode::UNCERTAIN });
            }
            Mode::ASKED
                if reached(answered, get!(dialogue.client.data_reply)) && is_all_answered(dialogue, replies) =>
            {
                leave(dialogue, work, Mode::UNCERTAIN);
            }
            Mode::CHUNK if reached(replies, noted) => {
                if get!(dialogue.client.said) != 0 && code >= 400 && replies == noted {
                    // A refused chunk still has its octets (RFC 3030, 2).
                    set!(dialogue.client.refused, 1);
                } else {
                    leave(dialogue, work, Mode::UNCERTAIN);
                }
            }
            Mode::ANSWERS if code != 334 && is_answered => {
                let waits = get!(dialogue.client.held) != 0 && get!(dialogue.client.line) == Line::START;
                let is_certain = !waits && (get!(dialogue.client.sure) != 0 || code == 235);
                if waits {
                    // What waits may be an answer, or a chunk that was said with AUTH: it begins no command. Or it is one,
                    // and content may follow it.
                    command::asks_hidden(dialogue);
                    command::doubt(dialogue);
                    set!(dialogue.client.crossed, 0);
                    set!(dialogue.client.cr, 0);
                    set!(dialogue.client.line, Line::WITHHELD);
                }
                set!(dialogue.client.mode, if is_certain { Mode::COMMANDS } else { Mode::UNCERTAIN });
                set!(dialogue.client.candidate, 0);
                if get!(dialogue.client.counted) == 0 {
                    set!(dialogue.client.due, replies);
                }
                if is_certain {
                    settle(dialogue);
                }
            }
            // Not one that was said before.
            Mode::ANSWERS if code == 235 && replies != noted => {
                // It ends the authentication, whichever reply before it never came.
                command::doubt(dialogue);
                set!(dialogue.client.counted, 0);
                set!(dialogue.client.due, replies);
                set!(dialogue.client.mode, Mode::UNCERTAIN);
            }
            Mode::UNCERTAIN if agrees(dialogue) => {
                set!(dialogue.client.mode, Mode::COMMANDS);
                settle(dialogue);
            }
            Mode::FOREIGN if replies != noted => {
                // A proxy has made the connection, and the server greets.
                set!(dialogue.client.mode, if code == 220 { Mode::COMMANDS } else { Mode::UNCERTAIN });
            }
            _ => {}
        }
    }
}

/// Whether a reply refuses a command for what it is, or where it stands, whichever command that is.
#[inline(always)]
pub fn may_refuse(code: u32) -> bool {
    matches!(code, 500..=509 | 530..=539)
}

/// The last reply agrees with the last thing that the client said, where it was not certain what it says.
#[inline(always)]
pub unsafe fn agrees(dialogue: *mut Dialogue) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        verb::agrees(get!(dialogue.client.candidate), get!(dialogue.server.code))
            && get!(dialogue.server.replies) != get!(dialogue.client.replies)
            && get!(dialogue.client.line) == Line::START
            && get!(dialogue.client.held) == 0
            && get!(dialogue.client.data_done) == 0
            && is_all_answered(dialogue, get!(dialogue.server.replies))
    }
}

/// With so many replies nothing is due that may be taken for the reply to something else.
#[inline(always)]
pub unsafe fn is_all_answered(dialogue: *mut Dialogue, replies: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe { get!(dialogue.client.sure) != 0 || reached(replies, get!(dialogue.client.due)) }
}

/// It is certain again what the client says: all of it has been answered.
#[inline(always)]
unsafe fn settle(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        if get!(dialogue.client.sure) == 0 {
            set!(dialogue.client.sure, 1);
            set!(dialogue.client.asked, get!(dialogue.server.answered));
            set!(dialogue.client.hide_until, get!(dialogue.server.answered));
            // Numbers of replies that are still to come mean others now.
            set!(dialogue.client.turn_reply, 0);
            set!(dialogue.client.block_reply, 0);
            set!(dialogue.client.unasked_from, 0);
            set!(dialogue.client.unasked_to, 0);
            set!(dialogue.client.recipients_from, 0);
            set!(dialogue.client.recipients_to, 0);
        }
    }
}

/// A 354 was said: what the client says next is content, whoever asked for it.
#[inline(always)]
unsafe fn go_ahead(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let mode = get!(dialogue.client.mode);
        let (reply, data_reply) = (get!(dialogue.server.go_ahead_reply), get!(dialogue.client.data_reply));
        let replies = get!(dialogue.server.go_ahead_replies);
        if matches!(mode, Mode::CIPHERTEXT | Mode::HANDSHAKE | Mode::PREAMBLE | Mode::FOREIGN) {
            return;
        }
        if get!(dialogue.client.data_done) != 0 && reply == data_reply {
            // All of this message came before its go-ahead.
            set!(dialogue.client.data_done, 0);
            return;
        }
        if mode == Mode::ASKED && !reached(reply, data_reply) {
            // It was for the message before, all of which was said.
            return;
        }
        let waits = get!(dialogue.client.held) != 0 || get!(dialogue.client.line) != Line::START;
        let is_last = get!(dialogue.client.asked) == reply && !waits;
        if mode == Mode::COMMANDS && is_last && reply != 0 && reply == get!(dialogue.client.block_reply) {
            // So many octets, and then one more reply.
            set!(dialogue.client.block_reply, 0);
            command::asks(dialogue);
            set!(dialogue.client.remaining, get!(dialogue.client.block));
            set!(dialogue.client.replies, replies.wrapping_add(1));
            set!(dialogue.client.said, 0);
            set!(dialogue.client.refused, 0);
            set!(dialogue.client.mode, Mode::CHUNK);
            return;
        }
        set!(dialogue.client.replies, replies);
        // All that was said before has been answered.
        set!(dialogue.client.due, replies);
        if mode == Mode::CONTENT {
            return;
        }
        if mode != Mode::ASKED {
            // What waits is content.
            told::content(work, u64::from(get!(dialogue.client.held)));
            if waits {
                content::interrupt(dialogue);
            } else {
                content::begin(dialogue);
            }
            set!(dialogue.client.disputed, 0);
            set!(dialogue.client.ended, 0);
        }
        set!(dialogue.client.line, Line::START);
        set!(dialogue.client.mode, Mode::CONTENT);
    }
}

/// What was content is over.
#[inline(always)]
unsafe fn leave(dialogue: *mut Dialogue, work: *mut Work, mode: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_at_start = if get!(dialogue.client.mode) == Mode::CHUNK {
            get!(dialogue.client.said) == 0
        } else {
            (&raw const (*dialogue).client.hold[HOLD - 1]).read_volatile() == b'\n'
        };
        told::content(work, u64::from(get!(dialogue.client.held)));
        set!(dialogue.client.held, 0);
        // A long line with DATA may not have ended yet.
        let is_in_line = get!(dialogue.client.line) != Line::START;
        if !is_in_line {
            set!(dialogue.client.line, if is_at_start { Line::START } else { Line::UNKNOWN });
        }
        set!(dialogue.client.remaining, 0);
        set!(dialogue.client.behind_message, 0);
        set!(dialogue.client.candidate, 0);
        set!(dialogue.client.mode, mode);
    }
}
