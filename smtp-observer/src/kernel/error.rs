//! Why the kernel side does not work here, in a sentence with its remedy.

use std::io;

use aya::EbpfError;
use aya::programs::ProgramError;
use tracing::debug;

use super::Family;
use super::layout::{self, VMLINUX};

/// Why this host or this user cannot observe.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No root, no capabilities.
    #[error("this user may not load eBPF programs: run it as root, or with CAP_BPF and CAP_PERFMON.")]
    Privileges,
    /// The kernel does not say where its fields are.
    #[error(transparent)]
    Layout(#[from] NoLayout),
    /// It is older than what the programs are made for.
    #[error("this kernel is Linux {0}: 5.17 or newer is needed.")]
    TooOld(String),
    /// A tracepoint is missing.
    #[error("this kernel has no tracepoint {0}: Linux 6.3 or newer is needed.")]
    NoTracepoint(&'static str),
    /// A function is missing, or has other parameters.
    #[error("this kernel has no function {0} of the kind that the fentry hooks are made for.")]
    NoFunction(&'static str),
    /// The functions of IPv6 are not the kernel's own.
    #[error("IPv6 is a module of this kernel, whose functions the fentry hooks do not reach.")]
    Ipv6IsModule,
    /// Trampolines are forbidden.
    #[error("this kernel forbids programs on its functions (fentry), as in lockdown.")]
    NoTrampolines,
    /// The family that was asked for does not work here.
    #[error("{0} Use --hooks auto, which takes what the kernel allows.")]
    Asked(Box<Self>),
    /// The kernel refused.
    #[error("the kernel refuses the eBPF programs: {0}. `smtp-observer check` says what this host allows.")]
    Refused(String),
    /// Its cgroup is too small: the kernel's answer would be a kill.
    #[error(
        "the cgroup of the agent may have {most} MiB of memory, and it needs {needed} MiB: allow more (MemoryMax= of a unit, \
         --memory of a container), or give a smaller --ring-size."
    )]
    Memory {
        /// What it may have.
        most: u64,
        /// What is needed.
        needed: u64,
    },
    /// It may not open as many files as there are programs and maps.
    #[error(
        "this process may have {most} descriptors, and it needs {needed}: allow more (LimitNOFILE= of a unit, `ulimit -n`)."
    )]
    Descriptors {
        /// How many it may have.
        most: u64,
        /// How many are needed.
        needed: u64,
    },
    /// The ring buffer cannot be polled.
    #[error("the ring buffer cannot be polled: {0}.")]
    Poll(#[source] io::Error),
    /// The process that attaches probes cannot be started.
    #[error("the process that reads TLS cannot be started: {0}. With --tls off it is not needed.")]
    Prober(#[source] io::Error),
    /// The host does not say when it is, or which boot this is.
    #[error("the host's clocks cannot be read: {0}. /proc must be mounted.")]
    Clock(#[source] io::Error),
}

/// The kernel's types are not to be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}. A kernel built with CONFIG_DEBUG_INFO_BTF shows its types in {vmlinux}.", vmlinux = VMLINUX)]
pub struct NoLayout(#[from] layout::Error);

impl From<EbpfError> for Error {
    fn from(error: EbpfError) -> Self {
        Self::Refused(with_causes(&error))
    }
}

impl From<ProgramError> for Error {
    fn from(error: ProgramError) -> Self {
        Self::Refused(with_causes(&error))
    }
}

impl Error {
    /// The kernel does not take a program of this family.
    pub(super) fn refused(family: Family, error: &ProgramError) -> Self {
        match os_error(error) {
            Some(libc::EPERM | libc::EOPNOTSUPP | ENOTSUPP) if family == Family::Fentry => {
                debug!("{error}");
                Self::NoTrampolines
            }
            _ => Self::Refused(with_causes(error)),
        }
    }
}

/// What a kernel says whose processor has no trampolines (`include/linux/errno.h`); no C library knows it.
const ENOTSUPP: i32 = 524;

/// The system's own number of an error, or of what caused it.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(number) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        cause = error.source();
    }
    None
}

/// An error with its causes, in one line; the verifier's log is for the debug level.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    debug!("{error}");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    with_reason(&text)
}

/// The first line of an error; of the verifier's log, which may follow, its reason: the last line that is none of its figures.
fn with_reason(text: &str) -> String {
    const FIGURES: [&str; 3] = ["verification time", "stack depth", "processed"];
    let (head, log) = text.split_once(". Verifier output: ").unwrap_or((text, ""));
    let head = head.lines().next().unwrap_or_default();
    let is_reason = |line: &&str| !line.is_empty() && !FIGURES.iter().any(|figure| line.starts_with(figure));
    match log.lines().map(str::trim).rfind(is_reason) {
        Some(reason) => format!("{head}. Verifier output: {reason}"),
        None => head.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_told() {
        let text = "the call failed. Verifier output: 0: R1=ctx()\n1: (95) exit\nthe call stack is too deep!\n\
                    processed 9 insns (limit 1000000)\n";
        assert_eq!(with_reason(text), "the call failed. Verifier output: the call stack is too deep!");
        assert_eq!(with_reason("the call failed. Verifier output: "), "the call failed");
        assert_eq!(with_reason("no such file"), "no such file");
    }
}
