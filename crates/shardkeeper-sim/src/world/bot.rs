//! The bot's own user and application.

use serde_json::{Value, json};

use super::ids::{self, BOT, Kind};
use super::json::extend;
use super::member::Member;
use crate::intents;

/// The bot's user object in READY and in REST.
pub(crate) fn bot_user() -> Value {
    let mut user = Member::Bot.user();
    let more = json!({"verified": true, "mfa_enabled": true, "flags": 0, "email": null, "locale": "en-US"});
    extend(&mut user, more);
    user
}

/// The application flags: bits 12, 14 and 18 say which privileged intents are enabled (GW-191).
pub(crate) fn application_flags(allowed_intents: u64) -> u64 {
    [(intents::GUILD_PRESENCES, 12), (intents::GUILD_MEMBERS, 14), (intents::MESSAGE_CONTENT, 18)]
        .into_iter()
        .filter(|(intent, _)| allowed_intents & intent != 0)
        .fold(1 << 23, |flags, (_, bit)| flags | 1 << bit)
}

/// The application object of REST.
pub(crate) fn application(allowed_intents: u64) -> Value {
    let flags = application_flags(allowed_intents);
    json!({
        "id": BOT.to_string(), "name": "sim-bot", "icon": null, "description": "A bot in a simulation.", "summary": "",
        "type": null, "bot": bot_user(), "bot_public": true, "bot_require_code_grant": false, "hook": true,
        "verify_key": "0".repeat(64), "flags": flags, "flags_new": flags.to_string(), "redirect_uris": [],
        "interactions_endpoint_url": null, "role_connections_verification_url": null, "team": null,
        "approximate_guild_count": 1, "approximate_user_install_count": 0,
        "owner": {
            "id": ids::make(0, Kind::User).to_string(), "username": "owner", "discriminator": "0", "global_name": "owner",
            "avatar": null, "public_flags": 0, "flags": 0, "avatar_decoration_data": null,
        },
    })
}
