//! The machine of one shard.
//!
//! The contract: **every call of [`Shard::handle_input`] is followed by calls of [`Shard::poll_output`] until
//! one returns [`Output::Timeout`]**. The caller carries out the outputs in their order, and feeds
//! [`Input::Timeout`] at the time that the output `Timeout` names.
//!
//! ```text
//!            Start                Connected            op 10
//! Idle ──▶ Disconnected ──▶ Connecting ──▶ AwaitingHello ──┬─ session ─▶ Resuming ────RESUMED──▶ Ready
//!              │   ▲  no session: Queued first             └─ none ─▶ AwaitingPermit            ▲
//!              ▼   │                                                    └─ permit ─▶ Identifying ─READY
//!          Queued  └── Closing ◀── op 7, op 9, no ack, deadlines, unreadable input, Stop, Detach
//! ```
//!
//! When a connection ends, the shard goes to `Disconnected`, where it waits and then tries again; if the
//! shard closes the connection itself, it goes through `Closing` first. A fatal close code leads to
//! `Refused`; `Stop` and `Detach` lead to `Stopped`.

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

/// The number of unreadable payloads in a row after which the connection is closed.
const MALFORMED_LIMIT: u32 = 5;
/// The number of Resumes in a row at one URL that end before anything is replayed, after which the other URL
/// is tried. With the waits between them, five take half a minute: a shorter outage most likely affects the
/// other host as well, and connections at the bootstrap URL are lost more often (GW-132).
const VAIN_RESUMES: u32 = 5;
/// The longest wait before the next attempt that a host may ask for. If a host asks for more, the shard tries
/// again after this time.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The configuration of a shard, fixed for its lifetime except for the bootstrap URL ([`Input::GatewayUrl`]).
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "drivers construct it, and decide about every field")]
pub struct ShardConfig {
    /// The bot's token.
    pub token: Token,
    /// The id of this shard.
    pub shard: ShardId,
    /// The number of shards of the whole bot.
    pub count: ShardCount,
    /// The intents to request.
    pub intents: Intents,
    /// The number of members above which Discord omits a guild's offline members: 50 to 250 (GW-072).
    pub large_threshold: u8,
    /// The name that Identify gives as `browser` and `device`.
    pub library: String,
    /// The bootstrap URL, from `GET /gateway/bot`.
    pub gateway_url: Url,
    /// The encoding and compression of payloads.
    pub wire: Wire,
    /// Time limits, waits and windows.
    pub timings: Timings,
}

/// The time and the randomness that the machine needs to process one [`Input`].
pub struct Context<'a> {
    now: Instant,
    random: &'a mut dyn FnMut() -> f64,
}

