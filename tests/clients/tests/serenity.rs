//! serenity with the simulator.
//!
//! Its own limits shape the tests: it starts one shard per 5 s whatever `max_concurrency` allows, resumes at
//! the bootstrap URL, and supports no transport compression; it requests payload compression in each
//! Identify.

use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::Value;
use serenity::all::{
    ClientBuilder, Context, Event, GatewayEvent, GatewayIntents, HttpBuilder, RawEventHandler, async_trait,
};
use shardkeeper_clients::{Ears, Heard, no_violations, simulator, simulator_of, through_every_fault, until};
use shardkeeper_sim::{Fault, Mix, Simulator};
use tokio::task::JoinSet;
use twilight_gateway::{ConfigBuilder, Intents, Message, Shard, ShardId};

/// Events of Discord that this version has no model for: they are newer, or documented nowhere (GW-273).
const WITHOUT_MODEL: &[&str] = &[
    "CHANNEL_INFO",
    "EMBEDDED_ACTIVITY_UPDATE_V2",
    "GUILD_APPLICATION_COMMAND_INDEX_UPDATE",
    "GUILD_JOIN_REQUEST_CREATE",
    "GUILD_JOIN_REQUEST_DELETE",
    "GUILD_JOIN_REQUEST_UPDATE",
    "GUILD_SCHEDULED_EVENT_EXCEPTIONS_DELETE",
    "GUILD_SCHEDULED_EVENT_EXCEPTION_CREATE",
    "GUILD_SCHEDULED_EVENT_EXCEPTION_DELETE",
    "GUILD_SCHEDULED_EVENT_EXCEPTION_UPDATE",
    "MESSAGE_REACTION_ADD_MANY",
    "RATE_LIMITED",
    "SUBSCRIPTION_CREATE",
    "SUBSCRIPTION_DELETE",
    "SUBSCRIPTION_UPDATE",
    "VOICE_CHANNEL_EFFECT_SEND",
    "VOICE_CHANNEL_START_TIME_UPDATE",
];

struct Handler(Arc<Ears>);

#[async_trait]
impl RawEventHandler for Handler {
    async fn raw_event(&self, _: Context, event: Event) {
        judge(&self.0, event);
    }
}

/// Records an event. If the models reject it, serenity returns it as an unknown event, without the reason.
fn judge(ears: &Ears, event: Event) {
    match event {
        Event::Unknown(event) if WITHOUT_MODEL.contains(&event.kind.as_str()) => ears.took(&event.kind),
        Event::Unknown(event) => {
            let payload = event.value.to_string();
            ears.refused(&format!("{}: {:?}", event.kind, why(&event.kind, event.value)), &payload);
        }
        event => ears.took(&event.name().expect("all but the unknown have a name")),
    }
}

/// A bot with all the shards that the simulator recommends.
struct Bot {
    simulator: Simulator,
    ears: Arc<Ears>,
    /// Ends the client when the bot is dropped.
    _client: JoinSet<()>,
}

impl Bot {
    async fn start(shards: u32) -> Self {
        Self::start_with(simulator(shards).await, shards).await
    }

    async fn start_with(simulator: Simulator, shards: u32) -> Self {
        let addr = simulator.addr().expect("it listens");
        let http =
            HttpBuilder::new("sim-token").proxy(format!("http://{addr}")).ratelimiter_disabled(true).build();
        let ears = Arc::new(Ears::default());
        let mut client = ClientBuilder::new_with_http(http, GatewayIntents::all())
            .raw_event_handler(Handler(Arc::clone(&ears)))
            .await
            .expect("a client");
        let mut running = JoinSet::new();
        let noted = Arc::clone(&ears);
        running.spawn(async move {
            let end = client.start_autosharded().await;
            noted.over();
            noted.refused(&end, "nothing: the client ended");
        });
        let bot = Self { simulator, ears, _client: running };
        let guilds = u64::from(shards) * 2;
        bot.ears.until("its guilds", |heard| heard.count("GUILD_CREATE") == guilds).await;
        bot
    }

    async fn traffic(&self, count: u64) -> Heard {
        self.ears.until_traffic(&self.simulator, count).await
    }
}

/// serenity logs and drops an invalid payload, so every dispatch that was sent has to be received.
#[tokio::test(flavor = "multi_thread")]
async fn its_models_take_everything() {
    let bot = Bot::start(4).await;
    let heard = bot.traffic(3_000).await;
    assert_eq!((heard.count("READY"), heard.count("GUILD_CREATE")), (4, 8));
    assert!(heard.events.len() >= 11, "{:?}", heard.events);
    let report = bot.simulator.report();
    assert_eq!((report.connections, report.identifies, report.ready_sessions), (4, 4, 4));
    no_violations(&bot.simulator);
}

