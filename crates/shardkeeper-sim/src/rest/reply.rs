//! Reading requests and writing answers.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

/// How long the head of a request may take to arrive, and then its body. An idle connection lasts as long.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest body that is read. Larger ones are answered with 413.
const MAX_BODY_BYTES: usize = 1 << 20;

pub(crate) type Reply = Response<Full<Bytes>>;
/// A status, and a body of JSON.
pub(super) type Answer = (StatusCode, Value);

/// The connection is to end without an answer.
#[derive(Debug, thiserror::Error)]
#[error("refused")]
pub(crate) struct Refused;

/// Reads the body of a request. The error is the answer to a body that is too large or does not arrive.
pub(super) async fn body(request: Request<Incoming>) -> Result<Bytes, Reply> {
    let reading = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match tokio::time::timeout(REQUEST_TIMEOUT, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(reply(
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!({"message": "Request entity too large", "code": 40005}),
        )),
        Err(_) => Err(reply(
            StatusCode::REQUEST_TIMEOUT,
            &json!({"message": "the body of the request did not arrive in time", "code": 0}),
        )),
    }
}

pub(super) fn ok(value: Value) -> Answer {
    (StatusCode::OK, value)
}

pub(super) fn no_content() -> Answer {
    (StatusCode::NO_CONTENT, Value::Null)
}

pub(super) fn no_route() -> Answer {
    refusal(StatusCode::NOT_FOUND, 0, "404: Not Found")
}

pub(super) fn refusal(status: StatusCode, code: u32, message: &str) -> Answer {
    (status, json!({"message": message, "code": code}))
}

pub(super) fn unknown(what: &str, code: u32) -> Answer {
    refusal(StatusCode::NOT_FOUND, code, &format!("Unknown {what}"))
}

/// Parses an id.
pub(super) fn number(id: &str) -> Option<u64> {
    id.parse().ok()
}

/// The value of a parameter of a query, not decoded.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// An answer with a body of JSON.
pub(crate) fn reply(status: StatusCode, body: &Value) -> Reply {
    if status == StatusCode::NO_CONTENT {
        // Without a Content-Type, because libraries parse a body wherever the header announces JSON.
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        return response;
    }
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    // Without a charset, as at Discord.
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
