//! Questions to actors.

use ractor::{ActorRef, Message, RpcReplyPort};

/// Asks an actor, and waits for its answer or its end. `None` when it ended without an answer.
///
/// The reply port alone is not enough: a message that is sent while a mailbox closes is neither served nor dropped as
/// long as anybody holds the actor's address, and its reply port with it.
///
/// # Cancel safety
///
/// Once polled, the question is on its way, and a cancelled caller does not get the answer.
pub(crate) async fn ask<M: Message, T: Send + 'static>(
    actor: &ActorRef<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
) -> Option<T> {
    let (reply, mut answer) = ractor::concurrency::oneshot();
    actor.cast(message(reply.into())).ok()?;
    tokio::select! {
        biased;
        answer = &mut answer => answer.ok(),
        // Whatever it has answered it has answered before.
        _ = actor.wait(None) => answer.try_recv().ok(),
    }
}
