//! Channels, threads, stages and invites.

use serde_json::{Value, json};

use super::scene::{MAX_OTHERS, Scene, one_beyond};
use crate::world::guild::{Invite, Stage, Text, Thread};
use crate::world::ids::{self, Kind};
use crate::world::json::{or_null, with};
use crate::world::member::Member;
use crate::world::words::words;

/// How many of a kind a guild may have; of what it begins with, it may keep more.
/// The most text channels of a guild.
const MAX_CHANNELS: usize = 12;

pub(super) fn channel_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.text.len() >= MAX_CHANNELS {
        return Value::Null;
    }
    let id = scene.new_id(Kind::Text);
    scene.guild.text.push(Text::new(id));
    or_null(scene.guild.channel(id))
}

pub(super) fn channel_update(scene: &mut Scene<'_>) -> Value {
    let topic = words(6, scene.random);
    let place = scene.random.usize(..scene.guild.text.len());
    let text = &mut scene.guild.text[place];
    text.topic = Some(topic);
    let id = text.room.id;
    or_null(scene.guild.channel(id))
}

/// Deletes a text channel. The first one stays, since the guild's properties refer to it, and so do channels
/// with a thread or an invite.
pub(super) fn channel_delete(scene: &mut Scene<'_>) -> Value {
    let guild = &mut *scene.guild;
    let Some(place) = one_beyond(1, guild.text.len(), scene.random) else { return Value::Null };
    let id = guild.text[place].room.id;
    let is_used = guild.threads.iter().any(|thread| thread.parent == id)
        || guild.invites.iter().any(|invite| invite.channel == id);
    if is_used {
        return Value::Null;
    }
    let data = guild.channel(id);
    guild.text.remove(place);
    or_null(data)
}

pub(super) fn pin(scene: &mut Scene<'_>) -> Value {
    let place = scene.random.usize(..scene.guild.text.len());
    let text = &mut scene.guild.text[place];
    text.pinned = Some(scene.number);
    let id = text.room.id.to_string();
    scene.in_guild(json!({"channel_id": id, "last_pin_timestamp": ids::timestamp(scene.number)}))
}

/// Creates a public thread, or adds the bot to a private one. Only the first has `newly_created` (GW-266).
pub(super) fn thread_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.threads.len() >= MAX_OTHERS {
        return Value::Null;
    }
    let (owner, parent, private) = (scene.member(), scene.text_channel(), scene.random.bool());
    let thread = Thread::new(scene.new_id(Kind::Thread), scene.number, parent, owner, private);
    let mut data = scene.guild.thread(&thread);
    if private {
        data["member"] = scene.guild.thread_member(&thread);
    } else {
        data["newly_created"] = true.into();
    }
    scene.guild.threads.push(thread);
    data
}

pub(super) fn thread_update(scene: &mut Scene<'_>) -> Value {
    let name = words(2, scene.random);
    let Some(thread) = scene.random.choice(&mut scene.guild.threads) else { return Value::Null };
    thread.name = name;
    let id = thread.room.id;
    or_null(scene.guild.channel(id))
}

pub(super) fn thread_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.threads.len(), scene.random) else { return Value::Null };
    let thread = scene.guild.threads.remove(place);
    let data = scene.guild.thread(&thread);
    scene.in_guild(json!({"id": data["id"], "parent_id": data["parent_id"], "type": data["type"]}))
}

/// Syncs the threads of one channel, or, without `channel_ids`, of the whole guild (GW-267).
pub(super) fn thread_list_sync(scene: &mut Scene<'_>) -> Value {
    let parent = scene.random.bool().then(|| scene.text_channel());
    let guild = &scene.guild;
    let mine = || guild.threads.iter().filter(|thread| parent.is_none_or(|parent| thread.parent == parent));
    let threads: Vec<Value> = mine().map(|thread| guild.thread(thread)).collect();
    let members = mine().filter(|thread| thread.joined).map(|thread| guild.thread_member(thread));
    let mut sync = scene.in_guild(json!({"threads": threads, "members": members.collect::<Vec<_>>()}));
    if let Some(parent) = parent {
        sync["channel_ids"] = json!([parent.to_string()]);
    }
    sync
}

pub(super) fn thread_member(scene: &mut Scene<'_>) -> Value {
    let joined = scene.guild.threads.iter().find(|thread| thread.joined);
    or_null(joined.map(|thread| scene.in_guild(scene.guild.thread_member(thread))))
}

/// Lets the bot join or leave a public thread. The bot would see other members' changes only with
/// GUILD_MEMBERS (GW-182). It does not leave private threads, which it could not see afterwards.
pub(super) fn thread_members(scene: &mut Scene<'_>) -> Value {
    let public: Vec<usize> =
        (0..scene.guild.threads.len()).filter(|place| !scene.guild.threads[*place].private).collect();
    let Some(place) = scene.random.choice(public) else { return Value::Null };
    let thread = &mut scene.guild.threads[place];
    thread.joined ^= true;
    let (guild, thread) = (&scene.guild, &scene.guild.threads[place]);
    let object = guild.thread(thread);
    let (mut added, mut removed) = (json!([]), json!([]));
    if thread.joined {
        let more = json!({"member": guild.member_object(Member::Bot, true), "presence": null});
        added = json!([with(guild.thread_member(thread), more)]);
    } else {
        removed = json!([ids::BOT.to_string()]);
    }
    scene.in_guild(json!({
        "id": object["id"], "member_count": object["member_count"], "added_members": added, "removed_member_ids": removed,
    }))
}

pub(super) fn stage_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.stage.is_some() {
        return Value::Null;
    }
    let stage = Stage { id: scene.new_id(Kind::Other), topic: words(3, scene.random) };
    let data = scene.guild.stage_instance(&stage);
    scene.guild.stage = Some(stage);
    data
}

pub(super) fn stage_update(scene: &mut Scene<'_>) -> Value {
    let Some(stage) = &mut scene.guild.stage else { return Value::Null };
    stage.topic = words(3, scene.random);
    or_null(scene.guild.stage.as_ref().map(|stage| scene.guild.stage_instance(stage)))
}

pub(super) fn stage_delete(scene: &mut Scene<'_>) -> Value {
    let ended = scene.guild.stage.take();
    or_null(ended.map(|stage| scene.guild.stage_instance(&stage)))
}

pub(super) fn invite_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.invites.len() >= MAX_OTHERS {
        return Value::Null;
    }
    let invite = Invite { code: format!("duck{}", scene.number), channel: scene.text_channel() };
    let data = scene.guild.invite(&invite);
    scene.guild.invites.push(invite);
    data
}

pub(super) fn invite_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.invites.len(), scene.random) else { return Value::Null };
    let invite = scene.guild.invites.remove(place);
    scene.in_guild(json!({"code": invite.code, "channel_id": invite.channel.to_string()}))
}
