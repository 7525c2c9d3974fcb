//! The driver of one shard: the only place where the machine and a connection meet.
//!
//! Input: what the connection receives, what the control plane says, the clock. Output: dispatches to the
//! publisher, payloads to the connection, reports to the shard's actor.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ractor::ActorRef;
use shardkeeper_proto::shard::{self, Change, Next, Oddity, Reason};
use shardkeeper_proto::{
    Envelope, IdentifyPermit, Input, Opcode, Output, PresenceUpdate, Shard, ShardConfig, ShardId,
};
use shardkeeper_transport::{Closed, ConnectError, Connection, Connector, Event, Reading, TransportError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use url::Url;

use super::PresenceWith;
use super::board::Board;
use super::codec::Codec;
use super::life::{Life, Running};
use super::oddities::Oddities;
use super::pacer::Pacer;
use super::rate::Warnings;
use super::receipts::Receipts;
use super::tap::Tap;
use crate::command::NotWritten;
use crate::command::Pending;
use crate::dispatch::Lifecycle;
use crate::dispatch::{Publisher, STALLED_AFTER};
use crate::error::CommandRejected;
use crate::identify::{IdentifyLedger, TakenPermit};
use crate::message::{QueueMessage, ShardMessage};
use crate::session::SessionSlot;

/// So many messages are taken in one go before the other reasons to wake up get their turn. Larger numbers gain
/// nothing measurable, smaller ones cost a poll of everything per message.
const MESSAGES_PER_TURN: usize = 64;
/// So many are taken before a timer may judge by what has not come. They take a few milliseconds.
const MESSAGES_BEFORE_TIMEOUT: usize = 1024;
/// How many payloads one message may hold. Discord sends one, and proxies that join messages join a few; what they bring
/// is published without a look at slow subscribers, so it has to be bounded.
const PAYLOADS_PER_MESSAGE: usize = 64;

/// What the control plane tells a driver.
#[derive(Debug)]
pub(super) enum Control {
    Turn,
    Permit(IdentifyPermit),
    Reconnect { fresh: bool },
    GatewayUrl(Url),
    Stop,
    Detach,
    Crash,
}

/// What a driver works with.
pub(super) struct Parts {
    pub(super) life: Arc<Life>,
    pub(super) config: ShardConfig,
    pub(super) connector: Connector,
    pub(super) pacer: Arc<Pacer>,
    pub(super) warnings: Arc<Warnings>,
    pub(super) publisher: Publisher,
    pub(super) slot: Arc<SessionSlot>,
    pub(super) board: Arc<Board>,
    pub(super) oddities: Arc<Oddities>,
    pub(super) presence: watch::Receiver<Option<PresenceUpdate>>,
    pub(super) presence_with: Option<PresenceWith>,
    pub(super) queue: watch::Receiver<ActorRef<QueueMessage>>,
    pub(super) ledger: Arc<IdentifyLedger>,
    pub(super) actor: ActorRef<ShardMessage>,
    pub(super) control: mpsc::Receiver<Control>,
    pub(super) commands: mpsc::Receiver<Pending>,
    pub(super) random: fastrand::Rng,
    pub(super) tap: Option<Arc<Tap>>,
    /// Whether to make another connection when one ends.
    pub(super) reconnect: bool,
    /// The last field, to be dropped behind the others.
    pub(super) running: Running,
}

/// Runs a shard until its machine is at its end.
pub(super) async fn run(mut parts: Parts) {
    // The first variable, to be dropped behind the others.
    let _running = parts.running;
    // Until here a predecessor may still have written; from here on its session stands still.
    let _writer = parts.slot.lease().await;
    parts.publisher.inherit();
    let shard = parts.config.shard;
    let codec = Codec::new(parts.config.wire.encoding, parts.connector.config().max_message_bytes);
    let machine = Shard::new(parts.config, parts.slot.load());
    let mut driver = Driver {
        core: Core {
            life: parts.life,
            shard,
            machine,
            wakes_at: None,
            publisher: parts.publisher,
            slot: parts.slot,
            board: parts.board,
            oddities: parts.oddities,
            warnings: parts.warnings,
            queue: parts.queue,
            ledger: parts.ledger,
            actor: parts.actor,
            random: parts.random,
            tap: parts.tap,
            reconnect: parts.reconnect,
            gives_up: false,
            for_link: Vec::new(),
            reading_paused: false,
            permit: None,
            receipts: Receipts::default(),
            latency: None,
        },
        link: Link::Down,
        codec,
        connector: parts.connector,
        pacer: parts.pacer,
        presence: parts.presence,
        presence_with: parts.presence_with,
        control: parts.control,
        commands: parts.commands,
        detaching: false,
        uncompressed_told: false,
    };
    driver.take_presence();
    driver.feed(Input::Start);
    while !driver.core.machine.is_ended() {
        driver.turn().await;
    }
    driver.refuse_commands();
    driver.core.publisher.catch_up().await;
    if driver.detaching {
        driver.core.settle().await;
    }
}

struct Driver {
    core: Core,
    link: Link,
    codec: Codec,
    connector: Connector,
    pacer: Arc<Pacer>,
    presence: watch::Receiver<Option<PresenceUpdate>>,
    presence_with: Option<PresenceWith>,
    control: mpsc::Receiver<Control>,
    commands: mpsc::Receiver<Pending>,
    /// The session goes to another process.
    detaching: bool,
    uncompressed_told: bool,
}

impl Driver {
    /// Waits for any reason to wake up, and deals with it. Listed by urgency.
    async fn turn(&mut self) {
        if std::mem::take(&mut self.core.gives_up) {
            return self.feed(Input::Detach);
        }
        let behind = self.core.publisher.is_behind();
        let paused = self.core.holds_back();
        self.pause_reading(paused);
        let reading = if paused { Reading::Paused } else { Reading::On };
        let wakes_at = self.core.wakes_at;
        tokio::select! {
            biased;
            Some(control) = self.control.recv() => self.control(control),
            Ok(()) = self.core.queue.changed() => self.feed(Input::QueueReplaced),
            Ok(()) = self.presence.changed() => self.take_presence(),
            () = sleep(wakes_at) => {
                // What is here already comes first: among it may be the acknowledgement whose absence the timer
                // would take for a zombie.
                self.receive_pending(MESSAGES_BEFORE_TIMEOUT);
                self.feed(Input::Timeout);
            }
            Some(asked) = self.commands.recv() => {
                self.command(asked);
                // Whoever asks without end does not keep us from reading.
                self.receive_pending(1);
            }
            () = self.core.publisher.catch_up(), if behind => {}
            event = self.link.next(reading) => {
                match event {
                    LinkEvent::PaceOver(url) => self.open(url),
                    LinkEvent::Opened(opened) => self.opened(opened),
                    LinkEvent::Connection(event) => {
                        self.core.take(event, &mut self.codec);
                        self.carry_out();
                        self.receive_pending(MESSAGES_PER_TURN);
                        self.tell_uncompressed();
                    }
                }
            }
        }
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Turn => self.feed(Input::Turn),
            Control::Permit(permit) => self.permitted(permit),
            Control::Reconnect { fresh } => self.feed(Input::Reconnect { fresh }),
            Control::GatewayUrl(url) => self.feed(Input::GatewayUrl(url)),
            Control::Stop => self.feed(Input::Stop),
            Control::Detach => {
                self.detaching = true;
                self.feed(Input::Detach);
            }
            Control::Crash => panic!("crash drill"),
        }
    }

    /// A permit that was revoked on its way is ignored: the key may be another shard's by now.
    fn permitted(&mut self, permit: IdentifyPermit) {
        let Some(taken) = self.core.ledger.take(self.core.shard, self.core.life.incarnation()) else {
            return;
        };
        self.core.permit = Some(taken);
        self.compute_presence();
        self.feed(Input::Permit(permit));
        // The machine had no use for it.
        self.core.permit.take_if(|permit| !permit.is_spent());
    }

    fn command(&mut self, Pending { command, reply }: Pending) {
        if let Err(refused) = self.core.machine.check_command(&command) {
            let _ = reply.send(Err(refused.into()));
            return;
        }
        let (id, accepted) = self.core.receipts.open();
        let _ = reply.send(Ok(accepted));
        self.feed(Input::Command(id, command));
    }

    /// It sends nothing more. Who waits for a command may owe an acknowledgement that the end of this driver waits for.
    fn refuse_commands(&mut self) {
        self.core.receipts = Receipts::default();
        self.commands.close();
        while let Ok(Pending { reply, .. }) = self.commands.try_recv() {
            let _ = reply.send(Err(CommandRejected::ShardEnded { shard: self.core.shard }));
        }
    }

    fn take_presence(&mut self) {
        let presence = self.presence.borrow_and_update().clone();
        if let Some(presence) = presence {
            self.feed(Input::Presence(presence));
        }
    }

    /// What the coming Identify shows, unless the bot has set something since.
    fn compute_presence(&mut self) {
        let Some(presence_with) = self.presence_with.as_ref().filter(|_| self.presence.borrow().is_none())
        else {
            return;
        };
        let shard = self.core.shard;
        // It is the bot's own code: what is wrong with it is not to cost the shard.
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| PresenceUpdate::new(presence_with(shard))));
        match made {
            Ok(Ok(presence)) => self.feed(Input::Presence(presence)),
            Ok(Err(error)) => {
                tracing::warn!(shard.id = shard.0, "the computed presence cannot be shown: {error}")
            }
            Err(_) => tracing::warn!(shard.id = shard.0, "computing the presence panicked"),
        }
    }

    fn feed(&mut self, input: Input<'_>) {
        self.core.feed(input, None);
        self.carry_out();
        self.core.show_traffic();
    }

    fn pause_reading(&mut self, paused: bool) {
        if self.core.reading_paused != paused {
            self.core.reading_paused = paused;
            self.core.board.set_reading_paused(self.core.life.incarnation(), paused);
            self.feed(Input::ReadingPaused(paused));
        }
    }

    /// Takes what the connection has received already, up to `limit` messages.
    fn receive_pending(&mut self, limit: usize) {
        for _ in 0..limit {
            let Link::Up(connection) = &mut self.link else { return };
            if self.core.holds_back() {
                return;
            }
            let Some(event) = connection.try_next() else { return };
            self.core.take(event, &mut self.codec);
            self.carry_out();
        }
    }

    /// Once per driver; the log has it once for all of them.
    fn tell_uncompressed(&mut self) {
        if let Link::Up(connection) = &self.link
            && connection.is_uncompressed()
            && !std::mem::replace(&mut self.uncompressed_told, true)
        {
            self.core.oddities.tell(self.core.shard, Oddity::Uncompressed);
        }
    }

    /// Carries out what the machine wants done to the link.
    fn carry_out(&mut self) {
        // Taken out and put back, so that its memory serves again; carrying out may add more at the end.
        while !self.core.for_link.is_empty() {
            let mut outputs = std::mem::take(&mut self.core.for_link);
            for output in outputs.drain(..) {
                self.carry_out_one(output);
                self.core.show_traffic();
            }
            if self.core.for_link.is_empty() {
                self.core.for_link = outputs;
            }
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match (output, &mut self.link) {
            (Output::Connect(url), _) => {
                self.core.board.set_url(self.core.life.incarnation(), &url);
                let wait = self.pacer.take_turn();
                if wait.is_zero() {
                    self.open(url);
                } else {
                    self.link = Link::Paced { until: Instant::now() + wait, url };
                    self.feed(Input::ConnectDelayed(wait));
                }
            }
            (Output::Disconnect, _) => {
                self.core.permit = None;
                self.core.receipts.disconnected();
                self.link = Link::Down;
            }
            (Output::Send(payload), Link::Up(connection)) => {
                if let Some(tap) = &self.core.tap {
                    tap.sent(self.core.shard, &payload);
                }
                let permit = self.core.permit.as_mut().filter(|_| payload.is(Opcode::Identify));
                let identifies = permit.map(TakenPermit::spend).is_some();
                // When its buffer is full, the connection says so as its end.
                let _ = self.codec.enqueue(payload, connection);
                if identifies {
                    // Written before anything can end this driver, so that what was counted is what Discord gets.
                    let written =
                        connection.poll_next(&mut Context::from_waker(Waker::noop()), Reading::Paused);
                    if let Poll::Ready(Event::Flushed) = written {
                        self.core.flushed();
                    }
                }
            }
            (Output::CommandSent(id), _) => self.core.receipts.sent(id),
            (Output::Close(code), Link::Up(connection)) => {
                let _ = connection.enqueue_close(code, "");
            }
            // The connection ended in between; the machine is about to hear of it.
            _ => {}
        }
    }

    fn open(&mut self, url: Url) {
        let connector = self.connector.clone();
        self.link = Link::Opening(Box::pin(async move { connector.connect(&url).await.map(Box::new) }));
    }

    fn opened(&mut self, opened: Result<Box<Connection>, ConnectError>) {
        match opened {
            Ok(connection) => {
                self.link = Link::Up(connection);
                self.feed(Input::Connected);
            }
            Err(error) => {
                self.link = Link::Down;
                let retry_after = error.retry_after();
                let error = crate::chain::chain(&error);
                let shard = self.core.shard;
                if self.core.warnings.admit(shard) {
                    tracing::warn!(shard.id = shard.0, error, ?retry_after, "could not connect");
                } else {
                    tracing::debug!(shard.id = shard.0, error, ?retry_after, "could not connect");
                }
                self.feed(match retry_after {
                    Some(retry_after) => Input::ConnectRefused { retry_after },
                    None => Input::ConnectFailed,
                });
                self.core.board.set_reason(self.core.life.incarnation(), error);
            }
        }
    }
}

