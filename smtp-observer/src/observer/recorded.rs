//! An observer that has taken down what it is told.

use super::{Conversation, Observer, timestamp};
use crate::event::{Time, TransferEvent};
use crate::judge::{Addresses, Key};
use crate::observation::Observation;
use crate::recorder::{Entry, Recorder, Reel};
use crate::smtp::Session;

impl Observer {
    /// An observer whose recorder takes down what it is told.
    pub fn recorded(ports: &[u16], addresses: Addresses, key: Key) -> Self {
        Self { recorder: Some(Recorder::new(addresses, key)), ..Self::new(ports, addresses) }
    }

    /// What this observer was told.
    pub fn recorder(&mut self) -> Option<&mut Recorder> {
        self.recorder.as_mut()
    }

    /// Passes on what has waited long enough by now.
    pub fn settle(&mut self, now: Time, sink: &mut dyn FnMut(Observation)) {
        if self.is_settling()
            && let Some(recorder) = &mut self.recorder
        {
            recorder.keep(Entry::Settled(now));
        }
        self.relate(|observer, sink| observer.settle_until(now, sink), sink);
        self.interceptions.settle(timestamp(&self.host, now), sink);
    }

    /// Gives the recorder the transfers of open connections that it still waits for, as if these ended. No more is to be
    /// told to this observer.
    pub fn finish_recording(&mut self) {
        let (mut items, mut events) = (Vec::new(), Vec::new());
        for conversation in self.conversations.values_mut() {
            let time = conversation.connection.last_seen;
            conversation.session.finish(time, &mut items);
            items.drain(..).for_each(|item| conversation.judge.item(None, item, &mut events));
            events.clear();
            conversation.take_down(self.recorder.as_mut(), Reel::finish);
        }
    }
}

impl Conversation {
    /// Lets the recorder have what is known of the bytes by now.
    pub(super) fn take_down(
        &mut self,
        recorder: Option<&mut Recorder>,
        give: impl FnOnce(&mut Reel, &Session, &mut dyn FnMut(u64, TransferEvent)),
    ) {
        let (Some(recorder), Some(reel)) = (recorder, &mut self.reel) else { return };
        self.judge.kept().into_iter().for_each(|kept| reel.keep(kept));
        give(reel, &self.session, &mut |number, event| recorder.release(number, event));
    }
}
