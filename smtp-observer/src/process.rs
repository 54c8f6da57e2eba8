//! Processes: what is known of each, for as long as the kernel side may name it.

mod interpreter;

use std::sync::Arc;

use foldhash::HashMap;
use smtp_ebpf::event::DESCRIBED_PROCESSES;

pub use self::interpreter::script;
use crate::cgroup;
use crate::event::{ProcessEvent, ProcessKey, Task};
use crate::identity::{Caller, Parent, Process};
use crate::redact::RedactionPolicy;

/// Most processes in one generation: as many as the kernel side remembers to have described, so that what it will not
/// describe again is still known here.
const GENERATION: usize = DESCRIBED_PROCESSES as usize;

/// Most bytes of one generation: of a few KiB each, where somebody starts processes with long arguments.
const GENERATION_BYTES: usize = 4 << 20;

/// The processes that were described, in two generations: what was not used while a whole generation was described
/// is forgotten.
pub struct Processes {
    /// What is shown of them.
    policy: RedactionPolicy,
    young: HashMap<ProcessKey, Arc<Process>>,
    /// Bytes of the young ones.
    bytes: usize,
    old: HashMap<ProcessKey, Arc<Process>>,
}

impl Processes {
    /// None is known yet. What is told of their arguments and files is redacted by `policy`.
    pub fn new(policy: RedactionPolicy) -> Self {
        Self { policy, young: HashMap::default(), bytes: 0, old: HashMap::default() }
    }

    /// Learns what a process is.
    pub fn describe(&mut self, event: ProcessEvent) {
        let script = event.executable.as_deref().and_then(|path| script(path, &event.arguments));
        let script = script.map(|script| self.policy.script(script));
        let event = self.policy.process(&event);
        let cgroup = event.cgroup;
        let process = Process {
            pid: event.task.process.pid,
            name: event.task.comm,
            script,
            // A program may be started with one argument that is empty.
            command_line: Some(event.arguments.join(" ")).filter(|line| !line.is_empty()).map(Into::into),
            uid: event.task.uid,
            user: event.task.user,
            preload: event.preload,
            parent: Some(Parent { pid: event.parent_pid, name: event.parent_comm }),
            container_id: cgroup.as_deref().and_then(cgroup::container_id).map(Into::into),
            systemd_unit: cgroup.as_deref().and_then(cgroup::systemd_unit).map(Into::into),
            cgroup,
            executable: event.executable,
        };
        self.insert(event.task.process, Arc::new(process));
    }

    /// The caller of a socket call; of a process that was never described, only what every event carries is known.
    ///
    /// User and name are those of this call: a process may become another user (setuid(2)), and rename itself
    /// (`PR_SET_NAME`). While nothing changes, all calls share one description.
    pub fn caller(&mut self, task: &Task) -> Caller {
        let process = match self.young.get_mut(&task.process) {
            Some(process) => {
                if !is_current(process, task) {
                    *process = Arc::new(renamed(process, task));
                }
                Arc::clone(process)
            }
            None => {
                let process = match self.old.remove(&task.process) {
                    Some(process) if is_current(&process, task) => process,
                    Some(process) => Arc::new(renamed(&process, task)),
                    None => Arc::new(renamed(&Process { pid: task.process.pid, ..Process::default() }, task)),
                };
                self.insert(task.process, Arc::clone(&process));
                process
            }
        };
        Caller { process, tid: task.tid }
    }

    fn insert(&mut self, key: ProcessKey, process: Arc<Process>) {
        if self.young.len() >= GENERATION || self.bytes >= GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += process.bytes();
        self.young.insert(key, process);
    }
}

fn is_current(process: &Process, task: &Task) -> bool {
    // The reader shares names: nearly always they are the same in memory.
    let is_same = |one: &Arc<str>, other: &Arc<str>| Arc::ptr_eq(one, other) || one == other;
    let has_same_user = match (&process.user, &task.user) {
        (Some(one), Some(other)) => is_same(one, other),
        (one, other) => one == other,
    };
    process.uid == task.uid && has_same_user && is_same(&process.name, &task.comm)
}

