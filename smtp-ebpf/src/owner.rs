//! Who is calling: every record names its task; a process is described before the first record that names it.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use smtp_ebpf::event::{self, ARGUMENTS_LENGTH, CGROUP_LENGTH, EXECUTABLE_LENGTH, Kind, PRELOAD_LENGTH};

use crate::kernel::{Ascend, Memory, Task, copy_kernel_string, copy_user};
use crate::program::Program;
use crate::{capture, environment, plaintext};

/// Most components of a path that are walked.
const MAX_COMPONENTS: u32 = 64;

/// Longest component of a path, its NUL included (`NAME_MAX + 1`).
const COMPONENT_LENGTH: usize = 256;

/// Processes already described. User space remembers more of them than this.
#[map]
static DESCRIBED: LruHashMap<ProcessKey, u8> = LruHashMap::with_max_entries(event::DESCRIBED_PROCESSES, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct ProcessKey {
    start_time: u64,
    pid: u32,
    exec_id: u32,
}

/// Room for a path and one component more than fits.
pub const PATH_ROOM: usize = EXECUTABLE_LENGTH + COMPONENT_LENGTH;
pub const CGROUP_ROOM: usize = CGROUP_LENGTH + COMPONENT_LENGTH;

#[repr(C)]
struct Description {
    record: event::Process,
    bytes: [u8; PATH_ROOM + ARGUMENTS_LENGTH + CGROUP_ROOM + PRELOAD_LENGTH],
}

#[map]
static DESCRIPTION: PerCpuArray<Description> = PerCpuArray::with_max_entries(Program::COUNT, 0);

/// The task that makes this call; only meaningful in process context.
#[inline(always)]
pub fn current() -> event::Task {
    let task = Task::current();
    let leader = task.leader();
    event::Task {
        start_time: leader.start_boottime(),
        pid: task.tgid(),
        tid: task.pid(),
        uid: task.euid(),
        exec_id: task.exec_id(),
        comm: leader.comm(),
    }
}

/// Writes down a task as records name it, field by field: it never is on the stack.
///
/// # Safety
/// `place` belongs to a map value.
#[inline(always)]
pub unsafe fn write(task: Task, place: *mut event::Task) {
    let leader = task.leader();
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*place).start_time).write_volatile(leader.start_boottime());
        (&raw mut (*place).pid).write_volatile(task.tgid());
        (&raw mut (*place).tid).write_volatile(task.pid());
        (&raw mut (*place).uid).write_volatile(task.euid());
        (&raw mut (*place).exec_id).write_volatile(task.exec_id());
        (&raw mut (*place).comm).cast::<[u64; 2]>().write_volatile(leader.comm_words());
    }
}

/// No task: the kernel acts on its own behalf.
pub const NOBODY: event::Task =
    event::Task { start_time: 0, pid: 0, tid: 0, uid: 0, exec_id: 0, comm: [0; event::COMM_LENGTH] };

/// Sends the long description of the current process, once.
#[inline(always)]
pub fn describe_once<C: EbpfContext>(context: &C, program: Program, caller: &event::Task, time: u64) {
    let key = ProcessKey { start_time: caller.start_time, pid: caller.pid, exec_id: caller.exec_id };
    // SAFETY: the value is not read, only its presence.
    if unsafe { DESCRIBED.get(key) }.is_none() && describe(context, program as u32, caller, time) {
        // A failure here means one description too many, no harm.
        let _ = DESCRIBED.insert(key, 1, 0);
        plaintext::notice(u64::from(caller.pid), 0);
    }
}