async fn sleep(until: Option<std::time::Instant>) {
    match until {
        Some(until) => sleep_until(Instant::from_std(until)).await,
        None => std::future::pending().await,
    }
}

/// The connection, or what there is of it.
enum Link {
    Down,
    /// Waits for the pacer.
    Paced {
        until: Instant,
        url: Url,
    },
    Opening(BoxFuture<'static, Result<Box<Connection>, ConnectError>>),
    Up(Box<Connection>),
}

enum LinkEvent<'a> {
    PaceOver(Url),
    Opened(Result<Box<Connection>, ConnectError>),
    Connection(Event<'a>),
}

impl Link {
    /// # Cancel safety
    ///
    /// Safe: each of its parts is.
    async fn next(&mut self, reading: Reading) -> LinkEvent<'_> {
        match self {
            Self::Down => std::future::pending().await,
            Self::Paced { until, url } => {
                sleep_until(*until).await;
                LinkEvent::PaceOver(url.clone())
            }
            Self::Opening(opening) => LinkEvent::Opened(opening.await),
            Self::Up(connection) => LinkEvent::Connection(connection.next(reading).await),
        }
    }
}

/// Everything of a driver but the link, so that it can work on a message which the link still holds.
struct Core {
    life: Arc<Life>,
    shard: ShardId,
    machine: Shard,
    wakes_at: Option<std::time::Instant>,
    publisher: Publisher,
    slot: Arc<SessionSlot>,
    board: Arc<Board>,
    oddities: Arc<Oddities>,
    warnings: Arc<Warnings>,
    queue: watch::Receiver<ActorRef<QueueMessage>>,
    ledger: Arc<IdentifyLedger>,
    actor: ActorRef<ShardMessage>,
    random: fastrand::Rng,
    tap: Option<Arc<Tap>>,
    reconnect: bool,
    /// The connection has ended, and there is to be no other one.
    gives_up: bool,
    /// Outputs that concern the link, in order.
    for_link: Vec<Output>,
    reading_paused: bool,
    /// From when it is taken until its Identify is written, or never will be.
    permit: Option<TakenPermit>,
    receipts: Receipts,
    latency: Option<Duration>,
}

