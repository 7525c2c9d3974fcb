//! The complete and checked configuration that a manager is started with.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shardkeeper_proto::{
    Encoding, Intents, PresenceUpdate, Session, ShardConfig, ShardCount, ShardId, Timings, Token, Wire,
};
use shardkeeper_transport::{Compression, Dialer, TransportConfig};
use tokio::sync::watch;
use url::Url;

use crate::command::MembersRequests;
use crate::dispatch::OwnHub;
use crate::error::ExitReason;
use crate::gate::IdentifyGate;
use crate::gateway_info::{GatewayInfo, USER_AGENT};
use crate::message::Shared;
use crate::reshard::ReshardPolicy;
use crate::session::WallClock;
use crate::shard::{PresenceFn, Tap};
use crate::store::SessionStore;

use super::restart::RestartPolicy;

/// The arguments of a [`ShardManager`](crate::actor::ShardManager): a checked configuration, and the
/// subscriptions made so far.
pub struct ManagerArguments {
    pub(crate) config: Config,
    pub(crate) live: Live,
}

impl fmt::Debug for ManagerArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerArguments")
            .field("intents", &self.config.settings.intents)
            .field("layout", &self.config.layout)
            .field("compression", &self.config.settings.compression)
            .finish_non_exhaustive()
    }
}

/// What exists from the builder on until the manager ends.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) hub: OwnHub,
    pub(crate) members: Arc<MembersRequests>,
    pub(crate) ended: watch::Sender<Option<ExitReason>>,
}

impl Live {
    pub(crate) fn new(intents: Intents) -> Self {
        Self { hub: OwnHub::of(intents), members: Arc::default(), ended: watch::Sender::new(None) }
    }

    /// The part that handles get.
    pub(crate) fn share(&self) -> Shared {
        let (hub, members) = (Arc::clone(&self.hub), Arc::clone(&self.members));
        Shared { hub, members, ended: self.ended.subscribe() }
    }
}

/// A checked configuration.
pub(crate) struct Config {
    pub(crate) token: Token,
    pub(crate) api_url: Url,
    pub(crate) layout: LayoutChoice,
    pub(crate) presence: Option<PresenceUpdate>,
    pub(crate) settings: Settings,
}

impl Config {
    /// The configuration of one shard.
    pub(crate) fn shard(
        &self,
        shard: ShardId,
        count: ShardCount,
        intents: Intents,
        gateway_url: &Url,
    ) -> ShardConfig {
        ShardConfig {
            token: self.token.clone(),
            shard,
            count,
            intents,
            large_threshold: self.settings.large_threshold,
            library: self.settings.library.clone(),
            gateway_url: gateway_url.clone(),
            wire: self.settings.wire(),
            timings: self.settings.timings,
        }
    }
}

/// The part of a configuration that a builder stores unchanged.
pub(crate) struct Settings {
    pub(crate) intents: Intents,
    /// The answer to `GET /gateway/bot`, if the bot has it already.
    pub(crate) gateway: Option<GatewayInfo>,
    pub(crate) gateway_check_every: Duration,
    pub(crate) presence_fn: Option<PresenceFn>,
    pub(crate) large_threshold: u8,
    pub(crate) library: String,
    pub(crate) compression: Compression,
    pub(crate) encoding: Encoding,
    pub(crate) timings: Timings,
    pub(crate) max_message_bytes: usize,
    pub(crate) connects_per_second: u32,
    pub(crate) identify_reserve: u32,
    pub(crate) require_full_start: bool,
    pub(crate) identify_gate: Option<Arc<dyn IdentifyGate>>,
    pub(crate) restart_policy: RestartPolicy,
    pub(crate) reshard: ReshardPolicy,
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) sessions: Vec<Session>,
    pub(crate) store: Option<Arc<dyn SessionStore>>,
    pub(crate) max_session_age: Duration,
    pub(crate) wall_clock: WallClock,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) seed: Option<u64>,
    pub(crate) reconnect: bool,
    pub(crate) tap: Option<Arc<Tap>>,
}

impl Settings {
    pub(crate) fn wire(&self) -> Wire {
        Wire {
            encoding: self.encoding,
            compress: self.compression.query_value(),
            payload_compression: self.compression == Compression::Payload,
        }
    }

    pub(crate) fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        transport.compression = self.compression;
        // Shorter than the machine's own deadline, because the transport's error names the peer and the step.
        transport.connect_timeout = self.timings.connect.mul_f64(0.9);
        transport.max_message_bytes = self.max_message_bytes;
        transport.user_agent = Some(USER_AGENT.to_owned());
        transport
    }
}

/// Which shards a manager runs.
#[derive(Clone, Debug)]
pub(crate) enum LayoutChoice {
    Recommended,
    All(ShardCount),
    Some { ids: BTreeSet<ShardId>, count: ShardCount },
}
