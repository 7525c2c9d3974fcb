//! Messages and reactions over REST. As at Discord, the bot's own changes come back as events.

use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::reply::{Answer, no_content, number, ok, parameter, refusal, unknown};
use crate::discord::State;
use crate::world::{self, Member, Message, Reaction, Room};

const MAX_CONTENT_CHARS: usize = 2000;
/// The most JSON that is stored of a message.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// The most reactions per message, of all users. Discord allows 20 different emojis.
const MAX_REACTIONS: usize = 20;
const MAX_EMOJI_BYTES: usize = 64;
/// The fields of a posted message that are stored and come back.
const KEPT: [&str; 7] = ["content", "embeds", "components", "flags", "tts", "nonce", "message_reference"];

/// A channel that has messages.
struct Spot {
    /// The guild; `None` for a direct channel.
    guild: Option<usize>,
    channel: u64,
}

/// Answers a request about messages; `None` for any other route.
pub(super) fn route(
    state: &mut State,
    method: &Method,
    parts: &[&str],
    query: &str,
    body: &Value,
) -> Option<Answer> {
    let ["channels", channel, rest @ ..] = parts else { return None };
    if !matches!(rest, ["messages" | "typing", ..]) {
        return None;
    }
    let mut desk = match Spot::find(state, channel, *method == Method::GET) {
        Ok(spot) => Desk { state, spot },
        Err(refused) => return Some(refused),
    };
    let answer = match (method, rest) {
        (&Method::POST, ["typing"]) => Ok(desk.typing()),
        (&Method::GET, ["messages"]) => Ok(desk.list(query)),
        (&Method::POST, ["messages"]) => desk.post(body),
        (&Method::POST, ["messages", "bulk-delete"]) => desk.delete_many(body),
        (&Method::GET, ["messages", id]) => desk.get(id),
        (&Method::PATCH, ["messages", id]) => desk.edit(id, body),
        (&Method::DELETE, ["messages", id]) => desk.delete(id),
        (_, ["messages", id, "reactions", which @ ..]) => desk.reactions(method, id, which)?,
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refused| refused))
}

impl Spot {
    fn find(state: &mut State, id: &str, only_reads: bool) -> Result<Self, Answer> {
        let channel = number(id).ok_or_else(|| unknown("Channel", 10003))?;
        if state.world.find_direct(channel).is_some() {
            return Ok(Self { guild: None, channel });
        }
        let guild = state.world.find_channel(channel).ok_or_else(|| unknown("Channel", 10003))?;
        let found = state.world.guild(guild);
        if found.room(channel).is_none() {
            return Err(refusal(
                StatusCode::BAD_REQUEST,
                50008,
                "Cannot send messages in a non-text channel",
            ));
        }
        if !only_reads && !found.is_available() {
            // Nothing can change in a guild during an outage.
            return Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, 0, "500: Internal Server Error"));
        }
        Ok(Self { guild: Some(guild), channel })
    }
}

/// The channel of a request, and everything that its handler may change.
struct Desk<'a> {
    state: &'a mut State,
    spot: Spot,
}

