//! The driver of one shard: the only place where the machine and a connection meet.
//!
//! The contract: **each step waits for one reason to wake up, feeds the machine, and carries out every output
//! of the machine before the next wait.** The [`core`](super::core) works on the machine,
//! [`carry_out`](super::carry_out) on the connection.
//!
//! Input: data from the connection, controls, the clock. Output: dispatches to the publisher, payloads to the
//! connection, reports to the shard's actor.

use std::panic::AssertUnwindSafe;

use shardkeeper_proto::{IdentifyPermit, Input, PresenceUpdate, ShardConfig};
use shardkeeper_transport::Reading;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use url::Url;

use super::codec::Codec;
use super::core::Core;
use super::life::Running;
use super::link::{Link, LinkEvent};
use super::parts::{Parts, Peers};
use super::receipts::Receipts;
use crate::command::{Origin, Parcel, PendingCommand};
use crate::error::CommandError;
use crate::message::{GivenUpCommands, ManagerMessage};

/// The number of messages that one step takes before the other reasons to wake up get their turn. Larger
/// numbers gain nothing measurable, smaller ones cost a poll of everything per message.
const MESSAGES_PER_STEP: usize = 64;
/// The number of messages that are taken before a timer may act on a message that is missing. They take a few
/// milliseconds.
const MESSAGES_BEFORE_TIMEOUT: usize = 1024;

/// An order for a driver, from its actor.
#[derive(Debug)]
pub(super) enum Control {
    ConnectGrant,
    Permit(IdentifyPermit),
    Reconnect { fresh: bool },
    GatewayUrl(Url),
    Probe(u64),
    Stop,
    Detach,
    GiveUpCommands,
    Crash,
}

/// The channels that wake a driver, besides its connection and its timer.
pub(super) struct Inputs {
    pub(super) control: mpsc::Receiver<Control>,
    pub(super) commands: mpsc::Receiver<Parcel>,
    pub(super) presence: watch::Receiver<Option<PresenceUpdate>>,
}

/// The arguments that start a driver.
pub(super) struct Start {
    pub(super) config: ShardConfig,
    pub(super) parts: Parts,
    pub(super) peers: Peers,
    pub(super) inputs: Inputs,
    /// Must be the last field, so that it is dropped after the others.
    pub(super) running: Running,
}

/// Runs a shard until its machine has ended.
pub(super) async fn run(start: Start) {
    // `_running` must be the first variable, so that it is dropped after the others.
    let Start { running: _running, config, mut parts, peers, inputs } = start;
    // Until the lease is granted, a predecessor may still write the session; from here on, only this driver
    // does.
    let _writer = parts.cell.lease().await;
    parts.publisher.inherit();
    let codec = Codec::new(config.wire.encoding, parts.connector.config().max_message_bytes);
    let core = Core::new(config, parts, peers);
    let mut driver = Driver {
        core,
        link: Link::Down,
        codec,
        inputs,
        commands: Commands::Sent,
        detaching: false,
        uncompressed_reported: false,
    };
    driver.take_presence();
    driver.feed(Input::Start);
    while !driver.core.machine.is_ended() {
        driver.step().await;
    }
    driver.refuse_commands();
    driver.core.parts.hand_over(driver.detaching).await;
}

/// What a driver does with commands that reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commands {
    Sent,
    /// Another shard takes over what this one has not sent. The channel is closed, and may not be empty yet.
    GivenUp,
    /// No more come.
    Over,
}

pub(super) struct Driver {
    pub(super) core: Core,
    pub(super) link: Link,
    pub(super) codec: Codec,
    inputs: Inputs,
    commands: Commands,
    /// Whether the session is left for another process to resume.
    detaching: bool,
    pub(super) uncompressed_reported: bool,
}

