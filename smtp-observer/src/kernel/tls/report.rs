//! What the process that attaches probes tells the agent: lines of JSON on a pipe.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;
use tracing::warn;

use crate::event::{Time, TlsLibraries, TlsLibrary};

/// The longest line that is taken.
const LONGEST: usize = 64 * 1024;

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Whatever comes from now on is probed.
    Ready,
    /// A process was searched.
    Searched {
        /// Which.
        pid: u32,
        /// The libraries that are probed in it.
        libraries: Vec<TlsLibrary>,
    },
}

impl Report {
    /// The line that tells it.
    pub fn to_line(&self) -> String {
        format!("{}\n", serde_json::to_string(self).unwrap_or_default())
    }
}

/// The agent's end of the pipe.
pub struct Reports {
    pipe: Receiver,
    line: Vec<u8>,
}

impl Reports {
    /// Waits for the first report. An error, if there is none: the process has said why, and ended.
    pub fn after_the_first(pipe: OwnedFd) -> io::Result<Self> {
        let mut pipe = std::fs::File::from(pipe);
        let mut byte = [0];
        while byte != *b"\n" {
            pipe.read_exact(&mut byte)?;
        }
        Ok(Self { pipe: Receiver::from_owned_fd(pipe.into())?, line: Vec::new() })
    }

    /// Completes when reports wait, or none will come any more.
    pub async fn readable(&self) -> io::Result<()> {
        self.pipe.readable().await
    }

    /// Takes those that wait. False where the process has ended.
    pub fn take(&mut self, time: Time, sink: &mut dyn FnMut(TlsLibraries)) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.pipe.try_read(&mut bytes) {
                Ok(0) => return false,
                Ok(length) => bytes[..length].iter().for_each(|&byte| self.byte(byte, time, sink)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    warn!("what the process that reads TLS reports cannot be read: {error}");
                    return false;
                }
            }
        }
    }

    fn byte(&mut self, byte: u8, time: Time, sink: &mut dyn FnMut(TlsLibraries)) {
        if byte != b'\n' {
            if self.line.len() < LONGEST {
                self.line.push(byte);
            }
            return;
        }
        if let Ok(Report::Searched { pid, libraries }) = serde_json::from_slice(&self.line) {
            sink(TlsLibraries { time, pid, libraries });
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn reports_come_in_parts_and_their_end_is_told() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let searched = Report::Searched { pid: 7, libraries: vec![TlsLibrary::GnuTls] };
        writer.write_all(Report::Ready.to_line().as_bytes()).expect("room");
        let line = searched.to_line();
        let (first, second) = line.split_at(9);
        writer.write_all(first.as_bytes()).expect("room");
        let mut reports = Reports::after_the_first(reader.into()).expect("it is ready");
        let mut taken = Vec::new();
        assert!(reports.take(Time(3), &mut |report| taken.push(report)));
        assert_eq!(taken, []);
        writer.write_all(b"").expect("room");
        writer.write_all(second.as_bytes()).expect("room");
        writer.write_all(b"no report\n").expect("room");
        drop(writer);
        reports.readable().await.expect("readable");
        while reports.take(Time(3), &mut |report| taken.push(report)) {
            reports.readable().await.expect("readable");
        }
        assert_eq!(taken, [TlsLibraries { time: Time(3), pid: 7, libraries: vec![TlsLibrary::GnuTls] }]);
    }

    #[test]
    fn who_never_gets_ready_is_an_error() {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(writer);
        assert!(Reports::after_the_first(reader.into()).is_err());
    }
}
