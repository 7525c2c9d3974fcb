//! Actors as subscribers.

use std::sync::{Arc, PoisonError, Weak};

use ractor::{ActorRef, Message};
use tokio::sync::Semaphore;

use super::{Delivery, RevocableAck, Subscription};

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
    let credit = credit.clamp(1, Semaphore::MAX_PERMITS);
    let permits = Arc::new(Semaphore::new(credit));
    let mut revocable: Vec<Weak<RevocableAck>> = Vec::new();
    let actor_ended = loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some(subscription.next().await?.on_credit(permit))
        };
        let next = tokio::select! {
            biased;
            next = next => next,
            // Its credit may be with deliveries that it never drops.
            _ = actor.wait(None) => break true,
        };
        let Some((delivery, ack)) = next else { break false };
        if revocable.len() / 2 >= credit {
            revocable.retain(|ack| ack.strong_count() > 0);
        }
        revocable.extend(ack);
        if actor.cast(into(delivery)).is_err() {
            break true;
        }
    };
    drop(subscription);
    if actor_ended {
        // It may be closing still, and serve what is in its mailbox.
        let _ = actor.wait(None).await;
        // What was sent while the mailbox closed stays in it for as long as anybody has the actor's address.
        for ack in revocable.iter().filter_map(Weak::upgrade) {
            drop(ack.lock().unwrap_or_else(PoisonError::into_inner).0.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ractor::{Actor, ActorProcessingErr};
    use shardkeeper_proto::{Envelope, ShardId};

    use super::*;
    use crate::dispatch::{Hub, InheritedSpill, Publisher, Watermark};
    use crate::dispatch::{SubscriptionOptions, Topic};

    /// Keeps every delivery from being dropped, as a mailbox does that closes over it.
    struct Leaks;

    impl Actor for Leaks {
        type Msg = Delivery;
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<Delivery>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn handle(
            &self,
            myself: ActorRef<Delivery>,
            delivery: Delivery,
            (): &mut (),
        ) -> Result<(), ActorProcessingErr> {
            std::mem::forget(delivery);
            myself.stop(None);
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_end_of_an_actor_keeps_from_being_dropped_is_acknowledged() {
        let (hub, watermark) = (Arc::new(Hub::default()), Arc::new(Watermark::default()));
        let subscription = hub.subscribe(Topic::all(), SubscriptionOptions::default());
        let (actor, _) = Actor::spawn(None, Leaks, ()).await.unwrap();
        // With credit for one it would wait for ever.
        let forwarding = tokio::spawn(forward(subscription, 1, actor.clone(), |delivery| delivery));
        let inherited_spill = Arc::new(InheritedSpill::default());
        let mut publisher =
            Publisher::new(Arc::clone(&hub), ShardId(0), 1, Arc::clone(&watermark), inherited_spill);
        for sequence in 1..=3 {
            let payload = format!(r#"{{"t":"X","s":{sequence},"op":0,"d":{{}}}}"#);
            publisher.publish(&Envelope::split(payload.as_bytes()).unwrap(), sequence, false);
        }
        let end = tokio::time::timeout(Duration::from_secs(60), forwarding).await;
        end.expect("it ends with its actor").unwrap();
        watermark.settled().await;
        assert_eq!(watermark.acknowledged(), 3);
        drop(actor);
    }
}
