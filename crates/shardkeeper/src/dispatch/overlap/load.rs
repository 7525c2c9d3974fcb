//! The initial load of a new session: the guilds that READY lists, and their arrival.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::identity::{Arrival, Event, StreamKey};

/// How long after the last guild a session counts as loaded, although guilds are missing (GW-254: 15 s is
/// common).
const IDLE: Duration = Duration::from_secs(15);
/// Guilds of one READY that are awaited. Discord allows 2500 on a shard (GW-229).
pub(super) const MAX_GUILDS: usize = 16_384;

/// Which guilds of a session have arrived.
#[derive(Debug, Default)]
pub(super) struct Load {
    awaited: HashSet<u64>,
    /// Whether the session is resumed, so that READY's list is not known.
    resumed: bool,
    /// READY, or the last guild that arrived; `None` before READY.
    last: Option<Instant>,
}

impl Load {
    /// `guilds` is READY's list, or empty if the intents bring no guild (GW-253).
    pub(super) fn ready(now: Instant, guilds: Vec<u64>) -> Self {
        Self { awaited: guilds.into_iter().collect(), resumed: false, last: Some(now) }
    }

    /// The session was begun by another process, and has loaded there.
    pub(super) fn resumed(now: Instant) -> Self {
        Self { awaited: HashSet::new(), resumed: true, last: Some(now) }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// Whether every guild has arrived, or no further one arrives (GW-240, GW-254).
    pub(super) fn is_done(&self, now: Instant) -> bool {
        let idle = |last| now.saturating_duration_since(last) >= IDLE;
        self.last.is_some_and(|last| self.awaited.is_empty() || idle(last))
    }

    /// Whether the event belongs to the load: the first GUILD_CREATE of a guild that READY lists, or the
    /// GUILD_DELETE that comes in its place during an outage (GW-249). Any other one reports something that
    /// happened to the guild (GW-252).
    pub(super) fn takes(&mut self, now: Instant, event: &Event, replayed: bool) -> bool {
        let (Some(arrival), StreamKey::Guild(guild)) = (event.arrival, event.stream) else { return false };
        if self.resumed {
            return replayed && arrival == Arrival::Create { marked: true };
        }
        let takes = self.awaited.remove(&guild);
        if takes {
            self.last = Some(now);
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Print;
    use super::*;

    fn guild(id: u64, arrival: Arrival) -> Event {
        let print = Print { hash: id, unique: false };
        Event { stream: StreamKey::Guild(id), print, arrival: Some(arrival), common: true }
    }

    const JOIN: Arrival = Arrival::Create { marked: false };
    const LOADED: Arrival = Arrival::Create { marked: true };

    #[test]
    fn gw_240_254_a_session_is_loaded_with_its_last_guild_or_when_none_comes_any_more() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(!Load::default().is_done(after(100)), "not before READY");
        let mut load = Load::ready(now, vec![1, 2, 3]);
        assert!(load.takes(after(10), &guild(1, LOADED), false));
        assert!(load.takes(after(12), &guild(2, Arrival::Outage), false));
        assert!(!load.is_done(after(26)));
        assert!(load.is_done(after(27)), "15 s after the last one");
        assert!(load.takes(after(40), &guild(3, LOADED), false), "late, and still of the load");
        assert!(load.is_done(after(40)));
        // GW-253: without the intent no guild comes, and none is awaited.
        assert!(Load::ready(now, vec![]).is_done(now));
    }

    #[test]
    fn gw_252_a_join_is_told_from_the_load() {
        let now = Instant::now();
        let mut load = Load::ready(now, vec![1]);
        assert!(!load.takes(now, &guild(9, JOIN), false));
        assert!(load.takes(now, &guild(1, LOADED), false));
        assert!(!load.takes(now, &guild(1, JOIN), false), "the second of a guild is news");
        // In a resumed session only the replay can bring what was loaded.
        let mut load = Load::resumed(now);
        assert!(load.takes(now, &guild(1, LOADED), true));
        assert!(!load.takes(now, &guild(1, JOIN), true) && !load.takes(now, &guild(1, LOADED), false));
    }
}