impl Core {
    fn take(&mut self, event: Event<'_>, codec: &mut Codec) {
        match event {
            Event::Message(message) => self.take_message(message, codec),
            Event::Flushed => self.flushed(),
            Event::Closed(closed) => {
                let corrupt = closed.error.as_ref().is_some_and(TransportError::is_unreadable);
                self.feed(Input::Closed { code: closed.code, corrupt, detail: detail(&closed) }, None);
            }
        }
    }

    /// Shows on the board what is sent and acknowledged. Not for each event: only what concerns the link changes it.
    fn show_traffic(&mut self) {
        let latency = self.machine.latency();
        if latency != self.latency {
            self.latency = latency;
            self.board.set_latency(self.life.incarnation(), latency);
        }
        let sending = self.machine.sending(Instant::now().into_std());
        self.board.set_traffic(self.life.incarnation(), self.machine.heartbeat(), sending);
    }

    /// Takes each payload of a message; Discord sends one.
    fn take_message(&mut self, message: &[u8], codec: &mut Codec) {
        let mut rest = message;
        for taken in 0..PAYLOADS_PER_MESSAGE {
            match codec.split(rest) {
                Ok((envelope, behind)) => {
                    if let Some(tap) = &self.tap {
                        tap.received(self.shard, rest.len() - behind.len(), Some(&envelope));
                    }
                    self.feed(Input::Payload(&envelope), Some(&envelope));
                    if envelope.opcode() == Some(Opcode::HeartbeatAck) {
                        self.show_traffic();
                    }
                    rest = behind;
                }
                Err(error) => {
                    if let Some(tap) = &self.tap {
                        tap.received(self.shard, rest.len(), None);
                    }
                    let error = crate::chain::chain(&error);
                    if self.warnings.admit(self.shard) {
                        tracing::warn!(shard.id = self.shard.0, error, "unreadable payload");
                    } else {
                        tracing::debug!(shard.id = self.shard.0, error, "unreadable payload");
                    }
                    // What is lost behind a payload comes again with a resume; a payload of its own may be skipped.
                    return self.feed(
                        match taken {
                            0 => Input::Malformed,
                            _ => {
                                Input::Unreadable("what stands behind a payload in the same message is none")
                            }
                        },
                        None,
                    );
                }
            }
            if rest.is_empty() {
                return;
            }
            self.oddities.tell(self.shard, Oddity::SeveralPayloads);
        }
        self.feed(Input::Unreadable("more payloads in one message than are taken"), None);
    }

