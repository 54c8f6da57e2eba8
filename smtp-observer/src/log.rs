//! Where log lines go: to standard error, but not into a screen that is being drawn there.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most bytes that are held; what comes then is left out.
const MAX_HELD: usize = 64 * 1024;

/// Lines that wait for the screen's end; none where there is no screen.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    lines: Vec<u8>,
    left_out: u64,
}

impl Held {
    fn push(&mut self, line: &[u8]) {
        if self.lines.len() + line.len() <= MAX_HELD {
            self.lines.extend_from_slice(line);
        } else {
            self.left_out += 1;
        }
    }

    fn write(self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.lines)?;
        if self.left_out > 0 {
            writeln!(out, "{} more lines of the log were left out", self.left_out)?;
        }
        out.flush()
    }
}

/// Standard error, for one line of the log.
#[derive(Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *held() {
            Some(held) => {
                held.push(line);
                Ok(line.len())
            }
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Holds what is logged, where it would be written into the screen.
pub fn hold() {
    if io::stderr().is_terminal() {
        held().get_or_insert_default();
    }
}

/// Writes what was held, and holds no more.
pub fn release() {
    let lines = held().take();
    if let Some(lines) = lines {
        // Nobody is left to be told.
        let _ = lines.write(&mut io::stderr());
    }
}

fn held() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_says_so() {
        let mut held = Held::default();
        let line = [b'x'; 1000];
        for _ in 0..100 {
            held.push(&line);
        }
        let mut out = Vec::new();
        held.write(&mut out).expect("writable");
        let text = String::from_utf8(out).expect("text");
        assert!(text.len() < MAX_HELD + 100);
        assert!(text.ends_with("x35 more lines of the log were left out\n"), "{}", &text[MAX_HELD - 1000..]);
    }
}
