//! A thread that writes lines to a file or a pipe, so that a slow or full one holds up nothing else.
//!
//! Lines travel in batches through a bounded queue. What finds it full, or cannot be written, is dropped and counted; the next
//! line that is written says so.

mod place;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{info, warn};

use self::place::Place;

/// A batch is handed over when it has this many bytes, at the latest.
const BATCH_LENGTH: usize = 64 * 1024;

/// Batches that may wait: with their length, a few megabytes at most.
const QUEUE_LENGTH: usize = 64;

/// A place for lines, opened while there still are privileges to open it.
#[derive(Debug)]
pub struct Target {
    file: File,
    name: String,
    /// The last line in it has no end.
    torn: bool,
    /// Where it is opened again.
    place: Option<Place>,
}

impl Target {
    /// This process's standard output.
    pub fn standard_output() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { file, name: "standard output".into(), torn: false, place: None })
    }

    /// A new file, which its owner alone may read.
    pub fn create(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, name: path.display().to_string(), torn: false, place: None })
    }

    /// A file that lines are added to; made if it is not there, readable by its owner and group. It can be opened again.
    pub fn append(path: &Path) -> io::Result<Self> {
        let place = Place::new(path)?;
        let (file, torn) = place.open()?;
        Ok(Self { file, name: path.display().to_string(), torn, place: Some(place) })
    }
}

impl Target {
    /// Makes the file another user's and group's.
    pub fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        std::os::unix::fs::fchown(&self.file, Some(uid), Some(gid))
    }

    /// Says that it cannot be opened again, now that privileges are given up: whoever renames it should know.
    pub fn warn_of_rotation(&self) {
        let again = self.place.as_ref().filter(|_| self.file.metadata().is_ok_and(|metadata| metadata.is_file()));
        if let Some(Err(error)) = again.map(Place::try_again) {
            warn!(
                "{} cannot be rotated: without privileges, it is not opened or made again: {error}. Let its directory \
                 belong to the agent's user.",
                self.name
            );
        }
    }

    /// Opens it again by its name. Where that fails, it stays what it is.
    fn reopen(&mut self) {
        let Self { file, name, torn, place } = self;
        match place.as_ref().map(Place::open) {
            None => {}
            Some(Ok(opened)) => {
                (*file, *torn) = opened;
                info!("{name} was opened again");
            }
            Some(Err(error)) => warn!(
                "{name} cannot be opened again, lines go on to the old file: {error}. Let the agent's user make and \
                 write it without capabilities, then send SIGHUP again."
            ),
        }
    }
}

/// The lines of one sink, on their way to their [`Target`].
#[derive(Debug)]
pub struct Output {
    batch: Batch,
    queue: mpsc::Sender<Batch>,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
    closed: Arc<Notify>,
    /// Tells when nobody reads a pipe any more, before anything is written; absent of a file, which nobody reads.
    pipe: Option<AsyncFd<File>>,
    done: oneshot::Receiver<()>,
}

/// Marks in lines that so many before them were lost.
pub type MarkLoss = fn(u64, &mut Vec<u8>);

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    /// Lines that were dropped before these.
    lost: u64,
}

impl Output {
    /// Starts the thread that writes. To be called where tokio runs.
    pub fn start(target: Target, mark_loss: MarkLoss) -> io::Result<Self> {
        Self::with_queue(target, mark_loss, QUEUE_LENGTH)
    }

    fn with_queue(target: Target, mark_loss: MarkLoss, length: usize) -> io::Result<Self> {
        let (queue, batches) = mpsc::channel(length);
        let (finished, done) = oneshot::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let reopen = Arc::new(AtomicBool::new(false));
        let closed = Arc::new(Notify::new());
        let pipe = watched(target.file.try_clone()?);
        let writer = Writer {
            target,
            dropped: Arc::clone(&dropped),
            reopen: Arc::clone(&reopen),
            closed: Arc::clone(&closed),
            mark_loss,
            failing: false,
            lost: 0,
        };
        thread::Builder::new().name("output".into()).spawn(move || {
            writer.run(batches);
            // Whoever waits may be gone.
            let _ = finished.send(());
        })?;
        Ok(Self { batch: Batch::default(), queue, dropped, reopen, closed, pipe, done })
    }

    /// Adds the one line that `write` appends, if it does.
    pub fn line(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.batch.bytes.len();
        write(&mut self.batch.bytes);
        self.batch.lines += u64::from(self.batch.bytes.len() > before);
        if self.batch.bytes.len() >= BATCH_LENGTH {
            self.flush();
        }
    }

