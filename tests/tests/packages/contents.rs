//! What is in the packages: the same bytes each time, the bill of materials, licences, and how old a glibc may be.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{PROGRAM, directory, one, packages, run, tarball};

/// RHEL 9's glibc.
const GLIBC: (u32, u32) = (2, 34);

/// The Debian package, unpacked.
fn unpacked() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let package = one(&packages()?, "smtp-observer_", ".deb")?;
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder.path()))?;
    Ok(folder)
}

/// Programs of both kinds: the distributions', and the tarball's; each in the directory that it was unpacked into.
fn programs() -> Result<[(TempDir, PathBuf); 2]> {
    let program = |folder: TempDir| {
        let program = folder.path().join(PROGRAM.trim_start_matches('/'));
        (folder, program)
    };
    Ok([program(unpacked()?), program(tarball::unpacked()?)])
}

#[test]
fn packages_made_twice_are_the_same() -> Result<()> {
    let sums = |directory: &Path| fs::read_to_string(directory.join("SHA256SUMS")).context("there are no sums");
    let this = sums(&packages()?)?;
    assert_eq!(this.lines().count(), 6, "{this}");
    assert_eq!(this, sums(&directory("SMTP_OBSERVER_PACKAGES_AGAIN")?)?);
    run(Command::new("sha256sum").current_dir(packages()?).args(["--check", "SHA256SUMS"]))?;
    Ok(())
}

/// Where it was built is not in the program: another directory gives the same one.
#[test]
fn programs_do_not_say_where_they_were_built() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a workspace")?;
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let registry = cargo.context("no home")?.join("registry/");
    for (_folder, program) in programs()? {
        let text = fs::read(&program)?;
        for place in [root, &registry].map(|place| place.display().to_string()) {
            let found = text.windows(place.len()).filter(|window| *window == place.as_bytes()).count();
            ensure!(found == 0, "{} has {place} in it, {found} times", program.display());
        }
    }
    Ok(())
}

#[test]
fn the_program_needs_no_newer_glibc_than_rhel_9_has() -> Result<()> {
    let folder = unpacked()?;
    let program = folder.path().join("usr/bin/smtp-observer");
    let versions = run(Command::new("readelf").args(["--version-info", "--wide"]).arg(&program))?;
    let version = |word: &str| {
        let (major, minor) = word.strip_prefix("GLIBC_")?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.split('.').next()?.parse::<u32>().ok()?))
    };
    let newest = versions.split_whitespace().filter_map(version).max();
    ensure!(newest.context("the program needs no glibc at all")? <= GLIBC, "it needs {newest:?}:\n{versions}");
    // No library but those of glibc: packages require no other.
    let dynamic = run(Command::new("readelf").args(["--dynamic", "--wide"]).arg(&program))?;
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let foreign: Vec<_> = needed
        .filter(|line| {
            !["libc.so", "libm.so", "ld-linux", "libpthread.so", "libdl.so", "librt.so"]
                .iter()
                .any(|own| line.contains(own))
        })
        .collect();
    ensure!(foreign.is_empty(), "{foreign:?}");
    Ok(())
}

/// Names and versions of the components in a bill of materials.
fn components(bill: &Path) -> Result<BTreeMap<String, String>> {
    let bill: Value = serde_json::from_slice(&fs::read(bill)?).with_context(|| bill.display().to_string())?;
    assert_eq!(bill["bomFormat"], "CycloneDX");
    let text = |component: &Value, field: &str| component[field].as_str().unwrap_or_default().to_owned();
    let components = bill["components"].as_array().context("no components")?;
    Ok(components.iter().map(|component| (text(component, "name"), text(component, "version"))).collect())
}

fn bills(folder: &Path) -> [PathBuf; 2] {
    ["smtp-observer", "smtp-ebpf"].map(|of| folder.join(format!("usr/share/doc/smtp-observer/{of}.cdx.json")))
}

/// What cargo-auditable has written into a program: names of the crates that are linked in at run time.
fn audited(program: &Path) -> Result<BTreeSet<String>> {
    let script = "import json, subprocess, sys, tempfile, zlib\n\
                  out = tempfile.NamedTemporaryFile()\n\
                  subprocess.run(['objcopy', '--dump-section', '.dep-v0=' + out.name, sys.argv[1], '/dev/null'], check=True)\n\
                  for package in json.loads(zlib.decompress(out.read()))['packages']:\n\
                  \x20   if package.get('kind') != 'build': print(package['name'])\n";
    let names = run(Command::new("python3").args(["-c", script]).arg(program))?;
    Ok(names.lines().map(str::to_owned).collect())
}

#[test]
fn bills_of_materials_name_what_is_linked_in() -> Result<()> {
    let folder = unpacked()?;
    let [agent, programs_of_the_kernel] = bills(folder.path()).map(|bill| components(&bill));
    let (agent, programs_of_the_kernel) = (agent?, programs_of_the_kernel?);
    for (_folder, program) in programs()? {
        let audited = audited(&program)?;
        for name in ["aya", "clap", "prometheus", "smtp-observer", "tokio"] {
            ensure!(audited.contains(name), "{name} is not in {}: {audited:?}", program.display());
        }
        let missing: Vec<_> =
            audited.iter().filter(|name| *name != "smtp-observer" && !agent.contains_key(*name)).collect();
        ensure!(missing.is_empty(), "the bill lacks {missing:?}");
    }
    ensure!(programs_of_the_kernel.contains_key("aya-ebpf"), "{programs_of_the_kernel:?}");
    Ok(())
}

/// Names and versions, such as `libc 0.2.191`, of the crates that cargo links in with a package of the workspace. A bill of materials names some more:
/// optional ones that nothing switches on.
fn linked(package: &[&str]) -> Result<BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--quiet", "--locked", "--offline", "--edges=normal,no-proc-macro", "--prefix=none"]);
    cargo.arg(format!("--target={}-unknown-linux-gnu", env::consts::ARCH)).args(package);
    let tree = run(cargo.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    // A version is written with a `v`, and remarks follow it.
    let crates = tree.lines().filter_map(|line| line.split_once(" v"));
    Ok(crates.map(|(name, rest)| format!("{name} {}", rest.split(' ').next().unwrap_or_default())).collect())
}

#[test]
fn licences_of_all_crates_are_there() -> Result<()> {
    let folder = unpacked()?;
    let copyright = fs::read_to_string(folder.path().join("usr/share/doc/smtp-observer/copyright"))?;
    let crates = [&["--package=smtp-observer"][..], &["--package=smtp-ebpf", "--features=smtp-ebpf/programs"]];
    for (crates, sign) in crates.map(linked).into_iter().zip(["aya ", "aya-ebpf "]) {
        let crates = crates?;
        ensure!(crates.iter().any(|linked| linked.starts_with(sign)), "{sign} is missing: {crates:?}");
        for linked in crates {
            let own = linked.starts_with("smtp-");
            ensure!(own || copyright.contains(&format!("{linked}\n")), "{linked} has no licence");
        }
    }
    for words in
        ["The smtp-observer contributors", "common-licenses/Apache-2.0", "GNU LESSER GENERAL PUBLIC LICENSE", "musl"]
    {
        ensure!(copyright.contains(words), "`{words}` is not there");
    }
    Ok(())
}
