//! Storage of a shard's session: owned by the manager, so that it survives a crash of the shard.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shardkeeper_proto::Session;
use tokio::sync::OwnedMutexGuard;

use crate::dispatch::Watermark;
use crate::message::Incarnation;

/// Next value of [`SessionCell::version`], counted over all cells.
static VERSIONS: AtomicU64 = AtomicU64::new(1);

/// The right of a shard's drivers to write the cell, held by one driver at a time.
pub(crate) type Writer = Arc<tokio::sync::Mutex<()>>;

/// The session of one shard. Its driver writes it, the manager reads it.
///
/// The manager can also [empty](Self::empty) the cell when there is no actor, while an aborted driver may
/// still run: sessions stored by earlier incarnations are ignored from then on.
#[derive(Debug, Default)]
pub(crate) struct SessionCell {
    stored: Mutex<Stored>,
    /// Kept apart from the rest, since it changes with each dispatch. Never ahead of what was published:
    /// events that a subscription has not taken yet survive the driver.
    sequence: AtomicU64,
    /// Identifies the session in the cell: no other session has the same version, in this cell or another
    /// one.
    version: AtomicU64,
    writer: Writer,
    watermark: Arc<Watermark>,
    /// Sequence number of the session when it was put into the cell: that of READY, or the stored one.
    begins_at: AtomicU64,
    /// Set while another process would have to receive everything since `begins_at` again.
    held: AtomicBool,
}

#[derive(Debug, Default)]
struct Stored {
    session: Option<Session>,
    /// First incarnation that may store a session; earlier ones are ignored.
    not_before: Incarnation,
}

impl SessionCell {
    /// The writer is that of the shard's earlier cell, if there was one: a killed driver may still use it.
    pub(crate) fn new(session: Option<Session>, writer: Writer) -> Self {
        let cell = Self { writer, ..Self::default() };
        cell.put(&mut cell.stored(), session);
        cell
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to write, held by one driver at a time. The next driver waits until the previous
    /// one and its connection are gone, so it cannot resume from a sequence number that still changes.
    pub(crate) async fn lease(&self) -> OwnedMutexGuard<()> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        self.watermark.rewind(self.sequence.load(Ordering::Acquire));
        writer
    }

    /// Stores the session of this incarnation.
    pub(crate) fn store(&self, by: Incarnation, session: Option<Session>) {
        let mut stored = self.stored();
        if by >= stored.not_before {
            self.put(&mut stored, session);
        }
    }

    /// Removes the session, and ignores what incarnations before this one may still store.
    pub(crate) fn empty(&self, not_before: Incarnation) {
        let mut stored = self.stored();
        stored.not_before = not_before;
        self.put(&mut stored, None);
    }

    fn put(&self, stored: &mut Stored, session: Option<Session>) {
        let sequence = session.as_ref().map_or(0, |session| session.sequence);
        self.begins_at.store(sequence, Ordering::Release);
        self.sequence.store(sequence, Ordering::Release);
        self.watermark.restart(sequence);
        self.version.store(VERSIONS.fetch_add(1, Ordering::Relaxed), Ordering::Release);
        stored.session = session;
    }

    /// Returns a value that changes whenever another process would resume differently.
    pub(crate) fn stamp(&self) -> (u64, u64) {
        (self.version.load(Ordering::Acquire), self.acknowledged())
    }

    fn acknowledged(&self) -> u64 {
        let acknowledged = self.sequence.load(Ordering::Acquire).min(self.watermark.acknowledged());
        if self.held.load(Ordering::Acquire) {
            return acknowledged.min(self.begins_at.load(Ordering::Acquire));
        }
        acknowledged
    }

    /// Holds the session back: nothing after its READY, or after the point it was resumed from, counts as
    /// acknowledged, until [`lift`](Self::lift).
    ///
    /// For a warming shard of a reshard, and a new one whose predecessors have unacknowledged deliveries: its
    /// events are acknowledged with the deliveries of the old shards. After a kill, the next process receives
    /// them again instead of losing them.
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// Ends a [`hold`](Self::hold).
    pub(crate) fn lift(&self) {
        self.held.store(false, Ordering::Release);
    }

