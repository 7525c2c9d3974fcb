//! The overlap of a reshard: two sessions deliver the same guilds, and each event reaches the bot once.
//!
//! Input: what the publishers of a reshard group's old and new shards are about to publish. Output: which side
//! publishes it. Before the cut-over the old side delivers, and the new side holds what it receives until the
//! old side has delivered it as well. At the cut-over the new side releases the rest. What the old side had
//! delivered ahead of the new side is dropped when the new side receives it.
//!
//! [`identity`] says how an event is recognised, [`stream`] aligns the two records of one guild, [`window`]
//! keeps the guilds of a group and what is held, [`load`] sees when a new session is loaded, and [`barrier`]
//! when both sides have received everything.
//!
//! Nothing here waits, and the lock is held only for one event at a time; old shards offer an event to their
//! subscriptions within it, so that the cut-over is one instant and the events of a guild stay in order
//! across the two sides.

mod barrier;
mod identity;
mod load;
mod stream;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shardkeeper_proto::{Envelope, Intents, ShardCount, ShardId};
use tokio::sync::Notify;

use self::identity::{Kind, Prints};
pub(super) use self::window::{Marks, NewVerdict, OldVerdict};
use self::window::{Phase, Window};
use super::{Dispatch, Hub, now};

/// The side of a reshard that a shard is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Delivers until the cut-over.
    Old,
    /// Delivers from the cut-over on.
    New,
}

/// The shards of a group on one side.
#[derive(Clone, Debug)]
pub(crate) struct OverlapSide {
    pub(crate) shards: BTreeSet<ShardId>,
    pub(crate) count: ShardCount,
    pub(crate) intents: Intents,
}

/// Events that the new side holds: minutes of a busy group, since most of what is held leaves within a round
/// trip.
const HELD_EVENTS: usize = 65_536;
/// The same in bytes.
const HELD_BYTES: usize = 64 << 20;
/// Fingerprints of what the old side has delivered: 32 MiB, some minutes of a hundred thousand guilds.
const FINGERPRINTS: usize = 2_097_152;
/// How long after the cut-over events are compared. 60 s: a connection is replaced in less, and by then
/// whatever the new side lagged behind has come.
const TAIL: Duration = Duration::from_secs(60);

/// Bounds of an overlap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverlapLimits {
    /// Number of events that the new side holds. When it is reached, the new shards pause reading.
    pub(crate) held_events: usize,
    /// The same in bytes of JSON text.
    pub(crate) held_bytes: usize,
    /// Number of fingerprints, of 16 bytes. When it is reached, the oldest of a guild makes room for the next.
    pub(crate) fingerprints: usize,
    /// How long after the cut-over the new side's events are still compared.
    pub(crate) tail: Duration,
}

impl Default for OverlapLimits {
    fn default() -> Self {
        let (held_events, held_bytes) = (HELD_EVENTS, HELD_BYTES);
        Self { held_events, held_bytes, fingerprints: FINGERPRINTS, tail: TAIL }
    }
}

/// Why the cut-over cannot be now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotYet {
    #[error("a new shard has not loaded its guilds")]
    Warming,
    #[error("an old shard may not have received everything that was under way")]
    Probing,
    #[error("a lossless subscription has not taken everything from old shard {}", .0.0)]
    Behind(ShardId),
    #[error("the overlap was cut over or withdrawn before")]
    Over,
}

/// How far an overlap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverlapPhase {
    /// New shards are not loaded.
    Warming,
    /// Shards are asked whether they have received everything.
    Probing,
    /// Nothing more is worth waiting for before the cut-over.
    Ready,
    /// The new side delivers.
    Cut,
    /// The old side delivers, for good.
    Withdrawn,
}

/// What became of the events of the new side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OverlapCounts {
    /// Dropped, since the old side has delivered them.
    pub(crate) matched: u64,
    /// Held until the cut-over and delivered then.
    pub(crate) released: u64,
    /// Delivered and marked, since the old side may have delivered them.
    pub(crate) guessed: u64,
    /// Held when the new session was lost or the overlap withdrawn; the old side has them.
    pub(crate) dropped: u64,
}

