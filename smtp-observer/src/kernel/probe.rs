//! What this host allows, and which hook family that leaves.

use std::env::consts::ARCH;
use std::fmt;
use std::path::Path;

use nix::sys::utsname::uname;
use procfs::KernelVersion;
use serde::Serialize;

use aya::Btf;
use tracing::level_filters::LevelFilter;

use super::diagnostics::{Diagnostic, State};
use super::hooks::Loaded;
use super::layout::{Layout, VMLINUX};
use super::{Error, Family, Hooks, NoLayout, Settings, Tls, diagnostics, load, tls, with_causes};
use crate::privilege;

/// The oldest kernel that has what the programs need.
const OLDEST: KernelVersion = KernelVersion { major: 5, minor: 17, patch: 0 };

const NO_PRIVILEGES: &str = "Run it as the host's root, or with CAP_BPF and CAP_PERFMON.";
const NO_TYPES: &str = "Use a kernel that is built with CONFIG_DEBUG_INFO_BTF, as distributions' are; in a container, mount \
                        the host's /sys/kernel/btf.";

/// What this host allows.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The kernel's release (`uname -r`).
    pub kernel: String,
    /// The processor's architecture.
    pub architecture: &'static str,
    /// The kernel shows its types.
    pub btf: bool,
    /// This user may load eBPF programs.
    pub capabilities: bool,
    /// What was looked at, with what to do where it is not as it should be.
    pub findings: Vec<Diagnostic>,
    /// The hook families.
    pub families: Vec<FamilyCheck>,
    /// The family that `run` would use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Family>,
}

/// Whether a hook family works here.
#[derive(Clone, Debug, Serialize)]
pub struct FamilyCheck {
    /// Which.
    pub family: Family,
    /// It works.
    pub available: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

impl Check {
    /// `run` would observe.
    pub fn usable(&self) -> bool {
        self.capabilities && self.chosen.is_some()
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, state: &str, detail: &str, remedy: Option<&str>| {
            writeln!(f, "{}", format!("{name:<16} {state:<7} {detail}").trim_end())?;
            remedy.map_or(Ok(()), |remedy| writeln!(f, "{:24} {remedy}", ""))
        };
        for Diagnostic { name, state, detail, remedy } in &self.findings {
            line(name, state.as_str(), detail, *remedy)?;
        }
        for FamilyCheck { family, available, reason, remedy } in &self.families {
            let state = if *available { State::Yes } else { State::No };
            line(family.as_str(), state.as_str(), reason.as_deref().unwrap_or_default(), *remedy)?;
        }
        match (self.capabilities, self.chosen) {
            (true, Some(family)) => writeln!(f, "`smtp-observer run` would use the {} hooks.", family.as_str()),
            (false, _) => writeln!(f, "`smtp-observer run` cannot observe for this user."),
            (true, None) => writeln!(f, "`smtp-observer run` cannot observe on this host."),
        }
    }
}

/// Says what this host allows, as far as this user may try it.
pub fn check() -> Check {
    let verdicts = try_out();
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let (btf, capabilities) = (Path::new(VMLINUX).exists(), privilege::may_observe().is_ok());
    let capabilities = capabilities && diagnostics::is_hosts_user();
    let mut findings = vec![kernel(&release, KernelVersion::current().ok()), types(btf), may_load(capabilities)];
    findings.extend(diagnostics::look());
    findings.extend(tls::diagnose());
    let is_possible = findings.iter().all(|finding| finding.state != State::No);
    let mut working = verdicts.iter().filter(|(_, verdict)| is_possible && verdict.is_ok());
    let chosen = working.next().map(|(family, _)| *family);
    Check {
        kernel: release,
        architecture: ARCH,
        btf,
        capabilities,
        findings,
        chosen,
        families: verdicts.into_iter().map(|(family, verdict)| family_check(family, verdict)).collect(),
    }
}

fn kernel(release: &str, version: Option<KernelVersion>) -> Diagnostic {
    let detail = format!("{release} ({ARCH})");
    match version {
        Some(version) if version < OLDEST => Diagnostic::wrong(
            "kernel",
            State::Partly,
            format!("{detail}: older than 5.17, unless its vendor has brought it up"),
            "Install Linux 5.17 or newer: what is said of the hooks below decides.",
        ),
        _ => Diagnostic::fine("kernel", detail),
    }
}

fn types(btf: bool) -> Diagnostic {
    if btf {
        return Diagnostic::fine("BTF", VMLINUX);
    }
    Diagnostic::wrong("BTF", State::No, format!("the kernel does not show its types in {VMLINUX}"), NO_TYPES)
}

fn may_load(may: bool) -> Diagnostic {
    let name = "may load eBPF";
    if may {
        return Diagnostic::fine(name, "CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN");
    }
    Diagnostic::wrong(
        name,
        State::No,
        "neither the host's CAP_BPF and CAP_PERFMON nor its CAP_SYS_ADMIN",
        NO_PRIVILEGES,
    )
}

fn family_check(family: Family, verdict: Result<(), Refusal>) -> FamilyCheck {
    match verdict {
        Ok(()) => FamilyCheck { family, available: true, reason: None, remedy: None },
        Err(Refusal { reason, remedy }) => {
            FamilyCheck { family, available: false, reason: Some(reason), remedy: Some(remedy) }
        }
    }
}

/// Why a family does not work, and what to do.
#[derive(Clone)]
struct Refusal {
    reason: String,
    remedy: &'static str,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Privileges => {
                Self { reason: "not tried without the right to load it".into(), remedy: NO_PRIVILEGES }
            }
            // Without the advice to look here.
            Error::Refused(ref why) => {
                Self { reason: format!("the kernel refuses the eBPF programs: {why}."), remedy: remedy(&error) }
            }
            error => Self { reason: error.to_string(), remedy: remedy(&error) },
        }
    }
}

