//! Delivery of events to actors.

use std::sync::{Arc, PoisonError, Weak};

use ractor::{ActorRef, Message};
use tokio::sync::Semaphore;

use super::{Delivery, RevocableAck, Subscription};

/// Sends each event to an actor as a message, until the subscription or the actor ends.
///
/// A mailbox has no bound, so deliveries are limited by credit: at most `credit` of them are in the mailbox
/// or held by the actor, and the next one is sent when one of them is dropped.
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
            // The actor's end must be noticed here: its credit may be held by deliveries that are never
            // dropped.
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
        // The actor may still be handling the messages in its mailbox, so wait until it has ended.
        let _ = actor.wait(None).await;
        // A message sent while the mailbox closed stays in it as long as the actor's address exists
        // somewhere, so its debt is taken back here.
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
    use crate::layout::ShardKey;

    /// Keeps every delivery from being dropped, as a mailbox that closes over it does.
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
        // With a credit of one, forwarding would wait forever.
        let forwarding = tokio::spawn(forward(subscription, 1, actor.clone(), |delivery| delivery));
        let inherited_spill = Arc::new(InheritedSpill::default());
        let mut publisher = Publisher::new(
            Arc::clone(&hub),
            ShardKey { id: ShardId(0), generation: 1 },
            Arc::clone(&watermark),
            inherited_spill,
            Arc::default(),
        );
        for sequence in 1..=3 {
            let payload = format!(r#"{{"t":"X","s":{sequence},"op":0,"d":{{}}}}"#);
            publisher.publish(&Envelope::split(payload.as_bytes()).unwrap(), sequence, false);
        }
        let end = tokio::time::timeout(Duration::from_secs(60), forwarding).await;
        end.expect("forwarding ends with its actor").unwrap();
        watermark.settled().await;
        assert_eq!(watermark.acknowledged(), 3);
        drop(actor);
    }
}
