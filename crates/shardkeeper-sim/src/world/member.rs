//! The members of guilds. They are computed from their numbers, so that a large guild costs no memory.

use serde_json::{Value, json};

use super::ids::{self, Kind};

/// When each member joined the guild, and other times before the simulated events.
pub(super) const JOINED: &str = "2024-03-05T11:22:33.444000+00:00";

/// A member of a guild: the bot, or a human with a number that is unique over all guilds.
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

    /// Whether the member has the first role of the guild, as the bot and a quarter of the humans do.
    pub(super) fn has_role(self) -> bool {
        match self {
            Self::Bot => true,
            Self::Human(index) => index % 4 == 1,
        }
    }

    /// The user object of the member.
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
