//! The recording that an agent makes.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::Observe;
use crate::observer::Tap;
use crate::recorder::Recorder;
use crate::recording::{self, Header};
use crate::redact::Key;
use crate::sink::output::{Output, Target};

/// The name under which losses are counted.
pub(super) const FACE: &str = "record";

/// A file for a recording that was just made. It goes again if nothing comes of it.
pub(super) struct New {
    target: Target,
    path: PathBuf,
}

impl New {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { target: Target::create(path)?, path: path.to_owned() })
    }

    /// Nothing will be written.
    pub(super) fn remove(&self) {
        // That it stays is no more than a nuisance.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A recording under way.
pub(super) struct Record {
    pub(super) output: Output,
    recorder: Recorder,
    /// Lines that were known to be lost, and what came before the last of them was noticed.
    lost: u64,
    before: Option<u64>,
}

impl Record {
    /// Begins to write what an observer like this is told.
    pub(super) fn start(new: New, observe: &Observe) -> io::Result<Self> {
        // What is lost is known by the numbers of its lines.
        let mut output = Output::start(new.target, |_, _| {})?;
        let Observe { ports, addresses, service_addresses, .. } = observe;
        output.line(|out| Header::new(ports.as_slice(), *addresses, service_addresses).write(out));
        Ok(Self { output, recorder: Recorder::new(*addresses, key()), lost: 0, before: None })
    }

    /// What is to be shown all that an observer is told.
    pub(super) fn tap(&mut self) -> &mut dyn Tap {
        &mut self.recorder
    }

    /// Writes what is known by now.
    pub(super) fn write(&mut self) {
        let Self { output, recorder, .. } = self;
        for (number, entry) in recorder.drain() {
            output.line(|out| recording::write(number, &entry, out));
        }
        let lost = output.dropped();
        if lost > std::mem::replace(&mut self.lost, lost) {
            self.before = Some(recorder.next());
        }
        // Not before all that is withheld of it has come.
        if let Some(before) = self.before.take_if(|before| recorder.complete_up_to() >= *before) {
            output.line(|out| recording::write_loss(before, out));
        }
    }
}

/// A key that nobody knows.
fn key() -> Key {
    // The standard library takes its keys from the kernel's random numbers.
    let half = |part: u8| u128::from(RandomState::new().hash_one(part));
    Key(half(0) << 64 | half(1))
}
