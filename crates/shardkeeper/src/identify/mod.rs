//! Decides which shard may identify, and when.
//!
//! Input: requests of shards, the answers of `GET /gateway/bot`, and passes of the [gate](crate::gate).
//! Output: permits to shards, one per key and window.

mod gate_client;
mod ledger;
mod queue;

pub(crate) use self::gate_client::GateClient;
pub(crate) use self::ledger::{IdentifyLedger, TakenPermit};
pub use self::queue::{IdentifyQueue, QueueArguments, QueueState};
