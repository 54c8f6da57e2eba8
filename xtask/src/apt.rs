//! Debian's packages, without installing any.
//!
//! Everything goes through apt's own programs, so that signatures are checked, proxies are used and the newest version is
//! apt's choice; but sources, indexes and downloads are private, in a directory of `.tools`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::packages;
use crate::process::{make_empty, say};

/// Whose signatures are believed, for every suite alike: they are signed by two generations of keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How long a package index is good for: a kernel a day old is new enough.
const INDEX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Where this machine has Debian's packages from.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    /// The archive itself.
    main: String,
    /// Its security updates.
    security: Option<String>,
}

impl Mirror {
    /// Asks apt.
    fn of_this_machine() -> Result<Self> {
        let ask = || run(Command::new("apt-get").args(["indextargets", "Created-By: Packages"]));
        if let Some(mirror) = Self::parse(&ask()?) {
            return Ok(mirror);
        }
        // apt knows whose archives these are only from their indexes.
        packages::refresh_lists()?;
        Self::parse(&ask()?).context("this machine's apt knows no archive of Debian")
    }

    /// Reads the output of `apt-get indextargets`.
    fn parse(targets: &str) -> Option<Self> {
        let site = |label: &str| {
            targets
                .split("\n\n")
                .find(|target| {
                    field(target, "Origin") == Some("Debian")
                        && field(target, "Label") == Some(label)
                        && field(target, "Component") == Some("main")
                })
                .and_then(|target| field(target, "Site"))
                .map(str::to_owned)
        };
        Some(Self { main: site("Debian")?, security: site("Debian-Security") })
    }

    /// The list of sources for a suite.
    fn sources(&self, suite: &str) -> String {
        let source = |site: &str, suite: &str| {
            format!(
                "Types: deb\nURIs: {site}\nSuites: {suite}\nComponents: main\nArchitectures: amd64\n\
                 Targets: Packages\nSigned-By: {KEYRING}\n"
            )
        };
        let main = source(&self.main, suite);
        match &self.security {
            // The unstable suite gets its security updates like all others.
            Some(site) if suite != "sid" => format!("{main}\n{}", source(site, &format!("{suite}-security"))),
            _ => main,
        }
    }
}

/// The archive of Debian that this machine's apt uses.
pub(crate) fn mirror() -> Result<String> {
    Ok(Mirror::of_this_machine()?.main)
}

