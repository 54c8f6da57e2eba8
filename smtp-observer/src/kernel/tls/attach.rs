//! The programs that are put on functions, in the way that the kernel offers.

use std::error::Error;
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};
use aya::programs::{ProbeKind, ProgramError, ProgramInfo, UProbe};
use tracing::warn;

use super::library::{Place, Role};
use super::mapped::MappedFile;
use super::multi;
use crate::kernel::{os_error, with_causes};

/// Probes that stand until this is dropped.
pub type Link = Box<dyn Send + Sync>;

/// The programs, each for one kind of functions.
pub struct Programs {
    /// When a function is called that is told of.
    pub calls: Probe,
    /// When it returns.
    pub returns: Probe,
    /// When one is called that ends a session.
    pub ends: Probe,
    /// When one is called that hands over a record.
    pub records: Probe,
}

impl Programs {
    /// Puts them on a file's functions, in one process or in all.
    pub fn attach(&mut self, file: &MappedFile, places: &[Place], process: Option<NonZeroU32>) -> Vec<Link> {
        let of = |wanted: fn(&Role) -> bool| places.iter().filter(|place| wanted(&place.role)).collect::<Vec<_>>();
        let calls = of(|role| matches!(role, Role::Call(_)));
        let ends = of(|role| matches!(role, Role::End));
        let records = of(|role| matches!(role, Role::Record));
        // The returns first: a call that is noted is then noted to end.
        let programs = [
            (&mut self.returns, &calls),
            (&mut self.calls, &calls),
            (&mut self.ends, &ends),
            (&mut self.records, &records),
        ];
        let wanted = programs.into_iter().filter(|(_, places)| !places.is_empty());
        wanted.flat_map(|(program, places)| program.attach(file, places, process)).collect()
    }
}

/// A program, and how it is put on functions.
pub enum Probe {
    /// Each time by a link of its own.
    Single(Box<UProbe>),
    /// Once for all places of a file: when functions are called, or when they return.
    Multi(OwnedFd, ProbeKind),
}

impl Probe {
    /// A program that is loaded already, for a link each time.
    pub fn single(program: ProgramInfo, name: &'static str, kind: ProbeKind) -> Result<Self, ProgramError> {
        // SAFETY: the kind is the one that the program of this name was written for.
        unsafe { UProbe::from_program_info(program, name.into(), kind) }.map(|program| Self::Single(program.into()))
    }

    /// Puts it on places of a file, in their order: in one process, or in all. One that the kernel refuses is left out.
    fn attach(&mut self, file: &MappedFile, places: &[&Place], process: Option<NonZeroU32>) -> Vec<Link> {
        if let Self::Multi(..) = self
            && let Ok(link) = self.link(file, places, process)
        {
            return vec![link];
        }
        let mut links = Vec::new();
        for place in places {
            match self.link(file, &[place], process) {
                Ok(link) => links.push(link),
                // It has ended meanwhile.
                Err(error) if os_error(&*error) == Some(libc::ESRCH) => break,
                Err(error) => {
                    let (function, file) = (place.function, file.name.display());
                    warn!("{function} of {file} cannot be probed: {}", with_causes(&*error));
                }
            }
        }
        links
    }

    fn link(
        &mut self,
        file: &MappedFile,
        places: &[&Place],
        process: Option<NonZeroU32>,
    ) -> Result<Link, Box<dyn Error>> {
        match self {
            Self::Multi(program, kind) => {
                let places: Vec<_> = places.iter().map(|place| (place.offset, place.cookie())).collect();
                let returns = matches!(kind, ProbeKind::Return);
                Ok(Box::new(multi::attach(program.as_fd(), returns, &file.path, &places, process)?))
            }
            Self::Single(program) => {
                let scope = process.map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess);
                let points = places.iter().map(|place| UProbeAttachPoint {
                    location: UProbeAttachLocation::AbsoluteOffset(place.offset),
                    cookie: Some(place.cookie()),
                });
                let links = points.map(|point| {
                    let link = program.attach(point, &file.path, scope)?;
                    program.take_link(link)
                });
                Ok(Box::new(links.collect::<Result<Vec<_>, _>>()?))
            }
        }
    }
}
