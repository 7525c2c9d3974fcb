//! `GET /gateway/bot`: the Gateway's URL, the recommended number of shards, and the identify budget that is
//! left.

use std::error::Error;
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shardkeeper_proto::Token;
use shardkeeper_transport::{ConnectError, Dialer};
use tokio::time::timeout;
use url::Url;

use crate::chain::readable;

/// User agent of HTTP and WebSocket requests. GW-281: Discord requires `DiscordBot (<url>, <version>)`.
pub(crate) const USER_AGENT: &str =
    concat!("DiscordBot (https://docs.rs/shardkeeper, ", env!("CARGO_PKG_VERSION"), ")");
/// Largest answer that is read. Discord's has about 200 bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Largest shard count that an answer may recommend. With the 1,000 guilds per shard that Discord recommends,
/// it is enough for 65 million guilds; Discord has about 30 million.
pub(crate) const MAX_SHARDS: u64 = 1 << 16;
/// Largest `max_concurrency` that is accepted, because each key takes memory. The largest known value at
/// Discord is 16.
const MAX_CONCURRENCY: u64 = 1 << 12;
/// Longest period of the identify budget that is accepted. Discord's is one day.
const LONGEST_PERIOD_MS: u64 = 7 * 24 * 3_600_000;
/// Timeout of the whole request.
const DEADLINE: Duration = Duration::from_secs(15);

/// Answer of `GET /gateway/bot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "processes construct it from what another one was told")]
pub struct GatewayInfo {
    /// Bootstrap URL: the address for connections without a session to resume.
    pub url: Url,
    /// Number of shards that Discord recommends (GW-005).
    pub shards: u32,
    /// Identify budget and concurrency.
    pub session_start_limit: SessionStartLimit,
}

/// Limits on starting sessions. All four fields are needed, and the time is in milliseconds (GW-007).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "processes construct it from what another one was told")]
pub struct SessionStartLimit {
    /// Identifies allowed per period.
    pub total: u32,
    /// Identifies left in the current period.
    pub remaining: u32,
    /// Time until the period ends, in milliseconds.
    #[serde(rename = "reset_after")]
    pub reset_after_ms: u64,
    /// Number of shards that may identify at the same time.
    pub max_concurrency: u32,
}

impl GatewayInfo {
    /// Replaces an unusable `max_concurrency` by 1.
    pub(crate) fn bounded(mut self) -> Self {
        let concurrency = &mut self.session_start_limit.max_concurrency;
        if !(1..=MAX_CONCURRENCY).contains(&u64::from(*concurrency)) {
            *concurrency = 1;
        }
        self
    }
}

/// Error of `GET /gateway/bot`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum GatewayInfoError {
    /// Discord does not accept the token: it was reset or never valid (GW-006).
    #[error("discord does not accept the token (401): take a valid one from the developer portal")]
    Unauthorized,
    /// The host answers 429 without the JSON and the waiting time of Discord's API. This is a block at the
    /// edge, which further requests would prolong (GW-293).
    #[error(
        "{host} blocks this IP address (429 without a retry time): wait, or contact the operator of {host}"
    )]
    ShutOut {
        /// Host of the API URL.
        host: String,
    },
    /// The host answered with an HTTP error status.
    #[error("{host} answered with status {status}{}", hint(*.status))]
    Status {
        /// Host of the API URL.
        host: String,
        /// HTTP status.
        status: u16,
        /// Waiting time that the answer asked for, if any.
        retry_after: Option<Duration>,
    },
    /// The connection could not be made.
    #[error("the API cannot be reached")]
    Connect(#[from] ConnectError),
    /// The connection did not carry an HTTP answer.
    #[error("{host} does not answer as an HTTP server: check the API URL")]
    Http {
        /// Host of the API URL.
        host: String,
        /// Error of the HTTP client.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer came within 15 s.
    #[error("{host} did not answer within {} s", DEADLINE.as_secs())]
    Timeout {
        /// Host of the API URL.
        host: String,
    },
    /// The answer is not what Discord sends.
    #[error("{host} did not answer as the Discord API: check the API URL")]
    Malformed {
        /// Host of the API URL.
        host: String,
        /// Description of what is wrong with the answer.
        source: Box<dyn Error + Send + Sync>,
    },
}

fn hint(status: u16) -> &'static str {
    match status {
        403 => ": access denied, perhaps this IP address is banned",
        404 => ": check the API URL",
        429 => ": too many requests",
        500.. => ": the server has a problem, try again later",
        _ => "",
    }
}

