//! One guild: what it is made of, and how it is told. Field sets are those of the documented objects in full.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Value, json};

use super::ids::{self, Kind};
use super::words;
use crate::intents;

/// Above so many members only the bot and those in voice are in a GUILD_CREATE (GW-256).
const MAX_LISTED_MEMBERS: u32 = 75_000;
pub(crate) const JOINED: &str = "2024-03-05T11:22:33.444000+00:00";

/// For whom something is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audience {
    pub(crate) intents: u64,
    pub(crate) large_threshold: u32,
}

impl Audience {
    fn has(self, intent: u64) -> bool {
        self.intents & intent != 0
    }
}

#[derive(Debug)]
pub(crate) struct Guild {
    place: u64,
    pub(crate) id: u64,
    name: String,
    category: u64,
    pub(crate) text_channels: Vec<u64>,
    pub(crate) voice_channels: [u64; 2],
    /// A channel that the bot may not view (GW-274).
    pub(crate) hidden: Option<u64>,
    pub(crate) roles: Vec<u64>,
    pub(crate) member_count: u32,
    /// Who is in which voice channel.
    pub(crate) voice: BTreeMap<u64, u64>,
    /// The bot is a member.
    pub(crate) joined: bool,
    /// It is not in an outage.
    pub(crate) available: bool,
}

/// A member is computed from its number, so that a large guild costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    Bot,
    Human(u64),
}

impl Member {
    pub(crate) fn id(self) -> u64 {
        match self {
            Self::Bot => ids::BOT,
            Self::Human(index) => ids::make(index, Kind::User),
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Bot => "sim-bot".to_owned(),
            Self::Human(index) => format!("member{index}"),
        }
    }

    /// About a quarter has a role.
    fn has_role(self) -> bool {
        match self {
            Self::Bot => true,
            Self::Human(index) => index % 4 == 1,
        }
    }

    /// About a third is online at any time.
    fn is_online(self) -> bool {
        match self {
            Self::Bot => true,
            Self::Human(index) => index % 3 == 0,
        }
    }

    pub(crate) fn user(self) -> Value {
        let mut user = json!({
            "id": self.id().to_string(), "username": self.name(), "discriminator": "0", "global_name": self.name(),
            "avatar": null, "public_flags": 0, "avatar_decoration_data": null, "collectibles": null,
            "primary_guild": null,
        });
        if self == Self::Bot {
            user["bot"] = true.into();
            user["global_name"] = Value::Null;
            user["discriminator"] = "4821".into();
        }
        user
    }

    pub(crate) fn presence(self, guild: u64) -> Value {
        let status = if self.is_online() { "online" } else { "offline" };
        let client = if self.is_online() { json!({"desktop": status}) } else { json!({}) };
        json!({
            "user": {"id": self.id().to_string()}, "guild_id": guild.to_string(), "status": status,
            "activities": [], "client_status": client,
        })
    }
}

impl Guild {
    pub(super) fn new(place: u64, large: u32, random: &mut Rng) -> Self {
        let made = |kind: Kind, number: u64| ids::make(place * ids::PER_GUILD + number, kind);
        let name = format!("Guild {}", words(2, random));
        // One in ten is large, beginning with the first.
        let small = random.u32(4..25);
        let member_count = if place.is_multiple_of(10) { large.max(4) } else { small };
        let text_channels: Vec<u64> = (0..random.u64(2..8)).map(|number| made(Kind::Text, number)).collect();
        let voice_channels = [made(Kind::Voice, 0), made(Kind::Voice, 1)];
        let in_voice = random.u64(0..3);
        Self {
            place,
            id: ids::guild(place),
            name,
            category: made(Kind::Category, 0),
            text_channels,
            voice_channels,
            hidden: place.is_multiple_of(3).then(|| made(Kind::Hidden, 0)),
            roles: (0..random.u64(2..10)).map(|number| made(Kind::Role, number)).collect(),
            member_count,
            // The second channel is for one, and full.
            voice: (1..=in_voice)
                .map(|number| {
                    let member = Member::Human(place * ids::PER_GUILD + number).id();
                    (member, voice_channels[usize::from(number == 2)])
                })
                .collect(),
            joined: true,
            available: true,
        }
    }

    /// The members without the bot; it is one more.
    pub(crate) fn humans(&self) -> impl Iterator<Item = Member> + use<> {
        let first = self.place * ids::PER_GUILD;
        (first..first + u64::from(self.member_count) - 1).map(Member::Human)
    }

    pub(crate) fn any_human(&self, random: &mut Rng) -> Member {
        Member::Human(self.place * ids::PER_GUILD + random.u64(0..u64::from(self.member_count) - 1))
    }

