//! The gate between managers in one process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use shardkeeper_proto::{IdentifyBudget, Priority};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::{GateError, IdentifyGate, IdentifyPass, IdentifyRequest};

/// An [`IdentifyGate`] for several managers of one bot in one process. Clones share one gate.
///
/// More urgent requests go first, then earlier ones. The gate also counts the budget over all managers: the
/// lowest that any of them reports, less the Identifies that have passed through here. It does not know of
/// Identifies sent before it was made.
#[derive(Clone, Debug, Default)]
pub struct LocalGate {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    arrivals: u64,
    /// Waiting requests and passes that are out, in the order of service.
    claims: BTreeMap<(Priority, u64), ClaimState>,
    /// Time until which each key is closed.
    shut: HashMap<Key, Instant>,
    budget: Option<IdentifyBudget>,
}

#[derive(Clone, Copy, Debug)]
struct ClaimState {
    key: Key,
    admitted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    number: u32,
    max_concurrency: u32,
}

impl Key {
    /// Whether two keys exclude each other. Keys under different values of `max_concurrency` do, since that
    /// value may change (GW-177).
    fn is_one_with(self, other: Self) -> bool {
        self.max_concurrency != other.max_concurrency || self.number == other.number
    }
}

/// The identify budget that all managers share is used up except for the reserve.
#[derive(Debug, thiserror::Error)]
#[error("the identify budget is used up, full again in {resets_after:.0?}")]
struct BudgetUsedUp {
    resets_after: Duration,
}

enum Admission {
    Now,
    /// The request may pass at this time, if nothing changes before.
    At(Instant),
    AfterOthers,
}

impl IdentifyGate for LocalGate {
    fn admit(&self, request: IdentifyRequest) -> BoxFuture<'_, Result<IdentifyPass, GateError>> {
        Box::pin(async move {
            let claim = self.shared.enter(&request);
            loop {
                // Registered before the check, so that no change in between is missed.
                let changed = self.shared.changed.notified();
                match claim.try_admit()? {
                    Admission::Now => break,
                    Admission::At(at) => drop(timeout_at(at, changed).await),
                    Admission::AfterOthers => changed.await,
                }
            }
            Ok(IdentifyPass::new(move || claim.spent(request.window)))
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, request: &IdentifyRequest) -> Claim {
        let mut state = self.state();
        state.learn(request.budget);
        state.arrivals += 1;
        let number = (request.priority, state.arrivals);
        let key = Key { number: request.key(), max_concurrency: request.max_concurrency };
        state.claims.insert(number, ClaimState { key, admitted: false });
        Claim { shared: Arc::clone(self), number, key }
    }
}

/// One request at the gate, from its arrival until its pass is gone.
struct Claim {
    shared: Arc<Shared>,
    number: (Priority, u64),
    key: Key,
}

impl Claim {
    fn try_admit(&self) -> Result<Admission, BudgetUsedUp> {
        let mut state = self.shared.state();
        let before = |number: &(Priority, u64), claim: &ClaimState| {
            *number != self.number
                && claim.key.is_one_with(self.key)
                && (claim.admitted || *number < self.number)
        };
        if state.claims.iter().any(|(number, claim)| before(number, claim)) {
            return Ok(Admission::AfterOthers);
        }
        let now = Instant::now();
        let shut = state.shut.iter().filter(|(key, at)| key.is_one_with(self.key) && **at > now);
        if let Some(at) = shut.map(|(_, at)| *at).max() {
            return Ok(Admission::At(at));
        }
        let out = state.claims.values().filter(|claim| claim.admitted).count();
        if let Some(budget) = &mut state.budget
            && !budget.affords(now.into_std(), out)
        {
            let now = now.into_std();
            return Err(BudgetUsedUp { resets_after: budget.resets_at(now).saturating_duration_since(now) });
        }
        state.claims.insert(self.number, ClaimState { key: self.key, admitted: true });
        Ok(Admission::Now)
    }

    fn spent(&self, window: Duration) {
        let mut state = self.shared.state();
        let now = Instant::now();
        state.shut.retain(|_, at| *at > now);
        state.shut.insert(self.key, now + window);
        if let Some(budget) = &mut state.budget {
            budget.spend(now.into_std());
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.state().claims.remove(&self.number);
        self.shared.changed.notify_waiters();
    }
}

impl State {
    /// Takes over the lowest budget: a manager that reports more has not heard of what others spent.
    fn learn(&mut self, mut said: IdentifyBudget) {
        let now = Instant::now().into_std();
        let (left, known) = (said.left(now), self.budget.as_mut().map(|known| known.left(now)));
        if known.is_none_or(|known| left < known) {
            self.budget = Some(said);
        }
    }
}
