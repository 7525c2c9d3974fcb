//! Members of a guild: the answer to a request, and the state that all requests of a manager share.

use std::collections::{BTreeMap, HashMap};
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
use crate::layout::ShardKey;

/// Time between two requests for all members of one guild (GW-162: Discord allows one in 30 s).
pub(crate) const ALL_MEMBERS_WINDOW: Duration = Duration::from_secs(30);

/// Members that a request has found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Members {
    /// Members as JSON objects. Parse them with [`members`](Self::members).
    pub raw_members: Vec<Box<RawValue>>,
    /// Presences as JSON objects, if presences were requested.
    pub raw_presences: Vec<Box<RawValue>>,
    /// Requested ids that belong to no member (GW-219). Values that are not valid ids are left out.
    pub not_found: Vec<u64>,
}

/// A part of the members that a request has found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MembersChunk {
    /// Index of this part, from 0. Parts may come in any order.
    pub chunk_index: u64,
    /// Number of parts.
    pub chunk_count: u64,
    /// Members in this part.
    pub members: Members,
}

impl Members {
    /// Parses the members into the caller's type.
    ///
    /// # Errors
    ///
    /// When a member does not parse as `T`.
    pub fn members<T: DeserializeOwned>(&self) -> Result<Vec<T>, JsonError> {
        let chunk = EventName::GuildMembersChunk.as_str();
        let read = |member: &RawValue| parse(member.get().as_bytes()).map_err(|error| error.of(chunk.into()));
        self.raw_members.iter().map(|member| read(member)).collect()
    }
}

/// Error of a request for members.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// The request was not accepted.
    #[error(transparent)]
    Rejected(#[from] CommandError),
    /// The shard started a new session. The rest of the answer to a request of the old session never comes.
    #[error("the session of shard {shard} was lost: request the members again")]
    SessionLost {
        /// Id of the shard.
        shard: ShardId,
    },
    /// The request could not be sent within its [lifetime](crate::config::Timings::bulk_lifetime).
    #[error("the request for members expired before it could be sent")]
    Expired,
    /// No chunk came for this long.
    #[error("no chunk of members came within {} s", after.as_secs())]
    TimedOut {
        /// Time without a chunk.
        after: Duration,
    },
    /// The shard has stopped reading: a lossless subscription is full, and so is the buffer that lets the
    /// shard read on until the answer is complete. Perhaps it is the subscription that the caller reads next:
    /// make the request in another task, or read meanwhile.
    #[error("shard {shard} cannot read the answer: {subscription} is full and nobody reads it")]
    HeldUp {
        /// Id of the shard.
        shard: ShardId,
        /// The full subscription.
        subscription: SubscriptionLabel,
    },
    /// A chunk does not parse.
    #[error("a GUILD_MEMBERS_CHUNK cannot be parsed")]
    Malformed(#[source] Arc<JsonError>),
    /// The manager has ended.
    #[error(transparent)]
    ManagerEnded(#[from] ManagerEnded),
}

pub(crate) type MembersAnswer = Result<Arc<Members>, MembersError>;
/// An answer that several callers can wait for.
pub(crate) type SharedAnswer = Shared<BoxFuture<'static, MembersAnswer>>;

/// Requests under way, and the time at which each guild may be asked again.
pub(crate) struct MembersRequests {
    last_nonce: AtomicU64,
    /// How many requests each shard has to answer.
    awaited: Mutex<BTreeMap<ShardKey, usize>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Answers under way by request, so that equal requests share one answer.
    answers: HashMap<RequestMembers, WeakShared<BoxFuture<'static, MembersAnswer>>>,
    windows: HashMap<u64, Arc<Window>>,
}

/// A request that awaits its answer of a shard.
pub(crate) struct AwaitedAnswer {
    requests: Arc<MembersRequests>,
    shard: ShardKey,
}

impl AwaitedAnswer {
    pub(crate) fn shard(&self) -> ShardKey {
        self.shard
    }
}

impl Drop for AwaitedAnswer {
    fn drop(&mut self) {
        let mut awaited = self.requests.awaited();
        if let Some(number) = awaited.get_mut(&self.shard) {
            *number -= 1;
            if *number == 0 {
                awaited.remove(&self.shard);
            }
        }
    }
}

/// Lock for asking for all members of a guild. The value is the time at which the next request is allowed.
type Window = tokio::sync::Mutex<Instant>;

impl Default for MembersRequests {
    fn default() -> Self {
        // Nonces start at a random number: a session taken over from another process also brings the answers
        // to that process's requests, which must not be taken for answers to ours.
        Self {
            last_nonce: AtomicU64::new(fastrand::u64(..)),
            awaited: Mutex::default(),
            state: Mutex::default(),
        }
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

    fn awaited(&self) -> MutexGuard<'_, BTreeMap<ShardKey, usize>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request awaits its answer of this shard, until the value is dropped.
    pub(crate) fn begin_wait(self: &Arc<Self>, shard: ShardKey) -> AwaitedAnswer {
        *self.awaited().entry(shard).or_default() += 1;
        AwaitedAnswer { requests: Arc::clone(self), shard }
    }

    /// Whether a request awaits its answer of this shard.
    pub(crate) fn are_awaited(&self, shard: ShardKey) -> bool {
        self.awaited().contains_key(&shard)
    }

    /// A new nonce, below the limit of 32 bytes (GW-214: Discord ignores longer ones).
    pub(crate) fn nonce(&self) -> String {
        format!("sk-{:x}", self.last_nonce.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the answer under way of an equal request, or starts a new request.
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

    /// Waits until all members of the guild may be requested (GW-162: once in 30 s), so that Discord does not
    /// have to reject a request. The caller keeps the lock until Discord has answered, since the request
    /// itself may have to wait to be sent.
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
    fn gw_245_a_shard_is_waited_for_until_its_last_answer() {
        let requests = Arc::new(MembersRequests::default());
        let key = |generation| ShardKey { id: ShardId(1), generation };
        let (first, second) = (requests.begin_wait(key(1)), requests.begin_wait(key(1)));
        assert!(requests.are_awaited(key(1)) && !requests.are_awaited(key(2)));
        drop(first);
        assert!(requests.are_awaited(key(1)));
        drop(second);
        assert!(!requests.are_awaited(key(1)) && requests.awaited().is_empty());
    }

    #[test]
    fn a_nonce_is_not_one_of_the_process_that_had_the_session_before() {
        let (before, after) = (MembersRequests::default(), MembersRequests::default());
        let nonces: BTreeSet<String> = (0..50).flat_map(|_| [before.nonce(), after.nonce()]).collect();
        assert_eq!(nonces.len(), 100);
        assert!(nonces.iter().all(|nonce| nonce.len() <= 32));
    }
}
