//! `GET /gateway/bot`: where the Gateway is, how many shards it wants, and what the bot may still identify.

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

/// Discord wants `DiscordBot (<url>, <version>)` in every request (GW-281). The WebSocket request has the same.
pub(crate) const USER_AGENT: &str =
    concat!("DiscordBot (https://docs.rs/shardkeeper, ", env!("CARGO_PKG_VERSION"), ")");
/// The answer has about 200 bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The most shards that an answer may advise. At 1,000 guilds per shard, which is what Discord advises, they are enough
/// for 65 million guilds; there are about 30 million.
const MAX_SHARDS: u64 = 1 << 16;
/// The largest `max_concurrency` that is believed. Discord's largest is 16 as far as is known; each takes memory.
const MAX_CONCURRENCY: u64 = 1 << 12;
/// The longest period of the identify budget. Discord's is a day.
const LONGEST_PERIOD_MS: u64 = 7 * 24 * 3_600_000;
/// How long the whole request may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// The answer of `GET /gateway/bot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "processes construct it from what another one was told")]
pub struct GatewayInfo {
    /// The bootstrap URL.
    pub url: Url,
    /// The number of shards that Discord recommends (GW-005).
    pub shards: u32,
    /// What may be identified.
    pub session_start_limit: SessionStartLimit,
}

/// How many sessions may be started. All four fields are needed, and the time is in milliseconds (GW-007).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "processes construct it from what another one was told")]
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

impl GatewayInfo {
    /// The same with a `max_concurrency` that can be used.
    pub(crate) fn bounded(mut self) -> Self {
        let concurrency = &mut self.session_start_limit.max_concurrency;
        if !(1..=MAX_CONCURRENCY).contains(&u64::from(*concurrency)) {
            *concurrency = 1;
        }
        self
    }
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
        source: Box<dyn Error + Send + Sync>,
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
        source: Box<dyn Error + Send + Sync>,
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
/// See [`GatewayInfoError`]; none holds the token. Numbers that are missing or odd are no error: in their place 1 shard,
/// 1000 Identify in 24 h and a `max_concurrency` of 1 are assumed, with a warning in the log. More than 65,536 shards
/// are one.
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
    let http = |source: hyper::Error| GatewayInfoError::Http { host: host(api_url), source: source.into() };
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
        let (info, odd) = read(&body).map_err(malformed)?;
        if !odd.is_empty() {
            let (host, numbers) = (host(api_url), odd.join(", "));
            tracing::warn!(
                host,
                numbers,
                "GET /gateway/bot lacks these numbers, or has odd ones: safe ones are assumed"
            );
        }
        Ok(info)
    };
    // The connection does its work beside the exchange; when it ends first, the exchange says why.
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

/// Reads an answer, and names the numbers that are missing or odd. What is assumed in their place makes shards identify
/// later than necessary, and never too soon.
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
        return Err("its url is not that of a WebSocket".into());
    }
    let mut odd = Vec::new();
    let mut number = |name, value: &Value, within: RangeInclusive<u64>, assumed| {
        whole(value).filter(|number| within.contains(number)).unwrap_or_else(|| {
            odd.push(name);
            assumed
        })
    };
    if let Some(shards) = whole(&shards).filter(|shards| *shards > MAX_SHARDS) {
        return Err(format!("it advises {shards} shards, and more than {MAX_SHARDS} cannot be meant").into());
    }
    let shards = number("shards", &shards, 1..=MAX_SHARDS, 1);
    let any = 0..=u64::from(u32::MAX);
    let total = number("total", &limit["total"], any.clone(), 1000);
    let remaining = number("remaining", &limit["remaining"], any, total);
    let day = 24 * 3_600_000;
    let reset_after_ms = number("reset_after", &limit["reset_after"], 0..=LONGEST_PERIOD_MS, day);
    // One at a time is right for any other number, too.
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

/// A whole number however it is written; one below zero is as good as none left.
fn whole(value: &Value) -> Option<u64> {
    // Every number here is far below what a float holds exactly, or refused.
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
