//! What happens to the shards and the bot, as events.

use std::fmt;
use std::time::Duration;

use shardkeeper_proto::close::CloseCode;
use shardkeeper_proto::shard::{Change, FatalClose, Next};
use shardkeeper_proto::{ShardCount, ShardId};

use super::label::SubscriptionLabel;

/// A child of the manager that serves all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Service {
    /// The [`IdentifyQueue`](crate::actor::IdentifyQueue). Without it no shard identifies.
    IdentifyQueue,
    /// The [`SessionKeeper`](crate::actor::SessionKeeper). Without it nothing is stored.
    SessionKeeper,
    /// The [`ReshardSentinel`](crate::actor::ReshardSentinel). Without it nobody asks the gateway.
    ReshardSentinel,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IdentifyQueue => "identify queue",
            Self::SessionKeeper => "session keeper",
            Self::ReshardSentinel => "reshard sentinel",
        })
    }
}

/// A change in the life of a shard or of the whole bot. `Display` makes a line of it.
///
/// # Ordering
///
/// [`Shard`](Self::Shard) comes at its place among the dispatches of its shard; the others come when they come. What follows
/// from a shard's change ([`AllReady`](Self::AllReady), [`LayoutRefused`](Self::LayoutRefused), [`Refused`](Self::Refused))
/// comes after that change, unless the subscription is full.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Lifecycle {
    /// A shard changed its state.
    Shard {
        /// Which one.
        shard: ShardId,
        /// How.
        change: Change,
    },
    /// Every shard of the generation is ready. Once per generation.
    AllReady {
        /// The generation.
        generation: u32,
        /// How many shards it has here.
        shards: usize,
    },
    /// A shard's actor or driver broke down. It comes back with the session that the manager keeps.
    Crashed {
        /// Which one.
        shard: ShardId,
        /// What it said.
        error: String,
        /// When it comes back.
        restart_after: Duration,
        /// It broke down so often that it is tried only now and then.
        quarantined: bool,
    },
    /// Heartbeats of a shard are acknowledged, and no dispatches come, while the other shards have theirs. Nothing is
    /// done about it; once per silence.
    Silent {
        /// Which one.
        shard: ShardId,
        /// For how long.
        quiet_for: Duration,
    },
    /// A lossless subscription is full, and has not taken everything from a shard for 5 s: its shards do not read from Discord.
    /// Reported once, however many shards wait, until [`SubscriptionResumed`](Self::SubscriptionResumed);
    /// [`ShardStatus::held_up`](crate::status::ShardStatus::held_up) shows which.
    SubscriptionStalled {
        /// Which subscription.
        subscription: SubscriptionLabel,
        /// The first shard that has waited this long.
        shard: ShardId,
        /// For how long.
        stalled_for: Duration,
    },
    /// A subscription that had stalled has taken everything, or is gone.
    SubscriptionResumed {
        /// Which subscription.
        subscription: SubscriptionLabel,
        /// For how long it had stalled.
        stalled_for: Duration,
    },
    /// The watermark of a shard has not moved for a minute: a subscriber holds a delivery, or has
    /// [abandoned](crate::Delivery::abandon) one. The shard goes on, but the session that is stored or handed over stays before
    /// that dispatch: the next process gets everything since then again, as far as Discord still has it. Reported once, until
    /// [`WatermarkMoves`](Self::WatermarkMoves). At the end of a shard it is reported after 5 s, since the end waits for the
    /// acknowledgement; and after 1 s when only whoever awaits the end could give it, and the end goes on without.
    WatermarkStuck {
        /// Which shard.
        shard: ShardId,
        /// The subscription whose acknowledgement is missing; `None` when the shard has more than 64 of them, which are not told
        /// apart.
        subscription: Option<SubscriptionLabel>,
        /// The sequence number of the dispatch.
        sequence: u64,
        /// For how long, at least.
        stuck_for: Duration,
    },
    /// The watermark of a shard moves again.
    WatermarkMoves {
        /// Which shard.
        shard: ShardId,
    },
    /// A child of the manager that serves all shards broke down, and is replaced. The shards go on.
    ServiceCrashed {
        /// Which one, and so what is not done until then.
        service: Service,
        /// What it said.
        error: String,
        /// When there is another one.
        restart_after: Duration,
    },
    /// The identify gate failed, and is asked again. Shards that need an Identify wait; resumes go on. Told once, until
    /// [`IdentifyGateRecovered`](Self::IdentifyGateRecovered).
    IdentifyGateFailed {
        /// What it said.
        error: String,
        /// When it is asked again.
        retry_after: Duration,
    },
    /// The identify gate works again.
    IdentifyGateRecovered,
    /// The session store does not work, and is tried again. Until they are, the end of the process costs more than it should.
    /// Once, until it works again.
    StoreFailed {
        /// Why.
        error: String,
        /// When it is tried again; `None` for never: the start goes on without what is stored.
        retry_after: Option<Duration>,
    },
    /// The session store works again.
    StoreRecovered,
    /// `GET /gateway/bot` failed, and is tried again. Shards that run do without.
    GatewayUnavailable {
        /// Why.
        error: String,
        /// When it is tried again; `None` for never: the token is dead (GW-297).
        retry_after: Option<Duration>,
    },
    /// Discord advises more shards than the bot has (GW-005). Nothing is done about it; told each time that it is
    /// more than ever before.
    MoreShardsAdvised {
        /// What the bot has, over all processes.
        count: ShardCount,
        /// What Discord advises.
        advised: u32,
    },
    /// Less than a half, a quarter or a tenth of the identify budget is left: once each.
    BudgetLow {
        /// What is left.
        remaining: u32,
        /// What a day allows.
        total: u32,
    },
    /// The identify budget is used up, but for the reserve. Shards without a session wait; resumes go on.
    BudgetExhausted {
        /// When it is full again.
        resets_after: Duration,
    },
    /// Discord refuses a shard for the number of shards that the bot has (4010, 4011): trying again is pointless until the bot
    /// runs with another one. That shard has ended; see [`Refused`](Self::Refused) for when all of them do.
    LayoutRefused {
        /// Which shard.
        shard: ShardId,
        /// The number of shards that is refused.
        count: ShardCount,
        /// The close code.
        code: CloseCode,
    },
    /// Discord refuses the bot for good. Every shard stops, and the manager ends.
    Refused(FatalClose),
    /// The manager ends; nothing comes after this.
    Ended,
}

