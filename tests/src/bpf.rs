//! What of eBPF lives in the kernel now, and programs of a test's own.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::feed::PATIENCE;

// include/uapi/linux/bpf.h
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_MAP_GET_FD_BY_ID: i32 = 14;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_LINK_CREATE: i32 = 28;
const BPF_PROG_GET_NEXT_ID: i32 = 11;
const BPF_MAP_GET_NEXT_ID: i32 = 12;
const BPF_LINK_GET_NEXT_ID: i32 = 31;

/// The numbers of all programs, maps and links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects(BTreeSet<(&'static str, u32)>);

impl Objects {
    /// Those that there are now, on the whole host.
    pub fn now() -> io::Result<Self> {
        let mut objects = BTreeSet::new();
        for (kind, command) in
            [("program", BPF_PROG_GET_NEXT_ID), ("map", BPF_MAP_GET_NEXT_ID), ("link", BPF_LINK_GET_NEXT_ID)]
        {
            let mut last = 0;
            while let Some(next) = next(command, last)? {
                objects.insert((kind, next));
                last = next;
            }
        }
        Ok(Self(objects))
    }

    /// Those that were not there before.
    pub fn since(&self, before: &Self) -> Self {
        Self(self.0.difference(&before.0).copied().collect())
    }

    /// Whether there are programs, maps and links among them.
    pub fn has_every_kind(&self) -> bool {
        ["program", "map", "link"].iter().all(|kind| self.0.iter().any(|(other, _)| other == kind))
    }

    /// The names of the programs among them.
    pub fn programs(&self) -> io::Result<Vec<String>> {
        let numbers = self.0.iter().filter(|(kind, _)| *kind == "program");
        numbers.map(|&(_, number)| program_name(&obtain(BPF_PROG_GET_FD_BY_ID, &[number, 0, 0])?)).collect()
    }

    /// Waits until none of them is there any more: the kernel frees them in its own time, and tells nobody.
    pub fn wait_gone(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::now()?;
            let left: Vec<_> = self.0.intersection(&now.0).collect();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("still in the kernel: {left:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The map with this name that a process holds.
pub fn map_of(pid: u32, name: &str) -> Result<OwnedFd> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let information = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let number = information.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok());
        if let Some(number) = number {
            let map = obtain(BPF_MAP_GET_FD_BY_ID, &[number, 0_u32, 0])?;
            if map_name(&map)? == name {
                return Ok(map);
            }
        }
    }
    bail!("the process has no map that is called {name}")
}

/// The start of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    numbers: [u32; 6],
    name: [u8; 16],
}

/// The part of `union bpf_attr` that asking for information takes.
#[repr(C)]
struct AskInfo {
    bpf_fd: i32,
    info_len: u32,
    info: u64,
}

/// The part that looking up a value takes.
#[repr(C)]
struct LookUp {
    map_fd: i32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The start of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    numbers: [u64; 8],
    name: [u8; 16],
}

fn map_name(map: &OwnedFd) -> io::Result<String> {
    Ok(text(&information::<MapInfo>(map)?.name))
}

fn program_name(program: &OwnedFd) -> io::Result<String> {
    Ok(text(&information::<ProgramInfo>(program)?.name))
}

fn text(name: &[u8]) -> String {
    name.split(|byte| *byte == 0).next().map(String::from_utf8_lossy).unwrap_or_default().into_owned()
}

/// The start of what the kernel says of an object; `T` is numbers and bytes.
fn information<T: Default>(object: &OwnedFd) -> io::Result<T> {
    let mut info = T::default();
    let attribute =
        AskInfo { bpf_fd: object.as_raw_fd(), info_len: size_of::<T>() as u32, info: (&raw mut info) as u64 };
    command(BPF_OBJ_GET_INFO_BY_FD, &attribute)?;
    Ok(info)
}

/// The number at a place of an array of numbers of eight bytes.
pub fn number_at(map: &OwnedFd, place: u32) -> io::Result<u64> {
    let mut number = 0_u64;
    let attribute = LookUp {
        map_fd: map.as_raw_fd(),
        padding: 0,
        key: (&raw const place) as u64,
        value: (&raw mut number) as u64,
        flags: 0,
    };
    command(BPF_MAP_LOOKUP_ELEM, &attribute)?;
    Ok(number)
}

/// One of those commands of bpf(2) that write to where the attribute points.
fn command<T>(command: i32, attribute: &T) -> io::Result<()> {
    // SAFETY: the kernel reads no more than the attribute's size, and writes what its caller has made room for.
    match unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attribute, size_of::<T>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The number after this one.
fn next(command: i32, last: u32) -> io::Result<Option<u32>> {
    // The start of `union bpf_attr` for this command: start_id, next_id, open_flags.
    let mut attribute = [last, 0, 0];
    // SAFETY: the kernel reads and writes no more than the attribute's size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size_of_val(&attribute)) };
    match result {
        0 => Ok(Some(attribute[1])),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            error => Err(error),
        },
    }
}

/// The part of `union bpf_attr` that loading a program takes.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 4],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    debug_info: [u32; 9],
    attach_btf_id: u32,
}

/// The part that attaching it takes.
#[repr(C)]
struct Attach {
    prog_fd: i32,
    target_fd: i32,
    attach_type: u32,
    flags: u32,
}

/// Loads a program of this type, to be attached in this way, where it takes that to what has this number in the kernel's
/// BTF.
pub fn load(program: u32, attach: u32, btf_id: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    obtain(
        BPF_PROG_LOAD,
        &Load {
            prog_type: program,
            insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
            insns: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            expected_attach_type: attach,
            attach_btf_id: btf_id,
            ..Load::default()
        },
    )
}

/// Attaches a program until what is returned is closed.
pub fn attach(program: &impl AsFd, to: &impl AsFd, attach: u32) -> io::Result<OwnedFd> {
    let [prog_fd, target_fd] = [program.as_fd(), to.as_fd()].map(|descriptor| descriptor.as_raw_fd());
    obtain(BPF_LINK_CREATE, &Attach { prog_fd, target_fd, attach_type: attach, flags: 0 })
}

/// One of those commands of bpf(2) that hand out a descriptor. The attribute is the part of `union bpf_attr` that it takes.
pub fn obtain<T>(command: i32, attribute: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads no more than the attribute's size, and what it points to outlives the call.
    let descriptor = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attribute, size_of::<T>()) };
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just handed out this descriptor, to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