impl GatewayInfoError {
    /// Whether trying again later can help. `false` for an invalid token, a block and other errors that need
    /// a person.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unauthorized | Self::ShutOut { .. } => false,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Connect(error) => error.is_retryable(),
            _ => true,
        }
    }

    /// Time that the server asked to wait before the next request, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Requests `GET /gateway/bot`: the gateway's address and the bot's limits.
///
/// # Errors
///
/// See [`GatewayInfoError`]; no error contains the token. Missing or invalid numbers are not an error: 1
/// shard, 1000 Identifies in 24 h and a `max_concurrency` of 1 are assumed instead, with a warning in the
/// log. More than 65,536 shards are an error.
///
/// # Bounds
///
/// The request takes at most 15 s and reads at most 64 KiB. There is only one attempt: the caller decides
/// whether to try again, by [`GatewayInfoError::is_retryable`] and
/// [`retry_after`](GatewayInfoError::retry_after).
///
/// # Panics
///
/// Outside a tokio runtime with time.
///
/// # Cancel safety
///
/// Safe: dropping the future drops the connection.
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
    let http = |source: hyper::Error| GatewayInfoError::Http { host: host(api_url), source: source.into() };
    let malformed = |source| GatewayInfoError::Malformed { host: host(api_url), source };
    // A panic in a custom dialer must become an error: the caller of `start` waits for an answer.
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
        let (info, odd) = read(&body).map_err(malformed)?;
        if !odd.is_empty() {
            let (host, numbers) = (host(api_url), odd.join(", "));
            tracing::warn!(
                host,
                numbers,
                "GET /gateway/bot has missing or invalid numbers: safe defaults are used for these"
            );
        }
        Ok(info)
    };
    // The connection task runs beside the exchange. If it ends first, the exchange reports the cause.
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

/// Parses an answer, and lists the fields that are missing or invalid. The defaults used for these make
/// shards identify later than necessary, never too soon.
fn read(body: &[u8]) -> Result<(GatewayInfo, Vec<&'static str>), Box<dyn Error + Send + Sync>> {
    #[derive(Deserialize)]
    struct Answer {
        url: Url,
        #[serde(default)]
        shards: Value,
        #[serde(default)]
        session_start_limit: Value,
    }
    let Answer { url, shards, session_start_limit: limit } = serde_json::from_slice(body)?;
    if !matches!(url.scheme(), "ws" | "wss" | "http" | "https") || !url.has_host() {
        return Err("its url is not a WebSocket URL".into());
    }
    let mut odd = Vec::new();
    let mut number = |name, value: &Value, within: RangeInclusive<u64>, assumed| {
        whole(value).filter(|number| within.contains(number)).unwrap_or_else(|| {
            odd.push(name);
            assumed
        })
    };
    if let Some(shards) = whole(&shards).filter(|shards| *shards > MAX_SHARDS) {
        return Err(format!("it recommends {shards} shards, more than the limit of {MAX_SHARDS}").into());
    }
    let shards = number("shards", &shards, 1..=MAX_SHARDS, 1);
    let any = 0..=u64::from(u32::MAX);
    let total = number("total", &limit["total"], any.clone(), 1000);
    let remaining = number("remaining", &limit["remaining"], any, total);
    let day = 24 * 3_600_000;
    let reset_after_ms = number("reset_after", &limit["reset_after"], 0..=LONGEST_PERIOD_MS, day);
    // A concurrency of one is safe, whatever the real number is.
    let max_concurrency = number("max_concurrency", &limit["max_concurrency"], 1..=MAX_CONCURRENCY, 1);
    let bounded = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let session_start_limit = SessionStartLimit {
        total: bounded(total),
        remaining: bounded(remaining),
        reset_after_ms,
        max_concurrency: bounded(max_concurrency),
    };
    Ok((GatewayInfo { url, shards: bounded(shards), session_start_limit }, odd))
}