    /// Feeds the machine and does everything it puts out, but for what concerns the link.
    fn feed(&mut self, input: Input<'_>, envelope: Option<&Envelope<'_>>) {
        let now = Instant::now().into_std();
        self.machine.handle_input(&mut shard::Context::new(now, &mut || self.random.f64()), input);
        loop {
            match self.machine.poll_output() {
                Output::Timeout(at) => {
                    self.wakes_at = at;
                    return;
                }
                Output::Deliver { sequence, replayed } => {
                    let envelope = envelope.expect("the machine delivers only what it was just fed");
                    self.deliver(envelope, sequence, replayed);
                }
                Output::SessionChanged(session) => self.slot.store(self.life.incarnation(), session),
                Output::Changed(change) => self.changed(now, change),
                Output::Odd(oddity) => self.oddities.tell(self.shard, oddity),
                Output::Enqueue(priority) => {
                    let (shard, incarnation, actor) =
                        (self.shard, self.life.incarnation(), self.actor.clone());
                    self.ask(QueueMessage::Join { shard, incarnation, priority, actor });
                }
                Output::ClaimPermit(priority) => {
                    let (shard, incarnation, actor) =
                        (self.shard, self.life.incarnation(), self.actor.clone());
                    self.ask(QueueMessage::Claim { shard, incarnation, priority, actor });
                }
                Output::AskGateway => self.report(ShardMessage::AskGateway),
                Output::CommandExpired(id) => {
                    let held_up = self.publisher.is_behind() && !self.machine.is_ready();
                    let reason = if held_up { NotWritten::HeldUp } else { NotWritten::Expired };
                    self.receipts.given_up(id, reason);
                }
                Output::LeaveQueue => {
                    let (shard, incarnation) = (self.shard, self.life.incarnation());
                    self.ask(QueueMessage::Leave { shard, incarnation });
                }
                for_link => self.for_link.push(for_link),
            }
        }
    }

