//! Debian's kernels: found in a suite's package index, downloaded and unpacked, never installed.
//!
//! Everything goes through apt's own programs, so that signatures are checked, proxies are used and the newest version is
//! apt's choice; but sources, indexes and downloads are private, in `.tools/kernels/SUITE`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::packages;
use crate::process::say;

/// The newest kernel of the flavour for virtual machines, on every suite.
const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// Whose signatures are believed, for every suite alike: they are signed by two generations of keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How long a package index is good for: a kernel a day old is new enough.
const INDEX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// What QEMU boots.
    pub(super) image: PathBuf,
    /// `…/lib/modules/RELEASE`.
    pub(super) modules: PathBuf,
}

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
        Self::parse(&ask()?).context("this machine's apt knows no archive of Debian: these kernels are Debian's")
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

/// The newest kernel of a suite, in `directory`: as it is there, or downloaded.
pub(super) fn fetch(directory: &Path, suite: &str) -> Result<Kernel> {
    let apt = Apt::new(&directory.join("apt"), suite)?;
    let packages = kernel_packages(|name| apt.show(name))?;
    // The metapackage only names the others: a mirror may have dropped it already.
    let ((_, version), parts) = packages.split_first().context("no package")?;
    let unpacked = directory.join(version);
    if !unpacked.exists() {
        say(&format!("downloading {suite}'s kernel {version}"));
        let partial = directory.join("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        let archives = partial.join("archives");
        fs::create_dir_all(&archives)?;
        apt.download(parts, &archives)?;
        unpack(&archives, &partial)?;
        fs::remove_dir_all(&archives)?;
        remove_others(directory, &["apt", "partial"])?;
        fs::rename(&partial, &unpacked)?;
    }
    Kernel::find(&unpacked)
}

impl Kernel {
    fn find(unpacked: &Path) -> Result<Self> {
        let modules = only(&unpacked.join("lib/modules"), |_| true)?;
        // In the modules' directory since Linux 7.
        let beside = modules.join("vmlinuz");
        let image = match beside.exists() {
            true => beside,
            false => only(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))?,
        };
        Ok(Self { image, modules })
    }
}

/// apt's programs with sources, indexes and downloads of their own.
struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// With an index that is not too old.
    fn new(directory: &Path, suite: &str) -> Result<Self> {
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

    fn show(&self, package: &str) -> Result<String> {
        run(self.command("apt-cache").args(["show", "--no-all-versions", package]))
    }

    /// Downloads packages, given with their versions.
    fn download(&self, packages: &[(String, String)], into: &Path) -> Result<()> {
        let packages = packages.iter().map(|(name, version)| format!("{name}={version}"));
        run(self.command("apt-get").args(["-q", "download"]).args(packages).current_dir(into)).map(drop)
    }
}

/// The metapackage and all packages of this kernel that it leads to, with their versions: image and modules are in one
/// or in several, from suite to suite.
fn kernel_packages(show: impl Fn(&str) -> Result<String>) -> Result<Vec<(String, String)>> {
    let mut packages: Vec<(String, String)> = Vec::new();
    let mut open = vec![METAPACKAGE.to_owned()];
    while let Some(name) = open.pop() {
        if packages.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let shown = show(&name)?;
        let version = field(&shown, "Version").with_context(|| format!("{name} has no version"))?;
        let needs = field(&shown, "Depends").unwrap_or_default().split([',', '|']);
        let names = needs.filter_map(|need| need.split_whitespace().next());
        open.extend(names.filter(|name| is_of_kernel(name)).map(str::to_owned));
        packages.push((name, version.to_owned()));
    }
    Ok(packages)
}

fn is_of_kernel(package: &str) -> bool {
    package.starts_with("linux-") && package.ends_with("-cloud-amd64")
}

/// A field of a stanza in Debian's format.
fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Unpacks every package in `archives` into `root`, and lists what each module depends on.
fn unpack(archives: &Path, root: &Path) -> Result<()> {
    for archive in fs::read_dir(archives)? {
        run(Command::new("dpkg-deb").arg("--extract").arg(archive?.path()).arg(root))?;
    }
    // Debian's newer packages have no /lib, and depmod knows no other.
    if !root.join("lib").exists() {
        symlink("usr/lib", root.join("lib"))?;
    }
    let modules = only(&root.join("lib/modules"), |_| true)?;
    let depmod = crate::process::which("depmod").context("depmod is missing")?;
    run(Command::new(depmod).arg("-b").arg(root).arg(modules.file_name().unwrap_or_default())).map(drop)
}

fn remove_others(directory: &Path, kept: &[&str]) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !kept.iter().any(|kept| entry.file_name() == *kept) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The one entry of a directory that has a fitting name.
fn only(directory: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))?;
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| fits(&name.to_string_lossy())))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => bail!("{} does not hold one kernel: remove .tools/kernels and repeat this command", directory.display()),
    }
}

/// What a program writes to standard output; what it complains of where it fails.
fn run(command: &mut Command) -> Result<String> {
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

    #[test]
    fn a_kernel_in_several_packages_is_followed() -> Result<()> {
        let show = |name: &str| {
            let depends = match name {
                METAPACKAGE => "linux-base-cloud-amd64 (= 7-1), linux-image-7-cloud-amd64 (= 7-1)",
                "linux-image-7-cloud-amd64" => {
                    "dracut | linux-initramfs-tool, linux-base (>= 4), linux-binary-7-cloud-amd64 (= 7-1), \
                     linux-modules-7-cloud-amd64 (= 7-1)"
                }
                _ => "kmod",
            };
            Ok(format!("Package: {name}\nVersion: 7-1\nDepends: {depends}\nSize: 1\n"))
        };
        let packages = kernel_packages(show)?;
        assert_eq!(packages[0], (METAPACKAGE.to_owned(), "7-1".to_owned()));
        let mut names: Vec<_> = packages.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "linux-base-cloud-amd64",
                "linux-binary-7-cloud-amd64",
                "linux-image-7-cloud-amd64",
                METAPACKAGE,
                "linux-modules-7-cloud-amd64"
            ]
        );
        assert!(kernel_packages(|_| Ok(String::new())).is_err());
        Ok(())
    }
}
