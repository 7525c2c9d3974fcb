//! What lies between the bot and Discord: it takes time, and can be out of order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::BoxFuture;
use shardkeeper::{BoxedIo, ConnectError, Dialer};
use shardkeeper_sim::Simulator;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::Url;

/// What the way to Discord is like now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fine,
    /// Nobody listens.
    Refused,
    /// Packets go into the void.
    Hangs,
}

/// A way to the simulator. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Network {
    simulator: Simulator,
    /// The longest time that a byte may be under way. None: no time at all.
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

    fn look(&self) -> (Weather, f64, usize) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (shared.weather, shared.random.f64(), shared.random.usize(4096..16_384))
    }
}

impl Dialer for Network {
    fn dial<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>> {
        Box::pin(async {
            let (weather, part, chunk) = self.look();
            match weather {
                Weather::Fine if self.latency.is_zero() => Ok(Box::new(self.simulator.connect()) as BoxedIo),
                Weather::Fine => {
                    let latency = self.latency.mul_f64(part);
                    tokio::time::sleep(latency).await;
                    let (near, far) = tokio::io::duplex(16 << 10);
                    let (from_bot, to_bot) = tokio::io::split(far);
                    let (from_discord, to_discord) = tokio::io::split(self.simulator.connect());
                    tokio::spawn(carry(from_bot, to_discord, latency, chunk));
                    tokio::spawn(carry(from_discord, to_bot, latency, chunk));
                    Ok(Box::new(near) as BoxedIo)
                }
                Weather::Refused => Err(ConnectError::dial(url, "nobody listens")),
                Weather::Hangs => std::future::pending().await,
            }
        })
    }
}

/// Carries bytes one way, in pieces of any size, until either end is gone.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    latency: Duration,
    chunk: usize,
) {
    let mut bytes = vec![0; chunk];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        tokio::time::sleep(latency).await;
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
