//! The JSON objects of a guild, with every field that Discord documents for them.

use fastrand::Rng;
use serde_json::{Value, json};

use super::audience::Audience;
use super::bot::bot_user;
use super::guild::{Guild, Invite, Role, Rule, Scheduled, Sound, Stage, Voice};
use super::ids;
use super::json::{extend, without};
use super::member::{JOINED, Member};
use super::words::words;
use crate::intents;

/// In a larger guild, GUILD_CREATE lists only the bot and the members in voice (GW-256).
const MAX_LISTED_MEMBERS: u32 = 75_000;

impl Guild {
    pub(crate) fn presence(&self, member: Member) -> Value {
        if let (Member::Bot, Some(presence)) = (member, &self.bot_presence) {
            return presence.clone();
        }
        let status = self.status(member);
        let seed = self.changes(member).and_then(|changed| changed.presence).and_then(|(_, seed)| seed);
        let activities = seed.map_or(json!([]), |seed| {
            json!([{
                "id": "ec0b28a579ecb4bd", "name": words(2, &mut Rng::with_seed(seed)), "type": 0,
                "created_at": 1_790_000_000_000_u64, "timestamps": {"start": 1_790_000_000_000_u64},
            }])
        });
        json!({
            "user": {"id": member.id().to_string()}, "guild_id": self.id.to_string(), "status": status,
            "activities": activities,
            "client_status": if status == "offline" { json!({}) } else { json!({"desktop": status}) },
        })
    }

    /// The data of a GUILD_CREATE. After READY (`initial`) it has the field `unavailable`, on a join it does
    /// not (GW-252).
    pub(crate) fn create(&self, audience: Audience, initial: bool) -> Value {
        let mut data = self.properties();
        let listed = self.listed(audience);
        let presences: Vec<Value> = if audience.has(intents::GUILD_PRESENCES) {
            let online = listed.iter().filter(|member| self.status(**member) != "offline");
            online.map(|member| without(self.presence(*member), "guild_id")).collect()
        } else {
            Vec::new()
        };
        let members: Vec<Value> = listed.iter().map(|member| self.member_object(*member, true)).collect();
        let voice_states: Vec<Value> = self
            .voice
            .iter()
            .filter_map(|(user, voice)| {
                let state = self.voice_state(self.member(*user)?, Some(*voice));
                // GW-258: the voice states within a guild have neither field.
                Some(without(without(state, "guild_id"), "member"))
            })
            .collect();
        let more = json!({
            "joined_at": JOINED, "large": self.member_count() > audience.large_threshold,
            "member_count": self.member_count(), "voice_states": voice_states, "members": members,
            "channels": self.channels(), "threads": self.active_threads(), "presences": presences,
            "stage_instances": self.stage.iter().map(|stage| self.stage_instance(stage)).collect::<Vec<_>>(),
            "guild_scheduled_events": self.scheduled_events(), "soundboard_sounds": self.sound_objects(),
        });
        extend(&mut data, more);
        if initial {
            data["unavailable"] = false.into();
        }
        data
    }

    /// The guild object of GUILD_UPDATE and of REST.
    pub(crate) fn properties(&self) -> Value {
        let first = self.text[0].room.id.to_string();
        json!({
            "id": self.id.to_string(), "name": self.name, "icon": null, "splash": null, "discovery_splash": null,
            "owner_id": self.owner().id().to_string(), "afk_channel_id": null, "afk_timeout": 300, "region": null,
            "widget_enabled": false, "widget_channel_id": null, "verification_level": 1,
            "default_message_notifications": 1, "explicit_content_filter": 2, "roles": self.role_objects(),
            "emojis": self.emoji_objects(), "features": ["COMMUNITY"], "mfa_level": 0, "application_id": null,
            "system_channel_id": first, "system_channel_flags": 0, "rules_channel_id": first,
            "max_members": 25_000_000, "max_presences": null, "vanity_url_code": null,
            "description": self.description, "banner": null, "premium_tier": 0, "premium_subscription_count": 1,
            "preferred_locale": "en-US", "public_updates_channel_id": first, "max_video_channel_users": 25,
            "max_stage_video_channel_users": 50, "nsfw": false, "nsfw_level": 0, "stickers": self.sticker_objects(),
            "premium_progress_bar_enabled": false, "safety_alerts_channel_id": null, "incidents_data": null,
            "latest_onboarding_question_id": null, "home_header": null, "inventory_settings": null, "hub_type": null,
        })
    }

