//! Kernel modules that the guests load: Debian's cloud kernels have little built in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What the tests need; what a kernel has built in, or has not at all, is left out.
const WANTED: [&str; 11] = [
    // A cable between two hosts.
    "veth",
    // The interceptor's redirection, and other ways to another program.
    "nf_tables",
    "nft_chain_nat",
    "nft_redir",
    "nft_nat",
    "nft_socket",
    "nft_tproxy",
    // TLS in the kernel, with its cipher.
    "tls",
    "gcm",
    "ctr",
    "ghash_generic",
];

/// The names and contents of the wanted modules of the kernel in `directory` (`…/lib/modules/RELEASE`), in the order in
/// which they can be loaded.
pub(super) fn wanted(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let path = directory.join("modules.dep");
    let index = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let read = |file: &PathBuf| Ok((name(file), read(&directory.join(file))?));
    order(&index, &WANTED).iter().map(read).collect()
}

/// The files of these modules and of all that they depend on, each behind what it depends on.
fn order(index: &str, wanted: &[&str]) -> Vec<PathBuf> {
    let entries: BTreeMap<String, (PathBuf, Vec<PathBuf>)> = index
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (name(Path::new(file)), (file.into(), needs.split_whitespace().map(Into::into).collect())))
        .collect();
    let mut order: Vec<PathBuf> = Vec::new();
    for (file, needs) in wanted.iter().filter_map(|wanted| entries.get(*wanted)) {
        // depmod(8): each stands before those that it depends on itself.
        for file in needs.iter().rev().chain([file]) {
            if !order.contains(file) {
                order.push(file.clone());
            }
        }
    }
    order
}

/// The module's own name: the kernel makes no difference between `-` and `_`.
fn name(file: &Path) -> String {
    let file = file.file_name().unwrap_or_default().to_string_lossy();
    file.split_once(".ko").map_or(&*file, |(name, _)| name).replace('-', "_")
}

/// A module, decompressed: not every one of these kernels can do that itself.
fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).with_context(|| format!("{} cannot be read", file.display()));
    }
    let output =
        Command::new("xz").args(["--decompress", "--stdout"]).arg(file).output().context("xz cannot be run")?;
    ensure!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "\
kernel/net/nf-tables.ko.xz: kernel/net/nfnetlink.ko.xz kernel/lib/libcrc32c.ko.xz
kernel/net/nfnetlink.ko.xz:
kernel/net/nft_redir.ko.xz: kernel/net/nf_nat.ko.xz kernel/net/nf-tables.ko.xz kernel/net/nfnetlink.ko.xz kernel/lib/libcrc32c.ko.xz
kernel/drivers/net/veth.ko:
";

    #[test]
    fn modules_stand_behind_what_they_need_and_once() {
        let order = order(INDEX, &["veth", "nf_tables", "nft_redir", "built_in"]);
        let names: Vec<_> = order.iter().map(|file| name(file)).collect();
        assert_eq!(names, ["veth", "libcrc32c", "nfnetlink", "nf_tables", "nf_nat", "nft_redir"]);
    }

    #[test]
    fn a_module_is_called_as_the_kernel_calls_it() {
        assert_eq!(name(Path::new("kernel/net/ipv4/tcp-diag.ko.xz")), "tcp_diag");
        assert_eq!(name(Path::new("veth.ko")), "veth");
    }
}
