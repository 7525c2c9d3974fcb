//! Messages, and the channels that hold the newest of them.

use std::collections::VecDeque;

use fastrand::Rng;
use serde_json::{Value, json};

use super::ids::{self, Kind};
use super::json::extend;
use super::member::Member;
use super::words::words;

/// How many messages a channel remembers. Older ones are unknown to REST, and no event concerns them.
const WINDOW: usize = 16;
/// The most reactions, and the most votes, that generated events add to a message.
pub(super) const MAX_REACTIONS: usize = 8;
pub(crate) const EMOJIS: [&str; 4] = ["🦆", "👍", "🎉", "🐢"];
/// The number of answers of a poll. Their ids begin at 1.
pub(super) const ANSWERS: u64 = 3;

/// The messages of a text channel, a thread or a direct channel.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) id: u64,
    pub(crate) messages: VecDeque<Message>,
    /// The id of the newest message ever, deleted or not.
    pub(crate) last_message: Option<u64>,
}

impl Room {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, messages: VecDeque::new(), last_message: None }
    }

    pub(crate) fn push(&mut self, message: Message) {
        if self.messages.len() == WINDOW {
            self.messages.pop_front();
        }
        self.last_message = Some(message.id);
        self.messages.push_back(message);
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Message> {
        self.messages.iter().find(|message| message.id == id)
    }

    pub(crate) fn find(&mut self, id: u64) -> Option<&mut Message> {
        self.messages.iter_mut().find(|message| message.id == id)
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Message> {
        let place = self.messages.iter().position(|message| message.id == id)?;
        self.messages.remove(place)
    }
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: u64,
    pub(crate) author: Member,
    /// The number of the event that created the message.
    number: u64,
    /// The number of the event that last edited the message.
    edited: Option<u64>,
    body: Body,
    pub(crate) reactions: Vec<Reaction>,
    /// Each voter with the id of the answer.
    pub(super) votes: Vec<(Member, u64)>,
}

#[derive(Debug)]
enum Body {
    /// A text computed from a seed, so that the message costs no memory for it.
    Words(u64),
    /// The fields that the bot posted.
    Posted(Box<Value>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reaction {
    /// A Unicode emoji, or `name:id` of an emoji of the guild.
    pub(crate) emoji: Box<str>,
    pub(crate) user: Member,
}

impl Reaction {
    /// The emoji object of events and REST.
    pub(crate) fn emoji(emoji: &str) -> Value {
        match emoji.split_once(':') {
            Some((name, id)) => json!({"id": id, "name": name}),
            None => json!({"id": null, "name": emoji}),
        }
    }
}

impl Message {
    pub(super) fn new(number: u64, author: Member, random: &mut Rng) -> Self {
        Self::made(number, author, Body::Words(random.u64(..)))
    }

    /// A message that the bot posted with these fields.
    pub(crate) fn posted(number: u64, fields: Value) -> Self {
        Self::made(number, Member::Bot, Body::Posted(Box::new(fields)))
    }

    fn made(number: u64, author: Member, body: Body) -> Self {
        let id = ids::made_by(number, Kind::Message);
        Self { id, author, number, edited: None, body, reactions: Vec::new(), votes: Vec::new() }
    }

    /// Edits the message. A message that the bot posted gets the new values of these fields.
    pub(crate) fn edit(&mut self, number: u64, fields: Option<Value>) {
        self.edited = Some(number);
        match (&mut self.body, fields) {
            (Body::Posted(posted), Some(fields)) => extend(posted, fields),
            (Body::Words(seed), _) => *seed = seed.wrapping_add(1),
            (Body::Posted(_), None) => {}
        }
    }

    /// Whether the message mentions the bot, as one in twenty does. The bot then sees its content in any case
    /// (GW-184).
    pub(super) fn mentions_bot(&self) -> bool {
        matches!(self.body, Body::Words(_)) && self.number.is_multiple_of(20)
    }

    pub(super) fn has_poll(&self) -> bool {
        matches!(self.body, Body::Words(_)) && self.number % 8 == 3
    }

    /// The message object, without the fields that depend on its guild.
    pub(crate) fn object(&self, channel: u64) -> Value {
        let id = self.id.to_string();
        let mut data = json!({
            "id": id, "type": 0, "tts": false, "timestamp": ids::timestamp(self.number), "pinned": false, "nonce": id,
            "mentions": [], "mention_roles": [], "mention_everyone": false, "flags": 0, "embeds": [],
            "edited_timestamp": self.edited.map(ids::timestamp), "content": "", "components": [],
            "channel_id": channel.to_string(), "author": self.author.user(), "attachments": [],
        });
        match &self.body {
            Body::Posted(fields) => extend(&mut data, Value::clone(fields)),
            Body::Words(seed) => self.decorate(&mut data, &mut Rng::with_seed(*seed)),
        }
        data
    }

    fn decorate(&self, data: &mut Value, random: &mut Rng) {
        let count = random.usize(3..60);
        data["content"] = words(count, random).into();
        if self.number.is_multiple_of(25) {
            data["embeds"] = json!([{
                "type": "rich", "title": words(3, random), "description": words(12, random), "color": 5_814_783,
                "fields": [{"name": "status", "value": "green", "inline": true}],
            }]);
            data["attachments"] = json!([{
                "id": ids::made_by(self.number, Kind::Other).to_string(), "filename": "duck.png", "size": 1234,
                "width": 64, "height": 64, "url": "https://cdn.sim.invalid/duck.png",
                "proxy_url": "https://media.sim.invalid/duck.png", "content_type": "image/png",
            }]);
        }
        if self.has_poll() {
            let answers = (1..=ANSWERS)
                .map(|answer| json!({"answer_id": answer, "poll_media": {"text": format!("plan {answer}")}}));
            data["poll"] = json!({
                "question": {"text": "which one?"}, "answers": answers.collect::<Vec<_>>(), "layout_type": 1,
                "expiry": ids::timestamp(self.number + 86_400_000), "allow_multiselect": true,
            });
        }
    }

    /// The `reactions` of a message object in REST.
    pub(crate) fn reaction_counts(&self) -> Value {
        let mut counts: Vec<Value> = Vec::new();
        for (place, reaction) in self.reactions.iter().enumerate() {
            if self.reactions[..place].iter().any(|earlier| earlier.emoji == reaction.emoji) {
                continue;
            }
            let mine = self.reactions.iter().filter(|other| other.emoji == reaction.emoji);
            let count = mine.clone().count();
            counts.push(json!({
                "emoji": Reaction::emoji(&reaction.emoji), "count": count, "burst_colors": [], "me_burst": false,
                "me": mine.clone().any(|reaction| reaction.user == Member::Bot),
                "count_details": {"burst": 0, "normal": count}, "burst_me": false, "burst_count": 0,
            }));
        }
        counts.into()
    }
}
