//! Guilds, channels and users over REST.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::reply::{Answer, no_route, number, ok, parameter, refusal, unknown};
use crate::discord::State;
use crate::world::{self, Guild, Member};

pub(super) fn channel(state: &State, id: &str) -> Option<Value> {
    let id = number(id)?;
    match state.world.find_direct(id) {
        Some(user) => Some(direct(id, user)),
        None => state.world.guild(state.world.find_channel(id)?).channel(id),
    }
}

fn direct(id: u64, user: Member) -> Value {
    json!({"id": id.to_string(), "type": 1, "last_message_id": null, "flags": 0, "recipients": [user.user()]})
}

/// Opens the direct channel with a user. The channel always exists, so this only returns it.
pub(super) fn open_direct(state: &State, body: &Value) -> Answer {
    let recipient = &body["recipient_id"];
    let id = recipient.as_u64().or_else(|| number(recipient.as_str()?));
    let member = id.and_then(|id| state.world.guilds().iter().find_map(|guild| guild.member(id)));
    let channel = member.and_then(|member| Some((world::direct_channel(member)?, member)));
    channel.map_or_else(
        || refusal(StatusCode::BAD_REQUEST, 50033, "Invalid Recipient(s)"),
        |(id, member)| ok(direct(id, member)),
    )
}

pub(super) fn own_guilds(state: &State) -> Value {
    let guilds = state.world.guilds().iter().filter(|guild| guild.joined).map(|guild| {
        let properties = guild.properties();
        json!({
            "id": properties["id"], "name": properties["name"], "icon": null, "banner": null, "owner": false,
            "permissions": "2248473465835073", "features": properties["features"],
        })
    });
    guilds.collect::<Vec<_>>().into()
}

/// A user who is or was a member of a guild, or may become one.
pub(super) fn user(state: &State, id: &str) -> Option<Value> {
    let id = number(id)?;
    let met = |guild: &Guild| guild.member(id).or_else(|| guild.former(id));
    state.world.guilds().iter().find_map(met).map(Member::user)
}

pub(super) fn guild(guild: &Guild, rest: &[&str], query: &str) -> Answer {
    ok(match rest {
        [] => {
            let mut properties = guild.properties();
            if parameter(query, "with_counts") == Some("true") {
                properties["approximate_member_count"] = guild.member_count().into();
                properties["approximate_presence_count"] = (guild.member_count() / 3).into();
            }
            properties
        }
        // GW-277: channels that the bot may not view are left out.
        ["channels"] => guild.viewable_channels().into(),
        ["roles"] => guild.role_objects().into(),
        ["emojis"] => guild.emoji_objects().into(),
        ["stickers"] => guild.sticker_objects().into(),
        ["soundboard-sounds"] => json!({"items": guild.sound_objects()}),
        ["scheduled-events"] => guild.scheduled_events().into(),
        ["threads", "active"] => {
            let threads = guild.active_threads();
            let members: Vec<&Value> = threads.iter().filter_map(|thread| thread.get("member")).collect();
            json!({"members": members, "threads": threads})
        }
        ["invites"] => guild.invite_objects().into(),
        ["integrations"] => guild.integration_objects().into(),
        ["bans"] => guild.ban_objects().into(),
        ["auto-moderation", "rules"] => guild.rule_objects().into(),
        ["webhooks"] => json!([]),
        ["members"] => {
            let limit = parameter(query, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(1);
            let after = parameter(query, "after").and_then(number).unwrap_or(0);
            let mut members: Vec<Member> = std::iter::once(Member::Bot).chain(guild.humans()).collect();
            members.sort_by_key(|member| member.id());
            let page = members.into_iter().filter(|member| member.id() > after).take(limit);
            page.map(|member| guild.member_object(member, true)).collect::<Vec<_>>().into()
        }
        ["members", "@me"] => guild.member_object(Member::Bot, true),
        ["members", user] => match number(user).and_then(|id| guild.member(id)) {
            Some(member) => guild.member_object(member, true),
            None => return unknown("Member", 10007),
        },
        _ => return no_route(),
    })
}
