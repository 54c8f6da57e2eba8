//! Labels and series, each of a bounded number: what comes after counts under `other`.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use indexmap::IndexMap;
use lru::LruCache;
use prometheus::core::{MetricVec, MetricVecBuilder};
use prometheus::{Histogram, IntCounter};

use crate::observation::{Caller, Outcome, Process, Role, Timestamp};
use crate::redact::{Addresses, RedactionPolicy};
use crate::sink::escape::steers;
use crate::smtp::Verb;

/// Programs that have a label of their own, [kept places](Standing) among them.
pub const MAX_PROGRAMS: usize = 200;

/// How long a program of any user has to be there until it has a kept place.
pub(super) const LASTING: Duration = Duration::from_secs(10 * 60);

/// Programs without a label of which it is known how long they are there.
const MAX_WAITING: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Processes whose programs are found without their names.
const RECENT: usize = 16;

/// Most bytes of a program's name in a label.
const PROGRAM_LENGTH: usize = 32;

/// The label of what is past a bound.
const OTHER: &str = "other";

/// The label of a process that is not known yet.
pub(super) const UNKNOWN: &str = "unknown";

/// Which places a program may take. Any user can run any number of programs by any name: places are kept for those that
/// say more of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Any program.
    #[default]
    Passing,
    /// One that is there for long.
    Lasting,
    /// One of root or of another user of the system's own.
    System,
}

impl Standing {
    /// That of a user's program, by its user alone: below 1000 are the system's own (login.defs(5), `SYS_UID_MAX`), and in
    /// this block those that systemd makes for its services (`DynamicUser=`).
    fn of(uid: u32) -> Self {
        if uid < 1000 || (61_184..=65_519).contains(&uid) { Self::System } else { Self::Passing }
    }

    /// The standing that a program of this one has come to, which is there since then.
    fn with_age(self, since: Timestamp, now: Timestamp) -> Self {
        match self {
            Self::Passing if now >= since.after(LASTING) => Self::Lasting,
            standing => standing,
        }
    }

    /// How many there may be for one more of this standing to be admitted, of `most` altogether: a sixth is kept for what
    /// lasts, and another for what is the system's.
    pub(super) fn room(self, most: usize) -> usize {
        most - most / 6 * (Self::System as usize - self as usize)
    }
}

/// Whom a fact is about, as labels.
pub(super) struct Subject {
    pub(super) program: Arc<str>,
    pub(super) role: Role,
    pub(super) standing: Standing,
}

