//! The cache of a client, built from events only. It shares no code with the simulator's world, and refuses
//! each event that contradicts an earlier one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

const BOT: &str = "104694319306248192";

type Objects = BTreeMap<String, Value>;

/// Everything that a client knows.
#[derive(Default)]
pub(crate) struct Cache {
    pub(crate) guilds: BTreeMap<String, Guild>,
    /// Guilds of READY without a GUILD_CREATE yet, and guilds in an outage.
    unavailable: BTreeSet<String>,
    /// Guilds that the bot has left. They keep everything that a GUILD_CREATE does not contain.
    former: BTreeMap<String, Guild>,
    /// The user of each direct channel.
    direct: BTreeMap<String, String>,
    entitlements: Objects,
    subscriptions: Objects,
    latest_message: u64,
}

#[derive(Default, Debug)]
pub(crate) struct Guild {
    owner: String,
    pub(crate) channels: Objects,
    threads: Objects,
    roles: Objects,
    emojis: Objects,
    stickers: Objects,
    sounds: Objects,
    scheduled: Objects,
    stages: Objects,
    /// The last known member objects, not of all members.
    members: Objects,
    presences: Objects,
    /// Whether `members` is complete.
    pub(crate) complete: bool,
    left: BTreeSet<String>,
    banned: BTreeSet<String>,
    pub(crate) member_count: u64,
    voice: BTreeMap<String, String>,
    statuses: BTreeMap<String, Value>,
    subscribers: BTreeMap<String, BTreeSet<String>>,
    /// The threads that the bot is in.
    joined_threads: BTreeSet<String>,
    invites: BTreeMap<String, String>,
    integrations: BTreeSet<String>,
    rules: Objects,
    messages: BTreeMap<String, Message>,
    pub(crate) chunked: BTreeSet<String>,
}

#[derive(Debug)]
struct Message {
    channel: String,
    author: String,
    timestamp: String,
    reactions: BTreeSet<(String, String)>,
    /// Whether the message has a poll; unknown without MESSAGE_CONTENT.
    hidden: bool,
    answers: BTreeSet<String>,
    votes: BTreeSet<(String, String)>,
}

type Checked = Result<(), String>;

fn check(holds: bool, why: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(why()) }
}

fn text(object: &Value, field: &str) -> Result<String, String> {
    object[field].as_str().map(str::to_owned).ok_or_else(|| format!("{field} is {}", object[field]))
}

fn list<'a>(object: &'a Value, field: &str) -> Result<&'a Vec<Value>, String> {
    object[field].as_array().ok_or_else(|| format!("{field} is {}", object[field]))
}

fn by(objects: &[Value], field: &str) -> Result<Objects, String> {
    let keyed = objects.iter().map(|object| Ok((text(object, field)?, object.clone())));
    let map: Objects = keyed.collect::<Result<_, String>>()?;
    check(map.len() == objects.len(), || format!("{field} is there twice"))?;
    Ok(map)
}

fn without(objects: &Objects, fields: &[&str]) -> Objects {
    let strip = |object: &Value| {
        let mut object = object.clone();
        for field in fields {
            object.as_object_mut().map(|map| map.remove(*field));
        }
        object
    };
    objects.iter().map(|(id, object)| (id.clone(), strip(object))).collect()
}

fn emoji(emoji: &Value) -> String {
    format!("{}:{}", emoji["id"], emoji["name"])
}

/// Milliseconds since Discord's epoch.
fn made_at(id: &str) -> Result<u64, String> {
    id.parse::<u64>().map(|id| id >> 22).map_err(|_| format!("{id} is no id"))
}

