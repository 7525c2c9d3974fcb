//! Outcome of a command after a shard has accepted it.

use tokio::sync::oneshot;

use crate::chain::readable;
use crate::layout::ShardKey;

/// A command that a shard has accepted for sending. The shard sends it when it is ready and the rate limits
/// allow, if necessary after a resume. Dropping this value does not cancel the command.
#[derive(Debug)]
pub struct AcceptedCommand(oneshot::Receiver<Result<ShardKey, WriteError>>);

/// The driver's end of an [`AcceptedCommand`]. Dropping it without an outcome reports the command as lost.
#[derive(Debug)]
pub(crate) struct Receipt(oneshot::Sender<Result<ShardKey, WriteError>>);

/// Error of an accepted command that was not sent.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The command waited for the whole lifetime of its class:
    /// [`Timings::voice_lifetime`](crate::config::Timings::voice_lifetime) or
    /// [`Timings::bulk_lifetime`](crate::config::Timings::bulk_lifetime).
    #[error("the command expired before it could be sent")]
    Expired,
    /// The shard could not become ready during the command's lifetime, because a lossless subscription is
    /// full and nobody reads it. Perhaps it is the one that the caller reads next.
    /// [`ShardStatus::held_up`](crate::status::ShardStatus::held_up) names it.
    #[error("the command expired: its shard is held up by a full subscription that nobody reads")]
    HeldUp,
    /// The shard ended or crashed, or the connection ended during the write. Discord may or may not have
    /// received the command.
    #[error("the command was lost when its shard or connection ended")]
    Lost,
}

pub(crate) fn receipt() -> (Receipt, AcceptedCommand) {
    let (sender, receiver) = oneshot::channel();
    (Receipt(sender), AcceptedCommand(receiver))
}

impl AcceptedCommand {
    /// Waits until the command was handed to the operating system for sending.
    ///
    /// Discord does not confirm commands. A loop that reads events can wait here: until then a shard that is
    /// not ready continues to read although a subscription is full.
    ///
    /// # Errors
    ///
    /// When the command will not be sent any more.
    ///
    /// # Cancel safety
    ///
    /// Safe: the command is sent regardless.
    pub async fn written(self) -> Result<(), WriteError> {
        self.written_by().await.map(drop)
    }

    /// The same, with the shard that wrote the command: during a reshard it may be another one than that which
    /// accepted it.
    pub(crate) async fn written_by(self) -> Result<ShardKey, WriteError> {
        self.0.await.unwrap_or(Err(WriteError::Lost))
    }
}

impl Receipt {
    pub(crate) fn written(self, by: ShardKey) {
        // A closed receiver is normal: most callers do not wait for the outcome.
        let _ = self.0.send(Ok(by));
    }

    pub(crate) fn not_written(self, reason: WriteError) {
        let _ = self.0.send(Err(reason));
    }

    /// Whether a caller is waiting for the outcome.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.0.is_closed()
    }
}

readable!(WriteError);
