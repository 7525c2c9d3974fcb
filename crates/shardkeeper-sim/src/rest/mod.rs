//! The REST API: what clients request at login, messages and reactions, guilds, and the simulator's own
//! routes.

mod control;
mod guilds;
mod messages;
mod reply;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use self::control::control;
use self::guilds::{channel, guild, open_direct, own_guilds, user};
use self::reply::{Answer, body, no_route, number, ok, refusal, unknown};
pub(crate) use self::reply::{REQUEST_TIMEOUT, Refused, Reply, reply};
use crate::buckets::{Admission, Headers, Limit, Refusal};
use crate::discord::{Discord, State};
use crate::fault::RestFault;
use crate::judgement;
use crate::world;

const MESSAGES: Limit = Limit { bucket: "messages", requests: 5, per: Duration::from_secs(5) };
const MEMBERS: Limit = Limit { bucket: "members", requests: 10, per: Duration::from_secs(10) };
const READS: Limit = Limit { bucket: "reads", requests: 30, per: Duration::from_secs(10) };

/// Answers a request.
pub(crate) async fn answer(request: Request<Incoming>, discord: Arc<Discord>) -> Result<Reply, Refused> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if path.starts_with("/sim/") {
        return Ok(control(&method, &path, request, &discord).await);
    }
    let fault = {
        let mut state = discord.state();
        state.report.rest_requests += 1;
        state.faults.take_rest()
    };
    match fault {
        Some(RestFault::Status(status)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(reply(status, &json!({})));
        }
        Some(RestFault::Page(status)) => {
            let mut page = Response::new(Full::from("<html>access denied</html>"));
            *page.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(page);
        }
        Some(RestFault::Hang) => return std::future::pending().await,
        Some(RestFault::Cut) => return Err(Refused),
        Some(RestFault::Garbage) => return Ok(Response::new(Full::from("<html>it works</html>"))),
        Some(RestFault::RateLimited { retry_after_ms, global }) => {
            let wait = Duration::from_millis(retry_after_ms.into());
            return Ok(too_many(&Refusal::forced(wait, global)));
        }
        None => {}
    }
    let versioned = ["/api/v10", "/api/v9"].iter().find_map(|prefix| path.strip_prefix(prefix));
    let path = versioned.or_else(|| path.strip_prefix("/api")).unwrap_or(&path).to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if (&method, parts.as_slice()) == (&Method::GET, &["gateway"]) {
        return Ok(reply(StatusCode::OK, &json!({"url": discord.urls.gateway()})));
    }
    if let (&Method::POST, ["interactions", _, _, "callback"]) = (&method, parts.as_slice()) {
        return Ok(reply(StatusCode::NO_CONTENT, &Value::Null));
    }
    if versioned.is_none() {
        discord.judge(judgement::NO_VERSION, None, format!("a request to {path} that names no version"));
    }
    if let Some(refused) = unauthorized(&request, &discord) {
        return Ok(refused);
    }
    let agent = request.headers().get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
    if !agent.starts_with(b"DiscordBot (") {
        discord.judge(
            judgement::USER_AGENT,
            None,
            "a request whose User-Agent is not DiscordBot (url, version)",
        );
    }
    let resource = parts.get(1).copied().unwrap_or_default().to_owned();
    let admission = {
        let mut state = discord.state();
        let now = state.now();
        state.buckets.admit(limit(&method, &parts), &resource, now)
    };
    let headers = match admission {
        Admission::Granted(headers) => headers,
        Admission::Refused(refusal) => {
            if refusal.again {
                discord.judge(
                    judgement::RETRY_TOO_SOON,
                    None,
                    format!("a request to {path} before retry_after was over"),
                );
            }
            return Ok(too_many(&refusal));
        }
    };
    let body = match body(request).await {
        Ok(body) => body,
        Err(refused) => return Ok(refused),
    };
    let body =
        if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap_or(Value::Null) };
    let (status, answer) = route(&method, &parts, &query, body, &discord);
    let mut reply = reply(status, &answer);
    Headers::write(&headers, reply.headers_mut());
    Ok(reply)
}

