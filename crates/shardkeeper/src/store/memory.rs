//! A session store that lives as long as its process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{BudgetRecord, Changes, LayoutRecord, SessionRecord, SessionStore, StoreError, Stored};
use crate::layout::ShardKey;

/// Stores sessions in memory: for tests, and for managers that follow each other in one process. Clones share
/// their content.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    sessions: BTreeMap<ShardKey, SessionRecord>,
    layout: Option<LayoutRecord>,
    budget: Option<BudgetRecord>,
}

impl SessionStore for MemoryStore {
    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = held.sessions.values().cloned().collect();
        let stored = Stored::new(sessions, held.layout.clone(), held.budget);
        std::future::ready(Ok(stored)).boxed()
    }

    fn save(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in &changes.removed {
                held.sessions.remove(slot);
            }
            held.sessions.extend(changes.sessions.into_iter().map(|record| (record.slot(), record)));
            held.layout = changes.layout.or(held.layout.take());
            held.budget = changes.budget.or(held.budget);
            Ok(())
        }
        .boxed()
    }
}
