//! Everything that the handler of an event may read and change.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::world::account::Account;
use crate::world::guild::Guild;
use crate::world::ids::{self, Kind};
use crate::world::json::with;
use crate::world::member::Member;
use crate::world::message::Message;

/// Handlers create no more than this many of each smaller kind of object per guild (threads, invites, rules,
/// …).
pub(super) const MAX_OTHERS: usize = 4;

/// The guild of an event, and what else its handler needs.
pub(in crate::world) struct Scene<'a> {
    pub(in crate::world) guild: &'a mut Guild,
    pub(in crate::world) account: &'a mut Account,
    /// The application commands that the bot has registered.
    pub(in crate::world) commands: &'a [Value],
    pub(in crate::world) random: &'a mut Rng,
    /// The number of this event over the simulator's life.
    pub(in crate::world) number: u64,
}

impl Scene<'_> {
    pub(super) fn member(&mut self) -> Member {
        self.guild.any_human(self.random)
    }

    pub(super) fn new_id(&self, kind: Kind) -> u64 {
        ids::made_by(self.number, kind)
    }

    pub(super) fn in_guild(&self, data: Value) -> Value {
        with(data, json!({"guild_id": self.guild.id.to_string()}))
    }

    /// A random text channel or thread.
    pub(super) fn channel(&mut self) -> u64 {
        let count = self.guild.rooms().count();
        let place = self.random.usize(..count);
        self.guild.rooms().nth(place).map_or(0, |room| room.id)
    }

    pub(super) fn text_channel(&mut self) -> u64 {
        self.guild.text[self.random.usize(..self.guild.text.len())].room.id
    }

    /// A message of this guild that satisfies `holds`: its channel, and its index among the messages there.
    pub(super) fn any_message(&mut self, holds: impl Fn(&Guild, &Message) -> bool) -> Option<(u64, usize)> {
        let count = self.guild.rooms().count();
        let first = self.random.usize(..count);
        let rooms = self.guild.rooms().skip(first).chain(self.guild.rooms().take(first));
        for room in rooms {
            let messages = room.messages.len();
            let first = if messages > 0 { self.random.usize(..messages) } else { 0 };
            let mut places = (first..messages).chain(0..first);
            if let Some(place) = places.find(|place| holds(self.guild, &room.messages[*place])) {
                return Some((room.id, place));
            }
        }
        None
    }

    /// The message that `any_message` has found.
    pub(super) fn at(&mut self, channel: u64, place: usize) -> Option<&mut Message> {
        self.guild.room_mut(channel)?.messages.get_mut(place)
    }

    /// Adds the ids of the guild, channel and message to the data of an event.
    pub(super) fn of_message(&self, channel: u64, message: u64, data: Value) -> Value {
        let more = json!({"channel_id": channel.to_string(), "message_id": message.to_string()});
        with(self.in_guild(data), more)
    }
}

/// A random index of a list of `count` entries, excluding the first `kept`, which must stay.
pub(super) fn one_beyond(kept: usize, count: usize, random: &mut Rng) -> Option<usize> {
    (count > kept).then(|| random.usize(kept..count))
}
