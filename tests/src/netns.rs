//! Test hosts: network namespaces without names, each with a loopback device and cables to others.
//!
//! A namespace without a name lives as long as somebody uses it. Whatever becomes of a test, the kernel takes down its
//! hosts, with their devices, addresses and nftables rules, when the test and the programs it started are gone.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

use crate::feed::PATIENCE;
use crate::machine;

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Host {
    namespace: Arc<File>,
}

impl Host {
    /// A host of its own, connected to nothing, with its loopback device up.
    pub fn new() -> Result<Self> {
        machine::require_root()?;
        let namespace = in_thread(|| -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })
        .context("making a network namespace")?;
        let host = Self { namespace: Arc::new(namespace) };
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// Two hosts with a cable between them, at 10.77.0.1 and fd77::1, and at 10.77.0.2 and fd77::2.
    pub fn pair() -> Result<(Self, Self)> {
        let (first, second) = (Self::new()?, Self::new()?);
        first.cable(&second, 77)?;
        Ok((first, second))
    }

    /// Lays a cable to another host, with the addresses 10.N.0.1 and fdN::1 here, and 10.N.0.2 and fdN::2 there.
    pub fn cable(&self, other: &Self, network: u8) -> Result<()> {
        let device = format!("eth{network}");
        // iproute2 takes a path where it takes the name of a namespace.
        let peer = format!("/proc/{}/fd/{}", std::process::id(), other.namespace.as_raw_fd());
        self.ip(&format!("link add {device} type veth peer name {device} netns {peer}"))?;
        for (host, number) in [(self, 1), (other, 2)] {
            host.ip(&format!("address add 10.{network}.0.{number}/24 dev {device}"))?;
            host.ip(&format!("address add fd{network}::{number}/64 dev {device} nodad"))?;
            host.ip(&format!("link set {device} up"))?;
        }
        Ok(())
    }

    /// Makes it a router for IPv4.
    pub fn forward(&self) -> Result<()> {
        self.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).context("making a host a router")
    }

    /// The namespace's inode, by which the agent tells it from others.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.namespace.metadata()?.ino())
    }

    /// A program that will run on this host. Its parent is this process: nothing stands between them.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let namespace = Arc::clone(&self.namespace);
        let mut command = Command::new(program);
        // SAFETY: setns is a bare system call on a descriptor that the closure owns: fit for a forked child.
        unsafe { command.pre_exec(move || Ok(setns(&*namespace, CloneFlags::CLONE_NEWNET)?)) };
        command
    }

    /// Does work in a thread that is on this host. Sockets made there stay on it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        in_thread(|| {
            setns(&*self.namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// A connection from this host, made by this process.
    pub fn connect(&self, address: &str) -> Result<TcpStream> {
        let address: SocketAddr = address.parse()?;
        self.enter(|| TcpStream::connect(address)).with_context(|| format!("connecting to {address}"))
    }

    /// A listener on this host, held by this process.
    pub fn listen(&self, address: &str) -> Result<TcpListener> {
        let address: SocketAddr = address.parse()?;
        self.enter(|| TcpListener::bind(address)).with_context(|| format!("listening on {address}"))
    }

    /// Waits until somebody who does not say when listens at an IPv4 address and port of this host.
    pub fn wait_listens(&self, address: &str) -> Result<()> {
        let address: SocketAddrV4 = address.parse()?;
        let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
        self.wait_listener(|listener| listener == local).with_context(|| format!("nobody listens at {address}"))
    }

    /// Waits until somebody who does not say when listens at a port of this host, whatever the address.
    pub fn wait_bound(&self, port: u16) -> Result<()> {
        let port_of_local = format!(":{port:04X}");
        self.wait_listener(|listener| listener.ends_with(&port_of_local))
            .with_context(|| format!("nobody listens at port {port}"))
    }

    /// Waits for a listener in the kernel's tables of sockets. Nobody is called: a proxy would go and call its server at
    /// once, and a server that is hung up on before it has greeted may end.
    fn wait_listener(&self, is_it: impl Fn(&str) -> bool + Sync) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let listens = || -> io::Result<bool> {
            let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"].map(fs::read_to_string);
            let tables = tables.into_iter().collect::<io::Result<Vec<_>>>()?;
            Ok(tables.iter().flat_map(|table| listeners(table)).any(&is_it))
        };
        while !self.enter(listens)? {
            ensure!(Instant::now() < deadline, "{PATIENCE:?} have passed");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Loads nftables rules.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let mut nft = self.command(machine::installed("nft")?).args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        nft.stdin.take().context("nft takes no input")?.write_all(rules.as_bytes())?;
        let status = nft.wait()?;
        if !status.success() {
            bail!("nft ended with {status} on these rules:\n{rules}");
        }
        Ok(())
    }

    /// Runs iproute2's `ip`.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let status = self.command(machine::installed("ip")?).args(arguments.split(' ')).status()?;
        if !status.success() {
            bail!("`ip {arguments}` ended with {status}");
        }
        Ok(())
    }
}

/// Who listens, in one of the kernel's tables of sockets: addresses (as the machine keeps them in memory) and ports are
/// hexadecimal there, and the state of a listener is 0A.
fn listeners(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        (state == "0A").then_some(local)
    })
}

/// The connection that a program makes, awaited as long as a test waits for anything.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let patience = PollTimeout::try_from(PATIENCE).context("the deadline is too long for poll")?;
    if poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], patience)? == 0 {
        bail!("nobody has connected within {PATIENCE:?}");
    }
    Ok(listener.accept()?.0)
}

/// Does work in a thread of its own, since a thread that changed its namespace is no good for anything else.
fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
