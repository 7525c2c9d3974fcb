//! The identify queue, while shards and the queue itself are killed.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use shardkeeper::actor::QueueMessage;
use shardkeeper::config::{Backoff, BoxedIo, Dialer, RestartPolicy};
use shardkeeper::error::ConnectError;
use shardkeeper::status::Phase;
use shardkeeper::{Activity, OnlineStatus, Presence, ShardId, Shardkeeper};
use shardkeeper_sim::{Fault, MemoryStream, Simulator};
use shardkeeper_tests::races::{Round, repeat};
use shardkeeper_tests::service;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};
use url::Url;

const SHARDS: u32 = 4;
/// The time between two Identify: the window and the margin of [`Round::bot`].
const APART: Duration = Duration::from_millis(50);
/// The size, in bytes, that distinguishes payloads: an Identify with the presence of these tests is larger, a
/// Resume or a heartbeat is not.
const IDENTIFY_BYTES: usize = 300;

/// Dials the simulator, and records when an Identify is written.
#[derive(Clone)]
struct Clock {
    simulator: Simulator,
    written: Arc<Mutex<Vec<Instant>>>,
}

impl Dialer for Clock {
    fn dial<'a>(&'a self, _: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>> {
        let (io, written) = (self.simulator.connect(), Arc::clone(&self.written));
        Box::pin(async { Ok(Box::new(Clocked { io, written, opened: false }) as BoxedIo) })
    }
}

struct Clocked {
    io: MemoryStream,
    written: Arc<Mutex<Vec<Instant>>>,
    /// Whether the WebSocket handshake was written, which is always the first write.
    opened: bool,
}

impl AsyncRead for Clocked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Clocked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        if std::mem::replace(&mut self.opened, true) && written > IDENTIFY_BYTES {
            self.written.lock().unwrap().push(now);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A bot whose shards share one key, and its simulator.
struct Storm {
    simulator: Simulator,
    clock: Clock,
    keeper: Shardkeeper,
}

impl Storm {
    async fn begin(round: &Round) -> Self {
        let simulator = round.simulator(SHARDS, |config| {
            config.max_concurrency = 1;
        });
        // A policy that restarts at once, however often something crashes.
        let mut undaunted = RestartPolicy::default();
        (undaunted.quarantine_after, undaunted.fleet_limit) = (1_000_000, 1_000_000);
        undaunted.backoff = Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(2) };
        let clock = Clock { simulator: simulator.clone(), written: Arc::default() };
        let presence = Presence::new(OnlineStatus::Online).activity(Activity::custom("long ".repeat(25)));
        let builder = round.bot(&simulator).restart_policy(undaunted).presence(presence);
        let keeper = builder.dialer(Arc::new(clock.clone())).start().await.unwrap();
        Self { simulator, clock, keeper }
    }

    async fn kill_shard(&self, shard: u32) {
        if let Ok(actor) = self.keeper.shard(ShardId(shard)).await {
            actor.kill();
        }
    }

    fn kill_queue(&self) {
        service::<QueueMessage>(&self.keeper).into_iter().for_each(|queue| queue.kill());
    }

    /// Waits until every shard is ready, and checks that every Identify was counted once and had its window.
    async fn end(self) {
        loop {
            let status = self.keeper.status().await.unwrap();
            let ready = status.shards.iter().all(|shard| shard.phase == Phase::Ready);
            if ready && self.simulator.report().ready_sessions == u64::from(SHARDS) {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        let (report, counted) = (self.simulator.report(), self.keeper.status().await.unwrap().identify);
        let written = self.clock.written.lock().unwrap().clone();
        assert_eq!(counted.sent, written.len() as u64, "{counted:?}");
        assert_eq!(counted.sent, report.identifies, "{counted:?}");
        assert_eq!(u64::from(counted.total - counted.remaining), counted.sent, "{counted:?}");
        let apart: Vec<_> = written.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(apart.iter().all(|apart| *apart >= APART), "{apart:?}");
        // GW-085, GW-140: a session that has ended is not resumed. A shard that is killed before it reads the
        // end of its session, a close code or op 9, cannot know.
        let unheard = ["GW-085", "GW-140"];
        let broken: Vec<_> =
            report.violations.iter().filter(|violation| !unheard.contains(&violation.rule)).collect();
        assert!(broken.is_empty(), "{broken:?}");
        self.keeper.stop().await;
    }
}

#[test]
fn a_storm_that_kills_shards_closes_no_key_and_miscounts_no_identify() {
    repeat(20, |round| async move {
        let storm = Storm::begin(&round).await;
        let mut random = round.rng();
        for _ in 0..15 {
            let shard = random.u32(0..SHARDS);
            // The session ends, so that the shard has to identify.
            let _ = storm.simulator.inject(shard, Fault::Close { code: 4009 });
            sleep(Duration::from_micros(random.u64(0..10_000))).await;
            storm.kill_shard(shard).await;
            round.stir().await;
            if random.bool() {
                storm.kill_shard(shard).await;
            }
        }
        storm.end().await;
    });
}

#[test]
fn a_storm_that_kills_the_queue_too_miscounts_no_identify() {
    repeat(20, |round| async move {
        let storm = Storm::begin(&round).await;
        let mut random = round.rng();
        for _ in 0..15 {
            let shard = random.u32(0..SHARDS);
            let _ = storm.simulator.inject(shard, Fault::Close { code: 4009 });
            sleep(Duration::from_micros(random.u64(0..10_000))).await;
            match random.u8(0..3) {
                0 => storm.kill_shard(shard).await,
                _ => storm.kill_queue(),
            }
        }
        storm.end().await;
    });
}