fn remedy(error: &Error) -> &'static str {
    match error {
        Error::Privileges => NO_PRIVILEGES,
        Error::Layout(_) => NO_TYPES,
        Error::TooOld(_) => "Install Linux 5.17 or newer.",
        Error::NoTracepoint(_) => "Install Linux 6.3 or newer, or use the fentry hooks where they work.",
        Error::NoFunction(_) | Error::Ipv6IsModule | Error::NoTrampolines => {
            "Use the tracepoint hooks, which Linux 6.3 and newer have; `--hooks auto` does."
        }
        Error::Asked(error) => remedy(error),
        Error::Descriptors { .. } => "Allow it more descriptors (`LimitNOFILE=` of a unit, `ulimit -n`).",
        Error::Memory { .. } => "Allow its cgroup more memory (`MemoryMax=` of a unit, `--memory` of a container).",
        Error::Refused(_) | Error::Poll(_) | Error::Clock(_) | Error::Prober(_) => {
            "Look at what is not `yes` above; `smtp-observer check -v` shows all that the kernel says."
        }
    }
}

/// Has the kernel check each family's programs, which are not attached; why not, where it refuses.
fn try_out() -> Vec<(Family, Result<(), Refusal>)> {
    let prepare = || {
        privilege::may_observe().map_err(|_| Error::Privileges)?;
        let page = u32::try_from(procfs::page_size()).unwrap_or(4096);
        diagnostics::require_memory(page)?;
        diagnostics::require_descriptors()?;
        let layout = Layout::of_kernel().map_err(NoLayout::from)?;
        let settings = Settings {
            ports: Vec::new(),
            hooks: Hooks::Auto,
            ring_bytes: page,
            tls: Tls::Off,
            user: None,
            diagnostics: LevelFilter::OFF,
        };
        let object = load(&settings, &layout)?;
        let btf = Btf::from_sys_fs().map_err(|error| Error::Refused(with_causes(&error)))?;
        Ok((object, layout, btf))
    };
    let mut prepared = prepare().map_err(|error: Error| Refusal::from(error));
    let mut verdict = |family| {
        let (object, layout, btf) = prepared.as_mut().map_err(|refusal| refusal.clone())?;
        Loaded::load(family, object, layout, btf).map(|_| ()).map_err(Refusal::from)
    };
    Family::ALL.into_iter().map(|family| (family, verdict(family))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_no_has_a_mend() {
        let errors = [
            Error::Privileges,
            Error::TooOld("5.10".into()),
            Error::NoTracepoint("sock_send_length"),
            Error::NoFunction("inet_sendmsg"),
            Error::Ipv6IsModule,
            Error::NoTrampolines,
            Error::Asked(Box::new(Error::NoTrampolines)),
            Error::Refused("Operation not permitted".into()),
        ];
        for error in errors {
            let check = family_check(Family::Fentry, Err(error.into()));
            assert!(!check.available && check.reason.is_some(), "{check:?}");
            assert!(check.remedy.is_some_and(|remedy| remedy.ends_with('.')), "{check:?}");
        }
        let old = kernel("5.10.0-30-amd64", Some(KernelVersion::new(5, 10, 209)));
        for finding in [old, types(false), may_load(false)] {
            assert!(finding.state != State::Yes && finding.remedy.is_some(), "{finding:?}");
        }
    }

    #[test]
    fn what_is_well_asks_for_nothing() {
        let new = kernel("6.1.0-18-amd64", Some(KernelVersion::new(6, 1, 76)));
        for finding in [new, types(true), may_load(true)] {
            assert!(finding.state == State::Yes && finding.remedy.is_none(), "{finding:?}");
        }
    }

    #[test]
    fn it_is_a_table_with_the_mend_below_what_it_mends() {
        let check = Check {
            kernel: "6.1".into(),
            architecture: "x86_64",
            btf: true,
            capabilities: true,
            findings: vec![types(true), may_load(false)],
            families: vec![
                family_check(Family::Fentry, Err(Error::NoTrampolines.into())),
                family_check(Family::Tracepoint, Ok(())),
            ],
            chosen: Some(Family::Tracepoint),
        };
        assert_eq!(
            check.to_string(),
            "BTF              yes     /sys/kernel/btf/vmlinux\n\
             may load eBPF    no      neither the host's CAP_BPF and CAP_PERFMON nor its CAP_SYS_ADMIN\n\
             \x20                        Run it as the host's root, or with CAP_BPF and CAP_PERFMON.\n\
             fentry           no      this kernel forbids programs on its functions (fentry), as in lockdown.\n\
             \x20                        Use the tracepoint hooks, which Linux 6.3 and newer have; `--hooks auto` does.\n\
             tracepoint       yes\n\
             `smtp-observer run` would use the tracepoint hooks.\n"
        );
    }
}
