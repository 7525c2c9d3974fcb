//! What the settings of a guild consist of: roles, emojis, sounds, scheduled events, rules; and interactions.

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::{Value, json};

use super::scene::{MAX_OTHERS, Scene, one_beyond};
use crate::world::guild::{Guild, Role, Rule, Scheduled, Sound};
use crate::world::ids::{self, Kind};
use crate::world::json::{or_null, with};
use crate::world::message::MAX_REACTIONS;
use crate::world::words::words;

/// The most roles of a guild, without `@everyone`. Guilds may keep more of what they begin with.
const MAX_ROLES: usize = 12;
/// The most emojis, stickers and sounds of a guild, each.
const MAX_EXPRESSIONS: usize = 6;

pub(super) fn guild_update(scene: &mut Scene<'_>) -> Value {
    scene.guild.description = Some(words(5, scene.random));
    scene.guild.properties()
}

pub(super) fn audit_log_entry(scene: &mut Scene<'_>) -> Value {
    let target = scene.member().id().to_string();
    scene.in_guild(json!({
        "id": scene.new_id(Kind::Other).to_string(), "target_id": target,
        "user_id": scene.guild.owner().id().to_string(), "action_type": 24,
        "changes": [{"key": "nick", "old_value": "duck", "new_value": "drake"}], "reason": "because",
    }))
}

/// Adds the new id, or removes one of the others.
fn vary(ids: &mut Vec<u64>, new: u64, random: &mut Rng) {
    if ids.len() >= MAX_EXPRESSIONS || (ids.len() > 1 && random.bool()) {
        ids.remove(random.usize(..ids.len()));
    } else {
        ids.push(new);
    }
}

pub(super) fn emojis(scene: &mut Scene<'_>) -> Value {
    let new = scene.new_id(Kind::Emoji);
    vary(&mut scene.guild.emojis, new, scene.random);
    scene.in_guild(json!({"emojis": scene.guild.emoji_objects()}))
}

pub(super) fn stickers(scene: &mut Scene<'_>) -> Value {
    let new = scene.new_id(Kind::Sticker);
    vary(&mut scene.guild.stickers, new, scene.random);
    scene.in_guild(json!({"stickers": scene.guild.sticker_objects()}))
}

pub(super) fn integration_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.integrations.len() > MAX_OTHERS {
        return Value::Null;
    }
    let id = scene.new_id(Kind::Other);
    scene.guild.integrations.push(id);
    scene.guild.integration(id)
}

pub(super) fn integration_update(scene: &mut Scene<'_>) -> Value {
    let any = scene.random.choice(&scene.guild.integrations).copied();
    or_null(any.map(|id| scene.guild.integration(id)))
}

pub(super) fn integration_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(1, scene.guild.integrations.len(), scene.random) else { return Value::Null };
    let id = scene.guild.integrations.remove(place).to_string();
    scene.in_guild(json!({"id": id, "application_id": id}))
}

pub(super) fn role_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.roles.len() >= MAX_ROLES {
        return Value::Null;
    }
    let role = Role { id: scene.new_id(Kind::Role), color: 0 };
    let data = scene.in_guild(json!({"role": scene.guild.role(&role)}));
    scene.guild.roles.push(role);
    data
}

pub(super) fn role_update(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(1, scene.guild.roles.len(), scene.random) else { return Value::Null };
    scene.guild.roles[place].color = scene.random.u32(..1 << 24);
    scene.in_guild(json!({"role": scene.guild.role(&scene.guild.roles[place])}))
}

/// Deletes a role, except the bot's own.
pub(super) fn role_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(1, scene.guild.roles.len(), scene.random) else { return Value::Null };
    let id = scene.guild.delete_role(place);
    scene.in_guild(json!({"role_id": id.to_string()}))
}

pub(super) fn scheduled_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.scheduled.len() >= MAX_OTHERS {
        return Value::Null;
    }
    let event = Scheduled { id: scene.new_id(Kind::Other), description: None, users: BTreeSet::new() };
    let data = scene.guild.scheduled_event(&event);
    scene.guild.scheduled.push(event);
    data
}

pub(super) fn scheduled_update(scene: &mut Scene<'_>) -> Value {
    let description = words(4, scene.random);
    let Some(place) = one_beyond(0, scene.guild.scheduled.len(), scene.random) else { return Value::Null };
    scene.guild.scheduled[place].description = Some(description);
    scene.guild.scheduled_event(&scene.guild.scheduled[place])
}

pub(super) fn scheduled_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.scheduled.len(), scene.random) else { return Value::Null };
    let event = scene.guild.scheduled.remove(place);
    scene.guild.scheduled_event(&event)
}

pub(super) fn scheduled_user_add(scene: &mut Scene<'_>) -> Value {
    let user = scene.member().id();
    let free = |event: &&mut Scheduled| event.users.len() < MAX_REACTIONS && !event.users.contains(&user);
    let Some(event) = scene.guild.scheduled.iter_mut().find(free) else { return Value::Null };
    event.users.insert(user);
    let id = event.id.to_string();
    scene.in_guild(json!({"guild_scheduled_event_id": id, "user_id": user.to_string()}))
}

