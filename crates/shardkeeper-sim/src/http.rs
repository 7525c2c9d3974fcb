//! The port of the simulator: HTTP connections, and their upgrade to the Gateway.

use std::io;
use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONNECTION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::connection::{self, Opening};
use crate::discord::{Discord, Slot};
use crate::fault::ConnectFault;
use crate::host::Host;
use crate::judgement;
use crate::memory::Arrival;
use crate::odd::Odd;
use crate::rest::{self, REQUEST_TIMEOUT, Refused, Reply, reply};
use crate::tls::Acceptor;
use crate::wire::Query;

/// The largest head of a request. Clients of Discord send a few hundred bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// The pause when no connection can be accepted. Without free file handles, the next attempt would fail at
/// once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the simulator is shut down.
pub(crate) async fn listen(listener: TcpListener, acceptor: Acceptor, discord: Arc<Discord>) {
    let mut over = discord.over.subscribe();
    let take = |stream: TcpStream| {
        let Some(slot) = discord.admit() else { return };
        let _ = stream.set_nodelay(true);
        let (acceptor, discord) = (acceptor.clone(), Arc::clone(&discord));
        tokio::spawn(async move {
            let accepting = tokio::time::timeout(REQUEST_TIMEOUT, acceptor.accept(stream));
            if let Ok(Some(stream)) = accepting.await {
                serve(stream, Arrival::default(), discord, slot).await;
            }
        });
    };
    tokio::select! {
        () = accept_all(|| listener.accept(), |(stream, _)| take(stream)) => {}
        () = ended(&mut over) => {}
    }
}

