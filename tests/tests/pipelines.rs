//! The examples in `deploy/` for those who ship events: YAML, whole, and about fields that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;
use smtp_observer_tests::schema::SCHEMA;

/// What every example reads, and what logrotate renames.
const FILE: &str = "/var/log/smtp-observer/events.jsonl";

/// Fields that the examples make themselves, or that the shipper has.
const OWN: [&str; 4] = ["timestamp", "message", "@timestamp", "host"];

fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package lies in no workspace")
}

fn texts(folder: &str) -> Result<Vec<(PathBuf, String)>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(root()?.join("deploy").join(folder))? {
        paths.push(entry?.path());
    }
    paths.sort();
    ensure!(paths.len() == 3, "{folder} has {paths:?}");
    paths.into_iter().map(|path| Ok((path.clone(), fs::read_to_string(path)?))).collect()
}

/// A value by the names that lead to it.
fn at<'a, 'b>(yaml: &'a Yaml<'b>, names: &[&str]) -> Result<&'a Yaml<'b>> {
    names
        .iter()
        .try_fold(yaml, |yaml, name| yaml.as_mapping_get(name).with_context(|| format!("there is no {names:?}")))
}

/// The names in a mapping.
fn keys(yaml: &Yaml) -> BTreeSet<String> {
    let mapping = yaml.as_mapping().into_iter().flatten();
    mapping.filter_map(|(key, _)| key.as_str()).map(str::to_owned).collect()
}

/// The texts in a list.
fn items(yaml: &Yaml) -> Vec<String> {
    yaml.as_vec().into_iter().flatten().filter_map(Yaml::as_str).map(str::to_owned).collect()
}

/// Every text in it, whatever it is for.
fn strings(yaml: &Yaml, found: &mut Vec<String>) {
    if let Some(text) = yaml.as_str() {
        found.push(text.to_owned());
    }
    for item in yaml.as_vec().into_iter().flatten() {
        strings(item, found);
    }
    for (_, value) in yaml.as_mapping().into_iter().flatten() {
        strings(value, found);
    }
}

/// Whether some event has a field, by the names that lead to it.
fn is_field(path: &str) -> Result<bool> {
    let schema: Value = serde_json::from_str(SCHEMA)?;
    let events = schema["oneOf"].as_array().context("no events")?;
    let leads_to_it = |event: &Value| {
        let field = path.split('.').try_fold(event, |node, name| follow(&schema, node)?["properties"].get(name));
        field.is_some()
    };
    Ok(events.iter().any(leads_to_it))
}

/// What a `$ref` stands for.
fn follow<'a>(schema: &'a Value, node: &'a Value) -> Option<&'a Value> {
    match node["$ref"].as_str() {
        Some(reference) => schema["$defs"].get(reference.strip_prefix("#/$defs/")?),
        None => Some(node),
    }
}

fn check_fields(example: &Path, fields: &BTreeSet<String>) -> Result<()> {
    ensure!(fields.len() > 1, "{} names hardly a field: {fields:?}", example.display());
    for field in fields {
        let is_known = OWN.contains(&field.as_str()) || is_field(field)?;
        ensure!(is_known, "{}: no event has `{field}`", example.display());
    }
    Ok(())
}

/// The paths in a text that begin behind `start`: `{{ process.name }}`, `.connection.id`, `body.time`.
fn paths<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = String> + 'a {
    text.match_indices(start).filter_map(move |(place, _)| {
        let before = text[..place].chars().next_back();
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | ')' | ']' | '"');
        if start.starts_with('.') && before.is_some_and(is_part) {
            return None;
        }
        let rest = &text[place + start.len()..];
        let end = rest.find(|letter: char| !letter.is_ascii_lowercase() && !matches!(letter, '_' | '.'));
        let path = rest[..end.unwrap_or(rest.len())].trim_matches('.');
        (!path.is_empty()).then(|| path.to_owned())
    })
}

#[test]
fn fields_are_told_from_what_is_none() -> Result<()> {
    for field in
        ["event", "time", "connection.id", "process.parent.name", "client.requested.port", "upstream.remote.address"]
    {
        ensure!(is_field(field)?, "{field}");
    }
    for other in ["events", "connection.cookie", "process.parent.uid", "smtp.rset", "reason.because"] {
        ensure!(!is_field(other)?, "{other}");
    }
    let of = |text: &'static str, start: &'static str| paths(text, start).collect::<Vec<_>>();
    assert_eq!(of(".a = f!(.b.c, \"x.y\") + g(.d).e", "."), ["a", "b.c", "d"]);
    assert_eq!(of("{{ event }}-{{ process.name }}", "{{ "), ["event", "process.name"]);
    assert_eq!(of("body[\"@timestamp\"] body.time", "body."), ["time"]);
    Ok(())
}

