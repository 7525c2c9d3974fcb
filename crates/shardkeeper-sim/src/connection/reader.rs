//! What comes in: each payload is judged, and answered.

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

use super::Opening;
use super::heartbeats::{Heartbeats, Seen};
use crate::commands::Command;
use crate::discord::{Discord, text};
use crate::fault::ConnectFault;
use crate::judgement::{self, Judgement};
use crate::link::{Link, Out};
use crate::login::{Identify, Login, Resume};
use crate::wire::Encoding;
use crate::{etf, judge};

/// The largest payload that a client may send (GW-026).
const MAX_PAYLOAD_BYTES: usize = 4096;
/// How long a client that is closed may keep from taking the close frame, by taking nothing at all.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);
const COMMANDS_PER_WINDOW: usize = 120;
const PRESENCES_PER_WINDOW: usize = 5;

pub(super) struct Reader<'a, S> {
    discord: &'a Discord,
    link: &'a Arc<Link>,
    stream: SplitStream<WebSocketStream<S>>,
    opening: Opening,
    resume_tried: bool,
    /// Resume or Identify is under way and was not answered.
    unanswered: Option<u8>,
    session: Option<String>,
    resumed: bool,
    shard: Option<u32>,
    /// The code of the client's close frame, if that was not its answer to ours, and when it came.
    client_close: Option<(u16, Instant)>,
    /// Identify or Resume was taken in, so that a second Identify is one too many (GW-074).
    authenticated: bool,
    heartbeats: Heartbeats,
    payloads: VecDeque<Instant>,
    presences: VecDeque<Instant>,
    /// What the client sends cannot be read any more.
    broken: bool,
    /// The client has to take our close frame by then.
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

    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The code of the client's close frame, if that was not its answer to ours, and when it came.
    pub(super) fn client_close(&self) -> Option<(u16, Instant)> {
        self.client_close
    }

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

    /// Until the client is gone.
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
                    // As Discord has been seen to do (GW-091, GW-119).
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
            // Whether an echo of 1000 would end the session is not documented: here it does not.
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

    /// Answers what RFC 6455 does not allow as it asks of a server. Whatever else ends the stream is the client's leaving.
    fn unreadable(&mut self, error: &WsError) {
        let (judgement, code) = match error {
            WsError::Capacity(_) => (judgement::PAYLOAD_TOO_LARGE, 1009),
            WsError::Utf8(_) => (judgement::BAD_FRAME, 1007),
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return self.ended = true,
            WsError::Protocol(_) => (judgement::BAD_FRAME, 1002),
            _ => return self.ended = true,
        };
        // Once the close frames are exchanged, nothing that comes is of interest.
        if self.client_close.is_some() || self.link.is_closing() {
            return self.ended = true;
        }
        // The library knows no more of this stream; the connection lasts until the close frame is written.
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
        // JSON in binary frames is taken too.
        let payload = if binary && self.opening.query.mode.encoding == Encoding::Etf {
            etf::decode(bytes)
        } else {
            serde_json::from_slice(bytes).map_err(|_| (judgement::UNREADABLE, "a payload that is no JSON"))
        };
        match payload {
            Ok(Value::Object(mut payload)) => {
                let data = payload.remove("d").unwrap_or_default();
                self.payload(payload.get("op").and_then(Value::as_u64), data, at);
            }
            Ok(_) => {
                self.judge(judgement::UNREADABLE, "a payload that is no object");
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
                self.judge(judgement, format!("opcode {op:?}"));
                self.close(4001, "Unknown opcode.");
            }
        }
    }

    fn heartbeat(&mut self, data: &Value, at: Instant) {
        if let Some(session) = self.session.as_deref().filter(|_| data.is_u64()) {
            self.discord.proven(session);
        }
        self.discord.heartbeat(self.link.id, self.heartbeats.first_at(at));
        let seen = Seen {
            data,
            sent: self.session.as_deref().and_then(|session| self.discord.last_sequence(session)),
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

    fn identify(&mut self, data: &Value, at: Instant) {
        if self.unanswered == Some(6) {
            self.judge(
                judgement::IDENTIFY_BEHIND_RESUME,
                "an Identify behind a Resume that was not answered",
            );
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
        // After a refused Resume it may go on where it is (GW-150).
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
        let login = self.discord.identify(&identify, self.opening.query.mode, self.link, fault, at);
        self.logged_in(2, login);
    }

    fn has_session(&self) -> bool {
        let lives = self.session.as_deref().is_some_and(|session| !self.discord.is_over(session));
        lives && !self.link.is_logged_out()
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
        self.shard = self.discord.shard_of(session);
        if let Some(detail) = self.discord.strays(session, self.opening.host) {
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
        let resume = Resume { token, session, sequence, mode: self.opening.query.mode, at };
        let login = self.discord.resume(&resume, self.link, fault);
        self.resumed = matches!(login, Login::Accepted { .. });
        self.logged_in(6, login);
    }

    /// The fault that concerns a login, once.
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
                // The session that op 9 took from this connection may still be resumed elsewhere.
                if let Some(before) =
                    self.session.replace(session.clone()).filter(|before| *before != session)
                {
                    self.discord.disconnected(Some(&before), self.link, None);
                }
                self.heartbeats.new_session();
            }
            Login::Refused => {
                // The connection is as before a login, and may try again (GW-150).
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
        self.discord.command();
        if !data.is_object() {
            self.judge(judgement::UNREADABLE, format!("op {op} whose data is no object"));
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
        let Some(session) =
            self.session.clone().filter(|session| self.discord.owns(session, self.link) && !ignored)
        else {
            return;
        };
        let command = Command { op, data, session, at };
        let outcome = self.discord.command_of(&command);
        for (judgement, detail) in outcome.findings {
            self.judge(judgement, detail);
        }
        if let Some((code, reason)) = outcome.close {
            self.close(code, reason);
        }
    }

    fn judge_presence(&self, presence: &Value) {
        for (judgement, detail) in judge::presence(presence) {
            self.judge(judgement, detail);
        }
    }
}
