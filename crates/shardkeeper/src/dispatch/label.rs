//! Names of subscriptions in reports about waiting shards and missing acknowledgements.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use super::hand::Hand;
use crate::layout::ShardKey;

/// Time after which a lossless subscription that keeps a shard waiting is reported. 5 s: longer than the
/// usual hiccup of a database, far shorter than what costs a shard its connection.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Identifies a subscription by its [name](crate::Subscription::named), if it has one, and the place in the
/// bot's code that made it. `Display` shows both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubscriptionLabel {
    #[serde(serialize_with = "text")]
    name: Option<Arc<str>>,
    #[serde(serialize_with = "displayed")]
    place: &'static Location<'static>,
}

impl SubscriptionLabel {
    /// Name that the bot gave the subscription, if any.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Place in the bot's code that subscribed.
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }
}

impl fmt::Display for SubscriptionLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "subscription {name:?} ({})", self.place),
            None => write!(f, "the subscription made at {}", self.place),
        }
    }
}

/// A lossless subscription that has no room for a shard's next event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeldUp {
    /// The full subscription.
    pub subscription: SubscriptionLabel,
    /// When the shard began to wait for room. In JSON: `for_ms`, the time since then in milliseconds.
    #[serde(rename = "for_ms", serialize_with = "elapsed_since")]
    pub since: Instant,
}

/// An acknowledgement that a shard's watermark waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WatermarkStuck {
    /// Subscription that has not acknowledged a dispatch, or has [abandoned](crate::Delivery::abandon) it.
    /// `None` when the shard has more than 64 lossless subscriptions, which cannot be told apart.
    pub subscription: Option<SubscriptionLabel>,
    /// Sequence number of that dispatch.
    pub sequence: u64,
    /// When the watermark was first seen to wait for the dispatch. In JSON: `for_ms`, the time since then in
    /// milliseconds.
    #[serde(rename = "for_ms", serialize_with = "elapsed_since")]
    pub since: Instant,
}

/// Serializes the milliseconds since a moment.
pub(crate) fn elapsed_since<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    let elapsed = tokio::time::Instant::now().into_std().saturating_duration_since(*at);
    serializer.serialize_some(&(elapsed.as_secs_f64() * 1000.0))
}

// Serde passes a reference to the field, so the parameter cannot be `Option<&T>`.
fn text<S: Serializer>(name: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_deref().serialize(serializer)
}

fn displayed<S: Serializer>(place: &Location<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(place)
}

/// Shared facts about one subscription: its label, and which shards wait for it.
#[derive(Debug)]
pub(crate) struct Tag {
    name: OnceLock<Arc<str>>,
    place: &'static Location<'static>,
    stall: Mutex<Stall>,
    pub(super) hand: Hand,
}

/// Shards that wait for room in the subscription, each with the start of its wait.
#[derive(Debug, Default)]
struct Stall {
    shards: BTreeMap<ShardKey, Instant>,
    /// Start of the stall that was reported, if any. A stall is reported once, until no shard waits any more.
    reported: Option<Instant>,
}

impl Tag {
    pub(super) fn new(place: &'static Location<'static>) -> Self {
        Self { name: OnceLock::new(), place, stall: Mutex::default(), hand: Hand::default() }
    }

    pub(super) fn set_name(&self, name: Arc<str>) {
        // Only the first name is kept, so that the subscription can be found again under the name that was
        // reported.
        let _ = self.name.set(name);
    }

    pub(crate) fn label(&self) -> SubscriptionLabel {
        SubscriptionLabel { name: self.name.get().cloned(), place: self.place }
    }

    fn stall(&self) -> MutexGuard<'_, Stall> {
        self.stall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a shard begins to wait for room.
    pub(super) fn begin_wait(&self, now: Instant, shard: ShardKey) {
        self.stall().shards.entry(shard).or_insert(now);
    }

    /// Notes that a shard no longer waits. Returns how long the subscription had stalled, if that was
    /// reported and is now over.
    pub(super) fn end_wait(&self, now: Instant, shard: ShardKey) -> Option<Duration> {
        let mut stall = self.stall();
        stall.shards.remove(&shard);
        let over = stall.shards.is_empty();
        let since = stall.reported.take_if(|_| over)?;
        Some(now.saturating_duration_since(since))
    }

    /// Time at which the wait of this shard has to be reported; `None` when it was reported, or this shard
    /// does not wait.
    pub(super) fn report_at(&self, shard: ShardKey) -> Option<Instant> {
        let stall = self.stall();
        let since = stall.shards.get(&shard).filter(|_| stall.reported.is_none())?;
        Some(*since + STALLED_AFTER)
    }

    /// Marks the wait as reported if it is due. Returns how long this shard has waited.
    pub(super) fn take_report(&self, now: Instant, shard: ShardKey) -> Option<Duration> {
        let mut stall = self.stall();
        let since = stall.shards.get(&shard).copied().filter(|_| stall.reported.is_none())?;
        let waited = now.saturating_duration_since(since);
        (waited >= STALLED_AFTER).then(|| {
            stall.reported = Some(since);
            waited
        })
    }

    /// Returns the shards that wait, each with the start of its wait.
    pub(super) fn waiting(&self) -> Vec<(ShardKey, Instant)> {
        self.stall().shards.iter().map(|(shard, since)| (*shard, *since)).collect()
    }
}
