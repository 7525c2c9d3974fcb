//! What makes a resume possible.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Intents, ShardCount, ShardId};

/// A session: Discord's side of a shard, which outlives its connections (GW-124).
///
/// It is a secret like the token (whoever has both can resume it), so its `Debug` shows the sequence alone.
/// Serialize it only into storage that is as private as the token's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Discord's name for it.
    pub id: String,
    /// Where Discord wants it resumed; without a query. `None` when READY had none that could be used.
    pub resume_url: Option<String>,
    /// The last sequence number received in it (GW-020).
    pub sequence: u64,
    /// The shard it was identified as. A session is resumed into the same slot only.
    pub shard: ShardId,
    /// The layout it was identified in.
    pub count: ShardCount,
    /// What it asked to receive: that stays as it is for the life of the session (GW-181).
    pub intents: Intents,
    /// The query of the connection that it was made on; it is resumed with the same (GW-012).
    pub query: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("shard", &self.shard)
            .field("count", &self.count)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}
