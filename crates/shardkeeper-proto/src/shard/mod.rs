//! The machine of one shard.
//!
//! Its contract: **every call of [`Shard::handle_input`] is followed by calls of [`Shard::poll_output`] until one
//! returns [`Output::Timeout`]**; outputs are carried out in their order, and at the time that `Timeout` names
//! [`Input::Timeout`] is due.
//!
//! ```text
//!            Start                Connected            op 10
//! Idle ──▶ Disconnected ──▶ Connecting ──▶ AwaitingHello ──┬─ session ─▶ Resuming ────RESUMED──▶ Ready
//!              │   ▲  no session: Queued first             └─ none ─▶ AwaitingPermit            ▲
//!              ▼   │                                                    └─ permit ─▶ Identifying ─READY
//!          Queued  └── Closing ◀── op 7, op 9, no ack, deadlines, unreadable input, Stop, Detach
//! ```
//!
//! A connection that ends leads through `Closing` (when we close it) to `Disconnected`, where it waits and tries
//! again; a fatal close code to `Refused`; `Stop` and `Detach` to `Stopped`.

mod change;
mod heartbeat;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Deserialize;
use url::Url;

pub use self::change::{Change, Initiator, Next, Reason, Refusal};
use self::heartbeat::{Heartbeat, Tick};
use crate::close::{CloseCode, Recovery, ours};
use crate::payload::{self, Payload};
use crate::{
    CommandLimiter, Envelope, EventName, IdentifyPermit, Intents, Opcode, PresenceUpdate, Priority, Session,
    ShardCount, ShardId, Timings, Token, Urgency, gateway_url,
};

/// So many unreadable payloads in a row and the connection is given up.
const MALFORMED_LIMIT: u32 = 5;

/// What a shard needs to know. It does not change while the shard lives.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The bot's token.
    pub token: Token,
    /// Which shard it is.
    pub shard: ShardId,
    /// Of how many.
    pub count: ShardCount,
    /// What it asks to receive.
    pub intents: Intents,
    /// From how many members on a guild is sent without those offline: 50 to 250 (GW-072).
    pub large_threshold: u8,
    /// The name that Identify gives for `browser` and `device`.
    pub library: String,
    /// The bootstrap URL, from `GET /gateway/bot`.
    pub gateway_url: Url,
    /// The value of the `compress` parameter, if transport compression is on.
    pub compress: Option<&'static str>,
    /// How many resumes in a row may fail before the session is given up. 3.
    pub max_failed_resumes: u32,
    /// Deadlines and waits.
    pub timings: Timings,
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// Begin. Once, first.
    Start,
    /// The connection is open.
    Connected,
    /// Opening the connection begins only after this wait: its deadline moves.
    ConnectDelayed(Duration),
    /// The connection could not be opened.
    ConnectFailed,
    /// A payload came.
    Payload(&'a Envelope<'a>),
    /// A payload came that cannot be read.
    Malformed,
    /// The connection is over: with this close code, or without any. `corrupt` when what came in could not be
    /// decoded, and the transport gave up for that reason.
    Closed {
        /// The close code that Discord sent.
        code: Option<u16>,
        /// Whether the received stream was unreadable.
        corrupt: bool,
    },
    /// The identify queue lets it connect.
    Turn,
    /// The identify queue lets it identify.
    Permit(IdentifyPermit),
    /// The identify queue was replaced: a shard that waits for it asks again.
    QueueReplaced,
    /// Set the presence, now and in each later Identify.
    Presence(PresenceUpdate),
    /// The driver stopped reading from the connection, or reads again.
    ReadingPaused(bool),
    /// The time that [`Output::Timeout`] named has come.
    Timeout,
    /// End, and give the session up.
    Stop,
    /// End, and leave the session for another process to resume.
    Detach,
}