impl Desk<'_> {
    fn room(&mut self) -> Result<&mut Room, Answer> {
        let channel = self.spot.channel;
        match self.spot.guild {
            None => Ok(self.state.world.account().direct(channel)),
            Some(place) => {
                let room = self.state.world.guild_mut(place).room_mut(channel);
                room.ok_or_else(|| unknown("Channel", 10003))
            }
        }
    }

    fn message(&mut self, id: &str) -> Result<&mut Message, Answer> {
        let id = number(id).ok_or_else(|| unknown("Message", 10008))?;
        self.room()?.find(id).ok_or_else(|| unknown("Message", 10008))
    }

    fn get(&mut self, id: &str) -> Result<Answer, Answer> {
        let channel = self.spot.channel;
        self.message(id).map(|message| ok(object(channel, message)))
    }

    /// Publishes an event of this channel, with the ids of the channel and the guild.
    fn publish(&mut self, event: &str, mut data: Value) {
        data["channel_id"] = self.spot.channel.to_string().into();
        if let Some(place) = self.spot.guild {
            data["guild_id"] = self.state.world.guild(place).id.to_string().into();
        }
        self.state.publish(event, self.spot.guild, &data);
    }

    fn typing(&mut self) -> Answer {
        let number = self.state.world.next_event();
        let data = match self.spot.guild {
            Some(place) => {
                world::typed(self.state.world.guild(place), Member::Bot, self.spot.channel, number)
            }
            None => json!({"user_id": world::BOT.to_string(), "timestamp": world::seconds(number)}),
        };
        self.publish("TYPING_START", data);
        no_content()
    }

    /// Lists the remembered messages, newest first.
    fn list(&mut self, query: &str) -> Answer {
        let limit = parameter(query, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(50);
        let bound = |name: &str| parameter(query, name).and_then(number);
        let (before, after) = (bound("before").unwrap_or(u64::MAX), bound("after").unwrap_or(0));
        let channel = self.spot.channel;
        match self.room() {
            Err(refused) => refused,
            Ok(room) => {
                let wanted = room.messages.iter().rev().filter(|one| (after + 1..before).contains(&one.id));
                ok(wanted.take(limit).map(|message| object(channel, message)).collect::<Vec<_>>().into())
            }
        }
    }

    /// Posts a message of the bot, which comes back as MESSAGE_CREATE.
    fn post(&mut self, body: &Value) -> Result<Answer, Answer> {
        let fields = fields(body)?;
        let is_empty = |field: &str| match &fields[field] {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            value => value.as_array().is_some_and(Vec::is_empty),
        };
        // The body of a form (with attachments) is not read, so it does not count as empty.
        if body.is_object() && ["content", "embeds", "components"].into_iter().all(is_empty) {
            return Err(refusal(StatusCode::BAD_REQUEST, 50006, "Cannot send an empty message"));
        }
        let message = Message::posted(self.state.world.next_event(), fields);
        let answer = message.object(self.spot.channel);
        let event = match self.spot.guild {
            Some(place) => self.state.world.guild_mut(place).say(self.spot.channel, message),
            None => {
                self.room()?.push(message);
                let mut event = answer.clone();
                event["channel_type"] = 1.into();
                event
            }
        };
        self.publish("MESSAGE_CREATE", event);
        Ok(ok(answer))
    }

    fn edit(&mut self, id: &str, body: &Value) -> Result<Answer, Answer> {
        let fields = fields(body)?;
        let (number, channel) = (self.state.world.next_event(), self.spot.channel);
        let message = self.message(id)?;
        if message.author != Member::Bot {
            let why = "Cannot edit a message authored by another user";
            return Err(refusal(StatusCode::FORBIDDEN, 50005, why));
        }
        message.edit(number, Some(fields));
        let id = message.id;
        let (answer, mut event) = (object(channel, message), message.object(channel));
        event["channel_type"] = 1.into();
        if let Some(place) = self.spot.guild {
            let guild = self.state.world.guild(place);
            event = guild
                .room(channel)
                .and_then(|room| room.get(id))
                .map_or(event, |one| guild.message(channel, one));
        }
        self.publish("MESSAGE_UPDATE", event);
        Ok(ok(answer))
    }

    fn delete(&mut self, id: &str) -> Result<Answer, Answer> {
        let message = self.message(id)?;
        let (id, author) = (message.id, message.author);
        if self.spot.guild.is_none() && author != Member::Bot {
            return Err(refusal(StatusCode::FORBIDDEN, 50003, "Cannot execute action on a DM channel"));
        }
        self.room()?.remove(id);
        self.publish("MESSAGE_DELETE", json!({"id": id.to_string()}));
        Ok(no_content())
    }

    /// Deletes several messages. Unknown ids are ignored, as at Discord.
    fn delete_many(&mut self, body: &Value) -> Result<Answer, Answer> {
        let ids: Vec<u64> = body["messages"].as_array().into_iter().flatten().filter_map(id).collect();
        if !(2..=100).contains(&ids.len()) || self.spot.guild.is_none() {
            return Err(refusal(
                StatusCode::BAD_REQUEST,
                50016,
                "Provided too few or too many messages to delete",
            ));
        }
        let room = self.room()?;
        let gone = ids.into_iter().filter_map(|id| room.remove(id)).map(|message| message.id.to_string());
        let gone: Vec<String> = gone.collect();
        if !gone.is_empty() {
            self.publish("MESSAGE_DELETE_BULK", json!({"ids": gone}));
        }
        Ok(no_content())
    }

    /// Answers a request about reactions. `which` is the rest of the path: empty, an emoji, or an emoji and a
    /// user.
    fn reactions(&mut self, method: &Method, id: &str, which: &[&str]) -> Option<Result<Answer, Answer>> {
        let emoji = match which.first().map(|emoji| self.emoji(emoji)) {
            None => None,
            Some(Ok(emoji)) => Some(emoji),
            Some(Err(refused)) => return Some(Err(refused)),
        };
        Some(match (method, emoji, which) {
            (&Method::PUT, Some(emoji), [_, "@me"]) => self.react(id, emoji),
            (&Method::GET, Some(emoji), [_]) => self.message(id).map(|message| {
                let mine = message.reactions.iter().filter(|reaction| reaction.emoji == emoji);
                ok(mine.map(|reaction| reaction.user.user()).collect::<Vec<_>>().into())
            }),
            (&Method::DELETE, Some(emoji), [_, user]) => self.take_back(id, emoji, user),
            (&Method::DELETE, emoji, [] | [_]) => self.clear(id, emoji),
            _ => return None,
        })
    }

    /// Reads an emoji from a path: a Unicode emoji, or `name:id` of an emoji of the guild.
    fn emoji(&self, text: &str) -> Result<Box<str>, Answer> {
        let unknown = || unknown("Emoji", 10014);
        let text = decoded(text).filter(|text| text.len() <= MAX_EMOJI_BYTES).ok_or_else(unknown)?;
        let is_known = match text.split_once(':') {
            None => !text.is_ascii(),
            Some((_, id)) => self.spot.guild.is_some_and(|place| {
                let emojis = self.state.world.guild(place).emoji_objects();
                emojis.iter().any(|emoji| emoji["id"] == *id)
            }),
        };
        if is_known { Ok(text.into()) } else { Err(unknown()) }
    }

    fn react(&mut self, id: &str, emoji: Box<str>) -> Result<Answer, Answer> {
        let message = self.message(id)?;
        let reaction = Reaction { emoji, user: Member::Bot };
        if message.reactions.contains(&reaction) {
            return Ok(no_content());
        }
        if message.reactions.len() >= MAX_REACTIONS {
            return Err(refusal(StatusCode::BAD_REQUEST, 30010, "Maximum number of reactions reached (20)"));
        }
        message.reactions.push(reaction.clone());
        let (message, author) = (message.id, message.author);
        let mut event = match self.spot.guild {
            Some(place) => world::reaction_added(self.state.world.guild(place), &reaction, author),
            None => world::reaction_data(&reaction),
        };
        event["message_id"] = message.to_string().into();
        self.publish("MESSAGE_REACTION_ADD", event);
        Ok(no_content())
    }

    fn take_back(&mut self, id: &str, emoji: Box<str>, user: &str) -> Result<Answer, Answer> {
        let user = if user == "@me" { Some(world::BOT) } else { number(user) };
        let message = self.message(id)?;
        let mine = |reaction: &Reaction| reaction.emoji == emoji && Some(reaction.user.id()) == user;
        let place = message.reactions.iter().position(mine).ok_or_else(|| unknown("Emoji", 10014))?;
        let reaction = message.reactions.remove(place);
        let mut event = world::reaction_data(&reaction);
        event["message_id"] = message.id.to_string().into();
        self.publish("MESSAGE_REACTION_REMOVE", event);
        Ok(no_content())
    }

    /// Removes all reactions, or those with one emoji.
    fn clear(&mut self, id: &str, emoji: Option<Box<str>>) -> Result<Answer, Answer> {
        let message = self.message(id)?;
        let before = message.reactions.len();
        message.reactions.retain(|reaction| emoji.as_ref().is_some_and(|emoji| reaction.emoji != *emoji));
        let (id, is_changed) = (message.id.to_string(), message.reactions.len() < before);
        let (name, mut event) = match emoji {
            None => ("MESSAGE_REACTION_REMOVE_ALL", json!({})),
            Some(emoji) => ("MESSAGE_REACTION_REMOVE_EMOJI", world::emoji_cleared(&emoji)),
        };
        event["message_id"] = id.into();
        if is_changed {
            self.publish(name, event);
        }
        Ok(no_content())
    }
}

