//! Actions as text: scripts in TOML or JSON, and single actions in JSON. Errors name the step, the line and
//! the key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use toml::de::{DeTable, ValueDeserializer};

use crate::action::Action;

/// A timeline of actions. In TOML:
///
/// ```toml
/// [[step]]
/// at_ms = 5000
/// do = "fault"
/// shard = 0
/// fault = "reconnect"
///
/// [[step]]
/// at_ms = 9000
/// do = "fault"
/// fault = { close = { code = 4009 } }
/// ```
///
/// In JSON, the same is `{"step": [{"at_ms": 5000, "do": "fault", …}, …]}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The steps, in any order.
    #[serde(default)]
    step: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Step {
    /// Milliseconds since the script began.
    at_ms: u64,
    #[serde(flatten)]
    action: Action,
}

/// A script in JSON whose steps are not parsed yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScript<'a> {
    #[serde(default, borrow)]
    step: Vec<&'a RawValue>,
}

/// The reason why a script cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The file cannot be read.
    #[error("cannot read the script {}", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The text is not a script in TOML. The source names the line.
    #[error("the script is not valid TOML with a list of [[step]]")]
    Toml(#[from] toml::de::Error),
    /// The text is not a script in JSON. The source names the line.
    #[error("the script is not valid JSON with a list \"step\"")]
    Json(#[from] serde_json::Error),
    /// A step is not valid.
    #[error("step {step} of the script, {mistake}")]
    Step {
        /// The number of the step in the file, from 1.
        step: usize,
        /// The mistake in it.
        mistake: Mistake,
    },
}

/// A mistake in an action, and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("line {line}{}: {problem}", key.as_ref().map(|key| format!(", key {key:?}")).unwrap_or_default())]
pub struct Mistake {
    /// The line of the key, or the line on which the action begins; from 1.
    pub line: usize,
    /// The key that is unknown or has an invalid value; `None` when a key is missing.
    pub key: Option<String>,
    /// What is wrong.
    pub problem: String,
}

/// A key of an action, its value, and its offset in the text.
struct Entry {
    key: String,
    value: Value,
    offset: usize,
}

impl Mistake {
    /// Finds the key that an error is about. serde parses the action as a whole and gives no position, but
    /// its message quotes the key or something in the key's value.
    fn find(text: &str, start: usize, entries: &[Entry], problem: String) -> Self {
        let quoted = problem.split(", expected").next().unwrap_or_default();
        let quoted = quoted.split(['`', '"']).nth(1).unwrap_or_default();
        let culprit = entries
            .iter()
            .find(|entry| entry.key == quoted)
            .or_else(|| entries.iter().find(|entry| mentions(&entry.value, quoted)))
            .or_else(|| entries.iter().find(|entry| problem.contains(kind(&entry.value))));
        let offset = culprit.map_or(start, |entry| entry.offset);
        let line = 1 + text[..offset].matches('\n').count();
        Self { line, key: culprit.map(|entry| entry.key.clone()), problem }
    }
}

/// Whether a value is, or contains, the text that an error quotes.
fn mentions(value: &Value, quoted: &str) -> bool {
    match value {
        Value::String(text) => text == quoted,
        Value::Array(values) => values.iter().any(|value| mentions(value, quoted)),
        Value::Object(fields) => fields.iter().any(|(key, value)| key == quoted || mentions(value, quoted)),
        value => format!("{value}") == quoted,
    }
}

/// The words of serde for the type of a value that it does not quote.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "type: sequence",
        Value::Object(_) => "type: map",
        _ => "\0",
    }
}

/// Parses one action in JSON, as in the body of an HTTP request.
pub(crate) fn read_action(body: &[u8]) -> Result<Action, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("the body is not UTF-8: {error}"))?;
    let action: &RawValue =
        serde_json::from_str(text).map_err(|error| format!("the body is not valid JSON: {error}"))?;
    from_raw(text, action).map_err(|mistake| mistake.to_string())
}