#[test]
fn vectors_examples_are_whole() -> Result<()> {
    for (path, text) in texts("vector")? {
        let documents = Yaml::load_from_str(&text).with_context(|| path.display().to_string())?;
        let [config] = &documents[..] else { bail!("{}: {} documents", path.display(), documents.len()) };
        let parts: Vec<_> =
            ["sources", "transforms", "sinks"].into_iter().map(|part| at(config, &[part])).collect::<Result<_>>()?;
        assert_eq!(items(at(parts[0], &["events", "include"])?), [FILE], "{}", path.display());
        let mut known = keys(parts[0]);
        let mut read = BTreeSet::new();
        for (part, name) in parts[1..].iter().flat_map(|part| keys(part).into_iter().map(move |name| (part, name))) {
            for input in items(at(part, &[&name, "inputs"])?) {
                ensure!(known.contains(&input), "{}: {name} reads {input}, which is not there", path.display());
                read.insert(input);
            }
            if !keys(parts[2]).contains(&name) {
                known.insert(name);
            }
        }
        assert_eq!(read, known, "{}: somebody reads each part", path.display());

        let mut fields: BTreeSet<String> =
            paths(text_of(at(config, &["transforms", "parsed", "source"])?)?, ".").collect();
        let mut all = Vec::new();
        strings(parts[2], &mut all);
        fields.extend(all.iter().flat_map(|text| paths(text, "{{ ").collect::<Vec<_>>()));
        if let Ok(key) = at(config, &["sinks", "kafka", "key_field"]) {
            fields.insert(text_of(key)?.trim_start_matches('.').to_owned());
        }
        check_fields(&path, &fields)?;
    }
    Ok(())
}

fn text_of<'a>(yaml: &'a Yaml) -> Result<&'a str> {
    yaml.as_str().context("that is no text")
}

#[test]
fn the_collectors_examples_are_whole() -> Result<()> {
    let schema: Value = serde_json::from_str(SCHEMA)?;
    let events = schema["properties"]["event"]["enum"].as_array().context("no events")?;
    for (path, text) in texts("otelcol")? {
        let documents = Yaml::load_from_str(&text).with_context(|| path.display().to_string())?;
        let [config] = &documents[..] else { bail!("{}: {} documents", path.display(), documents.len()) };
        assert_eq!(items(at(config, &["receivers", "filelog", "include"])?), [FILE], "{}", path.display());
        let pipeline = at(config, &["service", "pipelines", "logs"])?;
        for part in ["receivers", "processors", "exporters"] {
            let used: BTreeSet<String> = items(at(pipeline, &[part])?).into_iter().collect();
            assert_eq!(used, keys(at(config, &[part])?), "{}: {part}", path.display());
        }
        let extensions: BTreeSet<String> = items(at(config, &["service", "extensions"])?).into_iter().collect();
        assert_eq!(extensions, keys(at(config, &["extensions"])?), "{}", path.display());

        let operators = at(config, &["receivers", "filelog", "operators"])?;
        let mut all = Vec::new();
        strings(operators, &mut all);
        check_fields(&path, &all.iter().flat_map(|text| paths(text, "body.").collect::<Vec<_>>()).collect())?;
        let parser = operators.as_vec().and_then(|operators| operators.first()).context("no operator")?;
        for (_, names) in at(parser, &["severity", "mapping"])?.as_mapping().into_iter().flatten() {
            for name in items(names) {
                ensure!(events.contains(&name.as_str().into()), "{}: there is no event `{name}`", path.display());
            }
        }
    }
    Ok(())
}

#[test]
fn the_documents_show_what_is_there() -> Result<()> {
    let read = |path: &str| -> Result<String> { Ok(fs::read_to_string(root()?.join(path))?) };
    let (pipelines, events) = (read("docs/pipelines.md")?, read("docs/events.md")?);
    for (path, _) in texts("vector")?.into_iter().chain(texts("otelcol")?) {
        let name = path.strip_prefix(root()?)?.display().to_string();
        ensure!(pipelines.contains(&format!("(../{name})")), "docs/pipelines.md does not show {name}");
    }
    let fleet = read("docs/fleet.md")?;
    let shown = fleet.split("(../deploy/").skip(1).filter_map(|rest| rest.split(')').next());
    let shown: BTreeSet<&str> = shown.collect();
    for name in ["prometheus/fleet.yml", "prometheus/fleet-agent.yml", "prometheus/fleet.rules.yml"] {
        ensure!(shown.contains(name), "docs/fleet.md does not show deploy/{name}");
    }
    for name in shown {
        ensure!(root()?.join("deploy").join(name).exists(), "docs/fleet.md shows deploy/{name}, which is not there");
    }
    let rotation = read("deploy/logrotate/smtp-observer")?;
    ensure!(rotation.starts_with(FILE) && pipelines.contains(FILE), "{rotation}");
    let indented: String = rotation.lines().map(|line| format!("    {line}\n")).collect();
    ensure!(events.contains(&indented), "docs/events.md shows another rotation than\n{rotation}");
    Ok(())
}
