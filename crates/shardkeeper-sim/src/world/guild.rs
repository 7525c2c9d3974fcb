//! One guild: what it is made of, and how it is told. Field sets are those of the documented objects in full.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use serde_json::{Value, json};

use super::ids::{self, Kind};
use super::message::{Message, Room};
use super::words;
use crate::intents;

/// Above so many members only the bot and those in voice are in a GUILD_CREATE (GW-256).
const MAX_LISTED_MEMBERS: u32 = 75_000;
/// Humans who are not members at first, so that somebody can join.
const STRANGERS: u64 = 4;
/// Members whose nickname, role or presence differs from what is computed.
const MAX_CHANGED: usize = 32;
pub(crate) const JOINED: &str = "2024-03-05T11:22:33.444000+00:00";
const STATUSES: [&str; 4] = ["online", "idle", "dnd", "offline"];

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

/// Everything that changes is bounded: `events` makes no more of a kind than a handful.
#[derive(Debug)]
pub(crate) struct Guild {
    place: u64,
    pub(crate) id: u64,
    name: String,
    pub(super) description: Option<String>,
    category: u64,
    pub(super) text: Vec<Text>,
    pub(crate) voice_channels: [u64; 2],
    pub(super) stage_channel: u64,
    /// A channel that the bot may not view (GW-274).
    hidden: Option<u64>,
    /// The first one is the bot's own, and a quarter of the members has it.
    pub(super) roles: Vec<Role>,
    pub(super) emojis: Vec<u64>,
    pub(super) stickers: Vec<u64>,
    pub(super) sounds: Vec<Sound>,
    pub(super) threads: Vec<Thread>,
    pub(super) scheduled: Vec<Scheduled>,
    pub(super) stage: Option<Stage>,
    pub(super) invites: Vec<Invite>,
    /// The first one is the bot's own.
    pub(super) integrations: Vec<u64>,
    pub(super) rules: Vec<Rule>,
    /// Humans who are members, unless they are absent.
    population: u64,
    pub(super) absent: BTreeSet<u64>,
    /// Some of the absent.
    pub(super) banned: BTreeSet<u64>,
    changed: BTreeMap<u64, Changed>,
    /// Who is in which voice channel.
    pub(crate) voice: BTreeMap<u64, Voice>,
    pub(super) voice_status: Option<String>,
    /// In Unix seconds, while somebody is in the first voice channel.
    pub(super) voice_start: Option<u64>,
    /// The bot's presence, as op 3 set it.
    pub(crate) bot_presence: Option<Value>,
    /// The bot is a member.
    pub(crate) joined: bool,
    /// Outages that last; the guild is available when there is none.
    pub(crate) outages: u32,
}