/// The answer to a request without the bot's token (GW-003). A client that uses a token again after a 401 is
/// judged (GW-297).
fn unauthorized(request: &Request<Incoming>, discord: &Discord) -> Option<Reply> {
    let given = request.headers().get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    let again = {
        let access = &mut discord.state().access;
        if access.accepts_header(given) {
            return None;
        }
        access.reject_header(given)
    };
    if again {
        discord.judge(judgement::TOKEN_USED_AGAIN, None, "a token is used again after a 401");
    }
    Some(reply(StatusCode::UNAUTHORIZED, &json!({"message": "401: Unauthorized", "code": 0})))
}

/// The rate limit of a route.
fn limit(method: &Method, parts: &[&str]) -> Option<Limit> {
    match (method, parts) {
        (_, ["gateway", ..]) => None,
        (&Method::POST, ["channels", _, "messages"]) => Some(MESSAGES),
        (_, ["guilds", _, "members", ..]) => Some(MEMBERS),
        _ => Some(READS),
    }
}

/// Answers a request that was admitted.
fn route(method: &Method, parts: &[&str], query: &str, body: Value, discord: &Discord) -> Answer {
    let get = method == Method::GET;
    if (get, parts) == (true, &["gateway", "bot"]) {
        return ok(gateway_bot(discord));
    }
    let mut guard = discord.state();
    let state = &mut *guard;
    if let Some(answer) = messages::route(state, method, parts, query, &body) {
        discord.changed(guard);
        return answer;
    }
    match parts {
        ["users", "@me"] if get => ok(world::bot_user()),
        ["users", "@me", "guilds"] if get => ok(own_guilds(state)),
        ["users", "@me", "channels"] if *method == Method::POST => open_direct(state, &body),
        ["users", id] if get => user(state, id).map_or_else(|| unknown("User", 10013), ok),
        ["oauth2" | "applications", "@me"] | ["oauth2", "applications", "@me"] => {
            ok(world::application(state.access.allowed_intents()))
        }
        ["applications", _, "entitlements"] if get => ok(state.world.account().entitlements()),
        ["applications", _, "commands"] | ["applications", _, "guilds", _, "commands"] => {
            commands(state, method, &parts.join("/"), body)
        }
        ["channels", id] if get => channel(state, id).map_or_else(|| unknown("Channel", 10003), ok),
        ["guilds", id, rest @ ..] if get => {
            let place = number(id).and_then(|id| state.world.find(id));
            place
                .map_or_else(|| unknown("Guild", 10004), |place| guild(state.world.guild(place), rest, query))
        }
        _ => no_route(),
    }
}

/// The answer of `GET /gateway/bot`.
fn gateway_bot(discord: &Discord) -> Value {
    let mut state = discord.state();
    let now = state.now();
    let identifies = &mut state.identifies;
    identifies.renew(now);
    json!({
        "url": discord.urls.gateway(),
        "shards": identifies.shards,
        "session_start_limit": {
            "total": identifies.total,
            "remaining": identifies.remaining,
            "reset_after": u64::try_from(identifies.resets_after(now).as_millis()).unwrap_or(u64::MAX),
            "max_concurrency": identifies.max_concurrency,
        },
    })
}

/// Application commands, which are stored as the bot sent them.
fn commands(state: &mut State, method: &Method, path: &str, body: Value) -> Answer {
    let commands = &mut state.world.commands;
    match (method, body) {
        (&Method::GET, _) => ok(commands.at(path).to_vec().into()),
        (&Method::PUT, Value::Array(new)) => ok(commands.replace(path, new).to_vec().into()),
        (&Method::POST, command @ Value::Object(_)) => (StatusCode::CREATED, commands.add(path, command)),
        _ => refusal(StatusCode::BAD_REQUEST, 50035, "Invalid Form Body"),
    }
}

fn too_many(refusal: &Refusal) -> Reply {
    let mut reply = reply(StatusCode::TOO_MANY_REQUESTS, &refusal.body());
    refusal.write(reply.headers_mut());
    reply
}