    /// The member with this id.
    pub(crate) fn member(&self, id: u64) -> Option<Member> {
        if id == ids::BOT {
            return Some(Member::Bot);
        }
        let index = ids::made_at(id, Kind::User)?;
        let number = index.checked_sub(self.place * ids::PER_GUILD)?;
        (number < u64::from(self.member_count) - 1).then_some(Member::Human(index))
    }

    pub(crate) fn owner(&self) -> Member {
        Member::Human(self.place * ids::PER_GUILD)
    }

    /// The data of a GUILD_CREATE. `initial` as part of the load after READY: there `unavailable` is given, on a join
    /// it is not (GW-252).
    pub(crate) fn create(&self, audience: Audience, initial: bool) -> Value {
        let mut data = self.properties();
        let listed = self.listed(audience);
        let presences: Vec<Value> = if audience.has(intents::GUILD_PRESENCES) {
            let online = listed.iter().filter(|member| member.is_online());
            online.map(|member| without(member.presence(self.id), "guild_id")).collect()
        } else {
            Vec::new()
        };
        let members: Vec<Value> = listed.iter().map(|member| self.member_object(*member, true)).collect();
        let voice_states: Vec<Value> = self
            .voice
            .iter()
            .filter_map(|(user, channel)| {
                let state = self.voice_state(self.member(*user)?, Some(*channel));
                // Within a guild both are left out (GW-258).
                Some(without(without(state, "guild_id"), "member"))
            })
            .collect();
        let more = json!({
            "joined_at": JOINED, "large": self.member_count > audience.large_threshold,
            "member_count": self.member_count, "voice_states": voice_states, "members": members,
            "channels": self.channels(), "threads": [self.thread(0)], "presences": presences, "stage_instances": [],
            "guild_scheduled_events": [], "soundboard_sounds": [self.sound()],
        });
        extend(&mut data, more);
        if initial {
            data["unavailable"] = false.into();
        }
        data
    }

    /// The data of a GUILD_UPDATE, and what REST gives.
    pub(crate) fn properties(&self) -> Value {
        let first = self.text_channels[0].to_string();
        json!({
            "id": self.id.to_string(), "name": self.name, "icon": null, "splash": null, "discovery_splash": null,
            "owner_id": self.owner().id().to_string(), "afk_channel_id": null, "afk_timeout": 300, "region": null,
            "widget_enabled": false, "widget_channel_id": null, "verification_level": 1,
            "default_message_notifications": 1, "explicit_content_filter": 2, "roles": self.role_objects(),
            "emojis": [self.emoji()], "features": ["COMMUNITY"], "mfa_level": 0, "application_id": null,
            "system_channel_id": first, "system_channel_flags": 0, "rules_channel_id": first,
            "max_members": 25_000_000, "max_presences": null, "vanity_url_code": null, "description": null,
            "banner": null, "premium_tier": 0, "premium_subscription_count": 1, "preferred_locale": "en-US",
            "public_updates_channel_id": first, "max_video_channel_users": 25, "max_stage_video_channel_users": 50,
            "nsfw": false, "nsfw_level": 0, "stickers": [self.sticker()], "premium_progress_bar_enabled": false,
            "safety_alerts_channel_id": null, "incidents_data": null, "latest_onboarding_question_id": null,
            "home_header": null, "inventory_settings": null, "hub_type": null,
        })
    }

    /// Whom a GUILD_CREATE lists (GW-256).
    fn listed(&self, audience: Audience) -> Vec<Member> {
        let in_voice = |member: &Member| self.voice.contains_key(&member.id());
        let all = || std::iter::once(Member::Bot).chain(self.humans());
        if !audience.has(intents::GUILD_PRESENCES) || self.member_count > MAX_LISTED_MEMBERS {
            all().filter(|member| *member == Member::Bot || in_voice(member)).collect()
        } else if self.member_count <= audience.large_threshold {
            all().collect()
        } else {
            all().filter(|member| member.is_online() || member.has_role() || in_voice(member)).collect()
        }
    }

    fn role_objects(&self) -> Vec<Value> {
        std::iter::once(self.id)
            .chain(self.roles.iter().copied())
            .zip(0..)
            .map(|(id, position)| self.role(id, position))
            .collect()
    }

    pub(crate) fn role(&self, id: u64, position: u32) -> Value {
        let name = if id == self.id { "@everyone".to_owned() } else { format!("role {position}") };
        json!({
            "id": id.to_string(), "name": name, "color": 0,
            "colors": {"primary_color": 0, "secondary_color": null, "tertiary_color": null}, "hoist": false,
            "icon": null, "unicode_emoji": null, "position": position, "permissions": "2248473465835073",
            "managed": false, "mentionable": false, "flags": 0,
        })
    }

    pub(crate) fn emoji(&self) -> Value {
        json!({
            "id": ids::make(self.place, Kind::Emoji).to_string(), "name": "party", "roles": [], "require_colons": true,
            "managed": false, "animated": false, "available": true,
        })
    }

