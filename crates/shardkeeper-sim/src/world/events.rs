//! What can happen, from one table: the event, how often it comes, where, and what it does to the guild.
//!
//! An event changes the guild first, and its data is told from the guild as it is then: so no event contradicts another
//! one, a GUILD_CREATE or REST. An event that has nothing to happen to does not happen: there is no deletion of a channel
//! that was never created.

use fastrand::Rng;
use serde_json::{Value, json};

use super::account::{Account, direct_channel};
use super::guild::{
    Guild, Invite, Member, Role, Rule, Scheduled, Sound, Stage, Text, Thread, Voice, extend, without,
};
use super::ids::{self, Kind};
use super::message::{ANSWERS, EMOJIS, MAX_REACTIONS, Message, Reaction};
use super::{bot_user, words};

/// How many of a kind a guild may have; of what it begins with, it may keep more.
const MAX_CHANNELS: usize = 12;
const MAX_ROLES: usize = 12;
const MAX_EXPRESSIONS: usize = 6;
const MAX_OTHERS: usize = 4;
/// Members who have left, at most.
const MAX_ABSENT: usize = 8;
const MAX_BANNED: usize = 2;
/// Members in the first voice channel, at most.
const MAX_IN_VOICE: usize = 16;
/// A guild does not lose its last members.
const MIN_MEMBERS: u32 = 3;

/// Where something happens; it decides who hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Guild,
    /// Without a guild: only shard 0 hears of it (GW-228).
    Elsewhere,
}

/// Where an event happens.
pub(super) struct Scene<'a> {
    pub(super) guild: &'a mut Guild,
    pub(super) account: &'a mut Account,
    /// The bot's application commands, as it registered them.
    pub(super) commands: &'a [Value],
    pub(super) random: &'a mut Rng,
    /// How many things have happened before.
    pub(super) number: u64,
}