#[inline(never)]
fn describe<C: EbpfContext>(context: &C, program: u32, caller: &event::Task, time: u64) -> bool {
    let Some(description) = DESCRIPTION.get_ptr_mut(program) else {
        return false;
    };
    // Each is read where it is used: what stays for later takes room on the stack.
    // SAFETY: the pointer is to this CPU's map value, and every offset below is checked against its size.
    unsafe {
        let record = &raw mut (*description).record;
        (*record).header = capture::header(Kind::Process, time);
        (*record).task = *caller;
        name_parent(&raw mut (*record).parent_pid, &raw mut (*record).parent_comm, Task::current());

        let bytes = (&raw mut (*description).bytes).cast::<u8>();
        (*record).executable = 0;
        (*record).detached = 0;
        if let Some(path) = Task::current().memory().and_then(Memory::executable) {
            let path = ascend::<_, EXECUTABLE_LENGTH>(bytes, &raw mut (*record).executable, path);
            (*record).detached = u32::from(path.is_detached());
        }
        let executable = length(&raw const (*record).executable, PATH_ROOM);
        (*record).arguments = arguments(bytes.add(executable), Task::current().memory());
        let arguments = length(&raw const (*record).arguments, ARGUMENTS_LENGTH);
        (*record).cgroup = 0;
        if let Some(cgroup) = Task::current().cgroup() {
            ascend::<_, CGROUP_LENGTH>(bytes.add(executable + arguments), &raw mut (*record).cgroup, cgroup);
        }
        let cgroup = length(&raw const (*record).cgroup, CGROUP_ROOM);

        (*record).preload =
            environment::preload(bytes.add(executable + arguments + cgroup), program, Task::current().memory());
        let preload = length(&raw const (*record).preload, PRELOAD_LENGTH);

        let size = size_of::<event::Process>() + executable + arguments + cgroup + preload;
        capture::output(context, program, Kind::Process, description.cast(), size, size_of::<Description>())
    }
}

/// Writes down who a task's parent is: the process that has forked its own.
///
/// # Safety
/// Both places belong to a map value.
#[inline(always)]
pub unsafe fn name_parent(pid: *mut u32, comm: *mut [u8; event::COMM_LENGTH], task: Task) {
    // SAFETY: the caller's promise.
    unsafe {
        pid.write_volatile(0);
        comm.write([0; event::COMM_LENGTH]);
        if let Some(parent) = task.parent() {
            pid.write_volatile(parent.tgid().unwrap_or_default());
            parent.copy_comm(comm);
        }
    }
}

/// A length kept in a map value, cut to `limit`.
///
/// The verifier forgets what it knew of a number that went through a map. That is the point: else it follows each
/// length that each path through a loop may have left, and gives up.
///
/// # Safety
/// `place` belongs to a map value.
#[inline(always)]
pub unsafe fn length(place: *const u32, limit: usize) -> usize {
    // SAFETY: the caller's promise.
    let length = unsafe { place.read_volatile() } as usize;
    if length > limit { limit } else { length }
}

/// A path that is being written.
#[repr(C)]
struct Ascent<A> {
    place: A,
    destination: *mut u8,
    used: *mut u32,
}

/// Writes the components of a path, leaf first, each ended by a NUL, and counts the bytes in `used`. Where the ascent has
/// ended.
///
/// # Safety
/// `LENGTH + COMPONENT_LENGTH` bytes at `destination` belong to a map value, and `used` too.
#[inline(always)]
pub unsafe fn ascend<A: Ascend, const LENGTH: usize>(destination: *mut u8, used: *mut u32, place: A) -> A {
    let mut ascent = Ascent { place, destination, used };
    // SAFETY: the helper passes the index and the pointer to the function.
    unsafe {
        bpf_loop(MAX_COMPONENTS, write_component::<A, LENGTH> as *mut c_void, (&raw mut ascent).cast(), 0);
        (&raw const ascent.place).read_volatile()
    }
}

/// Writes the next component; the body of a `bpf_loop` (Linux 5.17), which the verifier reads once.
unsafe extern "C" fn write_component<A: Ascend, const LENGTH: usize>(_: u64, ascent: *mut Ascent<A>) -> i64 {
    // SAFETY: `ascend` passes its own, with its caller's promises; start < LENGTH, so a component fits.
    unsafe {
        let Ascent { place, destination, used } = &mut *ascent;
        let start = used.read_volatile() as usize;
        if start >= LENGTH {
            return 1;
        }
        let Some(name) = place.step() else { return 1 };
        if name != 0 {
            let size = copy_kernel_string(destination.add(start), COMPONENT_LENGTH as u32, name);
            used.write_volatile((start + size) as u32);
        }
        0
    }
}

/// Copies the argument vector, as much as fits; how many bytes.
///
/// # Safety
/// `ARGUMENTS_LENGTH` bytes at `destination` belong to a map value.
#[inline(always)]
unsafe fn arguments(destination: *mut u8, memory: Option<Memory>) -> u32 {
    let Some((start, end)) = memory.and_then(Memory::arguments) else {
        return 0;
    };
    let mut length = end.saturating_sub(start);
    if length > ARGUMENTS_LENGTH as u64 {
        length = ARGUMENTS_LENGTH as u64;
    }
    // SAFETY: length is at most ARGUMENTS_LENGTH.
    if unsafe { copy_user(destination, length as u32, start) } { length as u32 } else { 0 }
}
