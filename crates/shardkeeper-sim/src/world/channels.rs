//! The channels and threads of a guild as JSON, and the messages in them.

use serde_json::{Value, json};

use super::guild::{Guild, Text, Thread};
use super::ids;
use super::json::{extend, without};
use super::member::{JOINED, Member};
use super::message::Message;

impl Guild {
    /// The channels in a GUILD_CREATE. Those that the bot may not view are obfuscated (GW-274).
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

    /// The channels that the bot may view, without threads and categories (GW-277).
    pub(crate) fn viewable_channels(&self) -> Vec<Value> {
        let text = self.text.iter().map(|text| text.room.id);
        let spoken = self.voice_channels.into_iter().chain([self.stage_channel]);
        text.chain(spoken).filter_map(|id| self.channel(id)).collect()
    }

    /// Gives the bot access to the hidden channel (GW-276). Returns the data of the CHANNEL_UPDATE; `None` if
    /// the guild has no hidden channel.
    pub(crate) fn reveal(&mut self) -> Option<Value> {
        let id = self.hidden.take()?;
        self.text.push(Text::new(id));
        self.channel(id)
    }

    /// The object of a channel or thread; `None` if there is none with this id that the bot may view.
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

    /// The threads in a GUILD_CREATE, each with the bot's membership if the bot is in it.
    pub(crate) fn active_threads(&self) -> Vec<Value> {
        let objects = self.threads.iter().map(|thread| {
            let mut data = self.thread(thread);
            if thread.joined {
                data["member"] = self.thread_member(thread);
            }
            data
        });
        objects.collect()
    }

    /// The bot's membership of a thread.
    pub(super) fn thread_member(&self, thread: &Thread) -> Value {
        json!({
            "id": thread.room.id.to_string(), "user_id": ids::BOT.to_string(), "join_timestamp": JOINED, "flags": 0,
        })
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

    /// The message object of events.
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
}
