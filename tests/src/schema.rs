//! The published schema of events, which every line that a test reads has to fit.

use std::sync::LazyLock;

use anyhow::{Result, bail};
use jsonschema::Validator;
use serde_json::Value;

/// The JSON Schema (2020-12) of a line.
pub const SCHEMA: &str = include_str!("../../docs/events.schema.json");

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(SCHEMA).expect("the schema of events is JSON");
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(&schema).expect("the schema of events is a schema")
});

/// Fails where a line is not as `docs/events.schema.json` says.
pub fn check(line: &Value) -> Result<()> {
    if VALIDATOR.is_valid(line) {
        return Ok(());
    }
    // Of thirteen kinds of events twelve do not fit: what is wrong with the other is the question.
    let schema: Value = serde_json::from_str(SCHEMA)?;
    let kind = line["event"].as_str().unwrap_or_default();
    let faults: Vec<String> = match schema["$defs"].get(kind) {
        Some(definition)
            if schema["properties"]["event"]["enum"].as_array().is_some_and(|all| all.contains(&kind.into())) =>
        {
            let mut definition = definition.clone();
            definition["$defs"] = schema["$defs"].clone();
            let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&definition)?;
            validator.iter_errors(line).map(|error| format!("{}: {error}", error.instance_path())).collect()
        }
        _ => vec![format!("there is no event `{kind}`")],
    };
    bail!("not as docs/events.schema.json has it: {}", faults.join("; "))
}

/// Reads a line, which has to be as the schema says.
pub fn parse(line: &str) -> Result<Value> {
    let value = serde_json::from_str(line)?;
    check(&value)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_line_is_told() {
        let line = r#"{"time":"2026-11-23T17:04:05.123456789Z","event":"smtp.tls","phase":"offered","visible":false,
            "connection":{"id":"b-2","role":"server","local":{"address":"192.0.2.25","port":25},
            "remote":{"address":"2001:db8::7","port":40007},"netns":1}}"#;
        parse(line).expect("as the schema says");
        let wrong = |from: &str, to: &str| parse(&line.replace(from, to)).expect_err("wrong").to_string();
        assert!(wrong("offered", "over").contains("/phase"), "{}", wrong("offered", "over"));
        assert!(wrong("\"visible\":false", "\"seen\":1").contains("seen"));
        assert!(wrong("smtp.tls", "smtp.ssl").contains("no event `smtp.ssl`"));
        assert!(wrong("smtp.tls", "endpoint").contains("no event `endpoint`"));
    }
}