/// The message object of REST.
fn object(channel: u64, message: &Message) -> Value {
    let mut data = message.object(channel);
    data["reactions"] = message.reaction_counts();
    data
}

fn id(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| number(value.as_str()?))
}

/// The fields of a message that are stored, from the body of a request.
fn fields(body: &Value) -> Result<Value, Answer> {
    let invalid = || refusal(StatusCode::BAD_REQUEST, 50035, "Invalid Form Body");
    let given = KEPT.iter().filter_map(|field| Some(((*field).to_owned(), body.get(field)?.clone())));
    let mut fields: Map<String, Value> = given.filter(|(_, value)| !value.is_null()).collect();
    let text = fields.get("content").map_or(Some(""), Value::as_str).ok_or_else(invalid)?;
    if text.chars().count() > MAX_CONTENT_CHARS {
        return Err(invalid());
    }
    for field in ["embeds", "components"] {
        if fields.get(field).is_some_and(|list| !list.is_array()) {
            return Err(invalid());
        }
    }
    for embed in fields.get_mut("embeds").and_then(Value::as_array_mut).into_iter().flatten() {
        embed.as_object_mut().ok_or_else(invalid)?.entry("type").or_insert_with(|| "rich".into());
    }
    if fields.contains_key("message_reference") {
        fields.insert("type".to_owned(), 19.into());
    }
    let fields = Value::Object(fields);
    if fields.to_string().len() > MAX_MESSAGE_BYTES { Err(invalid()) } else { Ok(fields) }
}

/// Decodes percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first == b'%' {
            let (digits, more) = more.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = more;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}
