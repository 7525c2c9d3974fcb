//! Requests for members of a guild, and the collection of the answers.
//!
//! Input: a request. Output: one answer, made of the chunks that arrive as events (GW-209 to GW-220). The
//! module uses only what every bot has: a command, and a subscription to its answers.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use shardkeeper_proto::shard::Change;
use shardkeeper_proto::{Command, Envelope, EventName, RequestMembers, ShardId};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep_until, timeout};

use super::Shardkeeper;
use crate::command::{
    ALL_MEMBERS_WINDOW, AwaitedAnswer, Members, MembersAnswer, MembersChunk, MembersError, MembersRequests,
    SharedAnswer, WriteError,
};
use crate::dispatch::{
    Delivery, Event, JsonError, Lifecycle, STALLED_AFTER, Subscription, SubscriptionOptions, Topic,
};
use crate::error::{CommandError, ManagerEnded};
use crate::layout::ShardKey;

/// Longest time without a chunk. Discord sends chunks at once, one after the other; a resume takes seconds.
const IDLE: Duration = Duration::from_secs(30);
/// Chunks that wait here until they are collected. When this many wait, the shard stops reading.
const BACKLOG: usize = 64;

/// Returns the answer under way of an equal request, or starts a new request.
pub(super) fn ask(
    keeper: &Shardkeeper,
    requests: &Arc<MembersRequests>,
    request: RequestMembers,
) -> SharedAnswer {
    requests.share(request, |request| collect(keeper.clone(), Arc::clone(requests), request).boxed().shared())
}

/// Requests members, and yields one chunk after the other. Equal requests are not shared, since each caller
/// reads at its own pace.
pub(super) fn chunks(
    keeper: &Shardkeeper,
    requests: &Arc<MembersRequests>,
    request: RequestMembers,
) -> BoxStream<'static, Result<MembersChunk, MembersError>> {
    let (requests, keeper) = (Arc::clone(requests), keeper.clone());
    let begun = async move { OpenRequest::begin(requests, keeper, request).await };
    let chunks = begun.map_ok(|open| stream::try_unfold(open, OpenRequest::next));
    chunks.try_flatten_stream().boxed()
}

async fn collect(
    keeper: Shardkeeper,
    requests: Arc<MembersRequests>,
    request: RequestMembers,
) -> MembersAnswer {
    let mut all = Members::default();
    // Sorted by index: chunks may come in any order (GW-218).
    let mut chunks: Vec<MembersChunk> = chunks(&keeper, &requests, request).try_collect().await?;
    chunks.sort_unstable_by_key(|chunk| chunk.chunk_index);
    for chunk in chunks {
        all.raw_members.extend(chunk.members.raw_members);
        all.raw_presences.extend(chunk.members.raw_presences);
        all.not_found.extend(chunk.members.not_found);
    }
    Ok(Arc::new(all))
}

/// A request that is being answered.
struct OpenRequest {
    keeper: Shardkeeper,
    requests: Arc<MembersRequests>,
    command: Command,
    guild_id: u64,
    window: Option<OwnedMutexGuard<Instant>>,
    nonce: String,
    answers: Answers,
    seen: BTreeSet<u64>,
    complete: bool,
}

impl OpenRequest {
    async fn begin(
        requests: Arc<MembersRequests>,
        keeper: Shardkeeper,
        request: RequestMembers,
    ) -> Result<Self, MembersError> {
        let nonce = requests.nonce();
        let guild_id = request.guild_id();
        let everybody = request.is_for_all();
        let command = Command::members(&request.nonce(nonce.as_str())).map_err(CommandError::from)?;
        keeper.owner_of(guild_id).await?;
        let mut window = None;
        if everybody {
            window = Some(requests.reserve_window(guild_id).await);
        }
        let answers = Answers::to(&keeper, &requests, &command, guild_id, &nonce).await?;
        let mut open = Self {
            keeper,
            requests,
            command,
            guild_id,
            window,
            nonce,
            answers,
            seen: BTreeSet::new(),
            complete: false,
        };
        open.keep_window_until(Instant::now() + ALL_MEMBERS_WINDOW);
        Ok(open)
    }

    fn keep_window_until(&mut self, at: Instant) {
        if let Some(free_at) = &mut self.window {
            **free_at = at;
        }
    }

