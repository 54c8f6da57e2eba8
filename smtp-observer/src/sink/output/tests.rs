use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn pipe() -> (BufReader<io::PipeReader>, Target) {
    let (reader, writer) = io::pipe().expect("a pipe");
    (
        BufReader::new(reader),
        Target { file: File::from(OwnedFd::from(writer)), name: "pipe".into(), torn: false, made: false, place: None },
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
        written: Arc::default(),
        dropped: Arc::default(),
        behind: Arc::default(),
        reopen: Arc::default(),
        closed: Arc::default(),
        mark_loss,
        failing: false,
        lost: 0,
        lost_behind: 0,
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

#[test]
fn what_was_there_is_given_to_nobody() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("events");
    std::fs::write(&path, "").expect("written");
    let is_root = nix::unistd::geteuid().is_root();
    let owner = |path: &Path| path.metadata().expect("there").uid();
    let (before, other) = (owner(&path), 4714);
    Target::append(&path).expect("writable").give_if_made(other, other).expect("not given");
    assert_eq!(owner(&path), before);

    std::fs::remove_file(&path).expect("removed");
    let given = Target::append(&path).expect("made").give_if_made(other, other);
    assert_eq!(given.is_ok(), is_root, "only root gives files away");
    assert_eq!(owner(&path), if is_root { other } else { before });
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

/// What this thread logs meanwhile.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let writer = Mutex::new(log.reopen().expect("writable"));
    let lines = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).without_time().finish();
    tracing::subscriber::with_default(lines, work);
    let text = std::fs::read_to_string(log.path()).expect("readable");
    text.lines().map(|line| line.trim_start().to_owned()).collect()
}

#[tokio::test]
async fn that_lines_are_lost_is_told_once() {
    let (_reader, target) = pipe();
    let mut output = Output::with_queue(target, mark_loss, 1).expect("a thread");
    let long = "x".repeat(BATCH_LENGTH);
    let log = logged(|| (0..100).for_each(|_| say(&mut output, &long)));
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].starts_with("WARN") && log[0].ends_with("pipe is too slow, lines are lost until it has caught up"));
}

#[test]
fn that_it_goes_on_is_told_once_nothing_waits() {
    let (_reader, target) = pipe();
    let writer = idle_writer(target);
    let behind = Arc::clone(&writer.behind);
    behind.store(true, Ordering::Relaxed);
    let (queue, batches) = mpsc::channel(8);
    for lost in [0, 3, 0, 4, 0] {
        queue.try_send(Batch { bytes: b"line\n".to_vec(), lines: 1, lost }).expect("room");
    }
    drop(queue);
    let log = logged(|| writer.run(batches));
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].starts_with("INFO") && log[0].ends_with("pipe has caught up; 7 lines were lost"), "{log:?}");
    assert!(!behind.load(Ordering::Relaxed), "the next loss is told, too");
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
    say(&mut output, "written");
    output.flush();
    while output.written.load(Ordering::Acquire) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        say(&mut output, &"x".repeat(1 << 20));
    }
    assert_eq!(output.finish(Duration::from_millis(1)).await, 3, "they wait for the reader");
}
