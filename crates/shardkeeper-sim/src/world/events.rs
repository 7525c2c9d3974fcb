//! What can happen, from one table: the event, how often it comes, where, and the data that it carries.

use fastrand::Rng;
use serde_json::{Value, json};

use super::guild::{Guild, JOINED, Member, extend};
use super::ids::{self, Kind};
use super::{bot_user, words};

/// Where something happens; it decides who hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Guild,
    /// Without a guild: shard 0 alone hears of it (GW-228).
    Elsewhere,
}

/// What an event's data is made from.
pub(super) struct Scene<'a> {
    pub(super) guild: &'a mut Guild,
    pub(super) random: &'a mut Rng,
    /// How many things have happened before.
    pub(super) number: u64,
}

type Make = fn(&mut Scene<'_>) -> Value;

/// The event, its weight in the mix of a busy bot, its place, its data.
pub(super) const EVENTS: &[(&str, u32, Place, Make)] = {
    use Place::{Elsewhere, Guild};
    &[
        ("MESSAGE_CREATE", 340, Guild, |scene| scene.message()),
        ("PRESENCE_UPDATE", 240, Guild, presence),
        ("TYPING_START", 145, Guild, typing),
        ("MESSAGE_REACTION_ADD", 95, Guild, reaction_add),
        ("VOICE_STATE_UPDATE", 38, Guild, voice_state),
        ("GUILD_MEMBER_UPDATE", 38, Guild, member_with_guild),
        ("MESSAGE_UPDATE", 28, Guild, message_update),
        ("MESSAGE_DELETE", 18, Guild, |scene| scene.in_channel(json!({"id": scene.message_id()}))),
        ("CHANNEL_UPDATE", 8, Guild, channel_update),
        ("APPLICATION_COMMAND_PERMISSIONS_UPDATE", 1, Guild, command_permissions),
        ("AUTO_MODERATION_RULE_CREATE", 1, Guild, moderation_rule),
        ("AUTO_MODERATION_RULE_UPDATE", 1, Guild, moderation_rule),
        ("AUTO_MODERATION_RULE_DELETE", 1, Guild, moderation_rule),
        ("AUTO_MODERATION_ACTION_EXECUTION", 1, Guild, moderation_action),
        ("CHANNEL_CREATE", 1, Guild, channel_update),
        ("CHANNEL_DELETE", 1, Guild, channel_update),
        ("CHANNEL_PINS_UPDATE", 1, Guild, |scene| scene.in_channel(json!({"last_pin_timestamp": JOINED}))),
        ("VOICE_CHANNEL_STATUS_UPDATE", 1, Guild, |scene| {
            scene.in_voice_channel(json!({"status": "standup"}))
        }),
        ("VOICE_CHANNEL_START_TIME_UPDATE", 1, Guild, |scene| {
            scene.in_voice_channel(json!({"voice_start_time": scene.seconds()}))
        }),
        ("THREAD_CREATE", 2, Guild, thread_create),
        ("THREAD_UPDATE", 2, Guild, |scene| scene.thread()),
        ("THREAD_DELETE", 1, Guild, thread_delete),
        ("THREAD_LIST_SYNC", 1, Guild, thread_list_sync),
        ("THREAD_MEMBER_UPDATE", 1, Guild, |scene| scene.in_guild(scene.thread_member(Member::Bot))),
        ("THREAD_MEMBERS_UPDATE", 1, Guild, thread_members),
        ("GUILD_UPDATE", 1, Guild, |scene| scene.guild.properties()),
        ("GUILD_AUDIT_LOG_ENTRY_CREATE", 2, Guild, audit_log_entry),
        ("GUILD_BAN_ADD", 1, Guild, |scene| scene.of_user()),
        ("GUILD_BAN_REMOVE", 1, Guild, |scene| scene.of_user()),
        ("GUILD_EMOJIS_UPDATE", 1, Guild, |scene| scene.in_guild(json!({"emojis": [scene.guild.emoji()]}))),
        ("GUILD_STICKERS_UPDATE", 1, Guild, |scene| {
            scene.in_guild(json!({"stickers": [scene.guild.sticker()]}))
        }),
        ("GUILD_INTEGRATIONS_UPDATE", 1, Guild, |scene| scene.in_guild(json!({}))),
        ("INTEGRATION_CREATE", 1, Guild, integration),
        ("INTEGRATION_UPDATE", 1, Guild, integration),
        ("INTEGRATION_DELETE", 1, Guild, |scene| {
            scene.in_guild(json!({"id": scene.new_id(), "application_id": ids::BOT.to_string()}))
        }),
        ("GUILD_MEMBER_ADD", 2, Guild, member_with_guild),
        ("GUILD_MEMBER_REMOVE", 2, Guild, |scene| scene.of_user()),
        ("GUILD_ROLE_CREATE", 1, Guild, role),
        ("GUILD_ROLE_UPDATE", 1, Guild, role),
        ("GUILD_ROLE_DELETE", 1, Guild, |scene| scene.in_guild(json!({"role_id": scene.new_id()}))),
        ("GUILD_SCHEDULED_EVENT_CREATE", 1, Guild, scheduled_event),
        ("GUILD_SCHEDULED_EVENT_UPDATE", 1, Guild, scheduled_event),
        ("GUILD_SCHEDULED_EVENT_DELETE", 1, Guild, scheduled_event),
        ("GUILD_SCHEDULED_EVENT_USER_ADD", 1, Guild, scheduled_event_user),
        ("GUILD_SCHEDULED_EVENT_USER_REMOVE", 1, Guild, scheduled_event_user),
        ("GUILD_SOUNDBOARD_SOUND_CREATE", 1, Guild, sound),
        ("GUILD_SOUNDBOARD_SOUND_UPDATE", 1, Guild, sound),
        ("GUILD_SOUNDBOARD_SOUND_DELETE", 1, Guild, |scene| {
            scene.in_guild(json!({"sound_id": scene.new_id()}))
        }),
        ("GUILD_SOUNDBOARD_SOUNDS_UPDATE", 1, Guild, |scene| {
            scene.in_guild(json!({"soundboard_sounds": [scene.guild.sound()]}))
        }),
        ("INTERACTION_CREATE", 6, Guild, interaction),
        ("INVITE_CREATE", 1, Guild, invite),
        ("INVITE_DELETE", 1, Guild, |scene| scene.in_channel(json!({"code": "duckling"}))),
        ("MESSAGE_DELETE_BULK", 1, Guild, |scene| {
            scene.in_channel(json!({"ids": [scene.message_id(), scene.new_id()]}))
        }),
        ("MESSAGE_REACTION_REMOVE", 6, Guild, reaction_remove),
        ("MESSAGE_REACTION_REMOVE_ALL", 1, Guild, |scene| {
            scene.in_channel(json!({"message_id": scene.message_id()}))
        }),
        ("MESSAGE_REACTION_REMOVE_EMOJI", 1, Guild, |scene| reaction(scene)),
        ("MESSAGE_POLL_VOTE_ADD", 1, Guild, poll_vote),
        ("MESSAGE_POLL_VOTE_REMOVE", 1, Guild, poll_vote),
        ("STAGE_INSTANCE_CREATE", 1, Guild, stage),
        ("STAGE_INSTANCE_UPDATE", 1, Guild, stage),
        ("STAGE_INSTANCE_DELETE", 1, Guild, stage),
        ("VOICE_SERVER_UPDATE", 1, Guild, |scene| voice_server(scene.guild.id, scene.number)),
        ("VOICE_CHANNEL_EFFECT_SEND", 1, Guild, voice_effect),
        ("WEBHOOKS_UPDATE", 1, Guild, |scene| scene.in_channel(json!({}))),
        // Undocumented, and seen by bots all the same (GW-273).
        ("GUILD_JOIN_REQUEST_UPDATE", 1, Guild, |scene| scene.in_guild(json!({"status": "SUBMITTED"}))),
        ("GUILD_APPLICATION_COMMAND_INDEX_UPDATE", 1, Guild, |scene| scene.in_guild(json!({"version": 1}))),
        ("MESSAGE_CREATE", 4, Elsewhere, direct_message),
        ("TYPING_START", 2, Elsewhere, direct_typing),
        ("ENTITLEMENT_CREATE", 1, Elsewhere, entitlement),
        ("ENTITLEMENT_UPDATE", 1, Elsewhere, ended_entitlement),
        ("ENTITLEMENT_DELETE", 1, Elsewhere, entitlement),
        ("SUBSCRIPTION_CREATE", 1, Elsewhere, subscription),
        ("SUBSCRIPTION_UPDATE", 1, Elsewhere, subscription),
        ("SUBSCRIPTION_DELETE", 1, Elsewhere, subscription),
        ("USER_UPDATE", 1, Elsewhere, |_| bot_user()),
    ]
};

impl Scene<'_> {
    fn member(&mut self) -> Member {
        self.guild.any_human(self.random)
    }

    fn channel_id(&self) -> String {
        let channels = &self.guild.text_channels;
        channels[self.number as usize % channels.len()].to_string()
    }

    fn message_id(&self) -> String {
        ids::make(self.number, Kind::Message).to_string()
    }

    fn new_id(&self) -> String {
        ids::make(self.number, Kind::Other).to_string()
    }

    fn seconds(&self) -> u64 {
        1_790_000_000 + self.number / 50
    }

    fn in_guild(&self, data: Value) -> Value {
        with(data, json!({"guild_id": self.guild.id.to_string()}))
    }

    fn in_channel(&self, data: Value) -> Value {
        with(self.in_guild(data), json!({"channel_id": self.channel_id()}))
    }

    fn in_voice_channel(&self, data: Value) -> Value {
        with(self.in_guild(data), json!({"id": self.guild.voice_channels[0].to_string()}))
    }

    /// The guild, and a user of it.
    fn of_user(&mut self) -> Value {
        let user = self.member().user();
        self.in_guild(json!({"user": user}))
    }

    fn thread(&self) -> Value {
        self.guild.thread(self.number % ids::PER_GUILD)
    }

    fn thread_member(&self, member: Member) -> Value {
        json!({
            "id": self.guild.thread(0)["id"], "user_id": member.id().to_string(), "join_timestamp": JOINED, "flags": 0,
        })
    }

    fn message(&mut self) -> Value {
        let count = self.random.usize(3..60);
        let mut data =
            message(&self.message_id(), words(count, self.random), self.member(), &self.channel_id());
        let author = self.guild.owner();
        let more = json!({
            "guild_id": self.guild.id.to_string(), "member": self.guild.member_object(author, false), "channel_type": 0,
        });
        extend(&mut data, more);
        // Now and then somebody talks to the bot, which opens the content (GW-184).
        if self.number.is_multiple_of(20) {
            let mut bot = Member::Bot.user();
            bot["member"] = self.guild.member_object(Member::Bot, false);
            data["mentions"] = json!([bot]);
        }
        if self.number.is_multiple_of(25) {
            data["embeds"] = json!([{
                "type": "rich", "title": words(3, self.random), "description": words(12, self.random),
                "color": 5_814_783, "fields": [{"name": "status", "value": "green", "inline": true}],
            }]);
            data["attachments"] = json!([{
                "id": self.new_id(), "filename": "duck.png", "size": 1234, "width": 64, "height": 64,
                "url": "https://cdn.sim.invalid/duck.png", "proxy_url": "https://media.sim.invalid/duck.png",
                "content_type": "image/png",
            }]);
        }
        data
    }
}

