//! Judgements that depend on nothing but a payload, and the counting of rates.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::judgement::{self, Judgement};
use crate::wire::Mode;

/// A judgement, and what exactly the client did.
pub(crate) type Finding = (&'static Judgement, String);

/// Notes one more event, and returns whether there were more than `limit` within the window.
pub(crate) fn exceeds(times: &mut VecDeque<Instant>, at: Instant, window: Duration, limit: usize) -> bool {
    while times.front().is_some_and(|first| at.duration_since(*first) >= window) {
        times.pop_front();
    }
    times.push_back(at);
    times.len() > limit
}

/// Advice about the data of an Identify.
pub(crate) fn identify(data: &Value, mode: Mode) -> Vec<Finding> {
    let mut advice = Vec::new();
    if data.get("compress") == Some(&Value::Bool(true)) && !mode.is_packable() {
        advice.push((
            judgement::TWO_COMPRESSIONS,
            "payload compression together with transport compression or ETF".to_owned(),
        ));
    }
    let properties = data.get("properties").and_then(Value::as_object);
    if properties.is_some_and(|properties| properties.keys().any(|key| key.starts_with('$'))) {
        advice.push((judgement::OLD_PROPERTIES, "properties whose names begin with $".to_owned()));
    }
    if let Some(threshold) = data.get("large_threshold").filter(|threshold| !threshold.is_null())
        && !threshold.as_u64().is_some_and(|threshold| (50..=250).contains(&threshold))
    {
        advice.push((judgement::LARGE_THRESHOLD, format!("a large_threshold of {threshold}")));
    }
    if data.get("capabilities").is_some_and(|capabilities| *capabilities != 0) {
        advice.push((judgement::CAPABILITIES, "an Identify with capabilities".to_owned()));
    }
    advice
}

/// Advice about a presence.
pub(crate) fn presence(presence: &Value) -> Vec<Finding> {
    let mut advice = Vec::new();
    for field in ["since", "activities", "status", "afk"] {
        if presence.get(field).is_none() {
            advice.push((judgement::PRESENCE_INCOMPLETE, format!("a presence without {field}")));
        }
    }
    let status = presence.get("status").and_then(Value::as_str).unwrap_or_default();
    if !matches!(status, "online" | "dnd" | "idle" | "invisible" | "offline") {
        advice.push((judgement::PRESENCE_STATUS, format!("a presence of status {status:?}")));
    }
    for activity in presence.get("activities").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| activity.get(field).and_then(Value::as_str).unwrap_or_default();
        let kind = activity.get("type").and_then(Value::as_u64).unwrap_or_default();
        if kind > 5 {
            advice.push((judgement::ACTIVITY_TYPE, format!("an activity of type {kind}")));
        }
        if text("name").is_empty() {
            advice.push((judgement::ACTIVITY_NAME, "an activity without a name".to_owned()));
        }
        let streamed = [
            "https://www.twitch.tv/",
            "https://twitch.tv/",
            "https://www.youtube.com/",
            "https://youtube.com/",
        ];
        if kind == 1 && !streamed.iter().any(|site| text("url").starts_with(site)) {
            advice
                .push((judgement::ACTIVITY_TYPE, "streaming without a URL of Twitch or YouTube".to_owned()));
        }
    }
    advice
}
