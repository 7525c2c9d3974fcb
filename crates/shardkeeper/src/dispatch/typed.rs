//! Dispatches as the events of twilight-model.
//!
//! Input: an event's name and its data. Output: the event for twilight's cache and standby. The name selects
//! the model; `GatewayEventDeserializer` is not used (see "Decisions" in the crate's documentation).

use serde::Deserialize;
use shardkeeper_proto::EventName;
use twilight_model::gateway::OpCode;
use twilight_model::gateway::event::Event;
use twilight_model::gateway::payload::incoming::rate_limited::RateLimitMetadata;
use twilight_model::gateway::payload::incoming::{self, GuildCreate, RateLimited};
use twilight_model::guild::{Guild, UnavailableGuild};
use twilight_model::id::Id;
use twilight_model::id::marker::GuildMarker;

use super::json::{self, JsonError};
use super::{Dispatch, EventModel};
use crate::chain::readable;

/// Error of an event that does not fit its model, because Discord changed the event or sent something
/// unusual. The dispatch still has its data.
#[derive(thiserror::Error)]
#[error("{event} of {bytes} bytes does not fit its twilight model: use the raw data")]
#[non_exhaustive]
pub struct MalformedEvent {
    /// Name of the event.
    pub event: EventName,
    /// Size of its data, in bytes.
    pub bytes: usize,
    /// Kind and position of the mistake.
    pub source: JsonError,
}

/// Parses the event; `None` when twilight has no model of that name.
pub(super) fn typed(event: EventName, data: &[u8]) -> Result<Option<Event>, MalformedEvent> {
    read(event, data).map_err(|source| MalformedEvent { event, bytes: data.len(), source })
}

macro_rules! models {
    (@read) => { json::whole };
    (@read $read:ident) => { $read };
    ($($event:ident => $model:ident $(by $read:ident)?,)*) => {
        fn read(event: EventName, data: &[u8]) -> Result<Option<Event>, JsonError> {
            Ok(Some(match event {
                $(EventName::$event => {
                    let model: incoming::$model = models!(@read $($read)?)(data)?;
                    Event::$model(model.into())
                })*
                // RESUMED has no meaningful data.
                EventName::Resumed => Event::Resumed,
                _ => return Ok(None),
            }))
        }

        $(impl EventModel for incoming::$model {
            const EVENT: EventName = EventName::$event;

            fn from_dispatch(dispatch: &Dispatch) -> Result<Self, JsonError> {
                models!(@read $($read)?)(dispatch.data()).map_err(|error| error.of(dispatch.owned_name()))
            }
        })*
    };
}

