//! What the host's own files tell: which connections are open now and who holds them, and the names of users.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process as ProcProcess, Status};
use procfs::{FromBufRead, ProcError, ProcResult, ProcessCGroups};
use serde::Serialize;

use super::chain::{self, Ends, Redirected, Via};
use super::ring;
use super::users::look_up;
use crate::cgroup;
use crate::identity::{Endpoint, Parent, Process, Role};
use crate::process::script;
use crate::redact::{Addresses, RedactionPolicy, process_name};

/// A connection that is open, and the processes that hold its socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenConnection {
    /// The connection.
    pub connection: Socket,
    /// The process that holds the socket: the youngest, where a parent and its children share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<Process>>,
    /// Why no process is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_process: Option<NoProcess>,
    /// The others that hold it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared_with: Vec<Arc<Process>>,
    /// The process on this host that a client's connection was redirected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
}

/// Why no process is named for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoProcess {
    /// The connection waits to be accepted.
    NotAccepted,
    /// A process holds it that `/proc` does not show, as from a container; or it has ended just now.
    NotVisible,
}

impl NoProcess {
    /// Of a socket that nobody is known to hold. What waits to be accepted has no inode.
    fn of(inode: u64, role: Role) -> Self {
        if inode == 0 && role == Role::Server { Self::NotAccepted } else { Self::NotVisible }
    }
}

/// One socket of a connection, as `/proc/net/tcp` knows it: the shape of an observation's `connection` without the
/// `id`, which only the hooks can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Socket {
    /// What this socket is.
    pub role: Role,
    /// This socket's end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// Inode of the network namespace.
    pub netns: u32,
}

