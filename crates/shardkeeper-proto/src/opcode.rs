//! The opcodes that bots send and receive (GW-055 to GW-067; GW-068: bots use no others).

/// The kind of a payload: the field `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Opcode {
    /// An event. Received.
    Dispatch = 0,
    /// Sent on a timer. Received when Discord requests a heartbeat immediately.
    Heartbeat = 1,
    /// Starts a session. Sent.
    Identify = 2,
    /// Sets the bot's presence. Sent.
    PresenceUpdate = 3,
    /// Joins, moves between or leaves voice channels. Sent.
    VoiceStateUpdate = 4,
    /// Resumes a session. Sent.
    Resume = 6,
    /// Discord requests a new connection. Received.
    Reconnect = 7,
    /// Requests members of a guild. Sent.
    RequestGuildMembers = 8,
    /// A session could not be started, resumed or kept. Received.
    InvalidSession = 9,
    /// First payload of a connection. Received.
    Hello = 10,
    /// Answer to a heartbeat. Received.
    HeartbeatAck = 11,
    /// Requests the soundboards of guilds. Sent.
    RequestSoundboardSounds = 31,
    /// Requests the voice status of channels. Sent.
    RequestChannelInfo = 43,
}

impl Opcode {
    /// The opcode with this number; `None` for one that bots do not use (GW-021: ignore unknown opcodes).
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Dispatch,
            1 => Self::Heartbeat,
            2 => Self::Identify,
            3 => Self::PresenceUpdate,
            4 => Self::VoiceStateUpdate,
            6 => Self::Resume,
            7 => Self::Reconnect,
            8 => Self::RequestGuildMembers,
            9 => Self::InvalidSession,
            10 => Self::Hello,
            11 => Self::HeartbeatAck,
            31 => Self::RequestSoundboardSounds,
            43 => Self::RequestChannelInfo,
            _ => return None,
        })
    }

    /// The opcode's number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_055_to_067_numbers_round_trip_and_gw_068_no_other_is_known() {
        let known: Vec<u64> = (0..300).filter(|number| Opcode::from_number(*number).is_some()).collect();
        // GW-068: bots use no other opcode.
        assert_eq!(known, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 31, 43]);
        for number in known {
            assert_eq!(u64::from(Opcode::from_number(number).unwrap().number()), number);
        }
    }
}
