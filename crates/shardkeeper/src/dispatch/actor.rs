//! Actors as subscribers.

use std::sync::Arc;

use ractor::{ActorRef, Message};
use tokio::sync::Semaphore;

use super::{Delivery, Subscription};

/// Casts each event to an actor, until the subscription or the actor ends.
///
/// A mailbox has no bound, so the actor gets credit instead: at most `credit` deliveries are in its mailbox or
/// hands, and the next one goes out when one of them is dropped.
pub(crate) async fn forward<M: Message>(
    mut subscription: Subscription,
    credit: usize,
    actor: ActorRef<M>,
    into: impl Fn(Delivery) -> M,
) {
    let credit = Arc::new(Semaphore::new(credit.clamp(1, Semaphore::MAX_PERMITS)));
    while let Ok(permit) = Arc::clone(&credit).acquire_owned().await {
        let Some(delivery) = subscription.next().await else { return };
        if actor.cast(into(delivery.on_credit(permit))).is_err() {
            return;
        }
    }
}
