//! A network to the simulator that can be blocked and observed.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use shardkeeper::config::{BoxedIo, Dialer};
use shardkeeper::error::ConnectError;
use shardkeeper_sim::Simulator;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::time::Instant;
use url::Url;

/// The size, in bytes, that distinguishes payloads: a Resume or a heartbeat is smaller, an Identify with a
/// presence is not.
const IDENTIFY_BYTES: usize = 250;

/// What happens to those who dial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weather {
    /// Connections reach the simulator.
    #[default]
    Fine,
    /// No name resolves.
    NoNames,
    /// Connections end as soon as they are open.
    Cut,
    /// Every HTTP request gets this answer.
    Answers(&'static str),
    /// No request is ever answered.
    Hangs,
    /// The dialer itself panics.
    Panics,
}

/// An attempt to connect.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The time of the attempt.
    pub at: Instant,
    /// The host that was dialed.
    pub host: String,
}

/// A dialer that a test controls. Clones share one network.
#[derive(Clone)]
pub struct Network {
    simulator: Simulator,
    state: Arc<Mutex<State>>,
    open: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    weather: Weather,
    latency: Duration,
    unreachable: Option<String>,
    fragile: bool,
    dials: Vec<Dial>,
}

impl Network {
    /// Creates a working network to this simulator.
    pub fn new(simulator: &Simulator) -> Self {
        Self { simulator: simulator.clone(), state: Arc::default(), open: Arc::default() }
    }

    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().expect("no test panics while holding the lock"))
    }

    /// Sets what happens to those who dial from now on. Open connections continue.
    pub fn set_weather(&self, weather: Weather) {
        self.state(|state| state.weather = weather);
    }

    /// Sets how long dialing takes from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.state(|state| state.latency = latency);
    }

    /// Makes this host unreachable from now on.
    pub fn set_unreachable(&self, host: Option<&str>) {
        self.state(|state| state.unreachable = host.map(str::to_owned));
    }

    /// Makes each stream panic after writing an Identify, which is recognised by its size.
    pub fn break_at_identify(&self) {
        self.state(|state| state.fragile = true);
    }

    /// All attempts since the last call.
    pub fn take_dials(&self) -> Vec<Dial> {
        self.state(|state| std::mem::take(&mut state.dials))
    }

    /// How many connections the dialer's side holds open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Dialer for Network {
    fn dial<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let (weather, latency, fragile) = self.state(|state| {
            let blocked = state.unreachable.as_ref() == Some(&host);
            state.dials.push(Dial { at: Instant::now(), host });
            (if blocked { Weather::NoNames } else { state.weather }, state.latency, state.fragile)
        });
        Box::pin(async move {
            tokio::time::sleep(latency).await;
            let (ours, theirs) = tokio::io::duplex(4096);
            let io: BoxedIo = match weather {
                Weather::Fine => Box::new(self.simulator.connect()),
                Weather::NoNames => {
                    let source = io::Error::new(io::ErrorKind::NotFound, "no such name");
                    return Err(ConnectError::dial(url, source));
                }
                Weather::Cut => Box::new(ours),
                Weather::Answers(answer) => {
                    tokio::spawn(reply(theirs, answer));
                    Box::new(ours)
                }
                Weather::Hangs => {
                    tokio::spawn(swallow(theirs));
                    Box::new(ours)
                }
                Weather::Panics => panic!("the dialer breaks down"),
            };
            self.open.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Watched { io, open: Arc::clone(&self.open), fragile, writes: 0 }) as BoxedIo)
        })
    }
}

async fn reply(mut peer: DuplexStream, answer: &str) {
    let mut request = [0; 4096];
    let _ = peer.read(&mut request).await;
    let _ = peer.write_all(answer.as_bytes()).await;
}

async fn swallow(mut peer: DuplexStream) {
    let mut bytes = [0; 4096];
    while peer.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

struct Watched {
    io: BoxedIo,
    open: Arc<AtomicUsize>,
    fragile: bool,
    writes: u32,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.writes += 1;
        // The first write of a connection is the WebSocket handshake, not a payload.
        assert!(
            !self.fragile || self.writes == 1 || written < IDENTIFY_BYTES,
            "the stream breaks at its Identify"
        );
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
