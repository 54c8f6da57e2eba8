//! `check`: what the agent finds of the host around it, for whom it is well and for whom not.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use smtp_observer_tests::machine;
use smtp_observer_tests::process::{Ended, Running};

/// What `check --json` says, and how it ended.
struct Report {
    value: Value,
    status: Option<i32>,
    log: String,
}

impl Report {
    /// Of an agent that is started by a command, which takes the agent's arguments.
    fn of(mut command: Command) -> Result<Self> {
        command.args(["check", "--json"]);
        let Ended { status, output, log } = Running::start(command)?.finish()?;
        let value: Value = serde_json::from_str(&output.join("\n")).with_context(|| log.join("\n"))?;
        let report = Self { value, status: status.code(), log: log.join("\n") };
        report.check_mends()?;
        Ok(report)
    }

    /// Whatever is not as it should be comes with a sentence that mends it.
    fn check_mends(&self) -> Result<()> {
        for finding in self.list("findings")? {
            let (is_fine, remedy) = (finding["state"] == "yes", finding["remedy"].as_str());
            ensure!(is_fine == remedy.is_none(), "{finding}");
            ensure!(remedy.is_none_or(|remedy| remedy.ends_with('.')) && finding["detail"].is_string(), "{finding}");
        }
        for family in self.list("families")? {
            let is_available = family["available"].as_bool().context("it is there or it is not")?;
            ensure!(
                is_available == family["remedy"].is_null() && is_available == family["reason"].is_null(),
                "{family}"
            );
        }
        Ok(())
    }

    fn list(&self, name: &str) -> Result<&Vec<Value>> {
        self.value[name].as_array().with_context(|| format!("no {name} in {}", self.value))
    }

    fn finding(&self, name: &str) -> Result<&Value> {
        let finding = self.list("findings")?.iter().find(|finding| finding["name"] == name);
        finding.with_context(|| format!("no finding `{name}` in {}", self.value))
    }

    fn state(&self, name: &str) -> Result<&str> {
        self.finding(name)?["state"].as_str().context("no state")
    }

    /// It says that nothing can be observed, as the exit status does.
    fn check_unusable(&self) -> Result<()> {
        ensure!(self.status == Some(3), "{:?}: {}", self.status, self.log);
        ensure!(
            self.log == "smtp-observer: this host or user cannot observe: the lines above say why.",
            "{}",
            self.log
        );
        ensure!(self.value["chosen"].is_null(), "{}", self.value);
        ensure!(self.list("families")?.iter().all(|family| family["available"] == false), "{}", self.value);
        Ok(())
    }
}

fn agent() -> Result<Command> {
    Ok(Command::new(machine::agent()?))
}

/// The agent behind a shell's lines in a mount namespace of its own.
fn behind(options: &[&str], script: &str) -> Result<Command> {
    let mut command = Command::new(machine::installed("unshare")?);
    command.args(options).args(["sh", "-c", &format!("{script} exec \"$0\" \"$@\"")]).arg(machine::agent()?);
    Ok(command)
}

#[test]
fn root_is_told_which_hooks_work() -> Result<()> {
    machine::require_root()?;
    let report = Report::of(agent()?)?;
    ensure!(report.status == Some(0) && report.log.is_empty(), "{:?}: {}", report.status, report.log);
    for name in ["kernel", "BTF", "may load eBPF", "user namespace", "may read owners"] {
        assert_eq!(report.state(name)?, "yes", "{}", report.value);
    }
    let chosen = report.value["chosen"].as_str().context("no family is chosen")?;
    let family = report.list("families")?.iter().find(|family| family["family"] == chosen).context("which?")?;
    assert_eq!(family["available"], true);

    let mut plain = agent()?;
    plain.arg("check");
    let text = Running::start(plain)?.finish()?.output;
    let last = text.last().context("nothing is said")?;
    assert_eq!(last, &format!("`smtp-observer run` would use the {chosen} hooks."));
    for name in ["kernel", "BTF", "/proc", "pid namespace", "lockdown", "seccomp", "memory", "fentry", "tracepoint"] {
        ensure!(text.iter().any(|line| line.starts_with(name)), "`{name}` is not in:\n{}", text.join("\n"));
    }
    Ok(())
}

