//! One guild: its parts, its members, and the changes that events make.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use serde_json::Value;

use super::ids::{self, Kind};
use super::member::Member;
use super::message::Room;
use super::words::words;

/// How many humans are absent at first, so that members can join.
const STRANGERS: u64 = 4;
/// How many members may have a nickname, role or presence other than the computed one.
const MAX_CHANGED: usize = 32;
const STATUSES: [&str; 4] = ["online", "idle", "dnd", "offline"];

/// A guild with everything that belongs to it. Its size is bounded: `events` makes only a handful of each
/// kind.
#[derive(Debug)]
pub(crate) struct Guild {
    place: u64,
    pub(crate) id: u64,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) category: u64,
    pub(super) text: Vec<Text>,
    pub(crate) voice_channels: [u64; 2],
    pub(super) stage_channel: u64,
    /// A channel that the bot may not view (GW-274); `None` if there is none, or the bot has gained access.
    pub(super) hidden: Option<u64>,
    /// All but `@everyone`. The first one is managed by the bot's integration; a quarter of the members has
    /// it too.
    pub(super) roles: Vec<Role>,
    pub(super) emojis: Vec<u64>,
    pub(super) stickers: Vec<u64>,
    pub(super) sounds: Vec<Sound>,
    pub(super) threads: Vec<Thread>,
    pub(super) scheduled: Vec<Scheduled>,
    pub(super) stage: Option<Stage>,
    pub(super) invites: Vec<Invite>,
    /// Ids of integrations, of which the first one is the bot's own.
    pub(super) integrations: Vec<u64>,
    pub(super) rules: Vec<Rule>,
    /// How many humans the guild has, members and absent ones. Their numbers begin at [`Self::first`].
    population: u64,
    /// The numbers of humans who are not members now.
    pub(super) absent: BTreeSet<u64>,
    /// A subset of `absent`.
    pub(super) banned: BTreeSet<u64>,
    changed: BTreeMap<u64, Changed>,
    /// The voice connections, by user id.
    pub(crate) voice: BTreeMap<u64, Voice>,
    pub(super) voice_status: Option<String>,
    /// When the first voice channel stopped being empty, in Unix seconds; `None` while it is empty.
    pub(super) voice_start: Option<u64>,
    /// The id of the session that the bot's voice connection belongs to (GW-207).
    pub(super) bot_session: Option<String>,
    /// The data of the bot's last PRESENCE_UPDATE, caused by op 3.
    pub(crate) bot_presence: Option<Value>,
    /// Whether the bot is a member.
    pub(crate) joined: bool,
    /// How many outages of the guild overlap now. The guild is available when there are none.
    pub(crate) outages: u32,
}

#[derive(Debug)]
pub(crate) struct Text {
    pub(super) room: Room,
    pub(super) topic: Option<String>,
    /// The number of the event that last pinned a message.
    pub(super) pinned: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Thread {
    pub(super) room: Room,
    pub(super) parent: u64,
    pub(super) owner: Member,
    pub(super) private: bool,
    pub(super) name: String,
    /// Whether the bot is a member of the thread.
    pub(super) joined: bool,
    /// How many messages were ever sent in it.
    pub(super) sent: u64,
    /// The number of the event that created the thread.
    pub(super) made: u64,
}

#[derive(Debug)]
pub(crate) struct Role {
    pub(super) id: u64,
    pub(super) color: u32,
}

#[derive(Debug)]
pub(crate) struct Sound {
    pub(super) id: u64,
    /// The volume in quarters, 1 to 4.
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

/// The values of a member that differ from the computed ones.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// The number in the nickname.
    pub(super) nick: Option<u64>,
    pub(super) role: Option<u64>,
    /// An index of [`STATUSES`], and the seed of the activity.
    pub(super) presence: Option<(usize, Option<u64>)>,
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

impl Thread {
    pub(super) fn new(id: u64, made: u64, parent: u64, owner: Member, private: bool) -> Self {
        let (room, name) = (Room::new(id), "ideas".to_owned());
        // The bot sees a private thread only because it is a member of it.
        Self { room, parent, owner, private, name, joined: private, sent: 0, made }
    }
}

impl Guild {
    pub(super) fn new(place: u64, large: u32, random: &mut Rng) -> Self {
        let first = place * ids::PER_GUILD;
        let made = |kind: Kind, number: u64| ids::make(first + number, kind);
        let name = format!("Guild {}", words(2, random));
        // Every tenth guild is large, beginning with the first.
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
            // The second channel takes one member only, so one here makes it full.
            voice: (1..=in_voice)
                .map(|number| {
                    let channel = voice_channels[usize::from(number == 2)];
                    (Member::Human(first + number).id(), Voice::of_human(channel))
                })
                .collect(),
            voice_status: Some("standup".to_owned()),
            voice_start: (in_voice > 0).then(|| ids::seconds(0)),
            bot_session: None,
            bot_presence: None,
            joined: true,
            outages: 0,
        }
    }

