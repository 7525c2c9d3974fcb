//! Scenarios in real time on several threads, many times over.
//!
//! The other tests run on one thread and a paused clock, where two racing messages always arrive in the same
//! order. [`repeat`] runs a scenario in *rounds*: each on its own multi-thread runtime, in real time. A
//! round's seed determines the number of threads (1 to 4), how much noise competes for them, and where the
//! scenario and its connections yield. Threads do not run the same way twice, so a seed makes a failure more
//! likely but does not replay it: `RACES_SEED` runs all rounds of a test with the seed that failed.
//!
//! ```no_run
//! use shardkeeper_tests::races::repeat;
//!
//! // In a `#[test]` function, without a runtime of its own.
//! repeat(200, |round| async move {
//!     let simulator = round.simulator(4, |config| config.max_concurrency = 2);
//!     let keeper = round.bot(&simulator).start().await.unwrap();
//!     round.stir().await; // Waits for a moment that the seed decides.
//!     keeper.stop().await;
//!     assert_eq!(simulator.report().violations, []);
//! });
//! ```
//!
//! - [`Round::simulator`] and [`Round::bot`] are like [`simulator`](crate::simulator) and
//!   [`bot`](crate::bot), with time compressed ([`FACTOR`]). Only waits are compressed: a heartbeat that a
//!   busy machine delays breaks no rule.
//! - [`Round::stirred`] wraps any [`Dialer`] so that its connections yield at random.
//! - A round that takes longer than [`PATIENCE`] has failed, because something hangs.
//! - `RACES_REPEAT=20` runs 20 times as many rounds. The default is for CI: about 40 s for all of them on two
//!   busy cores.
//! - For scenarios that run on their own runtime (a seed of `chaos`, for example), [`rounds`] yields the
//!   rounds, and [`Round::run`] runs one future in one of them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use shardkeeper::config::{BoxedIo, Dialer, Timings};
use shardkeeper::error::ConnectError;
use shardkeeper::{Builder, Intents};
use shardkeeper_sim::{SimConfig, SimTimings, Simulator};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::SimDialer;

/// The factor by which the windows and waits of the protocol are shortened.
pub const FACTOR: f64 = 200.0;
/// The time limit of a round, after which it counts as hanging. A round takes milliseconds; the rest is for a
/// busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Added to the compressed identify window, for scheduling delays of a busy machine.
const IDENTIFY_MARGIN: Duration = Duration::from_millis(25);

/// A single run of a scenario. Clones belong to the same round.
#[derive(Clone, Debug)]
pub struct Round {
    /// The seed that determines the round.
    pub seed: u64,
    /// The number of threads of the runtime.
    pub threads: usize,
    noise: usize,
    random: Arc<Mutex<fastrand::Rng>>,
}

/// Runs a scenario this many times, or `RACES_REPEAT` times as often.
///
/// # Panics
///
/// When a round panics or hangs. The output names the round's seed and how to run it again.
#[expect(clippy::print_stdout, reason = "with --nocapture it says what was run")]
pub fn repeat<F: Future<Output = ()> + Send + 'static>(times: u64, scenario: impl Fn(Round) -> F) {
    let (start, mut done) = (Instant::now(), 0);
    for round in rounds(times) {
        round.run(scenario(round.clone()));
        done += 1;
    }
    println!("{done} rounds in {:.1?}", start.elapsed());
}

/// The same as [`repeat`], with several rounds at the same time: for scenarios that wait most of the time.
///
/// # Panics
///
/// When a round panics or hangs.
#[expect(clippy::print_stdout, reason = "with --nocapture it says what was run")]
pub fn repeat_in_lanes<F: Future<Output = ()> + Send + 'static>(
    times: u64,
    lanes: usize,
    scenario: impl Fn(Round) -> F + Sync,
) {
    let (start, rounds) = (Instant::now(), Mutex::new(rounds(times)));
    let next = || rounds.lock().unwrap_or_else(PoisonError::into_inner).next();
    let lane = || std::iter::from_fn(next).map(|round| round.run(scenario(round.clone()))).count();
    let done: usize = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().map(|lane| lane.join().expect("each round passes")).sum()
    });
    println!("{done} rounds in {:.1?}", start.elapsed());
}

/// The rounds of a test: `times` of them, multiplied by `RACES_REPEAT`; all with the seed `RACES_SEED`, if
/// set.
pub fn rounds(times: u64) -> impl Iterator<Item = Round> {
    let variable = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let only = variable("RACES_SEED");
    (0..times * variable("RACES_REPEAT").unwrap_or(1)).map(move |number| Round::new(only.unwrap_or(number)))
}

