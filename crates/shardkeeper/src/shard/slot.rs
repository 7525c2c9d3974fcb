//! Where a shard's session is kept: with the manager, out of reach of whatever may crash.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use shardkeeper_proto::Session;
use tokio::sync::OwnedMutexGuard;

use crate::dispatch::Watermark;

/// The session of one shard. Its driver writes, the manager reads.
#[derive(Debug, Default)]
pub(crate) struct SessionSlot {
    session: Mutex<Option<Session>>,
    /// Apart from the rest, since it changes with each dispatch. Never ahead of what subscriptions have taken.
    sequence: AtomicU64,
    /// Counts the sessions that were here.
    version: AtomicU64,
    writer: Arc<tokio::sync::Mutex<()>>,
    watermark: Arc<Watermark>,
}

impl SessionSlot {
    pub(crate) fn new(session: Option<Session>) -> Self {
        let slot = Self::default();
        slot.store(session);
        slot
    }

    /// The right to write: one driver at a time. The next one waits until the one before is gone for good, and
    /// with it its connection; so it cannot resume from a sequence number that still moves.
    pub(crate) async fn lease(&self) -> OwnedMutexGuard<()> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        self.watermark.rewind(self.sequence.load(Ordering::Acquire));
        writer
    }

    pub(crate) fn store(&self, session: Option<Session>) {
        let mut stored = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = session.as_ref().map_or(0, |session| session.sequence);
        self.sequence.store(sequence, Ordering::Release);
        self.watermark.restart(sequence);
        self.version.fetch_add(1, Ordering::AcqRel);
        *stored = session;
    }

    /// Differs when what another process would resume is something else.
    pub(crate) fn stamp(&self) -> (u64, u64) {
        (self.version.load(Ordering::Acquire), self.watermark.acknowledged())
    }

    /// This sequence number was taken. One that comes behind a later one changes nothing.
    pub(crate) fn advance(&self, sequence: u64) {
        self.sequence.fetch_max(sequence, Ordering::AcqRel);
    }

    /// How far subscriptions are done.
    pub(crate) fn watermark(&self) -> &Arc<Watermark> {
        &self.watermark
    }

    /// The session as another process resumes it: from where the subscriptions of this one are done.
    pub(crate) fn load_acknowledged(&self) -> Option<Session> {
        let mut session = self.load()?;
        session.sequence = session.sequence.min(self.watermark.acknowledged());
        Some(session)
    }

    /// The session with its sequence number, as this process resumes it: what subscriptions hold outlives a shard.
    pub(crate) fn load(&self) -> Option<Session> {
        let stored = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut session = stored.clone()?;
        session.sequence = self.sequence.load(Ordering::Acquire);
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
        let slot = SessionSlot::new(Some(session(5)));
        slot.advance(9);
        slot.advance(8);
        assert_eq!(slot.load(), Some(session(9)));
        slot.store(None);
        slot.advance(10);
        assert_eq!(slot.load(), None);
        slot.store(Some(session(1)));
        assert_eq!(slot.load(), Some(session(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_writer_at_a_time() {
        let slot = SessionSlot::default();
        let first = slot.lease().await;
        let mut second = std::pin::pin!(slot.lease());
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        second.await;
    }
}