    /// The members that a GUILD_CREATE lists (GW-256).
    fn listed(&self, audience: Audience) -> Vec<Member> {
        let in_voice = |member: &Member| self.voice.contains_key(&member.id());
        let all = || std::iter::once(Member::Bot).chain(self.humans());
        if !audience.has(intents::GUILD_PRESENCES) || self.member_count() > MAX_LISTED_MEMBERS {
            all().filter(|member| *member == Member::Bot || in_voice(member)).collect()
        } else if self.member_count() <= audience.large_threshold {
            all().collect()
        } else {
            let shown = |member: &Member| {
                let changed = self.changes(*member);
                let named = changed.is_some_and(|changed| changed.nick.is_some() || changed.role.is_some());
                named || member.has_role() || self.status(*member) != "offline" || in_voice(member)
            };
            all().filter(shown).collect()
        }
    }

    pub(crate) fn role_objects(&self) -> Vec<Value> {
        let everyone = Role { id: self.id, color: 0 };
        std::iter::once(&everyone).chain(&self.roles).map(|role| self.role(role)).collect()
    }

    pub(super) fn role(&self, role: &Role) -> Value {
        let is_own = self.roles.first().is_some_and(|first| first.id == role.id);
        let name = match role.id {
            id if id == self.id => "@everyone".to_owned(),
            _ if is_own => "sim-bot".to_owned(),
            id => format!("role {}", id >> 22 & 0xffff),
        };
        let mut data = json!({
            "id": role.id.to_string(), "name": name, "color": role.color,
            "colors": {"primary_color": role.color, "secondary_color": null, "tertiary_color": null}, "hoist": false,
            "icon": null, "unicode_emoji": null, "position": u8::from(role.id != self.id),
            "permissions": "2248473465835073", "managed": is_own, "mentionable": false, "flags": 0,
        });
        if is_own {
            data["tags"] = json!({"bot_id": ids::BOT.to_string()});
        }
        data
    }

    pub(crate) fn emoji_objects(&self) -> Vec<Value> {
        let object = |id: &u64| {
            json!({
                "id": id.to_string(), "name": "party", "roles": [], "require_colons": true, "managed": false,
                "animated": false, "available": true,
            })
        };
        self.emojis.iter().map(object).collect()
    }

    pub(crate) fn sticker_objects(&self) -> Vec<Value> {
        let object = |id: &u64| {
            json!({
                "id": id.to_string(), "name": "wave", "description": null, "tags": "wave", "type": 2,
                "format_type": 1, "available": true, "guild_id": self.id.to_string(), "asset": "",
            })
        };
        self.stickers.iter().map(object).collect()
    }

    pub(crate) fn invite_objects(&self) -> Vec<Value> {
        let objects = self.invites.iter().map(|invite| {
            let mut data = self.invite(invite);
            // In REST these are objects, in the event ids.
            data["guild"] = json!({"id": self.id.to_string(), "name": self.name, "features": ["COMMUNITY"]});
            data["channel"] = json!({"id": invite.channel.to_string(), "name": "general", "type": 0});
            data
        });
        objects.collect()
    }

    pub(crate) fn rule_objects(&self) -> Vec<Value> {
        self.rules.iter().map(|rule| self.rule(rule)).collect()
    }

    pub(crate) fn integration_objects(&self) -> Vec<Value> {
        self.integrations.iter().map(|id| self.integration(*id)).collect()
    }

    pub(crate) fn ban_objects(&self) -> Vec<Value> {
        let objects = |index: &u64| json!({"reason": null, "user": Member::Human(*index).user()});
        self.banned.iter().map(objects).collect()
    }

    pub(crate) fn sound_objects(&self) -> Vec<Value> {
        self.sounds.iter().map(|sound| self.sound(sound)).collect()
    }

    pub(super) fn sound(&self, sound: &Sound) -> Value {
        json!({
            "name": "Yay", "sound_id": sound.id.to_string(), "volume": f64::from(sound.quarters) / 4.0,
            "emoji_id": null, "emoji_name": "🦆", "guild_id": self.id.to_string(), "available": true,
        })
    }

    pub(crate) fn scheduled_events(&self) -> Vec<Value> {
        self.scheduled.iter().map(|event| self.scheduled_event(event)).collect()
    }

