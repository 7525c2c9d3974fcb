//! What parsing costs, as ratios within one run: `parse_whole` to `parse`, and `event` to serde_json.
//!
//! ```sh
//! cargo bench -p shardkeeper --bench parse --features simd-json,twilight
//! ```
//!
//! Each line is one type: the time of the first way in microseconds, and that of the others as a multiple of it. The ways
//! take turns, and each counts with the lower quartile of its rounds, so that a busy machine moves all of them alike.

#![allow(clippy::print_stdout, reason = "it is a program")]
#![allow(dead_code, reason = "fields are read by nobody but the parser")]
#![recursion_limit = "256"]

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shardkeeper::Dispatch;
use twilight_model::gateway::payload::incoming::{GuildCreate, MemberChunk, MessageCreate, PresenceUpdate};
use twilight_model::guild::Guild;

const ROUNDS: usize = 21;
const ROUND: Duration = Duration::from_millis(15);

#[derive(Deserialize)]
struct FewOfUser {
    id: String,
    username: String,
}

#[derive(Deserialize)]
struct FewOfMessage {
    id: String,
    channel_id: String,
    guild_id: Option<String>,
    content: String,
    author: FewOfUser,
}

#[derive(Deserialize)]
struct FewOfPresence {
    guild_id: String,
    status: String,
    user: HasId,
}

#[derive(Deserialize)]
struct FewOfGuild {
    id: String,
    name: String,
    owner_id: String,
    member_count: u64,
    large: bool,
}

#[derive(Deserialize)]
struct HasId {
    id: String,
}

#[derive(Deserialize)]
struct OwnUser {
    id: String,
    username: String,
    global_name: Option<String>,
    discriminator: String,
    avatar: Option<String>,
    bot: bool,
    public_flags: u64,
}

#[derive(Deserialize)]
struct OwnMessage {
    id: String,
    channel_id: String,
    guild_id: Option<String>,
    content: String,
    author: OwnUser,
    timestamp: String,
    edited_timestamp: Option<String>,
    tts: bool,
    pinned: bool,
    mentions: Vec<OwnUser>,
    embeds: Vec<Embed>,
    flags: u32,
    nonce: Option<String>,
}

#[derive(Deserialize)]
struct Embed {
    title: String,
    description: String,
    fields: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    value: String,
    inline: bool,
}

#[derive(Deserialize)]
struct OwnActivity {
    name: String,
    r#type: u8,
    state: Option<String>,
    created_at: u64,
    id: Option<String>,
}

#[derive(Deserialize)]
struct OwnPresence {
    user: HasId,
    status: String,
    activities: Vec<OwnActivity>,
}

#[derive(Deserialize)]
struct OwnMember {
    user: OwnUser,
    roles: Vec<String>,
    nick: Option<String>,
    joined_at: String,
    deaf: bool,
    mute: bool,
    flags: u32,
    pending: bool,
}

#[derive(Deserialize)]
struct OwnOverwrite {
    id: String,
    r#type: u8,
    allow: String,
    deny: String,
}

#[derive(Deserialize)]
struct OwnChannel {
    id: String,
    r#type: u8,
    name: String,
    topic: Option<String>,
    position: i32,
    parent_id: Option<String>,
    permission_overwrites: Vec<OwnOverwrite>,
    last_message_id: Option<String>,
    nsfw: bool,
}

#[derive(Deserialize)]
struct OwnRole {
    id: String,
    name: String,
    permissions: String,
    position: i32,
    color: u32,
    hoist: bool,
    managed: bool,
    mentionable: bool,
}

#[derive(Deserialize)]
struct OwnGuild {
    id: String,
    name: String,
    owner_id: String,
    member_count: u64,
    large: bool,
    members: Vec<OwnMember>,
    channels: Vec<OwnChannel>,
    roles: Vec<OwnRole>,
    presences: Vec<OwnPresence>,
}

#[derive(Deserialize)]
struct OwnChunk {
    guild_id: String,
    members: Vec<OwnMember>,
    presences: Vec<OwnPresence>,
    chunk_index: u32,
    chunk_count: u32,
}

/// Some words, with everything that text has to be unescaped for.
fn words(count: usize, number: usize) -> String {
    const WORDS: [&str; 12] = [
        "duck",
        "pond",
        "hello",
        "schön",
        "the",
        "quick",
        "🦆",
        "brown",
        "says \"hi\"",
        "line\nbreak",
        "over",
        "lazy",
    ];
    let pick = |at: usize| WORDS[(at * 7 + number * 5 + at * at * number) % WORDS.len()];
    (0..count).map(pick).collect::<Vec<_>>().join(" ")
}

