//! Changes in the life of the shards and the bot, as events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shardkeeper_proto::close::CloseCode;
use shardkeeper_proto::shard::{Change, FatalClose, Next};
use shardkeeper_proto::{ShardCount, ShardId};

use super::label::SubscriptionLabel;
use crate::error::ReshardRejected;
use crate::layout::ShardKey;
use crate::reshard::{GroupPhase, HaltReason, ReshardPlan};

/// A child actor of the manager that serves all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Service {
    /// The [`IdentifyQueue`](crate::actor::IdentifyQueue). While it is down, no shard identifies.
    IdentifyQueue,
    /// The [`SessionKeeper`](crate::actor::SessionKeeper). While it is down, nothing is stored.
    SessionKeeper,
    /// The [`ReshardSentinel`](crate::actor::ReshardSentinel). While it is down, `GET /gateway/bot` is not
    /// sent.
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

/// A change in the life of a shard or of the whole bot. `Display` formats it as one line.
///
/// # Ordering
///
/// [`Shard`](Self::Shard) comes at its position among the dispatches of its shard; the other changes have no
/// fixed position. The consequences of a shard's change ([`AllReady`](Self::AllReady),
/// [`LayoutRefused`](Self::LayoutRefused), [`Refused`](Self::Refused)) come after that change, unless the
/// subscription is full.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Lifecycle {
    /// A shard changed its state.
    Shard {
        /// Id of the shard.
        shard: ShardId,
        /// Generation of the shard's layout.
        generation: u32,
        /// The change.
        change: Change,
    },
    /// Every shard of the generation is ready. Reported once per generation.
    AllReady {
        /// Generation of the layout.
        generation: u32,
        /// Number of shards of the generation in this process.
        shards: usize,
    },
    /// A shard's actor or driver crashed. It restarts with the session that the manager keeps.
    Crashed {
        /// Id of the shard.
        shard: ShardId,
        /// Generation of the shard's layout.
        generation: u32,
        /// Text of the panic or error.
        error: String,
        /// Time until the restart.
        restart_after: Duration,
        /// Whether the shard crashed too often, so that it is restarted only from time to time.
        quarantined: bool,
    },
    /// A shard receives no dispatches although its heartbeats are acknowledged and other shards receive
    /// theirs. Reported once per silence; nothing is done about it.
    Silent {
        /// Id of the shard.
        shard: ShardId,
        /// Generation of the shard's layout.
        generation: u32,
        /// Time since the last dispatch.
        quiet_for: Duration,
    },
    /// A lossless subscription is full and has not taken every event of a shard for 5 s: its shards have
    /// stopped reading from Discord.
    ///
    /// Reported once, however many shards wait, until [`SubscriptionResumed`](Self::SubscriptionResumed).
    /// [`ShardStatus::held_up`](crate::status::ShardStatus::held_up) shows which shards wait.
    SubscriptionStalled {
        /// The full subscription.
        subscription: SubscriptionLabel,
        /// First shard that has waited this long.
        shard: ShardId,
        /// Time that the shard has waited.
        stalled_for: Duration,
    },
    /// A subscription that was reported as stalled has taken all events, or has ended.
    SubscriptionResumed {
        /// Subscription that has room again.
        subscription: SubscriptionLabel,
        /// Time that the subscription was stalled.
        stalled_for: Duration,
    },
    /// The watermark of a shard has not moved for a minute: a subscriber holds a delivery, or has
    /// [abandoned](crate::Delivery::abandon) one.
    ///
    /// The shard goes on, but the session that is stored or handed over stays before that dispatch: the next
    /// process receives everything since then again, as far as Discord still has it. Reported once, until
    /// [`WatermarkMoves`](Self::WatermarkMoves).
    ///
    /// When a shard shuts down this is reported after 5 s, since the shutdown waits for the acknowledgement,
    /// and after 1 s when the missing delivery is held by the task that awaits the shutdown, which then
    /// continues without it.
    WatermarkStuck {
        /// Id of the shard.
        shard: ShardId,
        /// Generation of the shard's layout.
        generation: u32,
        /// Subscription whose acknowledgement is missing; `None` when the shard has more than 64 lossless
        /// subscriptions, which cannot be told apart.
        subscription: Option<SubscriptionLabel>,
        /// Sequence number of the dispatch.
        sequence: u64,
        /// Time that the watermark has waited, at least.
        stuck_for: Duration,
    },
    /// The watermark of a shard that was reported as stuck moves again.
    WatermarkMoves {
        /// Id of the shard.
        shard: ShardId,
        /// Generation of the shard's layout.
        generation: u32,
    },
    /// A child of the manager that serves all shards crashed, and will be replaced. The shards go on.
    ServiceCrashed {
        /// The service that crashed. Its variant says what is not done until it is replaced.
        service: Service,
        /// Text of the panic or error.
        error: String,
        /// Time until it is replaced.
        restart_after: Duration,
    },
    /// The identify gate failed, and will be asked again. Shards that need an Identify wait; resumes
    /// continue. Reported once, until [`IdentifyGateRecovered`](Self::IdentifyGateRecovered).
    IdentifyGateFailed {
        /// Error text of the gate.
        error: String,
        /// Time until the gate is asked again.
        retry_after: Duration,
    },
    /// The identify gate works again.
    IdentifyGateRecovered,
    /// The session store failed and will be retried. Until it recovers, a crash loses sessions or repeats
    /// more events. Reported once, until [`StoreRecovered`](Self::StoreRecovered).
    StoreFailed {
        /// Error text of the store.
        error: String,
        /// Time until the next attempt; `None` when there will be none: the bot starts without the stored
        /// sessions.
        retry_after: Option<Duration>,
    },
    /// The session store works again.
    StoreRecovered,
    /// `GET /gateway/bot` failed and will be retried. Running shards do not need it.
    GatewayUnavailable {
        /// Error text of the request.
        error: String,
        /// Time until the next request; `None` when there will be none, because the token is not valid
        /// (GW-297).
        retry_after: Option<Duration>,
    },
    /// The bot has started with the layout of its last sessions, because it can resume them. The configuration,
    /// or else Discord's recommendation, wants another shard count. Reported once, at the start.
    LayoutFollowed {
        /// Shard count of the bot, over all processes.
        count: ShardCount,
        /// Shard count that is wanted.
        wanted: ShardCount,
    },
    /// Discord recommends more shards than the bot has (GW-005). Reported each time that the number is higher
    /// than ever before, whether or not the bot [follows](crate::config::ReshardPolicy) it.
    MoreShardsAdvised {
        /// Shard count of the bot, over all processes.
        count: ShardCount,
        /// Shard count that Discord recommends.
        advised: u32,
    },
    /// A reshard begins, or one that stood half way goes on.
    ReshardBegun(Arc<ReshardPlan>),
    /// A group of a reshard is in another phase.
    ReshardGroup {
        /// Number of the group.
        group: u32,
        /// The new phase.
        phase: GroupPhase,
        /// Number of groups whose new shards have taken over.
        done: usize,
        /// Number of groups that this process reshards.
        groups: usize,
        /// Estimated time until the end of the reshard.
        remaining: Duration,
    },
    /// A reshard stands half way: the group under way was withdrawn. Both layouts serve their own guilds until
    /// [`Shardkeeper::resume_reshard`](crate::Shardkeeper::resume_reshard) or, after a failure of an
    /// [automatic](crate::config::ReshardPolicy::automatic) reshard, the next check of the gateway.
    ReshardHalted {
        /// Why it stands.
        reason: HaltReason,
        /// Number of groups whose new shards have taken over.
        done: usize,
        /// Number of groups that this process reshards.
        groups: usize,
    },
    /// A reshard was given up before any group had moved. The bot is as it was before.
    ReshardWithdrawn {
        /// Shard count of the bot.
        count: ShardCount,
        /// Why it was given up.
        reason: HaltReason,
    },
    /// A reshard is complete.
    ReshardFinished {
        /// Generation of the new layout.
        generation: u32,
        /// Shard count of the new layout, over all processes.
        count: ShardCount,
        /// How long it took in this process.
        took: Duration,
        /// Number of groups that this process could not reshard, because it runs only a part of their shards.
        left_out: usize,
    },
    /// A reshard that nobody had called for was due, and is not possible now. The next check of the gateway
    /// tries again.
    ReshardRejected(ReshardRejected),
    /// Less than a half, a quarter or a tenth of the identify budget is left. Reported once for each.
    BudgetLow {
        /// Identifies left in the current period.
        remaining: u32,
        /// Identifies allowed per period.
        total: u32,
    },
    /// The identify budget is used up except for the reserve. Shards without a session wait; resumes
    /// continue.
    BudgetExhausted {
        /// Time until Discord resets the budget.
        resets_after: Duration,
    },
    /// Discord refuses a shard because of the bot's shard count (4010, 4011): retrying is pointless until the
    /// bot runs with another count. That shard has ended; [`Refused`](Self::Refused) says when all shards
    /// end.
    LayoutRefused {
        /// Id of the shard.
        shard: ShardId,
        /// Shard count that Discord refuses.
        count: ShardCount,
        /// Discord's close code.
        code: CloseCode,
    },
    /// Discord refuses the bot for good. Every shard stops, and the manager ends.
    Refused(FatalClose),
    /// The manager has ended; this is the last event.
    Ended,
}

