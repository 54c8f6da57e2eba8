//! Observations in short, as transcripts have them.

use serde_json::Value;

/// The lines of an observation, without times:
///
/// | observation | line |
/// | --- | --- |
/// | `smtp.greeting` | `greeting CODE TEXT`, and the software in parentheses where it is known |
/// | `smtp.command` | `VERB ARGUMENT -> CODE TEXT`, and behind a verb that is not known `(LENGTH bytes)`; a pipelined one has a `~` before it, without a reply nothing follows the arrow |
/// | `smtp.rset`, `smtp.noop` | `rset REASON`, then each piece of evidence on a line, behind two blanks |
/// | `smtp.data` | `data VERB SIZE -> CODE`; `?` for a size that is not known |
/// | `smtp.transaction` | `transaction OUTCOME SENDER ACCEPTED/REJECTED` |
/// | `smtp.tls` | `tls PHASE VERSION CIPHER SERVER_NAME CODE REASON`, each where it is known, and who sent the alert; of `started` without the reason |
/// | `smtp.anomaly` | `! KIND DETAIL` |
///
/// Those of the connection's own life have none. Line feeds in texts are shown as `|`.
pub fn lines(observation: &Value) -> Vec<String> {
    let text = |name: &str| match &observation[name] {
        Value::String(text) => Some(text.replace('\n', "|")),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let known = |name: &str| text(name).unwrap_or_else(|| "?".into());
    let joined = |parts: &[Option<String>]| parts.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
    let event = observation["event"].as_str().unwrap_or_default();
    match event {
        "smtp.greeting" => {
            let software = text("software").map(|software| format!("({software})"));
            vec![joined(&[Some("greeting".into()), text("code"), text("text"), software])]
        }
        "smtp.command" => {
            let pipelined = if observation["pipelined"] == Value::Bool(true) { "~" } else { "" };
            let length = text("length").map(|length| format!("({length} bytes)"));
            let (verb, argument) = (text("verb"), text("argument"));
            let command = joined(&[verb, length, argument, Some("->".into()), text("code"), text("reply")]);
            vec![format!("{pipelined}{command}")]
        }
        "smtp.rset" | "smtp.noop" => {
            let evidence = observation["evidence"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let reason = format!("{} {}", &event["smtp.".len()..], known("reason"));
            std::iter::once(reason).chain(evidence.map(|evidence| format!("  {evidence}"))).collect()
        }
        "smtp.data" => {
            let size = known("size_bytes");
            vec![joined(&[Some("data".into()), text("verb"), Some(size), Some("->".into()), text("code")])]
        }
        "smtp.transaction" => {
            let recipients = format!("{}/{}", known("recipients_accepted"), known("recipients_rejected"));
            vec![format!("transaction {} {} {recipients}", known("outcome"), known("sender"))]
        }
        "smtp.tls" => {
            let by = text("alert_by").map(|peer| format!("by {peer}"));
            // Why the plaintext of one that has started is not read is the host's matter.
            let reason = text("reason").filter(|_| known("phase") != "started");
            let fields = ["phase", "version", "cipher", "server_name", "code"].map(text);
            let fields = fields.into_iter().chain([reason]).collect::<Vec<_>>();
            vec![joined(&[&[Some("tls".into())], &fields[..], &[by]].concat())]
        }
        "smtp.anomaly" => {
            vec![joined(&[Some("!".into()), text("kind"), text("detail").filter(|text| !text.is_empty())])]
        }
        _ => Vec::new(),
    }
}
