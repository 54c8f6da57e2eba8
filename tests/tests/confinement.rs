//! What the agent may do once its hooks are in: nothing that it does not need. It is tried in a process of its own, and read
//! from the running agent.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::User;
use smtp_observer::privilege::has_landlock;
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::confined::{NAME, USER};
use smtp_observer_tests::machine;
use smtp_observer_tests::process::{Running, run};

/// Refused by the filter of system calls, or by Landlock's scopes.
const BY_FILTER: &str = "EPERM";
/// Refused by Landlock, or for want of the user's right.
const BY_FILES: &str = "EACCES";
const ALLOWED: &str = "ok";

/// Attempts that come to the same for an agent and for the process that attaches probes.
const BOTH: &[(&str, &str)] = &[
    ("read what root alone may read", BY_FILES),
    ("read other processes' arguments", ALLOWED),
    ("make a TCP socket", BY_FILTER),
    ("make a UDP socket of IPv6", BY_FILTER),
    ("make a raw socket", BY_FILTER),
    ("make a socket to another subsystem", BY_FILTER),
    ("run a program", BY_FILTER),
    ("make a process", BY_FILTER),
    ("start a thread", ALLOWED),
    // A library that asks for it in vain makes the older call.
    ("make a thread with flags in memory", "ENOSYS"),
    ("map code", BY_FILTER),
    ("turn data into code", BY_FILTER),
    ("trace a process", BY_FILTER),
    ("read a process's memory", BY_FILTER),
    ("signal another process", BY_FILTER),
    ("signal itself", ALLOWED),
    ("become root", BY_FILTER),
    ("set a limit", BY_FILTER),
    ("make an eBPF map", BY_FILTER),
    ("make an io_uring", BY_FILTER),
    ("mount", BY_FILTER),
    ("leave a namespace", BY_FILTER),
    ("enter a namespace", BY_FILTER),
    ("use a key", BY_FILTER),
    ("handle page faults", BY_FILTER),
    ("load a module", BY_FILTER),
    ("change a mode", BY_FILTER),
    ("change an owner", BY_FILTER),
    ("remove a file", BY_FILTER),
    ("rename a file", BY_FILTER),
    ("make a directory", BY_FILTER),
    ("make a link", BY_FILTER),
    ("type into a terminal", BY_FILTER),
];

const AGENT: &[(&str, &str)] = &[
    ("append to the events", ALLOWED),
    ("append as musl does", ALLOWED),
    // The agent may open the events' file again, and so make files beside it.
    ("make a file in its own directory", ALLOWED),
    ("look a user up", ALLOWED),
    ("make a local socket", ALLOWED),
    ("list addresses", ALLOWED),
    ("open a performance counter", BY_FILTER),
    ("load an eBPF program", BY_FILTER),
];

/// Landlock's part, by the version of Linux that has it.
const AGENT_BY_LANDLOCK: &[([u32; 2], &str, &str)] = &[
    ([5, 13], "read what everybody may read", BY_FILES),
    ([5, 13], "write where everybody may", BY_FILES),
    ([5, 13], "list a directory that is not needed", BY_FILES),
    ([6, 7], "wait for connections", BY_FILES),
    ([6, 7], "make a connection", BY_FILES),
    ([6, 12], "reach an abstract socket", BY_FILTER),
];

/// It opens files to read them alone.
const PROBER: &[(&str, &str)] = &[
    ("read what everybody may read", ALLOWED),
    ("read as musl does", ALLOWED),
    ("append to the events", BY_FILTER),
    ("append as musl does", BY_FILTER),
    ("write where everybody may", BY_FILTER),
    ("make a file in its own directory", BY_FILTER),
    ("make a local socket", BY_FILTER),
    ("wait for connections", BY_FILTER),
    ("make a connection", BY_FILTER),
];

/// Many probes by one link are no counters.
const MULTI: &[(&str, &str)] = &[("open a performance counter", BY_FILTER), ("load an eBPF program", BY_FILTER)];

const SINGLE: &[(&str, &str)] = &[("open a performance counter", "EFAULT")];

