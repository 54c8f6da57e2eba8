//! Kernels on which a probe ends programs that may make few system calls.
//!
//! Since Linux 6.11 a function that is probed where it returns makes a system call, `uretprobe(2)`, on x86-64. A filter of system
//! calls (`seccomp(2)`) that does not know it kills the program, or fails the call, and the program crashes. Filters are not
//! asked about it since 6.14, and since 6.12.14 and 6.13.3 (`seccomp_uprobe_exception` of `kernel/seccomp.c`).

use procfs::process::Process;
use procfs::{KernelVersion, ProcResult};

/// Whether this kernel is one of them.
pub fn is_affected() -> bool {
    KernelVersion::current().is_ok_and(|KernelVersion { major, minor, patch }| asks_filters(major, minor, patch))
}

fn asks_filters(major: u8, minor: u8, patch: u16) -> bool {
    cfg!(target_arch = "x86_64")
        && match (major, minor) {
            (6, 11) => true,
            (6, 12) => patch < 14,
            (6, 13) => patch < 3,
            _ => false,
        }
}

/// Whether a process has a filter of system calls, as far as is known.
pub fn is_confined(pid: u32) -> bool {
    let status = |pid: u32| -> ProcResult<_> { Process::new(pid.cast_signed())?.status() };
    status(pid).map_or(true, |status| status.seccomp.is_some_and(|mode| mode != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn kernels_before_the_call_and_behind_the_mend() {
        for version in [(6, 11, 0), (6, 11, 11), (6, 12, 0), (6, 12, 13), (6, 13, 2)] {
            assert!(asks_filters(version.0, version.1, version.2), "{version:?}");
        }
        for version in
            [(5, 15, 170), (6, 1, 120), (6, 10, 14), (6, 12, 14), (6, 12, 57), (6, 13, 3), (6, 14, 0), (7, 2, 0)]
        {
            assert!(!asks_filters(version.0, version.1, version.2), "{version:?}");
        }
    }

    #[test]
    fn who_is_gone_counts_as_confined() {
        let mut child = std::process::Command::new("true").spawn().expect("coreutils");
        child.wait().expect("it ends");
        assert!(is_confined(child.id()));
    }
}
