//! Both ends of a connection on this host: a buffer that another thread rewrites while it is sent shows at its own end what was
//! not sent, and the other end tells.

use std::hint;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use smtp_observer::fact::What;
use smtp_observer::kernel::{Kernel, Settings, Tls};
use smtp_observer::observation::{AnomalyKind, Role};
use smtp_observer::observer::Observer;
use smtp_observer::redact::{Addresses, RedactionPolicy};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use tracing::level_filters::LevelFilter;

/// Most commands that are sent until one shows at one end what it does not at the other: as a rule, one of the first does.
const MAX_COMMANDS: usize = 200_000;

/// Commands between two looks at what was observed.
const AT_ONCE: usize = 50;

const LENGTH: usize = 6;

/// Two commands of this length, as numbers: one store writes either.
const COMMANDS: [u64; 2] = [u64::from_ne_bytes(*b"NOOP\r\n  "), u64::from_ne_bytes(*b"RSET\r\n  ")];

/// The hooks, what is made of what they tell, and a dialogue.
struct Scene {
    kernel: Kernel,
    observer: Observer,
    dialogue: Dialogue,
    /// The anomalies that were observed, each with its end.
    anomalies: Vec<(Role, AnomalyKind, String)>,
    commands: usize,
}

impl Scene {
    fn new(port: u16) -> Result<Self> {
        machine::require_root()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _guard = runtime.enter();
        let hooks = machine::hooks()?;
        let settings = Settings {
            ports: vec![port],
            hooks,
            ring_bytes: 8 << 20,
            tls: Tls::Off,
            user: None,
            diagnostics: LevelFilter::OFF,
        };
        let kernel = Kernel::attach(&settings)?;
        let (client_host, server_host) = Host::pair()?;
        let dialogue = Dialogue::open(&client_host, &server_host, &format!("10.77.0.2:{port}"))?;
        let policy = RedactionPolicy::new(Addresses::Full);
        let observer = Observer::new(&[port], policy);
        let mut scene = Self { kernel, observer, dialogue, anomalies: Vec::new(), commands: 0 };
        scene.dialogue.server_says(b"220 mx.example ESMTP\r\n")?;
        scene.dialogue.client_says(b"EHLO client.example\r\n")?;
        scene.dialogue.server_says(b"250 mx.example\r\n")?;
        Ok(scene)
    }

    /// Sends what stands in a buffer, and answers it.
    fn command(&self, buffer: &AtomicU64) -> Result<()> {
        let Dialogue { client, server, .. } = &self.dialogue;
        send(client, buffer)?;
        let (mut server, mut client) = (server, client);
        server.read_exact(&mut [0; LENGTH])?;
        server.write_all(b"250 2.0.0 Ok\r\n")?;
        client.read_exact(&mut [0; 14])?;
        Ok(())
    }

    fn commands(&mut self, buffer: &AtomicU64) -> Result<()> {
        (0..AT_ONCE).try_for_each(|_| self.command(buffer))?;
        self.observe();
        Ok(())
    }

    fn observe(&mut self) {
        let Self { kernel, observer, anomalies, commands, .. } = self;
        kernel.drain(&mut |event| {
            observer.event(event, &mut |fact| match fact.what {
                What::Anomaly { kind, detail } => {
                    anomalies.push((fact.connection.role, kind, detail.to_owned()));
                }
                What::Command(_) => *commands += 1,
                _ => {}
            });
        });
    }

    fn disagreements(&self) -> Vec<(Role, &str)> {
        let disagreements = self.anomalies.iter().filter(|(_, kind, _)| *kind == AnomalyKind::EndsDisagree);
        disagreements.map(|(role, _, detail)| (*role, &**detail)).collect()
    }
}

/// Sends the first bytes of a buffer that another thread may be writing.
fn send(to: &TcpStream, buffer: &AtomicU64) -> Result<()> {
    // SAFETY: the buffer is longer. What it holds is the kernel's to read, not this program's.
    let sent = unsafe { libc::send(to.as_raw_fd(), buffer.as_ptr().cast(), LENGTH, libc::MSG_NOSIGNAL) };
    ensure!(sent == LENGTH as isize, "{sent} bytes were sent: {}", std::io::Error::last_os_error());
    Ok(())
}

/// The processors that this thread may run on.
fn processors() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|number| set.is_set(*number).unwrap_or(false)).collect())
}

/// Two threads that share a processor never do anything at the same time.
fn stay_on(processor: Option<&usize>) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(*processor.context("there is no processor")?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

#[test]
fn ends_that_show_the_same_agree() -> Result<()> {
    let mut scene = Scene::new(2821)?;
    for number in 0..20 {
        scene.commands(&AtomicU64::new(COMMANDS[number % 2]))?;
    }
    assert_eq!(scene.disagreements(), []);
    // At both ends the 1,000 commands were seen, and EHLO.
    ensure!(scene.commands == 2 * (20 * AT_ONCE + 1), "{} commands were seen: {:?}", scene.commands, scene.anomalies);
    Ok(())
}

#[test]
fn a_buffer_that_is_rewritten_while_it_is_sent_is_told_of() -> Result<()> {
    let mut scene = Scene::new(2822)?;
    let buffer = AtomicU64::new(COMMANDS[0]);
    let is_over = AtomicBool::new(false);
    let processors = processors()?;
    stay_on(processors.first())?;
    let sent = thread::scope(|scope| {
        let rewriter = scope.spawn(|| {
            stay_on(processors.last())?;
            while !is_over.load(Ordering::Relaxed) {
                for command in COMMANDS {
                    buffer.store(command, Ordering::Relaxed);
                    // For about as long as it takes to send, so that the other processor sees either.
                    (0..50).for_each(|_| hint::spin_loop());
                }
            }
            anyhow::Ok(())
        });
        let mut sent = 0;
        let said = loop {
            match scene.commands(&buffer) {
                Ok(()) if scene.disagreements().is_empty() && sent < MAX_COMMANDS => sent += AT_ONCE,
                said => break said.map(|()| sent + AT_ONCE),
            }
        };
        is_over.store(true, Ordering::Relaxed);
        rewriter.join().ok().context("the thread that rewrites panicked")??;
        said
    })?;
    let told = scene.disagreements();
    println!("of {sent} commands: {told:?}, {:?}", scene.anomalies);
    ensure!(told.len() == 2, "{sent} commands were sent, and {told:?} was told: {:?}", scene.anomalies);
    let ends = [Role::Client, Role::Server].map(|role| told.iter().filter(|(end, _)| *end == role).count());
    assert_eq!(ends, [1, 1], "{told:?}");
    for (_, detail) in told {
        let shown = detail.split_once(" bytes of the client: ").context("the client's stream is meant")?.1;
        let known = ["NOOP was sent, RSET received", "RSET was sent, NOOP received"];
        ensure!(known.contains(&shown), "{detail}");
    }
    Ok(())
}
