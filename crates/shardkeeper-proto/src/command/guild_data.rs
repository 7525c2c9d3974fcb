//! Requests for guild data that is not part of the guild itself: soundboard sounds, and channel info of voice
//! channels (ops 31 and 43, GW-221 to GW-226).

use serde::Serialize;

use super::{Command, CommandClass, Id};
use crate::Opcode;
use crate::payload::MAX_PAYLOAD_BYTES;

/// How many guilds fit into one request for sounds, with ids of 20 digits, in either encoding: 23 bytes each
/// as JSON (GW-027), 25 as ETF.
const GUILDS_PER_SOUNDS_REQUEST: usize = 160;

const _: () =
    assert!(MAX_PAYLOAD_BYTES >= GUILDS_PER_SOUNDS_REQUEST * 25 + 64, "every list of guilds has to fit");

/// A field of a guild's channels that has to be requested separately (GW-224).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChannelInfoField {
    /// The status of a voice channel.
    Status,
    /// Since when a voice channel has been in use.
    VoiceStartTime,
}

impl Command {
    /// Requests the sounds of guilds that one shard owns (op 31, GW-066), in as many commands of at most 4096
    /// bytes as needed (GW-222). The sounds arrive as one SOUNDBOARD_SOUNDS event per guild. Each command goes to
    /// the shard that owns its first guild, and Discord answers only for that shard's guilds. Without guilds the
    /// result is empty.
    pub fn sounds(guild_ids: &[u64]) -> Vec<Self> {
        #[derive(Serialize)]
        struct Data {
            guild_ids: Vec<Id>,
        }
        let command = |ids: &[u64]| {
            let data = Data { guild_ids: ids.iter().copied().map(Id).collect() };
            Self::new(Opcode::RequestSoundboardSounds, ids[0], CommandClass::Bulk, &data)
                .expect("GUILDS_PER_SOUNDS_REQUEST ids fit")
        };
        guild_ids.chunks(GUILDS_PER_SOUNDS_REQUEST).map(command).collect()
    }

    /// Requests these fields of a guild's channels (op 43, GW-067). The answer is a CHANNEL_INFO event.
    pub fn channel_info(guild_id: u64, fields: &[ChannelInfoField]) -> Self {
        #[derive(Serialize)]
        struct Data<'a> {
            guild_id: Id,
            fields: &'a [ChannelInfoField],
        }
        let wanted = |field: &ChannelInfoField| fields.contains(field);
        let fields: Vec<ChannelInfoField> =
            [ChannelInfoField::Status, ChannelInfoField::VoiceStartTime].into_iter().filter(wanted).collect();
        let data = Data { guild_id: Id(guild_id), fields: &fields };
        Self::new(Opcode::RequestChannelInfo, guild_id, CommandClass::Bulk, &data).expect("two fields fit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(command: &Command) -> &str {
        &command.payload.text
    }

    #[test]
    fn gw_066_222_sounds_of_many_guilds_are_asked_for_in_parts() {
        let guilds: Vec<u64> = (0..400).map(|number| u64::MAX - number).collect();
        let commands = Command::sounds(&guilds);
        assert_eq!(commands.len(), 3);
        assert!(commands.iter().all(|command| text(command).len() <= MAX_PAYLOAD_BYTES));
        assert_eq!(text(&commands[0]).len(), 160 * 23 + 29);
        assert_eq!(text(&Command::sounds(&[5])[0]), r#"{"op":31,"d":{"guild_ids":["5"]}}"#);
        assert_eq!(Command::sounds(&[]), []);
    }

    #[test]
    fn gw_067_224_channel_info() {
        use ChannelInfoField::{Status, VoiceStartTime};
        let both = Command::channel_info(7, &[VoiceStartTime, Status, Status]);
        assert_eq!(text(&both), r#"{"op":43,"d":{"guild_id":"7","fields":["status","voice_start_time"]}}"#);
    }
}
