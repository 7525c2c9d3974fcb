//! Subscriptions to one kind of event, read into the type that the bot has for it.
//!
//! Input: a [`Subscription`]. Output: values of an [`EventModel`], and whatever keeps one from coming.

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

/// A type that one kind of event is read into, for [`subscribe_to`](crate::Shardkeeper::subscribe_to).
///
/// With the feature `twilight` these are the models of `twilight_model::gateway::payload::incoming`. A type of the bot's own
/// names the event, and the fields that it wants:
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
    /// The event that the type is read from.
    const EVENT: EventName;

    /// Reads the type from an event of this name. By default with [`Dispatch::parse`].
    ///
    /// # Errors
    ///
    /// When the data does not fit the type.
    fn from_dispatch(dispatch: &Dispatch) -> Result<Self, JsonError> {
        dispatch.parse()
    }
}

/// A stream of the events of one kind, each read into `T`. Made by [`subscribe_to`](crate::Shardkeeper::subscribe_to), or from
/// any subscription by [`Subscription::typed`].
///
/// Each item is an event, or the reason why one is missing: an event that does not fit `T`, or events that were dropped
/// because the subscription was full. Neither ends the stream.
///
/// Order, bounds and what dropping it means are those of [`Subscription`].
#[derive(Debug)]
#[must_use = "a subscription that is not read fills up"]
pub struct TypedSubscription<T> {
    events: Subscription,
    model: PhantomData<fn() -> T>,
}

/// An event in the hands of a subscriber, read into `T`, to which it dereferences. Dropping it acknowledges the event, as with
/// a [`Delivery`].
#[must_use = "dropping a delivery says that it was dealt with"]
pub struct TypedDelivery<T> {
    event: T,
    delivery: Delivery,
}

/// An item of a [`TypedSubscription`] that is no `T`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// An event does not fit the type.
    #[error("{error}")]
    Malformed {
        /// What is wrong with it.
        error: JsonError,
        /// The event as it came. Dropping it acknowledges it.
        delivery: Delivery,
    },
    /// The subscription was full, and dropped events by its own policy.
    #[error(
        "{missed} events were dropped: the subscription was full, so read it faster or give it more capacity"
    )]
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Subscription {
    /// Reads the events that `T` names into `T`. Whatever else this subscription brings is skipped, and acknowledged, so let
    /// its topic have that one event: [`subscribe_to`](crate::Shardkeeper::subscribe_to) does. This is for a topic that is
    /// narrowed to guilds or shards, or for other [options](crate::SubscriptionOptions).
    pub fn typed<T: EventModel>(self) -> TypedSubscription<T> {
        TypedSubscription { events: self, model: PhantomData }
    }
}

impl<T: EventModel> TypedSubscription<T> {
    /// The next event; `None` once the manager has ended and everything before was read. [`wait`](crate::Shardkeeper::wait)
    /// says why it ended.
    ///
    /// # Errors
    ///
    /// When an event does not fit `T`, or events were dropped. The next call goes on behind it.
    ///
    /// # Cancel safety
    ///
    /// Safe: an event is either returned or still to come.
    pub async fn next(&mut self) -> Option<Result<TypedDelivery<T>, TypedError>> {
        StreamExt::next(self).await
    }

    /// The subscription as it was before [`Subscription::typed`].
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
    /// The event as it came: its shard, its sequence, whether it was replayed, and its data.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn dispatch(&self) -> &Dispatch {
        self.delivery.dispatch().expect("only a dispatch becomes a typed delivery")
    }

    /// The delivery as it came, without the type that it was read into. Nothing is acknowledged yet.
    pub fn into_delivery(self) -> Delivery {
        self.delivery
    }

    /// The event alone, for keeping. Acknowledges at once.
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