impl<'a> Context<'a> {
    /// Creates a context. `now` must not run backwards from one input of a shard to the next. `random`
    /// returns numbers in `[0, 1)`.
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

/// An event or a request that the caller feeds to the machine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// Start the shard. This is the first input, and comes once.
    Start,
    /// The connection is open.
    Connected,
    /// Opening the connection begins only after this wait, so its time limit is extended by it.
    ConnectDelayed(Duration),
    /// The connection could not be opened.
    ConnectFailed,
    /// The host refused the connection and asks for a wait before the next one. The shard waits for at most
    /// five minutes of it.
    ConnectRefused {
        /// The wait that the host asks for, counted from now.
        retry_after: Duration,
    },
    /// A payload was received.
    Payload(&'a Envelope<'a>),
    /// A payload was received that cannot be read.
    Malformed,
    /// Part of a message cannot be processed and would be lost, so the shard closes the connection. The text
    /// is the cause.
    Unreadable(&'static str),
    /// The connection ended, with or without a close code.
    Closed {
        /// The close code that Discord sent; `None` if it sent none.
        code: Option<u16>,
        /// Whether the transport ended the connection because it could not decode the received stream.
        corrupt: bool,
        /// Further details, which [`Change::Disconnected`] reports; `None` when nothing more is known.
        detail: Option<Arc<str>>,
    },
    /// The identify queue allows the shard to connect.
    ConnectGrant,
    /// The identify queue allows the shard to identify.
    Permit(IdentifyPermit),
    /// The identify queue was replaced, so a shard that waits in it repeats its request.
    QueueReplaced,
    /// The bootstrap URL has changed. The next connection that needs it uses the new one.
    GatewayUrl(Url),
    /// Set the presence now, and in each later Identify.
    Presence(PresenceUpdate),
    /// Send a command as soon as the session and the limits allow. A command that [`Shard::check_command`]
    /// rejects expires at once.
    Command(CommandId, Command),
    /// Take over a command that another shard has accepted and given up, until it expires (`None` for never).
    /// It is not checked again, and its place is among the commands accepted at the same time.
    TakeOver(CommandId, Command, Option<Instant>),
    /// Give up all commands that were not sent yet, so that another shard can
    /// [take them over](Self::TakeOver): each is returned with [`Output::CommandGivenUp`], unless it has
    /// expired or [cannot move](Command::can_move).
    GiveUpCommands,
    /// The driver paused reading from the connection (`true`), or continues to read (`false`).
    ReadingPaused(bool),
    /// Send a heartbeat now, and report its acknowledgement with [`Output::Probed`] and this number. Ignored
    /// unless the shard is ready; lost with the connection. The same number again sends one more heartbeat
    /// and changes nothing else; another number replaces the present one.
    Probe(u64),
    /// The time that [`Output::Timeout`] named has been reached.
    Timeout,
    /// Close the connection and open another one, for the same session or for a new one. An attempt to
    /// connect that has not reached Hello continues for the session that it was started for. Without a
    /// connection, `fresh` only discards the session. Ignored after [`Input::Stop`] and [`Input::Detach`].
    Reconnect {
        /// Whether to start a new session instead of resuming the present one.
        fresh: bool,
    },
    /// End the shard and its session. Discord ends a session when its connection is closed with 1000, so a
    /// shard whose session has no connection resumes once more for that purpose, within [`Timings::close`].
    Stop,
    /// End the shard, and keep the session for another process to resume.
    Detach,
}

/// An action that the caller has to carry out.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Open a connection.
    Connect(Url),
    /// Send a payload.
    Send(Payload),
    /// The payload of the previous [`Output::Send`] was this command.
    CommandSent(CommandId),
    /// This command waited too long and will not be sent.
    CommandExpired(CommandId),
    /// This command was not sent, and can be taken over by another shard until it expires (`None` for never).
    /// Commands come by urgency, and then in the order in which they were accepted.
    CommandGivenUp(CommandId, Command, Option<Instant>),
    /// Close the connection with this code, and continue reading until [`Input::Closed`] or
    /// [`Output::Disconnect`].
    Close(u16),
    /// Drop the connection, or the attempt to open one, at once.
    Disconnect,
    /// Publish the dispatch of the current [`Input::Payload`]; then its sequence number may be stored.
    Deliver {
        /// The sequence number. A dispatch without a readable one gets that of the dispatch before it.
        sequence: u64,
        /// Whether the dispatch is part of a replay, before RESUMED.
        replayed: bool,
    },
    /// Ask the identify queue for permission to connect.
    Enqueue(Priority),
    /// Report to the identify queue that Hello was received, and ask for the permit.
    ClaimPermit(Priority),
    /// Ask `GET /gateway/bot` again, since the last answer may be out of date (GW-002: ask for the URL again
    /// after a failed connection; GW-004: the other numbers change with every call). The answer may lead to
    /// an [`Input::GatewayUrl`].
    AskGateway,
    /// Report to the identify queue that this shard no longer waits. A permit that it held is unspent.
    LeaveQueue,
    /// Store this session; `None` means that the session is gone.
    SessionChanged(Option<Session>),
    /// The state changed.
    Changed(Change),
    /// The gateway differs from Discord's. Reported once per shard and oddity.
    Odd(Oddity),
    /// A heartbeat that was sent after [`Input::Probe`] with this number was acknowledged, so everything that
    /// Discord had sent to the session before has been delivered.
    Probed(u64),
    /// Nothing more to do until this time or the next input; `None` means only until the next input.
    Timeout(Option<Instant>),
}

/// How many payloads a shard sent recently, and how many wait to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sending {
    /// Payloads sent on this connection in the last window of the limit, at most
    /// [`COMMANDS_PER_WINDOW`](crate::COMMANDS_PER_WINDOW).
    pub sent: usize,
    /// Voice commands that wait for the session or for the limits.
    pub voice_waiting: usize,
    /// Bulk commands that wait for the session or for the limits.
    pub bulk_waiting: usize,
    /// Whether a presence waits to be sent.
    pub presence_waiting: bool,
}

/// The state of a shard. Data that belongs to one state is stored in it and ends with it.
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
    /// Each replayed dispatch extends the deadline, at most to `until`.
    Resuming {
        deadline: Instant,
        until: Instant,
        replayed: u64,
    },
    Ready {
        since: Instant,
    },
    /// `replaying` means that RESUMED has not come yet, so dispatches still belong to the replay.
    Closing {
        deadline: Instant,
        then: Then,
        replaying: bool,
    },
    Stopped,
    Refused,
}

/// The step that follows the closing handshake.
#[derive(Clone, Copy, Debug)]
enum Then {
    Retry {
        after: Duration,
    },
    Stop,
    /// Connect and resume once more, to end the session at Discord.
    EndSession,
}

