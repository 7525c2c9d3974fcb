//! Messages, reactions, votes and typing, in guilds and in direct channels.

use serde_json::{Value, json};

use super::scene::Scene;
use crate::world::account::direct_channel;
use crate::world::event_data::{emoji_cleared, reaction_added, reaction_data, typed};
use crate::world::guild::Guild;
use crate::world::ids;
use crate::world::json::{or_null, with, without};
use crate::world::member::Member;
use crate::world::message::{ANSWERS, EMOJIS, MAX_REACTIONS, Message, Reaction};

pub(super) fn message(scene: &mut Scene<'_>) -> Value {
    let (author, channel) = (scene.member(), scene.channel());
    let message = Message::new(scene.number, author, scene.random);
    scene.guild.say(channel, message)
}

/// Edits a human's message. The event has the full message, with `tts` false (GW-264). Users who have left
/// the guild no longer edit their messages.
pub(super) fn message_update(scene: &mut Scene<'_>) -> Value {
    let by_human =
        |guild: &Guild, message: &Message| message.author != Member::Bot && guild.has(message.author);
    or_null(scene.any_message(by_human).and_then(|(channel, place)| {
        let number = scene.number;
        scene.at(channel, place)?.edit(number, None);
        Some(scene.guild.message(channel, scene.guild.room(channel)?.messages.get(place)?))
    }))
}

pub(super) fn message_delete(scene: &mut Scene<'_>) -> Value {
    or_null(scene.any_message(|_, _| true).and_then(|(channel, place)| {
        let message = scene.guild.room_mut(channel)?.messages.remove(place)?;
        Some(scene.in_guild(json!({"id": message.id.to_string(), "channel_id": channel.to_string()})))
    }))
}

pub(super) fn message_delete_bulk(scene: &mut Scene<'_>) -> Value {
    let Some(channel) = scene.guild.rooms().find(|room| room.messages.len() >= 2).map(|room| room.id) else {
        return Value::Null;
    };
    let Some(room) = scene.guild.room_mut(channel) else { return Value::Null };
    let count = scene.random.usize(2..4).min(room.messages.len());
    let ids: Vec<String> = room.messages.drain(..count).map(|message| message.id.to_string()).collect();
    scene.in_guild(json!({"ids": ids, "channel_id": channel.to_string()}))
}

pub(super) fn reaction_add(scene: &mut Scene<'_>) -> Value {
    let (user, emoji) = (scene.member(), EMOJIS[scene.random.usize(..EMOJIS.len())]);
    let reaction = Reaction { emoji: emoji.into(), user };
    let free = |_: &Guild, message: &Message| {
        message.reactions.len() < MAX_REACTIONS && !message.reactions.contains(&reaction)
    };
    or_null(scene.any_message(free).and_then(|(channel, place)| {
        let message = scene.at(channel, place)?;
        message.reactions.push(reaction.clone());
        let (id, author) = (message.id, message.author);
        let data = reaction_added(scene.guild, &reaction, author);
        Some(scene.of_message(channel, id, data))
    }))
}

fn reacted(_: &Guild, message: &Message) -> bool {
    !message.reactions.is_empty()
}

pub(super) fn reaction_remove(scene: &mut Scene<'_>) -> Value {
    or_null(scene.any_message(reacted).and_then(|(channel, place)| {
        let message = scene.at(channel, place)?;
        let (id, reaction) = (message.id, message.reactions.pop()?);
        Some(scene.of_message(channel, id, reaction_data(&reaction)))
    }))
}

pub(super) fn reaction_remove_all(scene: &mut Scene<'_>) -> Value {
    or_null(scene.any_message(reacted).and_then(|(channel, place)| {
        let message = scene.at(channel, place)?;
        message.reactions.clear();
        let id = message.id;
        Some(scene.of_message(channel, id, json!({})))
    }))
}

pub(super) fn reaction_remove_emoji(scene: &mut Scene<'_>) -> Value {
    or_null(scene.any_message(reacted).and_then(|(channel, place)| {
        let message = scene.at(channel, place)?;
        let emoji = message.reactions.first()?.emoji.clone();
        message.reactions.retain(|reaction| reaction.emoji != emoji);
        let id = message.id;
        Some(scene.of_message(channel, id, emoji_cleared(&emoji)))
    }))
}

pub(super) fn vote_add(scene: &mut Scene<'_>) -> Value {
    let vote = (scene.member(), scene.random.u64(1..=ANSWERS));
    let open = |_: &Guild, message: &Message| {
        message.has_poll() && message.votes.len() < MAX_REACTIONS && !message.votes.contains(&vote)
    };
    or_null(scene.any_message(open).and_then(|(channel, place)| {
        let message = scene.at(channel, place)?;
        message.votes.push(vote);
        let id = message.id;
        Some(scene.of_message(channel, id, json!({"user_id": vote.0.id().to_string(), "answer_id": vote.1})))
    }))
}

pub(super) fn vote_remove(scene: &mut Scene<'_>) -> Value {
    or_null(scene.any_message(|_, message| !message.votes.is_empty()).and_then(|(channel, place)| {
        let message = scene.at(channel, place)?;
        let (id, (user, answer)) = (message.id, message.votes.pop()?);
        Some(scene.of_message(channel, id, json!({"user_id": user.id().to_string(), "answer_id": answer})))
    }))
}

pub(super) fn typing(scene: &mut Scene<'_>) -> Value {
    let (member, channel) = (scene.member(), scene.channel());
    typed(scene.guild, member, channel, scene.number)
}

pub(super) fn direct_message(scene: &mut Scene<'_>) -> Value {
    let author = scene.member();
    let Some(channel) = direct_channel(author) else { return Value::Null };
    let message = Message::new(scene.number, author, scene.random);
    let data = with(without(message.object(channel), "poll"), json!({"channel_type": 1}));
    scene.account.direct(channel).push(message);
    data
}

pub(super) fn direct_typing(scene: &mut Scene<'_>) -> Value {
    let member = scene.member();
    or_null(direct_channel(member).map(|channel| {
        json!({
            "channel_id": channel.to_string(), "user_id": member.id().to_string(),
            "timestamp": ids::seconds(scene.number),
        })
    }))
}
