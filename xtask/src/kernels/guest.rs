//! A guest: QEMU, emulating a whole machine in software, since not every machine that builds this may run guests
//! otherwise.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::console::Transcript;
use super::emulator::Emulator;

/// The longest that a guest may take.
const LIMIT: Duration = Duration::from_secs(1800);

/// How many of the console's last lines are shown where a guest fails.
const LAST: usize = 25;

/// Boots a kernel and reads its console, which is kept in `log`, until it ends.
pub(super) fn run(
    emulator: &Emulator,
    kernel: &Path,
    image: &Path,
    log: &Path,
    arguments: &[String],
) -> Result<Transcript> {
    let mut child = emulator
        .command()
        // The plainest processor, because vector instructions are the slowest to emulate; and one, because as many guests as
        // there are processors run side by side: one that waits for a processor in the middle of a hook would hide calls.
        .args(["-accel", "tcg,thread=multi", "-cpu", "qemu64", "-m", "2048", "-smp", "1", "-nic", "none"])
        .args(["-nographic", "-no-reboot", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 mitigations=off rdinit=/init -- guest {}", arguments.join(" ")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("QEMU cannot be run")?;
    let mut transcript = Transcript::default();
    let mut lines = Vec::new();
    let heard = listen(&mut child, log, &mut transcript, &mut lines);
    // It has ended by itself, unless something went wrong.
    let _ = child.kill();
    child.wait()?;
    let problem = match heard {
        Ok(()) if transcript.done => return Ok(transcript),
        Ok(()) => "the guest ended before its tests did".into(),
        Err(error) => format!("{error:#}"),
    };
    let during = transcript.running.map(|program| format!(" (while {program} ran)")).unwrap_or_default();
    let last = lines[lines.len().saturating_sub(LAST)..].join("\n");
    bail!("{problem}{during}; its last words, all are in {}:\n{last}", log.display())
}

fn listen(child: &mut Child, log: &Path, transcript: &mut Transcript, lines: &mut Vec<String>) -> Result<()> {
    let mut log = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
    let mut console = BufReader::new(child.stdout.take().context("no pipe from QEMU")?);
    let (sender, receiver) = mpsc::channel();
    // Ends with QEMU, which closes the pipe.
    thread::spawn(move || {
        let mut line = Vec::new();
        while console.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    let deadline = Instant::now() + LIMIT;
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                log.write_all(line.as_bytes())?;
                lines.push(line.trim_end().to_owned());
                transcript.add(&line)?;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => bail!("the guest did not end within {} minutes", LIMIT.as_secs() / 60),
        }
    }
}
