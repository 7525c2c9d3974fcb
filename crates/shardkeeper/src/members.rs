//! Members of a guild, asked for and collected.
//!
//! Input: a request. Output: one answer, made of the chunks that come as events (section 13 of the rules). Built on what
//! any bot has: a command, and a subscription to its answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use shardkeeper_proto::shard::Change;
use shardkeeper_proto::{Envelope, EventName, RequestMembers, ShardId};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{CommandRejected, Event, Lifecycle, Shardkeeper, Subscription, SubscriptionOptions, Topic};

/// All members of a guild can be asked for once in so long (GW-162).
const ALL_MEMBERS_WINDOW: Duration = Duration::from_secs(30);
/// So long may pass without a chunk. Discord sends them at once, one after the other; a resume takes seconds.
const IDLE: Duration = Duration::from_secs(30);
/// Chunks that wait here until they are collected; a full one makes the shard wait.
const BACKLOG: usize = 64;

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

impl Members {
    /// The members as whatever the caller wants of them.
    ///
    /// # Errors
    ///
    /// When one is no `T`.
    pub fn members<T: DeserializeOwned>(&self) -> Result<Vec<T>, serde_json::Error> {
        self.raw_members.iter().map(|member| serde_json::from_str(member.get())).collect()
    }
}

/// Members could not be had.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// The request was not accepted.
    #[error(transparent)]
    Rejected(#[from] CommandRejected),
    /// The shard got a new session: what was asked for in the old one does not come any more.
    #[error("the session of shard {shard} was lost, ask again")]
    SessionLost {
        /// The shard.
        shard: ShardId,
    },
    /// Nothing came for so long.
    #[error("no chunk of members came within {} s", after.as_secs())]
    TimedOut {
        /// How long.
        after: Duration,
    },
    /// A chunk is not what it should be.
    #[error("a chunk of members cannot be read")]
    Malformed(#[source] Arc<serde_json::Error>),
    /// The manager ended.
    #[error("the manager has ended")]
    ManagerEnded,
}

type Answer = Result<Arc<Members>, MembersError>;
type Asking = Shared<BoxFuture<'static, Answer>>;

/// What is being asked for, and when a guild may be asked again.
#[derive(Default)]
pub(crate) struct MembersDesk {
    last_nonce: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Equal requests share one answer.
    asking: HashMap<RequestMembers, WeakShared<BoxFuture<'static, Answer>>>,
    /// When all members of a guild may be asked for again.
    free_at: HashMap<u64, Instant>,
}

impl std::fmt::Debug for MembersDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MembersDesk").finish_non_exhaustive()
    }
}

impl MembersDesk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer that is on its way to an equal request, or a new one.
    pub(crate) fn ask(self: &Arc<Self>, keeper: &Shardkeeper, request: RequestMembers) -> Asking {
        let mut state = self.state();
        state.asking.retain(|_, asking| asking.upgrade().is_some());
        let now = Instant::now();
        state.free_at.retain(|_, free_at| *free_at > now);
        if let Some(asking) = state.asking.get(&request).and_then(WeakShared::upgrade) {
            return asking;
        }
        let (desk, keeper, wanted) = (Arc::clone(self), keeper.clone(), request.clone());
        let asking = async move { desk.collect(&keeper, wanted).await }.boxed().shared();
        state.asking.extend(asking.downgrade().map(|weak| (request, weak)));
        asking
    }

    /// Waits for the guild's turn, and takes it (GW-162): known before Discord has to say so.
    async fn turn(&self, guild_id: u64) {
        loop {
            let wait = {
                let mut state = self.state();
                let now = Instant::now();
                let free_at = state.free_at.entry(guild_id).or_insert(now);
                if *free_at <= now {
                    *free_at = now + ALL_MEMBERS_WINDOW;
                    return;
                }
                *free_at
            };
            sleep_until(wait).await;
        }
    }

    async fn collect(&self, keeper: &Shardkeeper, request: RequestMembers) -> Answer {
        // Unique within the manager; at most 32 bytes (GW-214).
        let nonce = format!("sk-{:x}", self.last_nonce.fetch_add(1, Ordering::Relaxed));
        let guild_id = request.guild_id();
        let everybody = request.is_for_all();
        let command = request.nonce(nonce.as_str()).command().map_err(CommandRejected::from)?;
        let shard = keeper.owner_of(guild_id).await?;
        if everybody {
            self.turn(guild_id).await;
        }
        loop {
            // Only while it is read: one that is full would make the shard wait.
            let options = SubscriptionOptions { capacity: BACKLOG, ..SubscriptionOptions::default() };
            let mut answers = keeper.subscribe_with(topic(shard, &nonce), options);
            keeper.command(command.clone()).await?;
            match chunks(&mut answers, shard, &nonce).await? {
                Outcome::Complete(members) => return Ok(Arc::new(members)),
                // GW-164: somebody else has asked. Our turn is when Discord says so.
                Outcome::RateLimited { retry_after } => {
                    let at = Instant::now() + retry_after;
                    drop(answers);
                    self.state().free_at.insert(guild_id, at + ALL_MEMBERS_WINDOW);
                    sleep_until(at).await;
                }
            }
        }
    }
}

