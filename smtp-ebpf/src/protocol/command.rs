//! What a command means for what follows it: replies that are due, content, a chunk, an authentication.

use super::state::{Dialogue, Mode, reached};
use super::work::{Work, get, set};
use super::{content, verb};

/// A line earns a reply. If one is still due that may repeat what was withheld, this one may be that: replies have no numbers.
#[inline(always)]
pub unsafe fn asks(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        expect(dialogue, 1);
        let asked = get!(dialogue.client.asked);
        if get!(dialogue.client.wary) != 0 && !reached(get!(dialogue.server.answered), get!(dialogue.client.hide_until))
        {
            set!(dialogue.client.hide_until, asked);
        }
    }
}

/// A line earns a reply that may repeat what was withheld of it. That is known before the reply is asked for.
#[inline(always)]
pub unsafe fn asks_hidden(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        hide_until(dialogue, get!(dialogue.client.asked).wrapping_add(1));
        expect(dialogue, 1);
    }
}

/// So many more replies are asked for.
#[inline(always)]
pub unsafe fn expect(dialogue: *mut Dialogue, replies: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        if get!(dialogue.client.sure) == 0 {
            are_due(dialogue, replies);
        }
        set!(dialogue.client.asked, get!(dialogue.client.asked).wrapping_add(replies));
    }
}

/// So many more replies are due, where it is not certain what asks for them.
#[inline(always)]
pub unsafe fn are_due(dialogue: *mut Dialogue, more: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let (due, replies) = (get!(dialogue.client.due), get!(dialogue.server.replies));
        set!(dialogue.client.due, if reached(replies, due) { replies } else { due }.wrapping_add(more));
    }
}

/// It is no more certain what the client says. If it was, it is known how many replies are due.
#[inline(always)]
pub unsafe fn doubt(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        if get!(dialogue.client.sure) != 0 {
            let (asked, answered) = (get!(dialogue.client.asked), get!(dialogue.server.answered));
            let open = if reached(answered, asked) { 0 } else { asked.wrapping_sub(answered) };
            set!(dialogue.client.due, get!(dialogue.server.replies).wrapping_add(open));
            set!(dialogue.client.counted, 1);
        }
        set!(dialogue.client.sure, 0);
        set!(dialogue.client.candidate, 0);
        set!(dialogue.client.behind_message, 0);
    }
}

/// Content is said that no go-ahead has asked for: if the server refuses the command behind which it stands, it may read
/// it as commands, and repeat it.
#[inline(always)]
pub unsafe fn unasked(dialogue: *mut Dialogue, reply: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let to = get!(dialogue.client.unasked_to);
        if reply != to && reply != to.wrapping_add(1) {
            set!(dialogue.client.unasked_from, reply);
        }
        set!(dialogue.client.unasked_to, reply);
    }
}

/// The reply to the last line may repeat what was withheld. Should that reply have been given already, the next may.
#[inline(always)]
pub unsafe fn hide(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe { hide_until(dialogue, get!(dialogue.client.asked)) }
}

#[inline(always)]
unsafe fn hide_until(dialogue: *mut Dialogue, reply: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let answered = get!(dialogue.server.answered);
        set!(dialogue.client.hide_until, if reached(answered, reply) { answered.wrapping_add(1) } else { reply });
        set!(dialogue.client.wary, 1);
    }
}

/// What a command means for what follows it.
#[inline(always)]
pub unsafe fn follow(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let verb = get!(work.verb);
        let asked = get!(dialogue.client.asked);
        match verb::kind(verb) {
            verb::HELLO => set!(dialogue.client.lmtp, u32::from(verb & verb::LMTP != 0)),
            kind @ (verb::MAIL | verb::RCPT | verb::DATA) => follow_mail(dialogue, kind),
            verb::BDAT => chunk(dialogue, work),
            verb::BLOCK => {
                let has_size = get!(work.full) != 0 && get!(work.number) != 0;
                set!(dialogue.client.block_reply, if has_size { asked } else { 0 });
                set!(dialogue.client.block, get!(work.number));
            }
            verb::AUTH => {
                set!(dialogue.client.mode, Mode::ANSWERS);
                set!(dialogue.client.replies, get!(dialogue.server.replies));
                hide(dialogue);
            }
            verb::TURN => set!(dialogue.client.turn_reply, asked),
            _ => {}
        }
    }
}

/// The same of the commands of a mail.
#[inline(always)]
pub unsafe fn follow_mail(dialogue: *mut Dialogue, kind: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let asked = get!(dialogue.client.asked);
        match kind {
            verb::MAIL => {
                set!(dialogue.client.recipients_from, asked.wrapping_add(1));
                set!(dialogue.client.recipients_to, asked);
                set!(dialogue.client.recipients, get!(dialogue.server.recipients));
            }
            verb::RCPT => set!(dialogue.client.recipients_to, asked),
            verb::DATA => {
                let waits = !reached(get!(dialogue.server.answered), get!(dialogue.client.data_reply));
                let again = get!(dialogue.client.data_done) != 0 && waits;
                set!(dialogue.client.data_again, u32::from(again));
                set!(dialogue.client.mode, Mode::ASKED);
                set!(dialogue.client.data_reply, asked);
                set!(dialogue.client.data_done, 0);
                set!(dialogue.client.disputed, 0);
                set!(dialogue.client.ended, 0);
                content::begin(dialogue);
            }
            _ => {}
        }
    }
}

/// A chunk follows, if its size can be read.
#[inline(always)]
unsafe fn chunk(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let (asked, answered) = (get!(dialogue.client.asked), get!(dialogue.server.answered));
        let before = if reached(answered, asked) { 1 } else { asked.wrapping_sub(answered) };
        set!(dialogue.client.replies, get!(dialogue.server.replies).wrapping_add(before));
        set!(dialogue.client.said, 0);
        set!(dialogue.client.refused, 0);
        if get!(work.full) == 0 {
            set!(dialogue.client.mode, Mode::UNCERTAIN);
            doubt(dialogue);
            set!(dialogue.client.wary, 1);
            return;
        }
        if get!(work.last) != 0 && get!(dialogue.client.lmtp) != 0 {
            // For each recipient, where all of them have been answered.
            let accepted = get!(dialogue.server.recipients).wrapping_sub(get!(dialogue.client.recipients));
            if before == 1 && accepted > 1 {
                expect(dialogue, accepted - 1);
            } else if before != 1 {
                doubt(dialogue);
                set!(dialogue.client.wary, 1);
            }
        }
        set!(dialogue.client.remaining, get!(work.number));
        set!(dialogue.client.mode, Mode::CHUNK);
        if get!(work.number) == 0 {
            end_of_chunk(dialogue);
        }
    }
}

/// A chunk is complete, if its size was right: another command, or the next chunk, follows.
#[inline(always)]
pub unsafe fn end_of_chunk(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_answered = get!(dialogue.client.refused) != 0;
        set!(dialogue.client.mode, Mode::UNCERTAIN);
        set!(dialogue.client.behind_message, 1);
        set!(dialogue.client.candidate, if is_answered { 0 } else { verb::CHUNK as u32 });
        set!(dialogue.client.replies, get!(dialogue.server.replies));
    }
}