    /// Whether to read nothing, for the sake of a lossless subscription. Hello is read all the same, or a connection that
    /// is new would not live; and READY as long as there is room for it, so that the session is known. While somebody awaits an
    /// answer, or that a command is written, reading goes on as far as the spill has room: it may be the same one who does not
    /// read.
    fn holds_back(&mut self) -> bool {
        let holds_back = self.publisher.is_behind()
            && (self.machine.expects_dispatches()
                || self.machine.expects_session() && self.publisher.is_full());
        holds_back && !self.publisher.reads_on(!self.machine.is_ready() && self.receipts.are_awaited())
    }

    /// What subscribers have in hand they may finish; the manager's deadline ends the wait. Whoever takes long is named: it may
    /// be the one who waits for this end.
    async fn settle(&self) {
        let watermark = self.slot.watermark();
        if timeout(STALLED_AFTER, watermark.settled()).await.is_ok() {
            return;
        }
        if let Some((sequence, subscription)) = watermark.waits_for() {
            let (shard, stuck_for) = (self.shard, STALLED_AFTER);
            let lifecycle = Lifecycle::WatermarkStuck { shard, subscription, sequence, stuck_for };
            self.publisher.announce_aside(&lifecycle);
        }
        watermark.settled().await;
    }

    fn deliver(&mut self, envelope: &Envelope<'_>, sequence: u64, replayed: bool) {
        self.board.count_dispatch();
        self.publisher.publish(envelope, sequence, replayed);
        self.slot.advance(sequence);
    }