/// What to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Open a connection.
    Connect(Url),
    /// Send a payload.
    Send(Payload),
    /// Close with this code; go on reading until [`Input::Closed`] or [`Output::Disconnect`].
    Close(u16),
    /// Drop the connection, or the attempt to open one, now.
    Disconnect,
    /// Publish the dispatch that was just fed; then its sequence number may be stored.
    Deliver {
        /// The sequence number.
        sequence: u64,
    },
    /// Ask the identify queue for a turn to connect.
    Enqueue(Priority),
    /// Tell the identify queue that Hello came, and ask for the permit.
    ClaimPermit(Priority),
    /// Tell the identify queue that this shard no longer waits. What it held is unspent.
    LeaveQueue,
    /// The session to store; `None` when it is gone.
    SessionChanged(Option<Session>),
    /// The state changed.
    Changed(Change),
    /// Nothing more to do until then, or until something happens.
    Timeout(Option<Instant>),
}

/// Where a shard stands. The data of a state lives in it and ends with it.
#[derive(Debug)]
enum State {
    Idle,
    Disconnected { retry_at: Instant },
    Queued { ask_again_at: Instant },
    Connecting { deadline: Instant },
    AwaitingHello { deadline: Instant },
    AwaitingPermit { ask_again_at: Instant },
    Identifying { deadline: Instant },
    Resuming { deadline: Instant, replayed: u64 },
    Ready { since: Instant },
    Closing { deadline: Instant, then: Then },
    Stopped,
    Refused,
}

/// What follows a closing handshake.
#[derive(Clone, Copy, Debug)]
enum Then {
    Retry { after: Duration },
    Stop,
}

