//! The part of a shard that survives: its session, for this process and for the next one.
//!
//! Input: sessions as drivers change them, and sequence numbers as subscribers acknowledge. Output: the
//! session that a shard resumes, after a crash from memory, and after the end of the process from the
//! [store](crate::store).

mod cell;
mod keeper;

use std::sync::Arc;
use std::time::SystemTime;

pub(crate) use self::cell::{SessionCell, Writer};
pub(crate) use self::keeper::SessionTable;
pub use self::keeper::{KeeperArguments, KeeperMessage, KeeperState, SessionKeeper};

/// The wall clock shared by successive processes.
pub(crate) type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;