/// serenity's models without its connection: twilight receives the payloads, and each has to parse as an
/// event.
#[tokio::test(flavor = "multi_thread")]
async fn its_models_say_nothing_against_any_payload() {
    let simulator = simulator_of(1, Mix::Everything).await;
    let addr = simulator.addr().expect("it listens");
    let config =
        ConfigBuilder::new("sim-token".to_owned(), Intents::all()).proxy_url(format!("ws://{addr}")).build();
    let mut shard = Shard::with_config(ShardId::ONE, config);
    let ears = Arc::new(Ears::default());
    let mut fetching = JoinSet::new();
    let (noted, observer) = (Arc::clone(&ears), simulator.clone());
    fetching.spawn(async move {
        while let Some(item) = shard.next().await {
            let Ok(Message::Text(text)) = item else { return noted.refused(&item, "") };
            observer.observe(0, "", text.as_bytes());
            match serde_json::from_str::<GatewayEvent>(&text) {
                Ok(GatewayEvent::Dispatch(_, event)) => judge(&noted, event),
                Ok(_) => {}
                Err(error) => noted.refused(&error, &text),
            }
        }
    });
    let heard = ears.until_traffic(&simulator, 3_000).await;
    assert!(heard.events.len() >= 70, "{:?}", heard.events);
}

/// Injects the fault into the only shard while events arrive; none may be lost or come twice.
async fn resumes_after(fault: Fault) {
    let bot = Bot::start(1).await;
    bot.traffic(100).await;
    bot.simulator.start_traffic();
    bot.simulator.inject(0, fault).expect("the shard is there");
    until(&bot.simulator, "a resume", |report| report.resumes == 1 && report.ready_sessions == 1).await;
    bot.ears.until("the end of the replay", |heard| heard.resumed == 1).await;
    let heard = bot.traffic(300).await;
    assert_eq!(heard.count("READY"), 1);
    let report = bot.simulator.report();
    assert_eq!((report.connections, report.identifies, report.resumes_refused), (2, 1, 0));
    no_violations(&bot.simulator);
}

