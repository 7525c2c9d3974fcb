//! What a bot touches: the builder, and the handle on what runs.

mod ask;
mod builder;
mod handle;
mod members;
#[cfg(feature = "songbird")]
pub mod songbird;

pub use self::builder::{Builder, DISCORD_API};
pub use self::handle::Shardkeeper;