#[derive(Debug)]
pub(crate) struct Text {
    pub(super) room: Room,
    pub(super) topic: Option<String>,
    /// The event that pinned last.
    pub(super) pinned: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Thread {
    pub(super) room: Room,
    pub(super) parent: u64,
    owner: Member,
    pub(super) private: bool,
    pub(super) name: String,
    /// The bot is in it.
    pub(super) joined: bool,
    sent: u64,
    /// The event that made it.
    made: u64,
}

#[derive(Debug)]
pub(crate) struct Role {
    pub(super) id: u64,
    pub(super) color: u32,
}

#[derive(Debug)]
pub(crate) struct Sound {
    pub(super) id: u64,
    /// Of four loudnesses.
    pub(super) quarters: u8,
}

#[derive(Debug)]
pub(crate) struct Scheduled {
    pub(super) id: u64,
    pub(super) description: Option<String>,
    pub(super) users: BTreeSet<u64>,
}

#[derive(Debug)]
pub(crate) struct Stage {
    pub(super) id: u64,
    pub(super) topic: String,
}

#[derive(Debug)]
pub(crate) struct Invite {
    pub(super) code: String,
    pub(super) channel: u64,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(super) id: u64,
    pub(super) enabled: bool,
}

/// How a member differs from what is computed.
#[derive(Debug, Default)]
struct Changed {
    nick: Option<u64>,
    role: Option<u64>,
    /// The place of its status, and the seed of its activity.
    presence: Option<(usize, Option<u64>)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    pub(crate) channel: u64,
    pub(crate) self_mute: bool,
    pub(crate) self_deaf: bool,
}

impl Voice {
    fn of_human(channel: u64) -> Self {
        Self { channel, self_mute: false, self_deaf: true }
    }
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
}

impl Thread {
    pub(super) fn new(id: u64, made: u64, parent: u64, owner: Member, private: bool) -> Self {
        let (room, name) = (Room::new(id), "ideas".to_owned());
        // The bot sees a private one because it was added.
        Self { room, parent, owner, private, name, joined: private, sent: 0, made }
    }
}

impl Guild {
    pub(super) fn new(place: u64, large: u32, random: &mut Rng) -> Self {
        let first = place * ids::PER_GUILD;
        let made = |kind: Kind, number: u64| ids::make(first + number, kind);
        let name = format!("Guild {}", words(2, random));
        // One in ten is large, beginning with the first.
        let small = random.u32(4..25);
        let member_count = if place.is_multiple_of(10) { large.max(4) } else { small };
        let text: Vec<Text> =
            (0..random.u64(2..8)).map(|number| Text::new(made(Kind::Text, number))).collect();
        let voice_channels = [made(Kind::Voice, 0), made(Kind::Voice, 1)];
        let in_voice = random.u64(0..3);
        let population = u64::from(member_count) - 1 + STRANGERS;
        let thread = Thread::new(made(Kind::Thread, 0), 0, text[0].room.id, Member::Human(first), false);
        Self {
            place,
            id: ids::guild(place),
            name,
            description: None,
            category: made(Kind::Category, 0),
            text,
            voice_channels,
            stage_channel: made(Kind::Stage, 0),
            hidden: place.is_multiple_of(3).then(|| made(Kind::Hidden, 0)),
            roles: (0..random.u64(2..10))
                .map(|number| Role { id: made(Kind::Role, number), color: 0 })
                .collect(),
            emojis: vec![made(Kind::Emoji, 0)],
            stickers: vec![made(Kind::Sticker, 0)],
            sounds: vec![Sound { id: made(Kind::Sound, 0), quarters: 4 }],
            threads: vec![thread],
            scheduled: Vec::new(),
            stage: None,
            invites: Vec::new(),
            integrations: vec![made(Kind::Other, 0)],
            rules: Vec::new(),
            population,
            absent: (first + population - STRANGERS..first + population).collect(),
            banned: BTreeSet::new(),
            changed: BTreeMap::new(),
            // The second channel is for one, and full.
            voice: (1..=in_voice)
                .map(|number| {
                    let channel = voice_channels[usize::from(number == 2)];
                    (Member::Human(first + number).id(), Voice::of_human(channel))
                })
                .collect(),
            voice_status: Some("standup".to_owned()),
            voice_start: (in_voice > 0).then(|| ids::seconds(0)),
            bot_presence: None,
            joined: true,
            outages: 0,
        }
    }

    /// Sets how many members it has.
    #[cfg(test)]
    pub(crate) fn set_member_count(&mut self, count: u32) {
        self.population = u64::from(count) - 1;
        self.absent.clear();
    }

    pub(crate) fn is_available(&self) -> bool {
        self.outages == 0
    }

    /// With the bot.
    pub(crate) fn member_count(&self) -> u32 {
        u32::try_from(self.population + 1 - self.absent.len() as u64).unwrap_or(u32::MAX)
    }

    fn first(&self) -> u64 {
        self.place * ids::PER_GUILD
    }

    /// The members without the bot.
    pub(crate) fn humans(&self) -> impl Iterator<Item = Member> {
        let all = self.first()..self.first() + self.population;
        all.filter(|index| !self.absent.contains(index)).map(Member::Human)
    }

    /// There are always more members than absent humans, or nearly as many.
    pub(crate) fn any_human(&self, random: &mut Rng) -> Member {
        loop {
            let index = self.first() + random.u64(0..self.population);
            if !self.absent.contains(&index) {
                return Member::Human(index);
            }
        }
    }

    /// The member with this id.
    pub(crate) fn member(&self, id: u64) -> Option<Member> {
        if id == ids::BOT {
            return Some(Member::Bot);
        }
        let index = ids::made_at(id, Kind::User)?;
        let is_member = self.knows(index) && !self.absent.contains(&index);
        is_member.then_some(Member::Human(index))
    }