impl Cache {
    /// Applies the next event. The error says what the event contradicts.
    pub(crate) fn take(&mut self, event: &str, d: &Value) -> Checked {
        match event {
            "READY" => {
                let guilds = list(d, "guilds")?;
                self.unavailable = guilds.iter().map(|guild| text(guild, "id")).collect::<Result<_, _>>()?;
                check(d["user"]["id"] == BOT, || "READY of another user".into())
            }
            "GUILD_CREATE" => self.guild_create(d),
            "GUILD_DELETE" => {
                let id = text(d, "id")?;
                if d["unavailable"] == true {
                    check(self.guilds.contains_key(&id) || self.unavailable.contains(&id), || {
                        format!("an outage of guild {id}, which is not known")
                    })?;
                    check(!self.unavailable.contains(&id) || !self.guilds.contains_key(&id), || {
                        format!("a second outage of guild {id}")
                    })?;
                    self.unavailable.insert(id);
                    return Ok(());
                }
                let gone = self.guilds.remove(&id);
                let known = gone.is_some() | self.unavailable.remove(&id);
                self.former.extend(gone.map(|guild| (id.clone(), guild)));
                check(known, || format!("the bot leaves guild {id}, in which it was not"))
            }
            "USER_UPDATE" => check(d["id"] == BOT, || "another user".into()),
            "ENTITLEMENT_CREATE" => fresh(&mut self.entitlements, d, "id"),
            "ENTITLEMENT_UPDATE" => {
                check(d["ends_at"].is_string(), || "GW-269: an update that is no end".into())?;
                known(&mut self.entitlements, d, "id", &["user_id", "sku_id"])
            }
            "ENTITLEMENT_DELETE" => {
                known(&mut self.entitlements, d, "id", &["user_id", "sku_id", "ends_at"])?;
                self.entitlements.remove(&text(d, "id")?);
                Ok(())
            }
            "SUBSCRIPTION_CREATE" | "SUBSCRIPTION_UPDATE" | "SUBSCRIPTION_DELETE" => {
                for entitlement in list(d, "entitlement_ids")? {
                    let id = entitlement.as_str().unwrap_or_default();
                    let entitlement = self.entitlements.get(id).ok_or(format!("no entitlement {id}"))?;
                    check(entitlement["user_id"] == d["user_id"], || "another's entitlement".into())?;
                }
                if event == "SUBSCRIPTION_CREATE" {
                    return fresh(&mut self.subscriptions, d, "id");
                }
                known(&mut self.subscriptions, d, "id", &["user_id", "entitlement_ids"])?;
                if event == "SUBSCRIPTION_DELETE" {
                    self.subscriptions.remove(&text(d, "id")?);
                }
                Ok(())
            }
            "MESSAGE_CREATE" | "TYPING_START" if d.get("guild_id").is_none() => {
                let channel = text(d, "channel_id")?;
                let user =
                    if event == "TYPING_START" { text(d, "user_id")? } else { text(&d["author"], "id")? };
                if event == "MESSAGE_CREATE" {
                    check(d["channel_type"] == 1, || "no direct channel".into())?;
                    self.newest(d)?;
                }
                if user == BOT {
                    return Ok(());
                }
                let whose = self.direct.entry(channel).or_insert_with(|| user.clone());
                check(*whose == user, || format!("{user} in the direct channel of {whose}"))
            }
            _ => {
                if event == "MESSAGE_CREATE" {
                    self.newest(d)?;
                }
                let id = text(d, if event == "GUILD_UPDATE" { "id" } else { "guild_id" })?;
                check(!self.unavailable.contains(&id), || format!("guild {id} is not available"))?;
                let guild = self.guilds.get_mut(&id).ok_or_else(|| format!("guild {id} is not known"))?;
                guild.take(event, d)
            }
        }
    }

    /// Checks that ids of messages increase and contain the same time as the timestamp.
    fn newest(&mut self, d: &Value) -> Checked {
        let id = text(d, "id")?;
        let at = made_at(&id)?;
        check(at > self.latest_message, || format!("message {id} is older than the one before"))?;
        self.latest_message = at;
        // Compares only the time of day, to the millisecond.
        let (ms, stamp) = (at + 1_420_070_400_000, text(d, "timestamp")?);
        let time = format!(
            "T{:02}:{:02}:{:02}.{:03}",
            ms / 3_600_000 % 24,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        );
        check(stamp.contains(&time), || format!("message {id} of {time} has the timestamp {stamp}"))
    }

    fn guild_create(&mut self, d: &Value) -> Checked {
        let id = text(d, "id")?;
        let expected = self.unavailable.contains(&id);
        if d["unavailable"] == true {
            return check(expected || !self.guilds.contains_key(&id), || format!("guild {id} was available"));
        }
        check(expected || !self.guilds.contains_key(&id), || format!("guild {id} is there already"))?;
        check(expected == d.get("unavailable").is_some(), || "GW-252: a join is told from a load".into())?;
        let mut created = Guild::read(d)?;
        self.unavailable.remove(&id);
        if let Some(before) = self.guilds.get_mut(&id) {
            before.differs(&created).map_or(Ok(()), |how| Err(format!("after the outage of {id}: {how}")))?;
            before.presences = created.presences;
            return Ok(());
        }
        if let Some(former) = self.former.remove(&id) {
            created.messages = former.messages;
            created.invites = former.invites;
            created.integrations = former.integrations;
            created.rules = former.rules;
            created.banned = former.banned;
            created.subscribers = former.subscribers;
            created.statuses = former.statuses;
        }
        self.guilds.insert(id, created);
        Ok(())
    }
}

