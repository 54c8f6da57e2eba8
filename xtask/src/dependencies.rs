//! `docs/dependencies.md` gives a reason for each crate that a crate of the workspace names, and for no other.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/dependencies.md");

/// The crates of the document's tables, each with its reason.
fn documented() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.trim_end_matches(" |").split_once("` | "))
}

/// The crates of registries that the workspace's crates name, for whatever purpose.
fn named() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["metadata", "--no-deps", "--offline", "--format-version=1"]);
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let dependencies = packages.iter().flat_map(|package| package["dependencies"].as_array().expect("dependencies"));
    let of_registries = dependencies.filter(|dependency| !dependency["source"].is_null());
    of_registries.map(|dependency| dependency["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn each_has_a_reason() {
    for (name, reason) in documented() {
        assert!(reason.split(' ').count() >= 2, "{name}: {reason:?} is no reason");
    }
    let documented: BTreeSet<_> = documented().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(named(), documented, "crates that are named, and those with a reason in docs/dependencies.md");
}
