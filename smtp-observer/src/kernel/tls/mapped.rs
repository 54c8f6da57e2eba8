//! The files of machine code that a process has mapped.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

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

/// The files whose machine code a process may execute, each once. Those that cannot be opened are left out.
///
/// # Errors
/// The process is gone, or may not be looked at.
pub fn files(pid: u32) -> Result<Vec<MappedFile>, procfs::ProcError> {
    let mut known = HashSet::default();
    let mut files = Vec::new();
    for map in Process::new(pid.cast_signed())?.maps()? {
        let MMapPath::Path(name) = map.pathname else { continue };
        if !map.perms.contains(MMPermissions::EXECUTE) || !known.insert((map.dev, map.inode)) || files.len() >= MAX_FILES {
            continue;
        }
        let (start, end) = map.address;
        // The first needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE, and has files that were deleted, too.
        let mapped = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
        let within = PathBuf::from(format!("/proc/{pid}/root{}", name.display()));
        let found = [mapped, within].into_iter().find_map(|path| {
            let metadata = fs::metadata(&path).ok()?;
            Some((path, metadata))
        });
        if let Some((path, metadata)) = found {
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            let identity =
                FileIdentity { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), changed };
            files.push(MappedFile { name, path, identity });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_its_executable_mapped() {
        let own = std::env::current_exe().expect("a test is a file");
        let files = files(std::process::id()).expect("a process may look at itself");
        let file = files.iter().find(|file| file.name == own).expect("it executes its own file");
        assert_eq!(fs::metadata(&file.path).expect("it can be opened").ino(), file.identity.inode);
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        let mut child = std::process::Command::new("true").spawn().expect("coreutils");
        child.wait().expect("it ends");
        assert!(files(child.id()).is_err());
    }
}