/// Parses a part of a text that is known to be valid JSON.
fn from_raw<'a, T: Deserialize<'a>>(text: &'a str, raw: &'a RawValue) -> Result<T, Mistake> {
    serde_json::from_str(raw.get()).map_err(|error| {
        // `raw` is a slice of `text`.
        let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        let fields: serde_json::Map<String, Value> = serde_json::from_str(raw.get()).unwrap_or_default();
        let entry = |(key, value): (String, Value)| {
            let quoted = format!("{key:?}");
            // The same text may also be a value; only a key is followed by a colon.
            let is_key = |place: &usize| raw.get()[place + quoted.len()..].trim_start().starts_with(':');
            let place = raw.get().match_indices(&quoted).map(|(place, _)| place).find(is_key);
            let offset = start + place.unwrap_or_default();
            Entry { key, value, offset }
        };
        let entries: Vec<Entry> = fields.into_iter().map(entry).collect();
        let problem = error.to_string();
        // The position that serde_json appends is relative to this part only.
        let problem = problem.split(" at line ").next().unwrap_or_default().to_owned();
        Mistake::find(text, start, &entries, problem)
    })
}

/// The first step of a script in TOML that is not valid, if any.
fn wrong_step(text: &str) -> Option<ScriptError> {
    let script = DeTable::parse(text).ok()?;
    let steps = script.get_ref().get("step")?.get_ref().as_array()?;
    steps.iter().zip(1..).find_map(|(value, step)| {
        let error = Step::deserialize(ValueDeserializer::from(value.clone())).err()?;
        let fields = value.get_ref().as_table().into_iter().flatten();
        let entries: Vec<Entry> = fields
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                value: Value::deserialize(ValueDeserializer::from(value.clone())).unwrap_or_default(),
                offset: key.span().start,
            })
            .collect();
        let problem = error.message().to_owned();
        Some(ScriptError::Step { step, mistake: Mistake::find(text, value.span().start, &entries, problem) })
    })
}