    /// The one with this id who was a member, or may become one.
    pub(crate) fn former(&self, id: u64) -> Option<Member> {
        ids::made_at(id, Kind::User).filter(|index| self.absent.contains(index)).map(Member::Human)
    }

    /// Whether this human is or was a member, or may become one.
    fn knows(&self, index: u64) -> bool {
        (self.first()..self.first() + self.population).contains(&index)
    }

    pub(crate) fn has(&self, member: Member) -> bool {
        match member {
            Member::Bot => true,
            Member::Human(index) => self.knows(index) && !self.absent.contains(&index),
        }
    }

    pub(crate) fn owner(&self) -> Member {
        Member::Human(self.first())
    }

    /// Somebody leaves; nothing is left of what was changed about them.
    pub(super) fn leave(&mut self, index: u64) {
        self.absent.insert(index);
        self.changed.remove(&index);
    }

    /// Somebody who may be changed: one of few, so that memory is bounded.
    fn changeable(&mut self, random: &mut Rng) -> (Member, &mut Changed) {
        let any = self.any_human(random);
        let Member::Human(mut index) = any else { unreachable!("a human was asked for") };
        if self.changed.len() >= MAX_CHANGED
            && !self.changed.contains_key(&index)
            && let Some(known) = random.choice(self.changed.keys())
        {
            index = *known;
        }
        (Member::Human(index), self.changed.entry(index).or_default())
    }

    /// Somebody gets another nickname or role.
    pub(super) fn change_member(&mut self, number: u64, random: &mut Rng) -> Member {
        let roles = self.roles.len();
        let role = (roles > 1).then(|| self.roles[random.usize(1..roles)].id);
        let toggles = random.bool();
        let (member, changed) = self.changeable(random);
        if toggles {
            changed.role = if changed.role.is_some() { None } else { role };
        } else {
            changed.nick = Some(number);
        }
        member
    }

    /// Somebody's presence changes.
    pub(super) fn change_presence(&mut self, random: &mut Rng) -> Member {
        let status = random.usize(..STATUSES.len());
        let activity = (random.bool() && STATUSES[status] != "offline").then(|| random.u64(..));
        let (member, changed) = self.changeable(random);
        changed.presence = Some((status, activity));
        member
    }

    /// A role goes, and nobody has it any more.
    pub(super) fn delete_role(&mut self, place: usize) -> u64 {
        let role = self.roles.remove(place);
        for changed in self.changed.values_mut() {
            changed.role = changed.role.filter(|id| *id != role.id);
        }
        role.id
    }

    fn changes(&self, member: Member) -> Option<&Changed> {
        match member {
            Member::Bot => None,
            Member::Human(index) => self.changed.get(&index),
        }
    }

    /// About a third is online, unless that was changed.
    fn status(&self, member: Member) -> &'static str {
        match (self.changes(member).and_then(|changed| changed.presence), member) {
            (Some((status, _)), _) => STATUSES[status],
            (None, Member::Human(index)) if index % 3 != 0 => "offline",
            (None, _) => "online",
        }
    }

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

    /// The data of a GUILD_CREATE. `initial` as part of the load after READY: there `unavailable` is given, on a join
    /// it is not (GW-252).
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
                // Within a guild both are left out (GW-258).
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

    /// The data of a GUILD_UPDATE, and what REST gives.
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