impl Lifecycle {
    /// Returns the shard that the change concerns; `None` when it concerns the whole bot.
    pub fn shard(&self) -> Option<ShardId> {
        match self {
            Self::Shard { shard, .. }
            | Self::Crashed { shard, .. }
            | Self::Silent { shard, .. }
            | Self::SubscriptionStalled { shard, .. }
            | Self::WatermarkStuck { shard, .. }
            | Self::WatermarkMoves { shard, .. }
            | Self::LayoutRefused { shard, .. } => Some(*shard),
            _ => None,
        }
    }

    /// Returns the shard of a change that says which generation the shard belongs to: with that, shards with
    /// the same id are told apart during a reshard.
    pub fn key(&self) -> Option<ShardKey> {
        match self {
            Self::Shard { shard, generation, .. }
            | Self::Crashed { shard, generation, .. }
            | Self::Silent { shard, generation, .. }
            | Self::WatermarkStuck { shard, generation, .. }
            | Self::WatermarkMoves { shard, generation } => {
                Some(ShardKey { id: *shard, generation: *generation })
            }
            _ => None,
        }
    }
}

impl Lifecycle {
    /// Logs the change at its level: error when an operator has to act, warning when it recovers by itself.
    ///
    /// Changes that a shard's own task logs in its span have no line here, nor has the end of a bot, which
    /// ends what waits for it.
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
            | Self::LayoutFollowed { .. }
            | Self::MoreShardsAdvised { .. }
            | Self::ReshardHalted { .. }
            | Self::ReshardWithdrawn { .. }
            | Self::ReshardRejected(_)
            | Self::BudgetLow { .. }
            | Self::BudgetExhausted { .. } => tracing::warn!("{self}"),
            Self::AllReady { .. }
            | Self::ReshardBegun(_)
            | Self::ReshardGroup { .. }
            | Self::ReshardFinished { .. }
            | Self::SubscriptionResumed { .. }
            | Self::WatermarkMoves { .. }
            | Self::IdentifyGateRecovered => tracing::info!("{self}"),
        }
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = self.key() {
            write!(f, "shard {key}: ")?;
        }
        match self {
            Self::Shard { change, .. } => describe(change, f),
            Self::AllReady { generation, shards } => {
                write!(f, "all {shards} shards of generation {generation} are ready")
            }
            Self::Crashed { error, restart_after, quarantined, .. } => {
                let place = if *quarantined { ", in quarantine" } else { "" };
                write!(f, "crashed ({error}), back {}{place}", In(*restart_after))
            }
            Self::Silent { quiet_for, .. } => {
                write!(f, "silent for {quiet_for:.0?}, though its heartbeats are acknowledged")
            }
            Self::SubscriptionStalled { subscription, shard, stalled_for } => {
                write!(
                    f,
                    "{subscription} is full and not read for {stalled_for:.0?}: \
                     shard {shard} is waiting for room in it"
                )
            }
            Self::SubscriptionResumed { subscription, stalled_for } => {
                write!(f, "{subscription} has room again after {stalled_for:.0?}")
            }
            Self::WatermarkStuck { subscription, sequence, stuck_for, .. } => {
                write!(f, "sequence {sequence} has not been acknowledged for {stuck_for:.0?} by ")?;
                match subscription {
                    Some(subscription) => write!(f, "{subscription}"),
                    None => f.write_str("a subscription"),
                }
            }
            Self::WatermarkMoves { .. } => f.write_str("acknowledgements continue"),
            Self::ServiceCrashed { service, error, restart_after } => {
                write!(f, "{service}: crashed ({error}), replaced {}", In(*restart_after))
            }
            Self::IdentifyGateFailed { error, retry_after } => {
                write!(f, "identify gate: failed ({error}), next try {}", In(*retry_after))
            }
            Self::IdentifyGateRecovered => f.write_str("identify gate: works again"),
            Self::StoreFailed { error, retry_after: Some(retry_after) } => {
                write!(f, "the session store failed ({error}), next try {}", In(*retry_after))
            }
            Self::StoreFailed { error, retry_after: None } => {
                write!(f, "the session store failed ({error}): starting without the stored sessions")
            }
            Self::StoreRecovered => f.write_str("the session store works again"),
            Self::GatewayUnavailable { error, retry_after } => {
                write!(f, "GET /gateway/bot failed ({error}), {}", Again(*retry_after))
            }
            Self::LayoutFollowed { count, wanted } => {
                write!(
                    f,
                    "the bot has {count} shards, because their sessions can be resumed; {wanted} are wanted"
                )
            }
            Self::MoreShardsAdvised { count, advised } => {
                write!(f, "discord recommends {advised} shards, the bot has {count}")
            }
            Self::ReshardBegun(plan) => write!(f, "{plan}"),
            Self::ReshardGroup { group, phase, done, groups, remaining } => {
                write!(
                    f,
                    "reshard: group {group} is {phase}; {done} of {groups} groups done, {remaining:.0?} left"
                )
            }
            Self::ReshardHalted { reason, done, groups } => {
                write!(f, "reshard: stands half way, {done} of {groups} groups done: {reason}")
            }
            Self::ReshardWithdrawn { count, reason } => {
                write!(f, "reshard: withdrawn, the bot keeps its {count} shards: {reason}")
            }
            Self::ReshardFinished { generation, count, took, left_out } => {
                write!(f, "reshard: finished after {took:.0?}, {count} shards in generation {generation}")?;
                match left_out {
                    0 => Ok(()),
                    _ => write!(f, "; {left_out} groups are left out, which this process runs only in part"),
                }
            }
            Self::ReshardRejected(error) => write!(f, "reshard: not possible now: {error}"),
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
        Change::Paced { wait } => write!(f, "connection rate limit reached, waiting {wait:.1?}"),
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

/// Time of the next attempt, if there is one.
struct Again(Option<Duration>);

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, "next try {}", In(wait)),
            None => f.write_str("no further try"),
        }
    }
}

/// A waiting time in words.
struct In(Duration);

impl fmt::Display for In {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { f.write_str("at once") } else { write!(f, "in {:.1?}", self.0) }
    }
}