impl Lifecycle {
    /// The shard that it concerns; `None` when it is the whole bot.
    pub fn shard(&self) -> Option<ShardId> {
        match self {
            Self::Shard { shard, .. }
            | Self::Crashed { shard, .. }
            | Self::Silent { shard, .. }
            | Self::SubscriptionStalled { shard, .. }
            | Self::WatermarkStuck { shard, .. }
            | Self::WatermarkMoves { shard }
            | Self::LayoutRefused { shard, .. } => Some(*shard),
            _ => None,
        }
    }
}

impl Lifecycle {
    /// Writes the change to the log at its level: an error is for an operator to act on, a warning heals by itself.
    ///
    /// What a shard's own task logs in its span, and the end of a bot, which ends what waits for it, have no line here.
    pub(super) fn log(&self) {
        match self {
            Self::Shard { .. } | Self::Refused(_) | Self::Ended => {}
            Self::Crashed { .. }
            | Self::ServiceCrashed { .. }
            | Self::LayoutRefused { .. }
            | Self::StoreFailed { retry_after: None, .. }
            | Self::GatewayUnavailable { retry_after: None, .. } => tracing::error!("{self}"),
            Self::Silent { .. }
            | Self::SubscriptionStalled { .. }
            | Self::WatermarkStuck { .. }
            | Self::IdentifyGateFailed { .. }
            | Self::StoreFailed { .. }
            | Self::StoreRecovered
            | Self::GatewayUnavailable { .. }
            | Self::MoreShardsAdvised { .. }
            | Self::BudgetLow { .. }
            | Self::BudgetExhausted { .. } => tracing::warn!("{self}"),
            Self::AllReady { .. }
            | Self::SubscriptionResumed { .. }
            | Self::WatermarkMoves { .. }
            | Self::IdentifyGateRecovered => tracing::info!("{self}"),
        }
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard { shard, change } => {
                write!(f, "shard {shard}: ")?;
                describe(change, f)
            }
            Self::AllReady { generation, shards } => {
                write!(f, "all {shards} shards of generation {generation} are ready")
            }
            Self::Crashed { shard, error, restart_after, quarantined } => {
                let place = if *quarantined { ", in quarantine" } else { "" };
                write!(f, "shard {shard}: crashed ({error}), back {}{place}", In(*restart_after))
            }
            Self::Silent { shard, quiet_for } => {
                write!(f, "shard {shard}: silent for {quiet_for:.0?}, though its heartbeats are acknowledged")
            }
            Self::SubscriptionStalled { subscription, shard, stalled_for } => {
                write!(
                    f,
                    "{subscription} is full and has not been read for {stalled_for:.0?}: shard {shard} waits for it"
                )
            }
            Self::SubscriptionResumed { subscription, stalled_for } => {
                write!(f, "{subscription} no longer holds shards up, after {stalled_for:.0?}")
            }
            Self::WatermarkStuck { shard, subscription, sequence, stuck_for } => {
                write!(
                    f,
                    "shard {shard}: sequence {sequence} has not been acknowledged for {stuck_for:.0?} by "
                )?;
                match subscription {
                    Some(subscription) => write!(f, "{subscription}"),
                    None => f.write_str("a subscription"),
                }
            }
            Self::WatermarkMoves { shard } => write!(f, "shard {shard}: acknowledgements go on"),
            Self::ServiceCrashed { service, error, restart_after } => {
                write!(f, "{service}: crashed ({error}), replaced {}", In(*restart_after))
            }
            Self::IdentifyGateFailed { error, retry_after } => {
                write!(f, "identify gate: failed ({error}), next try {}", In(*retry_after))
            }
            Self::IdentifyGateRecovered => f.write_str("identify gate: works again"),
            Self::StoreFailed { error, retry_after: Some(retry_after) } => {
                write!(f, "the session store does not work ({error}), next try {}", In(*retry_after))
            }
            Self::StoreFailed { error, retry_after: None } => {
                write!(f, "the session store does not work ({error}): starting without the stored sessions")
            }
            Self::StoreRecovered => f.write_str("the session store works again"),
            Self::GatewayUnavailable { error, retry_after } => {
                write!(f, "the gateway cannot be asked ({error}), {}", Again(*retry_after))
            }
            Self::MoreShardsAdvised { count, advised } => {
                write!(f, "discord advises {advised} shards, and the bot has {count}")
            }
            Self::BudgetLow { remaining, total } => {
                write!(f, "identify budget low: {remaining} of {total} left")
            }
            Self::BudgetExhausted { resets_after } => {
                write!(f, "identify budget exhausted, full again in {resets_after:.0?}")
            }
            Self::LayoutRefused { shard, count, code } => {
                write!(f, "shard {shard}: the layout of {count} shards is refused: {code}")
            }
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Ended => f.write_str("ended"),
        }
    }
}

