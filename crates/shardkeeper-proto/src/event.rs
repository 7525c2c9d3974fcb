//! The names of dispatch events, in one table: the name, the group, and the intents of which any one delivers
//! it.

use std::fmt;

use crate::Intents;

macro_rules! events {
    ($($variant:ident = $name:literal, $group:ident, [$($intent:ident),*];)*) => {
        /// The name of a known dispatch event. Events with other names are delivered too (GW-021).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum EventName {
            $(#[doc = concat!("`", $name, "`.")] $variant,)*
        }

        impl EventName {
            /// Every known event, in the table's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The part of the protocol that the event belongs to.
            pub const fn group(self) -> EventGroup {
                match self { $(Self::$variant => EventGroup::$group),* }
            }

            /// The intents of which any one delivers the event; empty for events that are always sent
            /// (GW-180).
            pub const fn intents(self) -> Intents {
                match self { $(Self::$variant => Intents::empty()$(.union(Intents::$intent))*),* }
            }
        }
    };
}

events! {
    Ready = "READY", Session, [];
    Resumed = "RESUMED", Session, [];
    RateLimited = "RATE_LIMITED", Session, [];
    ApplicationCommandPermissionsUpdate = "APPLICATION_COMMAND_PERMISSIONS_UPDATE", ApplicationCommands, [];
    AutoModerationRuleCreate = "AUTO_MODERATION_RULE_CREATE", AutoModeration, [AUTO_MODERATION_CONFIGURATION];
    AutoModerationRuleUpdate = "AUTO_MODERATION_RULE_UPDATE", AutoModeration, [AUTO_MODERATION_CONFIGURATION];
    AutoModerationRuleDelete = "AUTO_MODERATION_RULE_DELETE", AutoModeration, [AUTO_MODERATION_CONFIGURATION];
    AutoModerationActionExecution = "AUTO_MODERATION_ACTION_EXECUTION", AutoModeration, [AUTO_MODERATION_EXECUTION];
    ChannelCreate = "CHANNEL_CREATE", Channels, [GUILDS];
    ChannelUpdate = "CHANNEL_UPDATE", Channels, [GUILDS];
    ChannelDelete = "CHANNEL_DELETE", Channels, [GUILDS];
    ChannelPinsUpdate = "CHANNEL_PINS_UPDATE", Channels, [GUILDS, DIRECT_MESSAGES];
    ChannelInfo = "CHANNEL_INFO", Channels, [];
    VoiceChannelStatusUpdate = "VOICE_CHANNEL_STATUS_UPDATE", Channels, [GUILDS];
    VoiceChannelStartTimeUpdate = "VOICE_CHANNEL_START_TIME_UPDATE", Channels, [GUILDS];
    ThreadCreate = "THREAD_CREATE", Threads, [GUILDS];
    ThreadUpdate = "THREAD_UPDATE", Threads, [GUILDS];
    ThreadDelete = "THREAD_DELETE", Threads, [GUILDS];
    ThreadListSync = "THREAD_LIST_SYNC", Threads, [GUILDS];
    ThreadMemberUpdate = "THREAD_MEMBER_UPDATE", Threads, [GUILDS];
    ThreadMembersUpdate = "THREAD_MEMBERS_UPDATE", Threads, [GUILDS, GUILD_MEMBERS];
    EntitlementCreate = "ENTITLEMENT_CREATE", Monetization, [];
    EntitlementUpdate = "ENTITLEMENT_UPDATE", Monetization, [];
    EntitlementDelete = "ENTITLEMENT_DELETE", Monetization, [];
    SubscriptionCreate = "SUBSCRIPTION_CREATE", Monetization, [];
    SubscriptionUpdate = "SUBSCRIPTION_UPDATE", Monetization, [];
    SubscriptionDelete = "SUBSCRIPTION_DELETE", Monetization, [];
    GuildCreate = "GUILD_CREATE", Guilds, [GUILDS];
    GuildUpdate = "GUILD_UPDATE", Guilds, [GUILDS];
    GuildDelete = "GUILD_DELETE", Guilds, [GUILDS];
    GuildAuditLogEntryCreate = "GUILD_AUDIT_LOG_ENTRY_CREATE", Guilds, [GUILD_MODERATION];
    GuildBanAdd = "GUILD_BAN_ADD", Guilds, [GUILD_MODERATION];
    GuildBanRemove = "GUILD_BAN_REMOVE", Guilds, [GUILD_MODERATION];
    GuildEmojisUpdate = "GUILD_EMOJIS_UPDATE", Guilds, [GUILD_EXPRESSIONS];
    GuildStickersUpdate = "GUILD_STICKERS_UPDATE", Guilds, [GUILD_EXPRESSIONS];
    GuildIntegrationsUpdate = "GUILD_INTEGRATIONS_UPDATE", Integrations, [GUILD_INTEGRATIONS];
    IntegrationCreate = "INTEGRATION_CREATE", Integrations, [GUILD_INTEGRATIONS];
    IntegrationUpdate = "INTEGRATION_UPDATE", Integrations, [GUILD_INTEGRATIONS];
    IntegrationDelete = "INTEGRATION_DELETE", Integrations, [GUILD_INTEGRATIONS];
    GuildMemberAdd = "GUILD_MEMBER_ADD", Members, [GUILD_MEMBERS];
    GuildMemberRemove = "GUILD_MEMBER_REMOVE", Members, [GUILD_MEMBERS];
    GuildMemberUpdate = "GUILD_MEMBER_UPDATE", Members, [GUILD_MEMBERS];
    GuildMembersChunk = "GUILD_MEMBERS_CHUNK", Members, [];
    GuildRoleCreate = "GUILD_ROLE_CREATE", Roles, [GUILDS];
    GuildRoleUpdate = "GUILD_ROLE_UPDATE", Roles, [GUILDS];
    GuildRoleDelete = "GUILD_ROLE_DELETE", Roles, [GUILDS];
    GuildScheduledEventCreate = "GUILD_SCHEDULED_EVENT_CREATE", ScheduledEvents, [GUILD_SCHEDULED_EVENTS];
    GuildScheduledEventUpdate = "GUILD_SCHEDULED_EVENT_UPDATE", ScheduledEvents, [GUILD_SCHEDULED_EVENTS];
    GuildScheduledEventDelete = "GUILD_SCHEDULED_EVENT_DELETE", ScheduledEvents, [GUILD_SCHEDULED_EVENTS];
    GuildScheduledEventUserAdd = "GUILD_SCHEDULED_EVENT_USER_ADD", ScheduledEvents, [GUILD_SCHEDULED_EVENTS];
    GuildScheduledEventUserRemove = "GUILD_SCHEDULED_EVENT_USER_REMOVE", ScheduledEvents, [GUILD_SCHEDULED_EVENTS];
    GuildSoundboardSoundCreate = "GUILD_SOUNDBOARD_SOUND_CREATE", Soundboard, [GUILD_EXPRESSIONS];
    GuildSoundboardSoundUpdate = "GUILD_SOUNDBOARD_SOUND_UPDATE", Soundboard, [GUILD_EXPRESSIONS];
    GuildSoundboardSoundDelete = "GUILD_SOUNDBOARD_SOUND_DELETE", Soundboard, [GUILD_EXPRESSIONS];
    GuildSoundboardSoundsUpdate = "GUILD_SOUNDBOARD_SOUNDS_UPDATE", Soundboard, [GUILD_EXPRESSIONS];
    SoundboardSounds = "SOUNDBOARD_SOUNDS", Soundboard, [];
    InteractionCreate = "INTERACTION_CREATE", Interactions, [];
    InviteCreate = "INVITE_CREATE", Invites, [GUILD_INVITES];
    InviteDelete = "INVITE_DELETE", Invites, [GUILD_INVITES];
    MessageCreate = "MESSAGE_CREATE", Messages, [GUILD_MESSAGES, DIRECT_MESSAGES];
    MessageUpdate = "MESSAGE_UPDATE", Messages, [GUILD_MESSAGES, DIRECT_MESSAGES];
    MessageDelete = "MESSAGE_DELETE", Messages, [GUILD_MESSAGES, DIRECT_MESSAGES];
    MessageDeleteBulk = "MESSAGE_DELETE_BULK", Messages, [GUILD_MESSAGES];
    MessageReactionAdd = "MESSAGE_REACTION_ADD", Reactions, [GUILD_MESSAGE_REACTIONS, DIRECT_MESSAGE_REACTIONS];
    MessageReactionRemove = "MESSAGE_REACTION_REMOVE", Reactions, [GUILD_MESSAGE_REACTIONS, DIRECT_MESSAGE_REACTIONS];
    MessageReactionRemoveAll = "MESSAGE_REACTION_REMOVE_ALL", Reactions, [GUILD_MESSAGE_REACTIONS, DIRECT_MESSAGE_REACTIONS];
    MessageReactionRemoveEmoji = "MESSAGE_REACTION_REMOVE_EMOJI", Reactions, [GUILD_MESSAGE_REACTIONS, DIRECT_MESSAGE_REACTIONS];
    MessagePollVoteAdd = "MESSAGE_POLL_VOTE_ADD", Polls, [GUILD_MESSAGE_POLLS, DIRECT_MESSAGE_POLLS];
    MessagePollVoteRemove = "MESSAGE_POLL_VOTE_REMOVE", Polls, [GUILD_MESSAGE_POLLS, DIRECT_MESSAGE_POLLS];
    PresenceUpdate = "PRESENCE_UPDATE", Presence, [GUILD_PRESENCES];
    TypingStart = "TYPING_START", Users, [GUILD_MESSAGE_TYPING, DIRECT_MESSAGE_TYPING];
    UserUpdate = "USER_UPDATE", Users, [];
    StageInstanceCreate = "STAGE_INSTANCE_CREATE", Stage, [GUILDS];
    StageInstanceUpdate = "STAGE_INSTANCE_UPDATE", Stage, [GUILDS];
    StageInstanceDelete = "STAGE_INSTANCE_DELETE", Stage, [GUILDS];
    VoiceStateUpdate = "VOICE_STATE_UPDATE", Voice, [GUILD_VOICE_STATES];
    VoiceServerUpdate = "VOICE_SERVER_UPDATE", Voice, [];
    VoiceChannelEffectSend = "VOICE_CHANNEL_EFFECT_SEND", Voice, [GUILD_VOICE_STATES];
    WebhooksUpdate = "WEBHOOKS_UPDATE", Webhooks, [GUILD_WEBHOOKS];
    GuildJoinRequestCreate = "GUILD_JOIN_REQUEST_CREATE", Pending, [GUILD_MODERATION];
    GuildJoinRequestUpdate = "GUILD_JOIN_REQUEST_UPDATE", Pending, [GUILD_MODERATION];
    GuildJoinRequestDelete = "GUILD_JOIN_REQUEST_DELETE", Pending, [GUILD_MODERATION];
    GuildScheduledEventExceptionCreate = "GUILD_SCHEDULED_EVENT_EXCEPTION_CREATE", Pending, [GUILD_SCHEDULED_EVENTS];
    GuildScheduledEventExceptionUpdate = "GUILD_SCHEDULED_EVENT_EXCEPTION_UPDATE", Pending, [GUILD_SCHEDULED_EVENTS];
    GuildScheduledEventExceptionDelete = "GUILD_SCHEDULED_EVENT_EXCEPTION_DELETE", Pending, [GUILD_SCHEDULED_EVENTS];
    GuildScheduledEventExceptionsDelete = "GUILD_SCHEDULED_EVENT_EXCEPTIONS_DELETE", Unofficial, [GUILD_SCHEDULED_EVENTS];
    MessageReactionAddMany = "MESSAGE_REACTION_ADD_MANY", Unofficial, [GUILD_MESSAGE_REACTIONS, DIRECT_MESSAGE_REACTIONS];
    EmbeddedActivityUpdateV2 = "EMBEDDED_ACTIVITY_UPDATE_V2", Unofficial, [];
}

