//! Which sessions an action concerns, and how the simulator treats them.

use serde::Deserialize;

/// A choice of sessions: those that satisfy every field that is given. The default chooses all sessions.
///
/// A shard id alone does not name a session while a bot has two layouts. The number of shards tells layouts of
/// different size apart, and the number of the session tells layouts of the same size apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionFilter {
    /// The shard.
    #[serde(default)]
    pub shard: Option<u32>,
    /// The number of shards that the session identified with.
    #[serde(default)]
    pub count: Option<u32>,
    /// The number of the session, as in [`SessionRecord::session`](crate::SessionRecord::session).
    #[serde(default)]
    pub session: Option<u64>,
    /// Only sessions with a higher number than this one.
    #[serde(default)]
    pub after: Option<u64>,
}

impl SessionFilter {
    /// All sessions.
    pub fn all() -> Self {
        Self::default()
    }

    /// The sessions of a layout: those that identified with this number of shards.
    pub fn of_count(count: u32) -> Self {
        Self { count: Some(count), ..Self::default() }
    }

    /// The sessions of one shard of a layout.
    pub fn of_shard(shard: u32, count: u32) -> Self {
        Self { shard: Some(shard), count: Some(count), ..Self::default() }
    }

    /// The session with this number.
    pub fn of_session(session: u64) -> Self {
        Self { session: Some(session), ..Self::default() }
    }

    /// Leaves out this session and those that started before it.
    #[must_use]
    pub fn after(self, session: u64) -> Self {
        Self { after: Some(session), ..self }
    }

    pub(crate) fn includes(&self, shard: u32, count: u32, session: u64) -> bool {
        self.shard.is_none_or(|wanted| wanted == shard)
            && self.count.is_none_or(|wanted| wanted == count)
            && self.session.is_none_or(|wanted| wanted == session)
            && self.after.is_none_or(|after| session > after)
    }
}

/// How the simulator treats a session. The default treats it like any other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionSettings {
    /// How late every dispatch is sent, in milliseconds. READY and RESUMED are not late by themselves, but
    /// never overtake another dispatch. Default: 0.
    pub lag_ms: u64,
    /// A random delay of each dispatch, up to this many milliseconds, in addition to `lag_ms`. Dispatches keep
    /// their order. Default: 0.
    pub jitter_ms: u64,
    /// Whether the keys of objects come in reverse order, so that the same event has another text than in
    /// other sessions. Default: no.
    pub reversed_keys: bool,
    /// The time between the GUILD_CREATEs after READY, in milliseconds. With more than 0 they come in a random
    /// order, and events of a guild may come before its GUILD_CREATE (GW-248, GW-255). Applies to sessions that
    /// start later. Default: 0.
    pub guild_gap_ms: u64,
    /// The numbers of the guilds for which nothing comes after READY (GW-254). Applies to sessions that start
    /// later. Default: none.
    pub missing_guilds: Vec<u32>,
    /// The numbers of the guilds that come as unavailable: even ones with GUILD_DELETE (GW-249), odd ones with
    /// GUILD_CREATE (GW-250). Applies to sessions that start later. Default: none.
    pub unavailable_guilds: Vec<u32>,
}
