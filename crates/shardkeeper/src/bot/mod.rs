//! The API that a bot uses: the builder, and the handle on a running manager.

mod ask;
mod builder;
mod handle;
mod members;
#[cfg(feature = "songbird")]
pub mod songbird;

pub use self::builder::{Builder, DISCORD_API};
pub use self::handle::Shardkeeper;
