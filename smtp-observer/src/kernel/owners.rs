//! Who uses which socket, as the last records have told: transfers name both by number.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroUsize;

use lru::LruCache;

use crate::event::{Socket, Task, TcpState};

/// Most sockets that are known at once. The kernel names those that are in use again and again.
const MAX_SOCKETS: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// Most sockets that are known beyond the end of their connection: what is left in them can still be read.
const MAX_CLOSED: usize = 4096;

/// Sockets, by cookie.
pub struct Owners {
    sockets: LruCache<u64, Known, foldhash::fast::RandomState>,
    closed: VecDeque<u64>,
}

struct Known {
    socket: Socket,
    /// Who used it last, and who did before, where that is another process.
    task: Task,
    before: Option<Box<Task>>,
    closed: bool,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            sockets: LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default()),
            closed: VecDeque::new(),
        }
    }
}

impl Owners {
    /// This task uses this socket.
    pub fn set(&mut self, socket: Socket, task: Task) {
        let cookie = socket.cookie;
        if let Some(known) = self.sockets.get_mut(&cookie) {
            // Of a closed one the kernel has forgotten the addresses.
            if socket.state != TcpState::Close {
                (known.socket, known.closed) = (socket, false);
            }
            let last = mem::replace(&mut known.task, task);
            if last.process.pid != known.task.process.pid {
                known.before = Some(Box::new(last));
            }
            return;
        }
        if self.sockets.len() >= MAX_SOCKETS.get() {
            self.sockets.pop_lru();
        }
        self.sockets.put(cookie, Known { socket, task, before: None, closed: false });
    }

    /// A socket, and the last task on it of the process with this pid.
    pub fn get(&self, cookie: u64, pid: u32) -> Option<(&Socket, &Task)> {
        let known = self.sockets.peek(&cookie)?;
        let mut tasks = [Some(&known.task), known.before.as_deref()].into_iter().flatten();
        Some((&known.socket, tasks.find(|task| task.process.pid == pid)?))
    }

    /// The connection of a socket is over.
    pub fn close(&mut self, cookie: u64) {
        let Some(known) = self.sockets.peek_mut(&cookie) else { return };
        if !mem::replace(&mut known.closed, true) {
            self.closed.push_back(cookie);
        }
        if self.closed.len() > MAX_CLOSED
            && let Some(oldest) = self.closed.pop_front()
            // It may have had another connection since.
            && self.sockets.peek(&oldest).is_some_and(|known| known.closed)
        {
            self.sockets.pop(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::event::{ProcessKey, Time};

    fn socket(cookie: u64, state: TcpState) -> Socket {
        let port = if state == TcpState::Close { 0 } else { 25 };
        let remote = SocketAddr::from(([127, 0, 0, 1], port));
        Socket { cookie, netns: 1, local: remote, remote, state, seq_unreliable: false }
    }

    fn task(pid: u32, comm: &str) -> Task {
        let process = ProcessKey { pid, start_time: Time(1), exec_id: 1 };
        Task { process, tid: pid, uid: 0, user: None, comm: comm.into() }
    }

    #[test]
    fn two_processes_on_one_socket_are_told_apart() {
        let mut owners = Owners::default();
        owners.set(socket(7, TcpState::Established), task(1, "bash"));
        owners.set(socket(7, TcpState::Established), task(2, "cat"));
        owners.set(socket(7, TcpState::Established), task(2, "tac"));
        let comm = |pid| owners.get(7, pid).map(|(_, task)| task.comm.to_string());
        assert_eq!([comm(1).as_deref(), comm(2).as_deref(), comm(3).as_deref()], [Some("bash"), Some("tac"), None]);
        assert!(owners.get(8, 1).is_none());
    }

    #[test]
    fn a_closed_socket_keeps_its_addresses_for_a_while() {
        let mut owners = Owners::default();
        owners.set(socket(0, TcpState::Established), task(1, "smtpd"));
        owners.close(0);
        owners.close(0);
        owners.set(socket(0, TcpState::Close), task(1, "smtpd"));
        assert_eq!(owners.get(0, 1).map(|(socket, _)| socket.remote.port()), Some(25));
        // One that connects again is open.
        owners.set(socket(1, TcpState::Established), task(1, "smtp"));
        owners.close(1);
        owners.set(socket(1, TcpState::Established), task(1, "smtp"));
        for cookie in 2..2 + MAX_CLOSED as u64 {
            owners.set(socket(cookie, TcpState::Established), task(1, "smtpd"));
            owners.close(cookie);
        }
        assert!(owners.get(0, 1).is_none());
        assert!(owners.get(1, 1).is_some());
        assert!(owners.closed.len() <= MAX_CLOSED);
    }

    #[test]
    fn the_sockets_are_bounded() {
        let mut owners = Owners::default();
        for cookie in 0..=MAX_SOCKETS.get() as u64 {
            owners.set(socket(cookie, TcpState::Established), task(1, "smtpd"));
        }
        assert_eq!(owners.sockets.len(), MAX_SOCKETS.get());
        assert!(owners.get(0, 1).is_none());
        assert!(owners.get(1, 1).is_some());
    }
}
