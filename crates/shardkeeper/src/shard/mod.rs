//! One shard: the part of the crate that connects, resumes and sends.
//!
//! The [`ShardActor`] is the address of a shard; its driver, a task, holds the connection and the protocol
//! machine. Commands come from the manager and the bot, and dispatches go to the subscribers.

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

/// The function that computes the presence for an Identify.
pub(crate) type PresenceFn = Arc<dyn Fn(ShardId) -> Presence + Send + Sync>;