    pub(crate) fn sticker(&self) -> Value {
        json!({
            "id": ids::make(self.place, Kind::Sticker).to_string(), "name": "wave", "description": null, "tags": "wave",
            "type": 2, "format_type": 1, "available": true, "guild_id": self.id.to_string(), "asset": "",
        })
    }

    pub(crate) fn sound(&self) -> Value {
        json!({
            "name": "Yay", "sound_id": ids::make(self.place, Kind::Sound).to_string(), "volume": 1.0, "emoji_id": null,
            "emoji_name": "🦆", "guild_id": self.id.to_string(), "available": true,
        })
    }

    /// Those that the bot may view come in full, the others obfuscated (GW-274).
    pub(crate) fn channels(&self) -> Vec<Value> {
        let mut channels = vec![json!({
            "id": self.category.to_string(), "type": 4, "name": "Text", "position": 0, "permission_overwrites": [],
            "flags": 0,
        })];
        channels.extend(self.text_channels.iter().map(|channel| without(self.channel(*channel), "guild_id")));
        channels
            .extend(self.voice_channels.iter().map(|channel| without(self.channel(*channel), "guild_id")));
        channels.extend(self.hidden.map(|id| {
            json!({
                "id": id.to_string(), "type": 0, "name": "___hidden___", "position": 1,
                "parent_id": self.category.to_string(),
                "permission_overwrites": [{"id": self.id.to_string(), "type": 0, "allow": "0", "deny": "1024"}],
                "topic": null, "nsfw": false, "last_message_id": null, "rate_limit_per_user": 0, "flags": 1 << 17,
            })
        }));
        channels
    }

    /// The bot gains access to the hidden channel (GW-276): the data of the CHANNEL_UPDATE.
    pub(crate) fn reveal(&mut self) -> Option<Value> {
        let id = self.hidden.take()?;
        self.text_channels.push(id);
        Some(self.channel(id))
    }

    /// A text or voice channel in full.
    pub(crate) fn channel(&self, id: u64) -> Value {
        if let Some(number) = self.voice_channels.iter().position(|voice| *voice == id) {
            return json!({
                "id": id.to_string(), "guild_id": self.id.to_string(), "type": 2, "name": format!("Voice {number}"),
                "position": number, "parent_id": null,
                "permission_overwrites": [{"id": self.id.to_string(), "type": 0, "allow": "0", "deny": "512"}],
                "bitrate": 64000, "user_limit": number, "rtc_region": null, "nsfw": false, "last_message_id": null,
                "rate_limit_per_user": 0, "flags": 0,
            });
        }
        json!({
            "id": id.to_string(), "guild_id": self.id.to_string(), "type": 0, "name": "general", "position": 0,
            "parent_id": self.category.to_string(), "permission_overwrites": [], "topic": null, "nsfw": false,
            "last_message_id": null, "rate_limit_per_user": 0, "flags": 0,
        })
    }

    pub(crate) fn thread(&self, number: u64) -> Value {
        let id = ids::make(self.place * ids::PER_GUILD + number, Kind::Thread).to_string();
        json!({
            "id": id, "guild_id": self.id.to_string(), "parent_id": self.text_channels[0].to_string(),
            "owner_id": self.owner().id().to_string(), "type": 11, "name": "ideas", "last_message_id": id,
            "message_count": 4, "member_count": 2, "total_message_sent": 4, "rate_limit_per_user": 0, "flags": 0,
            "thread_metadata": {
                "archived": false, "auto_archive_duration": 4320, "locked": false,
                "archive_timestamp": "2026-08-01T10:00:00.000000+00:00",
                "create_timestamp": "2026-08-01T10:00:00.000000+00:00",
            },
        })
    }

    pub(crate) fn member_object(&self, member: Member, with_user: bool) -> Value {
        let mut data = json!({
            "avatar": null, "banner": null, "communication_disabled_until": null, "deaf": false, "flags": 0,
            "joined_at": JOINED, "mute": false, "nick": null, "pending": false, "premium_since": null, "roles": [],
        });
        if member.has_role() {
            data["roles"] = json!([self.roles[0].to_string()]);
        }
        if with_user {
            data["user"] = member.user();
        }
        data
    }

    pub(crate) fn voice_state(&self, member: Member, channel: Option<u64>) -> Value {
        json!({
            "guild_id": self.id.to_string(), "channel_id": channel.map(|id| id.to_string()),
            "user_id": member.id().to_string(), "member": self.member_object(member, true),
            "session_id": format!("{:032x}", member.id()), "deaf": false, "mute": false, "self_deaf": true,
            "self_mute": false, "self_video": false, "suppress": false, "request_to_speak_timestamp": null,
        })
    }
}

/// The object without one of its fields.
pub(crate) fn without(mut object: Value, field: &str) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
    object
}

/// Adds the fields of another object.
pub(crate) fn extend(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}
