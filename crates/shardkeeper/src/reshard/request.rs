//! What an operator asks of a reshard.

use shardkeeper_proto::{Intents, ShardCount};

use super::plan::ReshardTarget;

/// A request to reshard, for [`Shardkeeper::reshard`](crate::Shardkeeper::reshard).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a request does nothing by itself: pass it to Shardkeeper::reshard"]
pub struct ReshardRequest {
    pub(crate) target: ReshardTarget,
    pub(crate) intents: Option<Intents>,
    pub(crate) dry_run: bool,
}

impl ReshardRequest {
    /// Asks for this target.
    pub const fn new(target: ReshardTarget) -> Self {
        Self { target, intents: None, dry_run: false }
    }

    /// Asks for this many shards.
    pub const fn to(count: ShardCount) -> Self {
        Self::new(ReshardTarget::Count(count))
    }

    /// Asks for as many shards as Discord recommends.
    pub const fn recommended() -> Self {
        Self::new(ReshardTarget::Recommended)
    }

    /// Asks for the present count with new sessions.
    pub const fn same() -> Self {
        Self::new(ReshardTarget::Same)
    }

    /// Sets the intents with which the new shards identify. Default: those of the bot.
    pub const fn intents(mut self, intents: Intents) -> Self {
        self.intents = Some(intents);
        self
    }

    /// Only plans: nothing is started.
    pub const fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }
}