    /// Returns the next chunk that was not seen before. Chunks may come in any order and more than once
    /// (GW-218).
    async fn next(mut self) -> Result<Option<(MembersChunk, Self)>, MembersError> {
        while !self.complete {
            let delivery = self.answers.next(&self.keeper).await?;
            match &*delivery {
                Event::Dispatch(dispatch) if dispatch.event_name() == Some(EventName::RateLimited) => {
                    let limited: RateLimited = dispatch.parse().map_err(malformed)?;
                    if limited.opcode == 8 && limited.meta["nonce"] == self.nonce {
                        // At most a day: a longer time is not a rate limit.
                        let seconds = limited.retry_after.clamp(0.0, 86_400.0);
                        drop(delivery);
                        self.ask_again(Duration::from_secs_f64(seconds)).await?;
                    }
                }
                Event::Dispatch(dispatch) => {
                    let chunk: Chunk = dispatch.parse().map_err(malformed)?;
                    let mine = chunk.nonce.as_deref() == Some(self.nonce.as_str());
                    if mine {
                        self.window = None;
                    }
                    if mine && chunk.chunk_index < chunk.chunk_count && self.seen.insert(chunk.chunk_index) {
                        self.complete = self.seen.len() as u64 == chunk.chunk_count;
                        return Ok(Some((chunk.into(), self)));
                    }
                }
                Event::Lifecycle(
                    lifecycle @ Lifecycle::Shard { change: Change::Ready | Change::Stopped, .. },
                ) if lifecycle.key() == Some(self.answers.asked()) => {
                    let asked = self.answers.asked();
                    let owners = self.keeper.owners_of(self.guild_id).await.unwrap_or_default();
                    if !self.seen.is_empty() || owners.first().is_none_or(|owner| *owner == asked) {
                        return Err(MembersError::SessionLost { shard: asked.id });
                    }
                    // A reshard has ended the shard, and the guild has a new owner.
                    drop(delivery);
                    self.ask_again(Duration::ZERO).await?;
                }
                Event::Lifecycle(Lifecycle::Ended) => return Err(ManagerEnded.into()),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Sends the request again once `retry_after` is over (GW-164: RATE_LIMITED asks for that). Somebody else
    /// has requested the members before.
    async fn ask_again(&mut self, retry_after: Duration) -> Result<(), MembersError> {
        let at = Instant::now() + retry_after;
        // A subscription to nothing: the old one would not be read meanwhile, and when full it would hold up
        // the shard.
        let nothing = self.keeper.subscribe(Topic::events([]));
        self.answers.subscription = nothing;
        self.answers.first = None;
        self.keep_window_until(at + ALL_MEMBERS_WINDOW);
        sleep_until(at).await;
        self.answers =
            Answers::to(&self.keeper, &self.requests, &self.command, self.guild_id, &self.nonce).await?;
        self.keep_window_until(Instant::now() + ALL_MEMBERS_WINDOW);
        Ok(())
    }
}

/// Source of the answers to a request.
struct Answers {
    subscription: Subscription,
    /// An answer that arrived before the news that the request was written.
    first: Option<Delivery>,
    awaited: AwaitedAnswer,
}

impl Answers {
    /// Sends the request. It may wait for the rate limits for minutes, so the timeout of the answer begins
    /// when it was written.
    async fn to(
        keeper: &Shardkeeper,
        requests: &Arc<MembersRequests>,
        command: &Command,
        guild_id: u64,
        nonce: &str,
    ) -> Result<Self, MembersError> {
        loop {
            let options = SubscriptionOptions { capacity: BACKLOG, ..SubscriptionOptions::default() };
            // A request that waits for the limits at a cut-over is sent by the new owner.
            let owners = keeper.owners_of(guild_id).await?;
            let topic = topic(owners.iter().map(|owner| owner.id), nonce);
            let mut subscription = keeper.subscribe_to_answer(topic, options).named("members");
            let mut written = pin!(keeper.command(command.clone()).await?.written_by());
            let written = loop {
                // Lifecycle changes before the request was written are irrelevant, but have to be read to
                // make room.
                tokio::select! {
                    biased;
                    written = &mut written => break written,
                    Some(delivery) = subscription.next() => {
                        if let Event::Dispatch(dispatch) = &*delivery {
                            let awaited = requests.begin_wait(dispatch.key());
                            return Ok(Self { subscription, first: Some(delivery), awaited });
                        }
                    }
                }
            };
            match written {
                // A reshard began while the request waited, and its new shard is not subscribed to.
                Ok(asked) if !owners.contains(&asked) => {}
                Ok(asked) => {
                    let awaited = requests.begin_wait(asked);
                    // Skip lifecycle changes that came before the request was written: a new session among
                    // them is the one that the request was sent in.
                    let mut first = None;
                    while first.is_none()
                        && let Some(Some(delivery)) = subscription.next().now_or_never()
                    {
                        first = Some(delivery).filter(|delivery| matches!(**delivery, Event::Dispatch(_)));
                    }
                    return Ok(Self { subscription, first, awaited });
                }
                Err(WriteError::HeldUp) => {
                    return Err(held_up(keeper, owners[0].id).await.unwrap_or(MembersError::Expired));
                }
                Err(WriteError::Expired) => return Err(MembersError::Expired),
                // The connection ended during the write: send the request again. If it did not arrive, no
                // answer would come; if it did, asking twice does no harm.
                Err(WriteError::Lost) => {}
            }
        }
    }

    /// The shard that was asked.
    fn asked(&self) -> ShardKey {
        self.awaited.shard()
    }

    async fn next(&mut self, keeper: &Shardkeeper) -> Result<Delivery, MembersError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let deadline = Instant::now() + IDLE;
        while Instant::now() < deadline {
            match timeout(STALLED_AFTER, self.subscription.next()).await {
                Ok(delivery) => return delivery.ok_or(ManagerEnded.into()),
                Err(_) => {
                    if let Some(error) = held_up(keeper, self.asked().id).await {
                        return Err(error);
                    }
                }
            }
        }
        Err(MembersError::TimedOut { after: IDLE })
    }
}

/// Returns the error that names the full subscription, if it has kept the shard from reading for as long as
/// is reported as stalled.
async fn held_up(keeper: &Shardkeeper, shard: ShardId) -> Option<MembersError> {
    let status = keeper.shard_status(shard).await.ok()?;
    let held_up = status.held_up.filter(|_| status.reading_paused)?;
    let stalled = Instant::now().into_std().saturating_duration_since(held_up.since) >= STALLED_AFTER;
    stalled.then_some(MembersError::HeldUp { shard, subscription: held_up.subscription })
}

fn malformed(error: JsonError) -> MembersError {
    MembersError::Malformed(Arc::new(error))
}

/// Topic of the answers to this request, and of changes of the shard's session.
fn topic(shards: impl Iterator<Item = ShardId>, nonce: &str) -> Topic {
    let mark = format!("\"{nonce}\"");
    let finder = memchr::memmem::Finder::new(mark.as_bytes()).into_owned();
    let mine = move |envelope: &Envelope<'_>| finder.find(envelope.data).is_some();
    Topic::events([EventName::GuildMembersChunk, EventName::RateLimited])
        .of_shards(shards)
        .matching(mine)
        .with_lifecycle()
}

#[derive(Deserialize)]
struct Chunk {
    chunk_index: u64,
    chunk_count: u64,
    nonce: Option<String>,
    members: Vec<Box<RawValue>>,
    #[serde(default)]
    presences: Vec<Box<RawValue>>,
    /// Ids as text; Discord sends a value that is not an id as a number (GW-025).
    #[serde(default)]
    not_found: Vec<serde_json::Value>,
}

impl From<Chunk> for MembersChunk {
    fn from(chunk: Chunk) -> Self {
        let not_found = chunk.not_found.iter().filter_map(|id| id.as_str()?.parse::<u64>().ok()).collect();
        let members = Members { raw_members: chunk.members, raw_presences: chunk.presences, not_found };
        Self { chunk_index: chunk.chunk_index, chunk_count: chunk.chunk_count, members }
    }
}

#[derive(Deserialize)]
struct RateLimited {
    opcode: u64,
    retry_after: f64,
    /// JSON whose shape depends on the rate-limited command (GW-165).
    meta: serde_json::Value,
}
