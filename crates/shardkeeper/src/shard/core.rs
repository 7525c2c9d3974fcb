//! The driver's work on the machine: feeds inputs and carries out outputs.
//!
//! Input: events of the connection, and controls. Output: dispatches to the publisher, requests to the
//! identify queue, reports to the shard's actor. Outputs that concern the connection itself are left for the
//! [link](super::link).

use std::sync::Arc;
use std::time::Duration;

use shardkeeper_proto::shard::{Change, Context, Next, Oddity, Reason};
use shardkeeper_proto::{Envelope, EventName, Input, Opcode, Output, Priority, Shard, ShardConfig};
use shardkeeper_transport::{Closed, Event, TransportError};
use tokio::time::Instant;

use super::codec::Codec;
use super::parts::{Parts, Peers};
use super::receipts::Receipts;
use crate::command::{Origin, PendingCommand, WriteError};
use crate::dispatch::Lifecycle;
use crate::identify::TakenPermit;
use crate::layout::{Role, ShardKey};
use crate::message::{QueueMessage, ShardMessage};

/// The maximum number of payloads in one message. Discord sends one, and proxies that join messages join a
/// few. They are all published without waiting for slow subscribers, so the number has to be bounded.
const PAYLOADS_PER_MESSAGE: usize = 64;

/// All of a driver except its link and its inputs, so that it can process a message that the link still
/// holds.
pub(super) struct Core {
    pub(super) parts: Parts,
    pub(super) peers: Peers,
    pub(super) machine: Shard,
    pub(super) wakes_at: Option<std::time::Instant>,
    /// Whether the shard gives up because its connection ended and reconnecting is switched off.
    pub(super) gives_up: bool,
    /// The outputs that concern the link, in order.
    pub(super) for_link: Vec<Output>,
    pub(super) reading_paused: bool,
    /// The permit, from when it was taken until its Identify is written or can no longer be sent.
    pub(super) permit: Option<TakenPermit>,
    pub(super) receipts: Receipts,
    /// Commands that another shard takes over.
    pub(super) given_up: Vec<PendingCommand>,
    latency: Option<Duration>,
}

impl Core {
    pub(super) fn new(config: ShardConfig, parts: Parts, peers: Peers) -> Self {
        Self {
            machine: Shard::new(config, parts.cell.load()),
            parts,
            peers,
            wakes_at: None,
            gives_up: false,
            for_link: Vec::new(),
            reading_paused: false,
            permit: None,
            receipts: Receipts::default(),
            given_up: Vec::new(),
            latency: None,
        }
    }

    pub(super) fn take(&mut self, event: Event<'_>, codec: &mut Codec) {
        match event {
            Event::Message(message) => self.take_message(message, codec),
            Event::Flushed => self.flushed(),
            Event::Closed(closed) => {
                let corrupt = closed.error.as_ref().is_some_and(TransportError::is_unreadable);
                self.feed(Input::Closed { code: closed.code, corrupt, detail: detail(&closed) });
            }
        }
    }

    /// Copies the state of sending and of heartbeats to the board. Only outputs that concern the link and
    /// acknowledgements change it, so this is not called for each event.
    pub(super) fn show_traffic(&mut self) {
        let latency = self.machine.latency();
        if latency != self.latency {
            self.latency = latency;
            self.parts.board.set_latency(self.parts.incarnation(), latency);
        }
        let sending = self.machine.sending(Instant::now().into_std());
        self.parts.board.set_traffic(self.parts.incarnation(), self.machine.heartbeat(), sending);
    }