/// apt's programs with sources, indexes and downloads of their own.
pub(crate) struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// With an index that is not too old.
    pub(crate) fn new(directory: &Path, suite: &str) -> Result<Self> {
        ensure!(Path::new(KEYRING).exists(), "{KEYRING} is missing: install debian-archive-keyring");
        let apt = Self { directory: directory.to_owned() };
        let sources = Mirror::of_this_machine()?.sources(suite);
        let (list, stamp) = (directory.join("debian.sources"), directory.join("updated"));
        let age = fs::metadata(&stamp).and_then(|stamp| stamp.modified()).ok().and_then(|time| time.elapsed().ok());
        let is_current = fs::read_to_string(&list).is_ok_and(|list| list == sources);
        if !(is_current && age.is_some_and(|age| age < INDEX_AGE)) {
            say(&format!("reading {suite}'s package index"));
            for part in ["lists/partial", "cache/archives/partial"] {
                fs::create_dir_all(directory.join(part))?;
            }
            fs::write(&list, sources)?;
            let update = run(apt.command("apt-get").args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]))
                .with_context(|| format!("the package index of {suite} cannot be had"));
            match update {
                Ok(_) => fs::write(&stamp, "")?,
                // An index that was verified once is still there.
                Err(error) if is_current && age.is_some() => say(&format!("{error:#}: going on with the older one")),
                Err(error) => return Err(error),
            }
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8");
        let mut option = |name: &str, value: &OsStr| {
            let mut option = OsStr::new(name).to_owned();
            option.push("=");
            option.push(value);
            command.arg("-o").arg(option);
        };
        let none = OsStr::new("/dev/null");
        option("Dir::Etc::SourceList", self.directory.join("debian.sources").as_os_str());
        for name in
            ["Dir::Etc::SourceParts", "Dir::Etc::Preferences", "Dir::Etc::PreferencesParts", "Dir::State::status"]
        {
            option(name, none);
        }
        option("Dir::State", self.directory.as_os_str());
        option("Dir::State::Lists", self.directory.join("lists").as_os_str());
        option("Dir::Cache", self.directory.join("cache").as_os_str());
        option("APT::Architecture", OsStr::new("amd64"));
        // apt's own user for downloads may not enter this directory.
        option("APT::Sandbox::User", OsStr::new("root"));
        command
    }

    pub(crate) fn show(&self, package: &str) -> Result<String> {
        run(self.command("apt-cache").args(["show", "--no-all-versions", package]))
    }

    /// Downloads packages, given with their versions.
    pub(crate) fn download(&self, packages: &[(String, String)], into: &Path) -> Result<()> {
        let packages = packages.iter().map(|(name, version)| format!("{name}={version}"));
        run(self.command("apt-get").args(["-q", "download"]).args(packages).current_dir(into)).map(drop)
    }

    /// Unpacks packages into `root` with all that they need, as if nothing at all were installed here: what is in them
    /// can be run from there, with the loader that is there.
    pub(crate) fn unpack_whole(&self, packages: &[&str], root: &Path) -> Result<()> {
        let partial = root.with_extension("partial");
        make_empty(&partial)?;
        let archives = partial.join("archives");
        self.download_whole(packages, &archives)?;
        extract(&archives, &partial)?;
        fs::remove_dir_all(&archives)?;
        Ok(fs::rename(&partial, root)?)
    }

    fn download_whole(&self, packages: &[&str], into: &Path) -> Result<()> {
        fs::create_dir_all(into.join("partial"))?;
        let mut archives = OsStr::new("Dir::Cache::Archives=").to_owned();
        archives.push(into);
        let mut command = self.command("apt-get");
        command.arg("-o").arg(archives).args(["-q", "-y", "--no-install-recommends", "--download-only", "install"]);
        run(command.args(packages)).map(drop)
    }
}

/// Unpacks every package in `archives` into `root`.
pub(crate) fn extract(archives: &Path, root: &Path) -> Result<()> {
    for archive in fs::read_dir(archives)? {
        let archive = archive?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(root))?;
        }
    }
    Ok(())
}

/// A field of a stanza in Debian's format.
pub(crate) fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// What a program writes to standard output; what it complains of where it fails.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{program} cannot be run"))?;
    ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target of apt's, as `apt-get indextargets` shows it.
    fn target(site: &str, origin: &str, label: &str) -> String {
        format!("MetaKey: main/Packages\nLabel: {label}\nOrigin: {origin}\nComponent: main\nSite: {site}\n\n")
    }

    #[test]
    fn the_mirror_is_the_machines_own() {
        let targets = target("https://other.example", "other", "Debian")
            + &target("https://mirror.example/debian", "Debian", "Debian")
            + &target("https://mirror.example/security", "Debian", "Debian-Security");
        let mirror = Mirror::parse(&targets).expect("a mirror");
        assert_eq!(mirror.main, "https://mirror.example/debian");
        assert_eq!(mirror.security.as_deref(), Some("https://mirror.example/security"));
        assert_eq!(Mirror::parse(&target("https://other.example", "Ubuntu", "Ubuntu")), None);
    }

    #[test]
    fn every_source_is_verified_and_sid_has_no_security_suite() {
        let mirror = Mirror { main: "https://m.example".into(), security: Some("https://s.example".into()) };
        let sources = |suite| {
            let sources = mirror.sources(suite);
            sources.split("\n\n").map(str::to_owned).collect::<Vec<_>>()
        };
        let stable = sources("bookworm");
        assert_eq!(
            stable.iter().map(|source| field(source, "Suites")).collect::<Vec<_>>(),
            [Some("bookworm"), Some("bookworm-security")]
        );
        assert_eq!(field(&stable[1], "URIs"), Some("https://s.example"));
        let unstable = sources("sid");
        assert_eq!(unstable.len(), 1);
        assert!(stable.iter().chain(&unstable).all(|source| field(source, "Signed-By") == Some(KEYRING)));
    }
}
