//! Dialogues in files, with what is to be observed of them: `tests/transcripts/*.smtp`.
//!
//! ```text
//! # What it shows, and where that is from.
//! S: 220 mx.example ESMTP
//! C: NOOP
//! S: 250 ok
//! C gap 20
//! ====
//! greeting 220 mx.example ESMTP
//! NOOP -> 250 ok
//! noop ambiguous
//!   no MAIL before it in this session
//!   what followed was not seen
//!   possible: reachability_test, lease_check, idle_keepalive
//! ! gap 20 bytes of the client
//! ```
//!
//! Above the line of `=`, `C: text` is sent by the client and `S: text` by the server, each ended by CR LF; with `C|` or
//! `S|` nothing is added. Lines of one side that stand together travel in one write; `--` parts two writes. `\r`, `\n`,
//! `\0`, `\\` and `\xNN` stand for bytes. Between two writes 10 ms pass, and with `wait 2.5` so many seconds more.
//! `C gap 100`: so many bytes of the client go by unseen; `C moves`: another process goes on with the client's socket;
//! `midstream`, as the first line: the connection is older than the agent. `live: reason`, among the comments, says why the
//! dialogue is not played over sockets.
//!
//! Below it is all that is observed, without times and without the connection's own life: see [`line`]. Both ends observe
//! the same.

mod line;
mod packed;
mod play;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use line::lines;
pub use play::{Cut, observations, observe, record, record_inside_tls, replay};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Who connected.
    Client,
    /// Who accepted.
    Server,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// One write.
    Says(Speaker, Vec<u8>),
    /// Bytes that no hook sees.
    Gap(Speaker, u32),
    /// Time passes.
    Wait(Duration),
    /// Another process goes on with the client's socket.
    ClientMoves,
}

/// A dialogue and what is to be observed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// Its file's name, without the extension.
    pub name: String,
    /// Why it cannot be played over sockets, where it cannot.
    pub not_live: Option<String>,
    /// The connection is older than the agent.
    pub midstream: bool,
    /// What happens.
    pub steps: Vec<Step>,
    /// What is to be observed.
    pub expected: Vec<String>,
}

impl Transcript {
    /// All there are, by name: in the directory that `SMTP_OBSERVER_TRANSCRIPTS` names, or in this package's.
    pub fn all() -> Result<Vec<Self>> {
        let directory = std::env::var_os("SMTP_OBSERVER_TRANSCRIPTS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts"), PathBuf::from);
        let mut files = fs::read_dir(&directory)
            .with_context(|| format!("reading {}", directory.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<PathBuf>>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "smtp"));
        files.sort();
        files.iter().map(|file| Self::read(file)).collect()
    }

    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(&name, &text).with_context(|| file.display().to_string())
    }

    /// Reads a file's text.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let (above, below) = text.split_once("\n====\n").context("there is no line of `====`")?;
        let mut lines = above.lines().peekable();
        let mut not_live = None;
        ensure!(
            lines.peek().is_some_and(|line| line.starts_with("# ")),
            "the first line is no comment: say what it shows"
        );
        while let Some(comment) = lines.next_if(|line| line.starts_with('#')) {
            if let Some(reason) = comment.strip_prefix("# live: ") {
                not_live = Some(reason.to_owned());
            }
        }
        let midstream = lines.next_if_eq(&"midstream").is_some();
        let mut steps = Vec::new();
        let mut apart = true;
        for line in lines {
            apart = step(line, apart, &mut steps).with_context(|| format!("the line `{line}`"))?;
        }
        let expected = below.lines().map(str::to_owned).collect();
        Ok(Self { name: name.to_owned(), not_live, midstream, steps, expected })
    }

    /// Whether it can be played over sockets.
    pub fn is_live(&self) -> bool {
        let is_said = |step: &Step| matches!(step, Step::Says(..) | Step::Wait(_));
        self.not_live.is_none() && !self.midstream && self.steps.iter().all(is_said)
    }
}

/// Adds what a line says; whether what the next one says is apart from it.
fn step(line: &str, apart: bool, steps: &mut Vec<Step>) -> Result<bool> {
    if line == "--" {
        return Ok(true);
    }
    if let Some(seconds) = line.strip_prefix("wait ") {
        steps.push(Step::Wait(Duration::from_secs_f64(seconds.parse()?)));
        return Ok(true);
    }
    if line == "C moves" {
        steps.push(Step::ClientMoves);
        return Ok(true);
    }
    let speaker = match line.get(..1) {
        Some("C") => Speaker::Client,
        Some("S") => Speaker::Server,
        _ => bail!("is none of those that a transcript has"),
    };
    if let Some(length) = line[1..].strip_prefix(" gap ") {
        steps.push(Step::Gap(speaker, length.parse()?));
        return Ok(true);
    }
    let mut bytes = match (line.get(1..2), line.get(2..3)) {
        (Some(":" | "|"), None) => Vec::new(),
        (Some(":" | "|"), Some(" ")) => unescape(&line[3..])?,
        _ => bail!("has no `:` or `|` and a blank behind the speaker"),
    };
    if line[1..].starts_with(':') {
        bytes.extend(b"\r\n");
    }
    match steps.last_mut() {
        Some(Step::Says(last, said)) if *last == speaker && !apart => said.extend(bytes),
        _ => steps.push(Step::Says(speaker, bytes)),
    }
    Ok(false)
}

fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escape, behind) = rest.split_first().context("ends with a backslash")?;
        rest = behind;
        bytes.push(match escape {
            b'r' => b'\r',
            b'n' => b'\n',
            b'0' => b'\0',
            b'\\' => b'\\',
            b'x' => {
                let (digits, behind) = rest.split_at_checked(2).context("has less than two digits behind `\\x`")?;
                rest = behind;
                u8::from_str_radix(str::from_utf8(digits)?, 16)?
            }
            other => bail!("has the unknown escape `\\{}`", char::from(other)),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_is_read() -> Result<()> {
        let text = "# Shows it\n# live: no\nmidstream\nS: 220 mx\nS| 250\\x20ok\\r\\n\n--\nS:\nC: NOOP\nwait 2.5\nC gap 7\nC moves\n====\nx\n  y\n";
        let transcript = Transcript::parse("it", text)?;
        assert_eq!(
            transcript,
            Transcript {
                name: "it".into(),
                not_live: Some("no".into()),
                midstream: true,
                steps: vec![
                    Step::Says(Speaker::Server, b"220 mx\r\n250 ok\r\n".to_vec()),
                    Step::Says(Speaker::Server, b"\r\n".to_vec()),
                    Step::Says(Speaker::Client, b"NOOP\r\n".to_vec()),
                    Step::Wait(Duration::from_millis(2500)),
                    Step::Gap(Speaker::Client, 7),
                    Step::ClientMoves,
                ],
                expected: vec!["x".into(), "  y".into()],
            }
        );
        assert!(!transcript.is_live());
        Ok(())
    }

    #[test]
    fn what_is_no_transcript_is_refused() {
        for text in
            ["", "# x\nS: 220\n", "S: 220\n====\n", "# x\nX: 220\n====\n", "# x\nS: \\q\n====\n", "# x\nS:220\n====\n"]
        {
            assert!(Transcript::parse("it", text).is_err(), "{text:?}");
        }
    }
}