    fn changed(&mut self, now: std::time::Instant, mut change: Change) {
        if let Change::Disconnected { next, .. } = &mut change
            && !self.reconnect
        {
            *next = Next::End;
            self.gives_up = true;
        }
        self.board.changed(self.life.incarnation(), now, &change);
        let lifecycle = Lifecycle::Shard { shard: self.shard, change };
        match &lifecycle {
            Lifecycle::Shard { change: Change::Refused(_), .. } => tracing::error!("{lifecycle}"),
            Lifecycle::Shard { change: Change::Disconnected { reason, .. }, .. }
                if is_notable(*reason) && self.warnings.admit(self.shard) =>
            {
                tracing::warn!("{lifecycle}");
            }
            _ => tracing::info!("{lifecycle}"),
        }
        self.publisher.announce(&lifecycle);
        // Only now, so that what the manager makes of it is announced after it.
        let Lifecycle::Shard { change, .. } = lifecycle else { return };
        match change {
            Change::Ready | Change::Resumed { .. } => {
                self.life.set_ready();
                self.report(ShardMessage::BecameReady);
            }
            Change::Refused(refusal) => {
                self.life.refuse(refusal);
                self.report(ShardMessage::Refused(refusal));
            }
            _ => {}
        }
    }

    /// Everything that was handed to the connection has been written.
    fn flushed(&mut self) {
        self.permit = None;
        self.receipts.flushed();
    }

    /// A queue that is gone is replaced by the manager, and then asked again.
    fn ask(&self, message: QueueMessage) {
        let _ = self.queue.borrow().cast(message);
    }

    /// Without its actor this driver is about to end.
    fn report(&self, message: ShardMessage) {
        let _ = self.actor.cast(message);
    }
}

/// What is known of an end beyond its code. The reason in a close frame is the peer's own, of at most 123 bytes.
fn detail(closed: &Closed) -> Option<Arc<str>> {
    match &closed.error {
        Some(error) => Some(crate::chain::chain(error).into()),
        None if closed.reason.is_empty() => None,
        None => Some(format!("{:?}", closed.reason).into()),
    }
}

/// Whether an operator may want to know why, since neither side does so as a matter of course.
fn is_notable(reason: Reason) -> bool {
    matches!(reason, Reason::Zombied | Reason::Unreadable | Reason::OtherShard | Reason::Closed(_))
}