    /// Processes each payload of a message; Discord sends one per message.
    fn take_message(&mut self, message: &[u8], codec: &mut Codec) {
        let mut rest = message;
        for taken in 0..PAYLOADS_PER_MESSAGE {
            match codec.split(rest) {
                Ok((envelope, behind)) => {
                    if let Some(tap) = &self.parts.tap {
                        tap.received(self.parts.shard.id, rest.len() - behind.len(), Some(&envelope));
                    }
                    self.feed(Input::Payload(&envelope));
                    if envelope.opcode() == Some(Opcode::HeartbeatAck) {
                        self.show_traffic();
                    }
                    rest = behind;
                }
                Err(error) => {
                    if let Some(tap) = &self.parts.tap {
                        tap.received(self.parts.shard.id, rest.len(), None);
                    }
                    let error = crate::chain::chain(&error);
                    if self.parts.warnings.admit(self.parts.shard) {
                        tracing::warn!(shard.id = self.parts.shard.id.0, error, "unreadable payload");
                    } else {
                        tracing::debug!(shard.id = self.parts.shard.id.0, error, "unreadable payload");
                    }
                    // Data that is lost after a payload is replayed by a resume. A whole message that is
                    // unreadable may be skipped.
                    return self.feed(match taken {
                        0 => Input::Malformed,
                        _ => Input::Unreadable("data after a payload in the same message is not a payload"),
                    });
                }
            }
            if rest.is_empty() {
                return;
            }
            self.parts.oddities.log_once(self.parts.shard, Oddity::SeveralPayloads);
        }
        self.feed(Input::Unreadable("more payloads in one message than are taken"));
    }

    /// Feeds the machine, and carries out all outputs except those that concern the link.
    pub(super) fn feed(&mut self, input: Input<'_>) {
        let payload = if let Input::Payload(envelope) = input { Some(envelope) } else { None };
        let now = Instant::now().into_std();
        self.machine.handle_input(&mut Context::new(now, &mut || self.parts.random.f64()), input);
        loop {
            match self.machine.poll_output() {
                Output::Timeout(at) => {
                    self.wakes_at = at;
                    return;
                }
                Output::Deliver { sequence, replayed } => {
                    // A delivery always belongs to the payload that was just fed.
                    let Some(envelope) = payload else { continue };
                    self.deliver(envelope, sequence, replayed);
                }
                Output::SessionChanged(session) => {
                    self.parts.publisher.session_changed(session.is_some());
                    self.parts.cell.store(self.parts.incarnation(), session);
                }
                Output::Probed(number) => self.parts.publisher.probed(number),
                Output::Changed(change) => self.changed(now, change),
                Output::Odd(oddity) => self.parts.oddities.log_once(self.parts.shard, oddity),
                Output::Enqueue(priority) => {
                    let priority = self.priority(priority);
                    let (shard, incarnation) = (self.parts.shard, self.parts.incarnation());
                    let actor = self.peers.actor.clone();
                    self.peers.ask(QueueMessage::Join { shard, incarnation, priority, actor });
                }
                Output::ClaimPermit(priority) => {
                    let priority = self.priority(priority);
                    let (shard, incarnation) = (self.parts.shard, self.parts.incarnation());
                    let actor = self.peers.actor.clone();
                    self.peers.ask(QueueMessage::Claim { shard, incarnation, priority, actor });
                }
                Output::AskGateway => self.peers.report(ShardMessage::AskGateway),
                Output::CommandExpired(id) => {
                    let held_up = self.parts.publisher.is_behind() && !self.machine.is_ready();
                    let reason = if held_up { WriteError::HeldUp } else { WriteError::Expired };
                    self.receipts.given_up(id, reason);
                }
                Output::CommandGivenUp(id, command, expires_at) => {
                    let origin = self.receipts.take(id).map(|receipt| Origin::Shard { receipt, expires_at });
                    self.given_up.extend(origin.map(|origin| PendingCommand { command, origin }));
                }
                Output::LeaveQueue => {
                    let (shard, incarnation) = (self.parts.shard, self.parts.incarnation());
                    self.peers.ask(QueueMessage::Leave { shard, incarnation });
                }
                for_link => self.for_link.push(for_link),
            }
        }
    }

    /// The urgency of an Identify. As long as a shard of the old layout serves the guilds, every shard that has
    /// none to serve them goes first, whatever has become of this one's session.
    fn priority(&self, of_machine: Priority) -> Priority {
        match self.parts.board.role() {
            Role::Warming => Priority::Reshard,
            _ => of_machine,
        }
    }

