//! Which sessions see an event, and how much of its data: a matter of intents.

use serde_json::{Value, json};

use super::ids::BOT;
use crate::intents;

/// Where an event happens, which decides the sessions that receive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Guild,
    /// Outside of any guild: only shard 0 receives the event (GW-228).
    Elsewhere,
}

/// The options of a session that decide what it sees of a guild.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audience {
    pub(crate) intents: u64,
    /// The member count above which a GUILD_CREATE leaves out offline members (GW-072).
    pub(crate) large_threshold: u32,
}

impl Audience {
    pub(super) fn has(self, intent: u64) -> bool {
        self.intents & intent != 0
    }
}

/// The part of an event's data that a session with these intents sees; `None` when it does not receive the
/// event.
pub(crate) fn seen_by(event: &str, data: &Value, place: Place, intents: u64) -> Option<Value> {
    let own_member =
        event == "GUILD_MEMBER_UPDATE" && data["user"]["id"].as_str() == Some(BOT.to_string().as_str());
    let needed = intents::needed(event, place == Place::Elsewhere);
    // GW-183: updates of the bot's own member need no intent.
    if needed != 0 && needed & intents == 0 && !own_member {
        return None;
    }
    let mut data = data.clone();
    if intents & intents::MESSAGE_CONTENT == 0 && place == Place::Guild {
        hide_content(event, &mut data);
    }
    Some(data)
}

/// Empties the content of a message, as for sessions without MESSAGE_CONTENT (GW-184). The bot's own messages
/// and those that mention it keep their content.
fn hide_content(event: &str, data: &mut Value) {
    let bot = BOT.to_string();
    let is_bot = |user: &Value| user["id"].as_str() == Some(bot.as_str());
    match event {
        "MESSAGE_CREATE" | "MESSAGE_UPDATE" => {
            let mentioned = data["mentions"].as_array().is_some_and(|users| users.iter().any(is_bot));
            if is_bot(&data["author"]) || mentioned {
                return;
            }
            data["content"] = "".into();
            for field in ["embeds", "attachments", "components"] {
                data[field] = json!([]);
            }
            if let Some(message) = data.as_object_mut() {
                message.remove("poll");
            }
        }
        "AUTO_MODERATION_ACTION_EXECUTION" => {
            data["content"] = "".into();
            data["matched_content"] = "".into();
        }
        _ => {}
    }
}