/// A metric with the labels `process` and `role` and `N` more, of a bounded number of series.
#[derive(Debug)]
pub(super) struct Family<V, M, const N: usize> {
    vec: V,
    /// The series in use, found without putting their labels together again.
    series: HashMap<(Arc<str>, Role, [&'static str; N]), M>,
    most: usize,
}

impl<B: MetricVecBuilder, const N: usize> Family<MetricVec<B>, B::M, N>
where
    B::M: Clone,
{
    pub(super) fn new(vec: MetricVec<B>, most: usize) -> Self {
        Self { vec, series: HashMap::default(), most }
    }

    /// The series with these labels, or the one of `other` programs where there are too many. Each of `more` is one of
    /// a fixed set, so `other` is bounded too.
    pub(super) fn at(&mut self, subject: &Subject, more: [&'static str; N]) -> B::M {
        let key = (Arc::clone(&subject.program), subject.role, more);
        if let Some(series) = self.series.get(&key) {
            return series.clone();
        }
        let admitted = &*subject.program != OTHER && self.series.len() < subject.standing.room(self.most);
        let mut labels = vec![if admitted { &*subject.program } else { OTHER }, subject.role.as_str()];
        labels.extend(more);
        let series = self.vec.with_label_values(&labels);
        if admitted {
            self.series.insert(key, series.clone());
        }
        series
    }

    /// Begins series at zero, so that a rate has something to start from, as far as a third of the room is left.
    pub(super) fn begin(&mut self, subject: &Subject, more: impl ExactSizeIterator<Item = [&'static str; N]>) {
        if self.series.len() + more.len() <= subject.standing.room(self.most) - self.most / 3 {
            more.for_each(|more| drop(self.at(subject, more)));
        }
    }

    /// Ends the series of these programs.
    pub(super) fn forget(&mut self, gone: &HashSet<Arc<str>>) {
        let vec = &self.vec;
        self.series.retain(|(program, role, more), _| {
            let stays = !gone.contains(program);
            if !stays {
                let mut labels = vec![&**program, role.as_str()];
                labels.extend(more);
                // It is there: it was made.
                let _ = vec.remove_label_values(&labels);
            }
            stays
        });
    }
}

/// A metric with `N` labels, of a bounded number of series: the first that come. What is past the bound is `other` in all.
#[derive(Debug)]
pub(super) struct Labels<V, const N: usize> {
    vec: V,
    /// By their text in a row: the library takes sets for the same that do not differ in it.
    known: HashMap<String, [String; N]>,
    most: usize,
}

impl<B: MetricVecBuilder, const N: usize> Labels<MetricVec<B>, N> {
    pub(super) fn new(vec: MetricVec<B>, most: usize) -> Self {
        Self { vec, known: HashMap::default(), most }
    }

    pub(super) fn at(&mut self, labels: [String; N]) -> B::M {
        let text = labels.concat();
        let is_admitted = match self.known.get(&text) {
            Some(known) => *known == labels,
            None => self.known.len() < self.most,
        };
        if !is_admitted {
            return self.vec.with_label_values(&[OTHER; N]);
        }
        let series = self.vec.with_label_values(&labels);
        self.known.insert(text, labels);
        series
    }

    /// Ends the series whose first labels, so many, name a program that is gone.
    pub(super) fn forget(&mut self, gone: &HashSet<Arc<str>>, programs: usize) {
        let names_gone = |labels: &[String; N]| labels[..programs].iter().any(|label| gone.contains(&**label));
        for (_, labels) in self.known.extract_if(|_, labels| names_gone(labels)) {
            // It is there: it was made.
            let _ = self.vec.remove_label_values(&labels);
        }
    }
}

/// The programs that have a label of their own, the first that come; all others are one.
#[derive(Debug)]
pub(super) struct Programs {
    known: IndexMap<Arc<str>, Program, foldhash::fast::RandomState>,
    /// Processes that were seen last, by their description's place in memory, and the places of their programs.
    recent: [Option<(Arc<Process>, usize)>; RECENT],
    /// Programs for which there was no room, and since when: those that were seen last.
    waiting: LruCache<Box<str>, Timestamp>,
    /// Those that are not known yet, and those that are not told apart: their series never end.
    unknown: Program,
    others: Program,
}

/// A program with a label.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) label: Arc<str>,
    pub(super) standing: Standing,
    /// Since when it is there.
    since: Timestamp,
    /// When it was seen last.
    seen: Timestamp,
    handles: [Handles; 2],
}

/// The series of one program in one role that every mail counts in, found once: by verb and class of the reply.
#[derive(Debug, Default)]
pub(super) struct Handles {
    pub(super) commands: HandleTable<IntCounter, { CLASSES.len() }>,
    pub(super) command_duration: HandleTable<Histogram, 1>,
    pub(super) data_go_ahead: Option<Histogram>,
    pub(super) data_transfer: Option<Histogram>,
    pub(super) data_accept: Option<Histogram>,
    pub(super) data_bytes: Option<IntCounter>,
    pub(super) transactions: [Option<IntCounter>; Outcome::ALL.len()],
}

/// Handles by verb and something else; a verb that was not seen takes no room.
#[derive(Debug)]
pub(super) struct HandleTable<M, const N: usize>([Option<Box<[Option<M>; N]>>; Verb::ALL.len()]);

impl<M, const N: usize> Default for HandleTable<M, N> {
    fn default() -> Self {
        Self([const { None }; Verb::ALL.len()])
    }
}

impl<M, const N: usize> HandleTable<M, N> {
    pub(super) fn at(&mut self, verb: Verb, place: usize) -> &mut Option<M> {
        &mut self.0[verb as usize].get_or_insert_with(|| Box::new([const { None }; N]))[place]
    }
}

/// Whether a program has a label of its own.
enum Admitted {
    /// At this place.
    Known(usize),
    Unknown,
    Other,
}

impl Program {
    fn new(label: Arc<str>, standing: Standing, since: Timestamp, seen: Timestamp) -> Self {
        Self { label, standing, since, seen, handles: Default::default() }
    }

    /// It is seen now, with this standing.
    fn see(&mut self, standing: Standing, now: Timestamp) {
        self.seen = now;
        if self.standing < standing {
            self.standing = standing;
            // Those that had no room have it now.
            self.handles = Default::default();
        }
    }

    pub(super) fn handles(&mut self, role: Role) -> &mut Handles {
        &mut self.handles[usize::from(role == Role::Server)]
    }
}

impl Default for Programs {
    fn default() -> Self {
        let program =
            |label: &str| Program::new(label.into(), Standing::System, Timestamp::default(), Timestamp::default());
        let waiting = LruCache::new(MAX_WAITING);
        Self {
            known: IndexMap::default(),
            recent: Default::default(),
            waiting,
            unknown: program(UNKNOWN),
            others: program(OTHER),
        }
    }
}

impl Programs {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// The label of a program that is seen now.
    pub(super) fn label(&mut self, caller: Option<&Caller>, now: Timestamp) -> Arc<str> {
        Arc::clone(&self.at(caller, now).label)
    }

    /// A program that is seen now.
    pub(super) fn at(&mut self, caller: Option<&Caller>, now: Timestamp) -> &mut Program {
        let Some(Caller { process, .. }) = caller else { return &mut self.unknown };
        let recent = Arc::as_ptr(process).addr() / size_of::<Process>() % RECENT;
        let place = match &self.recent[recent] {
            Some((known, place)) if Arc::ptr_eq(known, process) => *place,
            _ => {
                let place = match self.admit(process, now) {
                    Admitted::Known(place) => place,
                    Admitted::Unknown => return &mut self.unknown,
                    Admitted::Other => return &mut self.others,
                };
                self.recent[recent] = Some((Arc::clone(process), place));
                place
            }
        };
        let Some((_, known)) = self.known.get_index_mut(place) else { return &mut self.others };
        known.see(Standing::of(process.uid).with_age(known.since, now), now);
        known
    }

    /// Finds the program of a process, or gives it a label, if there is room.
    fn admit(&mut self, process: &Process, now: Timestamp) -> Admitted {
        let program = &*label(process.program(), PROGRAM_LENGTH);
        if let Some(place) = self.known.get_index_of(program) {
            return Admitted::Known(place);
        }
        // The series of these two never end, whatever a program calls itself.
        if program.is_empty() || program == UNKNOWN {
            return Admitted::Unknown;
        }
        if program == OTHER {
            return Admitted::Other;
        }
        let since = self.waiting.get(program).copied().unwrap_or(now);
        let standing = Standing::of(process.uid).with_age(since, now);
        if self.known.len() >= standing.room(MAX_PROGRAMS) {
            self.waiting.get_or_insert(program.into(), || now);
            return Admitted::Other;
        }
        self.waiting.pop(program);
        let label = Arc::<str>::from(program);
        Admitted::Known(self.known.insert_full(Arc::clone(&label), Program::new(label, standing, since, now)).0)
    }

    /// Lets go of those that were not seen since then and are not in use, and tells which these are.
    pub(super) fn forget(&mut self, since: Timestamp, in_use: &HashSet<Arc<str>>) -> HashSet<Arc<str>> {
        let is_gone = |label: &Arc<str>, program: &mut Program| program.seen < since && !in_use.contains(label);
        // Those that stay have other places then.
        self.recent = Default::default();
        self.known.extract_if(.., is_gone).map(|(program, _)| program).collect()
    }

    /// The clock was set.
    pub(super) fn set_clock(&mut self, by: i64) {
        for program in self.known.values_mut() {
            (program.since, program.seen) = (program.since.by_clock(by), program.seen.by_clock(by));
        }
        for (_, since) in &mut self.waiting {
            *since = since.by_clock(by);
        }
    }

    /// Has all series found anew: some have ended, and there is room for others.
    pub(super) fn let_go_of_handles(&mut self) {
        for program in self.known.values_mut().chain([&mut self.unknown, &mut self.others]) {
            program.handles = Default::default();
        }
    }
}

/// What a user has named, as a label: without mailboxes, whatever is shown elsewhere, cut to so many bytes, and without what has
/// to be escaped or is not shown as itself.
pub(super) fn label(text: &str, longest: usize) -> Cow<'_, str> {
    let awkward = |character: char| steers(character) || matches!(character, '"' | '\\');
    let is_plain = !text.contains(['@', '%']) && !text.contains(awkward);
    if is_plain {
        return text[..text.floor_char_boundary(longest)].into();
    }
    let shown = RedactionPolicy::new(Addresses::Domain).path(&text.into());
    shown[..shown.floor_char_boundary(longest)].replace(awkward, "_").into()
}

/// The label of a verb.
pub(super) fn verb_label(verb: Verb) -> &'static str {
    if verb == Verb::Other { OTHER } else { verb.as_str() }
}

/// The classes of replies.
pub(super) const CLASSES: [&str; 6] = ["none", "2xx", "3xx", "4xx", "5xx", OTHER];

/// The class of a reply: its place among [`CLASSES`].
pub(super) fn code_class(code: Option<u16>) -> usize {
    match code.map(|code| code / 100) {
        None => 0,
        Some(class @ 2..=5) => usize::from(class) - 1,
        Some(_) => CLASSES.len() - 1,
    }
}
