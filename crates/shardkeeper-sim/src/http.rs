//! The one port: REST, and the upgrade to the Gateway.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::connection::{self, Opening};
use crate::discord::Discord;
use crate::fault::ConnectFault;
use crate::hosts::Host;
use crate::odd::Odd;
use crate::rest::{self, Refused, reply};
use crate::tls::Acceptor;
use crate::wire::Query;

pub(crate) async fn listen(listener: TcpListener, acceptor: Acceptor, discord: Arc<Discord>) {
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
                let (acceptor, discord) = (acceptor.clone(), Arc::clone(&discord));
                tokio::spawn(async move {
                    if let Some(stream) = acceptor.accept(stream).await {
                        serve(stream, discord).await;
                    }
                });
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
        biased;
        // A client that breaks HTTP, or whom we refuse, is no concern of anybody.
        _ = connection.with_upgrades() => {}
        () = ended(&mut over) => {}
    }
}

async fn answer(request: Request<Incoming>, discord: Arc<Discord>) -> Result<Response<Full<Bytes>>, Refused> {
    if request.headers().contains_key(SEC_WEBSOCKET_KEY) {
        upgrade(request, discord).await
    } else {
        rest::answer(request, discord).await
    }
}

/// Waits for the simulator's end.
async fn ended(over: &mut watch::Receiver<bool>) {
    let _ = over.wait_for(|over| *over).await;
}

async fn upgrade(
    mut request: Request<Incoming>,
    discord: Arc<Discord>,
) -> Result<Response<Full<Bytes>>, Refused> {
    let host = Host::of(request.uri().path());
    let fault = discord.take_connect_fault(host);
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
    let opening = Opening { query, host, fault };
    let accept = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = accept.and_then(|accept| HeaderValue::from_str(&accept).ok()).ok_or(Refused)?;
    let upgraded = hyper::upgrade::on(&mut request);
    let over = discord.over.subscribe();
    tokio::spawn(async move {
        let mut over = over;
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
