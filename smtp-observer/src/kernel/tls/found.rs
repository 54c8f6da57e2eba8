//! What `check` says of TLS: whether it can be read here, and in which libraries.

use std::collections::BTreeMap;

use foldhash::HashSet;
use procfs::process::all_processes;

use super::{FIRST_KERNEL, Tls, confined, library, mapped};
use crate::kernel::diagnostics::{Diagnostic, State};
use crate::privilege;

/// Whether plaintext of TLS can be read, and each library with what is probed in it: those that are installed, and those that
/// a process of now has loaded.
pub fn diagnose() -> Vec<Diagnostic> {
    let [major, minor] = FIRST_KERNEL;
    let verdict = if Tls::Auto.is_possible() && confined::is_affected() {
        let detail = "of programs without a filter of system calls (seccomp): this kernel would end others where they are probed";
        Diagnostic::wrong("may read TLS", State::Partly, detail, "Linux 6.12.14, 6.13.3 or 6.14 reads others, too.")
    } else if Tls::Auto.is_possible() {
        Diagnostic::fine("may read TLS", "CAP_SYS_ADMIN, for probes on the functions of OpenSSL and GnuTLS")
    } else if privilege::may_probe() {
        let detail = format!("the kernel is older than {major}.{minor}");
        Diagnostic::wrong("may read TLS", State::Partly, detail, "What is said behind STARTTLS needs a newer kernel.")
    } else {
        let detail = "no CAP_SYS_ADMIN, which probes on other programs' functions take";
        Diagnostic::wrong("may read TLS", State::Partly, detail, "Run it as root, or add CAP_SYS_ADMIN.")
    };
    let mut known = HashSet::default();
    let mut libraries = BTreeMap::new();
    let pids = all_processes().into_iter().flatten().flatten().map(|process| process.pid.cast_unsigned());
    let loaded = pids.filter_map(|pid| mapped::files(pid).ok()).flatten();
    for file in mapped::installed().into_iter().chain(loaded) {
        if !known.insert(file.identity) {
            continue;
        }
        let places = library::search(&file.path).unwrap_or_default();
        let functions: Vec<_> =
            places.iter().filter(|place| place.role != library::Role::Record).map(|place| place.function).collect();
        if !functions.is_empty() {
            libraries.insert(file.name, functions.join(", "));
        }
    }
    let found = libraries
        .into_iter()
        .map(|(name, functions)| Diagnostic::fine("TLS library", format!("{}: {functions}", name.display())));
    std::iter::once(verdict).chain(found).collect()
}
