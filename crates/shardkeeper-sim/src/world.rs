//! The guilds of the simulated Discord, and what happens in them.
//!
//! Field sets are those of the documented objects in full: a client's models must find what they require.

use fastrand::Rng;
use serde_json::{Value, json};

/// Milliseconds of 2026-01-01 since Discord's epoch, where made-up ids begin.
const FIRST_MS: u64 = 347_155_200_000;
/// The bot's own user.
const BOT_ID: u64 = 104_694_319_306_248_192;
const WORDS: [&str; 24] = [
    "raid", "tonight", "anyone", "patch", "notes", "ship", "build", "green", "coffee", "deploy", "noon",
    "lost", "found", "shard", "queue", "voice", "later", "works", "again", "why", "because", "nice", "gg",
    "brb",
];

#[derive(Debug)]
pub(crate) struct World {
    guilds: Vec<Guild>,
}

#[derive(Debug)]
struct Guild {
    id: u64,
    name: String,
    text_channels: Vec<u64>,
    voice_channel: u64,
    roles: Vec<u64>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    id: u64,
    name: String,
}

impl World {
    /// As many guilds; ids follow each other in the part that decides the shard, so that any number of shards gets
    /// about the same share (GW-227).
    pub(crate) fn new(guilds: u32, random: &mut Rng) -> Self {
        Self { guilds: (0..u64::from(guilds)).map(|place| Guild::new(place, random)).collect() }
    }

    /// The guilds of a shard.
    pub(crate) fn of_shard(&self, shard: u32, count: u32) -> Vec<usize> {
        let owned = |guild: &Guild| (guild.id >> 22) % u64::from(count) == u64::from(shard);
        (0..self.guilds.len()).filter(|place| owned(&self.guilds[*place])).collect()
    }

    pub(crate) fn guild_id(&self, place: usize) -> String {
        self.guilds[place].id.to_string()
    }

    /// The data of a guild's GUILD_CREATE.
    pub(crate) fn guild_create(&self, place: usize) -> Value {
        self.guilds[place].create()
    }

    /// Something that happens in one of these guilds: the event and its data. The mix is that of a busy bot.
    pub(crate) fn happening(
        &self,
        guilds: &[usize],
        number: u64,
        content: bool,
        random: &mut Rng,
    ) -> Option<(&'static str, Value)> {
        let guild = &self.guilds[*random.choice(guilds)?];
        let member = random.choice(&guild.members)?;
        let channel = *random.choice(&guild.text_channels)?;
        let id = snowflake(number, 1).to_string();
        let now_s = 1_790_000_000 + number / 50;
        Some(match random.u32(0..100) {
            0..35 => ("MESSAGE_CREATE", guild.message(&id, channel, member, content, random)),
            35..60 => ("PRESENCE_UPDATE", guild.presence(member, random)),
            60..75 => (
                "TYPING_START",
                json!({
                    "channel_id": channel.to_string(), "guild_id": guild.id.to_string(),
                    "user_id": member.id.to_string(), "timestamp": now_s, "member": guild.member(member, true),
                }),
            ),
            75..85 => (
                "MESSAGE_REACTION_ADD",
                json!({
                    "user_id": member.id.to_string(), "channel_id": channel.to_string(), "message_id": id,
                    "guild_id": guild.id.to_string(), "member": guild.member(member, true),
                    "emoji": {"id": null, "name": "🦆"}, "message_author_id": member.id.to_string(),
                    "burst": false, "type": 0,
                }),
            ),
            85..89 => ("VOICE_STATE_UPDATE", guild.voice_state(member, random)),
            89..93 => {
                let mut data = guild.member(member, true);
                data["guild_id"] = guild.id.to_string().into();
                ("GUILD_MEMBER_UPDATE", data)
            }
            93..96 => {
                let mut data = guild.message(&id, channel, member, content, random);
                data["edited_timestamp"] = "2026-09-01T12:00:05.123000+00:00".into();
                ("MESSAGE_UPDATE", data)
            }
            96..98 => (
                "MESSAGE_DELETE",
                json!({"id": id, "channel_id": channel.to_string(), "guild_id": guild.id.to_string()}),
            ),
            _ => {
                let mut data = guild.text_channel(channel);
                data["guild_id"] = guild.id.to_string().into();
                data["topic"] = words(6, random).into();
                ("CHANNEL_UPDATE", data)
            }
        })
    }
}

/// An id made at that point of the simulator's own time.
fn snowflake(ms: u64, low: u64) -> u64 {
    ((FIRST_MS + ms) << 22) | (low & 0x3f_ffff)
}

