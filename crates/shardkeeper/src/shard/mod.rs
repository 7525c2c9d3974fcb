//! One shard: the room in which commands and events meet.
//!
//! The [`ShardActor`] is the address of a shard; its driver, a task, holds connection and protocol machine. Commands come in
//! from above, dispatches go out to the subscribers.

mod actor;
pub(crate) mod board;
mod carry_out;
mod codec;
mod core;
mod driver;
mod hand_over;
pub(crate) mod life;
mod link;
mod oddities;
mod pacer;
mod parts;
mod rate;
mod receipts;
mod tap;

use std::sync::Arc;

use shardkeeper_proto::{Presence, ShardId};

pub use self::actor::{ShardActor, ShardArguments, ShardState};
pub(crate) use self::oddities::Oddities;
pub(crate) use self::pacer::Pacer;
pub(crate) use self::parts::Parts;
pub(crate) use self::rate::{OncePer, Warnings};
pub(crate) use self::tap::Tap;
pub use self::tap::{Direction, WirePayload};

/// Makes the presence for an Identify.
pub(crate) type PresenceFn = Arc<dyn Fn(ShardId) -> Presence + Send + Sync>;
