//! Members: presence, voice, joining, leaving and bans.

use serde_json::{Value, json};

use super::scene::Scene;
use crate::world::event_data::voice_server;
use crate::world::guild::Voice;
use crate::world::ids;
use crate::world::json::or_null;
use crate::world::member::Member;
use crate::world::words::words;

/// The most humans that may be absent from a guild.
const MAX_ABSENT: usize = 8;
const MAX_BANNED: usize = 2;
/// The most members in the first voice channel.
const MAX_IN_VOICE: usize = 16;
/// A guild keeps at least this many members.
const MIN_MEMBERS: u32 = 3;

pub(super) fn presence(scene: &mut Scene<'_>) -> Value {
    let member = scene.guild.change_presence(scene.random);
    scene.guild.presence(member)
}

/// A member joins or leaves the first voice channel.
pub(super) fn voice_state(scene: &mut Scene<'_>) -> Value {
    let (mut member, channel) = (scene.member(), scene.guild.voice_channels[0]);
    let inside: Vec<u64> = scene.guild.voice.keys().copied().filter(|user| *user != ids::BOT).collect();
    // A member picked from the whole of a large guild would hardly ever be one in voice, so half of the time
    // pick one from the channel, who then leaves it.
    if inside.len() >= MAX_IN_VOICE || scene.random.bool() {
        member = scene.random.choice(&inside).and_then(|user| scene.guild.member(*user)).unwrap_or(member);
    }
    let voice = Voice { channel, self_mute: false, self_deaf: true };
    let to = (!scene.guild.voice.contains_key(&member.id())).then_some(voice);
    scene.guild.move_voice(member, to, ids::seconds(scene.number));
    scene.guild.voice_state(member, to)
}

pub(super) fn voice_status(scene: &mut Scene<'_>) -> Value {
    let status = words(2, scene.random);
    let channel = scene.guild.voice_channels[0].to_string();
    let data = scene.in_guild(json!({"id": channel, "status": status}));
    scene.guild.voice_status = Some(status);
    data
}

pub(super) fn voice_start(scene: &mut Scene<'_>) -> Value {
    let channel = scene.guild.voice_channels[0];
    let start = scene.guild.voice_start(channel);
    scene.in_guild(json!({"id": channel.to_string(), "voice_start_time": start}))
}

/// Moves the bot's voice connection to another voice server, if the bot is in voice.
pub(super) fn voice_server_update(scene: &mut Scene<'_>) -> Value {
    match scene.guild.voice.contains_key(&ids::BOT) {
        true => voice_server(scene.guild.id, scene.number),
        false => Value::Null,
    }
}

/// Happens only in the channel that the bot is in. The id of a default sound is an integer, other ids are
/// snowflakes (GW-271).
pub(super) fn voice_effect(scene: &mut Scene<'_>) -> Value {
    let Some(channel) = scene.guild.voice.get(&ids::BOT).map(|voice| voice.channel) else {
        return Value::Null;
    };
    let near = scene.guild.voice.iter().filter(|(_, voice)| voice.channel == channel).map(|(user, _)| *user);
    let Some(user) = scene.random.choice(near.collect::<Vec<_>>()) else { return Value::Null };
    let sound = match scene.guild.sounds.first() {
        Some(sound) if scene.random.bool() => json!(sound.id.to_string()),
        _ => json!(1),
    };
    scene.in_guild(json!({
        "channel_id": channel.to_string(), "user_id": user.to_string(), "emoji": {"id": null, "name": "🦆"},
        "animation_type": 0, "animation_id": 1, "sound_id": sound, "sound_volume": 1.0,
    }))
}

pub(super) fn member_update(scene: &mut Scene<'_>) -> Value {
    let member = scene.guild.change_member(scene.number, scene.random);
    scene.in_guild(scene.guild.member_object(member, true))
}

/// Adds an absent human to the guild. If there is none, the event repeats a present member, which is allowed
/// (GW-263).
pub(super) fn member_add(scene: &mut Scene<'_>) -> Value {
    let guild = &mut *scene.guild;
    let welcome: Vec<u64> = guild.absent.difference(&guild.banned).copied().collect();
    let member = match scene.random.choice(welcome) {
        Some(index) => {
            guild.absent.remove(&index);
            Member::Human(index)
        }
        None => guild.any_human(scene.random),
    };
    scene.in_guild(scene.guild.member_object(member, true))
}

/// Removes a member. The owner and members in voice stay.
pub(super) fn member_remove(scene: &mut Scene<'_>) -> Value {
    let member = scene.member();
    let guild = &mut *scene.guild;
    let stays = member == guild.owner() || guild.voice.contains_key(&member.id());
    match member {
        Member::Human(index)
            if !stays && guild.absent.len() < MAX_ABSENT && guild.member_count() > MIN_MEMBERS =>
        {
            guild.leave(index);
            scene.in_guild(json!({"user": member.user()}))
        }
        _ => Value::Null,
    }
}

/// Bans a human who is absent: the ban of a member would need a GUILD_MEMBER_REMOVE too.
pub(super) fn ban(scene: &mut Scene<'_>) -> Value {
    let guild = &mut *scene.guild;
    let stranger = guild.absent.difference(&guild.banned).next().copied();
    or_null(stranger.filter(|_| guild.banned.len() < MAX_BANNED).map(|index| {
        scene.guild.banned.insert(index);
        scene.in_guild(json!({"user": Member::Human(index).user()}))
    }))
}

pub(super) fn unban(scene: &mut Scene<'_>) -> Value {
    let pardoned = scene.guild.banned.pop_first();
    or_null(pardoned.map(|index| scene.in_guild(json!({"user": Member::Human(index).user()}))))
}
