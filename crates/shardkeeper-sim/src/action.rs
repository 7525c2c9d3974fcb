//! What can be done to a running simulator: by a script, over HTTP, from Rust. The same for all three.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::fault::{ConnectFault, Fault, RestFault};
use crate::hosts::Host;

/// Something that is done to a running simulator.
///
/// As JSON: `{"do": "fault", "shard": 3, "fault": "reconnect"}`, `{"do": "fault", "fault": {"close": {"code": 4009}}}`,
/// `{"do": "guild-outage", "guild": 0, "lasts_ms": 5000}`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Action {
    /// A fault of live connections.
    Fault {
        /// Of which shard; without it, of each that is connected.
        #[serde(default)]
        shard: Option<u32>,
        /// Which one.
        fault: Fault,
    },
    /// A fault of the next Gateway connections.
    Connect {
        /// Which one.
        fault: ConnectFault,
        /// Of how many connections. 1.
        #[serde(default = "once")]
        times: usize,
    },
    /// A fault that stays with a host: of each connection to it, as long as it lasts. Faults of the next connections go
    /// first. `{"do": "host", "host": {"resume": 2}, "fault": "no-hello", "lasts_ms": 60000}`
    Host {
        /// At which URL.
        host: Host,
        /// Which one.
        fault: ConnectFault,
        /// For how long.
        lasts_ms: u64,
    },
    /// A fault of the next REST requests.
    Rest {
        /// Which one.
        fault: RestFault,
        /// Of how many requests. 1.
        #[serde(default = "once")]
        times: usize,
    },
    /// Faults of connections and requests that have not come yet are forgotten.
    Disarm,
    /// Events at once, in the newest session of a shard: whatever happens; or, with `event`, only that; or, with `data`
    /// too, exactly this payload, whatever the session's intents. A payload of one's own changes nothing in the guilds,
    /// and gets a `_trace` like any other.
    ///
    /// `{"do": "emit", "shard": 0, "event": "MESSAGE_CREATE", "data": {"id": "1", …}}`
    Emit {
        /// The shard.
        shard: u32,
        /// How many. 1.
        #[serde(default = "once")]
        count: usize,
        /// The event's name. None: any.
        #[serde(default)]
        event: Option<String>,
        /// The data of the event, an object. None: the simulator's own.
        #[serde(default)]
        data: Option<Value>,
    },
    /// Generated traffic begins or ends.
    Traffic {
        /// Which of the two.
        on: bool,
    },
    /// A guild is not available for a while (GW-249).
    GuildOutage {
        /// Its number, from 0.
        guild: u32,
        /// For how long.
        lasts_ms: u64,
    },
    /// The bot is removed from a guild (GW-251).
    GuildLeave {
        /// Its number, from 0.
        guild: u32,
    },
    /// The bot comes to a guild that it has left.
    GuildJoin {
        /// Its number, from 0.
        guild: u32,
    },
    /// The bot gains access to the hidden channel of a guild (GW-276); every third guild has one, beginning with the first.
    RevealChannel {
        /// Its number, from 0.
        guild: u32,
    },
    /// Other numbers in `GET /gateway/bot`, from now on.
    Limits {
        /// The recommended number of shards.
        #[serde(default)]
        shards: Option<u32>,
        /// How many may identify at the same time.
        #[serde(default)]
        max_concurrency: Option<u32>,
        /// Identify left in this period.
        #[serde(default)]
        remaining: Option<u32>,
    },
    /// Other intents are enabled. Withdrawing one ends every session with 4003 (GW-189).
    AllowIntents {
        /// All that are enabled from now on.
        intents: u64,
    },
    /// The simulator's clock jumps ahead: sessions, limits and periods age at once.
    ClockJump {
        /// How far.
        ms: u64,
    },
}

fn once() -> usize {
    1
}

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
/// As JSON it is `{"step": [{"at_ms": 5000, "do": "fault", …}, …]}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The steps, in any order.
    #[serde(default)]
    step: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Step {
    /// Since the script began.
    at_ms: u64,
    #[serde(flatten)]
    action: Action,
}

/// A script cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The file cannot be read.
    #[error("cannot read the script {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no script; the source tells the place.
    #[error("the script is not valid TOML for a timeline")]
    Toml(#[from] toml::de::Error),
    /// It is no script; the source tells the place.
    #[error("the script is not valid JSON for a timeline")]
    Json(#[from] serde_json::Error),
}

impl Script {
    /// Reads a script from a file: JSON when its name ends so, else TOML.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is no script.
    pub fn read(path: &Path) -> Result<Self, ScriptError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScriptError::Read { path: path.to_owned(), source })?;
        if path.extension().is_some_and(|extension| extension == "json") {
            Self::from_json(&text)
        } else {
            Self::from_toml(&text)
        }
    }

    /// Reads a script in TOML.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn from_toml(text: &str) -> Result<Self, ScriptError> {
        Ok(toml::from_str::<Self>(text)?.sorted())
    }

    /// Reads a script in JSON.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn from_json(text: &str) -> Result<Self, ScriptError> {
        Ok(serde_json::from_str::<Self>(text)?.sorted())
    }

    /// The same script with one more step.
    #[must_use]
    pub fn then(mut self, at: Duration, action: Action) -> Self {
        self.step.push(Step { at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX), action });
        self.sorted()
    }

    /// When each action is due, counted from the script's begin; in order.
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
        for (text, culprit) in [
            ("[[step]]\nat_ms = 1\ndo = \"fall\"", "fall"),
            ("[[step]]\nat_ms = 1\ndo = \"fault\"\nfault = \"explode\"", "explode"),
            ("[[step]]\nat_ms = 1\ndo = \"traffic\"\non = true\nof = 1", "of"),
            ("[[step]]\ndo = \"traffic\"\non = true", "at_ms"),
            ("[[steps]]\nat_ms = 1", "steps"),
        ] {
            let error = Script::from_toml(text).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains(culprit), "{source}");
        }
    }
}