/// Makes the event happen, and returns its data; null when it cannot happen now.
pub(super) type Make = fn(&mut Scene<'_>) -> Value;

/// The event, its weight in the mix of a busy bot, its place, its data.
pub(super) const EVENTS: &[(&str, u32, Place, Make)] = {
    use Place::{Elsewhere, Guild};
    &[
        ("MESSAGE_CREATE", 340, Guild, message),
        ("PRESENCE_UPDATE", 240, Guild, presence),
        ("TYPING_START", 145, Guild, typing),
        ("MESSAGE_REACTION_ADD", 95, Guild, reaction_add),
        ("VOICE_STATE_UPDATE", 38, Guild, voice_state),
        ("GUILD_MEMBER_UPDATE", 38, Guild, member_update),
        ("MESSAGE_UPDATE", 28, Guild, message_update),
        ("MESSAGE_DELETE", 18, Guild, message_delete),
        ("CHANNEL_UPDATE", 8, Guild, channel_update),
        ("APPLICATION_COMMAND_PERMISSIONS_UPDATE", 1, Guild, command_permissions),
        ("AUTO_MODERATION_RULE_CREATE", 1, Guild, rule_create),
        ("AUTO_MODERATION_RULE_UPDATE", 1, Guild, rule_update),
        ("AUTO_MODERATION_RULE_DELETE", 1, Guild, rule_delete),
        ("AUTO_MODERATION_ACTION_EXECUTION", 1, Guild, moderation_action),
        ("CHANNEL_CREATE", 1, Guild, channel_create),
        ("CHANNEL_DELETE", 1, Guild, channel_delete),
        ("CHANNEL_PINS_UPDATE", 1, Guild, pin),
        ("VOICE_CHANNEL_STATUS_UPDATE", 1, Guild, voice_status),
        ("VOICE_CHANNEL_START_TIME_UPDATE", 1, Guild, voice_start),
        ("THREAD_CREATE", 2, Guild, thread_create),
        ("THREAD_UPDATE", 2, Guild, thread_update),
        ("THREAD_DELETE", 1, Guild, thread_delete),
        ("THREAD_LIST_SYNC", 1, Guild, thread_list_sync),
        ("THREAD_MEMBER_UPDATE", 1, Guild, thread_member),
        ("THREAD_MEMBERS_UPDATE", 1, Guild, thread_members),
        ("GUILD_UPDATE", 1, Guild, guild_update),
        ("GUILD_AUDIT_LOG_ENTRY_CREATE", 2, Guild, audit_log_entry),
        ("GUILD_BAN_ADD", 1, Guild, ban),
        ("GUILD_BAN_REMOVE", 1, Guild, unban),
        ("GUILD_EMOJIS_UPDATE", 1, Guild, emojis),
        ("GUILD_STICKERS_UPDATE", 1, Guild, stickers),
        ("GUILD_INTEGRATIONS_UPDATE", 1, Guild, |scene| scene.in_guild(json!({}))),
        ("INTEGRATION_CREATE", 1, Guild, integration_create),
        ("INTEGRATION_UPDATE", 1, Guild, integration_update),
        ("INTEGRATION_DELETE", 1, Guild, integration_delete),
        ("GUILD_MEMBER_ADD", 2, Guild, member_add),
        ("GUILD_MEMBER_REMOVE", 2, Guild, member_remove),
        ("GUILD_ROLE_CREATE", 1, Guild, role_create),
        ("GUILD_ROLE_UPDATE", 1, Guild, role_update),
        ("GUILD_ROLE_DELETE", 1, Guild, role_delete),
        ("GUILD_SCHEDULED_EVENT_CREATE", 1, Guild, scheduled_create),
        ("GUILD_SCHEDULED_EVENT_UPDATE", 1, Guild, scheduled_update),
        ("GUILD_SCHEDULED_EVENT_DELETE", 1, Guild, scheduled_delete),
        ("GUILD_SCHEDULED_EVENT_USER_ADD", 1, Guild, scheduled_user_add),
        ("GUILD_SCHEDULED_EVENT_USER_REMOVE", 1, Guild, scheduled_user_remove),
        ("GUILD_SOUNDBOARD_SOUND_CREATE", 1, Guild, sound_create),
        ("GUILD_SOUNDBOARD_SOUND_UPDATE", 1, Guild, sound_update),
        ("GUILD_SOUNDBOARD_SOUND_DELETE", 1, Guild, sound_delete),
        ("GUILD_SOUNDBOARD_SOUNDS_UPDATE", 1, Guild, sounds_update),
        ("INTERACTION_CREATE", 6, Guild, interaction),
        ("INVITE_CREATE", 1, Guild, invite_create),
        ("INVITE_DELETE", 1, Guild, invite_delete),
        ("MESSAGE_DELETE_BULK", 1, Guild, message_delete_bulk),
        ("MESSAGE_REACTION_REMOVE", 6, Guild, reaction_remove),
        ("MESSAGE_REACTION_REMOVE_ALL", 1, Guild, reaction_remove_all),
        ("MESSAGE_REACTION_REMOVE_EMOJI", 1, Guild, reaction_remove_emoji),
        ("MESSAGE_POLL_VOTE_ADD", 1, Guild, vote_add),
        ("MESSAGE_POLL_VOTE_REMOVE", 1, Guild, vote_remove),
        ("STAGE_INSTANCE_CREATE", 1, Guild, stage_create),
        ("STAGE_INSTANCE_UPDATE", 1, Guild, stage_update),
        ("STAGE_INSTANCE_DELETE", 1, Guild, stage_delete),
        ("VOICE_SERVER_UPDATE", 1, Guild, voice_server_update),
        ("VOICE_CHANNEL_EFFECT_SEND", 1, Guild, voice_effect),
        ("WEBHOOKS_UPDATE", 1, Guild, |scene| {
            let channel = scene.text_channel();
            scene.in_guild(json!({"channel_id": channel.to_string()}))
        }),
        // Undocumented, and seen by bots all the same (GW-273).
        ("GUILD_JOIN_REQUEST_UPDATE", 1, Guild, |scene| scene.in_guild(json!({"status": "SUBMITTED"}))),
        ("GUILD_APPLICATION_COMMAND_INDEX_UPDATE", 1, Guild, |scene| scene.in_guild(json!({"version": 1}))),
        ("MESSAGE_CREATE", 4, Elsewhere, direct_message),
        ("TYPING_START", 2, Elsewhere, direct_typing),
        ("ENTITLEMENT_CREATE", 1, Elsewhere, |scene| {
            let user = scene.member();
            scene.account.create_entitlement(scene.number, user)
        }),
        ("ENTITLEMENT_UPDATE", 1, Elsewhere, |scene| scene.account.end_entitlement()),
        ("ENTITLEMENT_DELETE", 1, Elsewhere, |scene| scene.account.delete_entitlement(scene.random)),
        ("SUBSCRIPTION_CREATE", 1, Elsewhere, |scene| scene.account.create_subscription(scene.number)),
        ("SUBSCRIPTION_UPDATE", 1, Elsewhere, |scene| scene.account.update_subscription(scene.random)),
        ("SUBSCRIPTION_DELETE", 1, Elsewhere, |scene| scene.account.delete_subscription(scene.random)),
        ("USER_UPDATE", 1, Elsewhere, |_| bot_user()),
    ]
};

impl Scene<'_> {
    fn member(&mut self) -> Member {
        self.guild.any_human(self.random)
    }

    fn new_id(&self, kind: Kind) -> u64 {
        ids::made_by(self.number, kind)
    }

    fn in_guild(&self, data: Value) -> Value {
        with(data, json!({"guild_id": self.guild.id.to_string()}))
    }

    /// A channel or thread with messages.
    fn channel(&mut self) -> u64 {
        let count = self.guild.rooms().count();
        let place = self.random.usize(..count);
        self.guild.rooms().nth(place).map_or(0, |room| room.id)
    }

    fn text_channel(&mut self) -> u64 {
        self.guild.text[self.random.usize(..self.guild.text.len())].room.id
    }

    /// A message of this guild for which something holds: the channel, and its place there.
    fn any_message(&mut self, holds: impl Fn(&Guild, &Message) -> bool) -> Option<(u64, usize)> {
        let count = self.guild.rooms().count();
        let first = self.random.usize(..count);
        let rooms = self.guild.rooms().skip(first).chain(self.guild.rooms().take(first));
        for room in rooms {
            let messages = room.messages.len();
            let first = if messages > 0 { self.random.usize(..messages) } else { 0 };
            let mut places = (first..messages).chain(0..first);
            if let Some(place) = places.find(|place| holds(self.guild, &room.messages[*place])) {
                return Some((room.id, place));
            }
        }
        None
    }

    /// The message there, which `any_message` has found.
    fn at(&mut self, channel: u64, place: usize) -> Option<&mut Message> {
        self.guild.room_mut(channel)?.messages.get_mut(place)
    }

    /// The fields that name a message.
    fn of_message(&self, channel: u64, message: u64, data: Value) -> Value {
        let more = json!({"channel_id": channel.to_string(), "message_id": message.to_string()});
        with(self.in_guild(data), more)
    }
}

