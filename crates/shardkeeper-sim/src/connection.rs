//! One Gateway connection, from Hello to its end.
//!
//! Reading and writing go on side by side: a client that takes nothing is still heard.

use std::collections::VecDeque;
use std::sync::Arc;

use flate2::{Compress, Compression, FlushCompress};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, frame::coding::CloseCode};

use crate::discord::{Discord, text};
use crate::fault::ConnectFault;
use crate::link::{Link, Next, Out};
use crate::login::{Identify, Login};

/// The largest payload that a client may send (GW-026).
const MAX_PAYLOAD_BYTES: usize = 4096;
const COMMANDS_PER_WINDOW: usize = 120;
const PRESENCES_PER_WINDOW: usize = 5;

/// What the URL asked for.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    pub(crate) version: u32,
    pub(crate) compressed: bool,
    /// It is the URL of READY, and not the bootstrap URL.
    pub(crate) at_resume_url: bool,
}

pub(crate) async fn serve<S>(stream: S, mode: Mode, fault: Option<ConnectFault>, discord: Arc<Discord>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let (sink, stream) = socket.split();
    let link = discord.new_link();
    let deflate = mode.compressed.then(|| Compress::new(Compression::fast(), true));
    let mut writer = Writer { discord: &discord, link: &link, sink, deflate };
    let mut reader = Reader::new(&discord, &link, stream, mode, fault);
    reader.greet(mode.version);
    let cut = tokio::select! {
        () = reader.run() => false,
        cut = writer.run() => {
            if !cut {
                // The client's answer to our close frame is waited for, or its last words would be lost.
                let _ = timeout(discord.config.timings.close_grace, reader.run()).await;
            }
            cut
        }
    };
    let code = if cut { None } else { reader.close_code };
    discord.disconnected(reader.session.as_deref(), &link, code);
}