/// A part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventGroup {
    /// Sessions and rate limits.
    Session,
    /// Application commands.
    ApplicationCommands,
    /// Auto moderation.
    AutoModeration,
    /// Channels.
    Channels,
    /// Threads.
    Threads,
    /// Entitlements and subscriptions.
    Monetization,
    /// Guilds.
    Guilds,
    /// Integrations.
    Integrations,
    /// Members.
    Members,
    /// Roles.
    Roles,
    /// Scheduled events.
    ScheduledEvents,
    /// Soundboards.
    Soundboard,
    /// Interactions.
    Interactions,
    /// Invites.
    Invites,
    /// Messages.
    Messages,
    /// Reactions.
    Reactions,
    /// Polls.
    Polls,
    /// Presences.
    Presence,
    /// The bot user, and typing users.
    Users,
    /// Stages.
    Stage,
    /// Voice.
    Voice,
    /// Webhooks.
    Webhooks,
    /// Received by bots, not documented yet.
    Pending,
    /// Known only from unofficial documentation.
    Unofficial,
}

/// The table sorted by name, for [`EventName::from_bytes`].
const SORTED: [EventName; EventName::ALL.len()] = {
    let mut sorted = [EventName::Ready; EventName::ALL.len()];
    let mut filled = 0;
    while filled < sorted.len() {
        let event = EventName::ALL[filled];
        let mut at = filled;
        while at > 0 && less(event.as_str().as_bytes(), sorted[at - 1].as_str().as_bytes()) {
            sorted[at] = sorted[at - 1];
            at -= 1;
        }
        sorted[at] = event;
        filled += 1;
    }
    sorted
};

