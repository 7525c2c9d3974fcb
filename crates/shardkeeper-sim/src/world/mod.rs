//! The guilds of the simulated Discord, and the events in them.

mod account;
mod audience;
mod bot;
mod channels;
mod commands;
mod event_data;
mod events;
mod guild;
mod ids;
mod json;
mod member;
mod message;
mod objects;
mod words;

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::Value;

pub(crate) use self::account::direct_channel;
use self::account::{Account, user_of_direct};
pub(crate) use self::audience::{Audience, Place, seen_by};
pub(crate) use self::bot::{application, application_flags, bot_user};
use self::commands::Commands;
pub(crate) use self::event_data::{emoji_cleared, reaction_added, reaction_data, typed, voice_server};
use self::events::{EVENTS, Scene};
pub(crate) use self::guild::{Guild, Voice};
pub(crate) use self::ids::{BOT, seconds};
pub(crate) use self::json::{reversed, without};
pub(crate) use self::member::Member;
pub(crate) use self::message::{Message, Reaction, Room};
use crate::config::Mix;

/// Everything that exists on the simulated Discord, apart from sessions.
#[derive(Debug)]
pub(crate) struct World {
    guilds: Vec<Guild>,
    account: Account,
    /// The guilds in which the bot is in voice.
    bot_voices: BTreeSet<usize>,
    pub(crate) commands: Commands,
    /// How many events have happened. The last one has this number.
    events: u64,
    mix: Mix,
    total_weight: u32,
}

/// An event that has changed the world.
pub(crate) struct Happening {
    pub(crate) event: &'static str,
    pub(crate) place: Place,
    pub(crate) data: Value,
}

impl World {
    pub(crate) fn new(guilds: u32, large: u32, mix: Mix, random: &mut Rng) -> Self {
        let guilds = (0..u64::from(guilds)).map(|place| Guild::new(place, large, random)).collect();
        let total_weight = EVENTS.iter().map(|(_, weight, ..)| mix.weight(*weight)).sum();
        Self {
            guilds,
            account: Account::default(),
            bot_voices: BTreeSet::new(),
            commands: Commands::default(),
            events: 0,
            mix,
            total_weight,
        }
    }

    /// The number of the next event, which counts as happened from now on.
    pub(crate) fn next_event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    /// The guilds of a shard, as far as the bot is a member.
    pub(crate) fn of_shard(&self, shard: u32, count: u32) -> Vec<usize> {
        let owned = |place: &usize| self.guilds[*place].joined && self.shard_of(*place, count) == shard;
        (0..self.guilds.len()).filter(owned).collect()
    }

    /// The shard of a guild: `(guild_id >> 22) % count` (GW-227).
    pub(crate) fn shard_of(&self, place: usize, count: u32) -> u32 {
        // The remainder is below `count`, so it fits into 32 bits.
        ((self.guilds[place].id >> 22) % u64::from(count.max(1))) as u32
    }

    pub(crate) fn guilds(&self) -> &[Guild] {
        &self.guilds
    }

    pub(crate) fn guild(&self, place: usize) -> &Guild {
        &self.guilds[place]
    }

    pub(crate) fn guild_mut(&mut self, place: usize) -> &mut Guild {
        &mut self.guilds[place]
    }

    /// The guild with this id, if the bot is a member.
    pub(crate) fn find(&self, id: u64) -> Option<usize> {
        self.guilds.iter().position(|guild| guild.id == id && guild.joined)
    }

    /// The guild that has this channel or thread, if the bot is a member and may view the channel.
    pub(crate) fn find_channel(&self, id: u64) -> Option<usize> {
        self.guilds.iter().position(|guild| guild.joined && guild.channel(id).is_some())
    }

    /// The user whose direct channel this is, if the bot shares a guild with them.
    pub(crate) fn find_direct(&self, id: u64) -> Option<Member> {
        let user = user_of_direct(id)?;
        self.guilds.iter().any(|guild| guild.joined && guild.has(user)).then_some(user)
    }

    /// Moves the bot's voice connection in a guild, or, with `None`, ends it. The connection belongs to the session
    /// that moved it last (GW-207). Returns the data of the VOICE_STATE_UPDATE; `None` if nothing changes.
    pub(crate) fn move_bot(&mut self, place: usize, session: &str, to: Option<Voice>) -> Option<Value> {
        let guild = &mut self.guilds[place];
        let now = seconds(self.events);
        if !guild.move_voice(Member::Bot, to, now) {
            return None;
        }
        if to.is_some() {
            guild.bot_session = Some(session.to_owned());
            self.bot_voices.insert(place);
        } else {
            self.bot_voices.remove(&place);
        }
        Some(guild.voice_state(Member::Bot, to))
    }

    /// The guilds in which the bot is in voice, each with the session that its connection belongs to.
    pub(crate) fn bot_voices(&self) -> impl Iterator<Item = (usize, &str)> {
        self.bot_voices.iter().filter_map(|place| Some((*place, self.guilds[*place].bot_session.as_deref()?)))
    }

    pub(crate) fn account(&mut self) -> &mut Account {
        &mut self.account
    }