/// The answers to this request, and what becomes of the shard's session.
fn topic(shard: ShardId, nonce: &str) -> Topic {
    let mark = format!("\"{nonce}\"");
    let finder = memchr::memmem::Finder::new(mark.as_bytes()).into_owned();
    let mine = move |envelope: &Envelope<'_>| finder.find(envelope.data).is_some();
    Topic::events([EventName::GuildMembersChunk, EventName::RateLimited])
        .of_shards([shard])
        .matching(mine)
        .with_lifecycle()
}

enum Outcome {
    Complete(Members),
    RateLimited { retry_after: Duration },
}

#[derive(Deserialize)]
struct Chunk {
    chunk_index: u64,
    chunk_count: u64,
    nonce: Option<String>,
    members: Vec<Box<RawValue>>,
    #[serde(default)]
    presences: Vec<Box<RawValue>>,
    /// Text, or a number where it was no id (GW-025).
    #[serde(default)]
    not_found: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RateLimited {
    opcode: u64,
    retry_after: f64,
    /// Of another shape for another command (GW-165).
    meta: serde_json::Value,
}

/// Collects chunks until each one has come, at any place and however often (GW-218).
async fn chunks(answers: &mut Subscription, shard: ShardId, nonce: &str) -> Result<Outcome, MembersError> {
    let malformed = |error| MembersError::Malformed(Arc::new(error));
    let mut chunks: BTreeMap<u64, Chunk> = BTreeMap::new();
    loop {
        let Ok(delivery) = timeout(IDLE, answers.next()).await else {
            return Err(MembersError::TimedOut { after: IDLE });
        };
        let delivery = delivery.ok_or(MembersError::ManagerEnded)?;
        match &*delivery {
            Event::Dispatch(dispatch) if dispatch.event() == Some(EventName::RateLimited) => {
                let limited: RateLimited = dispatch.parse().map_err(malformed)?;
                if limited.opcode == 8 && limited.meta["nonce"] == nonce {
                    // A day at most: whatever asks for more is no rate limit.
                    let seconds = limited.retry_after.clamp(0.0, 86_400.0);
                    return Ok(Outcome::RateLimited { retry_after: Duration::from_secs_f64(seconds) });
                }
            }
            Event::Dispatch(dispatch) => {
                let chunk: Chunk = dispatch.parse().map_err(malformed)?;
                if chunk.nonce.as_deref() == Some(nonce) && chunk.chunk_index < chunk.chunk_count {
                    let count = chunk.chunk_count;
                    chunks.insert(chunk.chunk_index, chunk);
                    if chunks.len() as u64 == count {
                        return Ok(Outcome::Complete(join(chunks)));
                    }
                }
            }
            Event::Lifecycle(Lifecycle::Shard { change: Change::Ready | Change::Stopped, .. }) => {
                return Err(MembersError::SessionLost { shard });
            }
            Event::Lifecycle(Lifecycle::Ended) => return Err(MembersError::ManagerEnded),
            _ => {}
        }
    }
}

fn join(chunks: BTreeMap<u64, Chunk>) -> Members {
    let mut all = Members::default();
    for chunk in chunks.into_values() {
        all.raw_members.extend(chunk.members);
        all.raw_presences.extend(chunk.presences);
        all.not_found.extend(chunk.not_found.iter().filter_map(|id| id.as_str()?.parse::<u64>().ok()));
    }
    all
}
