//! The connections open now, as a table and as JSON.

use std::io::{self, Write};

use crate::kernel::chain::{Upstream, Via};
use crate::kernel::host::{NoProcess, OpenConnection};
use crate::observation::Process;
use crate::sink::escape::cut;

const HEADINGS: [&str; 7] = ["ROLE", "LOCAL", "REMOTE", "PROGRAM", "PID", "USER", "COMMAND"];

/// Most characters of a command line in the table; all of it is in the JSON.
const COMMAND_WIDTH: usize = 120;

/// Writes one row a connection and process, then what is in the middle of them.
pub fn table(connections: &[OpenConnection], mut out: impl Write) -> io::Result<()> {
    let mut rows = vec![HEADINGS.map(String::from)];
    for open in connections {
        let ends = [
            open.connection.role.as_str().into(),
            open.connection.local.to_string(),
            open.connection.remote.to_string(),
        ];
        let mut processes = open.process.iter().chain(&open.shared_with).peekable();
        if processes.peek().is_none() {
            let [role, local, remote] = ends.clone();
            rows.push([role, local, remote, nobody(open.no_process).into(), "".into(), "".into(), "".into()]);
        }
        for process in processes {
            let [role, local, remote] = ends.clone();
            rows.push([
                role,
                local,
                remote,
                cut(process.program(), 32),
                process.pid.to_string(),
                process.user.as_ref().map_or_else(|| process.uid.to_string(), |user| cut(user, 32)),
                cut(process.command_line.as_deref().unwrap_or_default(), COMMAND_WIDTH),
            ]);
        }
    }

    let mut widths = [0; HEADINGS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    let mut chains = connections.iter().filter_map(chain).peekable();
    if chains.peek().is_some() {
        writeln!(out)?;
    }
    chains.try_for_each(|chain| writeln!(out, "{chain}"))
}

/// `mail-client (pid 5) → antivirus-proxy (pid 6), by redirect to 127.0.0.1:10025 → 10.77.0.2:25`.
fn chain(open: &OpenConnection) -> Option<String> {
    let Via { method, accepted, process, no_process, upstream } = open.via.as_ref()?;
    let client = named(open.process.as_deref(), open.no_process);
    let middle = named(process.as_deref(), *no_process);
    let mut text = format!("{client} → {middle}, by {} to {accepted}", method.as_str());
    match upstream {
        Some(Upstream { remote, process: Some(server), .. }) => {
            text.push_str(&format!(" → {} at {remote}", named(Some(server), None)));
        }
        Some(Upstream { remote, process: None, .. }) => text.push_str(&format!(" → {remote}")),
        None => text.push_str(&format!("; asked for {}", open.connection.remote)),
    }
    Some(text)
}

fn named(process: Option<&Process>, no_process: Option<NoProcess>) -> String {
    match process {
        Some(process) => format!("{} (pid {})", cut(process.program(), 32), process.pid),
        None => nobody(no_process).to_owned(),
    }
}

/// What stands in the place of a process.
fn nobody(no_process: Option<NoProcess>) -> &'static str {
    match no_process {
        Some(NoProcess::NotAccepted) => "(not accepted yet)",
        Some(NoProcess::NotVisible) | None => "(owner not visible)",
    }
}

/// Writes one array.
pub fn json(connections: &[OpenConnection], mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, connections)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kernel::host::Socket;
    use crate::observation::{Method, Role};
    use crate::sink::samples::{Sample, endpoint};

    fn open(process: Option<Arc<Process>>) -> OpenConnection {
        let connection = Socket {
            role: Role::Server,
            local: endpoint("192.0.2.25", 25),
            remote: endpoint("198.51.100.4", 40004),
            netns: 1,
        };
        let no_process = process.is_none().then_some(NoProcess::NotAccepted);
        OpenConnection { connection, process, no_process, shared_with: Vec::new(), via: None }
    }

    #[test]
    fn a_chain() {
        let process = |sample: Sample| Some(sample.caller().process);
        let [client, proxy, server] =
            [Sample::client(), Sample::server().with_program(6, "/opt/proxy"), Sample::server()];
        let mut first = open(process(client));
        let (local, remote) = (endpoint("198.51.100.4", 40005), endpoint("192.0.2.25", 25));
        first.connection = Socket { role: Role::Client, local: endpoint("198.51.100.4", 40004), remote, netns: 1 };
        let mut lines = Vec::new();
        for upstream in [
            Some(Upstream { local, remote, process: process(server) }),
            Some(Upstream { local, remote, process: None }),
            None,
        ] {
            let (method, accepted, process) = (Method::Redirect, endpoint("127.0.0.1", 10025), process(proxy.clone()));
            first.via = Some(Via { method, accepted, process, no_process: None, upstream });
            let mut out = Vec::new();
            table(std::slice::from_ref(&first), &mut out).expect("writable");
            let text = String::from_utf8(out).expect("UTF-8");
            lines.extend(text.split_once("\n\n").expect("a chain behind the table").1.lines().map(str::to_owned));
        }
        let begin = "perl (pid 4711) → proxy (pid 6), by redirect to 127.0.0.1:10025";
        let ends = [" → smtpd (pid 825) at 192.0.2.25:25", " → 192.0.2.25:25", "; asked for 192.0.2.25:25"];
        assert_eq!(lines, ends.map(|end| format!("{begin}{end}")));
    }

    #[test]
    fn a_table() {
        let mut process = Process::clone(&Sample::server().caller().process);
        let shared = Arc::new(Process { pid: 700, user: None, ..process.clone() });
        process.command_line = Some("smtpd -n \u{1b}[31m".into());
        let first = OpenConnection { shared_with: vec![shared], ..open(Some(Arc::new(process))) };
        let mut out = Vec::new();
        let hidden = OpenConnection { no_process: Some(NoProcess::NotVisible), ..open(None) };
        table(&[first, open(None), hidden], &mut out).expect("writable");
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "ROLE    LOCAL          REMOTE              PROGRAM              PID  USER     COMMAND\n\
             server  192.0.2.25:25  198.51.100.4:40004  smtpd                825  postfix  smtpd -n \\x1b[31m\n\
             server  192.0.2.25:25  198.51.100.4:40004  smtpd                700  101      smtpd -n smtp\n\
             server  192.0.2.25:25  198.51.100.4:40004  (not accepted yet)\n\
             server  192.0.2.25:25  198.51.100.4:40004  (owner not visible)\n"
        );
    }

    #[test]
    fn an_array() {
        let mut out = Vec::new();
        json(&[], &mut out).expect("writable");
        assert_eq!(out, b"[]\n");
        out.clear();
        json(&[open(Some(Sample::server().caller().process)), open(None)], &mut out).expect("writable");
        let array: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(array[0]["process"]["executable"], "/usr/lib/postfix/sbin/smtpd");
        assert_eq!(array[0]["connection"]["local"]["port"], 25);
        assert_eq!(array[1], serde_json::json!({"connection": array[0]["connection"], "no_process": "not_accepted"}));
    }
}
