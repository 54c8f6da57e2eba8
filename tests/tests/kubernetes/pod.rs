//! A pod of the chart, without a cluster: runc starts its container with what a kubelet and a runtime would make of the object.
//!
//! What is not that of a cluster: there is no seccomp profile, which every runtime has its own of, no AppArmor and no SELinux.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use smtp_observer_tests::http;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{Ended, Running};
use smtp_observer_tests::seen::{Observed, Seen};
use tempfile::TempDir;

use crate::chart::{Objects, output};

/// What runtimes hide of /proc and /sys, and what they let nobody write.
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where the agent is in its image.
const AGENT: &str = "/usr/bin/smtp-observer";

/// A container's files and what a runtime is told of it.
struct Bundle {
    folder: TempDir,
    /// The pod's own network.
    network: Host,
    /// That network's file, open for as long as the container may need its name.
    namespace: File,
    name: String,
}

impl Bundle {
    fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        machine::require_root()?;
        let network = Host::new()?;
        let namespace = network.enter(|| File::open("/proc/thread-self/ns/net"))?;
        let name = format!("smtp-observer-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let bundle = Self { folder: tempfile::tempdir()?, network, namespace, name };
        bundle.fill()?;
        Ok(bundle)
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("rootfs")
    }

    /// Brings the agent's files: those of the image that the variable `SMTP_OBSERVER_IMAGE` names, as `LAYOUT:TAG`, or the agent
    /// that is tested and the libraries that it has been linked to.
    fn fill(&self) -> Result<()> {
        if let Ok(image) = std::env::var("SMTP_OBSERVER_IMAGE") {
            let unpack = ["unpack", "--image", &image];
            output(Command::new(machine::installed("umoci")?).args(unpack).arg(self.folder.path()))?;
            let image: Value = serde_json::from_slice(&fs::read(self.folder.path().join("config.json"))?)?;
            assert_eq!(image["process"]["args"], json!([AGENT, "run"]), "what the image starts");
            return Ok(());
        }
        let agent = machine::agent()?;
        let place = |from: &Path, to: &str| -> Result<()> {
            let to = self.root().join(to.trim_start_matches('/'));
            fs::create_dir_all(to.parent().context("a file in no directory")?)?;
            // By another program: what this one writes may still be open in a child that another test is just starting, and
            // then cannot be executed.
            output(Command::new("cp").arg("--dereference").arg(from).arg(to)).map(drop)
        };
        for word in output(Command::new("ldd").arg(&agent))?.split_whitespace().filter(|word| word.starts_with('/')) {
            place(Path::new(word), word)?;
        }
        place(&agent, AGENT)
    }

    /// A command that runs this in the container of a pod.
    fn command(&self, objects: &Objects, arguments: &[&str]) -> Result<Command> {
        fs::write(self.folder.path().join("config.json"), self.configuration(objects, arguments)?.to_string())?;
        let mut runc = Command::new(machine::installed("runc")?);
        runc.arg("--root").arg(self.folder.path().join("state"));
        runc.args(["run", "--bundle"]).arg(self.folder.path()).arg(&self.name);
        Ok(runc)
    }

    /// What runc is told: the container's object, as the OCI runtime specification has it.
    fn configuration(&self, objects: &Objects, arguments: &[&str]) -> Result<Value> {
        let (pod, container) = (objects.pod()?, objects.container()?);
        let security = &container["securityContext"];
        ensure!(security["privileged"] == false, "a privileged container has every right there is");
        let user = &pod["securityContext"];
        let capabilities: Vec<_> = objects.capabilities()?.iter().map(|name| format!("CAP_{name}")).collect();
        let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "ipc"}), json!({"type": "uts"})];
        if pod["hostPID"] == false {
            namespaces.push(json!({"type": "pid"}));
        }
        ensure!(pod["hostNetwork"] == false, "the network here is the pod's own");
        let network = format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd());
        namespaces.push(json!({"type": "network", "path": network}));
        let arguments: Vec<_> = [AGENT].iter().chain(arguments).collect();
        let read_only = ["nosuid", "noexec", "nodev", "ro"];
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user["runAsUser"], "gid": user["runAsGroup"]},
                "args": arguments,
                "env": ["PATH=/usr/bin"],
                "cwd": "/",
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "noNewPrivileges": security["allowPrivilegeEscalation"] == false,
            },
            "root": {"path": "rootfs", "readonly": security["readOnlyRootFilesystem"]},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": read_only},
            ],
            "linux": {
                "namespaces": namespaces,
                "resources": {"memory": {"limit": bytes(&container["resources"]["limits"]["memory"])?}},
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
            },
        }))
    }
}

