//! The rate limits of REST: counting, the headers, and the answer 429 (GW-283 to GW-295).

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Requests per second of one bot (GW-294).
const GLOBAL_PER_SECOND: u32 = 50;

/// How often a kind of request is allowed, per top-level resource (GW-284).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Limit {
    /// The id in the headers, by which clients recognize requests that share a limit.
    pub(crate) bucket: &'static str,
    pub(crate) requests: u32,
    pub(crate) per: Duration,
}

/// The open windows: the global one, and those of each bucket and resource.
#[derive(Default)]
pub(crate) struct Buckets {
    global: Option<Window>,
    windows: HashMap<(&'static str, String), Window>,
}

struct Window {
    used: u32,
    resets_at: Instant,
    /// Whether a request was refused in this window.
    refused: bool,
}

/// Whether a request is allowed now.
pub(crate) enum Admission {
    Granted(Headers),
    Refused(Refusal),
}

/// The rate limit headers of an answer.
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    limit: Limit,
    remaining: u32,
    reset_after: Duration,
}

/// An answer with status 429.
pub(crate) struct Refusal {
    headers: Option<Headers>,
    pub(crate) retry_after: Duration,
    pub(crate) global: bool,
    /// Whether an earlier request of the window was refused already, so that the client did not wait
    /// (GW-290).
    pub(crate) again: bool,
}

impl Buckets {
    /// Counts a request for a resource.
    pub(crate) fn admit(&mut self, limit: Option<Limit>, resource: &str, now: Instant) -> Admission {
        let global = window(&mut self.global, now, Duration::from_secs(1));
        if global.used >= GLOBAL_PER_SECOND {
            let again = std::mem::replace(&mut global.refused, true);
            let retry_after = global.resets_at - now;
            return Admission::Refused(Refusal { headers: None, retry_after, global: true, again });
        }
        global.used += 1;
        let Some(limit) = limit else {
            return Admission::Granted(Headers::none());
        };
        self.windows.retain(|_, window| window.resets_at > now);
        let window = self.windows.entry((limit.bucket, resource.to_owned())).or_insert_with(|| Window {
            used: 0,
            resets_at: now + limit.per,
            refused: false,
        });
        let reset_after = window.resets_at - now;
        if window.used >= limit.requests {
            let again = std::mem::replace(&mut window.refused, true);
            let headers = Some(Headers { limit, remaining: 0, reset_after });
            return Admission::Refused(Refusal { headers, retry_after: reset_after, global: false, again });
        }
        window.used += 1;
        Admission::Granted(Headers { limit, remaining: limit.requests - window.used, reset_after })
    }
}

/// The window in a slot, or a new one if there is none or it is over.
fn window(slot: &mut Option<Window>, now: Instant, per: Duration) -> &mut Window {
    if slot.as_ref().is_some_and(|window| window.resets_at <= now) {
        *slot = None;
    }
    slot.get_or_insert_with(|| Window { used: 0, resets_at: now + per, refused: false })
}

impl Headers {
    /// No headers, for a route without a limit of its own. Headers are optional (GW-283).
    fn none() -> Self {
        let limit = Limit { bucket: "", requests: 0, per: Duration::ZERO };
        Self { limit, remaining: 0, reset_after: Duration::ZERO }
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if self.limit.bucket.is_empty() {
            return;
        }
        let reset = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + self.reset_after;
        put(headers, "x-ratelimit-limit", self.limit.requests.to_string());
        put(headers, "x-ratelimit-remaining", self.remaining.to_string());
        put(headers, "x-ratelimit-reset", format!("{:.3}", reset.as_secs_f64()));
        put(headers, "x-ratelimit-reset-after", format!("{:.3}", self.reset_after.as_secs_f64()));
        put(headers, "x-ratelimit-bucket", self.limit.bucket.to_owned());
    }
}

impl Refusal {
    /// A refusal that a fault makes.
    pub(crate) fn forced(retry_after: Duration, global: bool) -> Self {
        Self { headers: None, retry_after, global, again: false }
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if let Some(bucket) = &self.headers {
            bucket.write(headers);
        }
        let seconds = self.retry_after.as_secs_f64().ceil().to_string();
        if let Ok(seconds) = HeaderValue::from_str(&seconds) {
            headers.insert(RETRY_AFTER, seconds);
        }
        put(headers, "x-ratelimit-scope", if self.global { "global" } else { "user" }.to_owned());
        if self.global {
            put(headers, "x-ratelimit-global", "true".to_owned());
        }
    }

    pub(crate) fn body(&self) -> Value {
        json!({
            "message": "You are being rate limited.", "retry_after": self.retry_after.as_secs_f64(),
            "global": self.global,
        })
    }
}

fn put(headers: &mut HeaderMap, name: &'static str, value: String) {
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { bucket: "b", requests: 2, per: Duration::from_secs(5) };

    fn granted(buckets: &mut Buckets, resource: &str, now: Instant) -> bool {
        matches!(buckets.admit(Some(LIMIT), resource, now), Admission::Granted(_))
    }

    #[test]
    fn gw_284_resources_of_one_bucket_count_apart_and_windows_end() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        assert!(granted(&mut buckets, "1", now) && granted(&mut buckets, "1", now));
        assert!(!granted(&mut buckets, "1", now) && granted(&mut buckets, "2", now));
        assert!(granted(&mut buckets, "1", now + LIMIT.per));
    }

    #[test]
    fn gw_290_294_refusals_say_how_long_and_whether_for_all() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let mut again = Vec::new();
        for _ in 0..GLOBAL_PER_SECOND + 2 {
            if let Admission::Refused(refusal) = buckets.admit(None, "", now) {
                assert!(refusal.global && refusal.retry_after == Duration::from_secs(1));
                again.push(refusal.again);
            }
        }
        assert_eq!(again, [false, true]);
    }
}
