//! The network between the bot and Discord: it delays bytes, and can fail.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::BoxFuture;
use shardkeeper::config::{BoxedIo, Dialer};
use shardkeeper::error::ConnectError;
use shardkeeper_sim::Simulator;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use url::Url;

/// The state of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fine,
    /// Connections are refused.
    Refused,
    /// Connections are never answered.
    Hangs,
}

/// A network to the simulator. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Network {
    simulator: Simulator,
    /// The longest delay of a byte. Zero means no delay.
    latency: Duration,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    weather: Weather,
    random: Rng,
}

impl Network {
    pub(crate) fn new(simulator: Simulator, latency: Duration, seed: u64) -> Self {
        let shared = Shared { weather: Weather::Fine, random: Rng::with_seed(seed) };
        Self { simulator, latency, shared: Arc::new(Mutex::new(shared)) }
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).weather = weather;
    }

    fn look(&self) -> (Weather, Rng) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (shared.weather, shared.random.fork())
    }
}

impl Dialer for Network {
    fn dial<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>> {
        Box::pin(async {
            let (weather, mut random) = self.look();
            match weather {
                Weather::Fine if self.latency.is_zero() => Ok(Box::new(self.simulator.connect()) as BoxedIo),
                Weather::Fine => {
                    let latency = self.latency.mul_f64(random.f64());
                    tokio::time::sleep(latency).await;
                    let (near, far) = tokio::io::duplex(16 << 10);
                    let (from_bot, to_bot) = tokio::io::split(far);
                    let (from_discord, to_discord) = tokio::io::split(self.simulator.connect());
                    tokio::spawn(carry(from_bot, to_discord, latency, random.fork()));
                    tokio::spawn(carry(from_discord, to_bot, latency, random));
                    Ok(Box::new(near) as BoxedIo)
                }
                Weather::Refused => Err(ConnectError::dial(url, "nobody listens")),
                Weather::Hangs => std::future::pending().await,
            }
        })
    }
}

/// How many pieces may be in transit in one direction; then the sender waits.
const UNDER_WAY: usize = 64;

/// Carries bytes in one direction until either end is closed. Each piece takes from half of the latency to
/// all of it, and none overtakes another.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    latency: Duration,
    mut random: Rng,
) {
    let mut bytes = vec![0; random.usize(64..16_384)];
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut last = Instant::now();
    let mut open = true;
    while open || !under_way.is_empty() {
        let arrives = under_way.front().map_or(last, |(at, _)| *at);
        tokio::select! {
            biased;
            () = sleep_until(arrives), if !under_way.is_empty() => {
                let Some((_, piece)) = under_way.pop_front() else { continue };
                if to.write_all(&piece).await.is_err() {
                    return;
                }
            }
            read = from.read(&mut bytes), if open && under_way.len() < UNDER_WAY => match read {
                Ok(read @ 1..) => {
                    last = last.max(Instant::now() + latency.mul_f64(0.5 + 0.5 * random.f64()));
                    under_way.push_back((last, bytes[..read].to_vec()));
                }
                Ok(0) | Err(_) => open = false,
            },
        }
    }
    let _ = to.shutdown().await;
}