/// A message in full, but for what belongs to its guild.
pub(crate) fn message(id: &str, content: String, author: Member, channel: &str) -> Value {
    json!({
        "id": id, "type": 0, "tts": false, "timestamp": "2026-09-01T12:00:00.123000+00:00", "pinned": false,
        "nonce": id, "mentions": [], "mention_roles": [], "mention_everyone": false, "flags": 0, "embeds": [],
        "edited_timestamp": null, "content": content, "components": [], "channel_id": channel,
        "author": author.user(), "attachments": [],
    })
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

fn presence(scene: &mut Scene<'_>) -> Value {
    let activities = if scene.random.bool() {
        json!([{
            "id": "ec0b28a579ecb4bd", "name": words(2, scene.random), "type": 0, "created_at": 1_790_000_000_000_u64,
            "timestamps": {"start": 1_790_000_000_000_u64},
        }])
    } else {
        json!([])
    };
    let status = ["online", "idle", "dnd"][scene.random.usize(..3)];
    let user = scene.member().id().to_string();
    scene.in_guild(json!({
        "user": {"id": user}, "status": status, "activities": activities, "client_status": {"desktop": status},
    }))
}

fn typing(scene: &mut Scene<'_>) -> Value {
    let member = scene.member();
    scene.in_channel(json!({
        "user_id": member.id().to_string(), "timestamp": scene.seconds(),
        "member": scene.guild.member_object(member, true),
    }))
}

fn reaction_add(scene: &mut Scene<'_>) -> Value {
    let member = scene.member();
    let author = scene.member().id().to_string();
    let more = json!({
        "user_id": member.id().to_string(), "member": scene.guild.member_object(member, true),
        "message_author_id": author,
    });
    with(reaction(scene), more)
}

fn reaction_remove(scene: &mut Scene<'_>) -> Value {
    let user = scene.member().id().to_string();
    with(reaction(scene), json!({"user_id": user}))
}

fn reaction(scene: &Scene<'_>) -> Value {
    scene.in_channel(json!({
        "message_id": scene.message_id(), "emoji": {"id": null, "name": "🦆"}, "burst": false, "type": 0,
    }))
}

/// Somebody joins or leaves the first voice channel.
fn voice_state(scene: &mut Scene<'_>) -> Value {
    let member = scene.member();
    let channel = match scene.guild.voice.remove(&member.id()) {
        Some(_) => None,
        None => {
            let channel = scene.guild.voice_channels[0];
            scene.guild.voice.insert(member.id(), channel);
            Some(channel)
        }
    };
    scene.guild.voice_state(member, channel)
}

fn member_with_guild(scene: &mut Scene<'_>) -> Value {
    let member = scene.member();
    scene.in_guild(scene.guild.member_object(member, true))
}

/// A full message; its `tts` is always false (GW-264).
fn message_update(scene: &mut Scene<'_>) -> Value {
    with(scene.message(), json!({"edited_timestamp": "2026-09-01T12:00:05.123000+00:00"}))
}

fn channel_update(scene: &mut Scene<'_>) -> Value {
    let channels = &scene.guild.text_channels;
    let channel = channels[scene.number as usize % channels.len()];
    with(scene.guild.channel(channel), json!({"topic": words(6, scene.random)}))
}

fn command_permissions(scene: &mut Scene<'_>) -> Value {
    let role = scene.guild.roles[0].to_string();
    scene.in_guild(json!({
        "id": scene.new_id(), "application_id": ids::BOT.to_string(),
        "permissions": [{"id": role, "type": 1, "permission": true}],
    }))
}

fn moderation_rule(scene: &mut Scene<'_>) -> Value {
    scene.in_guild(json!({
        "id": scene.new_id(), "name": "no spam", "creator_id": scene.guild.owner().id().to_string(), "event_type": 1,
        "trigger_type": 1,
        "trigger_metadata": {"keyword_filter": ["spam"], "regex_patterns": [], "allow_list": []},
        "actions": [{"type": 1, "metadata": {}}], "enabled": true, "exempt_roles": [], "exempt_channels": [],
    }))
}

fn moderation_action(scene: &mut Scene<'_>) -> Value {
    let user = scene.member().id().to_string();
    scene.in_channel(json!({
        "action": {"type": 1, "metadata": {}}, "rule_id": scene.new_id(), "rule_trigger_type": 1, "user_id": user,
        "content": "spam and ham", "matched_keyword": "spam", "matched_content": "spam",
    }))
}

/// A new one; or an old one that the bot was added to, which has no such mark (GW-266).
fn thread_create(scene: &mut Scene<'_>) -> Value {
    let thread = scene.thread();
    if scene.random.bool() { with(thread, json!({"newly_created": true})) } else { thread }
}

fn thread_delete(scene: &mut Scene<'_>) -> Value {
    let thread = scene.thread();
    scene.in_guild(json!({"id": thread["id"], "parent_id": thread["parent_id"], "type": thread["type"]}))
}

/// Without `channel_ids` it is about the whole guild (GW-267).
fn thread_list_sync(scene: &mut Scene<'_>) -> Value {
    let mut sync = scene.in_guild(json!({
        "threads": [scene.guild.thread(0)], "members": [scene.thread_member(Member::Bot)],
    }));
    if scene.random.bool() {
        sync["channel_ids"] = json!([scene.guild.text_channels[0].to_string()]);
    }
    sync
}

/// The bot was added: this one comes with GUILDS alone (GW-182).
fn thread_members(scene: &mut Scene<'_>) -> Value {
    let mut added = scene.thread_member(Member::Bot);
    added["member"] = scene.guild.member_object(Member::Bot, true);
    added["presence"] = Value::Null;
    scene.in_guild(json!({
        "id": scene.guild.thread(0)["id"], "member_count": 3, "added_members": [added], "removed_member_ids": [],
    }))
}

fn audit_log_entry(scene: &mut Scene<'_>) -> Value {
    let target = scene.member().id().to_string();
    scene.in_guild(json!({
        "id": scene.new_id(), "target_id": target, "user_id": scene.guild.owner().id().to_string(), "action_type": 24,
        "changes": [{"key": "nick", "old_value": "duck", "new_value": "drake"}], "reason": "because",
    }))
}

fn integration(scene: &mut Scene<'_>) -> Value {
    scene.in_guild(json!({
        "id": scene.new_id(), "name": "sim-bot", "type": "discord", "enabled": true, "scopes": ["bot"],
        "account": {"id": ids::BOT.to_string(), "name": "sim-bot"}, "user": scene.guild.owner().user(),
        "application": {
            "id": ids::BOT.to_string(), "name": "sim-bot", "icon": null, "description": "", "bot": bot_user(),
        },
    }))
}

fn role(scene: &mut Scene<'_>) -> Value {
    let role = scene.guild.role(scene.guild.roles[0], 1);
    scene.in_guild(json!({"role": role}))
}

fn scheduled_event(scene: &mut Scene<'_>) -> Value {
    scene.in_guild(json!({
        "id": scene.new_id(), "channel_id": scene.guild.voice_channels[0].to_string(),
        "creator_id": scene.guild.owner().id().to_string(), "name": "raid tonight", "description": null,
        "scheduled_start_time": "2026-12-01T20:00:00+00:00", "scheduled_end_time": null, "privacy_level": 2,
        "status": 1, "entity_type": 2, "entity_id": null, "entity_metadata": null,
        "creator": scene.guild.owner().user(), "user_count": 3, "image": null, "recurrence_rule": null,
    }))
}

fn scheduled_event_user(scene: &mut Scene<'_>) -> Value {
    let user = scene.member().id().to_string();
    scene.in_guild(json!({"guild_scheduled_event_id": scene.new_id(), "user_id": user}))
}

fn sound(scene: &mut Scene<'_>) -> Value {
    with(scene.guild.sound(), json!({"user": scene.guild.owner().user()}))
}

fn interaction(scene: &mut Scene<'_>) -> Value {
    let member = scene.member();
    let mut member = scene.guild.member_object(member, true);
    member["permissions"] = "2248473465835073".into();
    let mut channel = scene.guild.channel(scene.guild.text_channels[0]);
    channel["permissions"] = "2248473465835073".into();
    let id = scene.new_id();
    scene.in_guild(json!({
        "id": id, "application_id": ids::BOT.to_string(), "type": 2,
        "data": {"id": ids::make(1, Kind::Other).to_string(), "name": "ping", "type": 1},
        "guild": {"id": scene.guild.id.to_string(), "locale": "en-US", "features": ["COMMUNITY"]},
        "channel_id": channel["id"], "channel": channel, "member": member,
        "token": format!("interaction-{id}"), "version": 1, "app_permissions": "2248473465835073", "locale": "en-US",
        "guild_locale": "en-US", "entitlements": [], "context": 0, "attachment_size_limit": 10_485_760,
        "authorizing_integration_owners": {"0": scene.guild.id.to_string()},
    }))
}

fn invite(scene: &mut Scene<'_>) -> Value {
    scene.in_channel(json!({
        "code": "duckling", "type": 0, "created_at": JOINED, "expires_at": null,
        "inviter": scene.guild.owner().user(), "max_age": 0, "max_uses": 0, "temporary": false, "uses": 0,
    }))
}

fn poll_vote(scene: &mut Scene<'_>) -> Value {
    let user = scene.member().id().to_string();
    scene.in_channel(json!({"user_id": user, "message_id": scene.message_id(), "answer_id": 1}))
}

fn stage(scene: &mut Scene<'_>) -> Value {
    let topic = words(3, scene.random);
    scene.in_guild(json!({
        "id": scene.new_id(), "channel_id": scene.guild.voice_channels[0].to_string(), "topic": topic,
        "privacy_level": 2, "discoverable_disabled": false, "guild_scheduled_event_id": null,
    }))
}

/// Only for a channel that the bot is in. The id of a default sound is an integer, of others a snowflake (GW-271).
fn voice_effect(scene: &mut Scene<'_>) -> Value {
    let Some(channel) = scene.guild.voice.get(&ids::BOT).copied() else { return Value::Null };
    let user = scene.member().id().to_string();
    let sound = if scene.random.bool() { json!(1) } else { scene.guild.sound()["sound_id"].clone() };
    scene.in_guild(json!({
        "channel_id": channel.to_string(), "user_id": user, "emoji": {"id": null, "name": "🦆"},
        "animation_type": 0, "animation_id": 1, "sound_id": sound, "sound_volume": 1.0,
    }))
}

fn direct_message(scene: &mut Scene<'_>) -> Value {
    let author = scene.member();
    let channel = ids::make(author.id() >> 40, Kind::Category).to_string();
    with(message(&scene.message_id(), words(8, scene.random), author, &channel), json!({"channel_type": 1}))
}

fn direct_typing(scene: &mut Scene<'_>) -> Value {
    let member = scene.member();
    let channel = ids::make(member.id() >> 40, Kind::Category).to_string();
    json!({"channel_id": channel, "user_id": member.id().to_string(), "timestamp": scene.seconds()})
}

fn entitlement(scene: &mut Scene<'_>) -> Value {
    let user = scene.member().id().to_string();
    json!({
        "id": scene.new_id(), "sku_id": ids::make(2, Kind::Other).to_string(), "application_id": ids::BOT.to_string(),
        "user_id": user, "type": 8, "deleted": false, "starts_at": JOINED, "ends_at": null, "consumed": false,
        "promotion_id": null, "gift_code_flags": 0,
    })
}

/// That of a subscription changes at its end alone (GW-269).
fn ended_entitlement(scene: &mut Scene<'_>) -> Value {
    with(entitlement(scene), json!({"ends_at": "2026-10-01T00:00:00+00:00"}))
}

fn subscription(scene: &mut Scene<'_>) -> Value {
    let user = scene.member().id().to_string();
    json!({
        "id": scene.new_id(), "user_id": user, "sku_ids": [ids::make(2, Kind::Other).to_string()],
        "entitlement_ids": [scene.new_id()], "renewal_sku_ids": null, "current_period_start": JOINED,
        "current_period_end": "2026-10-01T00:00:00+00:00", "status": 0, "canceled_at": null,
    })
}