/// The state of an overlap.
#[derive(Clone, Debug)]
pub(crate) struct OverlapReport {
    pub(crate) phase: OverlapPhase,
    /// New shards that are ready, with their guilds loaded.
    pub(crate) warm: BTreeSet<ShardId>,
    /// Shards that are to send a heartbeat, by
    /// [`ShardMessage::Probe`](crate::message::ShardMessage::Probe) with this number. A message may be lost:
    /// the report asks again after 5 s.
    pub(crate) probes: Vec<(Side, ShardId, u64)>,
    /// Old shards that lost their session. Only the new side has the events of their guilds, and delivers them
    /// from the cut-over on. A withdrawal loses these events, as the loss of a session does.
    pub(crate) frozen: BTreeSet<ShardId>,
    /// Events that the new side holds, and their bytes.
    pub(crate) held_events: usize,
    pub(crate) held_bytes: usize,
    /// Guilds whose two records are not aligned.
    pub(crate) undecided: usize,
    pub(crate) counts: OverlapCounts,
}

/// The overlap of one reshard group, shared by its manager and the publishers of its shards.
#[derive(Debug)]
pub(crate) struct Overlap {
    prints: Prints,
    window: Mutex<Window<HeldDispatch>>,
    /// Wakes the drivers of the new side: they have something to publish, or may read on.
    moved: Notify,
}

/// A dispatch that the new side holds.
#[derive(Debug)]
pub(super) struct HeldDispatch {
    pub(super) sequence: u64,
    /// `None` if no subscription wanted the event.
    pub(super) dispatch: Option<Dispatch>,
}

impl Overlap {
    pub(crate) fn new(old: OverlapSide, new: OverlapSide, limits: OverlapLimits) -> Arc<Self> {
        let prints = Prints::new(old.intents, new.intents);
        let window = Mutex::new(Window::new(&old, &new, limits));
        Arc::new(Self { prints, window, moved: Notify::new() })
    }

    fn window(&self) -> MutexGuard<'_, Window<HeldDispatch>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how far the overlap is, and moves the barrier on. To be called every 250 ms or so: nothing else
    /// moves it by time.
    pub(crate) fn report(&self, now: Instant) -> OverlapReport {
        let probes = self.window().tick(now);
        let report = OverlapReport { probes, ..self.look(now) };
        self.moved.notify_waiters();
        report
    }

    /// The state without its probes, which are for the one who sends them.
    pub(crate) fn look(&self, now: Instant) -> OverlapReport {
        let window = self.window();
        let phase = match window.phase() {
            Phase::Cut { .. } => OverlapPhase::Cut,
            Phase::Withdrawn => OverlapPhase::Withdrawn,
            Phase::Open if window.is_ready() => OverlapPhase::Ready,
            Phase::Open if window.is_warming() => OverlapPhase::Warming,
            Phase::Open => OverlapPhase::Probing,
        };
        let (held_events, held_bytes) = window.held();
        OverlapReport {
            phase,
            warm: window.warm(now),
            probes: Vec::new(),
            frozen: window.frozen(),
            held_events,
            held_bytes,
            undecided: window.undecided(),
            counts: window.counts(),
        }
    }

    /// Cuts over: from this instant the old side's events of guilds are not published, and the new side
    /// publishes what it holds and receives.
    ///
    /// # Errors
    ///
    /// Why it cannot be now. Nothing has changed then; try again later.
    pub(crate) fn cut_over(&self, now: Instant) -> Result<(), NotYet> {
        self.window().cut_over(now)?;
        self.moved.notify_waiters();
        Ok(())
    }

    /// Gives the new side up: what it holds is dropped, and the old side publishes on. Nothing happens after
    /// the cut-over.
    pub(crate) fn withdraw(&self) {
        self.window().withdraw();
        self.moved.notify_waiters();
    }

    /// Whether nothing is left to release or to compare, or the tail window is over.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.window().is_over(now)
    }
}

/// The part of one publisher in an overlap.
#[derive(Clone, Debug)]
pub(super) struct Part {
    overlap: Arc<Overlap>,
    pub(super) side: Side,
}

impl Part {
    /// An event of an old shard. `publish` runs, if the old side delivers the event, before the cut-over can
    /// happen; it returns whether a subscription is behind.
    pub(super) fn old_event(
        &self,
        shard: ShardId,
        envelope: &Envelope<'_>,
        (sequence, replayed): (u64, bool),
        publish: impl FnOnce() -> bool,
    ) -> OldVerdict {
        let kind = self.overlap.prints.kind_of(shard, envelope);
        let mut window = self.overlap.window();
        let before = (window.is_full(), window.counts().guessed);
        let verdict = match kind {
            Kind::Shared(event) => window.old(shard, &event, (sequence, replayed)),
            Kind::Session | Kind::Ready | Kind::Resumed => OldVerdict::Publish,
        };
        if verdict == OldVerdict::Publish {
            let behind = publish();
            window.set_behind(shard, behind);
        }
        if before != (window.is_full(), window.counts().guessed) {
            drop(window);
            self.overlap.moved.notify_waiters();
        }
        verdict
    }

