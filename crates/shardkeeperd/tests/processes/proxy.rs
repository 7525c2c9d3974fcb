//! A network between client and simulator that can be made to fail.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The state of the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Network {
    /// The network works.
    Clear,
    /// New connections end at once; open ones continue.
    Refusing,
    /// Each transfer is delayed by this time, in either direction.
    Slow(Duration),
    /// Bytes are accepted and discarded. A connection that lost bytes in this state never works again.
    Void,
    /// Every nth byte on the way to the client is changed.
    Corrupting(usize),
}

/// A TCP proxy on the loopback interface.
pub(crate) struct Proxy {
    network: watch::Sender<Network>,
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// Forwards all connections to `upstream`.
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

    /// Sets the state of the network from now on.
    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Ends all open connections.
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
        // The proxy was dropped, or cuts this connection.
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
    // A side whose peer's bytes were discarded must not see the end of the connection either.
    if swallowed {
        std::future::pending::<()>().await;
    }
}
