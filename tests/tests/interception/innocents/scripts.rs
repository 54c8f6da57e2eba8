//! Scripts: a server and its clients are of one interpreter, and one process has started all of them.

use std::io::Write;

use anyhow::Result;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use tempfile::NamedTempFile;

use super::{Innocent, run};

/// A server and clients in Python, which send one envelope again and again.
pub fn python() -> Result<Innocent> {
    let host = Host::new()?;
    let server_script = script(include_str!("server.py"))?;
    let client_script = script(include_str!("client.py"))?;
    let mut server = host.command(machine::installed("python3")?);
    server.arg(server_script.path()).arg("127.0.0.1");
    let server = Running::start(server)?;
    host.wait_bound(25)?;
    let (clients_host, path) = (host.clone(), client_script.path().to_owned());
    let send = move || {
        for _ in 0..2 {
            let mut client = clients_host.command(machine::installed("python3")?);
            client.arg(&path).arg("127.0.0.1");
            run(client)?;
        }
        Ok(())
    };
    Ok(Innocent {
        name: "scripts of one interpreter",
        hosts: vec![host],
        send: Box::new(send),
        accepted: 2,
        programs: &["python3"],
        _running: vec![Box::new(server), Box::new((server_script, client_script))],
    })
}

fn script(text: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::with_suffix(".py")?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// Each is told by its own name, and the second client's connection is not taken for the server's.
#[test]
fn scripts_of_one_interpreter() -> Result<()> {
    let _turn = crate::beside_others();
    let innocent = python()?;
    let seen = innocent.check()?;
    let scripts: std::collections::BTreeSet<_> =
        seen.0.iter().filter_map(|observed| observed.text("/process/script")).collect();
    assert_eq!(scripts.len(), 2, "{scripts:?}");
    Ok(())
}
