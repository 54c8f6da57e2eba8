//! The chart, rendered by Helm.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Number, Value};

/// The chart's directory, in the workspace.
pub const CHART: &str = "deploy/helm/smtp-observer";

/// The versions of Helm that it is for.
pub const HELM: [&str; 2] = ["helm-3", "helm-4"];

/// Where the image is said to be: the chart has no default.
pub const REPOSITORY: &str = "image.repository=registry.example/smtp-observer";

/// Everything that is not in the chart unless it is asked for.
pub const ALL: [&str; 6] = [
    "tls=all",
    "events=true",
    "serviceMonitor.enabled=true",
    "prometheusRule.enabled=true",
    "dashboard.enabled=true",
    "networkPolicy.from[0].namespaceSelector.matchLabels.name=monitoring",
];

/// The workspace.
pub fn workspace() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package lies in no workspace")
}

/// A tool that `cargo xtask test` has unpacked.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = workspace()?.join(".tools/kubernetes").join(name);
    ensure!(path.exists(), "{name} is not in .tools/kubernetes: run `cargo xtask test`, which unpacks it there");
    Ok(path)
}

/// What a command writes, if it succeeds; what it complains of otherwise.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{} cannot be run", command.get_program().display()))?;
    let (told, complaint) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{told}\n{complaint}", command.get_program().display());
    Ok(told)
}

/// What Helm makes of the chart with these values, as text.
pub fn text(helm: &str, values: &[&str]) -> Result<String> {
    let mut command = Command::new(tool(helm)?);
    command.args(["template", "mail"]).arg(workspace()?.join(CHART)).args(["--namespace", "observers"]);
    output(command.args(values.iter().flat_map(|value| ["--set", value])))
}

/// The objects that the newest Helm makes of the chart with these values, and with an image.
pub fn render(values: &[&str]) -> Result<Objects> {
    Objects::parse(&text(HELM[1], &[&[REPOSITORY], values].concat())?)
}

/// Kubernetes' objects.
#[derive(Debug)]
pub struct Objects(pub Vec<Value>);

impl Objects {
    /// Reads a stream of YAML.
    pub fn parse(text: &str) -> Result<Self> {
        let documents = Yaml::load_from_str(text).context("that is no YAML")?;
        Ok(Self(documents.iter().map(json).collect::<Result<Vec<_>>>()?))
    }

    /// The kinds of all of them, in order.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<_> = self.0.iter().filter_map(|object| object["kind"].as_str()).collect();
        kinds.sort_unstable();
        kinds
    }

    /// The one of this kind.
    pub fn one(&self, kind: &str) -> Result<&Value> {
        let mut of_kind = self.0.iter().filter(|object| object["kind"] == kind);
        let one = of_kind.next().with_context(|| format!("there is no {kind}"))?;
        ensure!(of_kind.next().is_none(), "there are several of {kind}");
        Ok(one)
    }

    /// What every pod of the agent is.
    pub fn pod(&self) -> Result<&Value> {
        Ok(&self.one("DaemonSet")?["spec"]["template"]["spec"])
    }

    /// The pod's one container.
    pub fn container(&self) -> Result<&Value> {
        let containers = self.pod()?["containers"].as_array().context("a pod without containers")?;
        ensure!(containers.len() == 1, "a pod with {} containers", containers.len());
        containers.first().context("a pod without containers")
    }

    /// What is added to no capability at all.
    pub fn capabilities(&self) -> Result<Vec<&str>> {
        let capabilities = &self.container()?["securityContext"]["capabilities"];
        ensure!(capabilities["drop"] == serde_json::json!(["ALL"]), "not all are dropped: {capabilities}");
        texts(&capabilities["add"])
    }

    /// What the agent is told.
    pub fn arguments(&self) -> Result<Vec<&str>> {
        texts(&self.container()?["args"])
    }
}

/// A list of texts.
fn texts(list: &Value) -> Result<Vec<&str>> {
    let list = list.as_array().context("no list")?;
    list.iter().map(|text| text.as_str().with_context(|| format!("{text} is no text"))).collect()
}

/// The same as JSON, as Kubernetes reads it.
fn json(yaml: &Yaml) -> Result<Value> {
    Ok(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => Value::Bool(*value),
        Yaml::Value(Scalar::Integer(value)) => Value::from(*value),
        Yaml::Value(Scalar::FloatingPoint(value)) => {
            Value::Number(Number::from_f64(value.into_inner()).context("that is no number of JSON's")?)
        }
        Yaml::Value(Scalar::String(value)) => Value::String(value.to_string()),
        Yaml::Sequence(items) => Value::Array(items.iter().map(json).collect::<Result<Vec<_>>>()?),
        Yaml::Mapping(fields) => {
            let field = |(name, value): (&Yaml, &Yaml)| {
                let name = name.as_str().context("a field's name is no text")?;
                Ok((name.to_owned(), json(value)?))
            };
            Value::Object(fields.iter().map(field).collect::<Result<_>>()?)
        }
        other => anyhow::bail!("Kubernetes has no such YAML: {other:?}"),
    })
}