pub(super) fn scheduled_user_remove(scene: &mut Scene<'_>) -> Value {
    let left = scene.guild.scheduled.iter_mut().find_map(|event| Some((event.id, event.users.pop_first()?)));
    or_null(left.map(|(id, user)| {
        scene.in_guild(json!({"guild_scheduled_event_id": id.to_string(), "user_id": user.to_string()}))
    }))
}

/// A sound with its creator, as the events of a single sound have it.
fn sound(guild: &Guild, sound: &Sound) -> Value {
    with(guild.sound(sound), json!({"user": guild.owner().user()}))
}

pub(super) fn sound_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.sounds.len() >= MAX_EXPRESSIONS {
        return Value::Null;
    }
    let new = Sound { id: scene.new_id(Kind::Sound), quarters: 4 };
    let data = sound(scene.guild, &new);
    scene.guild.sounds.push(new);
    data
}

pub(super) fn sound_update(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.sounds.len(), scene.random) else { return Value::Null };
    scene.guild.sounds[place].quarters = scene.random.u8(1..=4);
    sound(scene.guild, &scene.guild.sounds[place])
}

pub(super) fn sound_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(1, scene.guild.sounds.len(), scene.random) else { return Value::Null };
    let gone = scene.guild.sounds.remove(place);
    scene.in_guild(json!({"sound_id": gone.id.to_string()}))
}

pub(super) fn sounds_update(scene: &mut Scene<'_>) -> Value {
    for sound in &mut scene.guild.sounds {
        sound.quarters = scene.random.u8(1..=4);
    }
    scene.in_guild(json!({"soundboard_sounds": scene.guild.sound_objects()}))
}

pub(super) fn rule_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.rules.len() >= MAX_OTHERS {
        return Value::Null;
    }
    let rule = Rule { id: scene.new_id(Kind::Other), enabled: true };
    let data = scene.guild.rule(&rule);
    scene.guild.rules.push(rule);
    data
}

pub(super) fn rule_update(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.rules.len(), scene.random) else { return Value::Null };
    scene.guild.rules[place].enabled ^= true;
    scene.guild.rule(&scene.guild.rules[place])
}

pub(super) fn rule_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.rules.len(), scene.random) else { return Value::Null };
    let rule = scene.guild.rules.remove(place);
    scene.guild.rule(&rule)
}

pub(super) fn moderation_action(scene: &mut Scene<'_>) -> Value {
    let Some(rule) = scene.guild.rules.iter().find(|rule| rule.enabled).map(|rule| rule.id) else {
        return Value::Null;
    };
    let (user, channel) = (scene.member().id().to_string(), scene.text_channel().to_string());
    scene.in_guild(json!({
        "action": {"type": 1, "metadata": {}}, "rule_id": rule.to_string(), "rule_trigger_type": 1, "user_id": user,
        "channel_id": channel, "content": "spam and ham", "matched_keyword": "spam", "matched_content": "spam",
    }))
}

/// Sets permissions for all commands of the bot, so the id is the application's.
pub(super) fn command_permissions(scene: &mut Scene<'_>) -> Value {
    let role = scene.guild.roles[0].id.to_string();
    scene.in_guild(json!({
        "id": ids::BOT.to_string(), "application_id": ids::BOT.to_string(),
        "permissions": [{"id": role, "type": 1, "permission": true}],
    }))
}

/// A member calls a registered command that needs no options; if there is none, a command called `ping`.
pub(super) fn interaction(scene: &mut Scene<'_>) -> Value {
    let is_simple = |command: &&Value| {
        let mut options = command["options"].as_array().into_iter().flatten();
        command["type"] == 1
            && options.all(|option| option["type"].as_u64() > Some(2) && option["required"] != true)
    };
    let simple: Vec<&Value> = scene.commands.iter().filter(is_simple).collect();
    let (id, name) = match scene.random.choice(simple) {
        Some(command) => (command["id"].clone(), command["name"].clone()),
        None => (json!(ids::make(1, Kind::Other).to_string()), json!("ping")),
    };
    let (member, channel) = (scene.member(), scene.text_channel());
    let member = with(scene.guild.member_object(member, true), json!({"permissions": "2248473465835073"}));
    let channel = with(or_null(scene.guild.channel(channel)), json!({"permissions": "2248473465835073"}));
    let interaction = scene.new_id(Kind::Other).to_string();
    let guild = scene.guild.id.to_string();
    scene.in_guild(json!({
        "id": interaction, "application_id": ids::BOT.to_string(), "type": 2,
        "data": {"id": id, "name": name, "type": 1},
        "guild": {"id": guild, "locale": "en-US", "features": ["COMMUNITY"]},
        "channel_id": channel["id"], "channel": channel, "member": member,
        "token": format!("interaction-{interaction}"), "version": 1, "app_permissions": "2248473465835073",
        "locale": "en-US", "guild_locale": "en-US", "entitlements": [], "context": 0,
        "attachment_size_limit": 10_485_760, "authorizing_integration_owners": {"0": guild},
    }))
}
