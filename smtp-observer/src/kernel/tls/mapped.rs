//! The files of machine code that a process has mapped.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use foldhash::HashSet;
use procfs::process::{MMPermissions, MMapPath, Process};

/// Most files of a process that are looked at.
const MAX_FILES: usize = 4096;

/// A file that a process has mapped.
pub struct MappedFile {
    /// How the process calls it.
    pub name: PathBuf,
    /// Where it can be opened, in whatever file system the process sees, and if it was replaced since, too.
    pub path: PathBuf,
    /// Which file it is, and which state of it.
    pub identity: FileIdentity,
}

/// A file, as long as it is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// Directories of libraries, below which a distribution may have one for each kind of machine.
const LIBRARIES: [&str; 4] = ["/usr/lib", "/usr/lib64", "/lib", "/lib64"];

/// The usual libraries of TLS that are installed on this host, whether or not anybody has loaded them.
pub fn installed() -> Vec<MappedFile> {
    let mut known = HashSet::default();
    let mut directories: Vec<PathBuf> = LIBRARIES.into_iter().map(PathBuf::from).collect();
    for directory in LIBRARIES {
        let below = fs::read_dir(directory).into_iter().flatten().flatten();
        directories.extend(below.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("-linux-")));
    }
    let mut files = Vec::new();
    for path in directories.iter().flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten()) {
        let name = path.file_name();
        let name = name.to_string_lossy();
        let Ok(path) = fs::canonicalize(path.path()) else { continue };
        if (name.starts_with("libssl.so.") || name.starts_with("libgnutls.so."))
            && let Ok(metadata) = fs::metadata(&path)
            && known.insert((metadata.dev(), metadata.ino()))
        {
            files.push(MappedFile { name: path.clone(), path, identity: FileIdentity::of(&metadata) });
        }
    }
    files
}

impl FileIdentity {
    fn of(metadata: &fs::Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), changed }
    }
}

/// The files whose machine code a process may execute, each once; those first whose names are of TLS. Those that cannot be
/// opened are left out.
///
/// # Errors
/// The process is gone, or may not be looked at.
pub fn files(pid: u32) -> Result<impl Iterator<Item = MappedFile>, procfs::ProcError> {
    let mut known = HashSet::default();
    let mut maps = Vec::new();
    for map in Process::new(pid.cast_signed())?.maps()? {
        let MMapPath::Path(name) = map.pathname else { continue };
        if map.perms.contains(MMPermissions::EXECUTE) && known.insert((map.dev, map.inode)) && maps.len() < MAX_FILES {
            maps.push((name, map.address));
        }
    }
    maps.sort_by_key(|(name, _)| !is_of_tls(name));
    Ok(maps.into_iter().filter_map(move |(name, (start, end))| {
        // The first needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE, and has files that were deleted, too.
        let mapped = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
        let within = PathBuf::from(format!("/proc/{pid}/root{}", name.display()));
        [mapped, within].into_iter().find_map(|path| {
            let identity = FileIdentity::of(&fs::metadata(&path).ok()?);
            Some(MappedFile { name: name.clone(), path, identity })
        })
    }))
}

/// Whether a file's name is that of a library of TLS.
fn is_of_tls(name: &Path) -> bool {
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    name.contains("ssl") || name.contains("tls")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_its_executable_mapped() {
        let own = std::env::current_exe().expect("a test is a file");
        let mut files = files(std::process::id()).expect("a process may look at itself");
        let file = files.find(|file| file.name == own).expect("it executes its own file");
        assert_eq!(fs::metadata(&file.path).expect("it can be opened").ino(), file.identity.inode);
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        let mut child = std::process::Command::new("true").spawn().expect("coreutils");
        child.wait().expect("it ends");
        assert!(files(child.id()).is_err());
    }
}
