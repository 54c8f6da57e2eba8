//! A thread that writes lines to a file or a pipe, so that a slow or full one holds up nothing else.
//!
//! Lines travel in batches through a bounded queue. What finds it full, or cannot be written, is dropped and counted; the next
//! line that is written says so.

mod place;
#[cfg(test)]
mod tests;

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

use self::place::{Opened, Place};

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
    /// It was not there before.
    made: bool,
    /// Where it is opened again.
    place: Option<Place>,
}

impl Target {
    /// This process's standard output.
    pub fn standard_output() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { file, name: "standard output".into(), torn: false, made: false, place: None })
    }

    /// A new file, which its owner alone may read.
    pub fn create(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, name: path.display().to_string(), torn: false, made: true, place: None })
    }

    /// A file that lines are added to; made if it is not there, readable by its owner and group. It can be opened again.
    pub fn append(path: &Path) -> io::Result<Self> {
        let place = Place::new(path)?;
        let Opened { file, torn, made } = place.open()?;
        Ok(Self { file, name: path.display().to_string(), torn, made, place: Some(place) })
    }
}

impl Target {
    /// Makes the file another user's and group's, if it was made here. What others have made stays theirs.
    pub fn give_if_made(&self, uid: u32, gid: u32) -> io::Result<()> {
        if self.made { std::os::unix::fs::fchown(&self.file, Some(uid), Some(gid)) } else { Ok(()) }
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
        let Self { file, name, torn, made, place } = self;
        match place.as_ref().map(Place::open) {
            None => {}
            Some(Ok(opened)) => {
                Opened { file: *file, torn: *torn, made: *made } = opened;
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
    name: String,
    batch: Batch,
    queue: mpsc::Sender<Batch>,
    /// Lines since the start.
    lines: u64,
    written: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
    behind: Arc<AtomicBool>,
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
        let [written, dropped] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let [behind, reopen] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let closed = Arc::new(Notify::new());
        let (name, pipe) = (target.name.clone(), watched(target.file.try_clone()?));
        let writer = Writer {
            target,
            written: Arc::clone(&written),
            dropped: Arc::clone(&dropped),
            behind: Arc::clone(&behind),
            reopen: Arc::clone(&reopen),
            closed: Arc::clone(&closed),
            mark_loss,
            failing: false,
            lost: 0,
            lost_behind: 0,
        };
        thread::Builder::new().name("output".into()).spawn(move || {
            writer.run(batches);
            // Whoever waits may be gone.
            let _ = finished.send(());
        })?;
        let batch = Batch::default();
        Ok(Self { name, batch, queue, lines: 0, written, dropped, behind, reopen, closed, pipe, done })
    }

    /// Adds the one line that `write` appends, if it does.
    pub fn line(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.batch.bytes.len();
        write(&mut self.batch.bytes);
        let added = u64::from(self.batch.bytes.len() > before);
        self.batch.lines += added;
        self.lines += added;
        if self.batch.bytes.len() >= BATCH_LENGTH {
            self.flush();
        }
    }

    /// Hands over what has gathered.
    pub fn flush(&mut self) {
        if self.batch.lines == 0 {
            return;
        }
        let batch = match self.queue.try_send(std::mem::take(&mut self.batch)) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(batch)) => {
                if !self.behind.swap(true, Ordering::AcqRel) {
                    warn!("{} is too slow, lines are lost until it has caught up", self.name);
                }
                batch
            }
            Err(mpsc::error::TrySendError::Closed(batch)) => batch,
        };
        self.dropped.fetch_add(batch.lines, Ordering::Relaxed);
        self.batch.lost = batch.lost + batch.lines;
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

    /// Hands over the rest, waits until all is written, but no longer than `patience`. Returns how many lines were not: of
    /// a batch that is being written, all.
    pub async fn finish(self, patience: Duration) -> u64 {
        let Self { batch, queue, lines, written, done, .. } = self;
        let rest = async {
            if batch.lines > 0 {
                // Nobody takes it where the reader has left.
                let _ = queue.send(batch).await;
            }
            drop(queue);
            let _ = done.await;
        };
        // What was not written by then is counted.
        let _ = tokio::time::timeout(patience, rest).await;
        lines - written.load(Ordering::Acquire)
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
    /// Lines since the start.
    written: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
    /// The queue was full, and lines were dropped; until it was empty since.
    behind: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    closed: Arc<Notify>,
    mark_loss: MarkLoss,
    /// The last write failed.
    failing: bool,
    /// Lines lost since the last that was written.
    lost: u64,
    /// Lines that found the queue full since it was empty.
    lost_behind: u64,
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
            self.lost_behind += batch.lost;
            if self.lost > 0 {
                (self.mark_loss)(self.lost, &mut batch.bytes);
            }
            match self.write(&batch.bytes) {
                Ok(()) => {
                    self.written.fetch_add(batch.lines, Ordering::Release);
                    let lost = std::mem::take(&mut self.lost);
                    if std::mem::take(&mut self.failing) {
                        info!("{} can be written again; {lost} lines were lost", self.target.name);
                    }
                    if self.lost_behind > 0 && batches.is_empty() {
                        let lost = std::mem::take(&mut self.lost_behind);
                        info!("{} has caught up; {lost} lines were lost", self.target.name);
                        self.behind.store(false, Ordering::Release);
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