/// A quantity of memory, as Kubernetes writes it.
fn bytes(quantity: &Value) -> Result<u64> {
    let mebibytes = quantity.as_str().and_then(|text| text.strip_suffix("Mi")).context("no limit in Mi")?;
    Ok(mebibytes.parse::<u64>()? << 20)
}

/// What a command of the agent's says in the container of a pod.
pub fn says(objects: &Objects, arguments: &[&str]) -> Result<Ended> {
    Running::start(Bundle::new()?.command(objects, arguments)?)?.finish()
}

/// A pod whose agent observes.
pub struct Pod {
    running: Running<Observed>,
    port: u16,
    bundle: Bundle,
}

impl Pod {
    /// Starts a pod with what the chart tells the agent, and waits until it observes.
    pub fn start(objects: &Objects) -> Result<Self> {
        let bundle = Bundle::new()?;
        let command = bundle.command(objects, &objects.arguments()?)?;
        let port = objects.container()?["ports"][0]["containerPort"].as_u64().context("no port")?;
        let running = Running::start_parsed(command, Observed::parse)?;
        let observing = |lines: &[String]| lines.iter().any(|line| line.contains("observing port")).then_some(());
        if let Err(error) = running.log.wait_for("`observing port …`", observing) {
            bail!("the agent does not observe: {error}\n{}", running.log.so_far().join("\n"));
        }
        Ok(Self { running, port: u16::try_from(port)?, bundle })
    }

    /// Waits until it saw this many connections end on these hosts, each socket counted by itself.
    pub fn wait_closed(&self, hosts: &[&Host], sockets: usize) -> Result<Seen> {
        let inodes = hosts.iter().map(|host| host.inode()).collect::<Result<Vec<_>>>()?;
        let look = |all: &[Observed]| {
            let seen = Seen(all.iter().filter(|observed| observed.is_on(&inodes)).cloned().collect());
            (seen.count("connection.closed") >= sockets).then_some(seen)
        };
        self.running
            .output
            .wait_for("the ends of connections", look)
            .with_context(|| self.running.log.so_far().join("\n"))
    }

    /// The status that a probe of the pod gets.
    pub fn probe(&self, path: &str) -> Result<u16> {
        let answer = self
            .bundle
            .network
            .enter(|| http::get(([127, 0, 0, 1], self.port).into(), path).map_err(std::io::Error::other));
        Ok(answer?.0)
    }

    /// A line of its first process's `/proc/PID/status`.
    pub fn status(&self, line: &str) -> Result<String> {
        let mut runc = Command::new(machine::installed("runc")?);
        runc.arg("--root").arg(self.bundle.folder.path().join("state")).arg("state").arg(&self.bundle.name);
        let state: Value = serde_json::from_str(&output(&mut runc)?)?;
        let status = fs::read_to_string(format!("/proc/{}/status", state["pid"]))?;
        let value = status.lines().find_map(|status| status.strip_prefix(line)?.strip_prefix(":"));
        Ok(value.with_context(|| format!("no {line} in\n{status}"))?.trim().to_owned())
    }

    /// Ends it as a kubelet does, and wants it to have gone well.
    pub fn stop(self) -> Result<()> {
        let ended = self.running.stop()?;
        ensure!(ended.status.success(), "the pod ended with {}\n{}", ended.status, ended.log.join("\n"));
        Ok(())
    }
}
