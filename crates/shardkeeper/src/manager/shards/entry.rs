//! One shard in the manager's table: what outlives its actor, and where the shard is in its life.

use std::sync::Arc;

use ractor::ActorRef;
use shardkeeper_proto::{PresenceUpdate, Session, ShardCount};

use crate::command::CommandSender;
use crate::dispatch::{HeldUp, InheritedSpill, OverlapSlot};
use crate::layout::{Role, ShardKey};
use crate::message::ShardMessage;
use crate::session::{SessionCell, Writer};
use crate::shard::board::StatusBoard;
use crate::shard::life::{Drivers, Life};
use crate::status::ShardStatus;

pub(super) struct Entry {
    pub(super) cell: Arc<SessionCell>,
    pub(super) inherited_spill: Arc<InheritedSpill>,
    /// The shard's part in a reshard.
    pub(super) overlap: Arc<OverlapSlot>,
    pub(super) board: Arc<StatusBoard>,
    /// Of the latest incarnation.
    pub(super) life: Arc<Life>,
    pub(super) drivers: Drivers,
    pub(super) presence: Option<PresenceUpdate>,
    /// Whether an incarnation before the latest was ready.
    pub(super) was_ready_before: bool,
    pub(super) stage: Stage,
}

/// Where a shard is in its life.
///
/// ```text
///   added ──▶ Down ─── spawned ──▶ Up
///              │ ◀──── crashed ─── │
///              │                   │ refused by Discord, or ended as ordered
///     shutdown │                   ▼
///              │                Closing
///              ▼                   │ actor gone
///            Ended ◀───────────────┘
/// ```
///
/// A restart on request leads from every stage back to `Up`; nothing else leads out of `Closing` and `Ended`.
pub(super) enum Stage {
    /// Without an actor: not started yet, or waiting for the restart after a crash.
    Down,
    Up {
        actor: ActorRef<ShardMessage>,
        commands: CommandSender,
    },
    /// Out of service, and the actor is about to end.
    Closing {
        actor: ActorRef<ShardMessage>,
    },
    /// Out of service, without an actor.
    Ended,
}

impl Stage {
    /// The actor, whether or not the shard is in service.
    pub(super) fn actor(&self) -> Option<&ActorRef<ShardMessage>> {
        match self {
            Self::Up { actor, .. } | Self::Closing { actor } => Some(actor),
            Self::Down | Self::Ended => None,
        }
    }

    /// Whether the shard is out of service, and no crash or timer starts it again.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Closing { .. } | Self::Ended)
    }

    /// Takes the shard out of service.
    pub(super) fn end(&mut self) {
        *self = match std::mem::replace(self, Self::Ended) {
            Self::Up { actor, .. } | Self::Closing { actor } => Self::Closing { actor },
            Self::Down | Self::Ended => Self::Ended,
        };
    }

    /// Drops the actor, which has ended or crashed.
    pub(super) fn drop_actor(&mut self) {
        *self = if self.has_ended() { Self::Ended } else { Self::Down };
    }
}

impl Entry {
    pub(super) fn new(
        (shard, count, role): (ShardKey, ShardCount, Role),
        (session, writer): (Option<Session>, Writer),
        presence: Option<PresenceUpdate>,
    ) -> Self {
        Self {
            cell: Arc::new(SessionCell::new(session, writer)),
            inherited_spill: Arc::default(),
            overlap: Arc::default(),
            board: Arc::new(StatusBoard::new(shard, count, role)),
            life: Arc::default(),
            drivers: Drivers::default(),
            presence,
            was_ready_before: false,
            stage: Stage::Down,
        }
    }

    pub(super) fn was_ready(&self) -> bool {
        self.was_ready_before || self.life.was_ready()
    }

    /// Whether neither actor nor drivers have anything left to do.
    pub(super) fn is_gone(&self) -> bool {
        self.stage.actor().is_none() && self.drivers.are_gone() || self.life.is_over()
    }

    pub(super) fn status(&self, held_up: Option<HeldUp>) -> ShardStatus {
        ShardStatus {
            sequence: self.cell.load().map_or(0, |session| session.sequence),
            acknowledged: self.cell.load_acknowledged().map_or(0, |session| session.sequence),
            watermark_stuck: self.cell.watermark().stuck(),
            held_up,
            ..self.board.read()
        }
    }

    pub(super) fn set_presence(&mut self, presence: &PresenceUpdate) {
        self.presence = Some(presence.clone());
        if let Some(actor) = self.stage.actor() {
            let (reply, _) = ractor::concurrency::oneshot();
            let _ = actor.cast(ShardMessage::UpdatePresence(presence.clone(), reply.into()));
        }
    }
}