/// What each attempt came to.
fn attempts(mode: &str) -> Result<BTreeMap<String, String>> {
    let user = User::from_name(USER)?.context("no such user")?;
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let path = |name: &str| folder.path().join(name);
    fs::write(path("readable"), "")?;
    fs::set_permissions(path("readable"), Permissions::from_mode(0o644))?;
    for name in ["mine", "open"] {
        fs::create_dir(path(name))?;
    }
    chown(path("mine"), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    fs::set_permissions(path("open"), Permissions::from_mode(0o777))?;
    let mut command = Command::new(machine::sibling("confined")?);
    command.arg(mode).arg(folder.path());
    let attempts = run(command)?.output.into_iter().map(|line| {
        let (name, outcome) = line.rsplit_once(' ').with_context(|| line.clone())?;
        Ok((name.to_owned(), outcome.to_owned()))
    });
    attempts.collect()
}

#[test]
fn what_is_not_needed_is_refused() -> Result<()> {
    machine::require_root()?;
    let name = format!("{NAME}-{}", std::process::id());
    let _socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    let (free, agent) = (attempts("free")?, attempts("agent")?);
    let (prober, single) = (attempts("prober")?, attempts("single-prober")?);
    let mut wrong = Vec::new();
    let mut check = |who: &str, outcomes: &BTreeMap<String, String>, name: &str, expected: &str| {
        let outcome = outcomes.get(name).map(String::as_str);
        if outcome != Some(expected) {
            wrong.push(format!("{who}: {name}: {outcome:?} and not {expected}"));
        }
        // A process that is free succeeds, or fails for another reason.
        if expected != ALLOWED && expected != "EFAULT" && free.get(name).map(String::as_str) == outcome {
            wrong.push(format!("{who}: {name}: {expected} in a free process, too"));
        }
    };
    for (who, outcomes, common, own) in [
        ("agent", &agent, AGENT, &[][..]),
        ("prober", &prober, PROBER, MULTI),
        ("single prober", &single, PROBER, SINGLE),
    ] {
        BOTH.iter().chain(common).chain(own).for_each(|(name, expected)| check(who, outcomes, name, expected));
    }
    let release = machine::kernel_release()?;
    for (since, name, expected) in AGENT_BY_LANDLOCK {
        if has_landlock() && release >= *since {
            check("agent", &agent, name, expected);
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Lines of `/proc/PID/status` by their names.
fn status(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path.join("status"))?;
    let lines = text.lines().filter_map(|line| line.split_once(":\t"));
    Ok(lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

/// All threads of a process are this user's, gain nothing by executing, have a filter, and these capabilities.
fn check_confined(pid: u32, uid: u32, gid: u32, capabilities: u64) -> Result<()> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?.collect::<io::Result<Vec<_>>>()?;
    ensure!(!threads.is_empty(), "{pid} has no thread");
    for thread in threads {
        let status = status(&thread.path())?;
        // Real, effective, saved, and for files.
        let all = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
        let set = format!("{capabilities:016x}");
        for (name, expected) in [
            ("Uid", &*all(uid)),
            ("Gid", &*all(gid)),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("CapEff", &*set),
            ("CapPrm", &*set),
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
        ] {
            assert_eq!(status.get(name).map(String::as_str), Some(expected), "{name} of {status:?}");
        }
    }
    Ok(())
}

/// CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE (`include/uapi/linux/capability.h`).
const OF_PROBER: u64 = 1 << 2 | 1 << 19 | 1 << 40;

/// Where each probe is attached by itself, before Linux 6.12: the first two, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF.
const OF_SINGLE_PROBER: u64 = 1 << 2 | 1 << 19 | 1 << 21 | 1 << 38 | 1 << 39;

#[test]
fn an_agent_that_root_starts_becomes_another_user() -> Result<()> {
    let ids = |user: User| (user.uid.as_raw(), user.gid.as_raw());
    let by_default = match User::from_name("smtp-observer")? {
        Some(user) => ids(user),
        None => User::from_name(USER)?.map_or((65_534, 65_534), ids),
    };
    let release = machine::kernel_release()?;
    let own_capabilities = if release >= [5, 19] { 0 } else { 1 << 39 };
    let of_prober = if release >= [6, 12] { OF_PROBER } else { OF_SINGLE_PROBER };
    for (options, (uid, gid)) in [(&[][..], by_default), (&["--user", "4711"][..], (4711, 4711))] {
        let agent = Agent::start(&[&["--port", "2750"], options].concat())?;
        check_confined(agent.pid(), uid, gid, own_capabilities)?;
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.pid()))?;
        for child in children.split_whitespace() {
            check_confined(child.parse()?, uid, gid, of_prober)?;
        }
        // Its own figures can still be read.
        ensure!(agent.metrics()?.sum("process_open_fds", &[]).is_some_and(|count| count > 3.0), "no figures");
        let stopped = agent.stop()?;
        ensure!(stopped.status.success(), "{}: {:?}", stopped.status, stopped.log);
        let complaint = stopped.log.iter().find(|line| line.contains("cannot be"));
        ensure!(complaint.is_none(), "{complaint:?}");
    }
    Ok(())
}

#[test]
fn root_and_unknown_users_are_refused() -> Result<()> {
    machine::require_root()?;
    for (user, words) in [
        ("root", "does not stay root"),
        ("no-such-user", "useradd --system no-such-user"),
        ("4294967295", "would stay root"),
    ] {
        for command in ["run", "trace"] {
            let mut agent = Command::new(machine::agent()?);
            agent.args([command, "--port", "2751", "--user", user]);
            let ended = Running::start(agent)?.finish()?;
            ensure!(ended.status.code() == Some(2), "{}: {:?}", ended.status, ended.log);
            ensure!(ended.log.iter().any(|line| line.contains(words)), "{:?}", ended.log);
        }
    }
    Ok(())
}
