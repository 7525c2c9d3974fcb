//! The handle that every connection and task has.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use super::state::State;
use super::urls::Urls;
use crate::config::SimConfig;
use crate::judgement::Judgement;
use crate::link::Link;
use crate::report::Violation;

/// The simulated Discord.
pub(crate) struct Discord {
    pub(crate) config: SimConfig,
    /// The address that the simulator listens on; `None` in memory.
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) urls: Urls,
    pub(crate) started: Instant,
    state: Mutex<State>,
    /// Counts changes of the state, for tasks that wait for one.
    pub(crate) changes: watch::Sender<u64>,
    /// When the next session expires, by tokio's clock.
    expiry: watch::Sender<Option<Instant>>,
    /// Whether generated traffic is on.
    pub(crate) traffic: watch::Sender<bool>,
    /// Whether the simulator was shut down.
    pub(crate) over: watch::Sender<bool>,
    slots: Arc<Semaphore>,
    /// How many Gateway connections there were.
    links: AtomicU64,
}

/// The permission to hold one of the simulator's connections.
pub(crate) type Slot = Arc<OwnedSemaphorePermit>;

impl Discord {
    pub(crate) fn new(config: SimConfig, addr: Option<SocketAddr>, tls: bool) -> Self {
        Self {
            state: Mutex::new(State::new(&config)),
            urls: Urls { addr: config.public_addr.or(addr), tls, resume_hosts: config.resume_hosts },
            slots: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
            config,
            addr,
            started: Instant::now(),
            changes: watch::Sender::new(0),
            expiry: watch::Sender::new(None),
            traffic: watch::Sender::new(false),
            over: watch::Sender::new(false),
            links: AtomicU64::new(0),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what follows from the end of sessions, unlocks the state, and wakes the tasks that wait for a
    /// change.
    pub(crate) fn changed(&self, mut state: MutexGuard<'_, State>) {
        let findings = state.settle();
        let expiry = state.next_expiry();
        drop(state);
        self.expiry.send_if_modified(|last| std::mem::replace(last, expiry) != expiry);
        self.changes.send_modify(|count| *count += 1);
        for (shard, (judgement, detail)) in findings {
            self.judge(judgement, shard, detail);
        }
    }

    /// Forgets sessions when their lifetime is over, until the simulator is shut down.
    pub(crate) async fn expire_sessions(self: Arc<Self>) {
        let (mut expiry, mut over) = (self.expiry.subscribe(), self.over.subscribe());
        loop {
            let due = *expiry.borrow_and_update();
            tokio::select! {
                biased;
                _ = over.wait_for(|over| *over) => return,
                changed = expiry.changed() => if changed.is_err() { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let mut state = self.state();
                    let now = state.now();
                    state.sessions.expire(now);
                    self.changed(state);
                }
            }
        }
    }

    /// Admits one more connection; `None` when there are as many as allowed.
    pub(crate) fn admit(&self) -> Option<Slot> {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        if slot.is_err() {
            let mut state = self.state();
            state.report.connections_refused += 1;
            self.changed(state);
        }
        slot.ok().map(Arc::new)
    }

    /// Adds a judgement on a client to the report.
    pub(crate) fn judge(
        &self,
        judgement: &'static Judgement,
        shard_id: Option<u32>,
        detail: impl Into<String>,
    ) {
        let &Judgement { rule, grade, reason, .. } = judgement;
        let entry = Violation { rule, grade, reason, shard_id, at_ms: self.at_ms(), detail: detail.into() };
        let mut state = self.state();
        state.report.judge(entry);
        self.changed(state);
    }

    /// Milliseconds since the start, without the jumps of the simulator's clock.
    fn at_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The controls of a new Gateway connection.
    pub(crate) fn new_link(&self) -> Arc<Link> {
        Arc::new(Link::new(self.links.fetch_add(1, Ordering::Relaxed) + 1))
    }
}
