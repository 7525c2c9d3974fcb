//! Voice states: which channel the bot is in (op 4, GW-201 to GW-208).

use serde::Serialize;

use super::{Command, CommandClass, Id};
use crate::Opcode;

/// Joins a voice channel, moves to another one, or leaves (op 4, GW-059), always with all four fields
/// (GW-201).
///
/// Discord answers with a VOICE_STATE_UPDATE and, when joining, a VOICE_SERVER_UPDATE, in any order (GW-202).
/// For a full channel there is no answer (GW-205), so wait with a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "users construct it; Discord takes these four fields (GW-201)")]
pub struct VoiceStateUpdate {
    /// The guild's id.
    pub guild_id: u64,
    /// The channel to join; `None` leaves.
    pub channel_id: Option<u64>,
    /// Whether the bot is muted. Default of the constructors: `false`.
    pub self_mute: bool,
    /// Whether the bot is deafened. Default of the constructors: `false`.
    pub self_deaf: bool,
}

impl VoiceStateUpdate {
    /// Joins a channel, or moves to it, neither muted nor deafened. Without the intent GUILD_VOICE_STATES the
    /// bot does not receive its own voice state, and so not the id of its voice session (GW-206).
    pub const fn join(guild_id: u64, channel_id: u64) -> Self {
        Self { guild_id, channel_id: Some(channel_id), self_mute: false, self_deaf: false }
    }

    /// Leaves the voice channel.
    pub const fn leave(guild_id: u64) -> Self {
        Self { guild_id, channel_id: None, self_mute: false, self_deaf: false }
    }

    /// Also mutes the bot.
    #[must_use]
    pub const fn muted(self) -> Self {
        Self { self_mute: true, ..self }
    }

    /// Also deafens the bot.
    #[must_use]
    pub const fn deafened(self) -> Self {
        Self { self_deaf: true, ..self }
    }
}

impl Command {
    /// Joins a voice channel, moves to another one, or leaves.
    pub fn voice(update: VoiceStateUpdate) -> Self {
        #[derive(Serialize)]
        struct Data {
            guild_id: Id,
            channel_id: Option<Id>,
            self_mute: bool,
            self_deaf: bool,
        }
        let data = Data {
            guild_id: Id(update.guild_id),
            channel_id: update.channel_id.map(Id),
            self_mute: update.self_mute,
            self_deaf: update.self_deaf,
        };
        Self::new(Opcode::VoiceStateUpdate, update.guild_id, CommandClass::Voice, &data)
            .expect("two ids and two flags are far below the limit")
    }
}

impl From<VoiceStateUpdate> for Command {
    fn from(update: VoiceStateUpdate) -> Self {
        Self::voice(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_059_201_voice_state_has_all_four_fields() {
        let update = VoiceStateUpdate { guild_id: 7, channel_id: Some(8), self_mute: false, self_deaf: true };
        let join = Command::voice(update);
        let expected = r#"{"op":4,"d":{"guild_id":"7","channel_id":"8","self_mute":false,"self_deaf":true}}"#;
        assert_eq!((join.payload.text.as_str(), join.class()), (expected, CommandClass::Voice));
        let leave = Command::voice(VoiceStateUpdate { channel_id: None, ..update });
        assert!(leave.payload.text.contains(r#""channel_id":null"#));
    }
}