    /// Hands over what has gathered.
    pub fn flush(&mut self) {
        if self.batch.lines == 0 {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch)) =
            self.queue.try_send(std::mem::take(&mut self.batch))
        {
            self.dropped.fetch_add(batch.lines, Ordering::Relaxed);
            self.batch.lost = batch.lost + batch.lines;
        }
    }

    /// Has the file opened again by its name, as whoever has renamed it wants; other targets stay as they are. Lines that
    /// wait go to the one or to the other.
    pub fn reopen(&mut self) {
        self.flush();
        self.reopen.store(true, Ordering::Release);
        // Wakes a thread that waits. One that has no room for this will come by.
        let _ = self.queue.try_send(Batch::default());
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Completes when nobody reads the pipe any more. Cancel-safe.
    pub async fn closed(&self) {
        match &self.pipe {
            Some(pipe) => tokio::select! {
                () = self.closed.notified() => (),
                _ = pipe.ready(Interest::ERROR) => (),
            },
            None => self.closed.notified().await,
        }
    }

    /// Tells, once it is finished, whether the reader of a pipe had left by then.
    pub fn reader_left(&self) -> impl FnOnce() -> bool + use<> {
        let closed = Arc::clone(&self.closed);
        move || closed.notified().now_or_never().is_some()
    }

    /// Hands over the rest, waits until all is written, but no longer than `patience`. Returns the lines dropped.
    pub async fn finish(self, patience: Duration) -> u64 {
        let Self { batch, queue, dropped, reopen: _, closed: _, pipe: _, done } = self;
        let lines = batch.lines;
        let written = tokio::time::timeout(patience, async {
            let handed_over = lines == 0 || queue.send(batch).await.is_ok();
            drop(queue);
            let _ = done.await;
            handed_over
        })
        .await;
        dropped.load(Ordering::Relaxed) + if written == Ok(false) { lines } else { 0 }
    }
}

/// A pipe that tells of its reader. The kernel refuses to watch what is always ready, such as a file.
fn watched(file: File) -> Option<AsyncFd<File>> {
    // SAFETY: a file owns one descriptor, which stays open and the same until the file is dropped.
    unsafe { AsyncFd::register_with_interest(file, Interest::ERROR) }.ok()
}

/// The thread's side.
struct Writer {
    target: Target,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
    closed: Arc<Notify>,
    mark_loss: MarkLoss,
    /// The last write failed.
    failing: bool,
    /// Lines lost since the last that was written.
    lost: u64,
}

