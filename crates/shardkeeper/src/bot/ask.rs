//! Calls to actors that return when the actor answers or ends.

use ractor::{ActorRef, Message, RpcReplyPort};
use tokio::sync::oneshot;

/// Sends a question to an actor, and waits for the answer or the actor's end. `None` when the actor ended
/// without an answer.
///
/// # Cancel safety
///
/// Once polled, the question has been sent, and a cancelled caller does not get the answer.
pub(crate) async fn ask<M: Message, T: Send + 'static>(
    actor: &ActorRef<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
) -> Option<T> {
    begin(actor, message).wait().await
}

/// Sends a question to an actor at once, and returns the answer to wait for.
pub(crate) fn begin<M: Message, T: Send + 'static>(
    actor: &ActorRef<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
) -> Answer<M, T> {
    let (reply, answer) = ractor::concurrency::oneshot();
    let asked = actor.cast(message(reply.into())).is_ok();
    Answer { actor: actor.clone(), answer: asked.then_some(answer) }
}

/// Answer that an actor still owes.
pub(crate) struct Answer<M, T> {
    actor: ActorRef<M>,
    answer: Option<oneshot::Receiver<T>>,
}

impl<M: Message, T: Send + 'static> Answer<M, T> {
    /// Waits for the answer, or the actor's end. `None` when the actor ended without an answer.
    ///
    /// The reply port is not enough: a message sent while a mailbox closes is neither handled nor dropped as
    /// long as the actor's address exists somewhere, and the same is true of its reply port.
    pub(crate) async fn wait(self) -> Option<T> {
        let mut answer = self.answer?;
        tokio::select! {
            biased;
            answer = &mut answer => answer.ok(),
            // An actor that has ended sends no more answers; one sent before its end is already in the
            // channel.
            _ = self.actor.wait(None) => answer.try_recv().ok(),
        }
    }
}
