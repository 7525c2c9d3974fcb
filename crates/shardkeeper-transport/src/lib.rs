//! shardkeeper-transport
