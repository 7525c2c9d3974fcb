//! The phases of a manager, each with the data that exists only in it.

use std::sync::{Arc, Mutex};

use ractor::{ActorRef, RpcReplyPort};
use shardkeeper_proto::{Session, ShardCount};

use super::resharding::{Resharding, Setback};
use super::shards::Shards;
use super::silence::SilenceWatch;
use crate::error::{ExitReason, ManagerEnded, ShardChangeError, StartError};
use crate::gateway_info::GatewayInfo;
use crate::identify::IdentifyLedger;
use crate::message::{QueueMessage, ShutdownMode};
use crate::session::{KeeperMessage, SessionTable};
use crate::store::Stored;
use crate::task::AbortOnDrop;

/// Where a manager is in its life.
///
/// ```text
///             session store and
///             gateway answered
///   Starting ──────────────────▶ Running
///    │    │                         │
///    │    │ shutdown                │ shutdown, or Discord refuses the bot
///    │    └──────────▶ Stopping ◀───┘
///    │                    │
///    │ start failed       │ every shard has ended and the store is closed, or the deadline has passed
///    └──▶ the actor ends ◀┘
/// ```
pub(super) enum Phase {
    Starting(Starting),
    Running(Box<Fleet>),
    Stopping(Stopping),
}

/// The layout is not known yet, so there are no shards.
#[derive(Default)]
pub(super) struct Starting {
    /// Get an answer when the shards are started.
    pub(super) callers: Vec<RpcReplyPort<Result<(), StartError>>>,
    pub(super) step: StartStep,
}

/// What a start waits for.
///
/// ```text
///   AwaitStore ──▶ AwaitGateway ──▶ Running
///        │              │
///        └──────┬───────┘ the start fails
///               ▼
///             Failed ──▶ the actor ends
/// ```
pub(super) enum StartStep {
    AwaitStore {
        /// Asks the session store for its contents.
        load: Option<AbortOnDrop>,
        /// The gateway's answer, if it came first.
        gateway: Option<GatewayInfo>,
    },
    AwaitGateway(StoreContents),
    /// The manager ends as soon as the session store is closed.
    Failed,
}

impl Default for StartStep {
    /// The first step of a manager without a session store.
    fn default() -> Self {
        Self::AwaitGateway(StoreContents::default())
    }
}

/// What a start knows of the session store.
#[derive(Default)]
pub(super) struct StoreContents {
    pub(super) stored: Stored,
    /// The store could not be read, and this was announced.
    pub(super) failed: bool,
}

/// The shards, and what serves all of them. Exists once the layout is known.
pub(super) struct Fleet {
    /// The gateway's latest answer.
    pub(super) info: GatewayInfo,
    pub(super) queue: ActorRef<QueueMessage>,
    pub(super) ledger: Arc<IdentifyLedger>,
    pub(super) table: Arc<Mutex<SessionTable>>,
    /// `None` without a session store, and while a crashed keeper waits for its replacement.
    pub(super) keeper: Option<ActorRef<KeeperMessage>>,
    pub(super) shards: Shards,
    /// The last generation whose shards were announced to be ready; 0 for none.
    pub(super) all_ready_announced: u32,
    /// The largest recommended number of shards that was announced.
    pub(super) advised: u32,
    /// The shard count to reshard to, after a start that resumed the sessions of another layout.
    pub(super) wanted: Option<ShardCount>,
    pub(super) silence: SilenceWatch,
    pub(super) reshard: Option<Box<Resharding>>,
    /// Why the last reshard did not reach its end.
    pub(super) setback: Option<Setback>,
}

/// The shards end, and then the session store is closed. A deadline limits both.
pub(super) struct Stopping {
    pub(super) mode: ShutdownMode,
    pub(super) reason: ExitReason,
    /// Every shard has ended, and a session keeper stores what is left: the present one, or its replacement.
    pub(super) flushing: bool,
    /// Get the sessions when the manager has ended.
    pub(super) callers: Vec<RpcReplyPort<Vec<Session>>>,
    pub(super) before: Before,
}

/// The phase that a shutdown interrupted.
pub(super) enum Before {
    Starting(Starting),
    Running(Box<Fleet>),
}

impl Phase {
    pub(super) fn starting_mut(&mut self) -> Option<&mut Starting> {
        match self {
            Self::Starting(starting)
            | Self::Stopping(Stopping { before: Before::Starting(starting), .. }) => Some(starting),
            _ => None,
        }
    }

    pub(super) fn fleet(&self) -> Option<&Fleet> {
        match self {
            Self::Running(fleet) | Self::Stopping(Stopping { before: Before::Running(fleet), .. }) => {
                Some(fleet)
            }
            _ => None,
        }
    }

    pub(super) fn fleet_mut(&mut self) -> Option<&mut Fleet> {
        match self {
            Self::Running(fleet) | Self::Stopping(Stopping { before: Before::Running(fleet), .. }) => {
                Some(fleet)
            }
            _ => None,
        }
    }

    /// The fleet, if its shards may be added, removed and restarted.
    pub(super) fn changeable(&mut self) -> Result<&mut Fleet, ShardChangeError> {
        match self {
            Self::Starting(_) => Err(ShardChangeError::Starting),
            Self::Running(fleet) => Ok(fleet),
            Self::Stopping(_) => Err(ManagerEnded.into()),
        }
    }

    pub(super) fn stopping(&self) -> Option<&Stopping> {
        match self {
            Self::Stopping(stopping) => Some(stopping),
            _ => None,
        }
    }
}
