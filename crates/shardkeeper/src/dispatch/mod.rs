//! What subscribers receive, and the way it takes to them.
//!
//! Input: envelopes from a shard's driver, and lifecycle changes. Output: [`Subscription`]s.

mod actor;
mod hand;
mod hub;
mod json;
mod label;
mod lifecycle;
mod model;
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
pub(crate) use self::publisher::Publisher;
pub(crate) use self::spill::InheritedSpill;
pub use self::subscription::{Overflow, Subscription, SubscriptionOptions};
pub use self::topic::Topic;
#[cfg(feature = "twilight")]
pub use self::typed::MalformedEvent;
use self::watermark::AckToken;
pub(crate) use self::watermark::{Found, HeldByAsker, Watermark};

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// One dispatch of the Gateway. Clones share the data.
#[derive(Clone)]
pub struct Dispatch {
    shard: ShardId,
    generation: u32,
    sequence: u64,
    replayed: bool,
    name: Name,
    /// One allocation, which also holds the count of its owners.
    data: Arc<[u8]>,
}

#[derive(Clone)]
enum Name {
    Known(EventName),
    Unknown(Arc<str>),
}

impl Dispatch {
    pub(crate) fn new(
        (shard, generation): (ShardId, u32),
        (sequence, replayed): (u64, bool),
        event: Option<EventName>,
        envelope: &Envelope<'_>,
    ) -> Self {
        let name = match event {
            Some(event) => Name::Known(event),
            None => Name::Unknown(envelope.event.as_deref().unwrap_or_default().into()),
        };
        Self { shard, generation, sequence, replayed, name, data: envelope.data.into() }
    }

    /// A dispatch that no shard received, for tests of whatever handles dispatches. Shard, generation and sequence are 0.
    pub fn sample(name: &str, data: &[u8]) -> Self {
        let name = match EventName::from_bytes(name.as_bytes()) {
            Some(event) => Name::Known(event),
            None => Name::Unknown(name.into()),
        };
        Self { shard: ShardId(0), generation: 0, sequence: 0, replayed: false, name, data: data.into() }
    }

    /// The shard that received it.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The generation of the layout that the shard belongs to.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Its number within the session. Rises, but not by one each time. From a gateway that does not number it, the number
    /// of the dispatch before it; 0 when there is none.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether Discord sent it as part of a resume. Such a one may have come before, to a process that ended before it had
    /// [acknowledged](Delivery) it, or to a shard that crashed; any other comes for the first time.
    pub fn is_replayed(&self) -> bool {
        self.replayed
    }

    /// The event's name on the wire.
    pub fn name(&self) -> &str {
        match &self.name {
            Name::Known(event) => event.as_str(),
            Name::Unknown(name) => name,
        }
    }

    /// The event's name, if it is a known one.
    pub fn event_name(&self) -> Option<EventName> {
        match &self.name {
            Name::Known(event) => Some(*event),
            Name::Unknown(_) => None,
        }
    }

    /// The JSON text of the event's data, as Discord wrote it.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Parses the data into whatever the caller wants of it. Fields that `T` does not name cost little, and `T` can borrow
    /// text from the data.
    ///
    /// # Errors
    ///
    /// When the data is no `T`. The dispatch stays as it is, and the shard does not care.
    pub fn parse<'de, T: Deserialize<'de>>(&'de self) -> Result<T, JsonError> {
        json::parse(&self.data).map_err(|error| error.of(self.owned_name()))
    }

