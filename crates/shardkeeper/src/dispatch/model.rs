//! Subscriptions to one kind of event, parsed into the bot's type for it.
//!
//! Input: a [`Subscription`]. Output: values of an [`EventModel`], and the reasons why some are missing.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use shardkeeper_proto::EventName;

use super::{Delivery, Dispatch, Event, JsonError, Subscription};
use crate::chain::readable;

/// A type that one kind of event is parsed into, for [`subscribe_to`](crate::Shardkeeper::subscribe_to).
///
/// With the feature `twilight` these are the models of `twilight_model::gateway::payload::incoming`. A type
/// of the bot's own names the event and has the fields that the bot needs:
///
/// ```
/// use serde::Deserialize;
/// use shardkeeper::{Dispatch, EventModel, EventName};
///
/// #[derive(Deserialize)]
/// struct Message {
///     channel_id: String,
///     content: String,
/// }
///
/// impl EventModel for Message {
///     const EVENT: EventName = EventName::MessageCreate;
/// }
///
/// let dispatch = Dispatch::sample("MESSAGE_CREATE", br#"{"channel_id": "7", "content": "hello", "pinned": false}"#);
/// assert_eq!(Message::from_dispatch(&dispatch)?.content, "hello");
/// # Ok::<(), shardkeeper::dispatch::JsonError>(())
/// ```
pub trait EventModel: DeserializeOwned {
    /// The event that the type is parsed from.
    const EVENT: EventName;

    /// Parses the type from an event of this name. By default with [`Dispatch::parse`].
    ///
    /// # Errors
    ///
    /// When the data does not fit the type.
    fn from_dispatch(dispatch: &Dispatch) -> Result<Self, JsonError> {
        dispatch.parse()
    }
}

/// A stream of the events of one kind, each parsed into `T`. Made by
/// [`subscribe_to`](crate::Shardkeeper::subscribe_to), or from any subscription by [`Subscription::typed`].
///
/// Each item is an event, or the reason why one is missing: an event that does not fit `T`, or events that
/// were dropped because the subscription was full. Neither ends the stream.
///
/// Order, bounds and the effect of dropping it are those of [`Subscription`].
#[derive(Debug)]
#[must_use = "a subscription that is not read fills up"]
pub struct TypedSubscription<T> {
    events: Subscription,
    model: PhantomData<fn() -> T>,
}

/// An event that a subscriber has received, parsed into `T`, to which it dereferences. Dropping it
/// acknowledges the event, as with a [`Delivery`].
#[must_use = "dropping a delivery acknowledges it"]
pub struct TypedDelivery<T> {
    event: T,
    delivery: Delivery,
}

/// An item of a [`TypedSubscription`] that could not be turned into a `T`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// An event does not fit the type.
    #[error("{error}")]
    Malformed {
        /// Error of parsing the event.
        error: JsonError,
        /// The event as it was received. Dropping it acknowledges the event.
        delivery: Delivery,
    },
    /// The subscription was full, and its overflow policy dropped events.
    #[error(
        "{missed} events were dropped because the subscription was full: read it faster or raise its capacity"
    )]
    Lagged {
        /// Number of events that were dropped.
        missed: u64,
    },
}

impl Subscription {
    /// Parses the events that `T` names into `T`.
    ///
    /// All other events of the subscription are skipped and acknowledged, so its topic should contain only
    /// that event, as with [`subscribe_to`](crate::Shardkeeper::subscribe_to). Use this method for a topic
    /// limited to guilds or shards, or for other [options](crate::SubscriptionOptions).
    pub fn typed<T: EventModel>(self) -> TypedSubscription<T> {
        TypedSubscription { events: self, model: PhantomData }
    }
}

impl<T: EventModel> TypedSubscription<T> {
    /// Waits for the next event; `None` once the manager has ended and all earlier events were read.
    /// [`wait`](crate::Shardkeeper::wait) says why it ended.
    ///
    /// # Errors
    ///
    /// When an event does not fit `T`, or events were dropped. The next call continues with the event after
    /// that.
    ///
    /// # Cancel safety
    ///
    /// Safe: no event is lost; the next call returns it.
    pub async fn next(&mut self) -> Option<Result<TypedDelivery<T>, TypedError>> {
        StreamExt::next(self).await
    }

    /// Returns the subscription as it was before [`Subscription::typed`].
    pub fn into_inner(self) -> Subscription {
        self.events
    }
}

impl<T: EventModel> Stream for TypedSubscription<T> {
    type Item = Result<TypedDelivery<T>, TypedError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(delivery) = ready!(self.events.poll_next_unpin(cx)) else { return Poll::Ready(None) };
            let read = match &*delivery {
                Event::Dispatch(dispatch) if dispatch.event_name() == Some(T::EVENT) => {
                    T::from_dispatch(dispatch)
                }
                &Event::Lagged { missed } => return Poll::Ready(Some(Err(TypedError::Lagged { missed }))),
                _ => continue,
            };
            return Poll::Ready(Some(match read {
                Ok(event) => Ok(TypedDelivery { event, delivery }),
                Err(error) => Err(TypedError::Malformed { error, delivery }),
            }));
        }
    }
}

impl<T> TypedDelivery<T> {
    /// Returns the event as it was received: shard, sequence number, whether it was replayed, and data.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn dispatch(&self) -> &Dispatch {
        self.delivery.dispatch().expect("only a dispatch becomes a typed delivery")
    }

    /// Returns the delivery without the parsed value. Nothing is acknowledged yet.
    pub fn into_delivery(self) -> Delivery {
        self.delivery
    }

    /// Returns the parsed value for keeping, and acknowledges the event at once.
    pub fn into_inner(self) -> T {
        self.event
    }
}

impl<T> Deref for TypedDelivery<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.event
    }
}

impl<T> fmt::Debug for TypedDelivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.delivery.fmt(f)
    }
}

readable!(TypedError);