/// GW-202: never the same token twice.
pub(crate) fn voice_server(guild: u64, number: u64) -> Value {
    json!({
        "token": format!("voice-{number:08x}"), "guild_id": guild.to_string(),
        "endpoint": "rotterdam1234.sim.invalid:443",
    })
}

fn with(mut data: Value, more: Value) -> Value {
    extend(&mut data, more);
    data
}

/// The place of something to take away, if there is any beyond the first `kept`.
fn one_beyond(kept: usize, count: usize, random: &mut Rng) -> Option<usize> {
    (count > kept).then(|| random.usize(kept..count))
}

fn or_null(data: Option<Value>) -> Value {
    data.unwrap_or_default()
}

fn message(scene: &mut Scene<'_>) -> Value {
    let (author, channel) = (scene.member(), scene.channel());
    let message = Message::new(scene.number, author, scene.random);
    scene.guild.say(channel, message)
}

/// A full message; its `tts` is always false (GW-264). Only those who are there edit theirs.
fn message_update(scene: &mut Scene<'_>) -> Value {
    let by_human =
        |guild: &Guild, message: &Message| message.author != Member::Bot && guild.has(message.author);
    or_null(scene.any_message(by_human).and_then(|(channel, place)| {
        let number = scene.number;
        scene.at(channel, place)?.edit(number, None);
        Some(scene.guild.message(channel, scene.guild.room(channel)?.messages.get(place)?))
    }))
}

