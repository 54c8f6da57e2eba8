//! What the agent says it saw, in the shape that a test compares with what it knows was said.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::netns::Host;
use crate::schema;

/// One observation: a line of the agent's `--events`.
#[derive(Debug, Clone)]
pub struct Observed(Arc<Value>);

impl Observed {
    /// Reads one line, which has to be as the published schema says.
    pub fn parse(line: &str) -> Result<Self> {
        let value = schema::parse(line)?;
        let observed = Self(Arc::new(value));
        for needed in ["/time", "/event", "/connection/id", "/connection/role"] {
            observed.text(needed).with_context(|| format!("`{needed}` is missing"))?;
        }
        Ok(observed)
    }

    /// The whole of it, as the agent wrote it but for the order of its fields.
    pub fn json(&self) -> String {
        self.0.to_string()
    }

    /// All of it.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The text at a JSON pointer.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer)?.as_str()
    }

    /// The number at a JSON pointer.
    pub fn number(&self, pointer: &str) -> Option<f64> {
        self.0.pointer(pointer)?.as_f64()
    }

    /// The whole number at a JSON pointer.
    pub fn count(&self, pointer: &str) -> Option<u64> {
        self.0.pointer(pointer)?.as_u64()
    }

    /// The truth value at a JSON pointer.
    pub fn flag(&self, pointer: &str) -> Option<bool> {
        self.0.pointer(pointer)?.as_bool()
    }

    /// The event's name.
    pub fn event(&self) -> &str {
        self.text("/event").unwrap_or_default()
    }

    /// The connection's id.
    pub fn connection(&self) -> &str {
        self.text("/connection/id").unwrap_or_default()
    }

    /// The socket's role.
    pub fn role(&self) -> &str {
        self.text("/connection/role").unwrap_or_default()
    }

    /// Whether its socket is on a host with one of these inodes.
    pub fn is_on(&self, inodes: &[u64]) -> bool {
        self.count("/connection/netns").is_some_and(|inode| inodes.contains(&inode))
    }

    /// Who used the socket.
    pub fn pid(&self) -> Option<u64> {
        self.count("/process/pid")
    }

    /// One end of the connection, `local` or `remote`, as address and port.
    pub fn end(&self, which: &str) -> Option<String> {
        self.endpoint(&format!("/connection/{which}"))
    }

    /// The address and port at a JSON pointer.
    pub fn endpoint(&self, pointer: &str) -> Option<String> {
        let address = self.text(&format!("{pointer}/address"))?;
        let port = self.count(&format!("{pointer}/port"))?;
        Some(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
    }

    /// What it says, in a few words that are the same in every run: names and codes, no times, ids or sizes.
    pub fn brief(&self) -> String {
        let word = |pointer: &str| match self.0.pointer(pointer) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(value) => Some(value.to_string()),
            None => None,
        };
        let words: Vec<String> = match self.event() {
            "smtp.command" => ["/verb", "/code", "/enhanced_code"].into_iter().filter_map(word).collect(),
            "smtp.greeting" => ["/event", "/code"].into_iter().filter_map(word).collect(),
            "smtp.data" => ["/event", "/verb", "/code"].into_iter().filter_map(word).collect(),
            "smtp.rset" | "smtp.noop" => ["/event", "/code"].into_iter().filter_map(word).collect(),
            "smtp.transaction" => ["/event", "/outcome"].into_iter().filter_map(word).collect(),
            "smtp.tls" => ["/event", "/phase"].into_iter().filter_map(word).collect(),
            "smtp.anomaly" => ["/event", "/kind"].into_iter().filter_map(word).collect(),
            _ => ["/event"].into_iter().filter_map(word).collect(),
        };
        words.join(" ")
    }
}

/// In one line, for the message of a test that failed: what was observed in full, of connection and process who they are.
impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = self.0.as_object().cloned().unwrap_or_default();
        for long in ["connection", "process", "event", "time"] {
            fields.remove(long);
        }
        let (time, owner) = (self.text("/time").unwrap_or("?"), self.text("/process/name").unwrap_or("?"));
        let pid = self.pid().map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        let (connection, role, event) = (self.connection(), self.role(), self.event());
        write!(f, "{time} {connection} {role} {owner}[{pid}] {event} {}", Value::Object(fields))
    }
}

/// A selection of observations, in the order in which the agent made them.
#[derive(Debug, Clone, Default)]
pub struct Seen(pub Vec<Observed>);

impl Seen {
    /// Those for which `wanted` holds.
    pub fn only(&self, wanted: impl Fn(&Observed) -> bool) -> Self {
        Self(self.0.iter().filter(|observed| wanted(observed)).cloned().collect())
    }

    /// Those of sockets on one of these hosts.
    pub fn on(&self, hosts: &[&Host]) -> Result<Self> {
        let inodes = hosts.iter().map(|host| host.inode()).collect::<Result<Vec<_>>>()?;
        Ok(self.only(|observed| observed.is_on(&inodes)))
    }

    /// Those of one kind.
    pub fn of(&self, event: &str) -> Self {
        self.only(|observed| observed.event() == event)
    }

    /// The only one of its kind.
    pub fn one(&self, event: &str) -> Result<Observed> {
        match <[Observed; 1]>::try_from(self.of(event).0) {
            Ok([observed]) => Ok(observed),
            Err(several) => bail!("{} observations are `{event}`, there should be one, in:\n{self}", several.len()),
        }
    }

    /// The only command with this verb.
    pub fn command(&self, verb: &str) -> Result<Observed> {
        let commands = self.of("smtp.command").only(|observed| observed.text("/verb") == Some(verb));
        match <[Observed; 1]>::try_from(commands.0) {
            Ok([command]) => Ok(command),
            Err(several) => bail!("{} commands are `{verb}`, there should be one, in:\n{self}", several.len()),
        }
    }

    /// The observations of each connection whose socket has this role, in the order of the connections' first ones.
    pub fn sides(&self, role: &str) -> Vec<Self> {
        let mut order: BTreeMap<&str, usize> = BTreeMap::new();
        let mut sides: Vec<Self> = Vec::new();
        for observed in self.0.iter().filter(|observed| observed.role() == role) {
            let index = *order.entry(observed.connection()).or_insert(sides.len());
            if index == sides.len() {
                sides.push(Self::default());
            }
            sides[index].0.push(observed.clone());
        }
        sides
    }

    /// The observations of the only connection whose socket has this role.
    pub fn side(&self, role: &str) -> Result<Self> {
        match <[Self; 1]>::try_from(self.sides(role)) {
            Ok([side]) => Ok(side),
            Err(sides) => bail!("{} connections have the role {role}, there should be one, in:\n{self}", sides.len()),
        }
    }

    /// What they say, in brief and in alphabetical order: what happens at one moment has no order to compare.
    pub fn brief(&self) -> Vec<String> {
        let mut brief: Vec<String> = self.0.iter().map(Observed::brief).collect();
        brief.sort();
        brief
    }

    /// How many are of one kind.
    pub fn count(&self, event: &str) -> usize {
        self.0.iter().filter(|observed| observed.event() == event).count()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|observed| writeln!(f, "{observed}"))
    }
}