fn fresh(objects: &mut Objects, object: &Value, field: &str) -> Checked {
    let id = text(object, field)?;
    check(objects.insert(id.clone(), object.clone()).is_none(), || format!("{id} is created a second time"))
}

/// Applies an update of a known object. Fails if one of the `constant` fields has changed.
fn known(objects: &mut Objects, object: &Value, field: &str, constant: &[&str]) -> Checked {
    let id = text(object, field)?;
    let before = objects.get_mut(&id).ok_or_else(|| format!("{id} was never created, or deleted since"))?;
    for field in constant {
        check(before[*field] == object[*field], || format!("{field} of {id} has changed"))?;
    }
    *before = object.clone();
    Ok(())
}

impl Guild {
    fn read(d: &Value) -> Result<Self, String> {
        let id = text(d, "id")?;
        let mut channels = by(list(d, "channels")?, "id")?;
        let mut threads = by(list(d, "threads")?, "id")?;
        let joined: BTreeSet<String> = threads
            .iter()
            .filter(|(_, thread)| thread["member"].is_object())
            .map(|(id, _)| id.clone())
            .collect();
        for object in channels.values_mut().chain(threads.values_mut()) {
            object["guild_id"] = json!(id);
            object.as_object_mut().map(|thread| thread.remove("member"));
        }
        let members: Objects = list(d, "members")?
            .iter()
            .map(|member| Ok((text(&member["user"], "id")?, member.clone())))
            .collect::<Result<_, String>>()?;
        let presences = list(d, "presences")?;
        let guild = Self {
            owner: text(d, "owner_id")?,
            channels,
            threads,
            roles: by(list(d, "roles")?, "id")?,
            emojis: by(list(d, "emojis")?, "id")?,
            stickers: by(list(d, "stickers")?, "id")?,
            sounds: by(list(d, "soundboard_sounds")?, "sound_id")?,
            scheduled: by(list(d, "guild_scheduled_events")?, "id")?,
            stages: by(list(d, "stage_instances")?, "id")?,
            complete: d["member_count"] == members.len(),
            members,
            presences: presences
                .iter()
                .map(|presence| Ok((text(&presence["user"], "id")?, presence.clone())))
                .collect::<Result<_, String>>()?,
            member_count: d["member_count"].as_u64().unwrap_or_default(),
            voice: list(d, "voice_states")?
                .iter()
                .map(|state| Ok((text(state, "user_id")?, text(state, "channel_id")?)))
                .collect::<Result<_, String>>()?,
            joined_threads: joined,
            ..Self::default()
        };
        guild.coheres(d)?;
        Ok(guild)
    }

    /// Checks that the ids within a GUILD_CREATE refer to objects in it.
    fn coheres(&self, d: &Value) -> Checked {
        check(self.roles.contains_key(&text(d, "id")?), || "there is no role @everyone".into())?;
        for (user, member) in &self.members {
            self.has_roles(member).map_err(|why| format!("member {user}: {why}"))?;
        }
        for user in self.presences.keys().chain(self.voice.keys()) {
            check(self.members.contains_key(user), || format!("{user} is no member"))?;
        }
        for channel in self.voice.values() {
            self.channel(channel, &[2, 13])?;
        }
        for channel in self.channels.values() {
            self.coherent_channel(channel)?;
        }
        for thread in self.threads.values() {
            self.channel(&text(thread, "parent_id")?, &[0])?;
        }
        for stage in self.stages.values() {
            self.channel(&text(stage, "channel_id")?, &[13])?;
        }
        for event in self.scheduled.values() {
            self.channel(&text(event, "channel_id")?, &[2, 13])?;
        }
        for field in ["system_channel_id", "rules_channel_id", "public_updates_channel_id"] {
            self.channel(&text(d, field)?, &[0])?;
        }
        self.present(&text(d, "owner_id")?)
    }

    fn coherent_channel(&self, channel: &Value) -> Checked {
        if let Some(parent) = channel["parent_id"].as_str() {
            self.channel(parent, &[4])?;
        }
        for overwrite in list(channel, "permission_overwrites")?.iter().filter(|one| one["type"] == 0) {
            let role = text(overwrite, "id")?;
            check(self.roles.contains_key(&role), || format!("an overwrite for {role}, which is no role"))?;
        }
        Ok(())
    }