/// The machine of one shard: its protocol without I/O. The [module](self) documents the contract.
pub struct Shard {
    config: ShardConfig,
    state: State,
    session: Option<Session>,
    /// `Some` from Hello to the end of the connection.
    heartbeat: Option<Heartbeat>,
    limiter: CommandLimiter,
    presence: Option<PresenceUpdate>,
    /// Whether the presence still has to be sent.
    presence_unsent: bool,
    /// When the presence was sent on this connection. `None` again as soon as a later heartbeat is
    /// acknowledged, which shows that the presence arrived.
    presence_unproven: Option<Instant>,
    commands: CommandQueue,
    /// Connections that ended in a row. The count starts again when one had been ready for
    /// [`Timings::stable`].
    failures: u32,
    /// Identifies sent since a connection was last ready for [`Timings::stable`].
    failed_identifies: u32,
    /// Connections that op 9 ended since one was last ready for [`Timings::stable`].
    invalidated: u32,
    /// READYs of another shard, in a row.
    other_shards: u32,
    /// Details for the next [`Change::Disconnected`].
    detail: Option<Arc<str>>,
    /// The oddities that [`Output::Odd`] has already reported.
    odd: Vec<Oddity>,
    /// Resumes in a row, at one URL, that ended before any event was replayed.
    vain_resumes: u32,
    /// The end of the first connection that made no progress with the session; `None` after one that did.
    vain_since: Option<Instant>,
    had_session: bool,
    user_id: Option<u64>,
    /// Whether the next connection uses the bootstrap URL, because the host of the resume URL did not answer
    /// (GW-139: return to the bootstrap URL then).
    avoid_resume_url: bool,
    /// The deadline for ending the session at Discord. `Some` while a shard that was stopped connects only
    /// for that purpose.
    ending_session: Option<Instant>,
    malformed: u32,
    /// When reading was paused. What Discord sent since then may be unread, so an answer that is missing
    /// proves nothing.
    paused_since: Option<Instant>,
    /// When to flush next: the limits allow something that waits, or a command expires.
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
    /// Creates a shard that does nothing until [`Input::Start`]. With a session, the shard begins by resuming
    /// it; a session that [does not fit](Session::check) is ignored. [`Timings`] that [cannot
    /// work](Timings::check) are replaced by the nearest that can.
    pub fn new(mut config: ShardConfig, session: Option<Session>) -> Self {
        config.timings = config.timings.bounded();
        let session = session.filter(|session| session.check(&config).is_ok());
        let limiter = CommandLimiter::of(&config.timings);
        Self {
            state: State::Idle,
            had_session: session.is_some(),
            user_id: None,
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

    /// The current session, with the last sequence number received.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Whether the shard is ready, so that commands can be sent.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// Checks whether this shard accepts a command now.
    ///
    /// # Errors
    ///
    /// The reason why not: another shard owns the command, an intent is missing, or the queue of its class is
    /// full.
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

    /// Whether dispatches may arrive now. Only then does it help a slow subscriber to pause reading.
    pub fn expects_dispatches(&self) -> bool {
        !self.is_ending_session()
            && matches!(self.state, State::Resuming { .. } | State::Ready { .. } | State::Closing { .. })
    }

    /// Whether READY is expected next.
    pub fn expects_session(&self) -> bool {
        matches!(self.state, State::Identifying { .. })
    }

    /// Whether the shard has ended. No input changes that.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Stopped | State::Refused)
    }

    /// The id of the bot's user, as the last READY named it; `None` before that, and if it named none.
    pub fn user_id(&self) -> Option<u64> {
        self.user_id
    }

    /// The time between the last heartbeat and its acknowledgement, on this connection (GW-123).
    pub fn latency(&self) -> Option<Duration> {
        self.heartbeat.as_ref()?.latency()
    }

    /// The state of the heartbeats on this connection; `None` before Hello.
    pub fn heartbeat(&self) -> Option<HeartbeatState> {
        self.heartbeat.as_ref().map(Heartbeat::state)
    }

    /// How many payloads were sent recently, and how many wait.
    pub fn sending(&mut self, now: Instant) -> Sending {
        Sending {
            sent: self.limiter.sent(now),
            voice_waiting: self.commands.waiting(CommandClass::Voice),
            bulk_waiting: self.commands.waiting(CommandClass::Bulk),
            presence_waiting: self.presence_unsent && self.presence.is_some(),
        }
    }

    /// Processes an input.
    ///
    /// An input that does not fit the state is ignored, except that a permit or a connect grant that the
    /// shard cannot use is given back with [`Output::LeaveQueue`].
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
                // The shard repeated its request and was granted both; the first grant is already in use.
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
            Input::TakeOver(id, command, expires_at) => {
                self.commands.insert(id, command, expires_at);
                self.flush(cx.now);
            }
            Input::GiveUpCommands => self.give_up_commands(cx.now),
            Input::ReadingPaused(paused) => self.pause_reading(cx.now, paused),
            Input::Probe(number) => self.probe(cx.now, number),
            Input::Timeout => self.timeout(cx),
            Input::Reconnect { fresh } => self.reconnect(cx, fresh),
            Input::Stop => self.stop(cx.now, Reason::Stopping),
            Input::Detach => self.stop(cx.now, Reason::Detaching),
        }
    }

    /// Returns the next output. Call this method until it returns [`Output::Timeout`].
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

    /// Restarts the time limits of answers, which may have come and not been read while reading is paused.
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

    fn probe(&mut self, now: Instant, number: u64) {
        if self.is_ready()
            && let Some(heartbeat) = &mut self.heartbeat
        {
            heartbeat.probe(number);
            self.flush(now);
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
