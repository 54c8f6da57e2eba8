//! Which processes belong together.

use std::sync::Arc;

use crate::identity::{Caller, Process};

/// How near two processes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessRelation {
    /// One is the other, or its child, or was forked from it.
    Near,
    /// Both are of one program, and a process of this program has started both.
    Sibling,
}

/// Whether `other` works for `one`, which has accepted a connection.
///
/// A common parent is not enough: one shell, supervisor or container starts programs that have nothing to do with each other.
pub fn kin(one: &Process, other: &Process) -> Option<ProcessRelation> {
    let parent = |process: &Process| process.parent.as_ref().map(|parent| parent.pid);
    let is_child = parent(other) == Some(one.pid);
    let is_parent = parent(one) == Some(other.pid) && have_one_program(one, other);
    if one.pid == other.pid || is_child || is_parent {
        Some(ProcessRelation::Near)
    } else if parent(one).is_some_and(|pid| pid > 1)
        && parent(one) == parent(other)
        && (have_one_program(one, other) && parent_is_alike(one) || are_of_one_package(one, other))
    {
        Some(ProcessRelation::Sibling)
    } else {
        None
    }
}

/// Directories in which programs stand that have nothing to do with each other.
const COMMON: &[&str] =
    &["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/libexec", "/usr/lib"];

/// The longest `comm` (`TASK_COMM_LEN` of include/linux/sched.h, less the NUL).
const COMM: usize = 15;

/// They have one executable, and where that is an interpreter, one script.
fn have_one_program(one: &Process, other: &Process) -> bool {
    one.executable.is_some() && one.executable == other.executable && one.script == other.script
}

/// The parent is called like the process: a server that forks for each connection has forked it. Of a process that has changed
/// its name the executable tells.
fn parent_is_alike(process: &Process) -> bool {
    let Some(parent) = process.parent.as_ref().map(|parent| &*parent.name) else { return false };
    let is_of = |path: &Arc<str>| {
        let name = path.rsplit_once('/').map_or(&**path, |(_, name)| name);
        name.get(..COMM).unwrap_or(name) == parent
    };
    parent == &*process.name || [&process.executable, &process.script].into_iter().flatten().any(is_of)
}

/// Their executables stand in a directory of their own: Postfix has its daemons in one. An interpreter may run anything.
fn are_of_one_package(one: &Process, other: &Process) -> bool {
    let (Some(executable), Some(others)) = (&one.executable, &other.executable) else { return false };
    one.script.is_none()
        && other.script.is_none()
        && executable != others
        && directory(executable) == directory(others)
        && !COMMON.contains(&directory(executable))
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map(|(directory, _)| directory).unwrap_or_default()
}

/// The process as people name it.
pub fn program(caller: &Caller) -> String {
    format!("{} (pid {})", caller.process.program(), caller.process.pid)
}

#[cfg(test)]
mod tests {
    use super::super::tests::process;
    use super::*;
    use crate::identity::Parent;

    /// A process with this pid, whose parent has that pid and name.
    fn of(pid: u32, (parent, name): (u32, &str), executable: &str) -> Process {
        Process {
            executable: Some(executable.into()),
            name: executable.rsplit('/').next().unwrap_or_default().into(),
            parent: Some(Parent { pid: parent, name: name.into() }),
            ..Process::clone(&process((pid, parent)).process)
        }
    }

    fn script(process: Process, script: &str) -> Process {
        Process { script: Some(script.into()), ..process }
    }

    #[test]
    fn a_process_and_its_children_belong_together() {
        let proxy = of(200, (50, "systemd"), "/opt/proxy/proxy");
        assert_eq!(kin(&proxy, &proxy), Some(ProcessRelation::Near));
        let child = of(201, (200, "proxy"), "/opt/proxy/proxy");
        assert_eq!(kin(&proxy, &child), Some(ProcessRelation::Near));
        assert_eq!(kin(&child, &proxy), Some(ProcessRelation::Near));
        let other = of(201, (200, "proxy"), "/usr/bin/nc");
        assert_eq!(kin(&proxy, &other), Some(ProcessRelation::Near), "it hands the stream to another program");
        let sink = of(201, (200, "bash"), "/usr/sbin/smtp-sink");
        assert_eq!(kin(&sink, &of(200, (50, "sshd"), "/usr/bin/bash")), None, "a shell and what it has started");
    }

    #[test]
    fn processes_that_one_server_has_forked_are_siblings() {
        let exim = |pid| of(pid, (50, "exim4"), "/usr/sbin/exim4");
        assert_eq!(kin(&exim(201), &exim(202)), Some(ProcessRelation::Sibling));
        let postfix = |pid, name| of(pid, (50, "master"), &format!("/usr/lib/postfix/sbin/{name}"));
        assert_eq!(kin(&postfix(201, "smtpd"), &postfix(202, "smtp")), Some(ProcessRelation::Sibling));
        let worker = |pid| script(of(pid, (50, "node"), "/usr/bin/node"), "/usr/bin/haraka");
        assert_eq!(kin(&worker(201), &worker(202)), Some(ProcessRelation::Sibling));
    }

    #[test]
    fn a_common_parent_is_not_enough() {
        let by_shell = |pid, executable| of(pid, (50, "bash"), executable);
        let (sink, source) = ("/usr/sbin/smtp-sink", "/usr/sbin/smtp-source");
        assert_eq!(kin(&by_shell(201, sink), &by_shell(202, source)), None);
        assert_eq!(kin(&by_shell(201, sink), &by_shell(202, sink)), None, "two of one program");
        let by_init = |pid| of(pid, (1, "systemd"), "/usr/sbin/exim4");
        assert_eq!(kin(&by_init(201), &by_init(202)), None);
    }

    #[test]
    fn scripts_of_one_interpreter_are_programs_of_their_own() {
        for (parent, python) in [("bash", "/usr/bin/python3.11"), ("python3.11", "/opt/venv/bin/python3.11")] {
            let python = |pid, name| script(of(pid, (50, parent), python), name);
            assert_eq!(kin(&python(201, "server.py"), &python(202, "client.py")), None);
        }
        let one = of(201, (50, "bash"), "/opt/venv/bin/python3");
        let other = of(202, (50, "bash"), "/opt/venv/bin/python3");
        assert_eq!(kin(&one, &other), None, "code on the command line");
    }
}