    /// An event of a new shard. `make` copies the event, if the window has to keep it.
    pub(super) fn new_event(
        &self,
        shard: ShardId,
        envelope: &Envelope<'_>,
        (sequence, replayed): (u64, bool),
        make: impl FnOnce() -> HeldDispatch,
    ) -> NewVerdict {
        let now = now();
        let make = || {
            let held = make();
            let bytes = held.dispatch.as_ref().map_or(0, |dispatch| dispatch.data().len());
            (held, bytes)
        };
        let overlap = &self.overlap;
        match overlap.prints.kind_of(shard, envelope) {
            Kind::Ready => {
                // Without the intent no guild arrives (GW-253).
                let most = match overlap.prints.new_side_has(Intents::GUILDS) {
                    true => load::MAX_GUILDS,
                    false => 0,
                };
                let guilds = identity::guilds_of_ready(envelope.data, most);
                overlap.window().new_ready(now, shard, guilds, make)
            }
            Kind::Session | Kind::Resumed => overlap.window().new_of_session(now, shard, sequence, make),
            Kind::Shared(event) => overlap.window().new_event(now, shard, &event, (sequence, replayed), make),
        }
    }

    /// Takes the next event that a new shard is to publish, and whether it owes an acknowledgement: before the
    /// cut-over the old side answers for its guilds.
    pub(super) fn take(&self, shard: ShardId) -> Option<(HeldDispatch, Marks, bool)> {
        let mut window = self.overlap.window();
        let (held, marks) = window.take(shard)?;
        Some((held, marks, matches!(window.phase(), Phase::Cut { .. })))
    }

    pub(super) fn has_out(&self, shard: ShardId) -> bool {
        self.side == Side::New && self.overlap.window().has_out(shard)
    }

    /// Whether a new shard has to pause reading.
    pub(super) fn is_full(&self) -> bool {
        self.side == Side::New && self.overlap.window().is_full()
    }

    /// Notes whether a subscription is behind an old shard.
    pub(super) fn set_behind(&self, shard: ShardId, behind: bool) {
        if self.side == Side::Old {
            self.overlap.window().set_behind(shard, behind);
        }
    }

    /// The shard's session ended (`begins` is `false`), or another one begins.
    pub(super) fn session_changed(&self, shard: ShardId, begins: bool) {
        let mut window = self.overlap.window();
        match self.side {
            Side::Old => window.old_session_changed(shard),
            Side::New => window.new_session_changed(now(), shard, begins),
        }
        drop(window);
        self.overlap.moved.notify_waiters();
    }

    /// The shard has received everything that was sent before the question of this number.
    pub(super) fn probed(&self, shard: ShardId, number: u64) {
        self.overlap.window().answered(self.side, shard, number);
    }

    /// Highest sequence number of a new shard up to which nothing is left to publish; `None` while there is.
    pub(super) fn done_up_to(&self, shard: ShardId) -> Option<u64> {
        (self.side == Side::New).then(|| self.overlap.window().done_up_to(shard)).flatten()
    }

    /// Waits until a new shard has something to publish, has passed more than `passed` or, if it pauses, may
    /// read on.
    ///
    /// # Cancel safety
    ///
    /// Safe: waiting changes nothing.
    pub(super) async fn moved(&self, shard: ShardId, passed: u64, paused: bool) {
        loop {
            let mut moved = std::pin::pin!(self.overlap.moved.notified());
            // Enabled before the check, so that nothing falls between the check and the wait.
            moved.as_mut().enable();
            let passes = self.done_up_to(shard).is_some_and(|done| done > passed);
            if passes || self.has_out(shard) || paused && !self.is_full() {
                return;
            }
            moved.await;
        }
    }
}

/// The place of one shard for its part in an overlap. It outlives the shard's publishers.
#[derive(Debug, Default)]
pub(crate) struct OverlapSlot(Mutex<Option<Part>>);

impl OverlapSlot {
    /// Puts the shard's publishers on one side of an overlap, from the next event on that one publishes.
    pub(crate) fn attach(&self, hub: &Hub, overlap: &Arc<Overlap>, side: Side) {
        self.set(hub, Some(Part { overlap: Arc::clone(overlap), side }));
    }

    /// Ends the shard's part in an overlap.
    pub(crate) fn detach(&self, hub: &Hub) {
        self.set(hub, None);
    }

    fn set(&self, hub: &Hub, part: Option<Part>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = part;
        hub.touch();
    }

    pub(super) fn part(&self) -> Option<Part> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