/// The host's open connections could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the host's sockets and processes from /proc: {0}. It must be mounted, without hidepid.")]
pub struct ScanError(#[from] ProcError);

/// The connections open now with either end on one of `ports`, in every network namespace that a process lives in.
///
/// Processes that end while they are read are left out, as are sockets that the kernel alone is still closing.
pub fn open_connections(ports: &[u16]) -> Result<Vec<OpenConnection>, ScanError> {
    // Where /proc is empty no process is listed, and that is no host without connections.
    entries(&ProcProcess::myself()?)?;
    let mut namespaces = HashSet::new();
    let (mut sockets, mut all) = (Vec::new(), Vec::new());
    for process in procfs::process::all_processes()?.flatten() {
        let Some(netns) = network_namespace(&process) else { continue };
        if namespaces.contains(&netns) {
            continue;
        }
        // The process may be gone by now; then another of the same namespace serves.
        let Ok(entries) = entries(&process) else { continue };
        namespaces.insert(netns);
        sockets.extend(watched(&entries, ports).map(|(inode, socket)| (inode, Socket { netns, ..socket })));
        all.extend(open(&entries, netns));
    }
    sockets.sort_by_key(|(_, Socket { role, local, remote, netns })| {
        (*netns, *role, local.address, local.port, remote.address, remote.port)
    });
    let ends = Ends::new(all.into_iter());
    let redirected: Vec<_> = sockets.iter().map(|(_, socket)| ends.redirected(socket)).collect();
    // The owners after the sockets: a socket's process was there before it.
    let accepted = redirected.iter().flatten().map(|((inode, _), _)| *inode);
    let inodes = sockets.iter().map(|(inode, _)| *inode).chain(accepted);
    let owners = owners(&inodes.filter(|inode| *inode != 0).collect())?;
    let holders = |inode: u64| owners.get(&inode).cloned().unwrap_or_default();
    let connection = |(inode, connection): (u64, Socket)| {
        let mut holders = holders(inode).into_iter();
        let process = holders.next();
        let no_process = process.is_none().then(|| NoProcess::of(inode, connection.role));
        OpenConnection { connection, process, no_process, shared_with: holders.collect(), via: None }
    };
    let mut connections: Vec<_> = sockets.into_iter().map(connection).collect();
    let redirected = redirected.into_iter().map(|redirected| {
        let ((inode, socket), method) = redirected?;
        let holders = holders(inode);
        let no_process = holders.is_empty().then(|| NoProcess::of(inode, socket.role));
        Some(Redirected { accepted: socket.local, method, holders, no_process })
    });
    chain::complete(&mut connections, redirected.collect());
    Ok(connections)
}

fn network_namespace(process: &ProcProcess) -> Option<u32> {
    let link = std::fs::read_link(format!("/proc/{}/ns/net", process.pid)).ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The TCP sockets of the namespace that a process lives in.
fn entries(process: &ProcProcess) -> ProcResult<Vec<TcpNetEntry>> {
    let mut entries = process.tcp()?;
    match process.tcp6() {
        Ok(more) => entries.extend(more),
        // A kernel without IPv6.
        Err(ProcError::NotFound(_)) => (),
        Err(error) => return Err(error),
    }
    Ok(entries)
}

/// The sockets that are connected and ours to show, with their inodes. Inode 0 has no process yet.
fn watched(entries: &[TcpNetEntry], ports: &[u16]) -> impl Iterator<Item = (u64, Socket)> {
    let listening: HashSet<u16> = entries
        .iter()
        .filter(|entry| entry.state == TcpState::Listen)
        .map(|entry| entry.local_address.port())
        .collect();
    entries.iter().filter(|entry| is_open(entry)).filter_map(move |entry| {
        let (local, remote) = (endpoint(entry.local_address), endpoint(entry.remote_address));
        let role = match (ports.contains(&local.port), ports.contains(&remote.port)) {
            (false, false) => return None,
            (false, true) => Role::Client,
            // Its listener may be closed by now.
            (true, false) => Role::Server,
            (true, true) if listening.contains(&local.port) => Role::Server,
            (true, true) => Role::Client,
        };
        Some((entry.inode, Socket { role, local, remote, netns: 0 }))
    })
}

/// All sockets that are connected, whatever their ports.
fn open(entries: &[TcpNetEntry], netns: u32) -> impl Iterator<Item = (u64, Socket)> {
    entries.iter().filter(|entry| is_open(entry)).map(move |entry| {
        let (local, remote) = (endpoint(entry.local_address), endpoint(entry.remote_address));
        // Which of the two it is does not matter to those who look for the other end of a client's.
        (entry.inode, Socket { role: Role::Server, local, remote, netns })
    })
}

/// Whether a process holds this socket, or is about to accept it.
fn is_open(entry: &TcpNetEntry) -> bool {
    match entry.state {
        TcpState::Listen | TcpState::TimeWait | TcpState::NewSynRecv | TcpState::Close => false,
        // Without a process: in the queue of its listener.
        TcpState::Established | TcpState::CloseWait => true,
        // Without a process: left to the kernel to open or to close.
        _ => entry.inode != 0,
    }
}

/// IPv4-mapped IPv6 is IPv4, here as in observations.
fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { address: address.ip().to_canonical(), port: address.port() }
}

/// Who holds these sockets; the youngest first.
fn owners(inodes: &HashSet<u64>) -> Result<HashMap<u64, Vec<Arc<Process>>>, ScanError> {
    let mut owners: HashMap<u64, Vec<(u64, Arc<Process>)>> = HashMap::new();
    let mut users = Users::new();
    for process in procfs::process::all_processes()?.flatten() {
        let Ok(descriptors) = process.fd() else { continue };
        let held: HashSet<u64> = descriptors
            .flatten()
            .filter_map(|descriptor| match descriptor.target {
                FDTarget::Socket(inode) if inodes.contains(&inode) => Some(inode),
                _ => None,
            })
            .collect();
        if held.is_empty() {
            continue;
        }
        let Ok((start_time, description)) = describe(&process, &mut users) else { continue };
        let description = Arc::new(description);
        for inode in held {
            owners.entry(inode).or_default().push((start_time, Arc::clone(&description)));
        }
    }
    Ok(owners
        .into_iter()
        .map(|(inode, mut holders)| {
            holders.sort_by_key(|(start_time, process)| std::cmp::Reverse((*start_time, process.pid)));
            (inode, holders.into_iter().map(|(_, process)| process).collect())
        })
        .collect())
}

/// Names of users, each looked up once.
type Users = HashMap<u32, Option<Arc<str>>>;

/// A process as observations describe it, with its start time in ticks.
fn describe(process: &ProcProcess, users: &mut Users) -> ProcResult<(u64, Process)> {
    let stat = process.stat()?;
    let status: Status = parsed(process, "status")?;
    let mut arguments = bytes(process, "cmdline").map(|bytes| ring::arguments(&bytes)).unwrap_or_default();
    arguments.retain(|argument| !argument.is_empty());
    let executable = process.exe().ok().map(executable);
    let policy = RedactionPolicy::new(Addresses::default());
    let script = executable.as_deref().and_then(|path| script(path, &arguments));
    let cgroup: Option<Arc<str>> = parsed(process, "cgroup").ok().and_then(|groups: ProcessCGroups| {
        let group = groups.into_iter().find(|group| group.hierarchy == 0)?;
        Some(policy.cgroup(&group.pathname.as_str().into()))
    });
    let parent = u32::try_from(stat.ppid).ok().filter(|pid| *pid != 0).and_then(|pid| {
        let name = ProcProcess::new(stat.ppid).and_then(|parent| parent.stat()).ok()?.comm;
        Some(Parent { pid, name: process_name(name.as_bytes()).into() })
    });
    let description = Process {
        pid: process.pid.unsigned_abs(),
        name: process_name(stat.comm.as_bytes()).into(),
        script: script.map(|script| policy.script(script)),
        executable: executable.map(|path| policy.path(&path.into())),
        command_line: Some(policy.arguments(&arguments).join(" ")).filter(|text| !text.is_empty()).map(Into::into),
        uid: status.euid,
        user: users.entry(status.euid).or_insert_with(|| look_up(status.euid).map(Into::into)).clone(),
        preload: None,
        parent,
        container_id: cgroup.as_deref().and_then(cgroup::container_id).map(Into::into),
        systemd_unit: cgroup.as_deref().and_then(cgroup::systemd_unit).map(Into::into),
        cgroup,
    };
    Ok((stat.starttime, description))
}

/// A file of a process, whatever is in it that is not UTF-8: a program may name itself as it likes.
fn parsed<T: FromBufRead>(process: &ProcProcess, file: &str) -> ProcResult<T> {
    T::from_buf_read(String::from_utf8_lossy(&bytes(process, file)?).as_bytes())
}

fn bytes(process: &ProcProcess, file: &str) -> ProcResult<Vec<u8>> {
    let mut bytes = Vec::new();
    process.open_relative(file)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The path alone: the kernel adds a note where the file is gone, as after an upgrade. What memfd_create(2) made was never
/// anywhere.
fn executable(path: PathBuf) -> String {
    let text = path.as_os_str().to_string_lossy();
    match text.strip_suffix(" (deleted)") {
        Some(gone) if gone.starts_with("/memfd:") => gone[1..].to_owned(),
        Some(gone) => gone.to_owned(),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::net::{IpAddr, TcpListener, TcpStream};
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::unistd::Uid;
    use procfs::FromBufReadSI as _;
    use procfs::net::TcpNetEntries;

    use super::*;

    fn port_of(socket: &TcpListener) -> u16 {
        socket.local_addr().expect("bound").port()
    }

    fn me() -> u32 {
        std::process::id()
    }

    fn show(open: &[OpenConnection]) -> Vec<(Role, u16, Option<u32>)> {
        open.iter()
            .map(|open| (open.connection.role, open.connection.local.port, open.process.as_ref().map(|it| it.pid)))
            .collect()
    }

    #[test]
    fn both_ends_are_found_with_their_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = port_of(&listener);
        let client = TcpStream::connect(("127.0.0.1", port)).expect("listening");
        let local = client.local_addr().expect("connected").port();

        // Not accepted yet: nobody holds the server's socket.
        let waiting = open_connections(&[port]).expect("readable");
        assert_eq!(show(&waiting), [(Role::Client, local, Some(me())), (Role::Server, port, None)]);
        assert_eq!(
            waiting.iter().map(|open| open.no_process).collect::<Vec<_>>(),
            [None, Some(NoProcess::NotAccepted)]
        );

        let _server = listener.accept().expect("waiting");
        let open = open_connections(&[port]).expect("readable");
        assert_eq!(show(&open), [(Role::Client, local, Some(me())), (Role::Server, port, Some(me()))]);

        let process = open[0].process.as_deref().expect("this one");
        assert_eq!(process.uid, Uid::effective().as_raw());
        assert_eq!(process.user.as_deref(), look_up(process.uid).as_deref());
        let executable = std::env::current_exe().expect("known");
        assert_eq!(process.executable.as_deref(), executable.to_str());
        assert!(
            process.command_line.as_deref().is_some_and(|line| line.starts_with(executable.to_str().expect("UTF-8")))
        );
        assert!(process.parent.is_some());
        let netns = std::fs::read_link("/proc/self/ns/net").expect("readable");
        assert_eq!(netns.to_str(), Some(&*format!("net:[{}]", open[0].connection.netns)));

        let json = serde_json::to_value(&open[0]).expect("JSON");
        assert_eq!(json["connection"]["role"], "client");
        assert_eq!(json["connection"]["remote"], serde_json::json!({"address": "127.0.0.1", "port": port}));
        assert_eq!(json["process"]["pid"], me());
        assert!(json.get("shared_with").is_none());
    }

    #[test]
    fn a_program_that_names_itself_in_no_utf8_is_an_owner() {
        let mut child = Command::new("sh")
            .args(["-c", "printf 'smtp\\377' > /proc/self/comm && read line"])
            .arg0(OsStr::from_bytes(b"sm\xff"))
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let process = ProcProcess::new(child.id().cast_signed()).expect("a child");
        let patience = Instant::now() + Duration::from_secs(30);
        let described = loop {
            let described = describe(&process, &mut Users::new()).expect("readable").1;
            if &*described.name == "smtp\u{fffd}" || Instant::now() > patience {
                break described;
            }
            thread::sleep(Duration::from_millis(5));
        };
        drop(child.stdin.take());
        child.wait().expect("ends");
        assert_eq!(&*described.name, "smtp\u{fffd}");
        assert!(described.command_line.is_some_and(|line| line.starts_with("sm\u{fffd} -c ")));
    }

    #[test]
    fn addresses_in_either_family_are_shown_as_what_they_are() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = port_of(&listener);
        let _client = TcpStream::connect(("127.0.0.1", port)).expect("listening");
        let _server = listener.accept().expect("waiting");
        for open in open_connections(&[port]).expect("readable") {
            assert_eq!(open.connection.local.address, IpAddr::from([127, 0, 0, 1]), "{open:?}");
        }
    }

    #[test]
    fn only_a_server_waits_to_be_accepted() {
        assert_eq!(NoProcess::of(0, Role::Server), NoProcess::NotAccepted);
        assert_eq!(NoProcess::of(7, Role::Server), NoProcess::NotVisible);
        assert_eq!(NoProcess::of(0, Role::Client), NoProcess::NotVisible);
    }

    #[test]
    fn what_is_not_watched_and_what_only_listens_is_left_out() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        assert_eq!(open_connections(&[port_of(&listener)]).expect("readable"), []);
    }

    /// A line of `/proc/net/tcp`.
    fn entry(local: u16, remote: u16, state: TcpState, inode: u64) -> TcpNetEntry {
        let state = state.to_u8();
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 010200C0:{local:04X} 020200C0:{remote:04X} {state:02X} 00000000:00000000 00:00000000 00000000     \
             0        0 {inode} 1 0000000000000000 20 4 30 10 -1\n"
        );
        TcpNetEntries::from_buf_read(table.as_bytes(), procfs::current_system_info()).expect("well-formed").0.remove(0)
    }

    #[test]
    fn roles_and_states() {
        let roles = |entries: &[TcpNetEntry]| {
            watched(entries, &[25]).map(|(inode, socket)| (inode, socket.role)).collect::<Vec<_>>()
        };
        let listener = entry(25, 0, TcpState::Listen, 1);
        assert_eq!(roles(&[entry(40000, 25, TcpState::SynSent, 2)]), [(2, Role::Client)]);
        assert_eq!(roles(&[entry(25, 40000, TcpState::Established, 3)]), [(3, Role::Server)]);
        assert_eq!(roles(&[entry(25, 25, TcpState::Established, 4)]), [(4, Role::Client)]);
        assert_eq!(roles(&[listener, entry(25, 25, TcpState::Established, 5)]), [(5, Role::Server)]);
        assert_eq!(roles(&[entry(40000, 40001, TcpState::Established, 6)]), []);
        assert_eq!(roles(&[entry(25, 40000, TcpState::FinWait1, 0), entry(25, 40000, TcpState::TimeWait, 0)]), []);
        assert_eq!(roles(&[entry(25, 40000, TcpState::FinWait2, 7)]), [(7, Role::Server)]);
    }

    #[test]
    fn an_executable_that_was_replaced_keeps_its_path() {
        assert_eq!(executable("/usr/sbin/exim4 (deleted)".into()), "/usr/sbin/exim4");
        assert_eq!(executable(OsStr::new("/usr/sbin/exim4").into()), "/usr/sbin/exim4");
        assert_eq!(executable("/memfd:agent (deleted)".into()), "memfd:agent");
    }
}
