//! Intents as the simulator reads them: which bits exist, and which events each one brings (section 10).

/// Every documented bit (GW-179).
pub(crate) const DOCUMENTED: u64 = 53_608_447;
/// GUILD_MEMBERS, GUILD_PRESENCES and MESSAGE_CONTENT (GW-179).
pub(crate) const PRIVILEGED: u64 = 33_026;
pub(crate) const GUILDS: u64 = 1;
const GUILD_MEMBERS: u64 = 1 << 1;
const GUILD_VOICE_STATES: u64 = 1 << 7;
const GUILD_PRESENCES: u64 = 1 << 8;
const GUILD_MESSAGES: u64 = 1 << 9;
const GUILD_MESSAGE_REACTIONS: u64 = 1 << 10;
const GUILD_MESSAGE_TYPING: u64 = 1 << 11;
pub(crate) const MESSAGE_CONTENT: u64 = 1 << 15;

/// The intent that brings a guild's event; zero when it is always sent (GW-180).
pub(crate) fn needed(event: &str) -> u64 {
    match event {
        "GUILD_CREATE" | "GUILD_DELETE" | "CHANNEL_UPDATE" => GUILDS,
        "GUILD_MEMBER_UPDATE" => GUILD_MEMBERS,
        "VOICE_STATE_UPDATE" => GUILD_VOICE_STATES,
        "PRESENCE_UPDATE" => GUILD_PRESENCES,
        "MESSAGE_CREATE" | "MESSAGE_UPDATE" | "MESSAGE_DELETE" => GUILD_MESSAGES,
        "MESSAGE_REACTION_ADD" => GUILD_MESSAGE_REACTIONS,
        "TYPING_START" => GUILD_MESSAGE_TYPING,
        _ => 0,
    }
}
