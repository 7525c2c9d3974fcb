//! In which guilds the bot is in a voice channel.
//!
//! Input: the voice commands (op 4) that shards send, and the bot's own VOICE_STATE_UPDATEs. Output: the same
//! commands once more, for the session of another shard: a voice connection ends with the session that it was
//! made in (GW-207, GW-244).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memchr::memmem;
use serde::Deserialize;
use shardkeeper_proto::{Command, VoiceStateUpdate};

use crate::layout::ShardKey;

/// Guilds that are known at most. No bot is in that many voice channels: further ones come from commands for
/// guilds that do not exist, and are not noted.
const CAPACITY: usize = 65_536;

/// The voice channels that the bot is in, shared by all shards of a manager. A channel that was joined by
/// another process is not known, until a command or an event of this one names it.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Whether any call is known. Only then are events compared.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Id of the bot's user, as text; `None` before the first READY.
    user_id: Option<String>,
    by_guild: BTreeMap<u64, Call>,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    voice: VoiceStateUpdate,
    /// Shard whose session the call was made in.
    shard: ShardKey,
}

/// The part of a voice state that matters, in a command or an event.
#[derive(Deserialize)]
struct VoiceState {
    guild_id: String,
    channel_id: Option<String>,
    #[serde(default)]
    user_id: String,
    #[serde(default)]
    self_mute: bool,
    #[serde(default)]
    self_deaf: bool,
}

impl VoiceState {
    fn update(&self) -> Option<VoiceStateUpdate> {
        let channel_id = match &self.channel_id {
            Some(channel_id) => Some(channel_id.parse().ok()?),
            None => None,
        };
        let (guild_id, self_mute, self_deaf) = (self.guild_id.parse().ok()?, self.self_mute, self.self_deaf);
        Some(VoiceStateUpdate { guild_id, channel_id, self_mute, self_deaf })
    }
}

impl Calls {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, state: &mut State, voice: VoiceStateUpdate, shard: ShardKey) {
        if voice.channel_id.is_none() {
            state.by_guild.remove(&voice.guild_id);
        } else if state.by_guild.len() < CAPACITY || state.by_guild.contains_key(&voice.guild_id) {
            state.by_guild.insert(voice.guild_id, Call { voice, shard });
        }
        self.any.store(!state.by_guild.is_empty(), Ordering::Release);
    }

    /// Notes that a shard has a new session: its calls have ended with the old one.
    pub(crate) fn session_began(&self, shard: ShardKey, user_id: Option<u64>) {
        let mut state = self.state();
        state.user_id = user_id.map(|id| id.to_string()).or(state.user_id.take());
        state.by_guild.retain(|_, call| call.shard != shard);
        self.any.store(!state.by_guild.is_empty(), Ordering::Release);
    }

    /// Notes the payload of a voice command that a shard sends. One that is not understood is not noted.
    pub(crate) fn sent(&self, shard: ShardKey, payload: &str) {
        #[derive(Deserialize)]
        struct Payload {
            d: VoiceState,
        }
        let payload = serde_json::from_str::<Payload>(payload).ok();
        if let Some(voice) = payload.and_then(|payload| payload.d.update()) {
            self.note(&mut self.state(), voice, shard);
        }
    }

    /// Whether any call is known, so that voice states matter.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Notes a VOICE_STATE_UPDATE, if it is that of the bot in a known call: somebody may have moved the bot to
    /// another channel, or disconnected it.
    pub(crate) fn received(&self, data: &[u8]) {
        let mut state = self.state();
        let Some(user_id) = &state.user_id else { return };
        // Most voice states are those of other users, and need not be parsed.
        if memmem::find(data, user_id.as_bytes()).is_none() {
            return;
        }
        let own = serde_json::from_slice::<VoiceState>(data).ok().filter(|own| own.user_id == *user_id);
        let Some(voice) = own.and_then(|own| own.update()) else { return };
        if let Some(Call { shard, .. }) = state.by_guild.get(&voice.guild_id).copied() {
            self.note(&mut state, voice, shard);
        }
    }

    /// The guilds of all calls.
    pub(crate) fn guilds(&self) -> Vec<u64> {
        self.state().by_guild.keys().copied().collect()
    }

    /// The command that joins the same channel once more; `None` if the bot is in none of this guild.
    pub(crate) fn command(&self, guild_id: u64) -> Option<Command> {
        self.state().by_guild.get(&guild_id).map(|call| Command::voice(call.voice))
    }
}