    /// Makes a random event happen in this guild or outside of any, or the one that is named. Returns `None`
    /// if the bot has no access to the guild, or if the event cannot happen now.
    pub(crate) fn happening(
        &mut self,
        place: usize,
        number: u64,
        named: Option<&str>,
        random: &mut Rng,
    ) -> Option<Happening> {
        /// When an event cannot happen now, another random one is tried, up to this many in all.
        const TRIES: usize = 8;
        let guild = &mut self.guilds[place];
        if !guild.joined || !guild.is_available() {
            return None;
        }
        for _ in 0..TRIES {
            let (event, _, scope, make) = match named {
                Some(name) => EVENTS.iter().find(|(event, ..)| *event == name)?,
                None => pick(self.mix, random.u32(0..self.total_weight))?,
            };
            let commands = self.commands.first();
            let account = &mut self.account;
            let data = make(&mut Scene { guild, account, commands, random, number });
            if !data.is_null() {
                return Some(Happening { event, place: *scope, data });
            }
        }
        None
    }
}

/// Whether the simulator can generate events of this name.
pub(crate) fn makes(event: &str) -> bool {
    EVENTS.iter().any(|(name, ..)| *name == event)
}

/// The entry of [`EVENTS`] at this point of the total weight.
fn pick(mix: Mix, mut at: u32) -> Option<&'static (&'static str, u32, Place, events::Make)> {
    EVENTS.iter().find(|(_, weight, ..)| {
        let weight = mix.weight(*weight);
        let here = at < weight;
        at = at.saturating_sub(weight);
        here
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::intents;

    const EVERYTHING: Audience = Audience { intents: intents::DOCUMENTED, large_threshold: 50 };

    fn world(guilds: u32) -> World {
        World::new(guilds, 1200, Mix::Busy, &mut Rng::with_seed(1))
    }

    #[test]
    fn gw_227_guilds_spread_evenly_over_any_number_of_shards() {
        let world = world(480);
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
        let mut world = world(50);
        let sizes: Vec<usize> =
            world.guilds.iter().map(|guild| guild.create(EVERYTHING, true).to_string().len()).collect();
        assert!(*sizes.iter().min().unwrap() > 5_000 && *sizes.iter().max().unwrap() > 150_000, "{sizes:?}");
        let total: usize = (0..1000)
            .filter_map(|number| world.happening(number as usize % 50, number, None, &mut random))
            .map(|happening| happening.data.to_string().len())
            .sum();
        assert!((500..1500).contains(&(total / 1000)), "{}", total / 1000);
    }

    #[test]
    fn whatever_happens_a_guild_stays_bounded() {
        let mut random = Rng::with_seed(3);
        let mut world = World::new(1, 50, Mix::Everything, &mut random);
        let size = |world: &World| world.guild(0).create(EVERYTHING, true).to_string().len();
        let before = size(&world);
        for number in 0..50_000 {
            world.happening(0, number, None, &mut random);
            if number % 1000 == 0 {
                let guild = world.guild(0);
                assert!(size(&world) < before + 20_000, "{} after {before}", size(&world));
                assert!(guild.rooms().count() <= 16 && guild.rooms().all(|room| room.messages.len() <= 16));
            }
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_world() {
        let make = || {
            let mut random = Rng::with_seed(9);
            let mut world = World::new(5, 100, Mix::Everything, &mut random);
            let events: Vec<String> = (0..200)
                .filter_map(|number| world.happening(3, number, None, &mut random))
                .map(|happening| format!("{} {}", happening.event, happening.data))
                .collect();
            format!("{} {events:?}", world.guild(4).create(EVERYTHING, true))
        };
        assert_eq!(make(), make());
    }

    #[test]
    fn gw_184_content_is_hidden_but_from_those_it_concerns() {
        let text = |data: &Value, intents| {
            let seen = seen_by("MESSAGE_CREATE", data, Place::Guild, intents).unwrap();
            seen["content"].as_str().unwrap().to_owned()
        };
        let without = intents::DOCUMENTED & !intents::MESSAGE_CONTENT;
        let message = |author: Member| json!({"content": "secret", "mentions": [], "author": author.user()});
        let human = message(Member::Human(1));
        assert_eq!(text(&human, intents::DOCUMENTED), "secret");
        assert_eq!(text(&human, without), "");
        let own = message(Member::Bot);
        assert_eq!(text(&own, without), "secret");
        let mut mention = human.clone();
        mention["mentions"] = json!([Member::Bot.user()]);
        assert_eq!(text(&mention, without), "secret");
        let direct = seen_by("MESSAGE_CREATE", &human, Place::Elsewhere, without).unwrap();
        assert_eq!(direct["content"], "secret");
    }

    #[test]
    fn gw_256_257_who_is_listed_depends_on_intents_and_size() {
        let mut world = world(1);
        let guild = world.guild_mut(0);
        guild.voice.clear();
        let listed = |guild: &Guild, intents: u64, threshold: u32| {
            let created = guild.create(Audience { intents, large_threshold: threshold }, true);
            (created["members"].as_array().unwrap().len(), created["large"].as_bool().unwrap())
        };
        guild.set_member_count(100);
        assert_eq!(listed(guild, intents::DOCUMENTED, 250), (100, false));
        assert_eq!(listed(guild, intents::DOCUMENTED & !intents::GUILD_PRESENCES, 250), (1, false));
        // GW-072: a guild above `large_threshold` does not list offline members.
        let (online, large) = listed(guild, intents::DOCUMENTED, 50);
        assert!((45..60).contains(&online) && large, "online, or with a role: {online}");
        guild.set_member_count(75_001);
        assert_eq!(listed(guild, intents::DOCUMENTED, 250), (1, true));
    }

    #[test]
    fn gw_183_the_bots_own_member_is_sent_without_the_intent() {
        let of = |member: Member| json!({"user": member.user(), "guild_id": "1"});
        let seen = |member| seen_by("GUILD_MEMBER_UPDATE", &of(member), Place::Guild, intents::GUILDS);
        assert!(seen(Member::Bot).is_some() && seen(Member::Human(3)).is_none());
    }
}