impl Driver {
    /// Waits for the most urgent reason to wake up, and handles it.
    async fn step(&mut self) {
        if std::mem::take(&mut self.core.gives_up) {
            return self.feed(Input::Detach);
        }
        let behind = self.core.parts.publisher.is_behind();
        let on_new_side = self.core.parts.publisher.is_on_new_side();
        let paused = self.core.holds_back();
        self.pause_reading(paused);
        let reading = if paused { Reading::Paused } else { Reading::On };
        let wakes_at = self.core.wakes_at;
        tokio::select! {
            biased;
            // 1. Controls: they are few, and work done before a control to stop may be wasted.
            Some(control) = self.inputs.control.recv() => self.control(control),
            // 2. A replaced identify queue: before the timer, or a waiting shard might ask the new queue
            // twice.
            Ok(()) = self.core.peers.queue.changed() => self.feed(Input::QueueReplaced),
            // 3. The newest presence: before the timer, which may send an older one that the limits held
            // back.
            Ok(()) = self.inputs.presence.changed() => self.take_presence(),
            // 4. The timer: heartbeats are due however many commands and messages there are.
            () = sleep(wakes_at) => {
                // Messages that were already received come first. One of them may be the acknowledgement
                // whose absence the timer would take for a dead connection.
                self.receive_pending(MESSAGES_BEFORE_TIMEOUT);
                self.feed(Input::Timeout);
            }
            // 5. Commands: before messages, of which there may always be more.
            parcel = self.inputs.commands.recv(), if self.commands != Commands::Over => {
                match parcel {
                    Some(parcel) => parcel.into_iter().for_each(|pending| self.command(pending)),
                    None => self.commands_over(),
                }
                // An endless stream of commands must not keep the driver from reading.
                self.receive_pending(1);
            }
            // 6. Slow subscribers that have room again: before more is read for them.
            // Also events that a new shard of a reshard may publish now.
            () = self.core.parts.publisher.attend(paused), if behind || on_new_side => {}
            // 7. The connection: last, since it may have something at any time.
            event = self.link.next(reading) => {
                match event {
                    LinkEvent::PaceOver(url) => self.open(url),
                    LinkEvent::Opened(opened) => self.opened(opened),
                    LinkEvent::Connection(event) => {
                        self.core.take(event, &mut self.codec);
                        self.carry_out();
                        self.receive_pending(MESSAGES_PER_STEP);
                        self.log_uncompressed();
                    }
                }
            }
        }
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::ConnectGrant => self.feed(Input::ConnectGrant),
            Control::Permit(permit) => self.permitted(permit),
            Control::Reconnect { fresh } => self.feed(Input::Reconnect { fresh }),
            Control::GatewayUrl(url) => self.feed(Input::GatewayUrl(url)),
            Control::Probe(number) => self.feed(Input::Probe(number)),
            Control::Stop => self.feed(Input::Stop),
            Control::Detach => {
                self.detaching = true;
                self.feed(Input::Detach);
            }
            Control::GiveUpCommands => {
                self.commands = Commands::GivenUp;
                self.inputs.commands.close();
                self.feed(Input::GiveUpCommands);
            }
            Control::Crash => panic!("crash drill"),
        }
    }

    /// Feeds a permit. A permit that was revoked on its way is ignored, because the key may already belong to
    /// another shard.
    fn permitted(&mut self, permit: IdentifyPermit) {
        let Some(taken) = self.core.parts.ledger.take(self.core.parts.shard, self.core.parts.incarnation())
        else {
            return;
        };
        self.core.permit = Some(taken);
        self.compute_presence();
        self.feed(Input::Permit(permit));
        // The machine did not use the permit.
        self.core.permit.take_if(|permit| !permit.is_spent());
    }

    fn command(&mut self, PendingCommand { command, origin }: PendingCommand) {
        if self.commands == Commands::GivenUp && command.can_move() {
            self.core.given_up.push(PendingCommand { command, origin });
            return;
        }
        let reply = match origin {
            Origin::Bot(reply) => reply,
            Origin::Shard { receipt, expires_at } => {
                let id = self.core.receipts.adopt(receipt);
                return self.feed(Input::TakeOver(id, command, expires_at));
            }
        };
        if let Err(refused) = self.core.machine.check_command(&command) {
            let _ = reply.send(Err(refused.into()));
            return;
        }
        let (id, accepted) = self.core.receipts.open();
        let _ = reply.send(Ok(accepted));
        self.feed(Input::Command(id, command));
    }

    /// Passes the commands that were given up to the manager, now that no more can come.
    fn commands_over(&mut self) {
        if std::mem::replace(&mut self.commands, Commands::Over) == Commands::GivenUp {
            let commands = GivenUpCommands(std::mem::take(&mut self.core.given_up));
            let shard = self.core.parts.shard;
            let _ = self.core.peers.manager.cast(ManagerMessage::CommandsGivenUp { shard, commands });
        }
    }

    /// Rejects all commands when the driver ends. A task that waits for a command may owe an acknowledgement
    /// that the end of this driver waits for.
    fn refuse_commands(&mut self) {
        self.core.receipts = Receipts::default();
        self.inputs.commands.close();
        let mut refused = std::mem::take(&mut self.core.given_up);
        while let Ok(parcel) = self.inputs.commands.try_recv() {
            refused.extend(parcel);
        }
        for pending in refused {
            pending.refuse(CommandError::ShardEnded { shard: self.core.parts.shard.id });
        }
    }

    fn take_presence(&mut self) {
        let presence = self.inputs.presence.borrow_and_update().clone();
        if let Some(presence) = presence {
            self.feed(Input::Presence(presence));
        }
    }

    /// Computes the presence for the next Identify, unless the bot has set one.
    fn compute_presence(&mut self) {
        let Some(presence_fn) =
            self.core.parts.presence_fn.as_ref().filter(|_| self.inputs.presence.borrow().is_none())
        else {
            return;
        };
        let shard = self.core.parts.shard.id;
        // `presence_fn` is the bot's own code: its panic must not crash the shard.
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| PresenceUpdate::new(presence_fn(shard))));
        match made {
            Ok(Ok(presence)) => self.feed(Input::Presence(presence)),
            Ok(Err(error)) => {
                tracing::warn!(
                    shard.id = shard.0,
                    "the presence function returned an invalid presence: {error}"
                )
            }
            Err(_) => tracing::warn!(shard.id = shard.0, "the presence function panicked"),
        }
    }

    pub(super) fn feed(&mut self, input: Input<'_>) {
        self.core.feed(input);
        self.carry_out();
        self.core.show_traffic();
    }

    fn pause_reading(&mut self, paused: bool) {
        if self.core.reading_paused != paused {
            self.core.reading_paused = paused;
            self.core.parts.board.set_reading_paused(self.core.parts.incarnation(), paused);
            self.feed(Input::ReadingPaused(paused));
        }
    }

    /// Processes messages that the connection has already received, up to `limit`.
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
}

async fn sleep(until: Option<std::time::Instant>) {
    match until {
        Some(until) => sleep_until(Instant::from_std(until)).await,
        None => std::future::pending().await,
    }
}
