//! An observer that has taken down what it is told.

use super::tracker::{Conversation, timestamp};
use super::{Observer, Out};
use crate::event::{Time, TransferEvent};
use crate::fact::Fact;
use crate::recorder::{Entry, PendingTransfers, Recorder};
use crate::redact::{Addresses, Key, RedactionPolicy};
use crate::smtp::{DecoderOutput, Session};

impl Observer {
    /// An observer whose recorder takes down what it is told.
    pub fn recorded(ports: &[u16], addresses: Addresses, key: Key) -> Self {
        Self::with(ports, RedactionPolicy::new(addresses), Some(Recorder::new(addresses, key)))
    }

    /// What this observer was told.
    pub fn recorder(&mut self) -> Option<&mut Recorder> {
        self.tracker.recorder.as_mut()
    }

    /// Passes on what has waited long enough by now.
    pub fn settle(&mut self, now: Time, sink: &mut dyn FnMut(&Fact<'_>)) {
        let has_deadlines = self.has_deadlines();
        let Self { tracker, interceptions, clock_set, .. } = self;
        let sink = &mut |fact: &Fact<'_>| sink(&fact.by_clock(*clock_set));
        if has_deadlines && let Some(recorder) = &mut tracker.recorder {
            recorder.keep(Entry::Settled(now));
        }
        tracker.pass_deadlines(now, &mut Out { interceptions, sink });
        interceptions.settle(timestamp(&tracker.host, now), sink);
    }

    /// Gives the recorder the transfers of open connections that it still waits for, as if these ended. No more is to be
    /// told to this observer.
    pub fn finish_recording(&mut self) {
        let mut items = DecoderOutput::default();
        for conversation in self.tracker.conversations.values_mut() {
            let time = conversation.connection.last_seen;
            conversation.session.finish(time, &mut items);
            if let Some(reel) = &mut conversation.reel {
                items.iter().for_each(|item| reel.item(item));
            }
            items.clear();
            conversation.take_down(self.tracker.recorder.as_mut(), PendingTransfers::finish);
        }
    }
}

impl Conversation {
    /// Lets the recorder have what is known of the bytes by now.
    pub(super) fn take_down(
        &mut self,
        recorder: Option<&mut Recorder>,
        give: impl FnOnce(&mut PendingTransfers, &Session, &mut dyn FnMut(u64, TransferEvent<'static>)),
    ) {
        let (Some(recorder), Some(reel)) = (recorder, &mut self.reel) else { return };
        give(reel, &self.session, &mut |number, event| recorder.release(number, event));
    }
}
