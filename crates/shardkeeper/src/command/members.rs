//! Members of a guild: what a request yields, and what all requests share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared, WeakShared};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use shardkeeper_proto::{EventName, RequestMembers, ShardId};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep_until};

use crate::chain::readable;
use crate::dispatch::{JsonError, SubscriptionLabel, parse};
use crate::error::{CommandError, ManagerEnded};

/// All members of a guild can be asked for once in so long (GW-162).
pub(crate) const ALL_MEMBERS_WINDOW: Duration = Duration::from_secs(30);

/// The members that a request has found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Members {
    /// Each member, as JSON: parse it with [`members`](Self::members).
    pub raw_members: Vec<Box<RawValue>>,
    /// Their presences, if they were asked for.
    pub raw_presences: Vec<Box<RawValue>>,
    /// The ids that were asked for and belong to no member (GW-219); those that are no ids at all are left out.
    pub not_found: Vec<u64>,
}

/// A part of the members that a request has found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MembersChunk {
    /// Which part it is, counted from 0. They may come in any order.
    pub chunk_index: u64,
    /// How many parts there are.
    pub chunk_count: u64,
    /// What is in it.
    pub members: Members,
}

impl Members {
    /// The members as whatever the caller wants of them.
    ///
    /// # Errors
    ///
    /// When one is no `T`.
    pub fn members<T: DeserializeOwned>(&self) -> Result<Vec<T>, JsonError> {
        let chunk = EventName::GuildMembersChunk.as_str();
        let read = |member: &RawValue| parse(member.get().as_bytes()).map_err(|error| error.of(chunk.into()));
        self.raw_members.iter().map(|member| read(member)).collect()
    }
}

/// Members could not be had.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// The request was not accepted.
    #[error(transparent)]
    Rejected(#[from] CommandError),
    /// The shard got a new session: what was asked for in the old one does not come any more.
    #[error("the session of shard {shard} was lost, ask again")]
    SessionLost {
        /// The shard.
        shard: ShardId,
    },
    /// The request could not be sent before its [time](crate::config::Timings::bulk_lifetime) was over.
    #[error("the request for members could not be sent before its time was over")]
    Expired,
    /// Nothing came for so long.
    #[error("no chunk of members came within {} s", after.as_secs())]
    TimedOut {
        /// How long.
        after: Duration,
    },
    /// The shard does not read: a lossless subscription is full, and so is the room for what comes until the answer does.
    /// Perhaps it is the one that the caller would read next: let another task ask, or read on meanwhile.
    #[error("shard {shard} does not read the answer: {subscription} is full and nobody reads it")]
    HeldUp {
        /// The shard.
        shard: ShardId,
        /// The subscription.
        subscription: SubscriptionLabel,
    },
    /// A chunk is not what it should be.
    #[error("a chunk of members cannot be read")]
    Malformed(#[source] Arc<JsonError>),
    /// The manager has ended.
    #[error(transparent)]
    ManagerEnded(#[from] ManagerEnded),
}

pub(crate) type MembersAnswer = Result<Arc<Members>, MembersError>;
/// An answer that several may wait for.
pub(crate) type SharedAnswer = Shared<BoxFuture<'static, MembersAnswer>>;

/// What is being asked for, and when a guild may be asked again.
pub(crate) struct MembersRequests {
    last_nonce: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Equal requests share one answer.
    answers: HashMap<RequestMembers, WeakShared<BoxFuture<'static, MembersAnswer>>>,
    windows: HashMap<u64, Arc<Window>>,
}

/// Held by the one request for all members of a guild that may be sent; the time from which the next one may be.
type Window = tokio::sync::Mutex<Instant>;

impl Default for MembersRequests {
    fn default() -> Self {
        // From anywhere: a session that comes from another process brings what that one asked for, and it must not be taken
        // for what we ask.
        Self { last_nonce: AtomicU64::new(fastrand::u64(..)), state: Mutex::default() }
    }
}

impl std::fmt::Debug for MembersRequests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MembersRequests").finish_non_exhaustive()
    }
}

impl MembersRequests {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A nonce of at most 32 bytes: Discord ignores a longer one (GW-214).
    pub(crate) fn nonce(&self) -> String {
        format!("sk-{:x}", self.last_nonce.fetch_add(1, Ordering::Relaxed))
    }

    /// The answer that is on its way to an equal request, or the one that is begun now.
    pub(crate) fn share(
        &self,
        request: RequestMembers,
        begin: impl FnOnce(RequestMembers) -> SharedAnswer,
    ) -> SharedAnswer {
        let mut state = self.state();
        state.answers.retain(|_, answer| answer.upgrade().is_some());
        if let Some(answer) = state.answers.get(&request).and_then(WeakShared::upgrade) {
            return answer;
        }
        let answer = begin(request.clone());
        state.answers.extend(answer.downgrade().map(|weak| (request, weak)));
        answer
    }

    /// Waits until all members of the guild may be requested: once in 30 s (GW-162), without a rejection first. It is kept until
    /// Discord has answered, since the request itself may have to wait to be sent.
    pub(crate) async fn reserve_window(&self, guild_id: u64) -> OwnedMutexGuard<Instant> {
        let now = Instant::now();
        let window = {
            let mut state = self.state();
            state.windows.retain(|_, window| {
                Arc::strong_count(window) > 1 || window.try_lock().is_ok_and(|free_at| *free_at > now)
            });
            Arc::clone(state.windows.entry(guild_id).or_insert_with(|| Arc::new(Window::new(now))))
        };
        let mut free_at = window.lock_owned().await;
        sleep_until(*free_at).await;
        *free_at = Instant::now() + ALL_MEMBERS_WINDOW;
        free_at
    }
}

readable!(MembersError);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_nonce_is_not_one_of_the_process_that_had_the_session_before() {
        let (before, after) = (MembersRequests::default(), MembersRequests::default());
        let nonces: BTreeSet<String> = (0..50).flat_map(|_| [before.nonce(), after.nonce()]).collect();
        assert_eq!(nonces.len(), 100);
        assert!(nonces.iter().all(|nonce| nonce.len() <= 32));
    }
}
