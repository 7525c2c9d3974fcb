//! The count of events: what the simulator sent, and what of it reached the subscriber.

use shardkeeper::Dispatch;
use shardkeeper_sim::Simulator;

/// What the simulator sent and the demo's subscriber received.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    /// Repetitions that shardkeeper has marked as possible ones.
    pub(super) marked: u64,
    pub(super) out_of_order: u64,
}

/// How events are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// Each session by itself. Everything that a session yields counts.
    BySession,
    /// Over all sessions: during a reshard two sessions receive the same event. What belongs to one session,
    /// as READY, does not count.
    OverAllSessions,
}

impl Judged {
    pub(super) fn observe(self, simulator: &Simulator, dispatch: &Dispatch) {
        let (name, data) = (dispatch.name(), dispatch.data());
        match self {
            Self::BySession => simulator.observe(dispatch.shard().0, name, data),
            Self::OverAllSessions => {
                let marked = dispatch.is_replayed() || dispatch.may_repeat();
                simulator.observe_event(name, data, marked);
            }
        }
    }

    pub(super) fn tally(self, simulator: &Simulator) -> Tally {
        match self {
            Self::BySession => {
                let delivery = simulator.delivery();
                Tally {
                    sent: delivery.sent,
                    delivered: delivery.delivered,
                    lost: delivery.lost,
                    duplicated: delivery.duplicated,
                    marked: 0,
                    out_of_order: delivery.out_of_order,
                }
            }
            Self::OverAllSessions => {
                let delivery = simulator.world_delivery();
                Tally {
                    // Without those that no client could have received, because a fault ended the session.
                    sent: delivery.happened.saturating_sub(delivery.excused),
                    delivered: delivery.observed,
                    lost: delivery.lost + delivery.unjudged,
                    duplicated: delivery.doubled.saturating_sub(delivery.doubled_marked),
                    marked: delivery.doubled_marked,
                    out_of_order: delivery.out_of_order,
                }
            }
        }
    }
}
