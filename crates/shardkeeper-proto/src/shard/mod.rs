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
mod connecting;
mod ending;
mod heartbeat;
mod receiving;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use url::Url;

pub use self::change::{Change, FatalClose, Initiator, Next, Oddity, Reason};
pub use self::heartbeat::HeartbeatState;
use self::heartbeat::{Heartbeat, Tick};
use crate::command::CommandQueue;
use crate::payload::Payload;
use crate::{
    Command, CommandClass, CommandId, CommandLimiter, CommandQueueError, Envelope, IdentifyPermit, Intents,
    PresenceUpdate, Priority, Session, ShardCount, ShardId, Timings, Token, Wire,
};

/// So many unreadable payloads in a row and the connection is given up.
const MALFORMED_LIMIT: u32 = 5;
/// After this many Resumes in a row at one URL that its host answered with nothing but an end, the other URL is tried. With
/// the waits between them these take half a minute: a shorter disturbance most likely concerns the other host as well, and
/// connections at the bootstrap URL are lost more often (GW-132).
const VAIN_RESUMES: u32 = 5;
/// The longest wait before the next attempt that a host may ask for. One that names a longer time is asked again by then.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// What a shard needs to know. It does not change while the shard lives.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "drivers construct it, and decide about every field")]
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
    /// How its payloads travel.
    pub wire: Wire,
    /// Deadlines and waits.
    pub timings: Timings,
}

/// What the machine cannot know by itself while it takes in one [`Input`].
pub struct Context<'a> {
    now: Instant,
    random: &'a mut dyn FnMut() -> f64,
}

impl<'a> Context<'a> {
    /// `now` must not run backwards from one input of a shard to the next. `random` yields numbers in `[0, 1)`.
    pub fn new(now: Instant, random: &'a mut dyn FnMut() -> f64) -> Self {
        Self { now, random }
    }