    fn owned_name(&self) -> Cow<'static, str> {
        match &self.name {
            Name::Known(event) => Cow::Borrowed(event.as_str()),
            Name::Unknown(name) => Cow::Owned(name.as_ref().to_owned()),
        }
    }

    /// As [`parse`](Self::parse), for a `T` that takes most of a large event: a guild with its members, say. With events
    /// of more than 4 KiB it takes 0.65 to 0.8 of the time; but up to twice the time for a `T` of a few fields, since
    /// simd-json reads everything, and about the same for a `serde_json::Value`.
    ///
    /// The result is the same, but for the last bit of a float and for `-0`, which is 0. A `T` that simd-json cannot make
    /// is parsed by serde_json thereafter: one with a `RawValue`, or a map whose keys are numbers.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](Self::parse).
    ///
    /// # Bounds
    ///
    /// Each thread that calls it keeps about 2 MiB at most for the next call.
    #[cfg(feature = "simd-json")]
    pub fn parse_whole<T: serde::de::DeserializeOwned>(&self) -> Result<T, JsonError> {
        json::whole(&self.data).map_err(|error| error.of(self.owned_name()))
    }

    /// The event as twilight's models have it, ready for `InMemoryCache::update` and `Standby::process`. `None` when they
    /// have none of this name: it is newer than they are, or not documented. Its data is there all the same.
    ///
    /// It is read by simd-json, which the feature brings along: events of more than 4 KiB take 0.44 to 0.9 of the time that
    /// serde_json takes.
    ///
    /// The `Debug` output of an event is twilight's: it shows everything, in READY also the session's id.
    ///
    /// # Errors
    ///
    /// When the data does not fit the model. The error tells the event and the place, and nothing of the content. The
    /// dispatch stays as it is, and the shard does not care.
    #[cfg(feature = "twilight")]
    pub fn event(&self) -> Result<Option<twilight_model::gateway::event::Event>, MalformedEvent> {
        self.event_name().map_or(Ok(None), |event| typed::typed(event, &self.data))
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch")
            .field("shard", &self.shard)
            .field("sequence", &self.sequence)
            .field("name", &self.name())
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// What a subscription yields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A dispatch.
    Dispatch(Dispatch),
    /// A change in the life of a shard or of the whole bot.
    Lifecycle(Lifecycle),
    /// This subscription was too slow: so many events were dropped, by its own policy.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Event {
    /// The dispatch, if it is one.
    pub fn dispatch(&self) -> Option<&Dispatch> {
        match self {
            Self::Dispatch(dispatch) => Some(dispatch),
            _ => None,
        }
    }

    /// The lifecycle change, if it is one.
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
    /// What the subscription owes for it, if it may not lose it.
    token: Option<AckToken>,
}

impl Queued {
    /// It is read. Returns the shard and the number of what is owed for it, if anything is.
    fn mark_read(&self) -> Option<(ShardId, u64)> {
        let number = self.token.as_ref()?.mark_read();
        self.event.dispatch().map(|dispatch| (dispatch.shard(), number))
    }
}

impl From<Event> for Queued {
    fn from(event: Event) -> Self {
        Self { event, token: None }
    }
}

/// An event in the hands of a subscriber. Dropping it acknowledges it: for a subscription that loses nothing
/// ([`Overflow::Wait`]) a session is handed to the next process only as far as everything was acknowledged, and the rest
/// comes again there. When a panic drops it, it is [abandoned](Self::abandon) instead. An actor that subscribed has only a
/// bounded number of deliveries at a time.
#[must_use = "dropping a delivery says that it was dealt with"]
pub struct Delivery {
    event: Event,
    ack: PendingAck,
    credit: Option<Credit>,
}

/// The acknowledgement of a delivery, given by dropping it, unless a panic is what drops it.
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

/// What an actor that subscribed gives back by dropping a delivery.
struct Credit {
    _permit: OwnedSemaphorePermit,
    ack: Option<Arc<RevocableAck>>,
}

/// The acknowledgement of a delivery that went to an actor, which can be taken back: a delivery that the actor's end caught
/// on its way into the mailbox would never be dropped.
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

    /// Also returns the acknowledgement, if one is expected, for taking it back.
    fn on_credit(mut self, permit: OwnedSemaphorePermit) -> (Self, Option<Weak<RevocableAck>>) {
        let ack = self.ack.0.take().map(|token| Arc::new(Mutex::new(PendingAck(Some(token)))));
        let revocable = ack.as_ref().map(Arc::downgrade);
        self.credit = Some(Credit { _permit: permit, ack });
        (self, revocable)
    }

    /// Drops the delivery without acknowledging it: it was not dealt with, and comes again to the process that resumes the
    /// session, with everything behind it. In this process it does not come again. What a session is handed out or stored with
    /// stays before it for as long as the session lasts, so abandon only what another process is to repeat soon: after a minute
    /// [`Lifecycle::WatermarkStuck`] says so. Subscriptions that may lose events owe
    /// nothing, and this only drops.
    pub fn abandon(mut self) {
        self.ack.give_up();
        if let Some(revocable) = self.credit.as_ref().and_then(|credit| credit.ack.as_ref()) {
            revocable.lock().unwrap_or_else(PoisonError::into_inner).give_up();
        }
    }

    /// The event alone, for keeping. Acknowledges at once.
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
