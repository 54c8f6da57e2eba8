//! What a program says, collected line by line while it runs, for tests that wait for it to say something.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// The longest that a test waits for anything: an emulated processor is slow.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The items that one program has said so far.
#[derive(Debug)]
pub struct Feed<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    heard: Mutex<Heard<T>>,
    more: Condvar,
}

#[derive(Debug)]
struct Heard<T> {
    items: Vec<T>,
    /// Set when there will be no more; an error where a line could not be read.
    end: Option<Result<(), String>>,
}

impl<T: Clone + Send + 'static> Feed<T> {
    /// Reads lines to the end, in a thread, each made an item by `parse`.
    pub fn read(from: impl Read + Send + 'static, parse: fn(&str) -> Result<T>) -> Self {
        let shared =
            Arc::new(Shared { heard: Mutex::new(Heard { items: Vec::new(), end: None }), more: Condvar::new() });
        let writer = Arc::clone(&shared);
        thread::spawn(move || {
            let end = writer.take_lines(from, parse).map_err(|error| format!("{error:#}"));
            writer.lock().end = Some(end);
            writer.more.notify_all();
        });
        Self { shared }
    }

    /// Waits until `look` finds what it wants in the items so far.
    pub fn wait_for<R>(&self, what: &str, look: impl Fn(&[T]) -> Option<R>) -> Result<R> {
        self.wait(what, |heard| match (look(&heard.items), &heard.end) {
            (Some(found), _) => Some(Ok(found)),
            (None, Some(Ok(()))) => Some(Err(anyhow!("the program ended before this was seen: {what}"))),
            (None, Some(Err(error))) => Some(Err(anyhow!("{error}"))),
            (None, None) => None,
        })
    }

    /// All items, once the program has closed its end.
    pub fn finish(&self) -> Result<Vec<T>> {
        self.wait("the end of the program's output", |heard| match &heard.end {
            Some(Ok(())) => Some(Ok(heard.items.clone())),
            Some(Err(error)) => Some(Err(anyhow!("{error}"))),
            None => None,
        })
    }

    /// The items so far.
    pub fn so_far(&self) -> Vec<T> {
        self.shared.lock().items.clone()
    }

    fn wait<R>(&self, what: &str, look: impl Fn(&Heard<T>) -> Option<Result<R>>) -> Result<R> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = self.shared.lock();
        loop {
            if let Some(result) = look(&heard) {
                return result;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("not seen within {PATIENCE:?}: {what}");
            }
            heard = self.shared.more.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Heard<T>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_lines(&self, from: impl Read, parse: fn(&str) -> Result<T>) -> Result<()> {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            let item = parse(text.trim_end())
                .with_context(|| format!("this line of output is not what it should be: {text}"))?;
            self.lock().items.push(item);
            self.more.notify_all();
            line.clear();
        }
        Ok(())
    }
}