fn message_delete(scene: &mut Scene<'_>) -> Value {
    or_null(scene.any_message(|_, _| true).and_then(|(channel, place)| {
        let message = scene.guild.room_mut(channel)?.messages.remove(place)?;
        Some(scene.in_guild(json!({"id": message.id.to_string(), "channel_id": channel.to_string()})))
    }))
}

fn message_delete_bulk(scene: &mut Scene<'_>) -> Value {
    let Some(channel) = scene.guild.rooms().find(|room| room.messages.len() >= 2).map(|room| room.id) else {
        return Value::Null;
    };
    let Some(room) = scene.guild.room_mut(channel) else { return Value::Null };
    let count = scene.random.usize(2..4).min(room.messages.len());
    let ids: Vec<String> = room.messages.drain(..count).map(|message| message.id.to_string()).collect();
    scene.in_guild(json!({"ids": ids, "channel_id": channel.to_string()}))
}

fn reaction_add(scene: &mut Scene<'_>) -> Value {
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

/// What a MESSAGE_REACTION_ADD has beside the ids of its message.
pub(crate) fn reaction_added(guild: &Guild, reaction: &Reaction, author: Member) -> Value {
    let more = json!({
        "member": guild.member_object(reaction.user, true), "message_author_id": author.id().to_string(),
    });
    with(reaction_told(reaction), more)
}

/// What a MESSAGE_REACTION_REMOVE has beside the ids of its message.
pub(crate) fn reaction_told(reaction: &Reaction) -> Value {
    json!({
        "user_id": reaction.user.id().to_string(), "emoji": Reaction::emoji(&reaction.emoji), "burst": false, "type": 0,
    })
}

/// What a MESSAGE_REACTION_REMOVE_EMOJI has beside the ids of its message. `burst` is documented for its siblings, and
/// some models demand it here too.
pub(crate) fn emoji_cleared(emoji: &str) -> Value {
    json!({"emoji": Reaction::emoji(emoji), "burst": false, "type": 0})
}

fn reacted(_: &Guild, message: &Message) -> bool {
    !message.reactions.is_empty()
}

fn reaction_remove(scene: &mut Scene<'_>) -> Value {
    or_null(scene.any_message(reacted).and_then(|(channel, place)| {
        let message = scene.at(channel, place)?;
        let (id, reaction) = (message.id, message.reactions.pop()?);
        Some(scene.of_message(channel, id, reaction_told(&reaction)))
    }))
}

fn reaction_remove_all(scene: &mut Scene<'_>) -> Value {
    or_null(scene.any_message(reacted).and_then(|(channel, place)| {
        let message = scene.at(channel, place)?;
        message.reactions.clear();
        let id = message.id;
        Some(scene.of_message(channel, id, json!({})))
    }))
}

fn reaction_remove_emoji(scene: &mut Scene<'_>) -> Value {
    or_null(scene.any_message(reacted).and_then(|(channel, place)| {
        let message = scene.at(channel, place)?;
        let emoji = message.reactions.first()?.emoji.clone();
        message.reactions.retain(|reaction| reaction.emoji != emoji);
        let id = message.id;
        Some(scene.of_message(channel, id, emoji_cleared(&emoji)))
    }))
}

fn vote_add(scene: &mut Scene<'_>) -> Value {
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

fn vote_remove(scene: &mut Scene<'_>) -> Value {
    or_null(scene.any_message(|_, message| !message.votes.is_empty()).and_then(|(channel, place)| {
        let message = scene.at(channel, place)?;
        let (id, (user, answer)) = (message.id, message.votes.pop()?);
        Some(scene.of_message(channel, id, json!({"user_id": user.id().to_string(), "answer_id": answer})))
    }))
}

fn presence(scene: &mut Scene<'_>) -> Value {
    let member = scene.guild.change_presence(scene.random);
    scene.guild.presence(member)
}

fn typing(scene: &mut Scene<'_>) -> Value {
    let (member, channel) = (scene.member(), scene.channel());
    typed(scene.guild, member, channel, scene.number)
}

/// The data of a TYPING_START in a guild.
pub(crate) fn typed(guild: &Guild, member: Member, channel: u64, number: u64) -> Value {
    json!({
        "guild_id": guild.id.to_string(), "channel_id": channel.to_string(), "user_id": member.id().to_string(),
        "timestamp": ids::seconds(number), "member": guild.member_object(member, true),
    })
}

/// Somebody joins or leaves the first voice channel.
fn voice_state(scene: &mut Scene<'_>) -> Value {
    let (mut member, channel) = (scene.member(), scene.guild.voice_channels[0]);
    let inside: Vec<u64> = scene.guild.voice.keys().copied().filter(|user| *user != ids::BOT).collect();
    // The larger the guild, the less likely somebody would ever leave.
    if inside.len() >= MAX_IN_VOICE || scene.random.bool() {
        member = scene.random.choice(&inside).and_then(|user| scene.guild.member(*user)).unwrap_or(member);
    }
    let voice = Voice { channel, self_mute: false, self_deaf: true };
    let to = (!scene.guild.voice.contains_key(&member.id())).then_some(voice);
    scene.guild.move_voice(member, to, ids::seconds(scene.number));
    scene.guild.voice_state(member, to)
}

fn voice_status(scene: &mut Scene<'_>) -> Value {
    let status = words(2, scene.random);
    let channel = scene.guild.voice_channels[0].to_string();
    let data = scene.in_guild(json!({"id": channel, "status": status}));
    scene.guild.voice_status = Some(status);
    data
}

fn voice_start(scene: &mut Scene<'_>) -> Value {
    let channel = scene.guild.voice_channels[0];
    let start = scene.guild.voice_start(channel);
    scene.in_guild(json!({"id": channel.to_string(), "voice_start_time": start}))
}

/// When the bot is connected there, its voice server moves now and then.
fn voice_server_update(scene: &mut Scene<'_>) -> Value {
    match scene.guild.voice.contains_key(&ids::BOT) {
        true => voice_server(scene.guild.id, scene.number),
        false => Value::Null,
    }
}

/// Only for a channel that the bot is in. The id of a default sound is an integer, of others a snowflake (GW-271).
fn voice_effect(scene: &mut Scene<'_>) -> Value {
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

fn member_update(scene: &mut Scene<'_>) -> Value {
    let member = scene.guild.change_member(scene.number, scene.random);
    scene.in_guild(scene.guild.member_object(member, true))
}

/// One who was away, or has never been there; or, when there is none, one who is there (GW-263).
fn member_add(scene: &mut Scene<'_>) -> Value {
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

/// Not the owner, and not from a voice channel.
fn member_remove(scene: &mut Scene<'_>) -> Value {
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

/// Of somebody who is not there: a member would be removed with it.
fn ban(scene: &mut Scene<'_>) -> Value {
    let guild = &mut *scene.guild;
    let stranger = guild.absent.difference(&guild.banned).next().copied();
    or_null(stranger.filter(|_| guild.banned.len() < MAX_BANNED).map(|index| {
        scene.guild.banned.insert(index);
        scene.in_guild(json!({"user": Member::Human(index).user()}))
    }))
}

fn unban(scene: &mut Scene<'_>) -> Value {
    let pardoned = scene.guild.banned.pop_first();
    or_null(pardoned.map(|index| scene.in_guild(json!({"user": Member::Human(index).user()}))))
}

fn channel_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.text.len() >= MAX_CHANNELS {
        return Value::Null;
    }
    let id = scene.new_id(Kind::Text);
    scene.guild.text.push(Text::new(id));
    or_null(scene.guild.channel(id))
}

fn channel_update(scene: &mut Scene<'_>) -> Value {
    let topic = words(6, scene.random);
    let place = scene.random.usize(..scene.guild.text.len());
    let text = &mut scene.guild.text[place];
    text.topic = Some(topic);
    let id = text.room.id;
    or_null(scene.guild.channel(id))
}

/// Not the first one, to which the guild refers, and none that has something in it.
fn channel_delete(scene: &mut Scene<'_>) -> Value {
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

fn pin(scene: &mut Scene<'_>) -> Value {
    let place = scene.random.usize(..scene.guild.text.len());
    let text = &mut scene.guild.text[place];
    text.pinned = Some(scene.number);
    let id = text.room.id.to_string();
    scene.in_guild(json!({"channel_id": id, "last_pin_timestamp": ids::timestamp(scene.number)}))
}

/// A new one; or a private one to which the bot was added, which has no such mark (GW-266).
fn thread_create(scene: &mut Scene<'_>) -> Value {
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

fn thread_update(scene: &mut Scene<'_>) -> Value {
    let name = words(2, scene.random);
    let Some(thread) = scene.random.choice(&mut scene.guild.threads) else { return Value::Null };
    thread.name = name;
    let id = thread.room.id;
    or_null(scene.guild.channel(id))
}

fn thread_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.threads.len(), scene.random) else { return Value::Null };
    let thread = scene.guild.threads.remove(place);
    let data = scene.guild.thread(&thread);
    scene.in_guild(json!({"id": data["id"], "parent_id": data["parent_id"], "type": data["type"]}))
}

/// Without `channel_ids` it is about the whole guild (GW-267).
fn thread_list_sync(scene: &mut Scene<'_>) -> Value {
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

fn thread_member(scene: &mut Scene<'_>) -> Value {
    let joined = scene.guild.threads.iter().find(|thread| thread.joined);
    or_null(joined.map(|thread| scene.in_guild(scene.guild.thread_member(thread))))
}

/// The bot comes or goes: of others it would hear only with GUILD_MEMBERS (GW-182). It stays in private ones, which it
/// would not see any more.
fn thread_members(scene: &mut Scene<'_>) -> Value {
    let public: Vec<usize> =
        (0..scene.guild.threads.len()).filter(|place| !scene.guild.threads[*place].private).collect();
    let Some(place) = scene.random.choice(public) else { return Value::Null };
    let thread = &mut scene.guild.threads[place];
    thread.joined ^= true;
    let (guild, thread) = (&scene.guild, &scene.guild.threads[place]);
    let told = guild.thread(thread);
    let (mut added, mut removed) = (json!([]), json!([]));
    if thread.joined {
        let more = json!({"member": guild.member_object(Member::Bot, true), "presence": null});
        added = json!([with(guild.thread_member(thread), more)]);
    } else {
        removed = json!([ids::BOT.to_string()]);
    }
    scene.in_guild(json!({
        "id": told["id"], "member_count": told["member_count"], "added_members": added, "removed_member_ids": removed,
    }))
}

fn guild_update(scene: &mut Scene<'_>) -> Value {
    scene.guild.description = Some(words(5, scene.random));
    scene.guild.properties()
}

fn audit_log_entry(scene: &mut Scene<'_>) -> Value {
    let target = scene.member().id().to_string();
    scene.in_guild(json!({
        "id": scene.new_id(Kind::Other).to_string(), "target_id": target,
        "user_id": scene.guild.owner().id().to_string(), "action_type": 24,
        "changes": [{"key": "nick", "old_value": "duck", "new_value": "drake"}], "reason": "because",
    }))
}

/// One more or one less.
fn vary(ids: &mut Vec<u64>, new: u64, random: &mut Rng) {
    if ids.len() >= MAX_EXPRESSIONS || (ids.len() > 1 && random.bool()) {
        ids.remove(random.usize(..ids.len()));
    } else {
        ids.push(new);
    }
}

fn emojis(scene: &mut Scene<'_>) -> Value {
    let new = scene.new_id(Kind::Emoji);
    vary(&mut scene.guild.emojis, new, scene.random);
    scene.in_guild(json!({"emojis": scene.guild.emoji_objects()}))
}

fn stickers(scene: &mut Scene<'_>) -> Value {
    let new = scene.new_id(Kind::Sticker);
    vary(&mut scene.guild.stickers, new, scene.random);
    scene.in_guild(json!({"stickers": scene.guild.sticker_objects()}))
}

fn integration_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.integrations.len() > MAX_OTHERS {
        return Value::Null;
    }
    let id = scene.new_id(Kind::Other);
    scene.guild.integrations.push(id);
    scene.guild.integration(id)
}

fn integration_update(scene: &mut Scene<'_>) -> Value {
    let any = scene.random.choice(&scene.guild.integrations).copied();
    or_null(any.map(|id| scene.guild.integration(id)))
}

fn integration_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(1, scene.guild.integrations.len(), scene.random) else { return Value::Null };
    let id = scene.guild.integrations.remove(place).to_string();
    scene.in_guild(json!({"id": id, "application_id": id}))
}

fn role_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.roles.len() >= MAX_ROLES {
        return Value::Null;
    }
    let role = Role { id: scene.new_id(Kind::Role), color: 0 };
    let data = scene.in_guild(json!({"role": scene.guild.role(&role)}));
    scene.guild.roles.push(role);
    data
}

fn role_update(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(1, scene.guild.roles.len(), scene.random) else { return Value::Null };
    scene.guild.roles[place].color = scene.random.u32(..1 << 24);
    scene.in_guild(json!({"role": scene.guild.role(&scene.guild.roles[place])}))
}

/// Not the bot's own.
fn role_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(1, scene.guild.roles.len(), scene.random) else { return Value::Null };
    let id = scene.guild.delete_role(place);
    scene.in_guild(json!({"role_id": id.to_string()}))
}

fn scheduled_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.scheduled.len() >= MAX_OTHERS {
        return Value::Null;
    }
    let event = Scheduled {
        id: scene.new_id(Kind::Other),
        description: None,
        users: std::collections::BTreeSet::new(),
    };
    let data = scene.guild.scheduled_event(&event);
    scene.guild.scheduled.push(event);
    data
}

