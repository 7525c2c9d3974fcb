//! What identifies a shard while two layouts may be live at once.

use serde::{Deserialize, Serialize};
use shardkeeper_proto::ShardId;

/// Identity of a shard: its id, and the generation of its layout. During a reshard two shards may have the same
/// id, and even the same shard count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a name of two parts, and nothing else")]
pub struct ShardKey {
    /// Id of the shard within its layout.
    pub id: ShardId,
    /// Number of the layout: 1 for a bot's first, and one more with each reshard.
    pub generation: u32,
}