    pub(super) fn scheduled_event(&self, event: &Scheduled) -> Value {
        json!({
            "id": event.id.to_string(), "guild_id": self.id.to_string(),
            "channel_id": self.voice_channels[0].to_string(), "creator_id": self.owner().id().to_string(),
            "name": "raid tonight", "description": event.description,
            "scheduled_start_time": "2026-12-01T20:00:00+00:00", "scheduled_end_time": null, "privacy_level": 2,
            "status": 1, "entity_type": 2, "entity_id": null, "entity_metadata": null,
            "creator": self.owner().user(), "user_count": event.users.len(), "image": null, "recurrence_rule": null,
        })
    }

    pub(super) fn stage_instance(&self, stage: &Stage) -> Value {
        json!({
            "id": stage.id.to_string(), "guild_id": self.id.to_string(),
            "channel_id": self.stage_channel.to_string(), "topic": stage.topic, "privacy_level": 2,
            "discoverable_disabled": false, "guild_scheduled_event_id": null,
        })
    }

    pub(super) fn invite(&self, invite: &Invite) -> Value {
        json!({
            "code": invite.code, "guild_id": self.id.to_string(), "channel_id": invite.channel.to_string(), "type": 0,
            "created_at": JOINED, "expires_at": null, "inviter": self.owner().user(), "max_age": 0, "max_uses": 0,
            "temporary": false, "uses": 0,
        })
    }

    pub(super) fn rule(&self, rule: &Rule) -> Value {
        json!({
            "id": rule.id.to_string(), "guild_id": self.id.to_string(), "name": "no spam",
            "creator_id": self.owner().id().to_string(), "event_type": 1, "trigger_type": 1,
            "trigger_metadata": {"keyword_filter": ["spam"], "regex_patterns": [], "allow_list": []},
            "actions": [{"type": 1, "metadata": {}}], "enabled": rule.enabled, "exempt_roles": [],
            "exempt_channels": [],
        })
    }

    /// The integration object. Discord deprecated `application.summary`, but large libraries still require
    /// it.
    pub(super) fn integration(&self, id: u64) -> Value {
        let own = self.integrations.first() == Some(&id);
        let application = if own { ids::BOT } else { id };
        let name = if own { "sim-bot" } else { "helper" };
        let mut data = json!({
            "id": id.to_string(), "guild_id": self.id.to_string(), "name": name, "type": "discord", "enabled": true,
            "scopes": ["bot"], "account": {"id": application.to_string(), "name": name}, "user": self.owner().user(),
            "application": {
                "id": application.to_string(), "name": name, "icon": null, "description": "", "summary": "",
            },
        });
        let bot = if own {
            bot_user()
        } else {
            json!({"id": application.to_string(), "username": name, "discriminator": "0001", "avatar": null, "bot": true})
        };
        data["application"]["bot"] = bot;
        data
    }

    pub(crate) fn member_object(&self, member: Member, with_user: bool) -> Value {
        let changed = self.changes(member);
        let own = member.has_role().then(|| self.roles[0].id);
        let roles: Vec<String> = own
            .into_iter()
            .chain(changed.and_then(|changed| changed.role))
            .map(|id| id.to_string())
            .collect();
        let nick = changed.and_then(|changed| changed.nick).map(|number| format!("duck {number}"));
        let mut data = json!({
            "avatar": null, "banner": null, "communication_disabled_until": null, "deaf": false, "flags": 0,
            "joined_at": JOINED, "mute": false, "nick": nick, "pending": false, "premium_since": null, "roles": roles,
        });
        if with_user {
            data["user"] = member.user();
        }
        data
    }

    pub(crate) fn voice_state(&self, member: Member, voice: Option<Voice>) -> Value {
        let own = self.bot_session.clone().filter(|_| member == Member::Bot);
        let session = own.unwrap_or_else(|| format!("{:032x}", member.id()));
        json!({
            "guild_id": self.id.to_string(), "channel_id": voice.map(|voice| voice.channel.to_string()),
            "user_id": member.id().to_string(), "member": self.member_object(member, true),
            "session_id": session, "deaf": false, "mute": false,
            "self_deaf": voice.is_some_and(|voice| voice.self_deaf),
            "self_mute": voice.is_some_and(|voice| voice.self_mute), "self_video": false, "suppress": false,
            "request_to_speak_timestamp": null,
        })
    }
}
