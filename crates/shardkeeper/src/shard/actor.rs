//! The actor of one shard, which is the address of its driver.
//!
//! Input: messages from the manager, the identify queue and the bot. Output: controls to the driver, which
//! does all the work, and reports to the manager.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use shardkeeper_proto::{PresenceUpdate, ShardConfig};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::driver::{self, Control, Inputs};
use super::life::{Life, Running};
use super::parts::{Parts, Peers};
use crate::command::{CommandInbox, CommandSender, Origin, Parcel, PendingCommand};
use crate::error::CommandError;
use crate::layout::ShardKey;
use crate::message::{GivenUpCommands, ManagerMessage, QueueMessage, RestartBy, ShardMessage, ShardReport};
use crate::task::{AbortOnDrop, panic_message};

/// The number of controls that may wait for a driver. The driver takes them before anything else, so only a
/// burst can fill the queue.
const CONTROL_CAPACITY: usize = 64;

/// The actor of one shard. A crash costs no session, layout or presence, because the manager keeps them.
#[expect(clippy::exhaustive_structs, reason = "names the actor; what it knows is in its state")]
pub struct ShardActor;

/// The arguments that start a [`ShardActor`]. Only the manager creates them.
pub struct ShardArguments {
    pub(crate) config: ShardConfig,
    pub(crate) parts: Parts,
    pub(crate) commands: (CommandSender, CommandInbox),
    pub(crate) presence: Option<PresenceUpdate>,
    pub(crate) queue: ActorRef<QueueMessage>,
    pub(crate) manager: ActorRef<ManagerMessage>,
    pub(crate) running: Running,
}

/// The state of a [`ShardActor`].
pub struct ShardState {
    shard: ShardKey,
    life: Arc<Life>,
    manager: ActorRef<ManagerMessage>,
    /// The address of the identify queue, which the driver watches.
    queue: watch::Sender<ActorRef<QueueMessage>>,
    /// The newest presence. Discord allows 5 updates in 20 s (GW-161), so a driver that is late sends only
    /// the newest.
    presence: watch::Sender<Option<PresenceUpdate>>,
    control: mpsc::Sender<Control>,
    commands: CommandSender,
    /// The arguments of the driver, until the actor starts it.
    start: Option<driver::Start>,
    /// Aborts the driver whenever the actor ends. The connection then closes without a close frame, so the
    /// session stays resumable.
    driver: Option<AbortOnDrop>,
}

/// The driver panicked, so one of shardkeeper's own invariants does not hold.
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
        let ShardArguments { config, parts, commands, presence, queue, manager, running } = arguments;
        let (shard, life) = (parts.shard, Arc::clone(&parts.life));
        let (control, controls) = mpsc::channel(CONTROL_CAPACITY);
        let (commands, inbox) = commands;
        let (queue, queue_address) = watch::channel(queue);
        let (presence, newest_presence) = watch::channel(presence);
        let inputs = Inputs { control: controls, commands: inbox.0, presence: newest_presence };
        let peers = Peers { actor: myself, manager: manager.clone(), queue: queue_address };
        let start = Some(driver::Start { config, parts, peers, inputs, running });
        Ok(ShardState { shard, life, manager, queue, presence, control, commands, start, driver: None })
    }

    async fn post_start(
        &self,
        myself: ActorRef<ShardMessage>,
        state: &mut ShardState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(start) = state.start.take() {
            let driver = tokio::spawn(driver::run(start));
            state.driver = Some(AbortOnDrop(driver.abort_handle()));
            tokio::spawn(async move {
                let ended = match driver.await {
                    Err(error) if error.is_panic() => Err(panic_message(error.into_panic().as_ref())),
                    // The driver was aborted together with the actor that would receive this message.
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
                let _ = reply.send(accepted.map_err(|_| CommandError::ShardEnded { shard: state.shard.id }));
            }
            ShardMessage::Command(command, reply) => {
                state.commands.send(Parcel::One(PendingCommand { command, origin: Origin::Bot(reply) }));
            }
            ShardMessage::GiveUpCommands => {
                if state.control(Control::GiveUpCommands).is_err() {
                    // The driver, too busy to take the order, sends them itself.
                    let (shard, commands) = (state.shard, GivenUpCommands(Vec::new()));
                    let _ = state.manager.cast(ManagerMessage::CommandsGivenUp { shard, commands });
                }
            }
            ShardMessage::Restart(by) => {
                drop(state.control(Control::Reconnect { fresh: by == RestartBy::Identify }));
            }
            ShardMessage::Probe(number) => drop(state.control(Control::Probe(number))),
            ShardMessage::CrashDrill => drop(state.control(Control::Crash)),
            ShardMessage::Stop => state.end(Control::Stop),
            ShardMessage::Detach => state.end(Control::Detach),
            ShardMessage::QueueReplaced(queue) => drop(state.queue.send_replace(queue)),
            ShardMessage::ConnectGrant => state.granted(Control::ConnectGrant),
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
            // The manager learns of the error as the supervisor of this actor.
            ShardMessage::DriverEnded(Err(panic)) => return Err(Box::new(DriverPanicked(panic))),
        }
        Ok(())
    }
}

impl ShardState {
    fn control(&self, control: Control) -> Result<(), TrySendError<Control>> {
        self.control.try_send(control)
    }

    /// Passes a grant to the driver. If that fails, the grant is unspent and is given back to the queue.
    fn granted(&self, control: Control) {
        if self.control(control).is_err() {
            let (shard, incarnation) = (self.shard, self.life.incarnation());
            let _ = self.queue.borrow().cast(QueueMessage::Leave { shard, incarnation });
        }
    }

    /// Ends the driver. A driver too busy to take the control is aborted instead, which keeps its session.
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