#[cfg(test)]
mod tests {
    use shardkeeper_proto::ShardId;

    use super::*;

    const SHARD: ShardKey = ShardKey { id: ShardId(0), generation: 1 };

    /// The payload of op 4, and the event that Discord answers with.
    fn payload(guild_id: u64, channel_id: Option<u64>) -> String {
        let channel = channel_id.map_or("null".to_owned(), |id| format!("\"{id}\""));
        format!(
            r#"{{"op":4,"d":{{"guild_id":"{guild_id}","channel_id":{channel},"self_mute":true,"self_deaf":false}}}}"#
        )
    }

    fn event(guild_id: u64, channel_id: Option<u64>, user_id: u64) -> Vec<u8> {
        let channel = channel_id.map_or("null".to_owned(), |id| format!("\"{id}\""));
        format!(
            r#"{{"guild_id":"{guild_id}","channel_id":{channel},"user_id":"{user_id}","self_mute":false,
                "self_deaf":true,"session_id":"900"}}"#
        )
        .into_bytes()
    }

    fn channel(calls: &Calls, guild_id: u64) -> Option<u64> {
        calls.state().by_guild.get(&guild_id).and_then(|call| call.voice.channel_id)
    }

    #[test]
    fn a_call_follows_commands_and_the_bots_own_voice_states() {
        let calls = Calls::default();
        calls.session_began(SHARD, Some(900));
        assert!(!calls.any() && calls.command(1).is_none());
        calls.received(&event(1, Some(5), 900));
        assert!(!calls.any(), "nothing is known of that call");
        calls.sent(SHARD, &payload(1, Some(2)));
        assert!(calls.any());
        let again = VoiceStateUpdate::join(1, 2).muted();
        assert_eq!(format!("{:?}", calls.command(1)), format!("{:?}", Some(Command::voice(again))));
        calls.received(&event(1, Some(3), 901));
        assert_eq!(channel(&calls, 1), Some(2), "another user");
        calls.received(&event(1, Some(3), 900));
        assert_eq!(channel(&calls, 1), Some(3), "moved");
        calls.received(&event(1, None, 900));
        assert!(!calls.any(), "disconnected");
        calls.sent(SHARD, &payload(1, Some(2)));
        calls.sent(SHARD, &payload(1, None));
        assert!(calls.guilds().is_empty());
        calls.sent(SHARD, "{}");
        calls.received(b"900");
    }

    #[test]
    fn gw_207_a_new_session_ends_the_calls_of_its_shard_alone() {
        let calls = Calls::default();
        let other = ShardKey { id: ShardId(1), generation: 1 };
        calls.sent(SHARD, &payload(1, Some(2)));
        calls.sent(other, &payload(2, Some(2)));
        calls.session_began(SHARD, None);
        assert_eq!(calls.guilds(), [2]);
        // Sent once more by the new owner, the call belongs to its session.
        calls.sent(SHARD, &payload(2, Some(2)));
        calls.session_began(other, None);
        assert_eq!(calls.guilds(), [2]);
    }

    #[test]
    fn the_number_of_calls_has_a_bound() {
        let calls = Calls::default();
        (0..=CAPACITY as u64).for_each(|guild_id| calls.sent(SHARD, &payload(guild_id, Some(2))));
        calls.sent(SHARD, &payload(0, Some(3)));
        assert_eq!((calls.guilds().len(), channel(&calls, 0)), (CAPACITY, Some(3)));
    }
}
