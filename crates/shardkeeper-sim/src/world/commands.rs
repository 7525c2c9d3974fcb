//! The application commands that the bot has registered.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::ids::{self, BOT, Kind};
use super::json::extend;

/// Application commands, stored as the bot sent them.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    /// By the path of their route, so that global commands and those of each guild are separate.
    by_path: BTreeMap<String, Vec<Value>>,
    /// How many commands were ever registered. Ids are made from this number.
    made: u64,
}

impl Commands {
    /// The commands that were registered at this path.
    pub(crate) fn at(&mut self, path: &str) -> &[Value] {
        self.by_path.entry(path.to_owned()).or_default()
    }

    /// The commands of the first path that has been used: the global ones, if there are any.
    pub(super) fn first(&self) -> &[Value] {
        self.by_path.values().next().map_or(&[], Vec::as_slice)
    }

    /// Replaces all commands of a path, and returns them as stored.
    pub(crate) fn replace(&mut self, path: &str, commands: Vec<Value>) -> &[Value] {
        let commands: Vec<Value> = commands.into_iter().zip(self.made..).map(complete).collect();
        self.made += commands.len() as u64;
        let kept = self.by_path.entry(path.to_owned()).or_default();
        *kept = commands;
        kept
    }

    /// Adds a command to a path, and returns it as stored.
    pub(crate) fn add(&mut self, path: &str, command: Value) -> Value {
        let command = complete((command, self.made));
        self.made += 1;
        self.by_path.entry(path.to_owned()).or_default().push(command.clone());
        command
    }
}

/// Adds the fields that Discord sets.
fn complete((mut command, number): (Value, u64)) -> Value {
    let id = ids::make(number, Kind::Other).to_string();
    let defaults = json!({
        "id": id, "application_id": BOT.to_string(), "version": id, "default_member_permissions": null,
        "dm_permission": true, "nsfw": false,
    });
    if command.get("type").is_none() {
        command["type"] = 1.into();
    }
    extend(&mut command, defaults);
    command
}
