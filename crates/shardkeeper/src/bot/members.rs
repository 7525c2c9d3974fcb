//! Members of a guild, requested and collected.
//!
//! Input: a request. Output: one answer, made of the chunks that come as events (GW-209 to GW-220). Built on what
//! any bot has: a command, and a subscription to its answers.

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
    ALL_MEMBERS_WINDOW, Members, MembersAnswer, MembersChunk, MembersError, MembersRequests, SharedAnswer,
    WriteError,
};
use crate::dispatch::{
    Delivery, Event, JsonError, Lifecycle, STALLED_AFTER, Subscription, SubscriptionOptions, Topic,
};
use crate::error::{CommandError, ManagerEnded};

/// So long may pass without a chunk. Discord sends them at once, one after the other; a resume takes seconds.
const IDLE: Duration = Duration::from_secs(30);
/// Chunks that wait here until they are collected; a full one makes the shard wait.
const BACKLOG: usize = 64;

/// The answer that is on its way to an equal request, or a new one.
pub(super) fn ask(
    keeper: &Shardkeeper,
    requests: &Arc<MembersRequests>,
    request: RequestMembers,
) -> SharedAnswer {
    requests.share(request, |request| collect(keeper.clone(), Arc::clone(requests), request).boxed().shared())
}

/// Asks for members, one chunk after the other. Equal requests are not shared: each reads at its own pace.
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
    // In the order in which the guild has them, whatever order they come in (GW-218).
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
    command: Command,
    shard: ShardId,
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
        let shard = keeper.owner_of(guild_id).await?;
        let mut window = None;
        if everybody {
            window = Some(requests.reserve_window(guild_id).await);
        }
        let answers = Answers::to(&keeper, &command, shard, &nonce).await?;
        let mut open =
            Self { keeper, command, shard, window, nonce, answers, seen: BTreeSet::new(), complete: false };
        open.keep_window_until(Instant::now() + ALL_MEMBERS_WINDOW);
        Ok(open)
    }

    fn keep_window_until(&mut self, at: Instant) {
        if let Some(free_at) = &mut self.window {
            **free_at = at;
        }
    }

    /// The next chunk that has not come before, at any place and however often (GW-218).
    async fn next(mut self) -> Result<Option<(MembersChunk, Self)>, MembersError> {
        while !self.complete {
            let delivery = self.answers.next(&self.keeper, self.shard).await?;
            match &*delivery {
                Event::Dispatch(dispatch) if dispatch.event_name() == Some(EventName::RateLimited) => {
                    let limited: RateLimited = dispatch.parse().map_err(malformed)?;
                    if limited.opcode == 8 && limited.meta["nonce"] == self.nonce {
                        // A day at most: whatever asks for more is no rate limit.
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
                Event::Lifecycle(Lifecycle::Shard { change: Change::Ready | Change::Stopped, .. }) => {
                    return Err(MembersError::SessionLost { shard: self.shard });
                }
                Event::Lifecycle(Lifecycle::Ended) => return Err(ManagerEnded.into()),
                _ => {}
            }
        }
        Ok(None)
    }

    /// GW-164: after RATE_LIMITED the request is sent again once `retry_after` is over; something else of this bot has requested the members before.
    async fn ask_again(&mut self, retry_after: Duration) -> Result<(), MembersError> {
        let at = Instant::now() + retry_after;
        // Nobody reads it meanwhile, and one that is full would make the shard wait.
        let nothing = self.keeper.subscribe(Topic::events([]));
        self.answers = Answers { subscription: nothing, first: None };
        self.keep_window_until(at + ALL_MEMBERS_WINDOW);
        sleep_until(at).await;
        self.answers = Answers::to(&self.keeper, &self.command, self.shard, &self.nonce).await?;
        self.keep_window_until(Instant::now() + ALL_MEMBERS_WINDOW);
        Ok(())
    }
}

/// Where the answers to a request come from.
struct Answers {
    subscription: Subscription,
    /// One that was faster than the word that the request was written.
    first: Option<Delivery>,
}

impl Answers {
    /// Sends the request. It may wait for the limits for minutes, so the time for an answer begins when it was written.
    async fn to(
        keeper: &Shardkeeper,
        command: &Command,
        shard: ShardId,
        nonce: &str,
    ) -> Result<Self, MembersError> {
        loop {
            let options = SubscriptionOptions { capacity: BACKLOG, ..SubscriptionOptions::default() };
            let mut subscription = keeper.subscribe_to_answer(topic(shard, nonce), options).named("members");
            let mut written = pin!(keeper.command(command.clone()).await?.written());
            let written = loop {
                // What happens to the shard until then does not concern us, but has to be read.
                tokio::select! {
                    biased;
                    written = &mut written => break written,
                    Some(delivery) = subscription.next() => {
                        if let Event::Dispatch(_) = &*delivery {
                            return Ok(Self { subscription, first: Some(delivery) });
                        }
                    }
                }
            };
            match written {
                Ok(()) => {
                    // What was told before it was written may lie there still: a new session is the one that it is in.
                    let mut first = None;
                    while first.is_none()
                        && let Some(Some(delivery)) = subscription.next().now_or_never()
                    {
                        first = Some(delivery).filter(|delivery| matches!(**delivery, Event::Dispatch(_)));
                    }
                    return Ok(Self { subscription, first });
                }
                Err(WriteError::HeldUp) => {
                    return Err(held_up(keeper, shard).await.unwrap_or(MembersError::Expired));
                }
                Err(WriteError::Expired) => return Err(MembersError::Expired),
                // Its connection ended. When it is not sent at all nobody answers, and twice does no harm.
                Err(WriteError::Lost) => {}
            }
        }
    }

    async fn next(&mut self, keeper: &Shardkeeper, shard: ShardId) -> Result<Delivery, MembersError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let deadline = Instant::now() + IDLE;
        while Instant::now() < deadline {
            match timeout(STALLED_AFTER, self.subscription.next()).await {
                Ok(delivery) => return delivery.ok_or(ManagerEnded.into()),
                Err(_) => {
                    if let Some(error) = held_up(keeper, shard).await {
                        return Err(error);
                    }
                }
            }
        }
        Err(MembersError::TimedOut { after: IDLE })
    }
}

/// Who keeps the shard from reading, if somebody has done so for as long as is reported.
async fn held_up(keeper: &Shardkeeper, shard: ShardId) -> Option<MembersError> {
    let status = keeper.shard_status(shard).await.ok()?;
    let held_up = status.held_up.filter(|_| status.reading_paused)?;
    let stalled = Instant::now().into_std().saturating_duration_since(held_up.since) >= STALLED_AFTER;
    stalled.then_some(MembersError::HeldUp { shard, subscription: held_up.subscription })
}

fn malformed(error: JsonError) -> MembersError {
    MembersError::Malformed(Arc::new(error))
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
    /// Of another shape for another command (GW-165).
    meta: serde_json::Value,
}