// Left: Discord's name. Right: twilight's.
models! {
    Ready => Ready,
    RateLimited => RateLimited by rate_limited,
    ApplicationCommandPermissionsUpdate => CommandPermissionsUpdate,
    AutoModerationRuleCreate => AutoModerationRuleCreate,
    AutoModerationRuleUpdate => AutoModerationRuleUpdate,
    AutoModerationRuleDelete => AutoModerationRuleDelete,
    AutoModerationActionExecution => AutoModerationActionExecution,
    ChannelCreate => ChannelCreate,
    ChannelUpdate => ChannelUpdate,
    ChannelDelete => ChannelDelete,
    ChannelPinsUpdate => ChannelPinsUpdate,
    ThreadCreate => ThreadCreate,
    ThreadUpdate => ThreadUpdate,
    ThreadDelete => ThreadDelete,
    ThreadListSync => ThreadListSync,
    ThreadMemberUpdate => ThreadMemberUpdate,
    ThreadMembersUpdate => ThreadMembersUpdate,
    EntitlementCreate => EntitlementCreate,
    EntitlementUpdate => EntitlementUpdate,
    EntitlementDelete => EntitlementDelete,
    SubscriptionCreate => SubscriptionCreate,
    SubscriptionUpdate => SubscriptionUpdate,
    SubscriptionDelete => SubscriptionDelete,
    GuildCreate => GuildCreate by guild_create,
    GuildUpdate => GuildUpdate,
    GuildDelete => GuildDelete,
    GuildAuditLogEntryCreate => GuildAuditLogEntryCreate,
    GuildBanAdd => BanAdd,
    GuildBanRemove => BanRemove,
    GuildEmojisUpdate => GuildEmojisUpdate,
    GuildStickersUpdate => GuildStickersUpdate,
    GuildIntegrationsUpdate => GuildIntegrationsUpdate,
    IntegrationCreate => IntegrationCreate,
    IntegrationUpdate => IntegrationUpdate,
    IntegrationDelete => IntegrationDelete,
    GuildMemberAdd => MemberAdd,
    GuildMemberRemove => MemberRemove,
    GuildMemberUpdate => MemberUpdate,
    GuildMembersChunk => MemberChunk,
    GuildRoleCreate => RoleCreate,
    GuildRoleUpdate => RoleUpdate,
    GuildRoleDelete => RoleDelete,
    GuildScheduledEventCreate => GuildScheduledEventCreate,
    GuildScheduledEventUpdate => GuildScheduledEventUpdate,
    GuildScheduledEventDelete => GuildScheduledEventDelete,
    GuildScheduledEventUserAdd => GuildScheduledEventUserAdd,
    GuildScheduledEventUserRemove => GuildScheduledEventUserRemove,
    InteractionCreate => InteractionCreate,
    InviteCreate => InviteCreate,
    InviteDelete => InviteDelete,
    MessageCreate => MessageCreate,
    MessageUpdate => MessageUpdate,
    MessageDelete => MessageDelete,
    MessageDeleteBulk => MessageDeleteBulk,
    MessageReactionAdd => ReactionAdd,
    MessageReactionRemove => ReactionRemove,
    MessageReactionRemoveAll => ReactionRemoveAll,
    MessageReactionRemoveEmoji => ReactionRemoveEmoji,
    MessagePollVoteAdd => MessagePollVoteAdd,
    MessagePollVoteRemove => MessagePollVoteRemove,
    PresenceUpdate => PresenceUpdate,
    TypingStart => TypingStart,
    UserUpdate => UserUpdate,
    StageInstanceCreate => StageInstanceCreate,
    StageInstanceUpdate => StageInstanceUpdate,
    StageInstanceDelete => StageInstanceDelete,
    VoiceStateUpdate => VoiceStateUpdate,
    VoiceServerUpdate => VoiceServerUpdate,
    WebhooksUpdate => WebhooksUpdate,
}

/// Parsed by hand, because the model's own `Deserialize` expects a variant name around `meta`, which Discord
/// does not send (GW-163).
fn rate_limited(data: &[u8]) -> Result<RateLimited, JsonError> {
    #[derive(Deserialize)]
    struct Data {
        opcode: OpCode,
        retry_after: f32,
        meta: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        guild_id: Id<GuildMarker>,
        nonce: Option<String>,
    }
    let Data { opcode, retry_after, meta: Meta { guild_id, nonce } } = json::whole(data)?;
    Ok(RateLimited { opcode, retry_after, meta: RateLimitMetadata::RequestGuildMembers { guild_id, nonce } })
}

/// Parses a GUILD_CREATE, which may be an unavailable guild, marked by `unavailable` (GW-250). `Guild` has
/// that field, so a large guild is parsed once; an unavailable guild has few other fields and fails early as
/// a `Guild`. The model's own `Deserialize` would buffer every value before it tries the two.
fn guild_create(data: &[u8]) -> Result<GuildCreate, JsonError> {
    match json::whole::<Guild>(data) {
        Ok(Guild { id, unavailable: Some(true), .. }) => {
            Ok(GuildCreate::Unavailable(UnavailableGuild { id, unavailable: true }))
        }
        Ok(guild) => Ok(GuildCreate::Available(guild)),
        Err(error) => json::parse(data).map(GuildCreate::Unavailable).map_err(|_| error),
    }
}