fn scheduled_update(scene: &mut Scene<'_>) -> Value {
    let description = words(4, scene.random);
    let Some(place) = one_beyond(0, scene.guild.scheduled.len(), scene.random) else { return Value::Null };
    scene.guild.scheduled[place].description = Some(description);
    scene.guild.scheduled_event(&scene.guild.scheduled[place])
}

fn scheduled_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.scheduled.len(), scene.random) else { return Value::Null };
    let event = scene.guild.scheduled.remove(place);
    scene.guild.scheduled_event(&event)
}

fn scheduled_user_add(scene: &mut Scene<'_>) -> Value {
    let user = scene.member().id();
    let free = |event: &&mut Scheduled| event.users.len() < MAX_REACTIONS && !event.users.contains(&user);
    let Some(event) = scene.guild.scheduled.iter_mut().find(free) else { return Value::Null };
    event.users.insert(user);
    let id = event.id.to_string();
    scene.in_guild(json!({"guild_scheduled_event_id": id, "user_id": user.to_string()}))
}

fn scheduled_user_remove(scene: &mut Scene<'_>) -> Value {
    let left = scene.guild.scheduled.iter_mut().find_map(|event| Some((event.id, event.users.pop_first()?)));
    or_null(left.map(|(id, user)| {
        scene.in_guild(json!({"guild_scheduled_event_id": id.to_string(), "user_id": user.to_string()}))
    }))
}

