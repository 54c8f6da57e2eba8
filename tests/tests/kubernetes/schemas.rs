//! Whether Kubernetes and Prometheus Operator know such objects, field by field.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::chart::{ALL, HELM, Objects, REPOSITORY, output, text, tool};

/// Versions of Kubernetes: the first that the chart is for, one between, and the newest whose schemas are published.
const KUBERNETES: [&str; 3] = ["1.30", "1.34", "1.37"];

/// More values whose objects have further fields.
const MORE: [&str; 7] = [
    "webConfig.secretName=web",
    "hostNetwork=true",
    "appArmorProfile.type=Unconfined",
    "seLinuxOptions.type=spc_t",
    "imagePullSecrets[0].name=registry",
    "priorityClassName=system-node-critical",
    "podAnnotations.note=x",
];

/// The field that a test makes wrong, as it stands in YAML, and a name that no object has.
fn misspelt(text: &str, field: &str) -> Result<String> {
    ensure!(text.contains(field), "there is no {field}");
    Ok(text.replacen(field, &field.replacen(':', "s:", 1), 1))
}

/// What kubernetes-validate says of objects, and whether it has an objection.
fn validated(objects: &str, version: &str) -> Result<(bool, String)> {
    let folder = TempDir::new()?;
    let file = folder.path().join("objects.yaml");
    fs::write(&file, objects)?;
    let mut command = Command::new(tool("python/bin/kubernetes-validate")?);
    let output = command.args(["--strict", "--kubernetes-version", version]).arg(file).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn kubernetes_knows_every_field() -> Result<()> {
    let plain = text(HELM[1], &[REPOSITORY])?;
    let whole = text(HELM[1], &[&[REPOSITORY][..], &ALL, &MORE].concat())?;
    for objects in [&plain, &whole] {
        let kinds = Objects::parse(objects)?;
        let own = kinds
            .0
            .iter()
            .filter(|object| !object["apiVersion"].as_str().is_some_and(|api| api.starts_with("monitoring.")));
        let own = own.count();
        for version in KUBERNETES {
            let (accepted, said) = validated(objects, version)?;
            ensure!(accepted, "{said}");
            // What it has no schema for is not refused: so each that it has one for is counted.
            assert_eq!(said.matches(" passed for resource ").count(), own, "{said}");
        }
    }
    Ok(())
}

#[test]
fn kubernetes_refuses_a_field_that_it_does_not_know() -> Result<()> {
    let objects = misspelt(&text(HELM[1], &[REPOSITORY])?, "readOnlyRootFilesystem:")?;
    let (accepted, said) = validated(&objects, KUBERNETES[2])?;
    ensure!(!accepted && said.contains("readOnlyRootFilesystems"), "{said}");
    Ok(())
}

/// Has the types of Prometheus Operator looked at for these objects, by the compiler for the fields' names, and by the
/// types' own functions for what is in them. Its schemas are published with it alone, and these types are made of them.
fn known_to_prometheus_operator(objects: &str) -> Result<String> {
    let folder = TempDir::new()?;
    std::os::unix::fs::symlink(tool("node_modules")?, folder.path().join("node_modules"))?;
    fs::write(folder.path().join("package.json"), r#"{"type": "module"}"#)?;
    let mut program = String::new();
    for object in Objects::parse(objects)?.0 {
        if object["apiVersion"] == "monitoring.coreos.com/v1" {
            let kind = object["kind"].as_str().context("an object without a kind")?;
            let module = format!("@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/{kind}");
            program.push_str(&format!(
                "import {{ {kind}, type I{kind} }} from \"{module}\";\n\
                 const the{kind}: I{kind} = {object};\n\
                 new {kind}(the{kind}).validate();\n\
                 console.log(\"{kind}\");\n"
            ));
        }
    }
    fs::write(folder.path().join("objects.ts"), program)?;
    let options = ["--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext", "objects.ts"];
    let compiler = tool("node_modules/typescript/bin/tsc")?;
    output(Command::new("node").arg(compiler).args(options).current_dir(folder.path()))?;
    output(Command::new("node").arg("objects.js").current_dir(folder.path()))
}

#[test]
fn prometheus_operator_knows_every_field() -> Result<()> {
    let secured = [
        "serviceMonitor.endpoint.scheme=https",
        "serviceMonitor.endpoint.basicAuth.username.name=web",
        "serviceMonitor.endpoint.basicAuth.username.key=user",
    ];
    let objects = text(HELM[1], &[&[REPOSITORY][..], &ALL, &secured].concat())?;
    let mut known: Vec<_> = known_to_prometheus_operator(&objects)?.lines().map(str::to_owned).collect();
    known.sort_unstable();
    assert_eq!(known, ["PrometheusRule", "ServiceMonitor"]);
    let unknown =
        known_to_prometheus_operator(&misspelt(&objects, "relabelings:")?).expect_err("a field that is not there");
    ensure!(unknown.to_string().contains("relabelingss"), "{unknown}");
    let interval = text(HELM[1], &[&[REPOSITORY][..], &ALL, &["serviceMonitor.interval=often"]].concat())?;
    let unfit = known_to_prometheus_operator(&interval).expect_err("a duration that is none");
    ensure!(unfit.to_string().contains("interval must match pattern"), "{unfit}");
    Ok(())
}