const fn less(left: &[u8], right: &[u8]) -> bool {
    let mut at = 0;
    while at < left.len() && at < right.len() {
        if left[at] != right[at] {
            return left[at] < right[at];
        }
        at += 1;
    }
    left.len() < right.len()
}

impl EventName {
    /// The event with this name; `None` for one that is not in the table.
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        let found = SORTED.binary_search_by(|event| event.as_str().as_bytes().cmp(name)).ok()?;
        Some(SORTED[found])
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of event names. "Any event that is not in the table" can be a member too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSet(u128);

/// The bit of events that are not in the table.
const UNKNOWN: u128 = 1 << 127;
const _: () = assert!(EventName::ALL.len() < 127, "the set needs a wider integer");

impl EventSet {
    /// No event.
    pub const EMPTY: Self = Self(0);
    /// Every event, including those not in the table.
    pub const ALL: Self = Self(u128::MAX);

    /// Creates the set of these events.
    pub fn of(events: impl IntoIterator<Item = EventName>) -> Self {
        events.into_iter().fold(Self::EMPTY, |set, event| Self(set.0 | 1 << event as u8))
    }

    /// Creates the set of all events in these parts of the protocol.
    pub fn of_groups(groups: &[EventGroup]) -> Self {
        Self::of(EventName::ALL.iter().copied().filter(|event| groups.contains(&event.group())))
    }