    /// Checks that another GUILD_CREATE does not contradict earlier events.
    pub(crate) fn differs(&self, other: &Self) -> Option<String> {
        let counted =
            ["message_count", "total_message_sent", "member_count", "last_message_id", "thread_metadata"];
        let parts = [
            (
                "channels",
                without(&self.channels, &["last_message_id"]),
                without(&other.channels, &["last_message_id"]),
            ),
            ("threads", without(&self.threads, &counted), without(&other.threads, &counted)),
            ("roles", self.roles.clone(), other.roles.clone()),
            ("emojis", self.emojis.clone(), other.emojis.clone()),
            ("stickers", self.stickers.clone(), other.stickers.clone()),
            ("sounds", without(&self.sounds, &["user"]), without(&other.sounds, &["user"])),
            (
                "scheduled events",
                without(&self.scheduled, &["user_count"]),
                without(&other.scheduled, &["user_count"]),
            ),
            ("stage instances", self.stages.clone(), other.stages.clone()),
        ];
        for (what, mine, theirs) in parts {
            let differs = |id: &&String| mine.get(*id) != theirs.get(*id);
            if let Some(id) = mine.keys().chain(theirs.keys()).find(differs) {
                return Some(format!("{what}: told {:?}, but is {:?}", mine.get(id), theirs.get(id)));
            }
        }
        for (user, member) in &other.members {
            if self.complete && !self.members.contains_key(user) {
                return Some(format!("{user} was not known"));
            }
            if self.members.get(user).is_some_and(|mine| mine != member) {
                return Some(format!("member {user}: told {}, but is {member}", self.members[user]));
            }
        }
        for (user, presence) in &other.presences {
            if self.presences.get(user).is_some_and(|mine| mine["status"] != presence["status"]) {
                return Some(format!("presence of {user}: told {}, but is {presence}", self.presences[user]));
            }
        }
        let count = if self.complete { self.member_count } else { other.member_count };
        if (count, &self.voice) != (other.member_count, &other.voice) {
            return Some(format!(
                "told {} members and {:?} in voice, but there are {} and {:?}",
                self.member_count, self.voice, other.member_count, other.voice
            ));
        }
        None
    }

    /// Checks that a user is a member, as far as is known.
    fn present(&self, user: &str) -> Checked {
        let known = self.members.contains_key(user);
        check(!self.left.contains(user), || format!("{user} has left"))?;
        check(!self.banned.contains(user), || format!("{user} is banned"))?;
        check(known || !self.complete, || format!("{user} is no member"))
    }

    fn has_roles(&self, member: &Value) -> Checked {
        for role in list(member, "roles")? {
            let id = role.as_str().unwrap_or_default();
            check(self.roles.contains_key(id), || format!("{role} is no role"))?;
        }
        Ok(())
    }

    /// Checks the partial or full member object of a user in an event.
    fn acts(&self, user: &str, member: &Value) -> Checked {
        self.present(user)?;
        self.has_roles(member)?;
        for field in ["nick", "roles"] {
            let reported = self.members.get(user).map(|known| &known[field]);
            check(reported.is_none_or(|reported| *reported == member[field]), || {
                format!("{field} of {user} is {}, and was told as {reported:?}", member[field])
            })?;
        }
        Ok(())
    }

    /// Checks that a channel exists and has one of these types.
    fn channel(&self, id: &str, types: &[u64]) -> Checked {
        let channel = self.channels.get(id).or_else(|| self.threads.get(id));
        let channel = channel.ok_or_else(|| format!("channel {id} is not there"))?;
        let kind = channel["type"].as_u64().unwrap_or_default();
        check(types.contains(&kind), || format!("channel {id} is of type {kind}, not {types:?}"))
    }