fn words(count: usize, random: &mut Rng) -> String {
    let words: Vec<&str> = (0..count).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
    words.join(" ")
}

pub(crate) fn bot_user() -> Value {
    json!({
        "id": BOT_ID.to_string(), "username": "sim-bot", "discriminator": "4821", "global_name": null, "avatar": null,
        "bot": true, "verified": true, "mfa_enabled": true, "flags": 0, "public_flags": 0, "email": null,
        "avatar_decoration_data": null, "collectibles": null, "primary_guild": null,
    })
}

pub(crate) fn application() -> Value {
    json!({"id": BOT_ID.to_string(), "flags": 8_953_856, "flags_new": "8953856"})
}

impl Guild {
    fn new(place: u64, random: &mut Rng) -> Self {
        let id = ((281_474_976 + place) << 22) | (place & 0xffff);
        let made = |kind: u64, number: u64| snowflake(place * 1000 + number, kind);
        // Mostly small, some busy; the first members of a large guild are enough of it.
        let members = if random.u32(0..10) == 0 { random.u64(60..200) } else { random.u64(4..25) };
        Self {
            id,
            name: format!("Guild {}", words(2, random)),
            text_channels: (0..random.u64(2..8)).map(|number| made(2, number)).collect(),
            voice_channel: made(3, 0),
            roles: (0..random.u64(2..10)).map(|number| made(4, number)).collect(),
            members: (0..members)
                .map(|number| Member { id: made(5, number), name: format!("member{place}x{number}") })
                .collect(),
        }
    }

    fn create(&self) -> Value {
        let roles = std::iter::once((self.id, "@everyone".to_owned()))
            .chain(self.roles.iter().map(|role| (*role, format!("role {role}"))))
            .zip(0..)
            .map(|((id, name), position)| {
                json!({
                    "id": id.to_string(), "name": name, "color": 0,
                    "colors": {"primary_color": 0, "secondary_color": null, "tertiary_color": null},
                    "hoist": false, "icon": null, "unicode_emoji": null, "position": position,
                    "permissions": "2248473465835073", "managed": false, "mentionable": false, "flags": 0,
                })
            });
        let mut channels: Vec<Value> =
            self.text_channels.iter().map(|channel| self.text_channel(*channel)).collect();
        channels.push(json!({
            "id": self.voice_channel.to_string(), "type": 2, "name": "Voice", "position": 0, "parent_id": null,
            "permission_overwrites": [], "bitrate": 64000, "user_limit": 0, "rtc_region": null, "nsfw": false,
            "last_message_id": null, "rate_limit_per_user": 0, "flags": 0,
        }));
        let members: Vec<Value> = self.members.iter().map(|member| self.member(member, true)).collect();
        json!({
            "id": self.id.to_string(), "name": self.name, "icon": null, "splash": null, "discovery_splash": null,
            "owner_id": self.members[0].id.to_string(), "afk_channel_id": null, "afk_timeout": 300,
            "verification_level": 1, "default_message_notifications": 1, "explicit_content_filter": 2,
            "roles": roles.collect::<Vec<Value>>(),
            "emojis": [{
                "id": snowflake(self.id >> 22, 6).to_string(), "name": "party", "roles": [], "require_colons": true,
                "managed": false, "animated": false, "available": true,
            }],
            "features": ["COMMUNITY"], "mfa_level": 0, "application_id": null,
            "system_channel_id": self.text_channels[0].to_string(), "system_channel_flags": 0,
            "rules_channel_id": self.text_channels[0].to_string(), "max_members": 25_000_000, "max_presences": null,
            "vanity_url_code": null, "description": null, "banner": null, "premium_tier": 0,
            "premium_subscription_count": 1, "preferred_locale": "en-US",
            "public_updates_channel_id": self.text_channels[0].to_string(), "max_video_channel_users": 25,
            "max_stage_video_channel_users": 50, "nsfw": false, "nsfw_level": 0, "stickers": [],
            "premium_progress_bar_enabled": false, "safety_alerts_channel_id": null, "incidents_data": null,
            "joined_at": "2024-03-05T11:22:33.444000+00:00", "large": members.len() > 50, "unavailable": false,
            "member_count": members.len(), "voice_states": [], "members": members, "channels": channels,
            "threads": [], "presences": [], "stage_instances": [], "guild_scheduled_events": [],
            "soundboard_sounds": [],
        })
    }

