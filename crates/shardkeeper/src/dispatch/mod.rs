//! Events that subscribers receive, and their path to the subscriptions.
//!
//! Input: envelopes from a shard's driver, and lifecycle changes. Output: [`Subscription`]s.

mod actor;
mod hand;
mod hub;
mod json;
mod label;
mod lifecycle;
mod model;
mod overlap;
mod overlapping;
mod publisher;
mod spill;
mod subscription;
mod topic;
#[cfg(feature = "twilight")]
mod typed;
mod watermark;

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use serde::Deserialize;
use shardkeeper_proto::{EventName, ShardId};
use tokio::sync::OwnedSemaphorePermit;

pub use shardkeeper_proto::{Envelope, EventGroup, EventSet};

pub(crate) use self::actor::forward;
pub(crate) use self::hand::await_end;
pub(crate) use self::hub::{Hub, OwnHub};
pub use self::json::JsonError;
pub(crate) use self::json::parse;
pub use self::label::{HeldUp, SubscriptionLabel, WatermarkStuck};
pub(crate) use self::label::{STALLED_AFTER, elapsed_since};
pub use self::lifecycle::{Lifecycle, Service};
pub use self::model::{EventModel, TypedDelivery, TypedError, TypedSubscription};
use self::overlap::{Marks, Part};
pub(crate) use self::overlap::{
    NotYet, Overlap, OverlapCounts, OverlapLimits, OverlapPhase, OverlapReport, OverlapSide, OverlapSlot,
    Side,
};
pub(crate) use self::publisher::Publisher;
pub(crate) use self::spill::InheritedSpill;
pub use self::subscription::{Overflow, Subscription, SubscriptionOptions};
pub use self::topic::Topic;
#[cfg(feature = "twilight")]
pub use self::typed::MalformedEvent;
use self::watermark::AckToken;
pub(crate) use self::watermark::{Found, HeldByWaiter, Watermark};
use crate::layout::ShardKey;

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A dispatch of the Gateway: one event with its shard and sequence number. Clones share the data.
#[derive(Clone)]
pub struct Dispatch {
    key: ShardKey,
    sequence: u64,
    replayed: bool,
    marks: Marks,
    name: Name,
    /// Text and reference count in one allocation, so that a dispatch costs a single one.
    data: Arc<[u8]>,
}

#[derive(Clone)]
enum Name {
    Known(EventName),
    Unknown(Arc<str>),
}

impl Dispatch {
    pub(crate) fn new(
        key: ShardKey,
        (sequence, replayed): (u64, bool),
        event: Option<EventName>,
        envelope: &Envelope<'_>,
    ) -> Self {
        let name = match event {
            Some(event) => Name::Known(event),
            None => Name::Unknown(envelope.event.as_deref().unwrap_or_default().into()),
        };
        let marks = Marks::default();
        Self { key, sequence, replayed, marks, name, data: envelope.data.into() }
    }

    /// Makes a dispatch that no shard received, for tests of code that handles dispatches. Shard, generation
    /// and sequence are 0.
    pub fn sample(name: &str, data: &[u8]) -> Self {
        let name = match EventName::from_bytes(name.as_bytes()) {
            Some(event) => Name::Known(event),
            None => Name::Unknown(name.into()),
        };
        let key = ShardKey { id: ShardId(0), generation: 0 };
        Self { key, sequence: 0, replayed: false, marks: Marks::default(), name, data: data.into() }
    }

    /// Shard that received the dispatch, and its generation.
    pub(crate) fn key(&self) -> ShardKey {
        self.key
    }

    /// Shard that received the dispatch.
    pub fn shard(&self) -> ShardId {
        self.key.id
    }

    /// Generation of the layout that the shard belongs to: 1 for a bot's first, and one more with each reshard.
    pub fn generation(&self) -> u32 {
        self.key.generation
    }

    /// Sequence number of the dispatch within its session. The numbers rise, with gaps. When the gateway
    /// sends no number, this is the number of the dispatch before it, or 0 when there is none.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether Discord sent the dispatch as part of a resume. A replayed dispatch may have been delivered
    /// before: to a process that ended before it had [acknowledged](Delivery) the dispatch, or to a shard
    /// that crashed. Any other dispatch is delivered for the first time.
    pub fn is_replayed(&self) -> bool {
        self.replayed
    }

