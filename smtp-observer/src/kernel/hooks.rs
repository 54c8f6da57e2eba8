//! The hook families: which programs each has, loading and attaching them.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf};
use clap::ValueEnum;
use serde::Serialize;
use tracing::{debug, info};

use super::layout::Layout;
use super::{Error, open};

/// The choice of a hook family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Hooks {
    /// The best that the kernel allows.
    #[default]
    Auto,
    /// Trampolines on the socket layer's functions for TCP.
    Fentry,
    /// The BTF tracepoints of the socket layer.
    Tracepoint,
}

/// A hook family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Trampolines (`fexit`) at the end of `inet_sendmsg`, `inet_recvmsg` and their like.
    Fentry,
    /// `tp_btf` on `sock_send_length` and `sock_recv_length`.
    Tracepoint,
}

/// A program of the object, with what it is attached to.
struct Hook {
    program: &'static str,
    target: Target,
    /// Without it the family is of no use. What an optional one hooks is not there in every kernel.
    required: bool,
}

/// What a program is attached to.
enum Target {
    /// A BTF tracepoint.
    Tracepoint(&'static str),
    /// A function with so many parameters, behind which a program at its end finds what it returns.
    Function(&'static str, usize),
}

const fn tracepoint(name: &'static str) -> Hook {
    Hook { program: name, target: Target::Tracepoint(name), required: true }
}

const fn function(program: &'static str, name: &'static str, parameters: usize) -> Hook {
    Hook { program, target: Target::Function(name, parameters), required: true }
}

const fn optional(hook: Hook) -> Hook {
    Hook { required: false, ..hook }
}

/// The life of a connection: in both families.
const LIFE: [Hook; 2] = [
    tracepoint("inet_sock_set_state"),
    // Behind the first, for what happens while that is at work.
    Hook { program: "inet_sock_set_state_inside", ..tracepoint("inet_sock_set_state") },
];

const TRACEPOINT: [Hook; 2] = [tracepoint("sock_send_length"), tracepoint("sock_recv_length")];

const FENTRY: [Hook; 6] = [
    function("inet_sendmsg_exit", "inet_sendmsg", 3),
    function("inet_recvmsg_exit", "inet_recvmsg", 4),
    // A kernel may come without IPv6.
    optional(function("inet6_sendmsg_exit", "inet6_sendmsg", 3)),
    optional(function("inet6_recvmsg_exit", "inet6_recvmsg", 4)),
    optional(function("tcp_splice_read_exit", "tcp_splice_read", 5)),
    // Until 6.4.
    optional(function("inet_sendpage_exit", "inet_sendpage", 5)),
];

/// Where a kernel shows the types of its IPv6, if that is a module.
const IPV6_MODULE: &str = "/sys/kernel/btf/ipv6";

impl Family {
    /// The better first.
    pub const ALL: [Self; 2] = [Self::Fentry, Self::Tracepoint];

    /// The name used in options, events and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// Its programs, where the kernel has what they hook.
    fn hooks(self, layout: &Layout) -> Result<Vec<&'static Hook>, Error> {
        let own: &'static [Hook] = match self {
            Self::Fentry => &FENTRY,
            Self::Tracepoint => &TRACEPOINT,
        };
        if self == Self::Fentry && Path::new(IPV6_MODULE).exists() {
            return Err(Error::Ipv6IsModule);
        }
        let mut hooks = Vec::new();
        for hook in LIFE.iter().chain(own) {
            match hook.target {
                Target::Tracepoint(name) if layout.has_tracepoint(name) => hooks.push(hook),
                Target::Function(name, parameters) if layout.has_function(name, parameters) => hooks.push(hook),
                _ if !hook.required => {}
                Target::Tracepoint(name) => return Err(Error::NoTracepoint(name)),
                Target::Function(name, _) => return Err(Error::NoFunction(name)),
            }
        }
        Ok(hooks)
    }
}

/// A family whose programs the kernel has accepted.
pub(super) struct Loaded {
    pub(super) family: Family,
    programs: Vec<&'static str>,
}

