//! From a URL to a connection, and every way in which that fails.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;

use common::{config, flushed, message, url};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use shardkeeper_transport::{
    BoxedIo, Compression, ConnectError, Connection, Connector, Dialer, Event, HandshakeError, Phase, Reading,
    TcpDialer, TransportConfig,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use url::Url;

/// Returns one in-memory stream, after a delay.
struct OneStream {
    stream: Mutex<Option<DuplexStream>>,
    delay: Duration,
}

impl OneStream {
    fn new(delay: Duration) -> (Self, DuplexStream) {
        let (client, server) = tokio::io::duplex(4096);
        (Self { stream: Mutex::new(Some(client)), delay }, server)
    }
}

impl Dialer for OneStream {
    fn dial<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>> {
        Box::pin(async move {
            sleep(self.delay).await;
            match self.stream.lock().unwrap().take() {
                Some(stream) => Ok(Box::new(stream) as BoxedIo),
                None => Err(ConnectError::dial(url, "no more streams")),
            }
        })
    }
}

/// The error of a connect whose peer reads the request, answers with these bytes and closes the stream.
async fn answered_with(answer: &[u8]) -> ConnectError {
    let (client, mut server) = tokio::io::duplex(4096);
    let peer = async {
        let mut request = [0; 4096];
        let length = server.read(&mut request).await.unwrap();
        assert!(length > 0);
        let _ = server.write_all(answer).await;
        drop(server);
    };
    let url = url();
    let config = TransportConfig::default();
    let (connected, ()) = tokio::join!(Connection::from_io(client, &url, &config), peer);
    let error = connected.unwrap_err();
    // Neither the message nor a source shows anything of the URL except host and port, or anything of the
    // answer's body.
    let mut shown = format!("{error:?}");
    let mut source: Option<&dyn Error> = Some(&error);
    while let Some(error) = source {
        shown += &format!(" {error}");
        source = error.source();
    }
    assert!(shown.contains("gateway.test:80"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!error.to_string().ends_with('.'));
    error
}

#[tokio::test(start_paused = true)]
async fn a_connector_dials_and_upgrades() {
    let (dialer, server) = OneStream::new(Duration::from_secs(1));
    let connector = Connector::new(dialer, TransportConfig::default());
    let url = url();
    let (connection, server) = tokio::join!(connector.connect(&url), accept_async(server));
    let (mut connection, mut server) = (connection.unwrap(), server.unwrap());
    server.send(Message::text("{}")).await.unwrap();
    assert_eq!(message(&mut connection).await, b"{}");

    let error = connector.connect(&url).await.unwrap_err();
    assert!(matches!(error, ConnectError::Dial { .. }));
    assert_eq!(error.source().unwrap().to_string(), "no more streams");
    assert!(error.is_retryable());
}

/// The peer receives a proper request for a URL of scheme `http`, and its first message arrives in the same
/// packet as the answer.
#[tokio::test(start_paused = true)]
async fn the_request_and_a_message_right_behind_the_answer() {
    let (client, mut server) = tokio::io::duplex(4096);
    let peer = async {
        let mut request = vec![0; 4096];
        let length = server.read(&mut request).await.unwrap();
        let request = String::from_utf8(request[..length].to_vec()).unwrap();
        assert!(request.starts_with("GET /?v=10&encoding=json HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nHost: localhost:7000\r\n"), "{request}");
        let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n\u{1}\u{2}{{\"\0\u{3}:1}}",
            derive_accept_key(key.as_bytes())
        );
        let mut answer = answer.into_bytes();
        let last = answer.len() - 5;
        answer[last] = 0x80;
        server.write_all(&answer).await.unwrap();
        server
    };
    let url = "http://localhost:7000/?v=10&encoding=json".parse().unwrap();
    let config = TransportConfig::default();
    let (connection, _server) = tokio::join!(Connection::from_io(client, &url, &config), peer);
    assert_eq!(message(&mut connection.unwrap()).await, b"{\":1}");
}

/// Connects to a peer that answers with these headers; returns its request and the result.
async fn answered_with_headers(
    config: &TransportConfig,
    headers: &str,
) -> (String, Result<Connection, ConnectError>) {
    let (client, mut server) = tokio::io::duplex(4096);
    let peer = async {
        let mut request = vec![0; 4096];
        let length = server.read(&mut request).await.unwrap();
        let request = String::from_utf8(request[..length].to_vec()).unwrap();
        let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: {accept}\r\n{headers}\r\n");
        server.write_all(answer.as_bytes()).await.unwrap();
        request
    };
    let url = url();
    let (connection, request) = tokio::join!(Connection::from_io(client, &url, config), peer);
    (request, connection)
}

#[tokio::test(start_paused = true)]
async fn the_headers_of_an_answer_may_be_lists() {
    let config = TransportConfig::default();
    for headers in [
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
        "connection: UPGRADE\r\nupgrade: WebSocket\r\n",
        "Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n",
        "Connection: Upgrade,keep-alive\r\nUpgrade: websocket\r\nVia: 1.1 proxy\r\n",
    ] {
        let (_, connection) = answered_with_headers(&config, headers).await;
        assert!(connection.is_ok(), "{headers}: {connection:?}");
    }
    for headers in [
        "Connection: keep-alive\r\nUpgrade: websocket\r\n",
        "Connection: upgrades\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: web, socket\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\n",
    ] {
        let (_, connection) = answered_with_headers(&config, headers).await;
        let error = connection.unwrap_err();
        let misbehaved =
            matches!(error, ConnectError::Handshake { source: HandshakeError::Misbehaved(_), .. });
        assert!(misbehaved, "{headers}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_user_agent_is_sent() {
    let mut config = TransportConfig::default();
    let answer = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let (request, _) = answered_with_headers(&config, answer).await;
    assert!(!request.to_lowercase().contains("user-agent"), "{request}");
    config.user_agent = Some("DiscordBot (https://example, 1)".to_owned());
    let (request, _) = answered_with_headers(&config, answer).await;
    assert!(
        request.to_lowercase().contains("\r\nuser-agent: discordbot (https://example, 1)\r\n"),
        "{request}"
    );
    config.user_agent = Some("two\r\nlines".to_owned());
    let (client, _server) = tokio::io::duplex(4096);
    let error = Connection::from_io(client, &url(), &config).await.unwrap_err();
    assert!(matches!(error, ConnectError::InvalidUserAgent), "{error:?}");
    assert!(!error.is_retryable());
}

/// Headers that arrive byte by byte are read, up to a limit.
#[tokio::test(start_paused = true)]
async fn an_answer_that_drips() {
    for (fill, taken) in [(100, true), (2000, false)] {
        let (client, mut server) = tokio::io::duplex(1);
        let peer = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(server.read_u8().await.unwrap());
            }
            let answer = format!("HTTP/1.1 503 x\r\nX: {}\r\n\r\n", "y".repeat(fill));
            let _ = server.write_all(answer.as_bytes()).await;
        });
        let error = Connection::from_io(client, &url(), &TransportConfig::default()).await.unwrap_err();
        assert_eq!(error.status().is_some(), taken, "{error:?}");
        assert_eq!(matches!(error, ConnectError::Handshake { source: HandshakeError::TooLarge, .. }), !taken);
        peer.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing() {
    let (dialer, _server) = OneStream::new(Duration::from_secs(6));
    let started = Instant::now();
    let error = Connector::new(dialer, TransportConfig::default()).connect(&url()).await.unwrap_err();
    // The limit applies to the whole connect, so the six seconds of the dial count.
    assert_eq!(started.elapsed(), Duration::from_secs(10));
    let ConnectError::Timeout { phase: Phase::Upgrade, after, .. } = error else { panic!("{error:?}") };
    assert_eq!(after, Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_dialer_that_hangs() {
    let (dialer, _server) = OneStream::new(Duration::MAX);
    let mut config = TransportConfig::default();
    config.connect_timeout = Duration::from_secs(3);
    let started = Instant::now();
    let error = Connector::new(dialer, config).connect(&url()).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::from_secs(3));
    assert!(matches!(error, ConnectError::Timeout { phase: Phase::Dial, .. }), "{error:?}");
    assert!(error.to_string().contains("gateway.test:80 within 3s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connect_closes_the_stream() {
    let (dialer, mut server) = OneStream::new(Duration::ZERO);
    let connector = Connector::new(dialer, TransportConfig::default());
    assert!(timeout(Duration::from_secs(1), connector.connect(&url())).await.is_err());
    let mut request = Vec::new();
    server.read_to_end(&mut request).await.unwrap();
    assert!(request.starts_with(b"GET "));
}

#[tokio::test(start_paused = true)]
async fn schemes_that_are_none() {
    let (dialer, _server) = OneStream::new(Duration::ZERO);
    let connector = Connector::new(dialer, TransportConfig::default());
    for url in ["ftp://gateway.test/", "file:///etc/hosts", "mailto:a@b.c"] {
        let error = connector.connect(&url.parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, ConnectError::UnsupportedScheme { .. }), "{error:?}");
        assert!(!error.is_retryable());
    }
}

/// GW-011: a discontinued version is answered with HTTP 400; proxies in front of a gateway send other
/// statuses. A redirect counts as a refusal too.
#[tokio::test(start_paused = true)]
async fn http_statuses() {
    for status in [200, 301, 302, 400, 403, 429, 503] {
        let answer = format!(
            "HTTP/1.1 {status} Some Reason\r\nLocation: ws://elsewhere/\r\nContent-Length: 7\r\n\r\nhunter2"
        );
        let error = answered_with(answer.as_bytes()).await;
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
        assert_eq!(error.status(), Some(status));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_how_long_to_wait() {
    let seconds = |seconds: f64| Some(Duration::from_secs_f64(seconds));
    for (header, expected) in [
        ("", None),
        ("Retry-After: 30\r\n", seconds(30.0)),
        ("retry-after:  0.65 \r\n", seconds(0.65)),
        ("Retry-After: 86400\r\n", seconds(86400.0)),
        ("Retry-After: -1\r\n", None),
        ("Retry-After: inf\r\n", None),
        ("Retry-After: 1e300\r\n", None),
        ("Retry-After: soon\r\n", None),
        ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", None),
    ] {
        let answer = format!("HTTP/1.1 503 Busy\r\n{header}Content-Length: 0\r\n\r\n");
        let error = answered_with(answer.as_bytes()).await;
        assert_eq!((error.status(), error.retry_after()), (Some(503), expected), "{header}");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_no_handshake() {
    let answers: &[(&str, &[u8])] = &[
        ("garbage", b"\x15\x03\x01\x00\x02\x02\x46 and so on hunter2"),
        ("http 1.0", b"HTTP/1.0 101 x\r\n\r\n"),
        ("no upgrade", b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\n\r\n"),
        (
            "wrong key",
            b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: hunter2\r\n\r\n",
        ),
    ];
    for (what, answer) in answers {
        let error = answered_with(answer).await;
        let ConnectError::Handshake { source: HandshakeError::Misbehaved(rule), .. } = error else {
            panic!("{what}: {error:?}");
        };
        assert!(rule.to_string().starts_with(|c: char| !c.is_uppercase()), "{rule}");
    }
    for answer in [&b""[..], b"HTTP/1.1 101 x\r\nConnection: Upg"] {
        let error = answered_with(answer).await;
        assert!(
            matches!(error, ConnectError::Handshake { source: HandshakeError::Disconnected, .. }),
            "{error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_end() {
    let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
    for i in 0..200 {
        answer.extend(format!("X-{i}: {}\r\n", "y".repeat(500)).bytes());
    }
    let error = answered_with(&answer).await;
    assert!(matches!(error, ConnectError::Handshake { source: HandshakeError::TooLarge, .. }), "{error:?}");
}

/// Real sockets need a real clock; nothing in this test waits for it.
#[tokio::test]
async fn over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("ws://localhost:{}/?v=10", listener.local_addr().unwrap().port()).parse().unwrap();
    let server = tokio::spawn(async move {
        let mut server = accept_async(listener.accept().await.unwrap().0).await.unwrap();
        for frame in common::samples::deflate(&["hello", "again"]) {
            server.send(Message::binary(frame)).await.unwrap();
        }
        assert_eq!(server.next().await.unwrap().unwrap(), Message::text("heartbeat"));
        assert!(server.next().await.unwrap().unwrap().is_close());
        let _ = server.next().await;
    });
    let connector = Connector::new(TcpDialer::new(), config(Compression::ZlibStream));
    let mut connection = connector.connect(&url).await.unwrap();
    assert_eq!(message(&mut connection).await, b"hello");
    connection.enqueue("heartbeat").unwrap();
    flushed(&mut connection, Reading::On).await;
    assert_eq!(message(&mut connection).await, b"again");
    connection.enqueue_close(4900, "done").unwrap();
    flushed(&mut connection, Reading::On).await;
    let Event::Closed(closed) = connection.next(Reading::On).await else { panic!("not closed") };
    assert_eq!(closed.code, Some(4900));
    server.await.unwrap();
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("wss://{}/", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let connector = Connector::new(TcpDialer::new(), TransportConfig::default());
    let error = connector.connect(&url).await.unwrap_err();
    let ConnectError::Tcp { source, peer } = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(peer, format!("127.0.0.1:{}", url.port().unwrap()));
}

#[tokio::test]
async fn names_that_do_not_resolve() {
    let connector = Connector::new(TcpDialer::new(), TransportConfig::default());
    let error = connector.connect(&"ws://does-not-exist.invalid/".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error:?}");
}
