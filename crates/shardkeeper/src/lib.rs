//! shardkeeper