/// A sound as its own events tell it: with the one who made it.
fn sound(guild: &Guild, sound: &Sound) -> Value {
    with(guild.sound(sound), json!({"user": guild.owner().user()}))
}

fn sound_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.sounds.len() >= MAX_EXPRESSIONS {
        return Value::Null;
    }
    let new = Sound { id: scene.new_id(Kind::Sound), quarters: 4 };
    let data = sound(scene.guild, &new);
    scene.guild.sounds.push(new);
    data
}

fn sound_update(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.sounds.len(), scene.random) else { return Value::Null };
    scene.guild.sounds[place].quarters = scene.random.u8(1..=4);
    sound(scene.guild, &scene.guild.sounds[place])
}

fn sound_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(1, scene.guild.sounds.len(), scene.random) else { return Value::Null };
    let gone = scene.guild.sounds.remove(place);
    scene.in_guild(json!({"sound_id": gone.id.to_string()}))
}

fn sounds_update(scene: &mut Scene<'_>) -> Value {
    for sound in &mut scene.guild.sounds {
        sound.quarters = scene.random.u8(1..=4);
    }
    scene.in_guild(json!({"soundboard_sounds": scene.guild.sound_objects()}))
}

fn stage_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.stage.is_some() {
        return Value::Null;
    }
    let stage = Stage { id: scene.new_id(Kind::Other), topic: words(3, scene.random) };
    let data = scene.guild.stage_instance(&stage);
    scene.guild.stage = Some(stage);
    data
}