    /// Whether the dispatch may have been delivered before by a shard of the previous generation.
    ///
    /// During a reshard two sessions receive the events of a guild, and those of the new one that the old one
    /// has delivered are dropped. A dispatch for which that cannot be decided is delivered with this mark: it
    /// may be a repetition, and then later events of the guild may already have come. Messages, interactions
    /// and whatever else has an id of its own can nearly always be decided.
    pub fn may_repeat(&self) -> bool {
        self.marks.repeats
    }

    /// Whether the dispatch belongs to the initial load of a new shard during a reshard: its READY, and the
    /// GUILD_CREATE of each guild that READY lists, or the GUILD_DELETE of one in an outage.
    ///
    /// Before the new shards take over, only topics [with this load](Topic::with_warming) receive it. A guild
    /// that arrives later than that, for example after an outage, is delivered to every topic with
    /// GUILD_CREATE, with this mark: the bot has not joined it.
    pub fn is_warming(&self) -> bool {
        self.marks.warming
    }

    /// Name of the event on the wire.
    pub fn name(&self) -> &str {
        match &self.name {
            Name::Known(event) => event.as_str(),
            Name::Unknown(name) => name,
        }
    }

    /// Name of the event as an enum, if the name is known.
    pub fn event_name(&self) -> Option<EventName> {
        match &self.name {
            Name::Known(event) => Some(*event),
            Name::Unknown(_) => None,
        }
    }

    /// JSON text of the event's data, as Discord sent it.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Parses the data into the caller's type. Fields that `T` does not have cost little, and `T` can borrow
    /// text from the data.
    ///
    /// # Errors
    ///
    /// When the data does not parse as `T`. The dispatch and the shard are not affected.
    pub fn parse<'de, T: Deserialize<'de>>(&'de self) -> Result<T, JsonError> {
        json::parse(&self.data).map_err(|error| error.of(self.owned_name()))
    }

    fn owned_name(&self) -> Cow<'static, str> {
        match &self.name {
            Name::Known(event) => Cow::Borrowed(event.as_str()),
            Name::Unknown(name) => Cow::Owned(name.as_ref().to_owned()),
        }
    }

    /// Parses the data as [`parse`](Self::parse) does, faster for a `T` that takes most of a large event,
    /// such as a guild with its members.
    ///
    /// For events of more than 4 KiB the call takes 0.65 to 0.8 of the time. For a `T` of a few fields it
    /// takes up to twice the time, since simd-json reads everything, and for a `serde_json::Value` about the
    /// same.
    ///
    /// The result is the same, except for the last bit of a float and for `-0`, which becomes 0. A `T` that
    /// simd-json cannot produce is then parsed by serde_json: one with a `RawValue`, or a map with numeric
    /// keys.
    ///
    /// # Errors
    ///
    /// The same as of [`parse`](Self::parse).
    ///
    /// # Bounds
    ///
    /// Each thread that calls it keeps at most about 2 MiB for the next call.
    #[cfg(feature = "simd-json")]
    pub fn parse_whole<T: serde::de::DeserializeOwned>(&self) -> Result<T, JsonError> {
        json::whole(&self.data).map_err(|error| error.of(self.owned_name()))
    }

    /// Parses the event into twilight's model, ready for `InMemoryCache::update` and `Standby::process`.
    /// `None` when twilight has no model of this name, because the event is newer or not documented; the data
    /// is still available.
    ///
    /// The parser is simd-json, which the feature enables: events of more than 4 KiB take 0.44 to 0.9 of
    /// serde_json's time.
    ///
    /// The `Debug` output of the event is twilight's own, which shows everything, in READY also the session
    /// id.
    ///
    /// # Errors
    ///
    /// When the data does not fit the model. The error names the event and the position, and contains nothing
    /// of the content. The dispatch and the shard are not affected.
    #[cfg(feature = "twilight")]
    pub fn event(&self) -> Result<Option<twilight_model::gateway::event::Event>, MalformedEvent> {
        self.event_name().map_or(Ok(None), |event| typed::typed(event, &self.data))
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch")
            .field("shard", &self.key.id)
            .field("generation", &self.key.generation)
            .field("sequence", &self.sequence)
            .field("name", &self.name())
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// Items that a subscription yields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A dispatch of the Gateway.
    Dispatch(Dispatch),
    /// A change in the life of a shard or of the whole bot.
    Lifecycle(Lifecycle),
    /// This subscription was read too slowly, so events were dropped by its overflow policy.
    Lagged {
        /// Number of events that were dropped.
        missed: u64,
    },
}

