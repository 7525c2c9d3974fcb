//! What can be done to a running simulator: by a script, over HTTP, from Rust. The same for all three.

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
    /// A guild is not available for a while: GUILD_DELETE with `unavailable`, and later GUILD_CREATE (GW-249).
    GuildOutage {
        /// Its number, from 0.
        guild: u32,
        /// For how long.
        lasts_ms: u64,
    },
    /// The bot is removed from a guild: GUILD_DELETE without `unavailable` (GW-251).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_connections_are_called_by_name() {
        let json = r#"{"do": "connect", "fault": {"odd": "ready-without-url"}, "times": 1000}"#;
        let fault = ConnectFault::Odd(crate::Odd::ReadyWithoutUrl);
        assert_eq!(serde_json::from_str::<Action>(json).unwrap(), Action::Connect { fault, times: 1000 });
    }
}
