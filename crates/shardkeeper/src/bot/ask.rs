//! Questions to actors.

use ractor::{ActorRef, Message, RpcReplyPort};
use tokio::sync::oneshot;

/// Asks an actor, and waits for its answer or its end. `None` when it ended without an answer.
///
/// # Cancel safety
///
/// Once polled, the question is on its way, and a cancelled caller does not get the answer.
pub(crate) async fn ask<M: Message, T: Send + 'static>(
    actor: &ActorRef<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
) -> Option<T> {
    begin(actor, message).wait().await
}

/// Asks an actor at once; the answer can be waited for.
pub(crate) fn begin<M: Message, T: Send + 'static>(
    actor: &ActorRef<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
) -> Answer<M, T> {
    let (reply, answer) = ractor::concurrency::oneshot();
    let asked = actor.cast(message(reply.into())).is_ok();
    Answer { actor: actor.clone(), answer: asked.then_some(answer) }
}

/// What an actor is to answer.
pub(crate) struct Answer<M, T> {
    actor: ActorRef<M>,
    answer: Option<oneshot::Receiver<T>>,
}

impl<M: Message, T: Send + 'static> Answer<M, T> {
    /// Waits for the answer, or the actor's end. `None` when it ended without an answer.
    ///
    /// The reply port alone is not enough: a message that is sent while a mailbox closes is neither served nor dropped as
    /// long as anybody holds the actor's address, and its reply port with it.
    pub(crate) async fn wait(self) -> Option<T> {
        let mut answer = self.answer?;
        tokio::select! {
            biased;
            answer = &mut answer => answer.ok(),
            // Whatever it has answered it has answered before.
            _ = self.actor.wait(None) => answer.try_recv().ok(),
        }
    }
}