/// The process with user and name as they are in this call.
fn renamed(process: &Process, task: &Task) -> Process {
    Process { name: Arc::clone(&task.comm), uid: task.uid, user: task.user.clone(), ..process.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Time;
    use crate::redact::Addresses;

    fn task(pid: u32) -> Task {
        let process = ProcessKey { pid, start_time: Time(7), exec_id: 1 };
        Task { process, tid: pid, uid: 0, user: None, comm: "smtpd".into() }
    }

    fn described(pid: u32) -> ProcessEvent {
        ProcessEvent {
            time: Time(8),
            task: task(pid),
            executable: Some("/usr/lib/postfix/sbin/smtpd".into()),
            arguments: vec!["smtpd".into(), "-n".into()],
            cgroup: Some("/system.slice/postfix.service".into()),
            preload: None,
            parent_pid: 1,
            parent_comm: "master".into(),
        }
    }

    #[test]
    fn what_was_described_is_known() {
        let mut processes = Processes::new(RedactionPolicy::new(Addresses::Domain));
        processes.describe(described(5));
        let caller = processes.caller(&task(5));
        assert_eq!(caller.process.program(), "smtpd");
        assert_eq!(caller.process.command_line.as_deref(), Some("smtpd -n"));
        assert_eq!(caller.process.systemd_unit.as_deref(), Some("postfix.service"));
    }

    #[test]
    fn no_name_of_a_file_names_anybody() {
        let mut processes = Processes::new(RedactionPolicy::new(Addresses::Domain));
        processes.describe(ProcessEvent {
            executable: Some("/srv/bob@x.example/bin/python3".into()),
            arguments: ["python3", "/srv/bob@x.example/bob@x.example.py"].map(str::to_owned).into(),
            cgroup: Some("/lxc/bob@x.example/fetch@bob@x.example.service".into()),
            preload: Some("/srv/bob@x.example/a.so".into()),
            ..described(5)
        });
        let process = processes.caller(&task(5)).process;
        assert_eq!(process.program(), "*@x.example.py");
        assert_eq!(process.script.as_deref(), Some("/srv/*@x.example/*@x.example.py"));
        assert_eq!(process.executable.as_deref(), Some("/srv/*@x.example/bin/python3"));
        let told = serde_json::to_string(&*process).expect("JSON");
        assert!(!told.contains("bob"), "{told}");
    }

    #[test]
    fn an_empty_argument_is_no_command_line() {
        let mut processes = Processes::new(RedactionPolicy::new(Addresses::Domain));
        processes.describe(ProcessEvent { arguments: vec!["".into()], ..described(5) });
        assert_eq!(processes.caller(&task(5)).process.command_line, None);
    }

    #[test]
    fn user_and_name_are_those_of_the_call() {
        let mut processes = Processes::new(RedactionPolicy::new(Addresses::Domain));
        processes.describe(described(5));
        let root = Task { user: Some("root".into()), ..task(5) };
        let before = processes.caller(&root).process;
        assert!(Arc::ptr_eq(&before, &processes.caller(&root).process), "nothing has changed");

        let mail = Task { uid: 8, user: Some("mail".into()), comm: "worker".into(), ..task(5) };
        let after = processes.caller(&mail).process;
        assert_eq!((after.uid, after.user.as_deref(), &*after.name), (8, Some("mail"), "worker"));
        assert_eq!((before.uid, before.user.as_deref(), &*before.name), (0, Some("root"), "smtpd"));
        assert_eq!(after.command_line, before.command_line);
        assert!(Arc::ptr_eq(&after, &processes.caller(&mail).process), "nothing has changed since");
    }

    #[test]
    fn a_process_in_use_outlives_those_that_are_not() {
        let mut processes = Processes::new(RedactionPolicy::new(Addresses::Domain));
        processes.describe(described(1));
        processes.describe(described(2));
        for pid in 0..3 * DESCRIBED_PROCESSES {
            processes.describe(described(1000 + pid));
            processes.caller(&task(1));
        }
        assert!(processes.caller(&task(1)).process.executable.is_some());
        assert!(processes.caller(&task(2)).process.executable.is_none());
        assert!(processes.young.len() + processes.old.len() <= 2 * GENERATION);
    }
}