readable!(MalformedEvent);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use twilight_model::gateway::event::EventType;

    use super::*;

    fn kind(event: EventName, data: &str) -> EventType {
        typed(event, data.as_bytes()).unwrap().unwrap().kind()
    }

    fn guild(more: &str) -> String {
        let nulls = [
            "afk_channel_id",
            "application_id",
            "banner",
            "description",
            "discovery_splash",
            "icon",
            "rules_channel_id",
            "safety_alerts_channel_id",
            "splash",
            "system_channel_id",
            "vanity_url_code",
            "widget_channel_id",
            "public_updates_channel_id",
        ];
        let nulls: String = nulls.iter().map(|name| format!(r#""{name}":null,"#)).collect();
        format!(
            r#"{{{nulls}"afk_timeout":300,"default_message_notifications":0,"emojis":[],"explicit_content_filter":0,
            "features":[],"large":false,"mfa_level":0,"name":"a guild","nsfw_level":0,"owner_id":"5",
            "preferred_locale":"de","premium_progress_bar_enabled":false,"premium_tier":0,"roles":[],
            "system_channel_flags":0,"verification_level":0,"id":"7"{more}}}"#
        )
    }

    #[test]
    fn gw_252_unavailable_decides_what_a_guild_create_is() {
        let create = |data: &str| match typed(EventName::GuildCreate, data.as_bytes()).unwrap() {
            Some(Event::GuildCreate(create)) => *create,
            other => panic!("{other:?}"),
        };
        for available in [guild(""), guild(r#","unavailable":false"#)] {
            assert!(matches!(create(&available), GuildCreate::Available(guild) if guild.name == "a guild"));
        }
        for unavailable in [r#"{"id":"7","unavailable":true}"#, &guild(r#","unavailable":true"#)] {
            assert!(matches!(create(unavailable), GuildCreate::Unavailable(guild) if guild.id.get() == 7));
        }
        for neither in [r#"{"id":"7","unavailable":false}"#, r#"{"id":"7"}"#, "{}", "[]"] {
            assert!(typed(EventName::GuildCreate, neither.as_bytes()).is_err(), "{neither}");
        }
    }

    #[test]
    fn gw_021_events_without_a_model_are_none_whatever_their_data_is() {
        for event in
            [EventName::ChannelInfo, EventName::MessageReactionAddMany, EventName::GuildSoundboardSoundCreate]
        {
            for data in ["{}", "null", "no JSON"] {
                assert!(typed(event, data.as_bytes()).unwrap().is_none(), "{event}");
            }
        }
        assert_eq!(kind(EventName::Resumed, "null"), EventType::Resumed);
    }

    #[test]
    fn gw_163_a_rate_limit_tells_the_guild_and_the_nonce() {
        let data = r#"{"opcode":8,"retry_after":29.5,"meta":{"guild_id":"7","nonce":"n"}}"#;
        let typed = typed(EventName::RateLimited, data.as_bytes()).unwrap();
        let meta =
            RateLimitMetadata::RequestGuildMembers { guild_id: Id::new(7), nonce: Some("n".to_owned()) };
        let limited = RateLimited { opcode: OpCode::RequestGuildMembers, retry_after: 29.5, meta };
        assert_eq!(typed, Some(Event::RateLimited(limited)));
    }

    #[test]
    fn an_error_names_the_event_and_the_place_and_nothing_of_the_content() {
        for (data, what) in [
            (r#""secret""#, "a value is missing or has the wrong type, before line 1 column 8"),
            (
                r#"{"guild_id":"secret","secret":"secret"}"#,
                "a value is missing or has the wrong type, before line 1 column 20",
            ),
            (r#"{"guild_id":secret}"#, "it is not valid JSON, before line 1 column 13"),
            (r#"{"channel_id":"secret"#, "it ends too early, before line 1 column 21"),
        ] {
            let error = typed(EventName::TypingStart, data.as_bytes()).unwrap_err();
            let text = format!("{error} {error:?} {}", crate::chain::chain(&error));
            assert!(!text.contains("secret"), "{text}");
            assert_eq!(
                crate::chain::chain(&error),
                format!(
                    "TYPING_START of {} bytes does not fit its twilight model: use the raw data: {what}",
                    data.len()
                )
            );
        }
        // `into_inner` still gives serde_json's text to callers that want it.
        let error = typed(EventName::TypingStart, br#""secret""#).unwrap_err();
        assert!(error.source.into_inner().to_string().contains("secret"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(event in prop::sample::select(EventName::ALL), data in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = typed(event, &data);
        }
    }
}
