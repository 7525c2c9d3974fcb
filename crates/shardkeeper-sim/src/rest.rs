//! What clients ask of REST: at login, and to see something happen.

mod messages;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::buckets::{Admission, Headers, Limit, Refusal};
use crate::discord::{Discord, State};
use crate::fault::RestFault;
use crate::http::REQUEST_TIMEOUT;
use crate::judgement;
use crate::script;
use crate::world::{self, Guild, Kind, Member};

/// The largest body that is read; larger ones are answered with 413.
const MAX_BODY_BYTES: usize = 1 << 20;

/// How many wrong tokens are remembered, to tell who uses one again.
const MAX_REJECTED_TOKENS: usize = 1_000;
/// How many Identify one answer of `GET /sim/report` has.
const IDENTIFIES_PER_ANSWER: usize = 1_000;

type Reply = Response<Full<Bytes>>;
/// A status, and a body of JSON.
type Answer = (StatusCode, Value);

/// The connection is to end without an answer.
#[derive(Debug, thiserror::Error)]
#[error("refused")]
pub(crate) struct Refused;

const MESSAGES: Limit = Limit { bucket: "messages", requests: 5, per: Duration::from_secs(5) };
const MEMBERS: Limit = Limit { bucket: "members", requests: 10, per: Duration::from_secs(10) };
const READS: Limit = Limit { bucket: "reads", requests: 30, per: Duration::from_secs(10) };