    /// Sets the number of members, with the bot.
    #[cfg(test)]
    pub(crate) fn set_member_count(&mut self, count: u32) {
        self.population = u64::from(count) - 1;
        self.absent.clear();
    }

    pub(crate) fn is_available(&self) -> bool {
        self.outages == 0
    }

    /// The number of members, with the bot.
    pub(crate) fn member_count(&self) -> u32 {
        u32::try_from(self.population + 1 - self.absent.len() as u64).unwrap_or(u32::MAX)
    }

    /// The number of the guild's first human, who is the owner.
    fn first(&self) -> u64 {
        self.place * ids::PER_GUILD
    }

    /// All members except the bot.
    pub(crate) fn humans(&self) -> impl Iterator<Item = Member> {
        let all = self.first()..self.first() + self.population;
        all.filter(|index| !self.absent.contains(index)).map(Member::Human)
    }

    /// A random member, not the bot. The loop is short, since at least about half of the humans are members.
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

    /// The absent human with this id: one who was a member, or may become one.
    pub(crate) fn former(&self, id: u64) -> Option<Member> {
        ids::made_at(id, Kind::User).filter(|index| self.absent.contains(index)).map(Member::Human)
    }

    /// Whether this human belongs to the guild, as a member or as an absent one.
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

    /// Removes a human from the members, with everything that was changed about them.
    pub(super) fn leave(&mut self, index: u64) {
        self.absent.insert(index);
        self.changed.remove(&index);
    }

    /// A random member whose values may be changed. Once [`MAX_CHANGED`] members are, it is one of those.
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

    /// Gives a random member another nickname or role.
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

    /// Changes the presence of a random member.
    pub(super) fn change_presence(&mut self, random: &mut Rng) -> Member {
        let status = random.usize(..STATUSES.len());
        let activity = (random.bool() && STATUSES[status] != "offline").then(|| random.u64(..));
        let (member, changed) = self.changeable(random);
        changed.presence = Some((status, activity));
        member
    }

    /// Deletes a role and takes it from every member. Returns the id of the role.
    pub(super) fn delete_role(&mut self, place: usize) -> u64 {
        let role = self.roles.remove(place);
        for changed in self.changed.values_mut() {
            changed.role = changed.role.filter(|id| *id != role.id);
        }
        role.id
    }

    pub(super) fn changes(&self, member: Member) -> Option<&Changed> {
        match member {
            Member::Bot => None,
            Member::Human(index) => self.changed.get(&index),
        }
    }

    /// The status of a member. A third of the humans is online, unless their presence was changed.
    pub(super) fn status(&self, member: Member) -> &'static str {
        match (self.changes(member).and_then(|changed| changed.presence), member) {
            (Some((status, _)), _) => STATUSES[status],
            (None, Member::Human(index)) if index % 3 != 0 => "offline",
            (None, _) => "online",
        }
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

    /// Moves a member to another voice channel, or, with `None`, out of voice. Returns whether that is a
    /// change.
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
}

impl Text {
    pub(super) fn new(id: u64) -> Self {
        Self { room: Room::new(id), topic: None, pinned: None }
    }
}
