//! The actions on a running simulator, the same from Rust, over HTTP and in scripts.

use serde::Deserialize;
use serde_json::Value;

use crate::fault::{ConnectFault, Fault, RestFault};
use crate::host::Host;
use crate::settings::{SessionFilter, SessionSettings};

/// An action on a running simulator.
///
/// Examples in JSON:
///
/// - `{"do": "fault", "shard": 3, "fault": "reconnect"}`
/// - `{"do": "fault", "fault": {"close": {"code": 4009}}}`
/// - `{"do": "guild-outage", "guild": 0, "lasts_ms": 5000}`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Action {
    /// Makes a fault on the live connection of a shard: that of the session that was identified or resumed last
    /// among all layouts. [`Action::SessionFault`] chooses the session.
    Fault {
        /// The shard. `None`: every session that is connected.
        #[serde(default)]
        shard: Option<u32>,
        /// The fault.
        fault: Fault,
    },
    /// Makes a fault on the live connection of each session that the filter includes.
    ///
    /// `{"do": "session-fault", "of": {"count": 6, "shard": 1}, "fault": "cut"}`
    SessionFault {
        /// The sessions.
        of: SessionFilter,
        /// The fault.
        fault: Fault,
    },
    /// Changes how sessions are treated, those that exist and those that start later. The settings given last
    /// apply to a session, as a whole.
    ///
    /// `{"do": "sessions", "of": {"count": 12}, "set": {"lag_ms": 300, "jitter_ms": 50}}`
    Sessions {
        /// The sessions.
        #[serde(default)]
        of: SessionFilter,
        /// How they are treated from now on.
        set: SessionSettings,
    },
    /// Makes a fault on the next Gateway connections.
    Connect {
        /// The fault.
        fault: ConnectFault,
        /// The number of connections. Default: 1.
        #[serde(default = "once")]
        times: usize,
    },
    /// Makes a fault on every connection to one Gateway URL for a while. [`Action::Connect`] takes
    /// precedence.
    ///
    /// `{"do": "host", "host": {"resume": 2}, "fault": "no-hello", "lasts_ms": 60000}`
    Host {
        /// The URL.
        host: Host,
        /// The fault.
        fault: ConnectFault,
        /// How long the fault lasts, in milliseconds.
        lasts_ms: u64,
    },
    /// Makes a fault on the next REST requests.
    Rest {
        /// The fault.
        fault: RestFault,
        /// The number of requests. Default: 1.
        #[serde(default = "once")]
        times: usize,
    },
    /// Cancels the faults that wait for future connections and requests.
    Disarm,
    /// Sends events at once in the newest session of a shard: random ones; with `event`, only events of that
    /// name; with `data` too, exactly this payload, regardless of the session's intents. Such a payload
    /// changes nothing in the guilds. It gets a `_trace` like any other event.
    ///
    /// `{"do": "emit", "shard": 0, "event": "MESSAGE_CREATE", "data": {"id": "1", …}}`
    Emit {
        /// The shard.
        shard: u32,
        /// The number of events. Default: 1.
        #[serde(default = "once")]
        count: usize,
        /// The name of the event. `None`: random events.
        #[serde(default)]
        event: Option<String>,
        /// The data of the event, an object. `None`: the simulator generates it.
        #[serde(default)]
        data: Option<Value>,
    },
    /// Sends exactly this event in each session that the filter includes, regardless of its intents. Nothing
    /// changes in the guilds, and the event has a trace of its own in each session.
    ///
    /// `{"do": "dispatch", "of": {"session": 7}, "event": "MESSAGE_CREATE", "data": {"id": "1", …}}`
    Dispatch {
        /// The sessions.
        #[serde(default)]
        of: SessionFilter,
        /// The name of the event.
        event: String,
        /// The data of the event, an object.
        data: Value,
    },
    /// Makes events happen, which all sessions receive that own the guild and have the intents: random ones;
    /// with `event`, only events of that name; with `data` too, exactly this payload several times. Such a
    /// payload changes nothing in the guilds.
    ///
    /// `{"do": "happen", "guild": 0, "count": 2, "event": "PRESENCE_UPDATE", "data": {"status": "idle", …}}`
    Happen {
        /// The number of the guild, from 0. `None`: random guilds; with `data`, outside of guilds (GW-228).
        #[serde(default)]
        guild: Option<u32>,
        /// The number of events. Default: 1.
        #[serde(default = "once")]
        count: usize,
        /// The name of the event. `None`: random events.
        #[serde(default)]
        event: Option<String>,
        /// The data of the event, an object; the guild's id is added. `None`: the simulator generates it.
        #[serde(default)]
        data: Option<Value>,
    },
    /// Starts or stops the generated traffic.
    Traffic {
        /// `true` starts it.
        on: bool,
    },
    /// Makes a guild unavailable for a while (GW-249: the shard gets GUILD_DELETE with `unavailable`).
    GuildOutage {
        /// The number of the guild, from 0.
        guild: u32,
        /// How long the outage lasts, in milliseconds.
        lasts_ms: u64,
    },
    /// Removes the bot from a guild (GW-251: the shard gets GUILD_DELETE without `unavailable`).
    GuildLeave {
        /// The number of the guild, from 0.
        guild: u32,
    },
    /// Adds the bot to a guild that it has left.
    GuildJoin {
        /// The number of the guild, from 0.
        guild: u32,
    },
    /// Gives the bot access to the hidden channel of a guild (GW-276: this comes as CHANNEL_UPDATE). Every
    /// third guild has a hidden channel, beginning with the first.
    RevealChannel {
        /// The number of the guild, from 0.
        guild: u32,
    },
    /// Changes the numbers in `GET /gateway/bot`. Fields that are not given stay as they are.
    Limits {
        /// The recommended number of shards.
        #[serde(default)]
        shards: Option<u32>,
        /// How many shards may identify at the same time.
        #[serde(default)]
        max_concurrency: Option<u32>,
        /// How many Identify are left in this period.
        #[serde(default)]
        remaining: Option<u32>,
    },
    /// Changes which numbers of shards are accepted by future Identify. Fields that are not given stay as they
    /// are. Running sessions continue (GW-247).
    Sharding {
        /// The least number of shards: fewer are closed with 4011.
        #[serde(default)]
        least_shards: Option<u32>,
        /// As [`SimConfig::max_guilds_per_shard`](crate::SimConfig::max_guilds_per_shard).
        #[serde(default)]
        max_guilds_per_shard: Option<u32>,
        /// As [`SimConfig::shard_multiple`](crate::SimConfig::shard_multiple): other numbers are closed with
        /// 4010.
        #[serde(default)]
        shard_multiple: Option<u32>,
    },
    /// Changes the enabled intents. Withdrawing a privileged one ends every session with 4003 (GW-189).
    AllowIntents {
        /// All intents that are enabled from now on, as a bit set.
        intents: u64,
    },
    /// Moves the simulator's clock ahead: sessions, limits and periods age at once.
    ClockJump {
        /// How far, in milliseconds.
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
