//! Which processes belong together.

use crate::observation::{Caller, Process};

/// How near two processes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessRelation {
    /// One is the other, or one is forked from the other.
    Near,
    /// Both are of one program, and have one parent.
    Sibling,
}

/// Whether `other` works for `one`: that both were started by one shell, supervisor or container says nothing.
pub fn kin(one: &Process, other: &Process) -> Option<ProcessRelation> {
    let parent = |process: &Process| process.parent.as_ref().map(|parent| parent.pid);
    let is_fork = || one.executable.is_some() && one.executable == other.executable;
    let are_near = || parent(other) == Some(one.pid) || parent(one) == Some(other.pid);
    if one.pid == other.pid || are_near() && is_fork() {
        Some(ProcessRelation::Near)
    } else if parent(one).is_some_and(|pid| pid > 1) && parent(one) == parent(other) && are_of_one_program(one, other) {
        Some(ProcessRelation::Sibling)
    } else {
        None
    }
}

/// Directories in which programs stand that have nothing to do with each other.
const COMMON: &[&str] =
    &["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/libexec", "/usr/lib"];

/// They have one executable, or executables of one package: Postfix has its daemons in a directory of their own.
fn are_of_one_program(one: &Process, other: &Process) -> bool {
    let (Some(one), Some(other)) = (&one.executable, &other.executable) else { return false };
    one == other || directory(one) == directory(other) && !COMMON.contains(&directory(one))
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

    fn of(pid: u32, parent: u32, executable: &str) -> Process {
        Process { executable: Some(executable.into()), ..Process::clone(&process((pid, parent)).process) }
    }

    #[test]
    fn who_belongs_together() {
        let (sink, source) = ("/usr/sbin/smtp-sink", "/usr/sbin/smtp-source");
        let proxy = of(200, 50, "/opt/proxy/proxy");
        assert_eq!(kin(&proxy, &proxy), Some(ProcessRelation::Near));
        assert_eq!(kin(&proxy, &of(201, 200, "/opt/proxy/proxy")), Some(ProcessRelation::Near));
        assert_eq!(kin(&proxy, &of(201, 200, "/usr/bin/mail")), None, "a program that it has started");
        assert_eq!(kin(&of(201, 200, "/opt/proxy/proxy"), &proxy), Some(ProcessRelation::Near));
        assert_eq!(kin(&of(201, 200, sink), &of(200, 50, "/usr/bin/bash")), None, "a shell and what it has started");
        let (smtpd, smtp) = (of(201, 50, "/usr/lib/postfix/sbin/smtpd"), of(202, 50, "/usr/lib/postfix/sbin/smtp"));
        assert_eq!(kin(&smtpd, &smtp), Some(ProcessRelation::Sibling));
        assert_eq!(
            kin(&of(201, 50, "/usr/sbin/exim4"), &of(202, 50, "/usr/sbin/exim4")),
            Some(ProcessRelation::Sibling)
        );
        assert_eq!(kin(&of(201, 50, sink), &of(202, 50, source)), None, "one shell has started both");
        assert_eq!(kin(&of(201, 1, "/usr/sbin/exim4"), &of(202, 1, "/usr/sbin/exim4")), None);
    }
}
