//! The image that a guest boots from: an archive that the kernel unpacks into memory. There is no disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cpio::newc::{Builder, ModeFileType, trailer};

use super::init::MODULES;
use super::modules;
use super::programs::Programs;

/// Mount points, and what programs want to find.
const DIRECTORIES: [&str; 7] = ["dev", "proc", "sys", "run", "tmp", "root", "var/empty"];

/// The guest's users: the tests need one who is not root.
const USERS: &str = "root:x:0:0::/root:/bin/false\nnobody:x:65534:65534::/:/bin/false\n";
const GROUPS: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Everything but the kernel's modules: the same for every kernel.
pub(super) struct Base {
    files: Vec<(String, Vec<u8>)>,
}

impl Base {
    /// Reads the programs; those built here lose their debugging information, which is most of them.
    pub(super) fn new(directory: &Path, programs: &Programs) -> Result<Self> {
        let stripped = directory.join("stripped");
        let mut files = vec![("etc/passwd".into(), USERS.into()), ("etc/group".into(), GROUPS.into())];
        for (file, place) in &programs.built {
            let status = Command::new("strip").arg("--strip-all").arg("-o").arg(&stripped).arg(file).status();
            ensure!(status.context("strip cannot be run")?.success(), "{} cannot be stripped", file.display());
            files.push((place.clone(), fs::read(&stripped)?));
        }
        fs::remove_file(&stripped)?;
        for (file, place) in &programs.installed {
            let bytes = fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
            files.push((place.clone(), bytes));
        }
        Ok(Self { files })
    }

    /// Writes the image for one kernel.
    pub(super) fn write(&self, image: &Path, kernel_modules: &Path) -> Result<()> {
        let modules: Vec<_> = modules::wanted(kernel_modules)?
            .into_iter()
            .enumerate()
            .map(|(number, (name, bytes))| (format!("{MODULES}{number:02}-{name}"), bytes))
            .collect();
        let mut archive = Archive { file: BufWriter::new(File::create(image)?), made: BTreeSet::new() };
        for directory in DIRECTORIES {
            archive.directory(Path::new(directory))?;
        }
        for (place, bytes) in self.files.iter().chain(&modules) {
            archive.add(place, bytes)?;
        }
        trailer(archive.file)?.flush().with_context(|| format!("{} cannot be written", image.display()))
    }
}

/// An archive in the format of cpio.
struct Archive {
    file: BufWriter<File>,
    /// What is in it.
    made: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory and all above it: the kernel makes none by itself.
    fn directory(&mut self, path: &Path) -> Result<()> {
        let mut above: Vec<_> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        for path in above {
            let name = path.to_string_lossy().into_owned();
            // As /tmp has to be; the guest has no other users to guard the rest from.
            self.entry(&name, 0o1777, ModeFileType::Directory, &[])?;
        }
        Ok(())
    }

    fn add(&mut self, place: &str, bytes: &[u8]) -> Result<()> {
        self.directory(Path::new(place).parent().context("a file lies in no directory")?)?;
        self.entry(place, 0o755, ModeFileType::Regular, bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, kind: ModeFileType, bytes: &[u8]) -> Result<()> {
        if !self.made.insert(name.to_owned()) {
            return Ok(());
        }
        let number = u32::try_from(self.made.len())?;
        let entry = Builder::new(name).ino(number).nlink(1).mode(mode).set_mode_file_type(kind);
        let mut writer = entry.write(&mut self.file, u32::try_from(bytes.len())?);
        writer.write_all(bytes)?;
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use cpio::newc::Reader;

    use super::*;

    #[test]
    fn every_file_stands_behind_its_directories() -> Result<()> {
        let image = std::env::temp_dir().join(format!("initramfs-{}", std::process::id()));
        let directory = std::env::temp_dir().join(format!("modules-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("veth.ko"), "code")?;
        fs::write(directory.join("modules.dep"), "veth.ko:\n")?;
        Base { files: vec![("usr/bin/ip".into(), b"program".to_vec())] }.write(&image, &directory)?;

        let mut found = Vec::new();
        let mut reader = Reader::new(File::open(&image)?)?;
        while !reader.entry().is_trailer() {
            let mut bytes = Vec::new();
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            reader.read_to_end(&mut bytes)?;
            found.push((name, mode, bytes));
            reader = Reader::new(reader.finish()?)?;
        }
        fs::remove_dir_all(directory)?;
        fs::remove_file(image)?;

        let at = |name: &str| found.iter().position(|(found, ..)| found == name).context(name.to_owned());
        assert!(at("usr")? < at("usr/bin")? && at("usr/bin")? < at("usr/bin/ip")?);
        assert_eq!(found[at("usr/bin/ip")?], ("usr/bin/ip".into(), 0o100_755, b"program".to_vec()));
        assert_eq!(found[at("modules/00-veth")?].2, b"code");
        assert_eq!(found[at("tmp")?].1, 0o041_777);
        Ok(())
    }
}