fn stage_update(scene: &mut Scene<'_>) -> Value {
    let Some(stage) = &mut scene.guild.stage else { return Value::Null };
    stage.topic = words(3, scene.random);
    or_null(scene.guild.stage.as_ref().map(|stage| scene.guild.stage_instance(stage)))
}

fn stage_delete(scene: &mut Scene<'_>) -> Value {
    let ended = scene.guild.stage.take();
    or_null(ended.map(|stage| scene.guild.stage_instance(&stage)))
}

fn invite_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.invites.len() >= MAX_OTHERS {
        return Value::Null;
    }
    let invite = Invite { code: format!("duck{}", scene.number), channel: scene.text_channel() };
    let data = scene.guild.invite(&invite);
    scene.guild.invites.push(invite);
    data
}

fn invite_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.invites.len(), scene.random) else { return Value::Null };
    let invite = scene.guild.invites.remove(place);
    scene.in_guild(json!({"code": invite.code, "channel_id": invite.channel.to_string()}))
}

fn rule_create(scene: &mut Scene<'_>) -> Value {
    if scene.guild.rules.len() >= MAX_OTHERS {
        return Value::Null;
    }
    let rule = Rule { id: scene.new_id(Kind::Other), enabled: true };
    let data = scene.guild.rule(&rule);
    scene.guild.rules.push(rule);
    data
}

