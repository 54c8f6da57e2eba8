//! Probes of which one link holds many (`BPF_TRACE_UPROBE_MULTI`, `kernel/trace/bpf_trace.c`).
//!
//! A probe that is a perf event is taken away under one lock for all of them, and the kernel waits for a grace period each
//! time: some ten a second. Where processes come and go faster, the probes of those that have ended would become ever more, and
//! each call of a library is asked about by all of them. These are taken away many at once.
//!
//! aya makes such links since its version 0.15, which asks for rustc 1.98. Until that may be used, this loads the programs and
//! makes the links.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya_obj::generated::bpf_attach_type::BPF_TRACE_UPROBE_MULTI;
use aya_obj::generated::bpf_cmd::{self, BPF_BTF_LOAD, BPF_LINK_CREATE, BPF_PROG_LOAD};
use aya_obj::generated::bpf_prog_type::BPF_PROG_TYPE_KPROBE;
use aya_obj::generated::{BPF_F_UPROBE_MULTI_RETURN, bpf_attr};
use aya_obj::{Function, Object, Program};
use procfs::KernelVersion;

use crate::kernel::with_causes;

/// The first kernel that takes a link's probes away behind one grace period. Since 6.10 a process is told from another by all of
/// its threads.
const FIRST_KERNEL: [u8; 2] = [6, 12];

/// Bytes of a program's name, without the NUL at its end (`BPF_OBJ_NAME_LEN`).
const MAX_NAME: usize = 15;

/// Programs cannot be had this way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object is not as it was when it was loaded.
    #[error("the object cannot be read: {0}")]
    Object(String),
    /// The kernel does not take it.
    #[error("{0}: {1}")]
    Refused(&'static str, io::Error),
}

/// Whether this kernel has such links.
pub fn is_possible() -> bool {
    KernelVersion::current().is_ok_and(|version| [version.major, version.minor] >= FIRST_KERNEL)
}

/// Loads programs of an object whose maps are there already.
pub fn load<const N: usize>(bytes: &[u8], maps: &Ebpf, names: [&'static str; N]) -> Result<[OwnedFd; N], Error> {
    let unreadable = |error: &dyn std::error::Error| Error::Object(with_causes(error));
    let mut object = Object::parse(bytes).map_err(|error| unreadable(&error))?;
    let types = match aya::features().btf() {
        Some(features) => object.fixup_and_sanitize_btf(features).map_err(|error| unreadable(&error))?,
        None => None,
    };
    let types = types.map(|types| load_types(&types.to_bytes())).transpose()?;
    let known = std::mem::take(&mut object.maps);
    let made = maps.maps().filter_map(|(name, map)| {
        let (name, known) = known.get_key_value(name)?;
        Some((name.as_str(), descriptor(map)?, known))
    });
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(made, &sections).map_err(|error| unreadable(&error))?;
    object.relocate_calls(&sections).map_err(|error| unreadable(&error))?;
    object.sanitize_functions(aya::features());
    let load = |name: &'static str| {
        let program = object.programs.get(name);
        let function = program.and_then(|program| object.functions.get(&program.function_key()));
        let (Some(program), Some(function)) = (program, function) else {
            return Err(Error::Object(format!("it has no program {name}")));
        };
        load_program(name, program, function, types.as_ref().map(AsFd::as_fd))
    };
    let mut loaded = Vec::with_capacity(N);
    for name in names {
        loaded.push(load(name)?);
    }
    loaded.try_into().map_err(|_| Error::Object("a program is missing".into()))
}

/// Puts a program on places of a file, each with its cookie, in this order: in one process, or in all.
pub fn attach(
    program: BorrowedFd<'_>,
    returns: bool,
    path: &Path,
    places: &[(u64, u64)],
    process: Option<NonZeroU32>,
) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let (offsets, cookies): (Vec<u64>, Vec<u64>) = places.iter().copied().unzip();
    let mut attributes = none();
    // SAFETY: these are the fields of this command, and what they point to outlives it.
    unsafe {
        let link = &mut attributes.link_create;
        link.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
        link.attach_type = BPF_TRACE_UPROBE_MULTI as u32;
        let multi = &mut link.__bindgen_anon_3.uprobe_multi;
        multi.path = path.as_ptr() as u64;
        multi.offsets = offsets.as_ptr() as u64;
        multi.cookies = cookies.as_ptr() as u64;
        multi.cnt = offsets.len() as u32;
        multi.flags = if returns { BPF_F_UPROBE_MULTI_RETURN } else { 0 };
        multi.pid = process.map_or(0, NonZeroU32::get);
        call(BPF_LINK_CREATE, &mut attributes)
    }
}

fn load_types(types: &[u8]) -> Result<OwnedFd, Error> {
    let mut attributes = none();
    // SAFETY: these are the fields of this command, and what they point to outlives it.
    let loaded = unsafe {
        let load = &mut attributes.__bindgen_anon_7;
        load.btf = types.as_ptr() as u64;
        load.btf_size = types.len() as u32;
        call(BPF_BTF_LOAD, &mut attributes)
    };
    loaded.map_err(|error| Error::Refused("the programs' types", error))
}

fn load_program(
    name: &'static str,
    program: &Program,
    function: &Function,
    types: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Error> {
    let (functions, lines) = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
    let mut attributes = none();
    // SAFETY: these are the fields of this command, and what they point to outlives it.
    let loaded = unsafe {
        let load = &mut attributes.__bindgen_anon_3;
        for (to, from) in load.prog_name.iter_mut().zip(name.bytes().take(MAX_NAME)) {
            *to = from.cast_signed();
        }
        load.prog_type = BPF_PROG_TYPE_KPROBE as u32;
        load.expected_attach_type = BPF_TRACE_UPROBE_MULTI as u32;
        load.insns = function.instructions.as_ptr() as u64;
        load.insn_cnt = function.instructions.len() as u32;
        load.license = program.license.as_ptr() as u64;
        if let Some(types) = types {
            load.prog_btf_fd = types.as_raw_fd().cast_unsigned();
            load.func_info = functions.as_ptr() as u64;
            load.func_info_cnt = function.func_info.len() as u32;
            load.func_info_rec_size = function.func_info_rec_size as u32;
            load.line_info = lines.as_ptr() as u64;
            load.line_info_cnt = function.line_info.len() as u32;
            load.line_info_rec_size = function.line_info_rec_size as u32;
        }
        call(BPF_PROG_LOAD, &mut attributes)
    };
    loaded.map_err(|error| Error::Refused(name, error))
}

/// A call's attributes, none of which is set.
fn none() -> bpf_attr {
    // SAFETY: zero is a value of each of its fields.
    unsafe { std::mem::zeroed() }
}

/// A map's descriptor, where it is of a kind that the programs have.
fn descriptor(map: &Map) -> Option<RawFd> {
    let (Map::Array(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::PerCpuArray(data)
    | Map::PerCpuHashMap(data)
    | Map::ProgramArray(data)
    | Map::RingBuf(data)
    | Map::SkStorage(data)) = map
    else {
        return None;
    };
    let data: &MapData = data;
    Some(data.fd().as_fd().as_raw_fd())
}

/// Makes a call of `bpf(2)` that opens a descriptor.
///
/// # Safety
/// The command is one of these, its fields are set, and what they point to is there.
unsafe fn call(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; the kernel reads and writes no more than this size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<bpf_attr>()) };
    match result.try_into() {
        // SAFETY: the descriptor is new, and nobody else's.
        Ok(descriptor) if result >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
