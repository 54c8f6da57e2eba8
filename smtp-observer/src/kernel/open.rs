//! The sockets that are open now, and who holds each: what the iterator over the processes' descriptors writes.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};

use aya::programs::Iter;
use aya::{Btf, Ebpf};
use foldhash::HashMap;
use procfs::process::Process;
use smtp_ebpf::event::ARGUMENTS_LENGTH;
use tracing::warn;

use super::diagnostics::hidden_processes;
use super::ring::{Reader, arguments};
use super::this_host::in_proc;
use super::{Error, with_causes};
use crate::event::{OpenSocket, ProcessEvent, ProcessKey, Snapshot, Time};

/// The program, and the kernel's iterator that it is for.
const PROGRAM: &str = "open_sockets";
const ITERATOR: &str = "task_file";

/// Loads the program, unless it is. Only this takes a privilege; making an iterator of it and reading that takes none.
pub(super) fn load(programs: &mut Ebpf, btf: &Btf) -> Result<(), Error> {
    let program = program(programs)?;
    if program.fd().is_err() {
        program.load(ITERATOR, btf)?;
    }
    Ok(())
}

/// Arguments of processes, as they were read while that was allowed.
pub type Arguments = HashMap<ProcessKey, Vec<String>>;

/// The arguments of those that hold sockets now. Whatever cannot be read is left out.
pub fn arguments_now(programs: &mut Ebpf, time: Time) -> Result<Arguments, Error> {
    let snapshot = list(programs, &mut Reader::without_users(), time, &Arguments::default())?;
    let said = snapshot.processes.into_iter().filter(|process| !process.arguments.is_empty());
    Ok(said.map(|process| (process.task.process, process.arguments)).collect())
}

/// Lists the open sockets; `time` is from before the first of them is read. Arguments that cannot be read are those that are
/// known.
pub fn list(programs: &mut Ebpf, reader: &mut Reader, time: Time, known: &Arguments) -> Result<Snapshot, Error> {
    let program = program(programs)?;
    let link = program.attach()?;
    let iterator = program.take_link(link)?.into_file().map_err(|error| Error::Refused(with_causes(&error)))?;
    let records = read(iterator).map_err(|error| Error::Refused(with_causes(&error)))?;

    let mut processes: HashMap<ProcessKey, ProcessEvent> = HashMap::default();
    let mut sockets: HashMap<u64, OpenSocket> = HashMap::default();
    let mut rest = &records[..];
    while !rest.is_empty() {
        let (process, socket, length) = match reader.open(rest) {
            Ok(open) => open,
            Err(error) => {
                warn!("{error}");
                break;
            }
        };
        rest = &rest[length..];
        let key = process.task.process;
        processes.entry(key).or_insert_with(|| {
            let arguments = said(&process).or_else(|| known.get(&key).cloned()).unwrap_or_default();
            ProcessEvent { arguments, ..process }
        });
        let holder = sockets.entry(socket.socket.cookie).or_insert_with(|| socket.clone());
        // A parent and its children share it: the youngest was made to use it.
        if age(&socket) > age(holder) {
            *holder = socket;
        }
    }
    Ok(Snapshot {
        time,
        processes: processes.into_values().collect(),
        sockets: sockets.into_values().collect(),
        // The iterator goes over the processes of its reader's pid namespace.
        partial: hidden_processes().is_some(),
    })
}

fn age(socket: &OpenSocket) -> (Time, u32) {
    (socket.task.process.start_time, socket.task.process.pid)
}

fn program(programs: &mut Ebpf) -> Result<&mut Iter, Error> {
    let program =
        programs.program_mut(PROGRAM).ok_or_else(|| Error::Refused(format!("the object has no program {PROGRAM}")))?;
    Ok(program.try_into()?)
}

/// All that the iterator has to say.
fn read(mut iterator: File) -> io::Result<Vec<u8>> {
    let mut records = Vec::new();
    loop {
        match iterator.read_to_end(&mut records) {
            Ok(_) => return Ok(records),
            // After a million descriptors without a record the kernel wants to be asked to go on (bpf_seq_read).
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A process's arguments, which only its own calls show in the kernel; none where it is gone by now, or hidden.
fn said(process: &ProcessEvent) -> Option<Vec<String>> {
    let ProcessKey { pid, start_time, .. } = process.task.process;
    let read = || {
        let mut bytes = Vec::new();
        let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
        file.take(ARGUMENTS_LENGTH as u64).read_to_end(&mut bytes).ok()?;
        // The pid may be another's by now: its start time is not.
        let started = Process::new(pid.cast_signed()).and_then(|process| process.stat()).ok()?.starttime;
        (started == in_proc(start_time).0 / (1_000_000_000 / procfs::ticks_per_second())).then_some(bytes)
    };
    read().map(|bytes| arguments(&bytes))
}