impl Writer {
    fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        while let Some(mut batch) = batches.blocking_recv() {
            if self.reopen.swap(false, Ordering::Acquire) {
                self.target.reopen();
            }
            if batch.lines == 0 {
                continue;
            }
            self.lost += batch.lost;
            if self.lost > 0 {
                (self.mark_loss)(self.lost, &mut batch.bytes);
            }
            match self.write(&batch.bytes) {
                Ok(()) => {
                    let lost = std::mem::take(&mut self.lost);
                    if std::mem::take(&mut self.failing) {
                        info!("{} can be written again; {lost} lines were lost", self.target.name);
                    }
                }
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    self.dropped.fetch_add(batch.lines, Ordering::Relaxed);
                    self.closed.notify_one();
                    return;
                }
                Err(error) => {
                    self.dropped.fetch_add(batch.lines, Ordering::Relaxed);
                    self.lost += batch.lines;
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!("{} cannot be written, lines are lost until it can: {error}", self.target.name);
                    }
                }
            }
        }
    }

    /// Writes all, or leaves the target as it was.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.target.torn {
            self.target.file.write_all(b"\n")?;
            self.target.torn = false;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.target.file.write(rest) {
                Ok(0) => return Err(self.undo(bytes.len() - rest.len(), ErrorKind::WriteZero.into())),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(self.undo(bytes.len() - rest.len(), error)),
            }
        }
        Ok(())
    }

    /// Takes half a batch back, so that no line is left without its end; where that cannot be, ends the line before
    /// the next.
    fn undo(&mut self, written: usize, error: io::Error) -> io::Error {
        if written > 0 {
            let undone = self.target.file.metadata().and_then(|metadata| {
                if !metadata.is_file() {
                    return Err(ErrorKind::Unsupported.into());
                }
                self.target.file.set_len(metadata.len().saturating_sub(written as u64))
            });
            self.target.torn = undone.is_err();
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::os::fd::OwnedFd;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn pipe() -> (BufReader<io::PipeReader>, Target) {
        let (reader, writer) = io::pipe().expect("a pipe");
        (
            BufReader::new(reader),
            Target { file: File::from(OwnedFd::from(writer)), name: "pipe".into(), torn: false, place: None },
        )
    }

    /// A line of its own.
    fn mark_loss(lost: u64, lines: &mut Vec<u8>) {
        lines.splice(0..0, format!("{LOST}{lost}\n").into_bytes());
    }

    const LOST: &str = "lost ";

    fn idle_writer(target: Target) -> Writer {
        Writer {
            target,
            dropped: Arc::default(),
            reopen: Arc::default(),
            closed: Arc::default(),
            mark_loss,
            failing: false,
            lost: 0,
        }
    }

    fn say(output: &mut Output, text: &str) {
        output.line(|out| {
            out.extend_from_slice(text.as_bytes());
            out.push(b'\n');
        });
    }

    #[tokio::test]
    async fn lines_are_appended_in_order() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "before\n").expect("writable");
        let mut output = Output::start(Target::append(file.path()).expect("writable"), mark_loss).expect("a thread");
        let mut expected = String::from("before\n");
        for number in 0..20_000 {
            say(&mut output, &number.to_string());
            expected += &format!("{number}\n");
        }
        assert_eq!(output.finish(PATIENCE).await, 0);
        assert_eq!(std::fs::read_to_string(file.path()).expect("readable"), expected);
    }

    #[tokio::test]
    async fn a_full_disk_is_counted_and_lived_with() {
        let mut output =
            Output::start(Target::append(Path::new("/dev/full")).expect("there"), mark_loss).expect("a thread");
        for _ in 0..3 {
            say(&mut output, "lost");
            output.flush();
        }
        assert_eq!(output.finish(PATIENCE).await, 3);
    }

    #[test]
    fn half_a_batch_is_taken_back() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let target = Target::append(file.path()).expect("writable");
        std::fs::write(file.path(), "whole\nhal").expect("writable");
        let mut writer = idle_writer(target);
        let error = writer.undo(3, ErrorKind::StorageFull.into());
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        writer.write(b"next\n").expect("writable");
        assert_eq!(std::fs::read_to_string(file.path()).expect("readable"), "whole\nnext\n");

        // A pipe takes nothing back: the torn line is ended.
        let (mut reader, target) = pipe();
        let mut writer = idle_writer(target);
        writer.target.file.write_all(b"hal").expect("writable");
        writer.undo(3, ErrorKind::Other.into());
        writer.write(b"next\n").expect("writable");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "hal\nnext\n");
    }

    #[tokio::test]
    async fn what_another_left_without_its_end_is_ended() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "whole\nhal").expect("writable");
        let mut output = Output::start(Target::append(file.path()).expect("writable"), mark_loss).expect("a thread");
        say(&mut output, "next");
        assert_eq!(output.finish(PATIENCE).await, 0);
        assert_eq!(std::fs::read_to_string(file.path()).expect("readable"), "whole\nhal\nnext\n");
    }

    /// As logrotate does it: renames the file and asks for a new one.
    #[tokio::test]
    async fn a_file_that_was_renamed_is_made_anew() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let [file, old] = ["events", "events.1"].map(|name| folder.path().join(name));
        let mut output = Output::start(Target::append(&file).expect("writable"), mark_loss).expect("a thread");
        let mut expected = String::new();
        for number in 0..2000 {
            if number == 1000 {
                std::fs::rename(&file, &old).expect("renamed");
                output.reopen();
            }
            say(&mut output, &number.to_string());
            expected += &format!("{number}\n");
        }
        assert_eq!(output.finish(PATIENCE).await, 0);
        let [old, new] = [&old, &file].map(|path| std::fs::read_to_string(path).expect("readable"));
        assert_eq!(old.clone() + &new, expected, "no line is lost, none is written twice");
        assert!(new.ends_with("1999\n"), "{new}");
    }

    /// As logrotate's `copytruncate` does it, without a word.
    #[tokio::test]
    async fn a_file_that_was_cut_is_written_from_its_beginning() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "before\n").expect("writable");
        let mut output = Output::start(Target::append(file.path()).expect("writable"), mark_loss).expect("a thread");
        file.as_file().set_len(0).expect("cut");
        say(&mut output, "behind");
        assert_eq!(output.finish(PATIENCE).await, 0);
        assert_eq!(std::fs::read_to_string(file.path()).expect("readable"), "behind\n");
    }

    #[tokio::test]
    async fn one_that_cannot_be_opened_again_is_written_on() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let [file, old] = ["events", "events.1"].map(|name| folder.path().join(name));
        let mut output = Output::start(Target::append(&file).expect("writable"), mark_loss).expect("a thread");
        std::fs::rename(&file, &old).expect("renamed");
        std::fs::create_dir(&file).expect("a directory in its place");
        output.reopen();
        say(&mut output, "on");
        assert_eq!(output.finish(PATIENCE).await, 0);
        assert_eq!(std::fs::read_to_string(&old).expect("readable"), "on\n");
    }

    #[tokio::test]
    async fn what_is_no_file_stays_open() {
        let (mut reader, target) = pipe();
        let mut output = Output::start(target, mark_loss).expect("a thread");
        output.reopen();
        say(&mut output, "on");
        assert_eq!(output.finish(PATIENCE).await, 0);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "on\n");
    }

    #[tokio::test]
    async fn a_slow_reader_loses_lines_and_nothing_waits_for_it() {
        let (mut reader, target) = pipe();
        let mut output = Output::with_queue(target, mark_loss, 1).expect("a thread");
        let long = "x".repeat(BATCH_LENGTH);
        for _ in 0..100 {
            say(&mut output, &long);
        }
        let before = output.dropped();
        assert!(before >= 90, "{before} of 100 dropped");
        // There is room for the last one once the end waits for it.
        say(&mut output, "last");
        let read = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("readable");
            text
        });
        let dropped = output.finish(PATIENCE).await;
        let text = read.join().expect("read");
        let (marks, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with(LOST));
        assert!(lines.iter().all(|line| line.len() == BATCH_LENGTH || *line == "last"), "whole lines only");
        assert_eq!(lines.len() as u64 + dropped, 101, "each line is written or counted");
        let marked: u64 = marks.iter().map(|mark| mark[LOST.len()..].parse::<u64>().expect("a number")).sum();
        assert_eq!(marked, dropped, "what was lost is marked");
    }

    #[test]
    fn what_the_queue_did_not_take_is_marked_where_it_was() {
        let (mut reader, target) = pipe();
        let writer = idle_writer(target);
        let (queue, batches) = mpsc::channel(8);
        let batch = |text: &str, lost| Batch { bytes: text.into(), lines: 1, lost };
        for batch in [batch("first\n", 0), Batch::default(), batch("second\n", 3), batch("third\n", 0)] {
            queue.try_send(batch).expect("room");
        }
        drop(queue);
        writer.run(batches);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "first\nlost 3\nsecond\nthird\n");
    }

    #[tokio::test]
    async fn what_a_full_disk_did_not_take_is_marked_behind_it() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("events");
        std::os::unix::fs::symlink("/dev/full", &file).expect("a link");
        let mut output = Output::start(Target::append(&file).expect("there"), mark_loss).expect("a thread");
        for _ in 0..2 {
            say(&mut output, "lost");
            output.flush();
        }
        let is_lost = async {
            while output.dropped() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, is_lost).await.expect("the disk is full");
        std::fs::remove_file(&file).expect("removed");
        output.reopen();
        say(&mut output, "written");
        output.flush();
        say(&mut output, "on");
        assert_eq!(output.finish(PATIENCE).await, 2);
        assert_eq!(std::fs::read_to_string(&file).expect("readable"), "lost 2\nwritten\non\n");
    }

    #[tokio::test]
    async fn a_reader_that_leaves_ends_it() {
        let (mut reader, target) = pipe();
        let mut output = Output::start(target, mark_loss).expect("a thread");
        say(&mut output, "first");
        output.flush();
        let mut line = String::new();
        reader.read_line(&mut line).expect("readable");
        assert_eq!(line, "first\n");
        drop(reader);
        say(&mut output, "second");
        output.flush();
        tokio::time::timeout(PATIENCE, output.closed()).await.expect("notices");
        assert_eq!(output.finish(PATIENCE).await, 1);
    }

    #[tokio::test]
    async fn lines_that_nobody_wants_are_told_from_lost_ones() {
        let (reader, target) = pipe();
        let mut output = Output::start(target, mark_loss).expect("a thread");
        drop(reader);
        say(&mut output, "last");
        let left = output.reader_left();
        assert_eq!(output.finish(PATIENCE).await, 1);
        assert!(left());
    }

    #[tokio::test]
    async fn that_a_reader_leaves_is_noticed_at_once() {
        let (reader, target) = pipe();
        let output = Output::start(target, mark_loss).expect("a thread");
        assert!(tokio::time::timeout(Duration::from_millis(50), output.closed()).await.is_err(), "it reads");
        drop(reader);
        tokio::time::timeout(PATIENCE, output.closed()).await.expect("notices");
        assert_eq!(output.dropped(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_hangs_does_not_hold_up_the_end() {
        let (_reader, target) = pipe();
        let mut output = Output::start(target, mark_loss).expect("a thread");
        say(&mut output, &"x".repeat(1 << 20));
        output.finish(Duration::from_millis(1)).await;
    }
}