fn rule_update(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.rules.len(), scene.random) else { return Value::Null };
    scene.guild.rules[place].enabled ^= true;
    scene.guild.rule(&scene.guild.rules[place])
}

fn rule_delete(scene: &mut Scene<'_>) -> Value {
    let Some(place) = one_beyond(0, scene.guild.rules.len(), scene.random) else { return Value::Null };
    let rule = scene.guild.rules.remove(place);
    scene.guild.rule(&rule)
}

fn moderation_action(scene: &mut Scene<'_>) -> Value {
    let Some(rule) = scene.guild.rules.iter().find(|rule| rule.enabled).map(|rule| rule.id) else {
        return Value::Null;
    };
    let (user, channel) = (scene.member().id().to_string(), scene.text_channel().to_string());
    scene.in_guild(json!({
        "action": {"type": 1, "metadata": {}}, "rule_id": rule.to_string(), "rule_trigger_type": 1, "user_id": user,
        "channel_id": channel, "content": "spam and ham", "matched_keyword": "spam", "matched_content": "spam",
    }))
}

/// For all commands of the bot: the id is the application's.
fn command_permissions(scene: &mut Scene<'_>) -> Value {
    let role = scene.guild.roles[0].id.to_string();
    scene.in_guild(json!({
        "id": ids::BOT.to_string(), "application_id": ids::BOT.to_string(),
        "permissions": [{"id": role, "type": 1, "permission": true}],
    }))
}

/// Somebody calls a command that the bot has, as long as it can be called with no options; else one called `ping`.
fn interaction(scene: &mut Scene<'_>) -> Value {
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

fn direct_message(scene: &mut Scene<'_>) -> Value {
    let author = scene.member();
    let Some(channel) = direct_channel(author) else { return Value::Null };
    let message = Message::new(scene.number, author, scene.random);
    let data = with(without(message.object(channel), "poll"), json!({"channel_type": 1}));
    scene.account.direct(channel).push(message);
    data
}

fn direct_typing(scene: &mut Scene<'_>) -> Value {
    let member = scene.member();
    or_null(direct_channel(member).map(|channel| {
        json!({
            "channel_id": channel.to_string(), "user_id": member.id().to_string(),
            "timestamp": ids::seconds(scene.number),
        })
    }))
}
