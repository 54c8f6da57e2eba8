//! What this host allows, and which hook family that leaves.

use std::fmt;
use std::path::Path;

use caps::{CapSet, Capability};
use nix::sys::utsname::uname;
use serde::Serialize;

use aya::Btf;
use tracing::level_filters::LevelFilter;

use super::hooks::Loaded;
use super::layout::{Layout, VMLINUX};
use super::{Error, Family, Hooks, NoLayout, Settings, chain, load};

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
    /// Why not, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Check {
    /// `run` would observe.
    pub fn usable(&self) -> bool {
        self.capabilities && self.chosen.is_some()
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |good| if good { "yes" } else { "no" };
        writeln!(f, "kernel          {} ({})", self.kernel, self.architecture)?;
        writeln!(f, "BTF             {} ({VMLINUX})", yes(self.btf))?;
        writeln!(f, "may load eBPF   {}", yes(self.capabilities))?;
        for FamilyCheck { family, available, reason } in &self.families {
            write!(f, "{:<15} {}", family.as_str(), yes(*available))?;
            match reason {
                Some(reason) => writeln!(f, ": {reason}")?,
                None => writeln!(f)?,
            }
        }
        match (self.capabilities, self.chosen) {
            (true, Some(family)) => writeln!(f, "`smtp-observer run` would use the {} hooks.", family.as_str()),
            (false, Some(family)) => {
                writeln!(f, "`smtp-observer run` could use the {} hooks, but {}", family.as_str(), Error::Privileges)
            }
            (_, None) => writeln!(f, "`smtp-observer run` cannot observe on this host."),
        }
    }
}

/// Says what this host allows, as far as this user may try it.
pub fn check() -> Check {
    let verdicts = try_out();
    Check {
        kernel: uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default(),
        architecture: std::env::consts::ARCH,
        btf: Path::new(VMLINUX).exists(),
        capabilities: require_privileges().is_ok(),
        chosen: verdicts.iter().find(|(_, verdict)| verdict.is_ok()).map(|(family, _)| *family),
        families: verdicts
            .into_iter()
            .map(|(family, verdict)| FamilyCheck { family, available: verdict.is_ok(), reason: verdict.err() })
            .collect(),
    }
}

/// Has the kernel check each family's programs, which are not attached; why not, where it refuses.
fn try_out() -> Vec<(Family, Result<(), String>)> {
    let prepare = || {
        require_privileges()?;
        let layout = Layout::of_kernel().map_err(NoLayout)?;
        let page = u32::try_from(procfs::page_size()).unwrap_or(4096);
        let settings =
            Settings { ports: Vec::new(), hooks: Hooks::Auto, ring_bytes: page, diagnostics: LevelFilter::OFF };
        let object = load(&settings, &layout)?;
        let btf = Btf::from_sys_fs().map_err(|error| Error::Refused(chain(&error)))?;
        Ok((object, layout, btf))
    };
    let mut prepared = prepare().map_err(|error: Error| error.to_string());
    let mut verdict = |family| {
        let (object, layout, btf) = prepared.as_mut().map_err(|error| error.clone())?;
        Loaded::load(family, object, layout, btf).map(|_| ()).map_err(|error| error.to_string())
    };
    Family::ALL.into_iter().map(|family| (family, verdict(family))).collect()
}

/// Refuses a user whom the kernel would refuse, in plain words.
pub(super) fn require_privileges() -> Result<(), Error> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let admin = has(Capability::CAP_SYS_ADMIN);
    if admin || has(Capability::CAP_BPF) && has(Capability::CAP_PERFMON) { Ok(()) } else { Err(Error::Privileges) }
}
