//! Whose it is what the table keeps. Beyond a bound the program that has most gives up its oldest, so that nobody's flood pushes
//! out what others have.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;

use crate::observation::Caller;

/// Programs that have accounts of their own in each class; the others share one.
const MAX_PROGRAMS: usize = 64;

/// How much a connection is worth looking at later: what is greater is kept for longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// While it is open, and a little longer.
    #[default]
    Ordinary,
    /// Its peers broke the protocol.
    Anomalous,
    /// It goes through a program that the client chose, or is the connection that carries it on.
    Proxied,
    /// It goes through a program that the client knows nothing of, or may, or is the connection that carries it on.
    Intercepted,
}

/// An account of a program in a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account(usize);

/// What is kept, by class and program.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    list: Vec<Kept>,
    /// Bytes of ordinary connections, and of those worth looking at later.
    bytes: [usize; 2],
    entries: usize,
}

#[derive(Clone, Debug)]
struct Kept {
    class: Class,
    /// None: of all that have none of their own.
    program: Option<Box<str>>,
    bytes: usize,
    /// Its connections, in the order in which they give something up. Some are there no longer.
    order: VecDeque<Arc<str>>,
}

impl Accounts {
    /// The account of a program. That of a program that is not known is shared.
    pub fn of(&mut self, class: Class, program: Option<&str>) -> Account {
        let of_class = || self.list.iter().enumerate().filter(|(_, kept)| kept.class == class);
        let known = of_class().find(|(_, kept)| kept.program.as_deref() == program).map(|(place, _)| place);
        if let Some(place) = known {
            return Account(place);
        }
        let kept = Kept { class, program: program.map(Into::into), bytes: 0, order: VecDeque::new() };
        let has_room = program.is_none() || of_class().count() < MAX_PROGRAMS;
        if has_room {
            self.list.push(kept);
            return Account(self.list.len() - 1);
        }
        let unused = of_class().find(|(_, kept)| kept.program.is_some() && kept.bytes == 0).map(|(place, _)| place);
        match unused {
            Some(place) => {
                self.entries -= self.list[place].order.len();
                self.list[place] = kept;
                Account(place)
            }
            None => self.of(class, None),
        }
    }

    /// Bytes of connections that are worth looking at later.
    pub fn noted(&self) -> usize {
        self.bytes[1]
    }

    /// Bytes of all others.
    pub fn ordinary(&self) -> usize {
        self.bytes[0]
    }

    /// Entries in the order of all accounts.
    pub fn entries(&self) -> usize {
        self.entries
    }

    pub fn add(&mut self, Account(place): Account, bytes: usize) {
        if let Some(kept) = self.list.get_mut(place) {
            kept.bytes += bytes;
            self.bytes[usize::from(kept.class > Class::Ordinary)] += bytes;
        }
    }

    pub fn subtract(&mut self, Account(place): Account, bytes: usize) {
        if let Some(kept) = self.list.get_mut(place) {
            kept.bytes -= bytes;
            self.bytes[usize::from(kept.class > Class::Ordinary)] -= bytes;
        }
    }

    /// A connection is the last to give something up.
    pub fn push(&mut self, Account(place): Account, connection: &Arc<str>) {
        if let Some(kept) = self.list.get_mut(place) {
            kept.order.push_back(Arc::clone(connection));
            self.entries += 1;
        }
    }

    /// Takes the first connection out of the largest account of those that are worth looking at later, or of the others.
    pub fn pop(&mut self, noted: bool) -> Option<(Account, Arc<str>)> {
        let meant = self.list.iter_mut().enumerate();
        let meant = meant.filter(|(_, kept)| (kept.class > Class::Ordinary) == noted && !kept.order.is_empty());
        let (place, kept) = meant.max_by_key(|(_, kept)| kept.bytes)?;
        let connection = kept.order.pop_front()?;
        self.entries -= 1;
        Some((Account(place), connection))
    }

    /// Lets go of connections that are there no longer.
    pub fn tidy(&mut self, is_there: impl Fn(Account, &str) -> bool) {
        self.entries = 0;
        for (place, kept) in self.list.iter_mut().enumerate() {
            kept.order.retain(|connection| is_there(Account(place), connection));
            self.entries += kept.order.len();
        }
    }
}

/// The processes that the table's connections have, each counted once.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    /// By the description's place in memory, which stays as long as a connection has it: connections, and bytes.
    of: HashMap<usize, (usize, usize)>,
    bytes: usize,
}

impl Owners {
    /// Bytes of their descriptions.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A connection has another owner than before.
    pub fn change(&mut self, before: Option<&Caller>, now: Option<&Caller>) {
        let place = |caller: &Caller| Arc::as_ptr(&caller.process) as usize;
        if before.map(place) == now.map(place) {
            return;
        }
        if let Some(caller) = now {
            let (connections, bytes) = self.of.entry(place(caller)).or_insert_with(|| (0, caller.process.bytes()));
            self.bytes += if *connections == 0 { *bytes } else { 0 };
            *connections += 1;
        }
        if let Some(caller) = before
            && let Some((connections, bytes)) = self.of.get_mut(&place(caller))
        {
            *connections -= 1;
            if *connections == 0 {
                self.bytes -= *bytes;
                self.of.remove(&place(caller));
            }
        }
    }
}