/// serenity identifies again after 4010, 4011 and 4012, as if these were temporary.
#[tokio::test(flavor = "multi_thread")]
async fn no_fault_makes_it_do_what_discord_would_punish() {
    through_every_fault(&["GW-095"], async |simulator| {
        let bot = Bot::start_with(simulator, 1).await;
        (Arc::clone(&bot.ears), bot)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_after_a_cut() {
    resumes_after(Fault::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_when_asked_to_reconnect() {
    resumes_after(Fault::Reconnect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_when_the_session_is_invalid_and_resumable() {
    resumes_after(Fault::InvalidSession { resumable: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_after_a_close() {
    resumes_after(Fault::Close { code: 4000 }).await;
}

/// Checks that a new session begins, because the old one was invalidated or, for serenity, because the
/// connection was silent.
async fn starts_again_after(fault: Fault) {
    let bot = Bot::start(1).await;
    bot.traffic(100).await;
    bot.simulator.inject(0, fault).expect("the shard is there");
    bot.ears.until("its guilds again", |heard| heard.count("GUILD_CREATE") == 4).await;
    let heard = if fault == Fault::HalfOpen {
        // The abandoned session continues for minutes, and its events are not received.
        let goal = bot.ears.heard().total() + 300;
        bot.simulator.start_traffic();
        bot.ears.until("traffic", |heard| heard.total() >= goal).await
    } else {
        bot.traffic(300).await
    };
    assert_eq!((heard.count("READY"), heard.resumed), (2, 0));
    let report = bot.simulator.report();
    assert_eq!((report.connections, report.identifies, report.resumes), (2, 2, 0));
    assert_eq!(report.identifies_refused, 0);
    no_violations(&bot.simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_a_new_session_when_its_own_is_invalid() {
    starts_again_after(Fault::InvalidSession { resumable: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_a_new_session_when_nothing_comes_any_more() {
    starts_again_after(Fault::HalfOpen).await;
}

/// Why the models reject the data of an event; `None` if they accept it.
fn why(event: &str, data: Value) -> Option<serde_json::Error> {
    macro_rules! try_models {
        ($($name:literal => $model:ident,)*) => {
            match event {
                $($name => serde_json::from_value::<serenity::model::event::$model>(data).err(),)*
                _ => None,
            }
        };
    }
    try_models! {
        "APPLICATION_COMMAND_PERMISSIONS_UPDATE" => CommandPermissionsUpdateEvent,
        "AUTO_MODERATION_RULE_CREATE" => AutoModRuleCreateEvent,
        "AUTO_MODERATION_RULE_UPDATE" => AutoModRuleUpdateEvent,
        "AUTO_MODERATION_RULE_DELETE" => AutoModRuleDeleteEvent,
        "AUTO_MODERATION_ACTION_EXECUTION" => AutoModActionExecutionEvent,
        "CHANNEL_CREATE" => ChannelCreateEvent, "CHANNEL_DELETE" => ChannelDeleteEvent,
        "CHANNEL_PINS_UPDATE" => ChannelPinsUpdateEvent, "CHANNEL_UPDATE" => ChannelUpdateEvent,
        "GUILD_AUDIT_LOG_ENTRY_CREATE" => GuildAuditLogEntryCreateEvent, "GUILD_BAN_ADD" => GuildBanAddEvent,
        "GUILD_BAN_REMOVE" => GuildBanRemoveEvent, "GUILD_CREATE" => GuildCreateEvent,
        "GUILD_DELETE" => GuildDeleteEvent, "GUILD_EMOJIS_UPDATE" => GuildEmojisUpdateEvent,
        "GUILD_INTEGRATIONS_UPDATE" => GuildIntegrationsUpdateEvent,
        "GUILD_MEMBER_ADD" => GuildMemberAddEvent, "GUILD_MEMBER_REMOVE" => GuildMemberRemoveEvent,
        "GUILD_MEMBER_UPDATE" => GuildMemberUpdateEvent, "GUILD_MEMBERS_CHUNK" => GuildMembersChunkEvent,
        "GUILD_ROLE_CREATE" => GuildRoleCreateEvent, "GUILD_ROLE_DELETE" => GuildRoleDeleteEvent,
        "GUILD_ROLE_UPDATE" => GuildRoleUpdateEvent, "GUILD_STICKERS_UPDATE" => GuildStickersUpdateEvent,
        "GUILD_UPDATE" => GuildUpdateEvent, "INVITE_CREATE" => InviteCreateEvent,
        "INVITE_DELETE" => InviteDeleteEvent, "MESSAGE_CREATE" => MessageCreateEvent,
        "MESSAGE_DELETE" => MessageDeleteEvent, "MESSAGE_DELETE_BULK" => MessageDeleteBulkEvent,
        "MESSAGE_UPDATE" => MessageUpdateEvent, "PRESENCE_UPDATE" => PresenceUpdateEvent,
        "MESSAGE_REACTION_ADD" => ReactionAddEvent, "MESSAGE_REACTION_REMOVE" => ReactionRemoveEvent,
        "MESSAGE_REACTION_REMOVE_ALL" => ReactionRemoveAllEvent,
        "MESSAGE_REACTION_REMOVE_EMOJI" => ReactionRemoveEmojiEvent, "READY" => ReadyEvent,
        "SOUNDBOARD_SOUNDS" => SoundboardSoundsEvent,
        "GUILD_SOUNDBOARD_SOUND_CREATE" => SoundboardSoundCreateEvent,
        "GUILD_SOUNDBOARD_SOUND_UPDATE" => SoundboardSoundUpdateEvent,
        "GUILD_SOUNDBOARD_SOUNDS_UPDATE" => SoundboardSoundsUpdateEvent,
        "GUILD_SOUNDBOARD_SOUND_DELETE" => SoundboardSoundDeleteEvent, "TYPING_START" => TypingStartEvent,
        "USER_UPDATE" => UserUpdateEvent, "VOICE_STATE_UPDATE" => VoiceStateUpdateEvent,
        "VOICE_SERVER_UPDATE" => VoiceServerUpdateEvent,
        "VOICE_CHANNEL_STATUS_UPDATE" => VoiceChannelStatusUpdateEvent,
        "WEBHOOKS_UPDATE" => WebhookUpdateEvent, "INTERACTION_CREATE" => InteractionCreateEvent,
        "INTEGRATION_CREATE" => IntegrationCreateEvent, "INTEGRATION_UPDATE" => IntegrationUpdateEvent,
        "INTEGRATION_DELETE" => IntegrationDeleteEvent, "STAGE_INSTANCE_CREATE" => StageInstanceCreateEvent,
        "STAGE_INSTANCE_UPDATE" => StageInstanceUpdateEvent,
        "STAGE_INSTANCE_DELETE" => StageInstanceDeleteEvent, "THREAD_CREATE" => ThreadCreateEvent,
        "THREAD_UPDATE" => ThreadUpdateEvent, "THREAD_DELETE" => ThreadDeleteEvent,
        "THREAD_LIST_SYNC" => ThreadListSyncEvent, "THREAD_MEMBER_UPDATE" => ThreadMemberUpdateEvent,
        "THREAD_MEMBERS_UPDATE" => ThreadMembersUpdateEvent,
        "GUILD_SCHEDULED_EVENT_CREATE" => GuildScheduledEventCreateEvent,
        "GUILD_SCHEDULED_EVENT_UPDATE" => GuildScheduledEventUpdateEvent,
        "GUILD_SCHEDULED_EVENT_DELETE" => GuildScheduledEventDeleteEvent,
        "GUILD_SCHEDULED_EVENT_USER_ADD" => GuildScheduledEventUserAddEvent,
        "GUILD_SCHEDULED_EVENT_USER_REMOVE" => GuildScheduledEventUserRemoveEvent,
        "ENTITLEMENT_CREATE" => EntitlementCreateEvent, "ENTITLEMENT_UPDATE" => EntitlementUpdateEvent,
        "ENTITLEMENT_DELETE" => EntitlementDeleteEvent, "MESSAGE_POLL_VOTE_ADD" => MessagePollVoteAddEvent,
        "MESSAGE_POLL_VOTE_REMOVE" => MessagePollVoteRemoveEvent,
    }
}