fn describe(change: &Change, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match change {
        Change::Queued => f.write_str("queued to identify"),
        Change::Connecting { resuming: true } => f.write_str("connecting to resume"),
        Change::Connecting { resuming: false } => f.write_str("connecting to identify"),
        Change::Paced { wait } => write!(f, "too many connect at once, waits {wait:.1?}"),
        Change::Hello { heartbeat_interval } => write!(f, "hello, heartbeat every {heartbeat_interval:.1?}"),
        Change::Identifying => f.write_str("identifying"),
        Change::Resuming { sequence } => write!(f, "resuming from sequence {sequence}"),
        Change::Ready => f.write_str("ready"),
        Change::Resumed { replayed } => write!(f, "resumed, {replayed} replayed"),
        Change::Disconnected { reason, detail, next } => {
            match detail {
                Some(detail) => write!(f, "disconnected ({reason}: {detail})")?,
                None => write!(f, "disconnected ({reason})")?,
            }
            match next {
                Next::Resume { after } => write!(f, ", resumes {}", In(*after)),
                Next::Identify { after } => write!(f, ", new session {}", In(*after)),
                _ => Ok(()),
            }
        }
        Change::Stopped => f.write_str("stopped"),
        Change::Refused(refusal) => write!(f, "{refusal}"),
        _ => write!(f, "{change:?}"),
    }
}

/// When something is tried again, if it is.
struct Again(Option<Duration>);

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, "next try {}", In(wait)),
            None => f.write_str("no further try"),
        }
    }
}

/// A wait, as people say it.
struct In(Duration);

impl fmt::Display for In {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { f.write_str("at once") } else { write!(f, "in {:.1?}", self.0) }
    }
}