    fn text_channel(&self, id: u64) -> Value {
        json!({
            "id": id.to_string(), "type": 0, "name": "general", "position": 0, "parent_id": null,
            "permission_overwrites": [], "topic": null, "nsfw": false, "last_message_id": null,
            "rate_limit_per_user": 0, "flags": 0,
        })
    }

    fn user(member: &Member) -> Value {
        json!({
            "id": member.id.to_string(), "username": member.name, "discriminator": "0", "global_name": member.name,
            "avatar": null, "public_flags": 0, "avatar_decoration_data": null, "collectibles": null,
            "primary_guild": null,
        })
    }

    fn member(&self, member: &Member, with_user: bool) -> Value {
        let mut data = json!({
            "avatar": null, "banner": null, "communication_disabled_until": null, "deaf": false, "flags": 0,
            "joined_at": "2024-03-05T11:22:33.444000+00:00", "mute": false, "nick": null, "pending": false,
            "premium_since": null, "roles": [self.roles[0].to_string()],
        });
        if with_user {
            data["user"] = Self::user(member);
        }
        data
    }

    /// Without MESSAGE_CONTENT the content fields are empty (GW-184).
    fn message(&self, id: &str, channel: u64, member: &Member, content: bool, random: &mut Rng) -> Value {
        let count = random.usize(3..60);
        let text = words(count, random);
        json!({
            "id": id, "type": 0, "tts": false, "timestamp": "2026-09-01T12:00:00.123000+00:00", "pinned": false,
            "nonce": id, "mentions": [], "mention_roles": [], "mention_everyone": false,
            "member": self.member(member, false), "flags": 0, "embeds": [], "edited_timestamp": null,
            "content": if content { text } else { String::new() }, "components": [], "channel_type": 0,
            "channel_id": channel.to_string(), "author": Self::user(member), "attachments": [],
            "guild_id": self.id.to_string(),
        })
    }

    fn presence(&self, member: &Member, random: &mut Rng) -> Value {
        let activities = if random.bool() {
            json!([{
                "id": "ec0b28a579ecb4bd", "name": words(2, random), "type": 0, "created_at": 1_790_000_000_000_u64,
                "timestamps": {"start": 1_790_000_000_000_u64},
            }])
        } else {
            json!([])
        };
        let status = ["online", "idle", "dnd"][random.usize(..3)];
        json!({
            "user": {"id": member.id.to_string()}, "guild_id": self.id.to_string(), "status": status,
            "activities": activities, "client_status": {"desktop": status},
        })
    }

    fn voice_state(&self, member: &Member, random: &mut Rng) -> Value {
        let channel = random.bool().then(|| self.voice_channel.to_string());
        json!({
            "guild_id": self.id.to_string(), "channel_id": channel, "user_id": member.id.to_string(),
            "member": self.member(member, true), "session_id": "5f2a60b1d4c84a6e9b3d0c7f1e2a3b4c", "deaf": false,
            "mute": false, "self_deaf": true, "self_mute": false, "self_video": false, "suppress": false,
            "request_to_speak_timestamp": null,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_227_guilds_spread_evenly_over_any_number_of_shards() {
        let world = World::new(480, &mut Rng::with_seed(1));
        for count in [1, 2, 3, 7, 16, 60] {
            for shard in 0..count {
                let owned = world.of_shard(shard, count).len() as u32;
                assert!((480 / count..=480 / count + 1).contains(&owned), "{shard} of {count}: {owned}");
            }
        }
    }

    #[test]
    fn gw_259_sizes_are_realistic() {
        let mut random = Rng::with_seed(1);
        let world = World::new(50, &mut random);
        let guilds: Vec<usize> = (0..50).collect();
        let sizes: Vec<usize> =
            guilds.iter().map(|place| world.guild_create(*place).to_string().len()).collect();
        assert!(*sizes.iter().min().unwrap() > 3_000 && *sizes.iter().max().unwrap() > 40_000, "{sizes:?}");
        let total: usize = (0..1000)
            .filter_map(|number| world.happening(&guilds, number, true, &mut random))
            .map(|(_, data)| data.to_string().len())
            .sum();
        assert!((500..1500).contains(&(total / 1000)), "{}", total / 1000);
    }

    #[test]
    fn the_same_seed_makes_the_same_world() {
        let make = || {
            let mut random = Rng::with_seed(9);
            let world = World::new(5, &mut random);
            let events: Vec<_> =
                (0..50).filter_map(|number| world.happening(&[0, 3], number, true, &mut random)).collect();
            format!("{} {events:?}", world.guild_create(4))
        };
        assert_eq!(make(), make());
    }
}
