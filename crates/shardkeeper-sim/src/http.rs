//! The one port: REST, and the upgrade to the Gateway.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::connection::{self, Mode};
use crate::discord::{Discord, RESUME_PATH};
use crate::fault::{ConnectFault, RestFault};

/// The connection is to end without an answer.
#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

pub(crate) async fn listen(listener: TcpListener, discord: Arc<Discord>) {
    let mut over = discord.over.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A client that is gone before it was accepted, or no file handle left: the next one may do better.
                let Ok((stream, _)) = accepted else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, Arc::clone(&discord)));
            }
            () = ended(&mut over) => return,
        }
    }
}

pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    discord: Arc<Discord>,
) {
    let mut over = discord.over.subscribe();
    let service = service_fn(move |request| answer(request, Arc::clone(&discord)));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A client that breaks HTTP, or whom we refuse, is no concern of anybody.
        _ = connection.with_upgrades() => {}
        () = ended(&mut over) => {}
    }
}

async fn answer(request: Request<Incoming>, discord: Arc<Discord>) -> Result<Response<Full<Bytes>>, Refused> {
    if request.headers().contains_key(SEC_WEBSOCKET_KEY) {
        return upgrade(request, discord).await;
    }
    match discord.take_rest_fault() {
        Some(RestFault::Status(status)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(reply(status, &json!({})));
        }
        Some(RestFault::Hang) => return std::future::pending().await,
        Some(RestFault::Garbage) => return Ok(Response::new(Full::from("<html>it works</html>"))),
        None => {}
    }
    Ok(rest(&request, &discord))
}

/// Waits for the simulator's end.
async fn ended(over: &mut watch::Receiver<bool>) {
    let _ = over.wait_for(|over| *over).await;
}

fn rest(request: &Request<Incoming>, discord: &Discord) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let path =
        ["/api/v10", "/api/v9", "/api"].iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
    match (request.method(), path) {
        (&Method::GET, "/gateway") => reply(StatusCode::OK, &json!({"url": discord.gateway_url()})),
        (&Method::GET, "/gateway/bot") => {
            let expected = format!("Bot {}", discord.config.token);
            if request
                .headers()
                .get(AUTHORIZATION)
                .is_some_and(|value| value.as_bytes() == expected.as_bytes())
            {
                reply(StatusCode::OK, &discord.gateway_bot())
            } else {
                reply(StatusCode::UNAUTHORIZED, &json!({"message": "401: Unauthorized", "code": 0}))
            }
        }
        _ => reply(StatusCode::NOT_FOUND, &json!({"message": "404: Not Found", "code": 0})),
    }
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    // Exactly so, without a charset, as Discord has it.
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn upgrade(
    mut request: Request<Incoming>,
    discord: Arc<Discord>,
) -> Result<Response<Full<Bytes>>, Refused> {
    let fault = discord.take_connect_fault();
    match fault {
        Some(ConnectFault::Refuse) => return Err(Refused),
        Some(ConnectFault::Hang) => return std::future::pending().await,
        _ => {}
    }
    let Some(mut mode) = mode(request.uri().query().unwrap_or_default()) else {
        return Ok(reply(StatusCode::BAD_REQUEST, &json!({"message": "400: Bad Request", "code": 0})));
    };
    mode.at_resume_url = request.uri().path().trim_end_matches('/').ends_with(RESUME_PATH);
    let accept = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = accept.and_then(|accept| HeaderValue::from_str(&accept).ok()).ok_or(Refused)?;
    let upgraded = hyper::upgrade::on(&mut request);
    let over = discord.over.subscribe();
    tokio::spawn(async move {
        let mut over = over;
        if let Ok(upgraded) = upgraded.await {
            tokio::select! {
                () = connection::serve(TokioIo::new(upgraded), mode, fault, discord) => {}
                () = ended(&mut over) => {}
            }
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// What the query asks for; `None` when it is something that is not spoken here (GW-010, GW-011).
fn mode(query: &str) -> Option<Mode> {
    let mut mode = Mode { version: 6, compressed: false, at_resume_url: false };
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match (key, value) {
            ("v", version) => mode.version = version.parse().ok()?,
            ("encoding", "json") => {}
            ("encoding", _) => return None,
            ("compress", "zlib-stream") => mode.compressed = true,
            ("compress", _) => return None,
            _ => {}
        }
    }
    Some(mode)
}