    /// Creates the set of events that any of these intents delivers, without those that are always sent
    /// (GW-180).
    pub fn of_intents(intents: Intents) -> Self {
        Self::of(EventName::ALL.iter().copied().filter(|event| event.intents().intersects(intents)))
    }

    /// Adds the events that are not in the table.
    #[must_use]
    pub const fn with_unknown(self) -> Self {
        Self(self.0 | UNKNOWN)
    }

    /// The known events of this set that a bot with these intents never receives (GW-180).
    #[must_use]
    pub fn unreachable_with(self, intents: Intents) -> Self {
        let comes = |event: &EventName| event.intents().is_empty() || event.intents().intersects(intents);
        Self::of(self.known().filter(|event| !comes(event)))
    }

    /// The known events of this set, in the table's order.
    pub fn known(self) -> impl Iterator<Item = EventName> {
        EventName::ALL.iter().copied().filter(move |event| self.contains(Some(*event)))
    }

    /// The events that are in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the event is a member; `None` asks for an event that is not in the table.
    pub const fn contains(self, event: Option<EventName>) -> bool {
        let bit = match event {
            Some(event) => 1 << event as u8,
            None => UNKNOWN,
        };
        self.0 & bit != 0
    }

    /// Whether the set has no members.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_260_every_name_round_trips() {
        for &event in EventName::ALL {
            assert_eq!(EventName::from_bytes(event.as_str().as_bytes()), Some(event));
            assert!(
                event.as_str().bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_' || byte == b'2')
            );
        }
        for name in ["", "HELLO", "ready", "READY ", "RECONNECT", "MESSAGE_CREATED", "\u{1f600}"] {
            assert_eq!(EventName::from_bytes(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn gw_180_the_documented_events_are_79_and_16_need_no_intent() {
        let documented = EventName::ALL
            .iter()
            .filter(|event| !matches!(event.group(), EventGroup::Pending | EventGroup::Unofficial));
        assert_eq!(documented.clone().count(), 79);
        let always = documented.filter(|event| event.intents().is_empty()).count();
        // READY, RESUMED, RATE_LIMITED, interactions, command permissions, 3 + 3 of monetization,
        // USER_UPDATE, VOICE_SERVER_UPDATE, GUILD_MEMBERS_CHUNK, SOUNDBOARD_SOUNDS, CHANNEL_INFO.
        assert_eq!(always, 16);
        // GW-206: VOICE_STATE_UPDATE needs GUILD_VOICE_STATES, VOICE_SERVER_UPDATE needs no intent.
        assert_eq!(EventName::VoiceStateUpdate.intents(), Intents::GUILD_VOICE_STATES);
        assert_eq!(EventName::VoiceServerUpdate.intents(), Intents::empty());
    }

    #[test]
    fn sets_of_groups_and_intents() {
        let members = EventSet::of_groups(&[EventGroup::Members]);
        assert!(
            members.contains(Some(EventName::GuildMembersChunk)) && !members.contains(Some(EventName::Ready))
        );
        let intents = EventSet::of_intents(Intents::GUILD_MEMBERS | Intents::DIRECT_MESSAGES);
        for event in [EventName::GuildMemberAdd, EventName::ThreadMembersUpdate, EventName::MessageCreate] {
            assert!(intents.contains(Some(event)), "{event}");
        }
        assert!(!intents.contains(Some(EventName::GuildMembersChunk)), "no intent brings it");
        assert!(!intents.contains(None));
    }

    #[test]
    fn sets_hold_known_and_unknown_events() {
        let set = EventSet::of([EventName::Ready, EventName::WebhooksUpdate]);
        assert!(set.contains(Some(EventName::Ready)) && set.contains(Some(EventName::WebhooksUpdate)));
        assert!(!set.contains(Some(EventName::Resumed)) && !set.contains(None));
        assert!(set.with_unknown().contains(None) && EventSet::ALL.contains(None));
        assert!(EventSet::EMPTY.is_empty() && !set.is_empty());
    }
}
