//! Events at once, in the newest session of a shard.

use serde_json::Value;

use crate::discord::{Discord, State};
use crate::fault::InjectError;
use crate::world::{self, Place};

/// How many events are generated under one lock, which takes some milliseconds.
const BATCH: usize = 256;
/// How many random events are tried until the session receives one. Intents may filter out an event, and some
/// events go to shard 0 only.
const TRIES: usize = 100;

/// Events to be sent: random ones, those of a name, or one payload several times.
#[derive(Clone, Copy)]
pub(crate) struct Emission<'a> {
    pub(crate) shard_id: u32,
    pub(crate) count: usize,
    pub(crate) event: Option<&'a str>,
    pub(crate) data: Option<&'a Value>,
}

impl Emission<'_> {
    /// Sends all events. Other threads get the lock in between.
    pub(crate) fn send(self, discord: &Discord) -> Result<(), InjectError> {
        let mut left = self.count;
        while left > 0 {
            left -= self.send_some(discord, left)?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Sends all events. Other tasks of the runtime run in between.
    pub(crate) async fn send_in_turns(self, discord: &Discord) -> Result<(), InjectError> {
        let mut left = self.count;
        while left > 0 {
            left -= self.send_some(discord, left)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Sends the next batch of the events that are left. Returns how many it had.
    fn send_some(self, discord: &Discord, left: usize) -> Result<usize, InjectError> {
        let Self { shard_id, event, data, .. } = self;
        let batch = left.min(BATCH);
        let mut state = discord.state();
        let id = state.sessions.newest(shard_id).cloned().unwrap_or_default();
        if state.sessions.live_mut(&id).is_none() {
            return Err(InjectError::NoSession { shard_id });
        }
        match (event, data) {
            (Some(event), Some(data)) => {
                check_payload(event, data)?;
                for _ in 0..batch {
                    state.answer(&id, event, data.clone());
                }
            }
            (None, Some(_)) => return Err(InjectError::InvalidData),
            (Some(event), None) if !world::makes(event) => {
                return Err(InjectError::NoSuchEvent { event: event.to_owned() });
            }
            (event, None) => {
                for _ in 0..batch {
                    let _ = (0..TRIES).any(|_| happen(&mut state, shard_id, event));
                }
            }
        }
        discord.changed(state);
        Ok(batch)
    }
}

pub(crate) fn check_payload(event: &str, data: &Value) -> Result<(), InjectError> {
    let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if event.is_empty() || !event.bytes().all(is_plain) {
        return Err(InjectError::NoSuchEvent { event: event.to_owned() });
    }
    if data.is_object() { Ok(()) } else { Err(InjectError::InvalidData) }
}

/// Events that happen in the guilds, for all sessions that receive them.
#[derive(Clone, Copy)]
pub(crate) struct Happenings<'a> {
    pub(crate) guild: Option<u32>,
    pub(crate) count: usize,
    pub(crate) event: Option<&'a str>,
    pub(crate) data: Option<&'a Value>,
}

impl Happenings<'_> {
    /// Lets all events happen. Other threads get the lock in between.
    pub(crate) fn send(self, discord: &Discord) -> Result<(), InjectError> {
        let mut left = self.count;
        while left > 0 {
            left -= self.send_some(discord, left)?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Lets all events happen. Other tasks of the runtime run in between.
    pub(crate) async fn send_in_turns(self, discord: &Discord) -> Result<(), InjectError> {
        let mut left = self.count;
        while left > 0 {
            left -= self.send_some(discord, left)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn send_some(self, discord: &Discord, left: usize) -> Result<usize, InjectError> {
        let Self { guild, event, data, .. } = self;
        let batch = left.min(BATCH);
        let mut state = discord.state();
        let place = match guild {
            Some(guild) if guild as usize >= state.world.guilds().len() => {
                return Err(InjectError::NoSuchGuild { guild });
            }
            guild => guild.map(|guild| guild as usize),
        };
        match (event, data) {
            (Some(event), Some(data)) => {
                check_payload(event, data)?;
                let mut data = data.clone();
                if let Some(place) = place {
                    data["guild_id"] = state.world.guild(place).id.to_string().into();
                }
                for _ in 0..batch {
                    state.publish(event, place, &data);
                }
            }
            (None, Some(_)) => return Err(InjectError::InvalidData),
            (Some(event), None) if !world::makes(event) => {
                return Err(InjectError::NoSuchEvent { event: event.to_owned() });
            }
            (event, None) => {
                for _ in 0..batch {
                    let _ = (0..TRIES).any(|_| happen_in(&mut state, place, event));
                }
            }
        }
        discord.changed(state);
        Ok(batch)
    }
}

/// Makes a random event happen in a random guild that a session receives.
pub(crate) fn happen_anywhere(state: &mut State) {
    if let Some(place) = (0..TRIES).find_map(|_| state.any_guild().filter(|place| state.is_heard(*place))) {
        happen_in(state, Some(place), None);
    }
}

/// Makes an event happen in this guild, or in a random one. Returns whether a session received it.
fn happen_in(state: &mut State, place: Option<usize>, event: Option<&str>) -> bool {
    let Some(guild) = place.or_else(|| state.any_guild()) else { return false };
    let number = state.world.next_event();
    let Some(happening) = state.world.happening(guild, number, event, &mut state.random) else {
        return false;
    };
    let place = (happening.place == Place::Guild).then_some(guild);
    let is_received = state.publish(happening.event, place, &happening.data);
    if state.history.repeats(happening.event) && state.random.bool() {
        state.publish(happening.event, place, &happening.data);
    }
    is_received
}

/// Makes an event happen in a random guild of the shard's newest session: a random one, or the one that is
/// named. Returns whether that session received it.
fn happen(state: &mut State, shard: u32, event: Option<&str>) -> bool {
    let Some(id) = state.sessions.newest(shard).cloned() else { return false };
    let Some(session) = state.sessions.live_mut(&id) else { return false };
    let before = session.sequence;
    let Some(guild) = state.random.choice(&session.guilds).copied() else { return false };
    let number = state.world.next_event();
    let Some(happening) = state.world.happening(guild, number, event, &mut state.random) else {
        return false;
    };
    let place = (happening.place == Place::Guild).then_some(guild);
    state.publish(happening.event, place, &happening.data);
    state.sessions.get(&id).is_some_and(|session| session.sequence > before)
}
