//! The receiving half of a connection, which judges and answers each payload.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::heartbeats::{Heartbeats, Seen};
use super::opening::Opening;
use crate::commands::{self, Command};
use crate::discord::{Discord, JITTER_SAMPLE};
use crate::fault::ConnectFault;
use crate::judgement::{self, Judgement};
use crate::link::{Link, Out, text};
use crate::login::{self, Attempt, Identify, Login, Resume};
use crate::wire::Encoding;
use crate::{etf, judge};

/// The largest payload that a client may send, in bytes (GW-026).
const MAX_PAYLOAD_BYTES: usize = 4096;
/// How long a client that reads nothing may delay the close frame.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);
/// Payloads of all kinds per window, heartbeats included (GW-155).
const COMMANDS_PER_WINDOW: usize = 120;
/// Presence updates per window (GW-161).
const PRESENCES_PER_WINDOW: usize = 5;

pub(super) struct Reader<'a, S> {
    discord: &'a Discord,
    link: &'a Arc<Link>,
    stream: SplitStream<WebSocketStream<S>>,
    opening: Opening,
    resume_tried: bool,
    /// The opcode of an Identify or Resume that a fault leaves unanswered.
    unanswered: Option<u8>,
    session: Option<String>,
    resumed: bool,
    shard: Option<u32>,
    /// The code and time of the client's close frame, unless it was the answer to ours.
    client_close: Option<(u16, Instant)>,
    /// Whether an Identify or Resume was received and not refused. A second Identify is an error then
    /// (GW-074).
    authenticated: bool,
    heartbeats: Heartbeats,
    payloads: VecDeque<Instant>,
    presences: VecDeque<Instant>,
    /// Whether the client has broken the WebSocket protocol, so that nothing more can be read.
    broken: bool,
    /// When the connection ends even if the client has not received our close frame.
    closes_by: Option<Instant>,
    ended: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Reader<'a, S> {
    pub(super) fn new(
        discord: &'a Discord,
        link: &'a Arc<Link>,
        stream: SplitStream<WebSocketStream<S>>,
        opening: Opening,
    ) -> Self {
        let timings = &discord.config.timings;
        Self {
            discord,
            link,
            stream,
            opening,
            resume_tried: false,
            unanswered: None,
            session: None,
            resumed: false,
            shard: None,
            client_close: None,
            authenticated: false,
            heartbeats: Heartbeats::new(timings.heartbeat_interval, timings.heartbeat_tolerance),
            payloads: VecDeque::new(),
            presences: VecDeque::new(),
            broken: false,
            closes_by: None,
            ended: false,
        }
    }

    /// Takes the connection from its session, with the code and time of the client's close frame.
    pub(super) fn leave_session(&self, close: Option<(u16, Instant)>) {
        if let Some(session) = &self.session {
            self.leave(session, close);
        }
    }

    fn leave(&self, session: &str, close: Option<(u16, Instant)>) {
        let mut state = self.discord.state();
        let now = state.now();
        let close = close.map(|(code, at)| (code, state.clock.at(at)));
        state.sessions.disconnect(session, self.link, close, now);
        self.discord.changed(state);
    }

    /// The code and time of the client's close frame, unless it was the answer to ours.
    pub(super) fn client_close(&self) -> Option<(u16, Instant)> {
        self.client_close
    }

    /// Sends Hello, or what a fault puts in its place.
    pub(super) fn greet(&mut self) {
        if !self.opening.query.complete {
            self.judge(judgement::QUERY_INCOMPLETE, "a URL without v or encoding");
        }
        if !matches!(self.opening.query.mode.version, 6..=10) {
            self.close(4012, "Invalid API version.");
            return;
        }
        match self.opening.fault {
            Some(ConnectFault::NoHello) => {}
            Some(ConnectFault::ReconnectInsteadOfHello) => self.link.send(text(7, "null")),
            Some(ConnectFault::CloseInsteadOfHello { code }) => self.close(code, "fault"),
            _ => {
                let interval = self.discord.config.timings.heartbeat_interval.as_millis();
                let hello = format!(
                    r#"{{"heartbeat_interval":{interval},"_trace":["[\"sim\",{{\"micros\":0.0}}]"]}}"#
                );
                self.link.send(text(10, &hello));
                self.heartbeats.begin();
            }
        }
    }

    /// Reads until the client has left.
    pub(super) async fn run(&mut self) {
        while !self.ended {
            let due = self.heartbeats.due().filter(|_| !self.link.is_stalled());
            let stalled = self.link.is_stalled();
            let closes_by = self.closes_by.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = self.link.cut.notified() => return,
                () = self.link.stalled.notified() => {}
                message = self.stream.next(), if !stalled && !self.broken => match message {
                    Some(Ok(message)) if !self.link.is_stalled() => self.message(message),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => self.unreadable(&error),
                    None => self.ended = true,
                },
                () = sleep_until(closes_by), if self.closes_by.is_some() => self.ended = true,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.heartbeats.end();
                    self.judge(judgement::HEARTBEAT_MISSING, "no heartbeat within the interval and its tolerance");
                    // Discord was observed to close with 1000 in this case (GW-091, GW-119).
                    self.close(1000, "heartbeat missing");
                }
            }
        }
    }

    fn message(&mut self, message: Message) {
        let at = self.opening.arrival.at();
        match message {
            Message::Text(text) => self.bytes(text.as_bytes(), false, at),
            Message::Binary(bytes) => self.bytes(&bytes, true, at),
            // Discord does not document whether the echo of a close with 1000 ends the session. Here it does
            // not.
            Message::Close(_) if self.link.is_closing() => self.heartbeats.end(),
            Message::Close(frame) => {
                self.link.leave();
                self.client_close = frame.map(|frame| (frame.code.into(), at));
                self.heartbeats.end();
                match self.client_close.map(|(code, _)| code) {
                    None => self.judge(judgement::CLOSE_WITHOUT_CODE, "a close frame without a code"),
                    Some(1000 | 1001 | 4000..=4999) => {}
                    Some(code) => {
                        self.judge(judgement::CLOSE_CODE, format!("a close frame with code {code}"))
                    }
                }
            }
            _ => {}
        }
    }

    fn judge(&self, judgement: &'static Judgement, detail: impl Into<String>) {
        self.discord.judge(judgement, self.shard, detail);
    }

    /// Handles the end of the stream. A breach of RFC 6455 is closed with the code that it demands; in all
    /// other cases the client has left.
    fn unreadable(&mut self, error: &WsError) {
        let (judgement, code) = match error {
            WsError::Capacity(_) => (judgement::PAYLOAD_TOO_LARGE, 1009),
            WsError::Utf8(_) => (judgement::BAD_FRAME, 1007),
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return self.ended = true,
            WsError::Protocol(_) => (judgement::BAD_FRAME, 1002),
            _ => return self.ended = true,
        };
        // Nothing matters any more once a close frame was sent or received.
        if self.client_close.is_some() || self.link.is_closing() {
            return self.ended = true;
        }
        // Nothing more can be read, but the connection stays until the close frame is written.
        self.broken = true;
        self.judge(judgement, error.to_string());
        self.close(code, "");
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        self.heartbeats.end();
        self.closes_by.get_or_insert_with(|| Instant::now() + CLOSE_PATIENCE);
        self.link.send(Out::Close { code, reason });
    }

    fn bytes(&mut self, bytes: &[u8], binary: bool, at: Instant) {
        if self.client_close.is_some() {
            return;
        }
        if bytes.len() > MAX_PAYLOAD_BYTES {
            self.judge(judgement::PAYLOAD_TOO_LARGE, format!("a payload of {} bytes", bytes.len()));
            return self.close(4002, "Payload too large.");
        }
        let window = self.discord.config.timings.command_window;
        if judge::exceeds(&mut self.payloads, at, window, COMMANDS_PER_WINDOW) {
            self.judge(
                judgement::TOO_MANY_PAYLOADS,
                format!("more than {COMMANDS_PER_WINDOW} payloads in one window"),
            );
            return self.close(4008, "Rate limited.");
        }
        // JSON is accepted in binary frames too.
        let payload = if binary && self.opening.query.mode.encoding == Encoding::Etf {
            etf::decode(bytes)
        } else {
            serde_json::from_slice(bytes).map_err(|_| (judgement::UNREADABLE, "a payload that is not JSON"))
        };
        match payload {
            Ok(Value::Object(mut payload)) => {
                let data = payload.remove("d").unwrap_or_default();
                self.payload(payload.get("op").and_then(Value::as_u64), data, at);
            }
            Ok(_) => {
                self.judge(judgement::UNREADABLE, "a payload that is not an object");
                self.close(4002, "Decode error.");
            }
            Err((judgement, detail)) => {
                self.judge(judgement, detail);
                self.close(4002, "Decode error.");
            }
        }
    }

    fn payload(&mut self, op: Option<u64>, data: Value, at: Instant) {
        match op {
            Some(1) => self.heartbeat(&data, at),
            Some(2) => self.identify(&data, at),
            Some(6) => self.resume(&data, at),
            Some(op @ (3 | 4 | 8 | 31 | 43)) => self.command(op, data, at),
            op => {
                let judgement = match op {
                    Some(11) => judgement::HEARTBEAT_ANSWER,
                    Some(0 | 7 | 9 | 10) => judgement::RECEIVE_ONLY_OPCODE,
                    _ => judgement::UNKNOWN_OPCODE,
                };
                let detail = op.map_or("a payload without an opcode".to_owned(), |op| format!("opcode {op}"));
                self.judge(judgement, detail);
                self.close(4001, "Unknown opcode.");
            }
        }
    }

    fn heartbeat(&mut self, data: &Value, at: Instant) {
        if data.is_u64()
            && let Some(session) = &self.session
            && let Some(session) = self.discord.state().sessions.get_mut(session)
        {
            session.proven = true;
        }
        self.count_heartbeat(at);
        let seen = Seen {
            data,
            sent: self.last_sequence(),
            resumed: self.resumed,
            requested: self.link.take_requested(),
            acknowledging: self.link.acks(),
            at,
        };
        for (judgement, detail) in self.heartbeats.beat(&seen) {
            self.judge(judgement, detail);
        }
        if self.link.acks() {
            self.link.send(text(11, "null"));
        }
    }

    fn count_heartbeat(&self, at: Instant) {
        let first = self.heartbeats.first_at(at);
        let mut state = self.discord.state();
        state.report.heartbeats += 1;
        let is_unjittered = first.is_some_and(|first| state.jitter.note(self.link.id, first));
        self.discord.changed(state);
        if is_unjittered {
            let detail = format!(
                "{JITTER_SAMPLE} connections whose first heartbeat came at the same time after Hello"
            );
            self.discord.judge(judgement::HEARTBEATS_UNJITTERED, None, detail);
        }
    }

    /// The last sequence that was sent in the session of this connection.
    fn last_sequence(&self) -> Option<u64> {
        Some(self.discord.state().sessions.get(self.session.as_deref()?)?.sequence)
    }

    fn identify(&mut self, data: &Value, at: Instant) {
        if self.unanswered == Some(6) {
            self.judge(judgement::IDENTIFY_BEHIND_RESUME, "an Identify after a Resume that was not answered");
            return self.close(4005, "Already authenticated.");
        }
        if self.authenticated && self.has_session() {
            self.judge(judgement::ALREADY_AUTHENTICATED, "a second Identify on one connection");
            return self.close(4005, "Already authenticated.");
        }
        let Some(identify) = Identify::read(data) else {
            self.judge(judgement::IDENTIFY_INCOMPLETE, "an Identify without token, properties or intents");
            return self.close(4002, "Decode error.");
        };
        self.shard = Some(identify.shard_id());
        // After a refused Resume, the client may identify on the same connection (GW-150).
        if self.opening.host.is_for_resume() && !self.resume_tried {
            self.judge(judgement::IDENTIFY_AT_RESUME_URL, "an Identify at the URL that is for Resume");
        }
        for (judgement, detail) in judge::identify(data, self.opening.query.mode) {
            self.judge(judgement, detail);
        }
        if let Some(presence) = &identify.presence {
            self.judge_presence(presence);
        }
        self.authenticated = true;
        self.resumed = false;
        let fault = match self.opening.fault {
            Some(ConnectFault::CloseResume { .. }) => None,
            _ => self.login_fault(),
        };
        let login = login::identify(self.discord, &identify, self.attempt(fault, at));
        self.logged_in(2, login);
    }

    fn attempt(&self, fault: Option<ConnectFault>, at: Instant) -> Attempt<'a> {
        Attempt { mode: self.opening.query.mode, link: self.link, fault, at }
    }

    /// Whether this connection has a session that is not over.
    fn has_session(&self) -> bool {
        let Some(session) = &self.session else { return false };
        self.discord.state().sessions.live_mut(session).is_some() && !self.link.is_logged_out()
    }

    fn resume(&mut self, data: &Value, at: Instant) {
        let text = |field: &str| data.get(field).and_then(Value::as_str);
        let sequence = data.get("seq").and_then(Value::as_u64);
        let (Some(token), Some(session), Some(sequence)) = (text("token"), text("session_id"), sequence)
        else {
            self.judge(judgement::RESUME_INCOMPLETE, "a Resume without token, session_id or seq");
            return self.close(4002, "Decode error.");
        };
        if self.authenticated && self.has_session() {
            self.judge(judgement::ALREADY_AUTHENTICATED, "a Resume on a connection that has a session");
            return self.close(4005, "Already authenticated.");
        }
        self.authenticated = true;
        self.resume_tried = true;
        self.shard = self.discord.state().sessions.get(session).map(|session| session.shard);
        let resume = Resume { token, session, sequence };
        if let Some(detail) = resume.wrong_url(self.discord, self.opening.host) {
            self.judge(judgement::RESUME_AT_BOOTSTRAP_URL, detail);
        }
        if self.opening.fault == Some(ConnectFault::NoReady) {
            self.unanswered = Some(6);
            return;
        }
        let fault = match self.opening.fault {
            Some(ConnectFault::InvalidIdentify) => None,
            _ => self.login_fault(),
        };
        let login = login::resume(self.discord, &resume, self.attempt(fault, at));
        self.resumed = matches!(login, Login::Accepted { .. });
        self.logged_in(6, login);
    }

    /// Takes the fault of the next login, if there is one.
    fn login_fault(&mut self) -> Option<ConnectFault> {
        match self.opening.fault {
            Some(
                ConnectFault::RefuseResume
                | ConnectFault::InvalidIdentify
                | ConnectFault::Close { .. }
                | ConnectFault::CloseResume { .. },
            ) => self.opening.fault.take(),
            fault => fault.filter(|fault| *fault == ConnectFault::NoReady),
        }
    }

    fn logged_in(&mut self, op: u8, login: Login) {
        match login {
            Login::Accepted { session } => {
                // After op 9 the client may log in to another session here. The previous one may be resumed
                // elsewhere.
                if let Some(before) =
                    self.session.replace(session.clone()).filter(|before| *before != session)
                {
                    self.leave(&before, None);
                }
                self.heartbeats.new_session();
            }
            Login::Refused => {
                // The client may try again on this connection (GW-150).
                self.authenticated = false;
                self.session = None;
                self.link.send(Out::InvalidSession { session: None, resumable: false });
            }
            Login::Ignored => self.unanswered = Some(op),
            Login::Closed { code, reason } => self.close(code, reason),
        }
    }

    fn command(&mut self, op: u64, data: Value, at: Instant) {
        if !self.authenticated {
            self.judge(judgement::COMMAND_BEFORE_LOGIN, format!("op {op} before Identify or Resume"));
            return self.close(4003, "Not authenticated.");
        }
        {
            let mut state = self.discord.state();
            state.report.commands += 1;
            self.discord.changed(state);
        }
        if !data.is_object() {
            self.judge(judgement::UNREADABLE, format!("op {op} whose data is not an object"));
            return self.close(4002, "Decode error.");
        }
        let mut ignored = false;
        if op == 3 {
            self.judge_presence(&data);
            let window = self.discord.config.timings.presence_window;
            if judge::exceeds(&mut self.presences, at, window, PRESENCES_PER_WINDOW) {
                let detail = format!("more than {PRESENCES_PER_WINDOW} presence updates in one window");
                self.judge(judgement::TOO_MANY_PRESENCES, detail);
                ignored = true;
            }
        }
        let Some(session) = self.session.clone().filter(|session| self.owns(session) && !ignored) else {
            return;
        };
        let command = Command { op, data, session, at };
        let outcome = commands::run(self.discord, &command);
        for (judgement, detail) in outcome.findings {
            self.judge(judgement, detail);
        }
        if let Some((code, reason)) = outcome.close {
            self.close(code, reason);
        }
    }

    /// Whether this session is alive and has this connection.
    fn owns(&self, session: &str) -> bool {
        let mut state = self.discord.state();
        let link = state.sessions.live_mut(session).and_then(|session| session.link.as_ref());
        link.is_some_and(|link| link.id == self.link.id)
    }

    fn judge_presence(&self, presence: &Value) {
        for (judgement, detail) in judge::presence(presence) {
            self.judge(judgement, detail);
        }
    }
}
