//! A service manager and a journal, as far as an agent sees them: sockets that it sends datagrams to.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::feed::PATIENCE;

/// What a watchdog is told.
pub const WATCHDOG: &str = "WATCHDOG=1";

/// A socket that datagrams come to, from any user.
#[derive(Debug)]
pub struct Datagrams {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Datagrams {
    /// Waits at a path that ends in this name.
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let path = folder.path().join(name);
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o777))?;
        Ok(Self { socket, path, _folder: folder })
    }

    /// Where it waits.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next datagram, if one comes within this time.
    pub fn within(&self, time: Duration) -> Result<Option<Vec<u8>>> {
        self.socket.set_read_timeout(Some(time))?;
        let mut bytes = vec![0; 1 << 16];
        match self.socket.recv(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                Ok(Some(bytes))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message of `sd_notify(3)`, which is not of the watchdog's.
    pub fn notice(&self) -> Result<Vec<String>> {
        self.wait_for("the service manager is told nothing", |bytes| {
            let text = String::from_utf8(bytes)?;
            Ok((text.trim_end() != WATCHDOG).then(|| text.lines().map(str::to_owned).collect()))
        })
    }

    /// The next entry of the journal whose message begins so.
    pub fn entry(&self, beginning: &str) -> Result<BTreeMap<String, String>> {
        self.wait_for(&format!("not in the journal: {beginning}"), |bytes| {
            let fields = fields(&bytes)?;
            Ok(fields.get("MESSAGE").is_some_and(|message| message.starts_with(beginning)).then_some(fields))
        })
    }

    fn wait_for<T>(&self, else_: &str, look: impl Fn(Vec<u8>) -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "{else_}");
            if let Some(found) = look(self.within(left)?.with_context(|| else_.to_owned())?)? {
                return Ok(found);
            }
        }
    }
}

/// The fields of an entry in the journal's native protocol: `NAME=value`, or a name alone, the value's length, and the value.
fn fields(mut bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut fields = BTreeMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').context("a field has no end")?;
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        let (name, value, rest) = match line.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&line[..equals], &line[equals + 1..], rest),
            None => {
                let (length, rest) = rest.split_first_chunk::<8>().context("no length")?;
                let length = usize::try_from(u64::from_le_bytes(*length))?;
                let (value, rest) = rest.split_at_checked(length).context("the value is too short")?;
                (line, value, rest.strip_prefix(b"\n").context("a value has no end")?)
            }
        };
        fields.insert(String::from_utf8(name.to_vec())?, String::from_utf8(value.to_vec())?);
        bytes = rest;
    }
    Ok(fields)
}
