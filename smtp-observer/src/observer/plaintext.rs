//! A connection goes on inside of TLS.

use super::Out;
use super::tracker::{Conversation, Tracker};
use crate::event::{TlsLibrary, TransferEvent};

impl Tracker {
    /// Has the session go on inside of TLS, where a transfer brings the first of its plaintext.
    pub(super) fn begin_plaintext(
        &mut self,
        conversation: &mut Conversation,
        event: &TransferEvent,
        out: &mut Out<'_>,
    ) {
        if !event.tls.plaintext {
            return;
        }
        while !conversation.connection.has_plaintext()
            && let Some(held) = conversation.connection.drain_held()
        {
            self.follow(conversation, &held, out);
        }
        if conversation.connection.begins_plaintext(event) {
            // What was said in clear is over.
            conversation.show_end(out);
            // The kernel names the library of all plaintext.
            let library = event.tls.library.unwrap_or(TlsLibrary::OpenSsl);
            conversation.session.begin_plaintext(event.time, library, event.tls.from_start, &mut self.items);
            self.analyse(conversation, out);
        }
    }
}
