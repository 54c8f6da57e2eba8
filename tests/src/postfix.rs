//! A private Postfix: Debian's programs with a configuration, a queue and a log of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::{User, chown};
use tempfile::TempDir;

use crate::machine;
use crate::netns::Host;
use crate::process::{self, Running};

/// Where Debian's package has its daemons.
const DAEMONS: &str = "/usr/lib/postfix/sbin";

/// Accepts mail to `ok@test.example` and throws it away, and answers 550 to every other recipient there.
const MAIN: &str = "\
compatibility_level = 3.6
myhostname = server.example
mydestination = test.example
inet_interfaces = all
inet_protocols = all
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
local_transport = discard:
alias_maps =
local_recipient_maps = inline:{ok=1}
maillog_file = /dev/stdout
maillog_file_prefixes = /dev
";

/// Parameters with which a connection that its cache is given stays there until it is stopped, however slow the machine is.
/// As Postfix comes, each is over after two seconds, since the cache itself has a limit beside that of its clients.
pub const KEPT: [&str; 4] = [
    "smtp_connection_cache_time_limit = 1h",
    "smtp_connection_reuse_time_limit = 1h",
    "connection_cache_ttl_limit = 1h",
    "connection_cache_protocol_timeout = 1h",
];

/// A Postfix that serves port 25 of one host.
#[derive(Debug)]
pub struct Postfix {
    master: Running,
    folder: TempDir,
}

impl Postfix {
    /// Starts it and waits until it listens.
    pub fn start(host: &Host) -> Result<Self> {
        Self::start_with(host, &[], &[])
    }

    /// Starts it with further parameters of main.cf and services of master.cf, in place of those of the same name.
    pub fn start_with(host: &Host, parameters: &[&str], services: &[&str]) -> Result<Self> {
        let postfix = machine::installed("postfix")?;
        let folder = tempfile::Builder::new().prefix("smtp-observer-postfix-").tempdir()?;
        configure(folder.path(), parameters, services).context("configuring Postfix")?;
        let configuration = folder.path().join("etc");

        let mut check = Command::new(postfix);
        check.arg("-c").arg(&configuration).arg("check");
        process::run(check)?;

        // Its master stays a child of this process, which ends it whatever becomes of the test.
        let mut master = host.command(Path::new(DAEMONS).join("master"));
        master.arg("-s").arg("-c").arg(&configuration).env("MAIL_CONFIG", &configuration);
        let master = Running::start(master)?;
        let started = |lines: &[String]| lines.iter().any(|line| line.contains("daemon started")).then_some(());
        if let Err(error) = master.output.wait_for("Postfix's `daemon started`", started) {
            bail!("{error}\n{}\n{}", master.output.so_far().join("\n"), master.log.so_far().join("\n"));
        }
        Ok(Self { master, folder })
    }

    /// The pid of its master, the parent of every `smtpd`.
    pub fn pid(&self) -> u32 {
        self.master.pid()
    }

    /// Hands it a mail, as a program on its host does, and waits until it is delivered and smtp(8) is done with its
    /// connection: `status=sent` is logged before the connection goes to the cache, and `removed` behind it.
    pub fn deliver(&self, host: &Host, sender: &str, recipient: &str) -> Result<()> {
        let sent = [&format!("to=<{recipient}>"), "status=sent"];
        let removed = ["/qmgr[", ": removed"];
        let [sent_before, removed_before] = [self.logged(&sent), self.logged(&removed)];
        self.submit(host, sender, recipient)?;
        self.wait_logged(&sent, sent_before + 1)?;
        self.wait_logged(&removed, removed_before + 1)
    }

    /// Hands it a mail, as a program on its host does.
    pub fn submit(&self, host: &Host, sender: &str, recipient: &str) -> Result<()> {
        let mut sendmail = self.command(host, "sendmail")?;
        sendmail.args(["-f", sender, recipient]);
        process::run(sendmail).map(drop)
    }

    /// Has it try again at once what it could not deliver.
    pub fn flush(&self, host: &Host) -> Result<()> {
        let mut postqueue = self.command(host, "postqueue")?;
        postqueue.arg("-f");
        process::run(postqueue).map(drop)
    }

    /// Waits until so many lines of its log have all of these words.
    pub fn wait_logged(&self, words: &[&str], count: usize) -> Result<()> {
        let what = format!("{count} lines of Postfix's log with {words:?}");
        self.wait_until(&what, |log| lines_with(log, words) >= count)
    }

    /// Waits until its log is enough.
    pub fn wait_until(&self, what: &str, enough: impl Fn(&[String]) -> bool) -> Result<()> {
        let look = |log: &[String]| enough(log).then_some(());
        self.master.output.wait_for(what, look).with_context(|| self.master.output.so_far().join("\n"))
    }

    /// How many lines of its log have all of these words.
    pub fn logged(&self, words: &[&str]) -> usize {
        lines_with(&self.master.output.so_far(), words)
    }

    fn command(&self, host: &Host, program: &str) -> Result<Command> {
        let mut command = host.command(machine::installed(program)?);
        command.env("MAIL_CONFIG", self.folder.path().join("etc"));
        Ok(command)
    }

    /// Ends it with all its daemons, and hands back its log.
    pub fn stop(self) -> Result<Vec<String>> {
        Ok(self.master.stop()?.output)
    }
}

fn lines_with(log: &[String], words: &[&str]) -> usize {
    log.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn configure(folder: &Path, parameters: &[&str], services: &[&str]) -> Result<()> {
    // Its daemons run as other users and must get to the queue.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let [etc, queue, data] = ["etc", "queue", "data"].map(|name| folder.join(name));
    for directory in [&etc, &queue, &data] {
        fs::create_dir(directory)?;
    }
    let owner = User::from_name("postfix")?.context("there is no user `postfix`: run `cargo xtask test`")?;
    chown(&data, Some(owner.uid), None)?;

    let main = format!("{MAIN}queue_directory = {}\ndata_directory = {}\n", queue.display(), data.display());
    fs::write(etc.join("main.cf"), main)?;
    fs::write(etc.join("dynamicmaps.cf"), "")?;
    fs::copy("/etc/postfix/postfix-files", etc.join("postfix-files"))?;
    let mut master = fs::read_to_string("/usr/share/postfix/master.cf.dist")?;
    master.push_str("\npostlog unix-dgram n - n - 1 postlogd\n");
    fs::write(etc.join("master.cf"), master)?;
    let postconf = |arguments: &[&str]| -> Result<()> {
        let mut postconf = Command::new(machine::installed("postconf")?);
        postconf.arg("-c").arg(&etc).args(arguments);
        process::run(postconf)?;
        Ok(())
    };
    for parameter in parameters {
        postconf(&["-e", parameter])?;
    }
    for service in services {
        let mut words = service.split_ascii_whitespace();
        let (name, kind) = words.next().zip(words.next()).context("a service needs a name and a type")?;
        postconf(&["-M", &format!("{name}/{kind}={service}")])?;
    }
    postconf(&["-F", "*/*/chroot = n"])
}
