//! Runs what the examples for Vector do with a line, by Vector's own language: `smtp-observer-pipelines EVENTS EXAMPLE…`.
//!
//! Vector itself is no crate. So its sources and sinks are not run: what it gives to the program and what sinks then read is
//! as its documentation says.

use std::env;
use std::fs;

use anyhow::{Context as _, Result, anyhow, ensure};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Value as Json, json};
use vrl::compiler::runtime::Runtime;
use vrl::compiler::{Program, TargetValue, TimeZone, compile};
use vrl::path;
use vrl::path::parse_target_path;
use vrl::value::{Secrets, Value};

/// The host's name, as the source `file` gives it.
const HOST: &str = "mx1.example.org";

/// What an agent that was killed leaves.
const CUT: &str = r#"{"time":"2026-11-23T17:04:05.123456789Z","event":"smtp.rs"#;

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let events = arguments.next().context("name a file of events, and examples")?;
    let events = fs::read_to_string(&events).with_context(|| events.clone())?;
    ensure!(events.lines().count() > 0, "there are no events");
    let examples: Vec<String> = arguments.collect();
    ensure!(!examples.is_empty(), "name an example");
    for example in &examples {
        let text = fs::read_to_string(example).with_context(|| example.clone())?;
        let lines = run(&text, &events).with_context(|| example.clone())?;
        println!("{example}: {lines} events, as they are to be");
    }
    Ok(())
}

/// Runs an example on each event: how many that were.
fn run(example: &str, events: &str) -> Result<usize> {
    let documents = Yaml::load_from_str(example)?;
    let config = documents.first().context("no YAML")?;
    let source = text(config, &["transforms", "parsed", "source"]).context("no program")?;
    let compiled = compile(source, &vrl::stdlib::all()).map_err(|errors| {
        let said: Vec<_> = errors.iter().map(|error| error.message().to_owned()).collect();
        anyhow!("it does not compile: {}", said.join("; "))
    })?;
    let warnings: Vec<_> = compiled.warnings.iter().map(|warning| warning.message().to_owned()).collect();
    ensure!(warnings.is_empty(), "the compiler warns: {}", warnings.join("; "));

    let fields = named_fields(config);
    let mut count = 0;
    for line in events.lines() {
        let event: Json = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let became = resolve(&compiled.program, line)?;
        let timestamp = became.get(path!("timestamp")).context("no timestamp")?;
        ensure!(timestamp.is_timestamp(), "the timestamp is none: {timestamp}");
        let mut expected = event.clone();
        expected["host"] = HOST.into();
        let mut shown: Json = serde_json::to_value(&became)?;
        let time = shown.as_object_mut().context("no object")?.remove("timestamp").unwrap_or_default();
        // It is shown without zeroes at its end.
        let digits = |time: &Json| time.as_str().map(|time| time.trim_end_matches(['Z', '0']).to_owned());
        ensure!(digits(&time) == digits(&event["time"]), "{time} is not {}", event["time"]);
        ensure!(shown == expected, "{shown} is not {expected}");
        for field in &fields {
            let path = parse_target_path(field).map_err(|error| anyhow!("{field}: {error}"))?;
            ensure!(became.get(&path.path).is_some(), "a sink names {field}, which is not in {shown}");
        }
        count += 1;
    }
    ensure!(resolve(&compiled.program, CUT).is_err(), "a line that was cut is taken");
    Ok(count)
}

/// What the program makes of a line.
fn resolve(program: &Program, line: &str) -> Result<Value> {
    let given = json!({
        "message": line, "host": HOST, "file": "/var/log/smtp-observer/events.jsonl", "source_type": "file",
        "timestamp": "2026-11-23T17:04:06Z",
    });
    let mut target =
        TargetValue { value: given.into(), metadata: Value::Object(Default::default()), secrets: Secrets::default() };
    let resolved = Runtime::default().resolve(&mut target, program, &TimeZone::default());
    resolved.map_err(|error| anyhow!("{error}: {line}"))?;
    Ok(target.value)
}

/// The fields that the sinks name: in templates, and as the key of a message.
fn named_fields(config: &Yaml) -> Vec<String> {
    let mut fields = Vec::new();
    let Some(sinks) = config.as_mapping_get("sinks") else { return fields };
    let mut left = vec![sinks];
    while let Some(node) = left.pop() {
        left.extend(node.as_vec().into_iter().flatten());
        left.extend(node.as_mapping().into_iter().flatten().map(|(_, value)| value));
        let templates = node.as_str().into_iter().flat_map(|text| text.split("{{ ").skip(1));
        fields.extend(templates.filter_map(|rest| Some(format!(".{}", rest.split_once(" }}")?.0))));
    }
    fields.extend(text(config, &["sinks", "kafka", "key_field"]).map(str::to_owned));
    fields
}

/// The text that these names lead to.
fn text<'a>(config: &'a Yaml, names: &[&str]) -> Option<&'a str> {
    names.iter().try_fold(config, |node, name| node.as_mapping_get(name))?.as_str()
}