    /// The members that a GUILD_CREATE lists; the intents and the size of the guild decide (GW-256).
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
        let told = self.invites.iter().map(|invite| {
            let mut data = self.invite(invite);
            // REST has objects where the event has ids.
            data["guild"] = json!({"id": self.id.to_string(), "name": self.name, "features": ["COMMUNITY"]});
            data["channel"] = json!({"id": invite.channel.to_string(), "name": "general", "type": 0});
            data
        });
        told.collect()
    }

    pub(crate) fn rule_objects(&self) -> Vec<Value> {
        self.rules.iter().map(|rule| self.rule(rule)).collect()
    }

    pub(crate) fn integration_objects(&self) -> Vec<Value> {
        self.integrations.iter().map(|id| self.integration(*id)).collect()
    }

    pub(crate) fn ban_objects(&self) -> Vec<Value> {
        let told = |index: &u64| json!({"reason": null, "user": Member::Human(*index).user()});
        self.banned.iter().map(told).collect()
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

    /// `application.summary` has meant nothing for years, and large libraries read it.
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
            super::bot_user()
        } else {
            json!({"id": application.to_string(), "username": name, "discriminator": "0001", "avatar": null, "bot": true})
        };
        data["application"]["bot"] = bot;
        data
    }

    /// Those that the bot may view come in full, the others obfuscated (GW-274).
    pub(crate) fn channels(&self) -> Vec<Value> {
        let mut channels = vec![json!({
            "id": self.category.to_string(), "type": 4, "name": "Text", "position": 0, "permission_overwrites": [],
            "flags": 0,
        })];
        channels.extend(self.viewable_channels().into_iter().map(|channel| without(channel, "guild_id")));
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

    /// Without threads and categories (GW-277).
    pub(crate) fn viewable_channels(&self) -> Vec<Value> {
        let text = self.text.iter().map(|text| text.room.id);
        let spoken = self.voice_channels.into_iter().chain([self.stage_channel]);
        text.chain(spoken).filter_map(|id| self.channel(id)).collect()
    }

    /// The bot gains access to the hidden channel (GW-276): the data of the CHANNEL_UPDATE.
    pub(crate) fn reveal(&mut self) -> Option<Value> {
        let id = self.hidden.take()?;
        self.text.push(Text::new(id));
        self.channel(id)
    }

    /// A channel or thread that the bot may view, in full.
    pub(crate) fn channel(&self, id: u64) -> Option<Value> {
        if let Some(text) = self.text.iter().find(|text| text.room.id == id) {
            return Some(self.text_channel(text));
        }
        if let Some(thread) = self.threads.iter().find(|thread| thread.room.id == id) {
            return Some(self.thread(thread));
        }
        let is_stage = id == self.stage_channel;
        let number = self.voice_channels.iter().position(|voice| *voice == id);
        let number = number.or(is_stage.then_some(2))?;
        let mut channel = json!({
            "id": id.to_string(), "guild_id": self.id.to_string(), "type": if is_stage { 13 } else { 2 },
            "name": if is_stage { "Stage".to_owned() } else { format!("Voice {number}") }, "position": number,
            "parent_id": null,
            "permission_overwrites": [{"id": self.id.to_string(), "type": 0, "allow": "0", "deny": "512"}],
            "bitrate": 64000, "user_limit": if is_stage { 0 } else { number }, "rtc_region": null, "nsfw": false,
            "last_message_id": null, "rate_limit_per_user": 0, "flags": 0,
        });
        if is_stage {
            channel["topic"] = Value::Null;
        }
        Some(channel)
    }

    fn text_channel(&self, text: &Text) -> Value {
        let mut channel = json!({
            "id": text.room.id.to_string(), "guild_id": self.id.to_string(), "type": 0, "name": "general",
            "position": 0, "parent_id": self.category.to_string(), "permission_overwrites": [], "topic": text.topic,
            "nsfw": false, "last_message_id": text.room.last_message.map(|id| id.to_string()),
            "rate_limit_per_user": 0, "flags": 0,
        });
        if let Some(pinned) = text.pinned {
            channel["last_pin_timestamp"] = ids::timestamp(pinned).into();
        }
        channel
    }

    pub(super) fn thread(&self, thread: &Thread) -> Value {
        let created = ids::timestamp(thread.made);
        json!({
            "id": thread.room.id.to_string(), "guild_id": self.id.to_string(), "parent_id": thread.parent.to_string(),
            "owner_id": thread.owner.id().to_string(), "type": if thread.private { 12 } else { 11 },
            "name": thread.name, "last_message_id": thread.room.last_message.map(|id| id.to_string()),
            "message_count": thread.sent, "member_count": 1 + u8::from(thread.joined),
            "total_message_sent": thread.sent, "rate_limit_per_user": 0, "flags": 0,
            "thread_metadata": {
                "archived": false, "auto_archive_duration": 4320, "locked": false, "archive_timestamp": created,
                "create_timestamp": created,
            },
        })
    }

    /// As GUILD_CREATE lists them: where the bot is in it, with its own membership.
    pub(crate) fn active_threads(&self) -> Vec<Value> {
        let told = self.threads.iter().map(|thread| {
            let mut data = self.thread(thread);
            if thread.joined {
                data["member"] = self.thread_member(thread);
            }
            data
        });
        told.collect()
    }

    /// The bot's membership of a thread.
    pub(super) fn thread_member(&self, thread: &Thread) -> Value {
        json!({
            "id": thread.room.id.to_string(), "user_id": ids::BOT.to_string(), "join_timestamp": JOINED, "flags": 0,
        })
    }

    /// The channels and threads that have messages.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = &Room> {
        self.text.iter().map(|text| &text.room).chain(self.threads.iter().map(|thread| &thread.room))
    }

    pub(crate) fn room(&self, id: u64) -> Option<&Room> {
        self.rooms().find(|room| room.id == id)
    }

    pub(crate) fn room_mut(&mut self, id: u64) -> Option<&mut Room> {
        let text = self.text.iter_mut().map(|text| &mut text.room);
        text.chain(self.threads.iter_mut().map(|thread| &mut thread.room)).find(|room| room.id == id)
    }

    /// Adds a message to a channel; returns the data of its MESSAGE_CREATE.
    pub(crate) fn say(&mut self, channel: u64, message: Message) -> Value {
        let data = self.message(channel, &message);
        if let Some(thread) = self.threads.iter_mut().find(|thread| thread.room.id == channel) {
            thread.sent += 1;
        }
        if let Some(room) = self.room_mut(channel) {
            room.push(message);
        }
        data
    }

    /// A message as events tell it.
    pub(crate) fn message(&self, channel: u64, message: &Message) -> Value {
        let mut data = message.object(channel);
        let kind = match self.threads.iter().find(|thread| thread.room.id == channel) {
            Some(thread) if thread.private => 12,
            Some(_) => 11,
            None => 0,
        };
        let more = json!({
            "guild_id": self.id.to_string(), "member": self.member_object(message.author, false), "channel_type": kind,
        });
        extend(&mut data, more);
        if message.mentions_bot() {
            let mut bot = Member::Bot.user();
            bot["member"] = self.member_object(Member::Bot, false);
            data["mentions"] = json!([bot]);
        }
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

    /// Where somebody goes in voice: into this channel, or out. Says whether that is a change.
    pub(crate) fn move_voice(&mut self, member: Member, to: Option<Voice>, now: u64) -> bool {
        let before = match to {
            Some(voice) => self.voice.insert(member.id(), voice),
            None => self.voice.remove(&member.id()),
        };
        let occupied = self.voice.values().any(|voice| voice.channel == self.voice_channels[0]);
        self.voice_start = occupied.then(|| self.voice_start.unwrap_or(now));
        before.is_some() || to.is_some()
    }

    /// Whether members can be connected to this channel.
    pub(crate) fn is_spoken(&self, channel: u64) -> bool {
        self.voice_channels.contains(&channel) || channel == self.stage_channel
    }

    pub(crate) fn voice_status(&self, channel: u64) -> Option<&str> {
        self.voice_status.as_deref().filter(|_| channel == self.voice_channels[0])
    }

    pub(crate) fn voice_start(&self, channel: u64) -> Option<u64> {
        self.voice_start.filter(|_| channel == self.voice_channels[0])
    }

    pub(crate) fn voice_state(&self, member: Member, voice: Option<Voice>) -> Value {
        json!({
            "guild_id": self.id.to_string(), "channel_id": voice.map(|voice| voice.channel.to_string()),
            "user_id": member.id().to_string(), "member": self.member_object(member, true),
            "session_id": format!("{:032x}", member.id()), "deaf": false, "mute": false,
            "self_deaf": voice.is_some_and(|voice| voice.self_deaf),
            "self_mute": voice.is_some_and(|voice| voice.self_mute), "self_video": false, "suppress": false,
            "request_to_speak_timestamp": null,
        })
    }
}

impl Text {
    pub(super) fn new(id: u64) -> Self {
        Self { room: Room::new(id), topic: None, pinned: None }
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