#[test]
fn who_may_not_load_programs_is_told_who_may() -> Result<()> {
    machine::require_root()?;
    let folder = tempfile::tempdir()?;
    let mut user = Command::new(machine::agent_for_all(folder.path())?);
    user.uid(65534).gid(65534).current_dir("/");
    // Root in name alone.
    let mut bare = Command::new(machine::installed("setpriv")?);
    bare.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(machine::agent()?);
    for command in [user, bare] {
        let report = Report::of(command)?;
        report.check_unusable()?;
        assert_eq!(report.value["capabilities"], false);
        assert_eq!((report.state("may load eBPF")?, report.state("may read owners")?), ("no", "partly"));
        let remedy = report.finding("may load eBPF")?["remedy"].as_str().context("no remedy")?;
        ensure!(remedy.contains("root") && remedy.contains("CAP_BPF"), "{remedy}");
    }
    Ok(())
}

#[test]
fn the_two_capabilities_are_enough() -> Result<()> {
    const BOUNDING: &str = "--bounding-set=-all,+bpf,+perfmon";
    machine::require_root()?;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(machine::installed("setpriv")?);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", BOUNDING]);
    command.args(["--inh-caps=-all,+bpf,+perfmon", "--ambient-caps=+bpf,+perfmon"]);
    command.arg(machine::agent_for_all(folder.path())?).current_dir("/");
    let report = Report::of(command)?;
    ensure!(report.status == Some(0), "{:?}: {}", report.status, report.value);
    assert_eq!((report.state("may load eBPF")?, report.state("may read owners")?), ("yes", "partly"));
    assert_eq!(report.state("user")?, "yes");

    // Root with these alone cannot become another user, and the agent does not stay root.
    let mut command = Command::new(machine::installed("setpriv")?);
    command.args([BOUNDING, "--inh-caps=-all"]).arg(machine::agent()?);
    let report = Report::of(command)?;
    assert_eq!((report.status, report.state("may load eBPF")?, report.state("user")?), (Some(3), "yes", "no"));
    Ok(())
}

#[test]
fn roots_of_containers_are_not_the_hosts() -> Result<()> {
    machine::require_root()?;
    let report = Report::of(behind(&["--user", "--map-root-user"], "")?)?;
    report.check_unusable()?;
    assert_eq!(report.state("user namespace")?, "no");
    assert_eq!((report.state("may load eBPF")?, report.state("may read owners")?), ("no", "partly"));
    assert_eq!(report.value["capabilities"], false);
    Ok(())
}

#[test]
fn what_hides_processes_is_named() -> Result<()> {
    machine::require_root()?;
    let contained = Report::of(behind(&["--pid", "--fork", "--mount-proc"], "")?)?;
    assert_eq!((contained.status, contained.state("pid namespace")?), (Some(0), "partly"), "{}", contained.value);

    let hidden = Report::of(behind(&["--mount"], "mount -t proc -o hidepid=2 proc /proc &&")?)?;
    assert_eq!((hidden.status, hidden.state("/proc")?), (Some(0), "partly"), "{}", hidden.value);
    let detail = hidden.finding("/proc")?["detail"].as_str().context("no detail")?;
    ensure!(detail.starts_with("hidepid="), "{detail}");
    Ok(())
}

#[test]
fn without_proc_nothing_can_be_observed() -> Result<()> {
    machine::require_root()?;
    let report = Report::of(behind(&["--mount"], "mount -t tmpfs none /proc &&")?)?;
    ensure!(report.status == Some(3) && report.value["chosen"].is_null(), "{:?}: {}", report.status, report.value);
    assert_eq!(report.state("/proc")?, "no");
    Ok(())
}

#[test]
fn a_kernel_without_types_is_told_from_one_that_has_them() -> Result<()> {
    machine::require_root()?;
    let report = Report::of(behind(&["--mount"], "mount -t tmpfs none /sys/kernel/btf &&")?)?;
    report.check_unusable()?;
    assert_eq!((report.state("BTF")?, report.state("may load eBPF")?), ("no", "yes"));
    Ok(())
}