impl Script {
    /// Reads a script from a file: JSON if its name ends in `.json`, otherwise TOML. Blocks on the file
    /// system.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or is not a valid script.
    pub fn read(path: &Path) -> Result<Self, ScriptError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScriptError::Read { path: path.to_owned(), source })?;
        if path.extension().is_some_and(|extension| extension == "json") {
            Self::from_json(&text)
        } else {
            Self::from_toml(&text)
        }
    }

    /// Parses a script in TOML.
    ///
    /// # Errors
    ///
    /// Fails when the text is not a valid script.
    pub fn from_toml(text: &str) -> Result<Self, ScriptError> {
        match toml::from_str::<Self>(text) {
            Ok(script) => Ok(script.sorted()),
            Err(error) => Err(wrong_step(text).unwrap_or_else(|| error.into())),
        }
    }

    /// Parses a script in JSON.
    ///
    /// # Errors
    ///
    /// Fails when the text is not a valid script.
    pub fn from_json(text: &str) -> Result<Self, ScriptError> {
        let raw: RawScript<'_> = serde_json::from_str(text)?;
        let step = |(raw, step): (&&RawValue, usize)| {
            from_raw(text, raw).map_err(|mistake| ScriptError::Step { step, mistake })
        };
        let step = raw.step.iter().zip(1..).map(step).collect::<Result<_, _>>()?;
        Ok(Self { step }.sorted())
    }

    /// Adds a step at this time since the script's beginning.
    #[must_use]
    pub fn then(mut self, at: Duration, action: Action) -> Self {
        self.step.push(Step { at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX), action });
        self.sorted()
    }

    /// The actions in order of time, each with its time since the script's beginning.
    pub fn steps(&self) -> impl Iterator<Item = (Duration, &Action)> {
        self.step.iter().map(|step| (Duration::from_millis(step.at_ms), &step.action))
    }

    fn sorted(mut self) -> Self {
        self.step.sort_by_key(|step| step.at_ms);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = r#"
            [[step]]
            at_ms = 9000
            do = "fault"
            fault = { close = { code = 4009 } }

            [[step]]
            at_ms = 5000
            do = "fault"
            shard = 3
            fault = "reconnect"

            [[step]]
            at_ms = 10000
            do = "connect"
            fault = "no-hello"
            times = 2

            [[step]]
            at_ms = 11000
            do = "host"
            host = { resume = 2 }
            fault = { close-resume = { code = 1012 } }
            lasts_ms = 60000

            [[step]]
            at_ms = 12000
            do = "host"
            host = "gateway"
            fault = "no-hello"
            lasts_ms = 1
        "#;
        let json = r#"{"step": [
            {"at_ms": 5000, "do": "fault", "shard": 3, "fault": "reconnect"},
            {"at_ms": 9000, "do": "fault", "fault": {"close": {"code": 4009}}},
            {"at_ms": 10000, "do": "connect", "fault": "no-hello", "times": 2},
            {"at_ms": 11000, "do": "host", "host": {"resume": 2}, "fault": {"close-resume": {"code": 1012}}, "lasts_ms": 60000},
            {"at_ms": 12000, "do": "host", "host": "gateway", "fault": "no-hello", "lasts_ms": 1}
        ]}"#;
        let script = Script::from_toml(toml).unwrap();
        assert_eq!(script, Script::from_json(json).unwrap());
        let first = script.steps().next().unwrap();
        let expected = Action::Fault { shard: Some(3), fault: Fault::Reconnect };
        assert_eq!(first, (Duration::from_secs(5), &expected));
    }

    #[test]
    fn a_script_with_a_mistake_is_refused_and_the_mistake_is_named() {
        let good = "[[step]]\nat_ms = 1\ndo = \"disarm\"\n\n";
        for (step, place, culprit) in [
            ("at_ms = 1\ndo = \"fall\"", "line 7, key \"do\": ", "fall"),
            ("at_ms = 1\ndo = \"fault\"\nfault = \"explode\"", "line 8, key \"fault\": ", "explode"),
            (
                "at_ms = 1\ndo = \"fault\"\nfault = { close = { kode = 1 } }",
                "line 8, key \"fault\": ",
                "kode",
            ),
            ("at_ms = 1\ndo = \"traffic\"\non = true\nof = 1", "line 9, key \"of\": ", "of"),
            ("at_ms = 1\ndo = \"emit\"\nshard = 0\ncount = \"many\"", "line 9, key \"count\": ", "many"),
            ("at_ms = -1\ndo = \"disarm\"", "line 6, key \"at_ms\": ", "-1"),
            ("at_ms = 1\ndo = \"emit\"\nshard = [0]\ncount = 1", "line 8, key \"shard\": ", "sequence"),
            ("do = \"traffic\"\non = true", "line 5: ", "missing field `at_ms`"),
        ] {
            let error = Script::from_toml(&format!("{good}[[step]]\n{step}")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("step 2 of the script, {place}")), "{step}: {error}");
            assert!(error.contains(culprit), "{error}");
        }
        let error = Script::from_toml("[[steps]]\nat_ms = 1").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("steps") && source.contains("line 1"), "{source}");
    }

    #[test]
    fn in_json_too_and_over_http() {
        let script = "{\"step\": [\n {\"at_ms\": 1, \"do\": \"disarm\"},\n {\"at_ms\": 1,\n  \"do\": \"fault\",\n  \"fault\": \"explode\"}]}";
        let error = Script::from_json(script).unwrap_err().to_string();
        assert!(
            error.starts_with("step 2 of the script, line 5, key \"fault\": unknown variant `explode`"),
            "{error}"
        );
        for (body, message) in [
            (
                "{\"do\": \"emit\",\n\"shard\": 0,\n\"count\": \"many\"}",
                "line 3, key \"count\": invalid type: string \"many\"",
            ),
            ("{\"do\": \"emit\", \"count\": 1}", "line 1: missing field `shard`"),
            ("{\"do\": \"emit\",\n oops}", "the body is not valid JSON: key must be a string at line 2"),
            ("", "the body is not valid JSON: EOF"),
            ("[]", "line 1"),
        ] {
            let error = read_action(body.as_bytes()).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
