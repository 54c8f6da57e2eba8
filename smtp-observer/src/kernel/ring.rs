//! Records in the ring buffer, read as events.

use std::mem::MaybeUninit;
use std::sync::Arc;

use foldhash::HashMap;
use smtp_ebpf::event::{self as record, Kind};
use smtp_ebpf::library_call::Library;

use super::owners::Owners;
use super::users::Users;
use crate::event::{
    Flow, KernelEvent, MalformedRecord, OpenSocket, ProcessEvent, ProcessKey, Said, SeqNumbers, Socket, StateEvent,
    Task, TcpState, Time, TlsLibrary, TlsSession, TransferEvent, socket_address,
};
use crate::redact::process_name;

/// Most command names kept to be shared between events.
const MAX_NAMES: usize = 1024;

/// Turns records into events.
#[derive(Default)]
pub struct Reader {
    names: HashMap<[u8; record::COMM_LENGTH], Arc<str>>,
    users: Users,
    owners: Owners,
    /// Of the record that is read.
    time: Time,
}

impl Reader {
    /// One that does not name users: before privileges are given up there is one thread.
    pub fn without_users() -> Self {
        Self { users: Users::without_names(), ..Self::default() }
    }

    /// The kind of a record and the event in it, if it is one: an [`record::Owner`] is told with the transfers that it is for.
    pub fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<(Kind, Option<KernelEvent<'a>>), MalformedRecord> {
        let header: record::Header = prefix(bytes)?;
        let kind = Kind::from_number(header.kind).ok_or(MalformedRecord::Kind(header.kind))?;
        self.time = Time(header.time);
        let event = match kind {
            Kind::Process => KernelEvent::Process(self.process(bytes)?),
            Kind::State => KernelEvent::State(self.state(&prefix(bytes)?)),
            Kind::Send => KernelEvent::Transfer(self.transfer(bytes, kind, Flow::Sent)?),
            Kind::Receive => KernelEvent::Transfer(self.transfer(bytes, kind, Flow::Received)?),
            Kind::Owner => {
                self.owner(bytes)?;
                return Ok((kind, None));
            }
        };
        Ok((kind, Some(event)))
    }

    fn process(&mut self, bytes: &[u8]) -> Result<ProcessEvent, MalformedRecord> {
        let record: record::Process = prefix(bytes)?;
        let [executable, arguments, cgroup, preload] = parts(
            bytes,
            size_of::<record::Process>(),
            [record.executable, record.arguments, record.cgroup, record.preload],
        )?;
        Ok(ProcessEvent {
            time: Time(record.header.time),
            executable: (!executable.is_empty()).then(|| file(executable, record.detached != 0)),
            arguments: self::arguments(arguments),
            cgroup: Some(path(cgroup)),
            preload: (!preload.is_empty()).then(|| String::from_utf8_lossy(preload).into()),
            parent_pid: record.parent_pid,
            parent_comm: self.name(record.parent_comm),
            task: self.task(&record.task),
        })
    }

    fn owner(&mut self, bytes: &[u8]) -> Result<(), MalformedRecord> {
        let record: record::Owner = prefix(bytes)?;
        let task = self.task(&record.task);
        self.owners.set(socket(&record.socket), task);
        Ok(())
    }

    /// The event of a record, wherever that was.
    pub(super) fn state(&mut self, record: &record::State) -> StateEvent {
        self.time = Time(record.header.time);
        let new = TcpState::from_number(record.new);
        if new == TcpState::Close {
            self.owners.close(record.socket.cookie);
        }
        StateEvent {
            time: self.time,
            task: (record.task.pid != 0).then(|| self.task(&record.task)),
            socket: socket(&record.socket),
            positions: positions(record.positions),
            new,
            requested: (record.requested_family != 0).then(|| socket_address(record.requested, record.requested_port)),
            peer: (record.peer != 0).then_some(record.peer),
            transparent: record.transparent != 0,
            local_route: record.local_route != 0,
            error: record.error,
            unread: record.unread,
        }
    }