fn id(number: usize) -> String {
    (900_000_000_000_000_000 + number as u64 * 7919).to_string()
}

fn user(number: usize) -> Value {
    json!({
        "username": format!("user{number}"), "public_flags": 64, "primary_guild": null, "id": id(number),
        "global_name": words(2, number), "display_name_styles": null, "discriminator": "0", "collectibles": null,
        "clan": null, "bot": false, "avatar_decoration_data": null, "avatar": "a1b2c3d4e5f60718293a4b5c6d7e8f90",
    })
}

fn member(number: usize) -> Value {
    json!({
        "user": user(number), "roles": [id(number % 9), id(number % 5 + 20)], "premium_since": null, "pending": false,
        "nick": null, "mute": false, "joined_at": "2024-01-01T10:00:00.000000+00:00", "flags": 0, "deaf": false,
        "communication_disabled_until": null, "banner": null, "avatar": null,
    })
}

fn presence(number: usize) -> Value {
    json!({
        "user": {"id": id(number)}, "status": "online", "client_status": {"desktop": "online"},
        "activities": [
            {
                "type": 4, "state": words(4, number), "name": "Custom Status", "id": "custom",
                "created_at": 1_790_000_000_123_u64,
            },
            {
                "type": 0, "name": words(2, number), "id": "ec0b28a579ecb4bd", "created_at": 1_790_000_000_000_u64,
                "timestamps": {"start": 1_790_000_000_000_u64},
            },
        ],
    })
}

fn presence_update() -> Value {
    let mut data = presence(3);
    data["guild_id"] = id(77).into();
    data
}

fn message(words_of_content: usize, embeds: usize) -> Value {
    let embed = |number| {
        json!({
            "type": "rich", "title": words(3, number), "description": words(40, number), "color": 5_814_783,
            "fields": [{"name": words(2, number), "value": words(9, number), "inline": true}],
        })
    };
    json!({
        "type": 0, "tts": false, "timestamp": "2026-09-01T12:00:00.123000+00:00", "pinned": false, "nonce": id(5),
        "mentions": [], "mention_roles": [], "mention_everyone": false, "id": id(5), "flags": 0,
        "embeds": (0..embeds).map(embed).collect::<Vec<_>>(), "edited_timestamp": null,
        "content": words(words_of_content, 3), "components": [], "channel_id": id(1000), "author": user(3),
        "attachments": [], "guild_id": id(77),
    })
}

fn chunk(members: usize) -> Value {
    json!({
        "guild_id": id(77), "members": (0..members).map(member).collect::<Vec<_>>(),
        "presences": (0..members / 2).map(presence).collect::<Vec<_>>(), "not_found": [], "chunk_index": 0,
        "chunk_count": 1,
    })
}

fn guild(members: usize) -> Value {
    let channel = |number: usize| {
        json!({
            "version": 1, "type": 0, "topic": words(8, number), "rate_limit_per_user": 0, "position": number,
            "permission_overwrites": [
                {"type": 0, "id": id(number), "deny": "1024", "allow": "0"},
                {"type": 0, "id": id(number + 1), "deny": "0", "allow": "3072"},
            ],
            "parent_id": id(500), "nsfw": false, "name": format!("channel-{number}"), "last_message_id": id(number * 31),
            "id": id(1000 + number), "flags": 0,
        })
    };
    let role = |number: usize| {
        json!({
            "version": 1, "unicode_emoji": null, "tags": {}, "position": number, "permissions": "2248473465835073",
            "name": format!("role {number}"), "mentionable": false, "managed": false, "id": id(number), "icon": null,
            "hoist": false, "flags": 0, "color": 0,
            "colors": {"primary_color": 0, "secondary_color": null, "tertiary_color": null},
        })
    };
    json!({
        "id": id(77), "name": "a guild", "icon": null, "splash": null, "discovery_splash": null, "owner_id": id(1),
        "afk_channel_id": null, "afk_timeout": 300, "region": null, "unavailable": false, "widget_enabled": false,
        "widget_channel_id": null, "verification_level": 1, "default_message_notifications": 1,
        "explicit_content_filter": 2, "roles": (0..30).map(role).collect::<Vec<_>>(), "emojis": [],
        "features": ["COMMUNITY"], "mfa_level": 0, "application_id": null, "system_channel_id": id(1000),
        "system_channel_flags": 0, "rules_channel_id": null, "max_members": 25_000_000, "max_presences": null,
        "vanity_url_code": null, "description": null, "banner": null, "premium_tier": 0,
        "premium_subscription_count": 1, "preferred_locale": "en-US", "public_updates_channel_id": null, "nsfw": false,
        "nsfw_level": 0, "stickers": [], "premium_progress_bar_enabled": false,
        "joined_at": "2024-01-01T10:00:00.000000+00:00", "large": true, "member_count": members, "voice_states": [],
        "members": (0..members).map(member).collect::<Vec<_>>(),
        "channels": (0..40).map(channel).collect::<Vec<_>>(), "threads": [],
        "presences": (0..members / 2).map(presence).collect::<Vec<_>>(), "stage_instances": [],
        "guild_scheduled_events": [], "soundboard_sounds": [],
    })
}