/// Reads a whole number written as number or text. A negative number counts as 0.
fn whole(value: &Value) -> Option<u64> {
    // Exact: the numbers that are accepted are far below 2^53.
    let number = match value {
        Value::String(text) => text.parse().ok()?,
        value => value.as_f64()?,
    };
    (number.fract() == 0.0).then_some(number.max(0.0) as u64)
}

fn is_json(body: Option<&Bytes>) -> bool {
    body.is_some_and(|body| serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok())
}

fn retry_after(headers: &hyper::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse::<f64>().ok()?;
    // At most a day: a longer time is not a rate limit.
    Duration::try_from_secs_f64(seconds.clamp(0.0, 86_400.0)).ok()
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

readable!(GatewayInfoError);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: &str = r#"{"total":1000,"remaining":7,"reset_after":60000,"max_concurrency":16}"#;

    fn answer(shards: &str, limit: &str) -> String {
        format!(r#"{{"url":"wss://g.example","shards":{shards},"session_start_limit":{limit}}}"#)
    }

    fn numbers(body: &str) -> ((u32, u32, u32, u64, u32), usize) {
        let (info, odd) = read(body.as_bytes()).unwrap();
        let limit = info.session_start_limit;
        let numbers =
            (info.shards, limit.total, limit.remaining, limit.reset_after_ms, limit.max_concurrency);
        (numbers, odd.len())
    }

    #[test]
    fn gw_005_007_numbers_that_are_odd_or_missing_are_assumed_to_be_safe_ones() {
        let day = 86_400_000;
        for (body, expected, odd) in [
            (answer("9", LIMIT), (9, 1000, 7, 60_000, 16), 0),
            (answer("0", LIMIT), (1, 1000, 7, 60_000, 16), 1),
            (answer("null", LIMIT), (1, 1000, 7, 60_000, 16), 1),
            (answer(r#""9""#, LIMIT), (9, 1000, 7, 60_000, 16), 0),
            (answer("9.0", LIMIT), (9, 1000, 7, 60_000, 16), 0),
            (answer("-4", LIMIT), (1, 1000, 7, 60_000, 16), 1),
            (answer("[]", LIMIT), (1, 1000, 7, 60_000, 16), 1),
            (answer("9", "null"), (9, 1000, 1000, day, 1), 4),
            (answer("9", "[]"), (9, 1000, 1000, day, 1), 4),
            (answer("9", r#"{"remaining":-3}"#), (9, 1000, 0, day, 1), 3),
            (answer("9", r#"{"total":5,"max_concurrency":0}"#), (9, 5, 5, day, 1), 3),
            (answer("9", r#"{"max_concurrency":4097,"reset_after":1e18}"#), (9, 1000, 1000, day, 1), 4),
            (r#"{"url":"wss://g.example"}"#.to_owned(), (1, 1000, 1000, day, 1), 5),
        ] {
            assert_eq!(numbers(&body), (expected, odd), "{body}");
        }
    }

    #[test]
    fn an_answer_that_cannot_be_meant_is_refused_with_the_cause() {
        for (body, cause) in [
            (answer("65537", LIMIT), "65537 shards"),
            (answer("1e300", LIMIT), "shards"),
            (answer("9", LIMIT).replace("wss:", "ftp:"), "WebSocket"),
            (answer("9", LIMIT).replace("wss://g.example", "wss:"), "url"),
            ("{}".to_owned(), "url"),
        ] {
            let error = read(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(cause) || error.contains("host"), "{body}: {error}");
        }
    }
}