impl Round {
    /// Creates the round of this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (threads, noise) = (random.usize(1..=4), random.usize(0..=2));
        Self { seed, threads, noise, random: Arc::new(Mutex::new(random)) }
    }

    /// Runs a future in this round's runtime and returns its output.
    ///
    /// # Panics
    ///
    /// When the future panics or hangs.
    pub fn run<T: Send + 'static>(&self, scenario: impl Future<Output = T> + Send + 'static) -> T {
        self.run_within(PATIENCE, scenario)
    }

    /// The same as [`run`](Self::run), with another time limit.
    ///
    /// # Panics
    ///
    /// When the future panics or exceeds the time limit.
    #[expect(clippy::print_stderr, reason = "whoever looks for the cause reads it")]
    pub fn run_within<T: Send + 'static>(
        &self,
        patience: Duration,
        scenario: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.threads)
            .enable_all()
            .build()
            .expect("the runtime starts its threads");
        let done = runtime.block_on(async {
            for _ in 0..self.noise {
                tokio::spawn(noise(self.rng()));
            }
            timeout(patience, tokio::spawn(scenario)).await
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        if let Ok(Ok(output)) = done {
            return output;
        }
        let Self { seed, threads, .. } = self;
        eprintln!(
            "the round of seed {seed} ({threads} threads) failed; to run more like it: RACES_SEED={seed}"
        );
        match done {
            Ok(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => panic!("seed {seed}: hangs"),
        }
    }

    /// A random generator that continues this round's decisions.
    pub fn rng(&self) -> fastrand::Rng {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }

    /// Waits for a random moment: not at all, until other tasks had a turn, or up to a millisecond.
    pub async fn stir(&self) {
        stir(&mut self.rng()).await;
    }

    /// The same as [`simulator`](crate::simulator), with time compressed.
    pub fn simulator(&self, shards: u32, configure: impl FnOnce(&mut SimConfig)) -> Simulator {
        crate::simulator_of(shards, |config| {
            config.seed = self.seed;
            let patient = SimTimings::default();
            config.timings = patient.compressed(FACTOR);
            config.timings.heartbeat_interval = patient.heartbeat_interval;
            config.timings.heartbeat_tolerance = patient.heartbeat_tolerance;
            config.timings.session_lifetime = patient.session_lifetime;
            config.timings.reconnect_grace = patient.reconnect_grace;
            configure(config);
        })
    }

    /// A bot for this simulator with the same compressed time, which receives everything.
    pub fn bot(&self, simulator: &Simulator) -> Builder {
        self.bot_with(simulator, Intents::all())
    }

    /// A bot for this simulator with the same compressed time, which receives the events of these intents.
    pub fn bot_with(&self, simulator: &Simulator, intents: Intents) -> Builder {
        let patient = Timings::default();
        let mut timings = patient.compressed(FACTOR);
        timings.identify_margin = IDENTIFY_MARGIN;
        (timings.hello, timings.ready, timings.resumed) = (patient.hello, patient.ready, patient.resumed);
        timings.requeue = patient.requeue;
        crate::bot_of(simulator, intents)
            .timings(timings)
            .seed(self.seed)
            .dialer(self.stirred(SimDialer(simulator.clone())))
    }

    /// Wraps a dialer so that every read and write may be delayed for a moment.
    pub fn stirred(&self, dialer: impl Dialer + 'static) -> Arc<dyn Dialer> {
        Arc::new(StirredDialer { dialer, round: self.clone() })
    }
}

async fn stir(random: &mut fastrand::Rng) {
    match random.u8(0..4) {
        0 => {}
        1 | 2 => {
            for _ in 0..random.u8(1..20) {
                tokio::task::yield_now().await;
            }
        }
        _ => sleep(Duration::from_micros(random.u64(0..1000))).await,
    }
}

/// Keeps threads busy now and then, until the round is over.
async fn noise(mut random: fastrand::Rng) {
    loop {
        stir(&mut random).await;
        for _ in 0..random.u32(0..20_000) {
            std::hint::spin_loop();
        }
        sleep(Duration::from_micros(200)).await;
    }
}

struct StirredDialer<D> {
    dialer: D,
    round: Round,
}

impl<D: Dialer> Dialer for StirredDialer<D> {
    fn dial<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>> {
        Box::pin(async move {
            self.round.stir().await;
            let io = self.dialer.dial(url).await?;
            Ok(Box::new(Stirred { io, random: self.round.rng() }) as BoxedIo)
        })
    }
}

struct Stirred {
    io: BoxedIo,
    random: fastrand::Rng,
}

impl Stirred {
    /// Whether the caller has to yield and be polled again.
    fn yields(&mut self, cx: &Context<'_>) -> bool {
        let yields = self.random.u8(0..6) == 0;
        if yields {
            cx.waker().wake_by_ref();
        }
        yields
    }
}

impl AsyncRead for Stirred {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.yields(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stirred {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.yields(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