struct Writer<'a, S> {
    discord: &'a Discord,
    link: &'a Link,
    sink: SplitSink<WebSocketStream<S>, Message>,
    /// One context for the whole connection (GW-043).
    deflate: Option<Compress>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<'_, S> {
    /// Until the connection is to end; `true` when it is to end at once.
    async fn run(&mut self) -> bool {
        let mut drained = false;
        loop {
            let sent = match self.link.next(drained) {
                Next::Cut => return true,
                Next::Wait => {
                    self.link.woken().await;
                    drained = false;
                    continue;
                }
                Next::Control(Out::Text(payload)) => self.payload(payload.as_bytes()).await,
                Next::Control(Out::Corrupt) => self.garbage().await,
                Next::Control(Out::Close { code, reason }) => {
                    self.link.closing();
                    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
                    let _ = self.sink.send(Message::Close(Some(frame))).await;
                    return false;
                }
                Next::Dispatches(feed) => match self.discord.next_dispatch(&feed, self.link) {
                    Ok(Some(payload)) => self.payload(&payload).await,
                    Ok(None) => {
                        drained = true;
                        continue;
                    }
                    Err(_) => return true,
                },
            };
            drained = false;
            if sent.is_err() {
                // The reader sees the end, and the client's close code if there is one.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn payload(&mut self, payload: &[u8]) -> Result<(), Gone> {
        let Some(deflate) = &mut self.deflate else {
            let text = std::str::from_utf8(payload).map_err(|_| Gone)?;
            return self.sink.send(Message::text(text)).await.map_err(|_| Gone);
        };
        let mut out = Vec::with_capacity(payload.len() / 2 + 64);
        let mut rest = payload;
        loop {
            let before = deflate.total_in();
            deflate.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(|_| Gone)?;
            // At most the length of the slice.
            rest = &rest[(deflate.total_in() - before) as usize..];
            if out.len() < out.capacity() {
                break;
            }
            out.reserve(out.capacity());
        }
        let mut start = 0;
        for end in self.discord.cuts(out.len()).into_iter().chain([out.len()]) {
            self.sink.send(Message::binary(out[start..end].to_vec())).await.map_err(|_| Gone)?;
            start = end;
        }
        Ok(())
    }

    async fn garbage(&mut self) -> Result<(), Gone> {
        if self.deflate.is_some() {
            return self
                .sink
                .send(Message::binary(&b"\x07garbage\x00\x00\xff\xff"[..]))
                .await
                .map_err(|_| Gone);
        }
        for _ in 0..8 {
            self.sink.send(Message::text("{\"op\":garbage")).await.map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// The connection takes nothing more.
struct Gone;

struct Reader<'a, S> {
    discord: &'a Discord,
    link: &'a Arc<Link>,
    stream: SplitStream<WebSocketStream<S>>,
    mode: Mode,
    resume_tried: bool,
    fault: Option<ConnectFault>,
    session: Option<String>,
    shard: Option<u32>,
    close_code: Option<u16>,
    /// Identify or Resume was taken in, so that a second Identify is one too many (GW-074).
    authenticated: bool,
    heartbeat_due: Option<Instant>,
    payloads: VecDeque<Instant>,
    presences: VecDeque<Instant>,
    ended: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Reader<'a, S> {
    fn new(
        discord: &'a Discord,
        link: &'a Arc<Link>,
        stream: SplitStream<WebSocketStream<S>>,
        mode: Mode,
        fault: Option<ConnectFault>,
    ) -> Self {
        Self {
            discord,
            link,
            stream,
            mode,
            resume_tried: false,
            fault,
            session: None,
            shard: None,
            close_code: None,
            authenticated: false,
            heartbeat_due: None,
            payloads: VecDeque::new(),
            presences: VecDeque::new(),
            ended: false,
        }
    }

    fn greet(&mut self, version: u32) {
        if !matches!(version, 6..=10) {
            self.close(4012, "invalid API version");
            return;
        }
        match self.fault {
            Some(ConnectFault::NoHello) => {}
            Some(ConnectFault::ReconnectInsteadOfHello) => self.link.send(text(7, "null")),
            _ => {
                let interval = self.discord.config.timings.heartbeat_interval.as_millis();
                let hello = format!(
                    r#"{{"heartbeat_interval":{interval},"_trace":["[\"sim\",{{\"micros\":0.0}}]"]}}"#
                );
                self.link.send(text(10, &hello));
                self.await_heartbeat();
            }
        }
    }

    fn await_heartbeat(&mut self) {
        let timings = &self.discord.config.timings;
        self.heartbeat_due = Some(Instant::now() + timings.heartbeat_interval + timings.heartbeat_tolerance);
    }

    /// Until the client is gone.
    async fn run(&mut self) {
        while !self.ended {
            if self.link.is_half_open() {
                self.link.cut.notified().await;
                return;
            }
            let due = self.heartbeat_due;
            tokio::select! {
                message = self.stream.next() => match message {
                    Some(Ok(message)) if !self.link.is_half_open() => self.message(message),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => self.ended = true,
                },
                () = self.link.cut.notified() => return,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.heartbeat_due = None;
                    self.violate("GW-111", "no heartbeat within the interval and its tolerance");
                    // As Discord has been seen to do (GW-091, GW-119).
                    self.close(1000, "heartbeat missing");
                }
            }
        }
    }

    fn message(&mut self, message: Message) {
        let at = Instant::now();
        match message {
            // JSON in binary frames is taken too.
            Message::Text(text) => self.payload(text.as_bytes(), at),
            Message::Binary(bytes) => self.payload(&bytes, at),
            // Whether an echo of 1000 would end the session is not known (section 23): here it does not.
            Message::Close(_) if self.link.is_closing() => self.heartbeat_due = None,
            Message::Close(frame) => {
                self.close_code = frame.map(|frame| frame.code.into());
                self.heartbeat_due = None;
            }
            _ => {}
        }
    }

    fn violate(&self, rule: &'static str, detail: impl Into<String>) {
        self.discord.violation(rule, self.shard, detail);
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        self.heartbeat_due = None;
        self.link.send(Out::Close { code, reason });
    }

    fn payload(&mut self, payload: &[u8], at: Instant) {
        if self.close_code.is_some() {
            return;
        }
        if payload.len() > MAX_PAYLOAD_BYTES {
            self.violate("GW-026", format!("a payload of {} bytes", payload.len()));
            return self.close(4002, "payload too large");
        }
        if exceeds(&mut self.payloads, at, self.discord.config.timings.command_window, COMMANDS_PER_WINDOW) {
            self.violate("GW-155", format!("more than {COMMANDS_PER_WINDOW} payloads in one window"));
            return self.close(4008, "rate limited");
        }
        let Ok(Value::Object(mut payload)) = serde_json::from_slice(payload) else {
            self.violate("GW-078", "a payload that is no JSON object");
            return self.close(4002, "decode error");
        };
        let data = payload.remove("d").unwrap_or_default();
        match payload.get("op").and_then(Value::as_u64) {
            Some(1) => self.heartbeat(&data),
            Some(2) => self.identify(&data, at),
            Some(6) => self.resume(&data),
            Some(op @ (3 | 4 | 8 | 31 | 43)) => self.command(op, data, at),
            op => {
                self.violate("GW-068", format!("opcode {op:?}"));
                self.close(4001, "unknown opcode");
            }
        }
    }

    fn heartbeat(&mut self, data: &Value) {
        self.discord.heartbeat();
        self.await_heartbeat();
        let last = self.session.as_deref().and_then(|session| self.discord.last_sequence(session));
        match data {
            Value::Null => {}
            Value::Number(sequence) if sequence.as_u64() <= last.or(Some(u64::MAX)) => {}
            other => self
                .violate("GW-112", format!("a heartbeat with {other}, when {last:?} was the last sequence")),
        }
        if self.link.acks() {
            self.link.send(text(11, "null"));
        }
    }

    fn identify(&mut self, data: &Value, at: Instant) {
        let over = self.session.as_deref().is_none_or(|session| self.discord.is_over(session));
        if self.authenticated && !over {
            self.violate("GW-074", "a second Identify on one connection");
            return self.close(4005, "already authenticated");
        }
        let Some(identify) = read_identify(data) else {
            self.violate("GW-069", "an Identify without token, properties or intents");
            return self.close(4002, "decode error");
        };
        self.shard = Some(identify.shard);
        // After a refused Resume it may go on where it is (GW-150).
        if self.mode.at_resume_url && !self.resume_tried {
            self.violate("GW-140", "an Identify at the URL that is for Resume");
        }
        if let Some(presence) = &identify.presence {
            self.judge_presence(presence);
        }
        self.authenticated = true;
        let fault = self.login_fault();
        let login = self.discord.identify(&identify, self.link, fault, at);
        self.logged_in(login);
    }

    fn resume(&mut self, data: &Value) {
        let text = |field: &str| data.get(field).and_then(Value::as_str);
        let sequence = data.get("seq").and_then(Value::as_u64);
        let (Some(token), Some(id), Some(sequence)) = (text("token"), text("session_id"), sequence) else {
            self.violate("GW-131", "a Resume without token, session_id or seq");
            return self.close(4002, "decode error");
        };
        if self.authenticated && self.session.as_deref().is_some_and(|session| !self.discord.is_over(session))
        {
            self.violate("GW-074", "a Resume on a connection that has a session");
            return self.close(4005, "already authenticated");
        }
        self.authenticated = true;
        self.resume_tried = true;
        self.shard = self.discord.shard_of(id);
        if self.fault == Some(ConnectFault::NoReady) {
            return;
        }
        let fault = match self.fault {
            Some(ConnectFault::InvalidIdentify) => None,
            _ => self.login_fault(),
        };
        let login = self.discord.resume(token, id, sequence, self.link, fault);
        self.logged_in(login);
    }

    /// The fault that concerns a login, once.
    fn login_fault(&mut self) -> Option<ConnectFault> {
        match self.fault {
            Some(ConnectFault::RefuseResume | ConnectFault::InvalidIdentify | ConnectFault::Close { .. }) => {
                self.fault.take()
            }
            fault => fault.filter(|fault| *fault == ConnectFault::NoReady),
        }
    }

    fn logged_in(&mut self, login: Login) {
        match login {
            Login::Accepted { session } => self.session = Some(session),
            Login::Refused => {
                // The connection is as before a login, and may try again (GW-150).
                self.authenticated = false;
                self.session = None;
                self.link.send(text(9, "false"));
            }
            Login::Ignored => {}
            Login::Closed { code, reason } => self.close(code, reason),
        }
    }

    fn command(&mut self, op: u64, data: Value, at: Instant) {
        let session = self.session.clone().filter(|session| !self.discord.is_over(session));
        if !self.authenticated {
            self.violate("GW-028", format!("op {op} before Identify or Resume"));
            return self.close(4003, "not authenticated");
        }
        self.discord.command();
        if !data.is_object() {
            self.violate("GW-078", format!("op {op} whose data is no object"));
            return self.close(4002, "decode error");
        }
        if op == 3 {
            self.judge_presence(&data);
            let window = self.discord.config.timings.presence_window;
            if exceeds(&mut self.presences, at, window, PRESENCES_PER_WINDOW) {
                self.violate(
                    "GW-161",
                    format!("more than {PRESENCES_PER_WINDOW} presence updates in one window"),
                );
            }
            if let (Some(_), Some(shard)) = (session, self.shard) {
                self.discord.presence(shard, data);
            }
        }
    }

    fn judge_presence(&self, presence: &Value) {
        for field in ["since", "activities", "status", "afk"] {
            if presence.get(field).is_none() {
                self.violate("GW-192", format!("a presence without {field}"));
            }
        }
        let status = presence.get("status").and_then(Value::as_str).unwrap_or_default();
        if !matches!(status, "online" | "dnd" | "idle" | "invisible" | "offline") {
            self.violate("GW-193", format!("a presence of status {status:?}"));
        }
    }
}

fn read_identify(data: &Value) -> Option<Identify> {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let (shard, count) = match data.get("shard") {
        None | Some(Value::Null) => (0, 1),
        Some(pair) => (number(pair.get(0)?)?, number(pair.get(1)?)?),
    };
    data.get("properties").filter(|properties| properties.is_object())?;
    Some(Identify {
        token: data.get("token")?.as_str()?.to_owned(),
        shard,
        count,
        intents: data.get("intents")?.as_u64()?,
        presence: data.get("presence").filter(|presence| !presence.is_null()).cloned(),
    })
}

/// Notes one more, and says whether there were more than `limit` within the window.
fn exceeds(times: &mut VecDeque<Instant>, at: Instant, window: std::time::Duration, limit: usize) -> bool {
    while times.front().is_some_and(|first| at.duration_since(*first) >= window) {
        times.pop_front();
    }
    times.push_back(at);
    times.len() > limit
}
