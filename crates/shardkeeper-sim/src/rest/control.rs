//! The simulator's own routes: `GET /sim/report` and `POST /sim/act`.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::reply::{Reply, body, parameter, reply};
use crate::acting;
use crate::discord::Discord;
use crate::script;

/// How many Identify one answer of `GET /sim/report` has.
const IDENTIFIES_PER_ANSWER: usize = 1_000;

/// Answers a request to the simulator's own routes.
pub(super) async fn control(
    method: &Method,
    path: &str,
    request: Request<Incoming>,
    discord: &Arc<Discord>,
) -> Reply {
    match (method, path) {
        (&Method::GET, "/sim/report") => {
            let query = request.uri().query().unwrap_or_default();
            reply(StatusCode::OK, &report(discord, parameter(query, "identifies_from")))
        }
        (&Method::POST, "/sim/act") => {
            let body = match body(request).await {
                Ok(body) => body,
                Err(refused) => return refused,
            };
            let acted = match script::read_action(&body) {
                Ok(action) => acting::perform(discord, &action).await.map_err(|error| error.to_string()),
                Err(problem) => Err(problem),
            };
            match acted {
                Ok(()) => reply(StatusCode::NO_CONTENT, &Value::Null),
                Err(error) => reply(StatusCode::BAD_REQUEST, &json!({"message": error})),
            }
        }
        _ => {
            let message = "unknown route: the simulator has GET /sim/report and POST /sim/act";
            reply(StatusCode::NOT_FOUND, &json!({"message": message}))
        }
    }
}

/// The report as JSON. It has a part of the Identify log: the newest records, or those from an index on, so
/// that a client can read a long log in pages.
fn report(discord: &Discord, from: Option<&str>) -> Value {
    let (mut report, delivery, world_delivery) = {
        let state = discord.state();
        let world_delivery = state.history.is_on().then(|| state.world_delivery());
        (state.report(), state.ledger.known_delivery(), world_delivery)
    };
    let log = std::mem::take(&mut report.identify_log);
    let newest = log.len().saturating_sub(IDENTIFIES_PER_ANSWER);
    let from = from.and_then(|from| from.parse().ok()).unwrap_or(newest).min(log.len());
    report.identify_log = Arc::new(log[from..].iter().take(IDENTIFIES_PER_ANSWER).copied().collect());
    let mut answer = serde_json::to_value(&report).unwrap_or_default();
    answer["identify_log_from"] = from.into();
    if let Some(delivery) = delivery {
        answer["delivery"] = serde_json::to_value(delivery).unwrap_or_default();
    }
    if let Some(delivery) = world_delivery {
        answer["world_delivery"] = serde_json::to_value(delivery).unwrap_or_default();
    }
    answer
}
