//! One shard as an actor: the address of its driver.
//!
//! Input: messages from the manager, the identify queue and the bot. Output: controls to the driver task, which
//! does all the work; and reports to the manager.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use shardkeeper_proto::{PresenceUpdate, ShardConfig, ShardId};
use shardkeeper_transport::Connector;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::PresenceWith;
use super::board::Board;
use super::driver::{self, Control};
use super::life::{Life, Running};
use super::oddities::Oddities;
use super::pacer::Pacer;
use super::rate::Warnings;
use super::tap::Tap;
use crate::command::{CommandInbox, CommandSender};
use crate::dispatch::Publisher;
use crate::error::CommandRejected;
use crate::identify::IdentifyLedger;
use crate::message::{ManagerMessage, QueueMessage, RestartBy, ShardMessage, ShardReport};
use crate::session::SessionSlot;
use crate::task::{AbortOnDrop, panic_message};

/// How many controls wait for a driver. It takes them before anything else, so that only a burst fills it.
const CONTROL_CAPACITY: usize = 64;

/// The actor of one shard. It holds nothing that would be missed: sessions, layout and presence are the manager's.
pub struct ShardActor;

/// What a [`ShardActor`] is started with. Only the manager makes one.
pub struct ShardArguments {
    pub(crate) life: Arc<Life>,
    pub(crate) config: ShardConfig,
    pub(crate) connector: Connector,
    pub(crate) pacer: Arc<Pacer>,
    pub(crate) warnings: Arc<Warnings>,
    pub(crate) publisher: Publisher,
    pub(crate) slot: Arc<SessionSlot>,
    pub(crate) board: Arc<Board>,
    pub(crate) oddities: Arc<Oddities>,
    pub(crate) commands: (CommandSender, CommandInbox),
    pub(crate) presence: Option<PresenceUpdate>,
    pub(crate) presence_with: Option<PresenceWith>,
    pub(crate) queue: ActorRef<QueueMessage>,
    pub(crate) ledger: Arc<IdentifyLedger>,
    pub(crate) manager: ActorRef<ManagerMessage>,
    pub(crate) random: fastrand::Rng,
    pub(crate) tap: Option<Arc<Tap>>,
    pub(crate) reconnect: bool,
    pub(crate) running: Running,
}

/// The state of a [`ShardActor`].
pub struct ShardState {
    shard: ShardId,
    life: Arc<Life>,
    manager: ActorRef<ManagerMessage>,
    /// The identify queue's address, which the driver follows.
    queue: watch::Sender<ActorRef<QueueMessage>>,
    /// The newest presence: however many are set, a driver that is late misses the older ones alone (GW-161).
    presence: watch::Sender<Option<PresenceUpdate>>,
    control: mpsc::Sender<Control>,
    commands: CommandSender,
    /// Until the actor runs.
    parts: Option<driver::Parts>,
    /// However the actor ends, its driver ends, and the connection with it: without a close frame, so that the session
    /// stays resumable.
    driver: Option<AbortOnDrop>,
}

/// The driver panicked: an invariant of ours is broken.
#[derive(Debug, thiserror::Error)]
#[error("driver panicked: {0}")]
struct DriverPanicked(String);

impl Actor for ShardActor {
    type Msg = ShardMessage;
    type State = ShardState;
    type Arguments = ShardArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ShardMessage>,
        arguments: ShardArguments,
    ) -> Result<ShardState, ActorProcessingErr> {
        let (control, receiver) = mpsc::channel(CONTROL_CAPACITY);
        let (commands, inbox) = arguments.commands;
        let (queue, queue_address) = watch::channel(arguments.queue);
        let (presence, newest_presence) = watch::channel(arguments.presence);
        Ok(ShardState {
            shard: arguments.config.shard,
            life: Arc::clone(&arguments.life),
            manager: arguments.manager,
            queue,
            presence,
            control,
            commands,
            parts: Some(driver::Parts {
                life: arguments.life,
                config: arguments.config,
                connector: arguments.connector,
                pacer: arguments.pacer,
                warnings: arguments.warnings,
                publisher: arguments.publisher,
                slot: arguments.slot,
                board: arguments.board,
                oddities: arguments.oddities,
                presence: newest_presence,
                presence_with: arguments.presence_with,
                queue: queue_address,
                ledger: arguments.ledger,
                actor: myself,
                control: receiver,
                commands: inbox.0,
                random: arguments.random,
                tap: arguments.tap,
                reconnect: arguments.reconnect,
                running: arguments.running,
            }),
            driver: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<ShardMessage>,
        state: &mut ShardState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(parts) = state.parts.take() {
            let driver = tokio::spawn(driver::run(parts));
            state.driver = Some(AbortOnDrop(driver.abort_handle()));
            tokio::spawn(async move {
                let ended = match driver.await {
                    Err(error) if error.is_panic() => Err(panic_message(error.into_panic().as_ref())),
                    // Aborted: the actor that would hear of it is gone.
                    Ok(()) | Err(_) => Ok(()),
                };
                let _ = myself.cast(ShardMessage::DriverEnded(ended));
            });
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<ShardMessage>,
        message: ShardMessage,
        state: &mut ShardState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShardMessage::UpdatePresence(presence, reply) => {
                let accepted = state.presence.send(Some(presence));
                let _ = reply.send(accepted.map_err(|_| CommandRejected::ShardEnded { shard: state.shard }));
            }
            ShardMessage::Command(command, reply) => state.commands.send(command, reply),
            ShardMessage::Restart(by) => {
                drop(state.control(Control::Reconnect { fresh: by == RestartBy::Identify }));
            }
            ShardMessage::CrashDrill => drop(state.control(Control::Crash)),
            ShardMessage::Stop => state.end(Control::Stop),
            ShardMessage::Detach => state.end(Control::Detach),
            ShardMessage::QueueReplaced(queue) => drop(state.queue.send_replace(queue)),
            ShardMessage::Turn => state.granted(Control::Turn),
            ShardMessage::Permit(permit) => state.granted(Control::Permit(permit)),
            ShardMessage::BecameReady => state.report(ShardReport::Ready),
            ShardMessage::GatewayUrl(url) => drop(state.control(Control::GatewayUrl(url))),
            ShardMessage::AskGateway => state.report(ShardReport::AskGateway),
            ShardMessage::Refused(refusal) => state.report(ShardReport::Refused(refusal)),
            ShardMessage::DriverEnded(Ok(())) => {
                state.life.set_over();
                state.report(ShardReport::Ended);
                myself.stop(None);
            }
            // The manager hears of it as our supervisor.
            ShardMessage::DriverEnded(Err(panic)) => return Err(Box::new(DriverPanicked(panic))),
        }
        Ok(())
    }
}

impl ShardState {
    fn control(&self, control: Control) -> Result<(), TrySendError<Control>> {
        self.control.try_send(control)
    }

    /// What could not be handed on is unspent, and goes back.
    fn granted(&self, control: Control) {
        if self.control(control).is_err() {
            let (shard, incarnation) = (self.shard, self.life.incarnation());
            let _ = self.queue.borrow().cast(QueueMessage::Leave { shard, incarnation });
        }
    }

    /// A driver too busy to be told ends without a farewell; its session stays.
    fn end(&mut self, control: Control) {
        if self.control(control).is_err() {
            self.driver = None;
        }
    }

    fn report(&self, report: ShardReport) {
        let (shard, incarnation) = (self.shard, self.life.incarnation());
        let _ = self.manager.cast(ManagerMessage::Report { shard, incarnation, report });
    }
}