impl Event {
    /// Returns the dispatch, if the event is one.
    pub fn dispatch(&self) -> Option<&Dispatch> {
        match self {
            Self::Dispatch(dispatch) => Some(dispatch),
            _ => None,
        }
    }

    /// Returns the lifecycle change, if the event is one.
    pub fn lifecycle(&self) -> Option<&Lifecycle> {
        match self {
            Self::Lifecycle(lifecycle) => Some(lifecycle),
            _ => None,
        }
    }
}

/// An event on its way to a subscription.
#[derive(Clone, Debug)]
struct Queued {
    event: Event,
    /// The acknowledgement that the subscription owes for the event, if it must not lose any.
    token: Option<AckToken>,
}

impl Queued {
    /// Marks the event as read. Returns shard and number of the acknowledgement that is owed for it, if any.
    fn mark_read(&self) -> Option<(ShardKey, u64)> {
        let number = self.token.as_ref()?.mark_read();
        self.event.dispatch().map(|dispatch| (dispatch.key, number))
    }
}

impl From<Event> for Queued {
    fn from(event: Event) -> Self {
        Self { event, token: None }
    }
}

/// An event that a subscriber has received. Dropping it acknowledges the event.
///
/// For a lossless subscription ([`Overflow::Wait`]) a session is handed to the next process only up to the
/// first event that was not acknowledged; later events are delivered again there. When a panic drops the
/// delivery, the event is [abandoned](Self::abandon) instead. An actor that subscribed has a bounded number
/// of deliveries at a time.
#[must_use = "dropping a delivery acknowledges it"]
pub struct Delivery {
    event: Event,
    ack: PendingAck,
    credit: Option<Credit>,
}

/// The acknowledgement that is owed for a delivery. It is given on drop, unless a panic is the cause of the
/// drop.
struct PendingAck(Option<AckToken>);

impl Drop for PendingAck {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.give_up();
        }
    }
}

impl PendingAck {
    fn give_up(&mut self) {
        if let Some(token) = self.0.take() {
            token.give_up();
        }
    }
}

/// Credit that an actor returns by dropping a delivery.
struct Credit {
    _permit: OwnedSemaphorePermit,
    ack: Option<Arc<RevocableAck>>,
}

/// The debt of a delivery that was sent to an actor. It can be taken back, because a message caught in the
/// mailbox by the actor's end is never dropped.
type RevocableAck = Mutex<PendingAck>;

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event.fmt(f)
    }
}

impl Delivery {
    fn new(queued: Queued) -> Self {
        Self { event: queued.event, ack: PendingAck(queued.token), credit: None }
    }

    /// Attaches the actor's credit to the delivery. Also returns the debt, if there is one, so that it can be
    /// taken back.
    fn on_credit(mut self, permit: OwnedSemaphorePermit) -> (Self, Option<Weak<RevocableAck>>) {
        let ack = self.ack.0.take().map(|token| Arc::new(Mutex::new(PendingAck(Some(token)))));
        let revocable = ack.as_ref().map(Arc::downgrade);
        self.credit = Some(Credit { _permit: permit, ack });
        (self, revocable)
    }

    /// Drops the delivery without acknowledging the event: it is delivered again to the process that resumes
    /// the session, together with all later events.
    ///
    /// In this process the event is not delivered again. The session that is stored or handed over stays
    /// before this event as long as the session lasts, so abandon only events that another process is to
    /// repeat soon; after a minute [`Lifecycle::WatermarkStuck`] reports it. Subscriptions that may lose
    /// events owe no acknowledgement, so for them this is a plain drop.
    pub fn abandon(mut self) {
        self.ack.give_up();
        if let Some(revocable) = self.credit.as_ref().and_then(|credit| credit.ack.as_ref()) {
            revocable.lock().unwrap_or_else(PoisonError::into_inner).give_up();
        }
    }

    /// Returns the event for keeping, and acknowledges it at once.
    pub fn into_event(self) -> Event {
        self.event
    }
}

impl Deref for Delivery {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}