    /// Notes that this sequence number was published. A number lower than a later one changes nothing.
    pub(crate) fn advance(&self, sequence: u64) {
        self.sequence.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Tracks how far the subscriptions have acknowledged.
    pub(crate) fn watermark(&self) -> &Arc<Watermark> {
        &self.watermark
    }

    /// Returns the session for another process, which resumes from the last acknowledged event.
    pub(crate) fn load_acknowledged(&self) -> Option<Session> {
        self.load_up_to(Self::acknowledged)
    }

    /// Returns the session for this process, which resumes from the last published event: events waiting in
    /// subscriptions survive a shard.
    pub(crate) fn load(&self) -> Option<Session> {
        self.load_up_to(|cell| cell.sequence.load(Ordering::Acquire))
    }

    fn load_up_to(&self, sequence: impl FnOnce(&Self) -> u64) -> Option<Session> {
        // Locked while reading the number, which could otherwise belong to another session.
        let stored = self.stored();
        let mut session = stored.session.clone()?;
        session.sequence = sequence(self);
        Some(session)
    }
}

#[cfg(test)]
mod tests {
    use shardkeeper_proto::{ShardCount, ShardId};

    use super::*;

    fn session(sequence: u64) -> Session {
        let mut session = Session::sample(ShardId(0), ShardCount::new(1).unwrap());
        session.sequence = sequence;
        session
    }

    #[tokio::test]
    async fn the_sequence_belongs_to_the_session() {
        let cell = SessionCell::new(Some(session(5)), Writer::default());
        cell.advance(9);
        cell.advance(8);
        assert_eq!(cell.load(), Some(session(9)));
        // GW-124: session and sequence are stored together.
        cell.store(1, None);
        cell.advance(10);
        assert_eq!(cell.load(), None);
        cell.store(1, Some(session(1)));
        assert_eq!(cell.load(), Some(session(1)));
    }

    #[test]
    fn another_session_begins_where_nothing_of_it_is_owed() {
        let cell = SessionCell::new(Some(session(500)), Writer::default());
        assert_eq!(cell.load_acknowledged(), Some(session(500)));
        cell.store(1, Some(session(1)));
        cell.advance(2);
        assert_eq!((cell.load(), cell.load_acknowledged()), (Some(session(2)), Some(session(1))));
    }

    #[test]
    fn a_driver_that_outlives_its_actor_does_not_bring_a_session_back() {
        let cell = SessionCell::new(Some(session(5)), Writer::default());
        cell.empty(2);
        cell.store(1, Some(session(9)));
        cell.advance(10);
        assert_eq!((cell.load(), cell.load_acknowledged()), (None, None));
        cell.store(3, Some(session(1)));
        assert_eq!(cell.load(), Some(session(1)));
    }

    #[test]
    fn the_stamp_differs_whenever_what_is_to_be_stored_does() {
        let cell = SessionCell::new(Some(session(40)), Writer::default());
        // The dispatch was taken and acknowledged, but the driver has not noted it yet.
        cell.watermark().restart(41);
        let (stamp, stored) = (cell.stamp(), cell.load_acknowledged());
        cell.advance(41);
        assert_ne!(cell.load_acknowledged(), stored);
        assert_ne!(cell.stamp(), stamp);
    }

    #[test]
    fn a_session_held_back_is_resumed_from_its_start_by_another_process_only() {
        let cell = SessionCell::new(Some(session(5)), Writer::default());
        cell.hold();
        cell.store(1, Some(session(1)));
        cell.watermark().restart(9);
        cell.advance(9);
        assert_eq!((cell.load(), cell.load_acknowledged()), (Some(session(9)), Some(session(1))));
        let stamp = cell.stamp();
        cell.lift();
        assert_eq!(cell.load_acknowledged(), Some(session(9)));
        assert_ne!(cell.stamp(), stamp, "the keeper stores it");
    }

    #[test]
    fn no_two_cells_have_the_same_stamp() {
        let cell = || SessionCell::new(Some(session(5)), Writer::default());
        assert_ne!(cell().stamp(), cell().stamp(), "a shard that left, and another one in its place");
    }

    #[tokio::test(start_paused = true)]
    async fn one_writer_at_a_time() {
        let cell = SessionCell::default();
        let first = cell.lease().await;
        let mut second = std::pin::pin!(cell.lease());
        // GW-141: only one connection at a time may use a session.
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        second.await;
    }
}