    fn transfer<'a>(&mut self, bytes: &'a [u8], kind: Kind, flow: Flow) -> Result<TransferEvent<'a>, MalformedRecord> {
        let record: record::Transfer = prefix(bytes)?;
        let [said] = parts(bytes, size_of::<record::Transfer>(), [record.size])?;
        let (socket, task) = self.owners.get(record.cookie, record.pid).ok_or(MalformedRecord::Owner(kind))?;
        Ok(TransferEvent {
            time: Time(record.time),
            task: Task { tid: record.tid, ..task.clone() },
            socket: Socket {
                state: TcpState::from_number(record.state.into()),
                seq_unreliable: record.seq_unreliable != 0,
                ..*socket
            },
            positions: positions(record.positions),
            flow,
            length: record.length,
            continues: record.continues != 0,
            tls: tls_session(record.tls),
            said: Said::read(said)?,
        })
    }

    /// What the iterator writes of a process and a socket that it holds, and the length of it. The process's arguments
    /// are not in it.
    pub fn open(&mut self, bytes: &[u8]) -> Result<(ProcessEvent, OpenSocket, usize), MalformedRecord> {
        let record: record::Open = prefix(bytes)?;
        let [executable, cgroup] = parts(bytes, size_of::<record::Open>(), [record.executable, record.cgroup])?;
        self.time = Time(record.time);
        let (time, task) = (self.time, self.task(&record.task));
        let process = ProcessEvent {
            time,
            task: task.clone(),
            executable: (!executable.is_empty()).then(|| file(executable, record.detached != 0)),
            arguments: Vec::new(),
            cgroup: Some(path(cgroup)),
            preload: None,
            parent_pid: record.parent_pid,
            parent_comm: self.name(record.parent_comm),
        };
        let socket = OpenSocket { time, task, socket: socket(&record.socket), positions: positions(record.positions) };
        Ok((process, socket, size_of::<record::Open>() + executable.len() + cgroup.len()))
    }

    fn task(&mut self, task: &record::Task) -> Task {
        Task {
            process: ProcessKey { pid: task.pid, start_time: Time(task.start_time), exec_id: task.exec_id },
            tid: task.tid,
            uid: task.uid,
            user: self.users.name(task.uid, self.time),
            comm: self.name(task.comm),
        }
    }

    /// A command name, shared: a busy host has few.
    fn name(&mut self, comm: [u8; record::COMM_LENGTH]) -> Arc<str> {
        if let Some(name) = self.names.get(&comm) {
            return Arc::clone(name);
        }
        if self.names.len() >= MAX_NAMES {
            self.names.clear();
        }
        let name: Arc<str> = process_name(strings(&comm).next().unwrap_or_default()).into();
        self.names.insert(comm, Arc::clone(&name));
        name
    }
}

/// A record that may be read from any bytes.
///
/// # Safety
/// The type has no padding and no byte pattern that is not a value of it.
unsafe trait Plain: Copy {}
// SAFETY: integers and arrays of integers with explicit padding.
unsafe impl Plain for record::Header {}
// SAFETY: as above.
unsafe impl Plain for record::Process {}
// SAFETY: as above.
unsafe impl Plain for record::State {}
// SAFETY: as above.
unsafe impl Plain for record::Owner {}
// SAFETY: as above.
unsafe impl Plain for record::Transfer {}
// SAFETY: as above.
unsafe impl Plain for record::Open {}

/// The record that `bytes` start with.
fn prefix<T: Plain>(bytes: &[u8]) -> Result<T, MalformedRecord> {
    let source = bytes.get(..size_of::<T>()).ok_or(MalformedRecord::Short(bytes.len()))?;
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the source has the size of T, and any bytes are a T.
    unsafe {
        source.as_ptr().copy_to_nonoverlapping(value.as_mut_ptr().cast(), size_of::<T>());
        Ok(value.assume_init())
    }
}

/// The parts of these lengths that follow each other from `start`.
fn parts<const N: usize>(bytes: &[u8], start: usize, lengths: [u32; N]) -> Result<[&[u8]; N], MalformedRecord> {
    let mut rest = bytes.get(start..).ok_or(MalformedRecord::Short(bytes.len()))?;
    let mut parts = [&[][..]; N];
    for (part, length) in parts.iter_mut().zip(lengths) {
        (*part, rest) = rest.split_at_checked(length as usize).ok_or(MalformedRecord::Short(bytes.len()))?;
    }
    Ok(parts)
}