/// Accepts connections forever. Pauses when this process has no resources for more.
async fn accept_all<S, F: Future<Output = io::Result<S>>>(accept: impl Fn() -> F, take: impl Fn(S)) {
    let mut failing = false;
    loop {
        match accept().await {
            Ok(stream) => {
                failing = false;
                take(stream);
            }
            // The client was gone before it was accepted.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) => {}
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot accept connections; trying again every 100 ms");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection until its end.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    arrival: Arrival,
    discord: Arc<Discord>,
    slot: Slot,
) {
    let mut over = discord.over.subscribe();
    let service =
        service_fn(move |request| answer(request, arrival.clone(), Arc::clone(&discord), Arc::clone(&slot)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        // Errors of HTTP are the client's, or a fault was asked for.
        _ = connection.with_upgrades() => {}
        () = ended(&mut over) => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    arrival: Arrival,
    discord: Arc<Discord>,
    slot: Slot,
) -> Result<Reply, Refused> {
    let headers = request.headers();
    if headers.contains_key(SEC_WEBSOCKET_KEY) || names(headers, &UPGRADE, "websocket") {
        upgrade(request, arrival, discord, slot).await
    } else {
        rest::answer(request, discord).await
    }
}

/// Whether a header with a list of tokens contains this one.
fn names(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.split(',').any(|named| named.trim().eq_ignore_ascii_case(token)))
}

/// The first thing that RFC 6455 (section 4.2.1) demands of a handshake and this one lacks, with the status
/// of the answer.
fn wrong_handshake(request: &Request<Incoming>) -> Option<(StatusCode, &'static str)> {
    let headers = request.headers();
    let is_key = |key: &HeaderValue| {
        let key = key.as_bytes();
        key.len() == 24
            && key.ends_with(b"==")
            && key[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
    };
    if request.method() != Method::GET {
        Some((StatusCode::METHOD_NOT_ALLOWED, "a WebSocket handshake whose method is not GET"))
    } else if request.version() < Version::HTTP_11 {
        Some((StatusCode::BAD_REQUEST, "a WebSocket handshake in a version of HTTP before 1.1"))
    } else if !names(headers, &UPGRADE, "websocket") {
        Some((StatusCode::BAD_REQUEST, "a WebSocket handshake without Upgrade: websocket"))
    } else if !names(headers, &CONNECTION, "upgrade") {
        Some((StatusCode::BAD_REQUEST, "a WebSocket handshake without Connection: Upgrade"))
    } else if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        Some((StatusCode::UPGRADE_REQUIRED, "a WebSocket handshake whose Sec-WebSocket-Version is not 13"))
    } else if !headers.get(SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        Some((
            StatusCode::BAD_REQUEST,
            "a WebSocket handshake whose Sec-WebSocket-Key is not 16 bytes in base64",
        ))
    } else {
        None
    }
}

/// Waits until the simulator is shut down.
async fn ended(over: &mut watch::Receiver<bool>) {
    let _ = over.wait_for(|over| *over).await;
}

async fn upgrade(
    mut request: Request<Incoming>,
    arrival: Arrival,
    discord: Arc<Discord>,
    slot: Slot,
) -> Result<Reply, Refused> {
    if let Some((status, detail)) = wrong_handshake(&request) {
        discord.judge(judgement::BAD_HANDSHAKE, None, detail);
        let mut refused = reply(status, &json!({"message": detail, "code": 0}));
        // RFC 9110 demands the first header with 405, and RFC 6455 the second with 426.
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        refused.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Ok(refused);
    }
    let host = Host::of(request.uri().path());
    let fault = {
        let mut state = discord.state();
        state.report.connections += 1;
        let fault = state.faults.take_connect(host);
        discord.changed(state);
        fault
    };
    match fault {
        Some(ConnectFault::Refuse) => return Err(Refused),
        Some(ConnectFault::Hang) => return std::future::pending().await,
        Some(ConnectFault::Status { status }) => {
            let mut page = Response::new(Full::from("<html>something is wrong here</html>"));
            *page.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            return Ok(page);
        }
        Some(ConnectFault::RetryLater { status, seconds }) => {
            let mut page = Response::new(Full::default());
            *page.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            page.headers_mut().insert(RETRY_AFTER, seconds.into());
            return Ok(page);
        }
        _ => {}
    }
    let Some(query) = Query::parse(request.uri().query().unwrap_or_default()) else {
        return Ok(reply(StatusCode::BAD_REQUEST, &json!({"message": "400: Bad Request", "code": 0})));
    };
    let opening = Opening { query, host, fault, arrival };
    let accept = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = accept.and_then(|accept| HeaderValue::from_str(&accept).ok()).ok_or(Refused)?;
    let upgraded = hyper::upgrade::on(&mut request);
    let over = discord.over.subscribe();
    tokio::spawn(async move {
        let mut over = over;
        let _slot = slot;
        if let Ok(upgraded) = upgraded.await {
            tokio::select! {
                biased;
                () = connection::serve(TokioIo::new(upgraded), opening, discord) => {}
                () = ended(&mut over) => {}
            }
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let connection = match fault {
        Some(ConnectFault::Odd(Odd::KeepAliveUpgrade)) => "keep-alive, Upgrade",
        _ => "Upgrade",
    };
    headers.insert(CONNECTION, HeaderValue::from_static(connection));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_file_handles_it_tries_ten_times_a_second_and_no_more() {
        let (tries, taken) = (Cell::new(0), Cell::new(0));
        let accept = || {
            tries.set(tries.get() + 1);
            // EMFILE for ten seconds, and then one connection.
            let result = match tries.get() {
                1..=100 => Err(io::Error::from_raw_os_error(24)),
                101 => Ok(()),
                _ => Err(io::Error::from_raw_os_error(24)),
            };
            std::future::ready(result)
        };
        let accepting = accept_all(accept, |()| taken.set(taken.get() + 1));
        assert!(tokio::time::timeout(Duration::from_secs(20), accepting).await.is_err(), "it goes on");
        assert_eq!(taken.get(), 1);
        assert!((200..=202).contains(&tries.get()), "{}", tries.get());
    }
}