/// A way to do it, and its name.
type Way<'a> = (&'static str, &'a dyn Fn());

/// Nanoseconds per call in one round.
fn round(way: &dyn Fn()) -> f64 {
    let (start, mut calls) = (Instant::now(), 0_u32);
    while calls == 0 || start.elapsed() < ROUND {
        way();
        calls += 1;
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

struct Bench {
    /// Without it everything runs once, to see that it runs.
    measures: bool,
}

impl Bench {
    fn compare(&self, what: &str, dispatch: &Dispatch, ways: &[Way<'_>]) {
        if !self.measures {
            return ways.iter().for_each(|(_, way)| way());
        }
        let mut rounds = vec![Vec::new(); ways.len()];
        for _ in 0..ROUNDS {
            for (times, (_, way)) in rounds.iter_mut().zip(ways) {
                times.push(round(way));
            }
        }
        let quartile = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 4]
        };
        let times: Vec<f64> = rounds.iter_mut().map(quartile).collect();
        let (bytes, first, micros) = (dispatch.data().len(), ways[0].0, times[0] / 1000.0);
        print!("{:<16} {bytes:>8} B  {what:<15} {first} {micros:>9.2} us", dispatch.name());
        for ((name, _), time) in ways.iter().zip(&times).skip(1) {
            print!("  {name} {:.2}", time / times[0]);
        }
        println!();
    }

    fn own<T: DeserializeOwned>(&self, what: &str, dispatch: &Dispatch) {
        let parse = || drop(black_box(dispatch.parse::<T>()).expect("it fits"));
        let whole = || drop(black_box(dispatch.parse_whole::<T>()).expect("it fits"));
        self.compare(what, dispatch, &[("parse", &parse), ("parse_whole", &whole)]);
    }

    fn typed<T: DeserializeOwned>(&self, dispatch: &Dispatch) {
        let parse = || drop(black_box(dispatch.parse::<T>()).expect("it fits"));
        let typed = || drop(black_box(dispatch.event()).expect("it fits"));
        self.compare("twilight", dispatch, &[("parse", &parse), ("typed", &typed)]);
    }

    fn typed_guild(&self, dispatch: &Dispatch) {
        let untagged = || drop(black_box(dispatch.parse::<GuildCreate>()).expect("it fits"));
        let guild = || drop(black_box(dispatch.parse::<Guild>()).expect("it fits"));
        let typed = || drop(black_box(dispatch.event()).expect("it fits"));
        let ways: [Way<'_>; 3] = [("untagged", &untagged), ("parse", &guild), ("typed", &typed)];
        self.compare("twilight", dispatch, &ways);
    }
}

fn main() {
    let bench = Bench { measures: std::env::args().any(|argument| argument == "--bench") };
    let dispatch = |name: &str, data: Value| Dispatch::sample(name, data.to_string().as_bytes());
    for message in [message(10, 0), message(600, 0), message(20, 10)] {
        let message = dispatch("MESSAGE_CREATE", message);
        bench.own::<FewOfMessage>("a few fields", &message);
        bench.own::<OwnMessage>("most of it", &message);
        bench.own::<Value>("Value", &message);
        bench.typed::<MessageCreate>(&message);
    }
    let presence = dispatch("PRESENCE_UPDATE", presence_update());
    bench.own::<FewOfPresence>("a few fields", &presence);
    bench.own::<OwnPresence>("most of it", &presence);
    bench.own::<Value>("Value", &presence);
    bench.typed::<PresenceUpdate>(&presence);
    for members in [5, 6, 12, 100, 1000] {
        let chunk = dispatch("GUILD_MEMBERS_CHUNK", chunk(members));
        bench.own::<OwnChunk>("most of it", &chunk);
        bench.typed::<MemberChunk>(&chunk);
    }
    for members in [0, 210, 2700] {
        let guild = dispatch("GUILD_CREATE", guild(members));
        bench.own::<FewOfGuild>("a few fields", &guild);
        bench.own::<OwnGuild>("most of it", &guild);
        bench.own::<Value>("Value", &guild);
        bench.typed_guild(&guild);
    }
}
