//! shardkeeper-sim
