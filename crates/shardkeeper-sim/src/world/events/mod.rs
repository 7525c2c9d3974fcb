//! The table of events: the name of each one, how often it comes, where it happens, and what it does to the
//! guild.
//!
//! The handler of an event changes the guild first and builds the event's data from the changed guild. So no
//! event contradicts another event, a GUILD_CREATE or REST. A handler returns null when there is nothing that
//! the event could happen to; for example, a channel is deleted only if it was created before.

mod channels;
mod members;
mod messages;
mod scene;
mod settings;

use serde_json::{Value, json};

use self::channels::{
    channel_create, channel_delete, channel_update, invite_create, invite_delete, pin, stage_create,
    stage_delete, stage_update, thread_create, thread_delete, thread_list_sync, thread_member,
    thread_members, thread_update,
};
use self::members::{
    ban, member_add, member_remove, member_update, presence, unban, voice_effect, voice_server_update,
    voice_start, voice_state, voice_status,
};
use self::messages::{
    direct_message, direct_typing, message, message_delete, message_delete_bulk, message_update,
    reaction_add, reaction_remove, reaction_remove_all, reaction_remove_emoji, typing, vote_add, vote_remove,
};
pub(super) use self::scene::Scene;
use self::settings::{
    audit_log_entry, command_permissions, emojis, guild_update, integration_create, integration_delete,
    integration_update, interaction, moderation_action, role_create, role_delete, role_update, rule_create,
    rule_delete, rule_update, scheduled_create, scheduled_delete, scheduled_update, scheduled_user_add,
    scheduled_user_remove, sound_create, sound_delete, sound_update, sounds_update, stickers,
};
use super::audience::Place;
use super::bot::bot_user;

/// Makes an event happen and returns its data, or null when the event cannot happen now.
pub(super) type Make = fn(&mut Scene<'_>) -> Value;

/// Each event with its weight in [`Mix::Busy`](crate::Mix::Busy), its place and its handler.
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
        // Discord does not document these two but sends them to bots (GW-273).
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