/// What a transfer tells of TLS.
fn tls_session(tls: u8) -> TlsSession {
    let library = Library::from_number(u32::from(tls & record::TLS_LIBRARY)).map(TlsLibrary::from);
    let has = |bit| tls & bit != 0;
    TlsSession { library, plaintext: has(record::TLS_PLAINTEXT), from_start: has(record::TLS_FROM_START) }
}

/// An argument vector.
pub fn arguments(bytes: &[u8]) -> Vec<String> {
    strings(bytes).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// NUL-terminated strings, one after the other.
fn strings(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.strip_suffix(&[0]).unwrap_or(bytes).split(|&byte| byte == 0)
}

/// The path of a file, or its name where it has none.
fn file(components: &[u8], detached: bool) -> Arc<str> {
    match strings(components).next() {
        Some(name) if detached => String::from_utf8_lossy(name).into(),
        _ => path(components),
    }
}

/// Path components, leaf first, as a path.
fn path(components: &[u8]) -> Arc<str> {
    if components.is_empty() {
        return "/".into();
    }
    let mut names: Vec<&[u8]> = strings(components).collect();
    names.reverse();
    let mut path = String::with_capacity(components.len() + 1);
    for name in names {
        path.push('/');
        path.push_str(&String::from_utf8_lossy(name));
    }
    path.into()
}

fn socket(socket: &record::Socket) -> Socket {
    Socket {
        cookie: socket.cookie,
        netns: socket.netns,
        local: socket_address(socket.local, socket.local_port),
        remote: socket_address(socket.remote, socket.remote_port),
        state: TcpState::from_number(socket.state.into()),
        seq_unreliable: socket.seq_unreliable != 0,
    }
}

fn positions(positions: record::SeqNumbers) -> SeqNumbers {
    SeqNumbers { write_seq: positions.write_seq, copied_seq: positions.copied_seq }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_leaf_first() {
        assert_eq!(&*path(b"smtpd\0sbin\0postfix\0lib\0usr\0"), "/usr/lib/postfix/sbin/smtpd");
        assert_eq!(&*path(b""), "/");
    }

    #[test]
    fn a_file_in_no_directory_has_a_name_alone() {
        assert_eq!(&*file(b"memfd:agent\0", true), "memfd:agent");
        assert_eq!(&*file(b"memfd:agent\0", false), "/memfd:agent");
    }

    #[test]
    fn an_empty_argument_in_the_middle_is_kept() {
        let arguments: Vec<_> = strings(b"swaks\0--from\0\0--quit\0").collect();
        assert_eq!(arguments, [&b"swaks"[..], b"--from", b"", b"--quit"]);
    }

    #[test]
    fn short_and_unknown_records_are_refused() {
        let mut reader = Reader::default();
        assert_eq!(reader.read(&[]).err(), Some(MalformedRecord::Short(0)));
        assert_eq!(reader.read(&[0xff; 200]).err(), Some(MalformedRecord::Kind(u32::MAX)));
        let mut owner = vec![0; size_of::<record::Owner>()];
        owner[0] = Kind::Owner as u8;
        let mut send = vec![0; size_of::<record::Transfer>()];
        send[0] = Kind::Send as u8;
        assert_eq!(reader.read(&send).err(), Some(MalformedRecord::Owner(Kind::Send)), "nobody was named");
        assert_eq!(reader.read(&owner), Ok((Kind::Owner, None)));
        assert!(matches!(reader.read(&send), Ok((Kind::Send, Some(KernelEvent::Transfer(_))))));
        // Segments that are not there, and one that is none.
        let size = std::mem::offset_of!(record::Transfer, size);
        send[size..][..4].copy_from_slice(&8_u32.to_ne_bytes());
        assert_eq!(reader.read(&send).err(), Some(MalformedRecord::Short(send.len())));
        send.extend([99, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reader.read(&send).err(), Some(MalformedRecord::Segment(99)));
    }
}
