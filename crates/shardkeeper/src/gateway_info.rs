//! `GET /gateway/bot`: where the Gateway is, how many shards it wants, and what the bot may still identify.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use shardkeeper_proto::Token;
use shardkeeper_transport::{ConnectError, Dialer};
use tokio::time::timeout;
use url::Url;

/// How Discord asks libraries to name themselves (GW-281).
const USER_AGENT: &str = concat!("DiscordBot (https://docs.rs/shardkeeper, ", env!("CARGO_PKG_VERSION"), ")");
/// The answer has about 200 bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How long the whole request may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// The answer of `GET /gateway/bot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayInfo {
    /// The bootstrap URL.
    pub url: Url,
    /// The recommended number of shards (GW-005).
    pub shards: u32,
    /// What may be identified.
    pub session_start_limit: SessionStartLimit,
}

/// How many sessions may be started (GW-007).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStartLimit {
    /// In a period.
    pub total: u32,
    /// In what is left of this period.
    pub remaining: u32,
    /// Until the period ends, in milliseconds.
    #[serde(rename = "reset_after")]
    pub reset_after_ms: u64,
    /// At the same time.
    pub max_concurrency: u32,
}

/// `GET /gateway/bot` failed.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum GatewayInfoError {
    /// The token is dead (GW-006).
    #[error("discord does not accept the token (401): take a valid one from the developer portal")]
    Unauthorized,
    /// It says 429, not as Discord's API does, and not for how long: trying on makes it worse (GW-293).
    #[error("{host} shuts this address out (429 without an end): wait, or ask who runs it")]
    ShutOut {
        /// Who answered.
        host: String,
    },
    /// An HTTP status that says no.
    #[error("{host} answered with status {status}{}", hint(*.status))]
    Status {
        /// Who answered.
        host: String,
        /// The status.
        status: u16,
        /// How long to wait, if it said so.
        retry_after: Option<Duration>,
    },
    /// There is no connection.
    #[error("the API cannot be reached")]
    Connect(#[from] ConnectError),
    /// The connection did not carry an HTTP answer.
    #[error("{host} does not answer as an HTTP server: check the API URL")]
    Http {
        /// Who it was.
        host: String,
        /// What went wrong.
        source: hyper::Error,
    },
    /// No answer in time.
    #[error("{host} did not answer within {} s", DEADLINE.as_secs())]
    Timeout {
        /// Who it was.
        host: String,
    },
    /// The answer is not what it should be.
    #[error("the answer of {host} is not that of Discord: check the API URL")]
    Malformed {
        /// Who answered.
        host: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn hint(status: u16) -> &'static str {
    match status {
        403 => ": access is denied, perhaps by a ban of this address",
        404 => ": check the API URL",
        429 => ": too many requests",
        500.. => ": it is in trouble",
        _ => "",
    }
}

impl GatewayInfoError {
    /// Whether trying again later can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unauthorized | Self::ShutOut { .. } => false,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Connect(error) => error.is_retryable(),
            _ => true,
        }
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Asks for the gateway's address and the bot's limits.
///
/// # Errors
///
/// See [`GatewayInfoError`]; none holds the token.
///
/// # Bounds
///
/// It takes 15 s at most, and an answer of 64 KiB. It asks once: whether to try again is the caller's to decide, by
/// [`GatewayInfoError::is_retryable`] and [`retry_after`](GatewayInfoError::retry_after).
///
/// # Panics
///
/// Outside a tokio runtime with time.
///
/// # Cancel safety
///
/// Safe: dropping it drops the connection.
pub async fn gateway_info(
    dialer: &dyn Dialer,
    api_url: &Url,
    token: &Token,
) -> Result<GatewayInfo, GatewayInfoError> {
    match timeout(DEADLINE, request(dialer, api_url, token)).await {
        Ok(answer) => answer,
        Err(_) => Err(GatewayInfoError::Timeout { host: host(api_url) }),
    }
}

async fn request(dialer: &dyn Dialer, api_url: &Url, token: &Token) -> Result<GatewayInfo, GatewayInfoError> {
    let http = |source| GatewayInfoError::Http { host: host(api_url), source };
    let malformed = |source| GatewayInfoError::Malformed { host: host(api_url), source };
    // Whoever starts a bot waits for an answer, whatever a dialer of theirs does.
    let dialing = AssertUnwindSafe(async { dialer.dial(api_url).await }).catch_unwind().await;
    let stream = dialing.unwrap_or_else(|_| Err(ConnectError::dial(api_url, "the dialer panicked")))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let request = Request::get(format!("{}/gateway/bot", api_url.path().trim_end_matches('/')))
        .header(header::HOST, host(api_url))
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::AUTHORIZATION, format!("Bot {}", token.expose()))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("a checked URL and token make valid headers");
    let exchange = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map(Collected::to_bytes);
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(GatewayInfoError::Unauthorized),
            StatusCode::TOO_MANY_REQUESTS if retry_after.is_none() && !is_json(body.as_ref().ok()) => {
                return Err(GatewayInfoError::ShutOut { host: host(api_url) });
            }
            _ => {
                return Err(GatewayInfoError::Status {
                    host: host(api_url),
                    status: status.as_u16(),
                    retry_after,
                });
            }
        }
        let body = body.map_err(|source| match source.downcast::<hyper::Error>() {
            Ok(source) => http(*source),
            Err(source) => malformed(source),
        })?;
        serde_json::from_slice(&body).map_err(|source| malformed(source.into()))
    };
    // The connection does its work beside the exchange; when it ends first, the exchange says why.
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

fn is_json(body: Option<&Bytes>) -> bool {
    body.is_some_and(|body| serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok())
}

fn retry_after(headers: &hyper::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse::<f64>().ok()?;
    // At most a day: whatever asks for more is no rate limit.
    Duration::try_from_secs_f64(seconds.clamp(0.0, 86_400.0)).ok()
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}