    fn message(&mut self, d: &Value) -> Result<&mut Message, String> {
        let (channel, id) = (text(d, "channel_id")?, text(d, "message_id")?);
        self.channel(&channel, &[0, 11, 12])?;
        let message = self.messages.get_mut(&id).ok_or_else(|| format!("there is no message {id}"))?;
        check(message.channel == channel, || format!("message {id} is not of channel {channel}"))?;
        Ok(message)
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each event")]
    fn take(&mut self, event: &str, d: &Value) -> Checked {
        const TEXT: &[u64] = &[0, 11, 12];
        let user = d["user"]["id"].as_str().or(d["user_id"].as_str()).unwrap_or_default().to_owned();
        let id = d["id"].as_str().unwrap_or_default().to_owned();
        match event {
            "MESSAGE_CREATE" => {
                let (channel, author) = (text(d, "channel_id")?, text(&d["author"], "id")?);
                self.channel(&channel, TEXT)?;
                let kind = &self.channels.get(&channel).or(self.threads.get(&channel)).unwrap()["type"];
                check(*kind == d["channel_type"], || "channel_type is another".into())?;
                self.acts(&author, &d["member"])?;
                for mentioned in list(d, "mentions")? {
                    self.acts(&text(mentioned, "id")?, &mentioned["member"])?;
                }
                let answers = d["poll"]["answers"].as_array().into_iter().flatten();
                let message = Message {
                    channel,
                    author,
                    timestamp: text(d, "timestamp")?,
                    reactions: BTreeSet::new(),
                    hidden: d["content"] == "",
                    answers: answers.map(|answer| answer["answer_id"].to_string()).collect(),
                    votes: BTreeSet::new(),
                };
                check(self.messages.insert(id.clone(), message).is_none(), || format!("message {id} again"))
            }
            "MESSAGE_UPDATE" => {
                let author = text(&d["author"], "id")?;
                self.acts(&author, &d["member"])?;
                let mut named = d.clone();
                named["message_id"] = d["id"].clone();
                let message = self.message(&named)?;
                check(message.author == author, || format!("message {id} has another author"))?;
                check(message.timestamp == text(d, "timestamp")?, || {
                    format!("message {id} of another time")
                })?;
                check(d["edited_timestamp"].as_str() > Some(&message.timestamp), || "edited before".into())
            }
            "MESSAGE_DELETE" => {
                let mut named = d.clone();
                named["message_id"] = d["id"].clone();
                self.message(&named)?;
                self.messages.remove(&id);
                Ok(())
            }
            "MESSAGE_DELETE_BULK" => {
                let ids = list(d, "ids")?;
                check(ids.len() >= 2, || "a bulk of one".into())?;
                for id in ids {
                    self.message(&json!({"channel_id": d["channel_id"], "message_id": id}))?;
                    self.messages.remove(id.as_str().unwrap_or_default());
                }
                Ok(())
            }
            "MESSAGE_REACTION_ADD" => {
                self.acts(&user, &d["member"])?;
                let message = self.message(d)?;
                check(message.author == d["message_author_id"], || "message_author_id is another".into())?;
                check(message.reactions.insert((emoji(&d["emoji"]), user)), || {
                    "the same reaction again".into()
                })
            }
            "MESSAGE_REACTION_REMOVE" => {
                let message = self.message(d)?;
                check(message.reactions.remove(&(emoji(&d["emoji"]), user)), || "no such reaction".into())
            }
            "MESSAGE_REACTION_REMOVE_ALL" => {
                let reactions = std::mem::take(&mut self.message(d)?.reactions);
                check(!reactions.is_empty(), || "there was no reaction".into())
            }
            "MESSAGE_REACTION_REMOVE_EMOJI" => {
                let message = self.message(d)?;
                let (before, emoji) = (message.reactions.len(), emoji(&d["emoji"]));
                message.reactions.retain(|(name, _)| *name != emoji);
                check(message.reactions.len() < before, || "there was no such reaction".into())
            }
            "MESSAGE_POLL_VOTE_ADD" | "MESSAGE_POLL_VOTE_REMOVE" => {
                let answer = d["answer_id"].to_string();
                if event == "MESSAGE_POLL_VOTE_ADD" {
                    self.present(&user)?;
                }
                let message = self.message(d)?;
                let has_answer = message.hidden || message.answers.contains(&answer);
                check(has_answer, || format!("the message has no answer {answer}"))?;
                let vote = (user, answer);
                let fits = if event == "MESSAGE_POLL_VOTE_ADD" {
                    message.votes.insert(vote)
                } else {
                    message.votes.remove(&vote)
                };
                check(fits, || "a vote twice, or one that was not there".into())
            }
            "TYPING_START" => {
                self.acts(&user, &d["member"])?;
                self.channel(&text(d, "channel_id")?, TEXT)
            }
            "PRESENCE_UPDATE" => {
                self.present(&user)?;
                let mut presence = d.clone();
                presence.as_object_mut().map(|presence| presence.remove("guild_id"));
                self.presences.insert(user, presence);
                Ok(())
            }
            "VOICE_STATE_UPDATE" => {
                self.acts(&user, &d["member"])?;
                match d["channel_id"].as_str() {
                    Some(channel) => {
                        self.channel(channel, &[2, 13])?;
                        self.voice.insert(user, channel.to_owned());
                        Ok(())
                    }
                    None => check(self.voice.remove(&user).is_some(), || format!("{user} was not in voice")),
                }
            }
            "VOICE_SERVER_UPDATE" => check(self.voice.contains_key(BOT), || "the bot is not in voice".into()),
            "VOICE_CHANNEL_EFFECT_SEND" => {
                let channel = text(d, "channel_id")?;
                for who in [BOT, &user] {
                    check(self.voice.get(who) == Some(&channel), || format!("{who} is not in {channel}"))?;
                }
                let sound = d["sound_id"].as_str();
                check(sound.is_none_or(|sound| self.sounds.contains_key(sound)), || "no such sound".into())
            }
            "VOICE_CHANNEL_STATUS_UPDATE" => {
                self.statuses.insert(id.clone(), d["status"].clone());
                self.channel(&id, &[2])
            }
            "VOICE_CHANNEL_START_TIME_UPDATE" => {
                let occupied = self.voice.values().any(|channel| *channel == id);
                check(occupied == d["voice_start_time"].is_u64(), || {
                    format!("voice_start_time is {}, occupied: {occupied}", d["voice_start_time"])
                })?;
                self.channel(&id, &[2])
            }
            "CHANNEL_INFO" => {
                for info in list(d, "channels")? {
                    let id = text(info, "id")?;
                    self.channel(&id, &[2])?;
                    let reported = self.statuses.get(&id);
                    let status = info.get("status");
                    check(reported.is_none() || status.is_none() || reported == status, || {
                        format!("the status of {id} was told as {reported:?}, and is {status:?}")
                    })?;
                }
                Ok(())
            }
            "GUILD_MEMBER_ADD" => {
                check(!self.banned.contains(&user), || format!("{user} is banned"))?;
                self.has_roles(d)?;
                // GW-263: the event may also come for a user who is a member already.
                let mut member = d.clone();
                member.as_object_mut().map(|member| member.remove("guild_id"));
                let again = self.members.insert(user.clone(), member).is_some();
                self.left.remove(&user);
                // If not all members are known, it is unknown whether this one is new.
                self.member_count += u64::from(self.complete && !again);
                Ok(())
            }
            "GUILD_MEMBER_REMOVE" => {
                self.present(&user)?;
                check(user != self.owner && user != BOT, || "the owner, or the bot itself".into())?;
                check(!self.voice.contains_key(&user), || format!("{user} is still in voice"))?;
                self.members.remove(&user);
                self.presences.remove(&user);
                self.member_count -= u64::from(self.complete);
                self.left.insert(user);
                Ok(())
            }
            "GUILD_MEMBER_UPDATE" => {
                self.present(&user)?;
                self.has_roles(d)?;
                let mut member = d.clone();
                member.as_object_mut().map(|member| member.remove("guild_id"));
                self.members.insert(user, member);
                Ok(())
            }
            "GUILD_MEMBERS_CHUNK" => {
                for member in list(d, "members")? {
                    let user = text(&member["user"], "id")?;
                    self.acts(&user, member)?;
                    self.chunked.insert(user);
                }
                for presence in d["presences"].as_array().into_iter().flatten() {
                    let user = text(&presence["user"], "id")?;
                    let reported = self.presences.get(&user).map(|reported| &reported["status"]);
                    check(reported.is_none_or(|reported| *reported == presence["status"]), || {
                        format!("presence of {user} is {presence}, and was told as {reported:?}")
                    })?;
                }
                Ok(())
            }
            "GUILD_BAN_ADD" => {
                check(self.banned.insert(user.clone()), || format!("{user} is banned already"))
            }
            "GUILD_BAN_REMOVE" => check(self.banned.remove(&user), || format!("{user} was not banned")),
            "GUILD_AUDIT_LOG_ENTRY_CREATE" => {
                self.present(&user)?;
                self.present(&text(d, "target_id")?)
            }
            "CHANNEL_CREATE" => {
                self.coherent_channel(d)?;
                fresh(&mut self.channels, d, "id")
            }
            "CHANNEL_UPDATE" => {
                self.coherent_channel(d)?;
                known(&mut self.channels, d, "id", &["type", "parent_id"])
            }
            "CHANNEL_DELETE" => {
                check(self.channels.remove(&id).is_some(), || format!("channel {id} is not there"))?;
                self.messages.retain(|_, message| message.channel != id);
                let mut children = self.threads.values().filter(|thread| thread["parent_id"] == json!(id));
                check(children.next().is_none(), || format!("channel {id} still has threads"))
            }
            "CHANNEL_PINS_UPDATE" => {
                let channel = text(d, "channel_id")?;
                self.channel(&channel, TEXT)?;
                if let Some(channel) = self.channels.get_mut(&channel) {
                    channel["last_pin_timestamp"] = d["last_pin_timestamp"].clone();
                }
                check(d["last_pin_timestamp"].is_string(), || "a pin without a time".into())
            }
            "WEBHOOKS_UPDATE" => self.channel(&text(d, "channel_id")?, &[0]),
            "INVITE_CREATE" => {
                let channel = text(d, "channel_id")?;
                self.channel(&channel, &[0])?;
                self.present(&text(&d["inviter"], "id")?)?;
                let code = text(d, "code")?;
                check(self.invites.insert(code.clone(), channel).is_none(), || format!("invite {code} again"))
            }
            "INVITE_DELETE" => {
                let (code, channel) = (text(d, "code")?, text(d, "channel_id")?);
                check(self.invites.remove(&code) == Some(channel), || format!("there is no invite {code}"))
            }
            "THREAD_CREATE" => {
                self.channel(&text(d, "parent_id")?, &[0])?;
                self.present(&text(d, "owner_id")?)?;
                if d["type"] == 12 {
                    // A private thread becomes visible to its members.
                    self.joined_threads.insert(id);
                }
                let mut thread = d.clone();
                thread.as_object_mut().map(|thread| thread.remove("newly_created"));
                thread.as_object_mut().map(|thread| thread.remove("member"));
                fresh(&mut self.threads, &thread, "id")
            }
            "THREAD_UPDATE" => known(&mut self.threads, d, "id", &["parent_id", "type", "owner_id"]),
            "THREAD_DELETE" => {
                let before = self.threads.remove(&id).ok_or_else(|| format!("thread {id} is not there"))?;
                self.messages.retain(|_, message| message.channel != id);
                self.joined_threads.remove(&id);
                check((&before["type"], &before["parent_id"]) == (&d["type"], &d["parent_id"]), || {
                    format!("thread {id} was another")
                })
            }
            "THREAD_LIST_SYNC" => {
                let parents = d["channel_ids"].as_array();
                let reported = by(list(d, "threads")?, "id")?;
                let concerned =
                    |thread: &Value| parents.is_none_or(|parents| parents.contains(&thread["parent_id"]));
                let mine: Vec<_> =
                    self.threads.iter().filter(|(_, thread)| concerned(thread)).map(|(id, _)| id).collect();
                check(mine == reported.keys().collect::<Vec<_>>(), || {
                    format!("threads {:?}, known were {mine:?}", reported.keys())
                })?;
                for member in list(d, "members")? {
                    let thread = text(member, "id")?;
                    check(reported.contains_key(&thread) && self.joined_threads.contains(&thread), || {
                        format!("the bot is not in thread {thread}")
                    })?;
                }
                Ok(())
            }
            "THREAD_MEMBER_UPDATE" => {
                check(self.joined_threads.contains(&id) && user == BOT, || format!("not in thread {id}"))
            }
            "THREAD_MEMBERS_UPDATE" => {
                self.channel(&id, &[11, 12])?;
                for added in d["added_members"].as_array().into_iter().flatten() {
                    self.acts(&text(added, "user_id")?, &added["member"])?;
                    let fits = added["user_id"] != BOT || self.joined_threads.insert(id.clone());
                    check(fits, || format!("the bot is in thread {id} already"))?;
                }
                for removed in d["removed_member_ids"].as_array().into_iter().flatten() {
                    let fits = *removed != BOT || self.joined_threads.remove(&id);
                    check(fits, || format!("the bot was not in thread {id}"))?;
                }
                Ok(())
            }
            "GUILD_UPDATE" => {
                for (field, mine) in
                    [("roles", &self.roles), ("emojis", &self.emojis), ("stickers", &self.stickers)]
                {
                    check(by(list(d, field)?, "id")? == *mine, || format!("other {field} than were told"))?;
                }
                self.present(&text(d, "owner_id")?)
            }
            "GUILD_EMOJIS_UPDATE" => {
                self.emojis = by(list(d, "emojis")?, "id")?;
                Ok(())
            }
            "GUILD_STICKERS_UPDATE" => {
                self.stickers = by(list(d, "stickers")?, "id")?;
                Ok(())
            }
            "GUILD_ROLE_CREATE" => fresh(&mut self.roles, &d["role"], "id"),
            "GUILD_ROLE_UPDATE" => known(&mut self.roles, &d["role"], "id", &["managed"]),
            "GUILD_ROLE_DELETE" => {
                let role = text(d, "role_id")?;
                check(self.roles.remove(&role).is_some(), || format!("role {role} is not there"))?;
                for member in self.members.values_mut() {
                    member["roles"].as_array_mut().unwrap().retain(|id| *id != *role);
                }
                Ok(())
            }
            "GUILD_SCHEDULED_EVENT_CREATE" => {
                self.channel(&text(d, "channel_id")?, &[2, 13])?;
                self.present(&text(d, "creator_id")?)?;
                fresh(&mut self.scheduled, d, "id")
            }
            "GUILD_SCHEDULED_EVENT_UPDATE" => {
                self.channel(&text(d, "channel_id")?, &[2, 13])?;
                known(&mut self.scheduled, d, "id", &["creator_id", "entity_type"])
            }
            "GUILD_SCHEDULED_EVENT_DELETE" => {
                self.subscribers.remove(&id);
                check(self.scheduled.remove(&id).is_some(), || format!("there is no scheduled event {id}"))
            }
            "GUILD_SCHEDULED_EVENT_USER_ADD" | "GUILD_SCHEDULED_EVENT_USER_REMOVE" => {
                let of = text(d, "guild_scheduled_event_id")?;
                check(self.scheduled.contains_key(&of), || format!("there is no scheduled event {of}"))?;
                if event == "GUILD_SCHEDULED_EVENT_USER_ADD" {
                    self.present(&user)?;
                    let users = self.subscribers.entry(of).or_default();
                    return check(users.insert(user.clone()), || format!("{user} is in it already"));
                }
                let was_in = self.subscribers.get_mut(&of).is_some_and(|users| users.remove(&user));
                check(was_in, || format!("{user} was not in it"))
            }
            "STAGE_INSTANCE_CREATE" => {
                let channel = text(d, "channel_id")?;
                self.channel(&channel, &[13])?;
                check(self.stages.values().all(|stage| stage["channel_id"] != *channel), || {
                    "a second one".into()
                })?;
                fresh(&mut self.stages, d, "id")
            }
            "STAGE_INSTANCE_UPDATE" => known(&mut self.stages, d, "id", &["channel_id"]),
            "STAGE_INSTANCE_DELETE" => {
                check(self.stages.remove(&id).is_some(), || format!("there is no stage instance {id}"))
            }
            "GUILD_SOUNDBOARD_SOUND_CREATE" => fresh(&mut self.sounds, d, "sound_id"),
            "GUILD_SOUNDBOARD_SOUND_UPDATE" => known(&mut self.sounds, d, "sound_id", &["guild_id"]),
            "GUILD_SOUNDBOARD_SOUND_DELETE" => {
                let sound = text(d, "sound_id")?;
                check(self.sounds.remove(&sound).is_some(), || format!("there is no sound {sound}"))
            }
            "GUILD_SOUNDBOARD_SOUNDS_UPDATE" => {
                for sound in list(d, "soundboard_sounds")? {
                    known(&mut self.sounds, sound, "sound_id", &["guild_id"])?;
                }
                Ok(())
            }
            "SOUNDBOARD_SOUNDS" => {
                let reported = by(list(d, "soundboard_sounds")?, "sound_id")?;
                check(without(&reported, &["user"]) == without(&self.sounds, &["user"]), || {
                    "other sounds".into()
                })
            }
            "GUILD_INTEGRATIONS_UPDATE" => Ok(()),
            "INTEGRATION_CREATE" | "INTEGRATION_UPDATE" => {
                let application = &d["application"];
                for field in ["id", "name", "icon", "description", "summary"] {
                    check(application.get(field).is_some(), || format!("application without {field}"))?;
                }
                // The integration of the bot exists from the beginning.
                let own = application["id"] == BOT && event == "INTEGRATION_UPDATE";
                let fresh = self.integrations.insert(id.clone());
                check(own || fresh == (event == "INTEGRATION_CREATE"), || format!("integration {id}"))
            }
            "INTEGRATION_DELETE" => {
                check(self.integrations.remove(&id), || format!("there is no integration {id}"))
            }
            "AUTO_MODERATION_RULE_CREATE" => {
                self.present(&text(d, "creator_id")?)?;
                fresh(&mut self.rules, d, "id")
            }
            "AUTO_MODERATION_RULE_UPDATE" => known(&mut self.rules, d, "id", &["creator_id", "trigger_type"]),
            "AUTO_MODERATION_RULE_DELETE" => {
                check(self.rules.remove(&id).is_some(), || format!("there is no rule {id}"))
            }
            "AUTO_MODERATION_ACTION_EXECUTION" => {
                let rule = text(d, "rule_id")?;
                check(self.rules.contains_key(&rule), || format!("there is no rule {rule}"))?;
                self.present(&user)?;
                self.channel(&text(d, "channel_id")?, TEXT)
            }
            "APPLICATION_COMMAND_PERMISSIONS_UPDATE" => {
                for permission in list(d, "permissions")?.iter().filter(|one| one["type"] == 1) {
                    let role = text(permission, "id")?;
                    check(self.roles.contains_key(&role), || format!("{role} is no role"))?;
                }
                Ok(())
            }
            "INTERACTION_CREATE" => {
                self.acts(&text(&d["member"]["user"], "id")?, &d["member"])?;
                self.channel(&text(d, "channel_id")?, TEXT)
            }
            // These events are undocumented, or concern no object.
            "RATE_LIMITED" | "GUILD_JOIN_REQUEST_UPDATE" | "GUILD_APPLICATION_COMMAND_INDEX_UPDATE" => Ok(()),
            _ => Err("an unknown event".to_owned()),
        }
    }
}
