//! Who, and where: connections with their ends, and processes.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// What the socket did to get its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It connected.
    Client,
    /// It was accepted.
    Server,
}

impl Role {
    /// The name used in events and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Endpoint {
    /// IPv4 or IPv6 address.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// A TCP connection, as one of its sockets sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Connection {
    /// Stable, and unique per connection on this host.
    pub id: Arc<str>,
    /// What this socket is.
    pub role: Role,
    /// This socket's end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The socket's cookie, which [`Self::id`] is made of.
    #[serde(skip)]
    pub cookie: u64,
}

/// A process's parent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Parent {
    /// Its pid.
    pub pid: u32,
    /// Its `comm`.
    pub name: Arc<str>,
}

/// A process, with what could be learned of it; what is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Process {
    /// The thread group's id in the host's pid namespace.
    pub pid: u32,
    /// Its `comm`, at most 15 bytes.
    pub name: Arc<str>,
    /// Path of its executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<Arc<str>>,
    /// The script, module, jar or class that it runs, where its executable is an interpreter and its arguments show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Arc<str>>,
    /// Its arguments, joined by blanks, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line: Option<Arc<str>>,
    /// The effective user.
    pub uid: u32,
    /// That user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// Its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Libraries that are loaded before its own (`LD_PRELOAD`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preload: Option<Arc<str>>,
    /// Its cgroup in the unified hierarchy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Arc<str>>,
    /// The container it runs in, read from the cgroup's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<Arc<str>>,
    /// The systemd unit it belongs to, read from the cgroup's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd_unit: Option<Arc<str>>,
}

impl Process {
    /// Bytes of memory that its description takes, about.
    pub fn bytes(&self) -> usize {
        let texts = [&self.executable, &self.script, &self.command_line, &self.user, &self.preload, &self.cgroup];
        let more = [&self.container_id, &self.systemd_unit];
        let parent = self.parent.as_ref().map_or(0, |parent| parent.name.len());
        let texts = texts.into_iter().chain(more).flatten().map(|text| text.len());
        size_of::<Self>() + self.name.len() + parent + texts.sum::<usize>()
    }

    /// The name that metrics and tables use: the base name of the script that it runs, or else of its executable; `comm`
    /// where neither is known.
    pub fn program(&self) -> &str {
        match self.script.as_ref().or(self.executable.as_ref()) {
            Some(path) => path.rsplit('/').next().unwrap_or(path),
            None => &self.name,
        }
    }
}

/// A thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process.
    pub process: Arc<Process>,
    /// The thread that called.
    pub tid: u32,
}

impl Serialize for Caller {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct View<'a> {
            #[serde(flatten)]
            process: &'a Process,
            tid: u32,
        }
        View { process: &self.process, tid: self.tid }.serialize(serializer)
    }
}
