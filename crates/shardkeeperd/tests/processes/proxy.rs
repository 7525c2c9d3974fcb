//! A network between client and simulator that can be made to fail.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What the network is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Network {
    /// As it should be.
    Clear,
    /// New connections end at once; those that are there stay.
    Refusing,
    /// Each byte takes so long, in either direction.
    Slow(Duration),
    /// What is sent is accepted and goes nowhere. A connection that was met by this never lives again.
    Void,
    /// One byte of so many that go to the client is another one.
    Corrupting(usize),
}

/// A TCP proxy on the loopback.
pub(crate) struct Proxy {
    network: watch::Sender<Network>,
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// Passes everything that comes on to `upstream`.
    pub(crate) fn start(listener: TcpListener, upstream: SocketAddr) -> Self {
        let (network, cuts) = (watch::Sender::new(Network::Clear), watch::Sender::new(0));
        let (weather, cut) = (network.subscribe(), cuts.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *weather.borrow() != Network::Refusing {
                    tokio::spawn(pass(client, upstream, weather.clone(), cut.clone()));
                }
            }
        });
        Self { network, cuts }
    }

    /// From now on the network is like this.
    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Ends every connection there is.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn pass(
    client: TcpStream,
    upstream: SocketAddr,
    network: watch::Receiver<Network>,
    mut cut: watch::Receiver<u64>,
) {
    cut.mark_unchanged();
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = one_way(from_client, to_server, network.clone(), false) => {}
        () = one_way(from_server, to_client, network, true) => {}
        // The proxy is gone, or wants this connection to be.
        _ = cut.changed() => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    network: watch::Receiver<Network>,
    downstream: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    let (mut passed, mut swallowed) = (0, false);
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &mut buffer[..length];
        let now = *network.borrow();
        match now {
            Network::Void => swallowed = true,
            Network::Slow(delay) => sleep_until(Instant::now() + delay).await,
            Network::Corrupting(every) if downstream => {
                let first = (every - passed % every) % every;
                bytes.iter_mut().skip(first).step_by(every).for_each(|byte| *byte ^= 0x55);
                passed += length;
            }
            _ => {}
        }
        if !swallowed && to.write_all(bytes).await.is_err() {
            return;
        }
    }
    // Whoever does not get what is sent does not hear of its end either.
    if swallowed {
        std::future::pending::<()>().await;
    }
}
