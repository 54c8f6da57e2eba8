//! Which sockets are open, and who holds them: a walk over the descriptors of every process (Linux 5.11).

use core::ffi::c_void;

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use smtp_ebpf::event::{self, CGROUP_LENGTH, EXECUTABLE_LENGTH, Open};

use crate::capture;
use crate::kernel::{File, Memory, Sequence, Task};
use crate::owner::{CGROUP_ROOM, PATH_ROOM, ascend, length, name_parent};
use crate::socket::{self, Stream};
use crate::state::{TCP_CLOSE, TCP_LISTEN};

/// `struct bpf_iter__task_file` (`kernel/bpf/task_iter.c`); each member is a slot of eight bytes.
#[repr(C)]
pub struct TaskFile {
    meta: *const u8,
    task: *const u8,
    descriptor: u64,
    file: *const u8,
}

#[repr(C)]
struct Entry {
    record: Open,
    bytes: [u8; PATH_ROOM + CGROUP_ROOM],
}

#[map]
static ENTRY: PerCpuArray<Entry> = PerCpuArray::with_max_entries(1, 0);

/// Called for each descriptor of each process; user space reads what it writes.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
fn open_sockets(context: *const TaskFile) -> i32 {
    // SAFETY: the kernel passes its structure.
    let TaskFile { meta, task, file, .. } = unsafe { &*context };
    // After the last descriptor both are missing.
    if !task.is_null() && !file.is_null() {
        list(Sequence::of_iterator(*meta), Task::new(*task), File::new(*file));
    }
    0
}

#[inline(always)]
fn list(output: Sequence, task: Task, file: File) {
    let Some(sock) = file.sock() else { return };
    if !socket::is_known(sock) {
        return;
    }
    let Some(stream) = Stream::of(sock) else { return };
    if matches!(u32::from(sock.state()), TCP_LISTEN | TCP_CLOSE) {
        return;
    }
    let Some(entry) = ENTRY.get_ptr_mut(0) else { return };

    let leader = task.leader();
    // SAFETY: the pointer is to this CPU's map value, and every offset below is checked against its size.
    unsafe {
        let record = &raw mut (*entry).record;
        *record = Open {
            time: capture::now(),
            task: event::Task {
                start_time: leader.start_boottime(),
                pid: task.tgid(),
                tid: task.tgid(),
                uid: task.euid(),
                exec_id: task.exec_id(),
                comm: leader.comm(),
            },
            socket: stream.describe(),
            positions: stream.positions(),
            parent_pid: 0,
            executable: 0,
            cgroup: 0,
            detached: 0,
            parent_comm: [0; event::COMM_LENGTH],
        };
        name_parent(&raw mut (*record).parent_pid, &raw mut (*record).parent_comm, task);
        let bytes = (&raw mut (*entry).bytes).cast::<u8>();
        if let Some(path) = task.memory().and_then(Memory::executable) {
            let path = ascend::<_, EXECUTABLE_LENGTH>(bytes, &raw mut (*record).executable, path);
            (*record).detached = u32::from(path.is_detached());
        }
        let executable = length(&raw const (*record).executable, PATH_ROOM);
        if let Some(cgroup) = task.cgroup() {
            ascend::<_, CGROUP_LENGTH>(bytes.add(executable), &raw mut (*record).cgroup, cgroup);
        }
        let cgroup = length(&raw const (*record).cgroup, CGROUP_ROOM);
        output.write(entry.cast::<c_void>(), (size_of::<Open>() + executable + cgroup) as u32);
    }
}