    /// Lets the identify queue wait longer for a shard whose connection is paced.
    pub(super) fn delay_connect(&mut self, wait: Duration) {
        let (shard, incarnation) = (self.parts.shard, self.parts.incarnation());
        self.peers.ask(QueueMessage::ConnectDelayed { shard, incarnation, wait });
    }

    /// Whether to pause reading for a lossless subscription that is full. Hello is always read, since a new
    /// connection needs it to stay alive. READY is read as long as the spill has room, so that the session is
    /// known. While a caller waits for an answer or for a command to be written, reading continues as far as
    /// the spill has room, because that caller may be the one who does not read.
    pub(super) fn holds_back(&mut self) -> bool {
        // What is held for a reshard leaves without a subscription's doing.
        if self.parts.publisher.is_held_up() && self.machine.expects_dispatches() {
            return true;
        }
        let holds_back = self.parts.publisher.is_behind()
            && (self.machine.expects_dispatches()
                || self.machine.expects_session() && self.parts.publisher.is_full());
        holds_back && !self.parts.publisher.reads_on(!self.machine.is_ready() && self.receipts.are_awaited())
    }

    fn deliver(&mut self, envelope: &Envelope<'_>, sequence: u64, replayed: bool) {
        self.parts.board.count_dispatch();
        self.parts.publisher.publish(envelope, sequence, replayed);
        if self.parts.calls.any() && envelope.event_name() == Some(EventName::VoiceStateUpdate) {
            self.parts.calls.received(envelope.data);
        }
        self.parts.cell.advance(sequence);
    }

    fn changed(&mut self, now: std::time::Instant, mut change: Change) {
        if let Change::Disconnected { next, .. } = &mut change
            && !self.parts.reconnect
        {
            *next = Next::End;
            self.gives_up = true;
        }
        self.parts.board.changed(self.parts.incarnation(), now, &change);
        let ShardKey { id: shard, generation } = self.parts.shard;
        let lifecycle = Lifecycle::Shard { shard, generation, change };
        match &lifecycle {
            Lifecycle::Shard { change: Change::Refused(_), .. } => tracing::error!("{lifecycle}"),
            Lifecycle::Shard { change: Change::Disconnected { reason, .. }, .. }
                if is_notable(*reason) && self.parts.warnings.admit(self.parts.shard) =>
            {
                tracing::warn!("{lifecycle}");
            }
            _ => tracing::info!("{lifecycle}"),
        }
        self.parts.publisher.announce(&lifecycle);
        // The report comes after the announcement, so that anything the manager announces in response follows
        // it.
        let Lifecycle::Shard { change, .. } = lifecycle else { return };
        if change == Change::Ready {
            self.parts.calls.session_began(self.parts.shard, self.machine.user_id());
        }
        match change {
            Change::Ready | Change::Resumed { .. } => {
                self.parts.life.set_ready();
                self.peers.report(ShardMessage::BecameReady);
            }
            Change::Refused(refusal) => {
                self.parts.life.refuse(refusal);
                self.peers.report(ShardMessage::Refused(refusal));
            }
            _ => {}
        }
    }

    /// Records that the connection has written everything.
    pub(super) fn flushed(&mut self) {
        self.permit = None;
        self.receipts.flushed(self.parts.shard);
    }
}

/// Details of the end beyond its close code. The reason in a close frame is the peer's text, at most 123
/// bytes.
fn detail(closed: &Closed) -> Option<Arc<str>> {
    match &closed.error {
        Some(error) => Some(crate::chain::chain(error).into()),
        None if closed.reason.is_empty() => None,
        None => Some(format!("{:?}", closed.reason).into()),
    }
}

/// Whether the cause is worth a warning: neither side does this in normal operation.
fn is_notable(reason: Reason) -> bool {
    matches!(reason, Reason::Zombied | Reason::Unreadable | Reason::OtherShard | Reason::Closed(_))
}