    fn random(&mut self) -> f64 {
        (self.random)()
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
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
    /// The host refused the connection, and wants no other one before this time has passed. Up to five minutes of it are
    /// waited for.
    ConnectRefused {
        /// From now on.
        retry_after: Duration,
    },
    /// A payload came.
    Payload(&'a Envelope<'a>),
    /// A payload came that cannot be read.
    Malformed,
    /// More came than can be taken, and what is left would be lost: the connection is given up, for this cause.
    Unreadable(&'static str),
    /// The connection is over: with this close code, or without any. `corrupt` when what came in could not be
    /// decoded, and the transport gave up for that reason.
    Closed {
        /// The close code that Discord sent.
        code: Option<u16>,
        /// Whether the received stream was unreadable.
        corrupt: bool,
        /// What is known beyond that, for [`Change::Disconnected`].
        detail: Option<Arc<str>>,
    },
    /// The identify queue lets it connect.
    ConnectGrant,
    /// The identify queue lets it identify.
    Permit(IdentifyPermit),
    /// The identify queue was replaced: a shard that waits for it asks again.
    QueueReplaced,
    /// The bootstrap URL is another one now.
    GatewayUrl(Url),
    /// Set the presence, now and in each later Identify.
    Presence(PresenceUpdate),
    /// Send a command, as soon as the session and the limits allow, if [`Shard::check_command`] has nothing against it;
    /// otherwise it is expired at once.
    Command(CommandId, Command),
    /// The driver stopped reading from the connection, or reads again.
    ReadingPaused(bool),
    /// The time that [`Output::Timeout`] named has come.
    Timeout,
    /// Give the connection up and make another one: for the same session, or a fresh one. Without a connection nothing
    /// happens but that a session is dropped which is not to be resumed.
    Reconnect {
        /// Whether to start another session.
        fresh: bool,
    },
    /// End, and give the session up. Discord ends a session when its own connection is closed with 1000: a shard that has
    /// a session and no such connection resumes it once more for that, within [`Timings::close`].
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
    /// The payload just put out was this command.
    CommandSent(CommandId),
    /// This command has waited too long, and is not sent any more.
    CommandExpired(CommandId),
    /// Close with this code; go on reading until [`Input::Closed`] or [`Output::Disconnect`].
    Close(u16),
    /// Drop the connection, or the attempt to open one, now.
    Disconnect,
    /// Publish the dispatch that was just fed; then its sequence number may be stored.
    Deliver {
        /// The sequence number; that of the dispatch before it, when it has none of its own.
        sequence: u64,
        /// Whether it came again as part of a resume, before RESUMED.
        replayed: bool,
    },
    /// Ask the identify queue for a turn to connect.
    Enqueue(Priority),
    /// Tell the identify queue that Hello came, and ask for the permit.
    ClaimPermit(Priority),
    /// Ask `GET /gateway/bot` again: what it said may be out of date (GW-002, GW-004). The answer may bring an
    /// [`Input::GatewayUrl`].
    AskGateway,
    /// Tell the identify queue that this shard no longer waits. What it held is unspent.
    LeaveQueue,
    /// The session to store; `None` when it is gone.
    SessionChanged(Option<Session>),
    /// The state changed.
    Changed(Change),
    /// The gateway differs from Discord's. Once per shard and oddity.
    Odd(Oddity),
    /// Nothing more to do until then, or until something happens.
    Timeout(Option<Instant>),
}

/// What a shard has sent of late, and what waits to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sending {
    /// Payloads sent on this connection in the last window of the limit, of at most
    /// [`COMMANDS_PER_WINDOW`](crate::COMMANDS_PER_WINDOW).
    pub sent: usize,
    /// Voice commands that wait for the session or the limits.
    pub voice_waiting: usize,
    /// Bulk commands that wait for the session or the limits.
    pub bulk_waiting: usize,
    /// Whether a presence waits.
    pub presence_waiting: bool,
}

/// Where a shard stands. The data of a state lives in it and ends with it.
#[derive(Debug)]
enum State {
    Idle,
    Disconnected {
        retry_at: Instant,
    },
    Queued {
        ask_again_at: Instant,
    },
    Connecting {
        deadline: Instant,
        at_gateway_url: bool,
    },
    AwaitingHello {
        deadline: Instant,
        at_gateway_url: bool,
    },
    AwaitingPermit {
        ask_again_at: Instant,
    },
    Identifying {
        deadline: Instant,
    },
    /// Each replayed dispatch moves the deadline, up to `until`.
    Resuming {
        deadline: Instant,
        until: Instant,
        replayed: u64,
    },
    Ready {
        since: Instant,
    },
    /// `replaying` when it had not been told the end of a replay.
    Closing {
        deadline: Instant,
        then: Then,
        replaying: bool,
    },
    Stopped,
    Refused,
}

/// What follows a closing handshake.
#[derive(Clone, Copy, Debug)]
enum Then {
    Retry {
        after: Duration,
    },
    Stop,
    /// Resume once more, to end the session at Discord.
    EndSession,
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
    /// When it was sent on this connection, until something shows that it arrived there.
    presence_unproven: Option<Instant>,
    commands: CommandQueue,
    /// Connections that ended before they were ready for long.
    failures: u32,
    /// Identify sent without a session that lasted.
    failed_identifies: u32,
    /// Connections that op 9 ended, in a row.
    invalidated: u32,
    /// READYs in a row that were those of another shard.
    other_shards: u32,
    /// The next [`Change::Disconnected`] reports it.
    detail: Option<Arc<str>>,
    /// What was told by [`Output::Odd`].
    odd: Vec<Oddity>,
    /// Resumes in a row that ended without having brought anything, at one URL.
    vain_resumes: u32,
    /// When the first connection ended that did nothing for the session, since one last did.
    vain_since: Option<Instant>,
    had_session: bool,
    /// The host of the resume URL did not answer: use the bootstrap URL next time (GW-139).
    avoid_resume_url: bool,
    /// The shard was told to stop and resumes only to end its session at Discord, at most until then.
    ending_session: Option<Instant>,
    malformed: u32,
    /// Since when nothing is read. What was sent to us may lie unread: that it has not come proves nothing.
    paused_since: Option<Instant>,
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
    /// A shard that does nothing yet. With a session it begins by resuming it; one that [does not
    /// fit](Session::check) is not used. [`Timings`] that [cannot work](Timings::check) are replaced by the nearest that can.
    pub fn new(mut config: ShardConfig, session: Option<Session>) -> Self {
        config.timings = config.timings.bounded();
        let session = session.filter(|session| session.check(&config).is_ok());
        let limiter = CommandLimiter::of(&config.timings);
        Self {
            state: State::Idle,
            had_session: session.is_some(),
            session,
            heartbeat: None,
            limiter,
            presence: None,
            presence_unsent: false,
            presence_unproven: None,
            commands: CommandQueue::default(),
            failures: 0,
            failed_identifies: 0,
            invalidated: 0,
            other_shards: 0,
            detail: None,
            odd: Vec::new(),
            vain_resumes: 0,
            vain_since: None,
            avoid_resume_url: false,
            ending_session: None,
            malformed: 0,
            paused_since: None,
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

    /// Whether this shard takes a command now.
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub fn check_command(&self, command: &Command) -> Result<(), CommandQueueError> {
        let (shard, owner) = (self.config.shard, command.shard(self.config.count));
        if owner != shard {
            return Err(CommandQueueError::OtherShard { shard, owner });
        }
        let missing = command.needs().difference(self.config.intents);
        if !missing.is_empty() {
            return Err(CommandQueueError::MissingIntents { missing });
        }
        let class = command.class();
        if !self.commands.has_room(class) {
            return Err(CommandQueueError::QueueFull { shard, class, capacity: class.capacity() });
        }
        Ok(())
    }

    /// Whether dispatches may come now: only then does it help a slow subscriber not to read.
    pub fn expects_dispatches(&self) -> bool {
        !self.is_ending_session()
            && matches!(self.state, State::Resuming { .. } | State::Ready { .. } | State::Closing { .. })
    }

    /// Whether READY is what comes next.
    pub fn expects_session(&self) -> bool {
        matches!(self.state, State::Identifying { .. })
    }

    /// Whether the shard is at its end, and no input will change that.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Stopped | State::Refused)
    }

    /// The time between the last heartbeat and its acknowledgement, on this connection (GW-123).
    pub fn latency(&self) -> Option<Duration> {
        self.heartbeat.as_ref()?.latency()
    }

    /// How the heartbeats of this connection stand; `None` before Hello.
    pub fn heartbeat(&self) -> Option<HeartbeatState> {
        self.heartbeat.as_ref().map(Heartbeat::state)
    }

    /// How much was sent of late, and how much waits.
    pub fn sending(&mut self, now: Instant) -> Sending {
        Sending {
            sent: self.limiter.sent(now),
            voice_waiting: self.commands.waiting(CommandClass::Voice),
            bulk_waiting: self.commands.waiting(CommandClass::Bulk),
            presence_waiting: self.presence_unsent && self.presence.is_some(),
        }
    }

    /// Takes in what happened.
    ///
    /// An input that does not fit the state is ignored; a permit that nobody wants is given back.
    pub fn handle_input(&mut self, cx: &mut Context<'_>, input: Input<'_>) {
        if self.is_ended() {
            if let Input::Permit(_) | Input::ConnectGrant = input {
                self.outputs.push_back(Output::LeaveQueue);
            }
            return;
        }
        match input {
            Input::Start => {
                if let State::Idle = self.state {
                    self.begin_attempt(cx.now);
                }
            }
            Input::Connected => self.connected(cx.now),
            Input::ConnectDelayed(wait) => {
                if let State::Connecting { deadline, .. } = &mut self.state {
                    *deadline += wait;
                    self.changed(Change::Paced { wait });
                }
            }
            Input::ConnectFailed => self.connect_failed(cx, Duration::ZERO),
            Input::ConnectRefused { retry_after } => self.connect_failed(cx, retry_after),
            Input::Payload(envelope) => self.payload(cx, envelope),
            Input::Malformed => self.malformed(cx),
            Input::Unreadable(detail) if self.is_open() => self.unreadable(cx, detail),
            Input::Unreadable(_) => {}
            Input::Closed { code, corrupt, detail } => self.closed(cx, code, corrupt, detail),
            Input::ConnectGrant => match self.state {
                State::Queued { .. } => self.connect(cx.now),
                // It asked twice and was let through twice.
                State::Connecting { .. } | State::AwaitingHello { .. } | State::AwaitingPermit { .. }
                    if self.session.is_none() => {}
                _ => self.outputs.push_back(Output::LeaveQueue),
            },
            Input::Permit(permit) => self.permit(cx.now, permit),
            Input::QueueReplaced => self.ask_queue(cx.now),
            Input::GatewayUrl(url) => self.config.gateway_url = url,
            Input::Presence(update) => {
                self.presence = Some(update);
                self.presence_unsent = true;
                self.flush(cx.now);
            }
            Input::Command(id, command) => self.take_command(cx.now, id, command),
            Input::ReadingPaused(paused) => self.pause_reading(cx.now, paused),
            Input::Timeout => self.timeout(cx),
            Input::Reconnect { fresh } => self.reconnect(cx, fresh),
            Input::Stop => self.stop(cx.now, Reason::Stopping),
            Input::Detach => self.stop(cx.now, Reason::Detaching),
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Output {
        match self.outputs.pop_front() {
            Some(output) => output,
            None => Output::Timeout(self.wakes_at()),
        }
    }

    fn wakes_at(&self) -> Option<Instant> {
        let state = match self.state {
            State::Idle | State::Ready { .. } | State::Stopped | State::Refused => None,
            State::Disconnected { retry_at } => Some(retry_at),
            State::Queued { ask_again_at } | State::AwaitingPermit { ask_again_at } => Some(ask_again_at),
            State::Connecting { deadline, .. }
            | State::AwaitingHello { deadline, .. }
            | State::Identifying { deadline }
            | State::Resuming { deadline, .. }
            | State::Closing { deadline, .. } => Some(deadline),
        };
        let heartbeat = self.heartbeat.as_ref().map(Heartbeat::next_at);
        state.into_iter().chain(heartbeat).chain(self.flush_at).chain(self.ending_session).min()
    }

    fn timeout(&mut self, cx: &mut Context<'_>) {
        if self.paused_since.is_some() {
            self.postpone_answers(cx.now);
        }
        if self.ending_session.is_some_and(|until| until <= cx.now) {
            self.give_up_ending();
            return;
        }
        match self.state {
            State::Disconnected { retry_at } if retry_at <= cx.now => self.begin_attempt(cx.now),
            State::Queued { ask_again_at } | State::AwaitingPermit { ask_again_at }
                if ask_again_at <= cx.now =>
            {
                self.ask_queue(cx.now);
            }
            State::Connecting { deadline, .. } if deadline <= cx.now => {
                self.connection_over(cx, Reason::ConnectTimeout, Duration::ZERO);
            }
            State::AwaitingHello { deadline, .. } if deadline <= cx.now => {
                self.end_connection(cx, Reason::HelloTimeout);
            }
            State::Identifying { deadline } if deadline <= cx.now => {
                self.end_connection(cx, Reason::ReadyTimeout);
            }
            State::Resuming { deadline, .. } if deadline <= cx.now => {
                self.end_connection(cx, Reason::ResumedTimeout);
            }
            State::Closing { deadline, .. } if deadline <= cx.now => {
                self.outputs.push_back(Output::Disconnect);
                self.after_close(cx.now);
            }
            _ => {}
        }
        if self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.next_at() <= cx.now) {
            self.tick(cx);
        }
        self.flush(cx.now);
    }

    /// Answers that we do not read have all their time again.
    fn postpone_answers(&mut self, now: Instant) {
        let timings = self.config.timings;
        match &mut self.state {
            State::AwaitingHello { deadline, .. } => *deadline = now + timings.hello,
            State::Identifying { deadline } => *deadline = now + timings.ready,
            State::Resuming { deadline, .. } => *deadline = now + timings.resumed,
            _ => {}
        }
    }

    fn pause_reading(&mut self, now: Instant, paused: bool) {
        if paused {
            self.paused_since.get_or_insert(now);
        } else if let Some(since) = self.paused_since.take()
            && let State::Resuming { until, .. } = &mut self.state
        {
            *until += now.saturating_duration_since(since);
        }
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.set_paused(now, paused);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let Some(heartbeat) = &mut self.heartbeat else { return };
        match heartbeat.tick(cx.now) {
            Tick::Beat => {
                heartbeat.sent(cx.now);
                self.send_heartbeat(cx.now);
            }
            Tick::Zombied => self.end_connection(cx, Reason::Zombied),
        }
    }
}
