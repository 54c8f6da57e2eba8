//! `docs/dependencies.md` gives a reason for each crate that a crate of the workspace names, and for no other. And all crates
//! have licences that `deny.toml` allows, and come from the one registry: cargo-deny, which looks for more, is a lint.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};

/// What `cargo deny check licenses` takes from the file.
#[derive(Deserialize)]
struct Deny {
    licenses: Licences,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

impl Licences {
    /// Whether a crate may have this licence.
    fn allows(&self, name: &str, licence: &LicenseReq) -> bool {
        let exceptions = self.exceptions.iter().filter(|exception| exception.name == name);
        let mut allowed = self.allow.iter().chain(exceptions.flat_map(|exception| &exception.allow));
        allowed.any(|allowed| *allowed == licence.to_string())
    }
}

const DOCUMENT: &str = include_str!("../../docs/dependencies.md");

/// The crates of the document's tables, each with its reason.
fn documented() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.trim_end_matches(" |").split_once("` | "))
}

/// What cargo knows of the workspace.
fn metadata(which: &[&str]) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["metadata", "--locked", "--format-version=1"]).args(which);
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The crates of registries that the workspace's crates name, for whatever purpose.
fn named() -> BTreeSet<String> {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().expect("packages");
    let dependencies = packages.iter().flat_map(|package| package["dependencies"].as_array().expect("dependencies"));
    let of_registries = dependencies.filter(|dependency| !dependency["source"].is_null());
    of_registries.map(|dependency| dependency["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn licences_are_allowed_and_the_registry_is_one() {
    let Deny { licenses } = toml::from_str(include_str!("../../deny.toml")).expect("deny.toml");
    // Those of the host that the agent runs on. What no test was built from is downloaded now.
    let metadata = metadata(&["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)]);
    let packages = metadata["packages"].as_array().expect("packages");
    let foreign = || packages.iter().filter(|package| !package["source"].is_null());
    let sources: BTreeSet<_> = foreign().filter_map(|package| package["source"].as_str()).collect();
    assert!(sources.len() == 1 && sources.iter().all(|source| source.starts_with("registry+")), "{sources:?}");
    let mut seen = 0;
    for package in foreign() {
        let name = package["name"].as_str().expect("a name");
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} states no licence"));
        let licence = Expression::parse_mode(licence, ParseMode::LAX).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(licence.evaluate(|licence| licenses.allows(name, licence)), "{name}: {licence}");
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn each_has_a_reason() {
    for (name, reason) in documented() {
        assert!(reason.split(' ').count() >= 2, "{name}: {reason:?} is no reason");
    }
    let documented: BTreeSet<_> = documented().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(named(), documented, "crates that are named, and those with a reason in docs/dependencies.md");
}