pub(crate) async fn answer(request: Request<Incoming>, discord: Arc<Discord>) -> Result<Reply, Refused> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if path.starts_with("/sim/") {
        return Ok(control(&method, &path, request, &discord).await);
    }
    match discord.take_rest_fault() {
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
        return Ok(reply(StatusCode::OK, &json!({"url": discord.gateway_url()})));
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

/// The body of a request; or the answer to one that is too large, or does not come.
async fn body(request: Request<Incoming>) -> Result<Bytes, Reply> {
    let reading = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match tokio::time::timeout(REQUEST_TIMEOUT, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(reply(
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!({"message": "Request entity too large", "code": 40005}),
        )),
        Err(_) => Err(reply(
            StatusCode::REQUEST_TIMEOUT,
            &json!({"message": "the body of the request did not come in time", "code": 0}),
        )),
    }
}

/// GW-003: `/gateway/bot` needs the bot token. GW-297: after a 401 that token must not come again.
fn unauthorized(request: &Request<Incoming>, discord: &Discord) -> Option<Reply> {
    let given = request.headers().get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    if given == format!("Bot {}", discord.config.token).as_bytes() && !discord.state().token_reset {
        return None;
    }
    let again = !given.is_empty() && {
        let rejected = &mut discord.state().rejected_tokens;
        rejected.contains(given) || {
            if rejected.len() < MAX_REJECTED_TOKENS {
                rejected.insert(given.to_vec());
            }
            false
        }
    };
    if again {
        discord.judge(judgement::TOKEN_USED_AGAIN, None, "a token is used again after a 401");
    }
    Some(reply(StatusCode::UNAUTHORIZED, &json!({"message": "401: Unauthorized", "code": 0})))
}

fn limit(method: &Method, parts: &[&str]) -> Option<Limit> {
    match (method, parts) {
        (_, ["gateway", ..]) => None,
        (&Method::POST, ["channels", _, "messages"]) => Some(MESSAGES),
        (_, ["guilds", _, "members", ..]) => Some(MEMBERS),
        _ => Some(READS),
    }
}

fn route(method: &Method, parts: &[&str], query: &str, body: Value, discord: &Discord) -> Answer {
    let get = method == Method::GET;
    if (get, parts) == (true, &["gateway", "bot"]) {
        return ok(discord.gateway_bot());
    }
    let mut guard = discord.state();
    let state = &mut *guard;
    if let Some(answer) = messages::route(state, method, parts, query, &body, discord.config.replay_limit) {
        discord.changed(guard);
        return answer;
    }
    match parts {
        ["users", "@me"] if get => ok(world::bot_user()),
        ["users", "@me", "guilds"] if get => ok(own_guilds(state)),
        ["users", "@me", "channels"] if *method == Method::POST => open_direct(state, &body),
        ["users", id] if get => user(state, id).map_or_else(|| unknown("User", 10013), ok),
        ["oauth2" | "applications", "@me"] | ["oauth2", "applications", "@me"] => {
            ok(world::application(state.allowed_intents))
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

fn ok(value: Value) -> Answer {
    (StatusCode::OK, value)
}

fn no_content() -> Answer {
    (StatusCode::NO_CONTENT, Value::Null)
}

fn no_route() -> Answer {
    refusal(StatusCode::NOT_FOUND, 0, "404: Not Found")
}

fn refusal(status: StatusCode, code: u32, message: &str) -> Answer {
    (status, json!({"message": message, "code": code}))
}

fn unknown(what: &str, code: u32) -> Answer {
    refusal(StatusCode::NOT_FOUND, code, &format!("Unknown {what}"))
}

fn channel(state: &State, id: &str) -> Option<Value> {
    let id = number(id)?;
    match state.world.find_direct(id) {
        Some(user) => Some(direct(id, user)),
        None => state.world.guild(state.world.find_channel(id)?).channel(id),
    }
}

fn direct(id: u64, user: Member) -> Value {
    json!({"id": id.to_string(), "type": 1, "last_message_id": null, "flags": 0, "recipients": [user.user()]})
}

/// The direct channel with a user, which is there whether it was opened or not.
fn open_direct(state: &State, body: &Value) -> Answer {
    let recipient = &body["recipient_id"];
    let id = recipient.as_u64().or_else(|| number(recipient.as_str()?));
    let member = id.and_then(|id| state.world.guilds().iter().find_map(|guild| guild.member(id)));
    let channel = member.and_then(|member| Some((world::direct_channel(member)?, member)));
    channel.map_or_else(
        || refusal(StatusCode::BAD_REQUEST, 50033, "Invalid Recipient(s)"),
        |(id, member)| ok(direct(id, member)),
    )
}

fn own_guilds(state: &State) -> Value {
    let guilds = state.world.guilds().iter().filter(|guild| guild.joined).map(|guild| {
        let properties = guild.properties();
        json!({
            "id": properties["id"], "name": properties["name"], "icon": null, "banner": null, "owner": false,
            "permissions": "2248473465835073", "features": properties["features"],
        })
    });
    guilds.collect::<Vec<_>>().into()
}

/// Somebody whom the bot may have met.
fn user(state: &State, id: &str) -> Option<Value> {
    let id = number(id)?;
    let met = |guild: &Guild| guild.member(id).or_else(|| guild.former(id));
    state.world.guilds().iter().find_map(met).map(Member::user)
}

fn guild(guild: &Guild, rest: &[&str], query: &str) -> Answer {
    ok(match rest {
        [] => {
            let mut properties = guild.properties();
            if parameter(query, "with_counts") == Some("true") {
                properties["approximate_member_count"] = guild.member_count().into();
                properties["approximate_presence_count"] = (guild.member_count() / 3).into();
            }
            properties
        }
        // GW-277: those that the bot may not view are left out.
        ["channels"] => guild.viewable_channels().into(),
        ["roles"] => guild.role_objects().into(),
        ["emojis"] => guild.emoji_objects().into(),
        ["stickers"] => guild.sticker_objects().into(),
        ["soundboard-sounds"] => json!({"items": guild.sound_objects()}),
        ["scheduled-events"] => guild.scheduled_events().into(),
        ["threads", "active"] => {
            let threads = guild.active_threads();
            let members: Vec<&Value> = threads.iter().filter_map(|thread| thread.get("member")).collect();
            json!({"members": members, "threads": threads})
        }
        ["invites"] => guild.invite_objects().into(),
        ["integrations"] => guild.integration_objects().into(),
        ["bans"] => guild.ban_objects().into(),
        ["auto-moderation", "rules"] => guild.rule_objects().into(),
        ["webhooks"] => json!([]),
        ["members"] => {
            let limit = parameter(query, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(1);
            let after = parameter(query, "after").and_then(number).unwrap_or(0);
            let mut members: Vec<Member> = std::iter::once(Member::Bot).chain(guild.humans()).collect();
            members.sort_by_key(|member| member.id());
            let page = members.into_iter().filter(|member| member.id() > after).take(limit);
            page.map(|member| guild.member_object(member, true)).collect::<Vec<_>>().into()
        }
        ["members", "@me"] => guild.member_object(Member::Bot, true),
        ["members", user] => match number(user).and_then(|id| guild.member(id)) {
            Some(member) => guild.member_object(member, true),
            None => return unknown("Member", 10007),
        },
        _ => return no_route(),
    })
}

/// Application commands, which are kept as they were given.
fn commands(state: &mut State, method: &Method, path: &str, body: Value) -> Answer {
    let made = state.last_command;
    let kept = state.world.commands.entry(path.to_owned()).or_default();
    let complete = |mut command: Value, number: u64| {
        let id = world::make_id(number, Kind::Other).to_string();
        let defaults = json!({
            "id": id, "application_id": world::BOT.to_string(), "version": id, "default_member_permissions": null,
            "dm_permission": true, "nsfw": false,
        });
        if command.get("type").is_none() {
            command["type"] = 1.into();
        }
        world::extend(&mut command, defaults);
        command
    };
    match (method, body) {
        (&Method::GET, _) => (StatusCode::OK, kept.clone().into()),
        (&Method::PUT, Value::Array(commands)) => {
            *kept =
                commands.into_iter().zip(made..).map(|(command, number)| complete(command, number)).collect();
            state.last_command += kept.len() as u64;
            (StatusCode::OK, kept.clone().into())
        }
        (&Method::POST, command @ Value::Object(_)) => {
            let command = complete(command, made);
            kept.push(command.clone());
            state.last_command += 1;
            (StatusCode::CREATED, command)
        }
        _ => (StatusCode::BAD_REQUEST, json!({"message": "Invalid Form Body", "code": 50035})),
    }
}

/// The simulator's own routes.
async fn control(method: &Method, path: &str, request: Request<Incoming>, discord: &Arc<Discord>) -> Reply {
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
                Ok(action) => discord.perform(&action).await.map_err(|error| error.to_string()),
                Err(problem) => Err(problem),
            };
            match acted {
                Ok(()) => reply(StatusCode::NO_CONTENT, &Value::Null),
                Err(error) => reply(StatusCode::BAD_REQUEST, &json!({"message": error})),
            }
        }
        _ => {
            let message = "the simulator has GET /sim/report and POST /sim/act";
            reply(StatusCode::NOT_FOUND, &json!({"message": message}))
        }
    }
}

/// The report as JSON. Of its log the newest Identify, or those from a place on; a client reads a long one in pages.
fn report(discord: &Discord, from: Option<&str>) -> Value {
    let (mut report, delivery) = {
        let state = discord.state();
        (state.report(), state.ledger.known_delivery())
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
    answer
}

fn number(id: &str) -> Option<u64> {
    id.parse().ok()
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn too_many(refusal: &Refusal) -> Reply {
    let mut reply = reply(StatusCode::TOO_MANY_REQUESTS, &refusal.body());
    refusal.write(reply.headers_mut());
    reply
}

pub(crate) fn reply(status: StatusCode, body: &Value) -> Reply {
    if status == StatusCode::NO_CONTENT {
        // Without a type: libraries read a body of JSON wherever one is announced.
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        return response;
    }
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    // Exactly so, without a charset, as Discord has it.
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
