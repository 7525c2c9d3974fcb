//! Data of events that have two causes: the generated traffic, and what the bot does by REST or a command.

use serde_json::{Value, json};

use super::guild::Guild;
use super::ids;
use super::json::with;
use super::member::Member;
use super::message::Reaction;

/// The data of a TYPING_START in a guild.
pub(crate) fn typed(guild: &Guild, member: Member, channel: u64, number: u64) -> Value {
    json!({
        "guild_id": guild.id.to_string(), "channel_id": channel.to_string(), "user_id": member.id().to_string(),
        "timestamp": ids::seconds(number), "member": guild.member_object(member, true),
    })
}

/// The data of a MESSAGE_REACTION_ADD, without the ids of its message.
pub(crate) fn reaction_added(guild: &Guild, reaction: &Reaction, author: Member) -> Value {
    let more = json!({
        "member": guild.member_object(reaction.user, true), "message_author_id": author.id().to_string(),
    });
    with(reaction_data(reaction), more)
}

/// The data of a MESSAGE_REACTION_REMOVE, without the ids of its message.
pub(crate) fn reaction_data(reaction: &Reaction) -> Value {
    json!({
        "user_id": reaction.user.id().to_string(), "emoji": Reaction::emoji(&reaction.emoji), "burst": false, "type": 0,
    })
}

/// The data of a MESSAGE_REACTION_REMOVE_EMOJI, without the ids of its message. Discord documents `burst`
/// only for the related events, but some libraries fail to parse this one without it.
pub(crate) fn emoji_cleared(emoji: &str) -> Value {
    json!({"emoji": Reaction::emoji(emoji), "burst": false, "type": 0})
}

/// The data of a VOICE_SERVER_UPDATE. The token depends on the event's number, so that none is used twice
/// (GW-202).
pub(crate) fn voice_server(guild: u64, number: u64) -> Value {
    json!({
        "token": format!("voice-{number:08x}"), "guild_id": guild.to_string(),
        "endpoint": "rotterdam1234.sim.invalid:443",
    })
}
