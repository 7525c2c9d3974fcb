//! Who may identify, and when.
//!
//! Input: wishes of shards, and what the gateway and the [gate](crate::gate) say. Output: permits to shards, one per key and
//! window.

mod gate_client;
mod ledger;
mod queue;

pub(crate) use self::gate_client::GateClient;
pub(crate) use self::ledger::{IdentifyLedger, TakenPermit};
pub use self::queue::{IdentifyQueue, QueueArguments, QueueState};