impl Loaded {
    /// Loads the family that is asked for, or the first that the kernel accepts.
    pub(super) fn choose(hooks: Hooks, object: &mut Ebpf, layout: &Layout, btf: &Btf) -> Result<Self, Error> {
        let mut asked = |family| Self::load(family, object, layout, btf).map_err(|error| Error::Asked(error.into()));
        match hooks {
            Hooks::Fentry => asked(Family::Fentry),
            Hooks::Tracepoint => asked(Family::Tracepoint),
            Hooks::Auto => Self::load(Family::Fentry, object, layout, btf).or_else(|refused| {
                let loaded = Self::load(Family::Tracepoint, object, layout, btf);
                match &loaded {
                    // `check` says it, and the metric `smtp_observer_hooks_info`.
                    Ok(_) => debug!("{refused} Using the tracepoint hooks."),
                    Err(_) => info!("{refused}"),
                }
                loaded
            }),
        }
    }

    /// Loads a family's programs, and the one that lists open sockets.
    pub(super) fn load(family: Family, object: &mut Ebpf, layout: &Layout, btf: &Btf) -> Result<Self, Error> {
        let hooks = family.hooks(layout)?;
        for hook in &hooks {
            hook.load(object, btf).map_err(|error| Error::refused(family, &error))?;
            let verified = program(object, hook.program).and_then(|program| program.info()).ok();
            let steps = verified.and_then(|info| info.verified_instruction_count()).unwrap_or_default();
            debug!("{}: accepted after {steps} steps of the verifier", hook.program);
        }
        open::load(object, btf)?;
        Ok(Self { family, programs: hooks.into_iter().map(|hook| hook.program).collect() })
    }

    /// How often the kernel has skipped each of its programs so far, because the processor was in the middle of that very
    /// program (`recursion_misses`, since 5.12).
    pub(super) fn misses(&self, object: &Ebpf) -> Vec<(&'static str, u64)> {
        let misses = |name: &&'static str| {
            let descriptor = object.program(name)?.fd().ok()?.as_fd().as_raw_fd();
            let information = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
            Some((*name, recursion_misses(&information)?))
        };
        self.programs.iter().filter_map(misses).collect()
    }

    /// Attaches its programs together, so that none sees a connection that the others miss for long.
    pub(super) fn attach(&self, object: &mut Ebpf) -> Result<(), Error> {
        for name in &self.programs {
            let attached = match program(object, name) {
                Ok(Program::BtfTracePoint(program)) => program.attach().map(|_| ()),
                Ok(Program::FExit(program)) => program.attach().map(|_| ()),
                Ok(_) => Err(ProgramError::UnexpectedProgramType),
                Err(error) => Err(error),
            };
            attached.map_err(|error| Error::refused(self.family, &error))?;
        }
        Ok(())
    }
}

impl Hook {
    /// Has the kernel check its program. One that it has accepted already, for another family, stays.
    fn load(&self, object: &mut Ebpf, btf: &Btf) -> Result<(), ProgramError> {
        let (Target::Tracepoint(target) | Target::Function(target, _)) = self.target;
        let program = program(object, self.program)?;
        if program.fd().is_ok() {
            return Ok(());
        }
        match program {
            Program::BtfTracePoint(program) => program.load(target, btf),
            Program::FExit(program) => program.load(target, btf),
            _ => Err(ProgramError::UnexpectedProgramType),
        }
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, ProgramError> {
    object.program_mut(name).ok_or(ProgramError::NotLoaded)
}

/// The count in what the kernel says of a program's descriptor (`bpf_prog_show_fdinfo`).
fn recursion_misses(information: &str) -> Option<u64> {
    information.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_calls_are_read_from_a_descriptors_information() {
        let information = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t12\nverified_insns:\t16099\n";
        assert_eq!(recursion_misses(information), Some(12));
        assert_eq!(recursion_misses("pos:\t0\nprog_type:\t26\n"), None);
    }
}