/// The machine of one shard. See the [module](self) for its contract.
pub struct Shard {
    config: ShardConfig,
    state: State,
    session: Option<Session>,
    /// From Hello to the end of the connection.
    heartbeat: Option<Heartbeat>,
    limiter: CommandLimiter,
    presence: Option<PresenceUpdate>,
    /// Whether Discord does not know of the presence yet.
    presence_unsent: bool,
    /// Connections that ended before they were ready for long.
    failures: u32,
    /// Identify sent without a session that lasted.
    failed_identifies: u32,
    /// Resume sent without an answer, in a row.
    failed_resumes: u32,
    had_session: bool,
    /// The resume URL could not be reached: use the bootstrap URL next time (GW-139).
    avoid_resume_url: bool,
    malformed: u32,
    /// When something that the limits hold back may be sent.
    flush_at: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("shard", &self.config.shard)
            .field("state", &self.state)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// A shard that does nothing yet. With a session it begins by resuming it; a session of another shard or
    /// layout is not used.
    pub fn new(config: ShardConfig, session: Option<Session>) -> Self {
        let session =
            session.filter(|session| session.shard == config.shard && session.count == config.count);
        let limiter = CommandLimiter::new(config.timings.command_window, config.timings.presence_window);
        Self {
            state: State::Idle,
            had_session: session.is_some(),
            session,
            heartbeat: None,
            limiter,
            presence: None,
            presence_unsent: false,
            failures: 0,
            failed_identifies: 0,
            failed_resumes: 0,
            avoid_resume_url: false,
            malformed: 0,
            flush_at: None,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// The session as it stands, with the last sequence number received.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Whether commands can be sent.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// Whether the shard is at its end, and no input will change that.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Stopped | State::Refused)
    }

    /// The time between the last heartbeat and its acknowledgement, on this connection (GW-123).
    pub fn latency(&self) -> Option<Duration> {
        self.heartbeat.as_ref()?.latency()
    }

    /// Takes in what happened at `now`, which must not run backwards. `random` yields numbers in `[0, 1)`.
    ///
    /// An input that does not fit the state is ignored; a permit that nobody wants is given back.
    pub fn handle_input(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, input: Input<'_>) {
        if self.is_ended() {
            if let Input::Permit(_) | Input::Turn = input {
                self.outputs.push_back(Output::LeaveQueue);
            }
            return;
        }
        match input {
            Input::Start => {
                if let State::Idle = self.state {
                    self.begin_attempt(now);
                }
            }
            Input::Connected => self.connected(now),
            Input::ConnectDelayed(wait) => {
                if let State::Connecting { deadline } = &mut self.state {
                    *deadline += wait;
                }
            }
            Input::ConnectFailed => {
                if let State::Connecting { .. } = self.state {
                    self.connect_failed(now, random, Reason::ConnectFailed);
                }
            }
            Input::Payload(envelope) => self.payload(now, random, envelope),
            Input::Malformed => {
                self.malformed += 1;
                if self.malformed >= MALFORMED_LIMIT {
                    self.end_connection(now, random, Reason::Unreadable);
                }
            }
            Input::Closed { code, corrupt } => self.closed(now, random, code, corrupt),
            Input::Turn => match self.state {
                State::Queued { .. } => self.connect(now),
                // It asked twice and was let through twice.
                State::Connecting { .. } | State::AwaitingHello { .. } | State::AwaitingPermit { .. }
                    if self.session.is_none() => {}
                _ => self.outputs.push_back(Output::LeaveQueue),
            },
            Input::Permit(permit) => self.permit(now, permit),
            Input::QueueReplaced => self.ask_queue(now),
            Input::Presence(update) => {
                self.presence = Some(update);
                self.presence_unsent = true;
                self.flush(now);
            }
            Input::ReadingPaused(paused) => {
                if let Some(heartbeat) = &mut self.heartbeat {
                    heartbeat.set_paused(paused);
                }
            }
            Input::Timeout => self.timeout(now, random),
            Input::Stop => self.stop(now, Reason::Stopping),
            Input::Detach => self.stop(now, Reason::Detaching),
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Output {
        match self.outputs.pop_front() {
            Some(output) => output,
            None => Output::Timeout(self.wakes_at()),
        }
    }

    // ── Timers ──────────────────────────────────────────────────────────────────────────────────────────────

    fn wakes_at(&self) -> Option<Instant> {
        let state = match self.state {
            State::Idle | State::Ready { .. } | State::Stopped | State::Refused => None,
            State::Disconnected { retry_at } => Some(retry_at),
            State::Queued { ask_again_at } | State::AwaitingPermit { ask_again_at } => Some(ask_again_at),
            State::Connecting { deadline }
            | State::AwaitingHello { deadline }
            | State::Identifying { deadline }
            | State::Resuming { deadline, .. }
            | State::Closing { deadline, .. } => Some(deadline),
        };
        let heartbeat = self.heartbeat.as_ref().map(Heartbeat::next_at);
        state.into_iter().chain(heartbeat).chain(self.flush_at).min()
    }

    fn timeout(&mut self, now: Instant, random: &mut dyn FnMut() -> f64) {
        match self.state {
            State::Disconnected { retry_at } if retry_at <= now => self.begin_attempt(now),
            State::Queued { ask_again_at } | State::AwaitingPermit { ask_again_at }
                if ask_again_at <= now =>
            {
                self.ask_queue(now);
            }
            State::Connecting { deadline } if deadline <= now => {
                self.connect_failed(now, random, Reason::ConnectTimeout);
            }
            State::AwaitingHello { deadline } if deadline <= now => {
                self.end_connection(now, random, Reason::HelloTimeout);
            }
            State::Identifying { deadline } if deadline <= now => {
                self.end_connection(now, random, Reason::ReadyTimeout);
            }
            State::Resuming { deadline, .. } if deadline <= now => {
                self.end_connection(now, random, Reason::ResumedTimeout);
            }
            State::Closing { deadline, then } if deadline <= now => {
                self.outputs.push_back(Output::Disconnect);
                self.after_close(now, then);
            }
            _ => {}
        }
        if self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.next_at() <= now) {
            self.tick(now, random);
        }
        self.flush(now);
    }

    fn tick(&mut self, now: Instant, random: &mut dyn FnMut() -> f64) {
        let Some(heartbeat) = &mut self.heartbeat else { return };
        match heartbeat.tick(now) {
            Tick::Beat => {
                heartbeat.sent(now);
                self.send_heartbeat(now);
            }
            Tick::Zombied => self.end_connection(now, random, Reason::Zombied),
        }
    }

    // ── Connecting ──────────────────────────────────────────────────────────────────────────────────────────

    fn begin_attempt(&mut self, now: Instant) {
        if self.session.is_some() {
            self.connect(now);
        } else {
            self.state = State::Queued { ask_again_at: now };
            self.changed(Change::Queued);
            self.ask_queue(now);
        }
    }

    fn ask_queue(&mut self, now: Instant) {
        let priority = if self.had_session { Priority::LostSession } else { Priority::ColdStart };
        let again = now + self.config.timings.requeue;
        match &mut self.state {
            State::Queued { ask_again_at } => {
                *ask_again_at = again;
                self.outputs.push_back(Output::Enqueue(priority));
            }
            State::AwaitingPermit { ask_again_at } => {
                *ask_again_at = again;
                self.outputs.push_back(Output::ClaimPermit(priority));
            }
            _ => {}
        }
    }

    fn connect(&mut self, now: Instant) {
        let resume_url = self
            .session
            .as_ref()
            .filter(|_| !self.avoid_resume_url)
            .and_then(|session| Url::parse(session.resume_url.as_deref()?).ok());
        // Never the resume URL for an Identify (GW-140).
        let base = resume_url.as_ref().unwrap_or(&self.config.gateway_url);
        let url = gateway_url(base, self.config.compress);
        self.state = State::Connecting { deadline: now + self.config.timings.connect };
        self.changed(Change::Connecting { resuming: self.session.is_some() });
        self.outputs.push_back(Output::Connect(url));
    }

    fn connected(&mut self, now: Instant) {
        if let State::Connecting { .. } = self.state {
            self.limiter =
                CommandLimiter::new(self.config.timings.command_window, self.config.timings.presence_window);
            self.malformed = 0;
            self.state = State::AwaitingHello { deadline: now + self.config.timings.hello };
        }
    }

    fn connect_failed(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, reason: Reason) {
        // GW-139: the other URL next time; and back, should that one not be reachable either.
        self.avoid_resume_url = !self.avoid_resume_url;
        self.connection_over(now, random, reason);
    }

    // ── Payloads ────────────────────────────────────────────────────────────────────────────────────────────

    fn payload(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, envelope: &Envelope<'_>) {
        // While we close, only what belongs to the session still counts.
        let open = match self.state {
            State::AwaitingHello { .. }
            | State::AwaitingPermit { .. }
            | State::Identifying { .. }
            | State::Resuming { .. }
            | State::Ready { .. } => true,
            State::Closing { .. } => false,
            _ => return,
        };
        match envelope.opcode() {
            Some(Opcode::Dispatch) => self.dispatch(now, random, envelope),
            Some(Opcode::HeartbeatAck) if open => {
                if let Some(heartbeat) = &mut self.heartbeat {
                    heartbeat.acknowledged(now);
                }
            }
            Some(Opcode::Heartbeat) if open => {
                if let Some(heartbeat) = &mut self.heartbeat {
                    heartbeat.requested = true;
                    self.flush(now);
                }
            }
            Some(Opcode::Hello) if open => self.hello(now, random, envelope.data),
            Some(Opcode::Reconnect) if open => self.end_connection(now, random, Reason::ReconnectRequested),
            Some(Opcode::InvalidSession) if open => {
                let resumable = envelope.data == b"true";
                self.end_connection(now, random, Reason::InvalidSession { resumable });
            }
            // Opcodes that only clients send, and unknown ones (GW-021).
            _ => {}
        }
    }

    fn hello(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, data: &[u8]) {
        #[derive(Deserialize)]
        struct Hello {
            heartbeat_interval: f64,
        }
        let State::AwaitingHello { .. } = self.state else { return };
        let interval = serde_json::from_slice::<Hello>(data)
            .ok()
            // One beat per millisecond to one per day; anything else is no interval.
            .filter(|hello| (1.0..=86_400_000.0).contains(&hello.heartbeat_interval));
        let Some(Hello { heartbeat_interval }) = interval else {
            self.end_connection(now, random, Reason::Unreadable);
            return;
        };
        let interval = Duration::from_secs_f64(heartbeat_interval / 1000.0);
        self.limiter.reserve_heartbeats(interval);
        self.heartbeat = Some(Heartbeat::new(now, interval, random()));
        self.changed(Change::Hello { heartbeat_interval: interval });
        match &self.session {
            Some(session) => {
                let payload = payload::resume(&self.config.token, session);
                let sequence = session.sequence;
                self.state = State::Resuming { deadline: now + self.config.timings.resumed, replayed: 0 };
                self.send(now, payload);
                self.changed(Change::Resuming { sequence });
            }
            None => {
                self.state = State::AwaitingPermit { ask_again_at: now };
                self.ask_queue(now);
            }
        }
    }

    fn permit(&mut self, now: Instant, _spent: IdentifyPermit) {
        let State::AwaitingPermit { .. } = self.state else {
            self.outputs.push_back(Output::LeaveQueue);
            return;
        };
        let payload = payload::identify(&payload::Identify {
            token: &self.config.token,
            shard: self.config.shard,
            count: self.config.count,
            intents: self.config.intents,
            large_threshold: self.config.large_threshold,
            library: &self.config.library,
            presence: self.presence.as_ref(),
        });
        self.presence_unsent = false;
        self.failed_identifies += 1;
        self.state = State::Identifying { deadline: now + self.config.timings.ready };
        self.send(now, payload);
        self.changed(Change::Identifying);
    }

    fn dispatch(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, envelope: &Envelope<'_>) {
        let Some(sequence) = envelope.sequence else {
            self.handle_input(now, random, Input::Malformed);
            return;
        };
        self.malformed = 0;
        match self.state {
            State::Identifying { .. } | State::Resuming { .. }
                if envelope.event_name() == Some(EventName::Ready) =>
            {
                self.ready(now, random, sequence, envelope.data);
            }
            State::Resuming { replayed, .. } => {
                let Some(session) = &mut self.session else { return };
                if envelope.event_name() == Some(EventName::Resumed) {
                    session.sequence = session.sequence.max(sequence);
                    self.resumed(now, replayed, sequence);
                } else if sequence > session.sequence {
                    session.sequence = sequence;
                    // Progress: the deadline begins again.
                    self.state = State::Resuming {
                        deadline: now + self.config.timings.resumed,
                        replayed: replayed + 1,
                    };
                    self.outputs.push_back(Output::Deliver { sequence });
                }
                // Else it was delivered before the connection was lost (GW-020).
            }
            State::Ready { .. } | State::Closing { .. } => {
                // Closing after the session was given up: nothing belongs to it any more.
                let Some(session) = &mut self.session else { return };
                session.sequence = session.sequence.max(sequence);
                self.outputs.push_back(Output::Deliver { sequence });
            }
            _ => {}
        }
    }

    fn ready(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, sequence: u64, data: &[u8]) {
        #[derive(Deserialize)]
        struct Ready {
            session_id: String,
            #[serde(default)]
            resume_gateway_url: Option<String>,
        }
        let Ok(ready) = serde_json::from_slice::<Ready>(data) else {
            self.end_connection(now, random, Reason::Unreadable);
            return;
        };
        // All of the old session is replaced at once (GW-124, GW-125).
        self.session = Some(Session {
            id: ready.session_id,
            resume_url: ready.resume_gateway_url,
            sequence,
            shard: self.config.shard,
            count: self.config.count,
        });
        self.had_session = true;
        self.outputs.push_back(Output::SessionChanged(self.session.clone()));
        self.enter_ready(now, Change::Ready, sequence);
    }

    fn resumed(&mut self, now: Instant, replayed: u64, sequence: u64) {
        self.enter_ready(now, Change::Resumed { replayed }, sequence);
    }

    fn enter_ready(&mut self, now: Instant, change: Change, sequence: u64) {
        self.state = State::Ready { since: now };
        self.failed_resumes = 0;
        self.avoid_resume_url = false;
        self.changed(change);
        self.outputs.push_back(Output::Deliver { sequence });
        self.flush(now);
    }

    // ── Sending ─────────────────────────────────────────────────────────────────────────────────────────────

    fn send(&mut self, now: Instant, payload: Payload) {
        self.limiter.record(now);
        self.outputs.push_back(Output::Send(payload));
    }

    fn send_heartbeat(&mut self, now: Instant) {
        let sequence = self.session.as_ref().map(|session| session.sequence);
        self.send(now, payload::heartbeat(sequence));
    }

    /// Sends what waits, as far as the limits allow.
    fn flush(&mut self, now: Instant) {
        if let Some(heartbeat) = &mut self.heartbeat
            && heartbeat.requested
            && self.limiter.free_at(now, Urgency::Requested) <= now
        {
            heartbeat.requested = false;
            self.send_heartbeat(now);
        }
        if self.is_ready()
            && self.presence_unsent
            && self.limiter.presence_free_at(now) <= now
            && let Some(update) = &self.presence
        {
            self.outputs.push_back(Output::Send(update.payload()));
            self.limiter.record_presence(now);
            self.presence_unsent = false;
        }
        let requested = self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.requested);
        let requested = requested.then(|| self.limiter.free_at(now, Urgency::Requested));
        let presence = (self.is_ready() && self.presence_unsent).then(|| self.limiter.presence_free_at(now));
        self.flush_at = requested.into_iter().chain(presence).min();
    }

    // ── Endings ─────────────────────────────────────────────────────────────────────────────────────────────

    /// We end the connection: close it, and wait for the handshake.
    fn end_connection(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, reason: Reason) {
        let code = match reason {
            Reason::ReconnectRequested => ours::RECONNECT,
            Reason::Zombied => ours::ZOMBIED,
            Reason::InvalidSession { .. } => ours::INVALID_SESSION,
            Reason::Unreadable => ours::UNREADABLE,
            _ => ours::DEADLINE,
        };
        let after = self.plan_retry(now, random, reason);
        self.forget_connection();
        self.state =
            State::Closing { deadline: now + self.config.timings.close, then: Then::Retry { after } };
        self.changed(Change::Disconnected { reason, next: self.next(after) });
        self.outputs.push_back(Output::Close(code));
    }

    /// The connection is over, or never was.
    fn connection_over(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, reason: Reason) {
        let after = self.plan_retry(now, random, reason);
        self.forget_connection();
        self.outputs.push_back(Output::Disconnect);
        self.changed(Change::Disconnected { reason, next: self.next(after) });
        self.after_close(now, Then::Retry { after });
    }

    fn closed(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, code: Option<u16>, corrupt: bool) {
        let reason = match code {
            _ if corrupt => Reason::Unreadable,
            Some(code) => Reason::Closed(CloseCode(code)),
            None => Reason::Lost,
        };
        if let Reason::Closed(code) = reason
            && let Recovery::Fatal(scope) = code.recovery()
            && self.is_connected()
        {
            self.forget_connection();
            self.drop_session();
            self.state = State::Refused;
            self.outputs.push_back(Output::Disconnect);
            self.changed(Change::Disconnected { reason, next: Next::End });
            self.changed(Change::Refused(Refusal { code, scope }));
            return;
        }
        match self.state {
            State::Closing { then, .. } => {
                // The usual code here is the echo of our own; one that ends the session ends it (GW-083, GW-085).
                if let Reason::Closed(code) = reason
                    && code.recovery() == Recovery::NewSession
                {
                    self.drop_session();
                }
                self.outputs.push_back(Output::Disconnect);
                self.after_close(now, then);
            }
            _ if self.is_connected() => self.connection_over(now, random, reason),
            _ => {}
        }
    }

    fn after_close(&mut self, now: Instant, then: Then) {
        match then {
            Then::Retry { after } => self.state = State::Disconnected { retry_at: now + after },
            Then::Stop => {
                self.state = State::Stopped;
                self.changed(Change::Stopped);
            }
        }
    }

    fn stop(&mut self, now: Instant, reason: Reason) {
        let code = if reason == Reason::Stopping { ours::STOP } else { ours::DETACH };
        let was_closing = matches!(self.state, State::Closing { .. });
        let connected = self.is_connected();
        self.forget_connection();
        if reason == Reason::Stopping {
            self.drop_session();
        }
        if was_closing {
            // Its close frame is sent already; the handshake goes on to its deadline.
            if let State::Closing { then, .. } = &mut self.state {
                *then = Then::Stop;
            }
        } else if connected {
            self.changed(Change::Disconnected { reason, next: Next::End });
            self.state = State::Closing { deadline: now + self.config.timings.close, then: Then::Stop };
            self.outputs.push_back(Output::Close(code));
        } else {
            // Cancels an attempt to connect, too.
            self.outputs.push_back(Output::Disconnect);
            self.after_close(now, Then::Stop);
        }
    }

    /// Decides whether the session is still good and how long to wait, and counts the failure.
    fn plan_retry(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, reason: Reason) -> Duration {
        if let State::Ready { since } = self.state
            && now.saturating_duration_since(since) >= self.config.timings.stable
        {
            self.failures = 0;
            self.failed_identifies = 0;
        }
        let fruitless = matches!(self.state, State::Resuming { replayed: 0, .. });
        if fruitless {
            self.failed_resumes += 1;
        }
        let lost = match reason {
            Reason::InvalidSession { resumable } => !resumable,
            Reason::Closed(code) => match code.recovery() {
                Recovery::NewSession => true,
                Recovery::ResumeOnce => fruitless,
                Recovery::Resume | Recovery::Fatal(_) => false,
            },
            _ => false,
        };
        if lost || self.failed_resumes >= self.config.max_failed_resumes {
            self.drop_session();
        }
        let timings = self.config.timings;
        let mut after = timings.reconnect.delay(self.failures, random());
        if self.session.is_none() {
            after = after.max(timings.identify.delay(self.failed_identifies.saturating_sub(1), random()));
        }
        if let Reason::InvalidSession { .. } = reason {
            let spread = timings.invalid_session_max.saturating_sub(timings.invalid_session_min);
            after = after.max(timings.invalid_session_min + spread.mul_f64(random()));
        }
        self.failures = self.failures.saturating_add(1);
        after
    }

    /// Session, sequence and resume URL go together (GW-125, GW-140).
    fn drop_session(&mut self) {
        self.failed_resumes = 0;
        self.avoid_resume_url = false;
        if self.session.take().is_some() {
            self.outputs.push_back(Output::SessionChanged(None));
        }
    }

    /// Ends what lives as long as a connection does.
    fn forget_connection(&mut self) {
        self.leave_queue();
        self.heartbeat = None;
        self.flush_at = None;
    }

    /// In the states in which the identify queue may know this shard, tells it to forget it.
    fn leave_queue(&mut self) {
        let known = match self.state {
            State::Queued { .. } | State::AwaitingPermit { .. } => true,
            State::Connecting { .. } | State::AwaitingHello { .. } => self.session.is_none(),
            _ => false,
        };
        if known {
            self.outputs.push_back(Output::LeaveQueue);
        }
    }

    fn is_connected(&self) -> bool {
        matches!(
            self.state,
            State::AwaitingHello { .. }
                | State::AwaitingPermit { .. }
                | State::Identifying { .. }
                | State::Resuming { .. }
                | State::Ready { .. }
                | State::Closing { .. }
        )
    }

    fn next(&self, after: Duration) -> Next {
        if self.session.is_some() { Next::Resume { after } } else { Next::Identify { after } }
    }

    fn changed(&mut self, change: Change) {
        self.outputs.push_back(Output::Changed(change));
    }
}
